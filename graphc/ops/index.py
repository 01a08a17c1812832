"""Rows that index by the values of an integer array: take and take_along, and the generic `formula`.

Every index is checked at run time; one out of range stops the call with an error that names it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import TraceError
from ..graph import scalar as sc
from ..graph.dtype import i64
from ..graph.formula import Clause, Formula, Index, Lookup, Read, affine, identity, var
from ..graph.node import Node, TensorType
from ..graph.scalar import Scalar
from ..graph.size import size
from .row import Fit, Row, Sample, check_axis, check_count


def _check_indices(name: str, types: Sequence[TensorType], axis: int) -> None:
    check_count(name, types, 2)
    x, indices = types
    check_axis(name, axis, x.rank)
    if indices.dtype.kind != "i":
        raise TraceError(
            f"{name}: the indices have the type {indices.dtype}, not an integer one",
            how="declare them as gc.i32 or gc.i64, or convert them with gc.cast",
        )


@dataclass(frozen=True, kw_only=True)
class Take(Row):
    """out[…, n…, …] = x[…, I[n…], …] along the attribute `axis`: an embedding's look-up."""

    def infer(self, types: Sequence[TensorType], attrs: Mapping[str, Any], fit: Fit) -> TensorType:
        axis = attrs["axis"]
        _check_indices(self.name, types, axis)
        x, indices = types
        return TensorType(x.dtype, (*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :]))

    def formula(self, node: Node) -> Formula:
        x, indices = node.operands
        axis, n = node.attr("axis"), indices.type.rank
        found = Lookup(1, tuple(var(axis + i) for i in range(n)))
        access: tuple[Index, ...] = (
            *(var(d) for d in range(axis)),
            found,
            *(var(d + n - 1) for d in range(axis + 1, x.type.rank)),
        )
        return Formula((Clause(node.shape, (Read(0, access),), sc.arg(0, node.dtype), identity(node.type.rank)),))


@dataclass(frozen=True, kw_only=True)
class TakeAlong(Row):
    """out[p] = x[p with p[axis] replaced by I[p]]: NumPy's take_along_axis, without broadcasting."""

    def infer(self, types: Sequence[TensorType], attrs: Mapping[str, Any], fit: Fit) -> TensorType:
        axis = attrs["axis"]
        _check_indices(self.name, types, axis)
        x, indices = types
        if x.rank != indices.rank:
            raise TraceError(f"take_along: {x} and the indices {indices} have different numbers of axes")
        for d in range(x.rank):
            if d != axis:
                fit.same(
                    x.shape[d],
                    indices.shape[d],
                    f"take_along: {x} and the indices {indices} differ at axis {d}, {x.shape[d]} and {indices.shape[d]}",
                    how=f"all axes but axis {axis} must agree",
                )
        return TensorType(x.dtype, indices.shape)

    def formula(self, node: Node) -> Formula:
        rank, axis = node.type.rank, node.attr("axis")
        access = tuple(Lookup(1, tuple(map(var, range(rank)))) if d == axis else var(d) for d in range(rank))
        return Formula((Clause(node.shape, (Read(0, access),), sc.arg(0, node.dtype), identity(rank)),))


@dataclass(frozen=True, kw_only=True)
class Arange(Row):
    """out[p] = start + step·p; attributes `start`, `step` of sizes, `shape` of one axis."""

    def infer(self, types: Sequence[TensorType], attrs: Mapping[str, Any], fit: Fit) -> TensorType:
        fit.at_least(attrs["shape"][0], size(0), f"arange has the length {attrs['shape'][0]}, which is below 0")
        return TensorType(i64, attrs["shape"])

    def formula(self, node: Node) -> Formula:
        position = Scalar("index", (), i64, affine(node.attr("start"), {0: node.attr("step")}))
        return Formula((Clause(node.shape, (), position, identity(1)),))


@dataclass(frozen=True, kw_only=True)
class Generic(Row):
    """Any formula over the operands, the attribute `formula`: what an adjoint is that has no name of its own."""

    def infer(self, types: Sequence[TensorType], attrs: Mapping[str, Any], fit: Fit) -> TensorType:
        return TensorType(attrs["formula"].clauses[0].body.dtype, attrs["shape"])

    def formula(self, node: Node) -> Formula:
        return node.attr("formula")


def _along(x: np.ndarray, indices: np.ndarray, axis: int) -> np.ndarray:
    return np.take_along_axis(x, indices, axis)


ROWS: dict[str, Row] = {
    row.name: row
    for row in (
        Take(
            name="take",
            latex="{0}[{1}]",
            oracle=lambda x, i, axis: np.take(x, i, axis),
            samples=(
                Sample(((5, 2), (3,)), ((-2, 2), (0, 4)), {"axis": 0}),
                Sample(((2, 5, 3), (2, 2)), ((-2, 2), (0, 4)), {"axis": 1}),
            ),
        ),
        TakeAlong(
            name="take_along",
            latex="{0}[{1}]",
            oracle=_along,
            samples=(
                Sample(((3, 5), (3, 1)), ((-2, 2), (0, 4)), {"axis": 1}),
                Sample(((4, 3), (2, 3)), ((-2, 2), (0, 3)), {"axis": 0}),
            ),
        ),
        Arange(
            name="arange",
            latex="p",
            oracle=lambda start, step, shape: np.arange(int(start), int(start) + int(step) * int(shape[0]), int(step)),
            samples=(Sample((), (), {"start": size(2), "step": size(3), "shape": (size(4),)}),),
            differentiable=False,
        ),
        Generic(name="formula", latex="f({0})"),
    )
}
