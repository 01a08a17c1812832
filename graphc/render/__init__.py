"""Pictures of models: a view describes boxes, edges and clusters (`picture`), `dot` prints them, `draw` has them laid out.

graph → outline (what is a box, what only a mark) → a view (forward, joint, backward, fused) → Picture → DOT → SVG
"""
