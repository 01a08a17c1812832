"""The row of loops: `scan`, a step repeated along the first axis of arrays, and `item`, one of its results.

    carry₀ = init;   carryₜ₊₁, yₜ = step(carryₜ, xₜ, given)   for t = 0 … length − 1, or from the last to the first

Operands are the initial carries, the arrays whose elements the steps take, and what all steps share. Results are the
last carries, what the steps gave, stacked along a first axis, and the paths of some carries: `length + 1` values each.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..errors import TraceError
from ..graph import scalar as sc
from ..graph.body import Body
from ..graph.dtype import bool_, i64
from ..graph.formula import Clause, Formula, Read, identity, var
from ..graph.graph import Graph, SideTables
from ..graph.node import Node, TensorType, TupleType, tuple_type
from ..graph.scalar import Scalar
from ..graph.size import Size, size
from .row import Fit, Row, Sample, check_count

MOVEMENTS = frozenset(("transpose", "reshape", "broadcast_to", "slice", "concat"))
COMPARISONS = frozenset(("less", "less_equal", "greater", "greater_equal", "equal", "not_equal", "within"))
LOGIC = frozenset(("logical_and", "logical_or", "logical_not", "where"))
ARITHMETIC = frozenset(
    ("add", "sub", "mul", "div", "neg", "maximum", "minimum", "abs", "relu", "step", "sign", "floor")
)
SAME = frozenset(("cast", "stop_gradient", "watched", "arange", "const", "size", "input"))
LIGHT = MOVEMENTS | COMPARISONS | LOGIC | ARITHMETIC | SAME
"""Operations that are done where their result is read, at no cost worth a pass over memory: they are rather done again
than their result kept for every step."""


@dataclass(frozen=True)
class Scan:
    """A scan node taken apart; `node()` puts it together.

    recompute: what a step computes is computed again for the derivative, instead of being kept for every step.
    paths: carries, by number, whose values before, between and after all steps are results too.
    """

    body: Body
    length: Size
    init: tuple[Node, ...]
    xs: tuple[Node, ...]
    given: tuple[Node, ...]
    reverse: bool = False
    recompute: bool = False
    paths: tuple[int, ...] = ()

    @staticmethod
    def of(node: Node) -> Scan:
        """The parts of a scan node."""
        body: Body = node.attr("body")
        first, last = len(body.carries), len(body.carries) + len(body.elements)
        operands = node.operands
        attrs = (node.attr(name) for name in ("reverse", "recompute", "paths"))
        return Scan(body, node.attr("length"), operands[:first], operands[first:last], operands[last:], *attrs)

    @property
    def operands(self) -> tuple[Node, ...]:
        return (*self.init, *self.xs, *self.given)

    def node(self) -> Node:
        """The scan as a node."""
        kind = results_of(self.body, self.length, self.paths)
        attrs = {"length": self.length, "reverse": self.reverse, "recompute": self.recompute, "paths": self.paths}
        return Node("scan", self.operands, kind, body=self.body, **attrs)

    def last(self, k: int) -> Node:
        """The k-th carry after the last step."""
        return item(self.node(), k)

    def stacked(self, j: int) -> Node:
        """The j-th thing that each step gives, of all steps."""
        return item(self.node(), len(self.body.carries) + j)


def with_body(node: Node, change: Callable[[Graph], Graph], tables: SideTables) -> Node:
    """A scan whose step, as a graph, is changed into another that computes the same results."""
    body: Body = node.attr("body")
    graph = body.graph("step", tables)
    changed = change(graph)
    if changed.roots == graph.roots:
        return node
    return replace(Scan.of(node), body=replace(body, results=changed.roots)).node()


def results_of(body: Body, length: Size, paths: Sequence[int]) -> TupleType:
    """The type of a scan."""
    carries = [n.type for n in body.carries]
    stacks = [TensorType(n.dtype, (length, *n.shape)) for n in body.gives]
    return tuple_type(
        [*carries, *stacks, *(TensorType(carries[k].dtype, (length + 1, *carries[k].shape)) for k in paths)]
    )


def item(node: Node, index: int) -> Node:
    """One result of a node that has several."""
    assert isinstance(node.type, TupleType)
    return Node("item", (node,), node.type.items[index], index=index)


@dataclass(frozen=True, kw_only=True)
class ScanRow(Row):
    """See the module."""

    def infer(self, types: Sequence[TensorType], attrs: Mapping[str, Any], fit: Fit) -> TensorType:
        body, length = attrs["body"], attrs["length"]
        check_count(self.name, types, len(body.inputs))
        shared = len(body.carries) + len(body.elements)
        for k, (operand, inner) in enumerate(zip(types, body.inputs, strict=True)):
            stacked = len(body.carries) <= k < shared
            wanted = TensorType(inner.dtype, (length, *inner.shape)) if stacked else inner.type
            if operand != wanted:
                raise TraceError(f"scan: the operand {k} has the type {operand}, its step takes {wanted}")
        for k, (old, new) in enumerate(zip(body.carries, body.new_carries, strict=True)):
            if old.type != new.type:
                raise TraceError(f"scan: the carry {k} changes from {old.type} to {new.type}")
        return results_of(body, length, attrs["paths"])


@dataclass(frozen=True, kw_only=True)
class Item(Row):
    """The result number `index` of a node with several."""

    def infer(self, types: Sequence[TensorType], attrs: Mapping[str, Any], fit: Fit) -> TensorType:
        check_count(self.name, types, 1)
        (kind,) = types
        if not isinstance(kind, TupleType) or not 0 <= attrs["index"] < len(kind.items):
            raise TraceError(f"item {attrs['index']} of {kind}: there is no such result")
        return kind.items[attrs["index"]]


@dataclass(frozen=True, kw_only=True)
class Within(Row):
    """out[t, b] = t ≤ last[b] for t below the attribute `length`: the steps that belong to a sequence of a batch.

    The operand holds the last step of each sequence, checked to be one of the steps.
    """

    def infer(self, types: Sequence[TensorType], attrs: Mapping[str, Any], fit: Fit) -> TensorType:
        check_count(self.name, types, 1)
        (last,) = types
        if last.dtype.kind != "i" or last.rank != 1:
            raise TraceError(f"lengths are integers, one for each sequence of the batch, not {last}")
        return TensorType(bool_, (attrs["length"], *last.shape))

    def formula(self, node: Node) -> Formula:
        (last,) = node.operands
        here = Scalar("index", (), i64, var(0))
        end = sc.arg(0, last.dtype) if last.dtype is i64 else Scalar("cast", (sc.arg(0, last.dtype),), i64)
        body = Scalar("less_equal", (here, end), bool_)
        clause = Clause(node.shape, (Read(0, (var(1),)),), body, identity(2))
        return Formula((clause,), checks=((0, node.attr("length")),))


ROWS: dict[str, Row] = {
    row.name: row
    for row in (
        ScanRow(name="scan", latex="\\mathrm{{scan}}"),
        Item(name="item", latex="{0}"),
        Within(
            name="within",
            latex="t \\le {0}",
            oracle=lambda last, length: np.arange(int(length))[:, None] <= last[None, :],
            samples=(Sample(((3,),), ((0, 4),), {"length": size(4)}),),
            differentiable=False,
        ),
    )
}
