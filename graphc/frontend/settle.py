"""What a trace leaves open until the whole model is known: of which values gradients are taken.

Equal nodes are one, but zeros that a model makes twice are meant as two values where it takes a gradient of one. So each
array of numbers that it makes is set apart while the model is traced, and those of which no gradient is taken are
what they hold again. And a step of a loop captures whatever it reads from outside; what is cheap to do of it, such as a
transposition, the step then does itself, but for values of which gradients are taken: the loop would not depend on them.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from ..graph.body import make_body, replaced
from ..graph.graph import Graph, SideTables, with_operands
from ..graph.node import Node
from ..ops.scan import Scan, with_body
from .scan import captures

APART = "tag"
"""The attribute by which a watched value is like no other."""
CHEAP = ("const", "size", "arange", "transpose", "reshape", "broadcast_to", "slice")
"""What a step does itself with what it captures; of constants the numbers."""


def settle(graph: Graph) -> Graph:
    """The graph of a whole model without what was set apart, or captured by the steps of loops, for nothing."""
    targets = _targets(graph.nodes)
    new_targets: set[Node] = set()

    def change(node: Node, operands: tuple[Node, ...]) -> Node:
        new = with_operands(node, operands)
        if node.op == "watched" and node not in targets and any(name == APART for name, _ in node.attrs):
            (new,) = operands
        elif node.op == "scan":
            new = with_body(_narrowed(Scan.of(new), new_targets, graph.tables).node(), settle, graph.tables)
        if node in targets:
            new_targets.add(new)
        return new

    return graph.rewrite(change)


def _targets(nodes: Collection[Node]) -> set[Node]:
    """The values of which gradients are taken."""
    return {n.operands[1] for n in nodes if n.op == "grad"}


def _narrowed(scan: Scan, apart: Collection[Node], tables: SideTables) -> Scan:
    """The loop whose step does itself what is cheap of what it captured, down to the values that are apart."""
    body = scan.body
    targets = _targets(body.nodes)
    shared = list(zip(body.given, scan.given, strict=True))
    kept = [(v, o) for v, o in shared if v in targets]  # equal ones stay two
    inside = [*body.carries, *body.elements, *(v for v, _ in kept)]
    own = [Node("input", (), v.type, name=f"own:{k}") for k, v in enumerate(inside)]
    put = dict(zip(inside, own, strict=True)) | {v: o for v, o in shared if v not in targets}

    def is_cheap(node: Node) -> bool:
        return node not in apart and node.op in CHEAP and not (node.op == "const" and node.shape)

    results = replaced(body.results, put, tables)
    captured = captures(results, set(own), is_cheap)
    n, m = len(body.carries), len(body.carries) + len(body.elements)
    narrow = make_body(own[:n], own[n:m], [*own[m:], *captured], results, tables)
    return replace(scan, body=narrow, given=(*(o for _, o in kept), *captured))
