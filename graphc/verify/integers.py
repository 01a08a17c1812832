"""Which integers the look-ups of a model allow its inputs to hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..graph.graph import Graph
from ..graph.node import Node
from ..ops import build
from ..ops.scan import MOVEMENTS
from ..ops.table import ROWS

Range = tuple[int, int]
"""The least and the largest."""
HELD = (*MOVEMENTS, "cast", "where", "maximum", "minimum")
"""Operations whose elements are elements of their operands."""


def allowed(graph: Graph, sizes: Mapping[str, int]) -> dict[Node, Range]:
    """The range of each integer input or variable that comes to a look-up, moved, shifted or chosen, in loops too.

    Others may hold what they like; of those that are computed with in another way, nothing is known here.
    """
    search = _Search(sizes)
    search.step(graph.nodes, ())
    return search.found


class _Search:
    """A walk from each look-up back to where its indices come from."""

    def __init__(self, sizes: Mapping[str, int]):
        self.sizes = sizes
        self.found: dict[Node, Range] = {}
        self.seen: set[tuple[Node, Range, tuple[Node, ...]]] = set()

    def step(self, nodes: Sequence[Node], loops: tuple[Node, ...]) -> None:
        """The look-ups of a graph, or of the step of a loop; `loops` are those around it, the innermost last."""
        for node in nodes:
            if node.op == "scan":
                self.step(node.attr("body").nodes, (*loops, node))
                continue
            formula = ROWS[node.op].formula(node)
            if formula is not None:
                for k, length in formula.indices([o.shape for o in node.operands], node.shape):
                    self.reach(node.operands[k], (0, length.evaluate(self.sizes) - 1), loops)

    def reach(self, node: Node, span: Range, loops: tuple[Node, ...]) -> None:
        """A value must lie in a range: what it comes from must lie in one too."""
        if node.dtype.kind != "i" or (node, span, loops) in self.seen:
            return
        self.seen.add((node, span, loops))
        low, high = span
        if node.op == "input" and loops:
            *outer, loop = loops
            self.reach(loop.operands[loop.attr("body").inputs.index(node)], span, tuple(outer))
        elif node.op in ("input", "state", "param"):
            least, most = self.found.get(node, span)
            self.found[node] = max(low, least), min(high, most)
        elif node.op in HELD:
            for operand in node.operands:
                self.reach(operand, span, loops)
        elif node.op == "take":
            self.reach(node.operands[0], span, loops)
        elif node.op in ("add", "sub"):
            a, b = node.operands
            sign = 1 if node.op == "add" else -1
            if (number := self._number(b)) is not None:
                self.reach(a, (low - sign * number, high - sign * number), loops)
            elif (number := self._number(a)) is not None:
                ends = (sign * (low - number), sign * (high - number))
                self.reach(b, (min(ends), max(ends)), loops)

    def _number(self, node: Node) -> int | None:
        """The value of a constant or a size, the same everywhere."""
        while node.op in MOVEMENTS and len(node.operands) == 1:
            (node,) = node.operands
        if node.op == "size":
            return int(node.attr("value").evaluate(self.sizes))
        number = build.const_value(node)
        return None if number is None else int(number)
