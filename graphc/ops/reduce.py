"""Rows of reductions over axes: sum, max, min, argmax. The reduced axes leave the shape (keepdims is a reshape)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import TraceError
from ..graph import scalar as sc
from ..graph.dtype import bool_, i64
from ..graph.formula import Clause, Formula, Read, identity, var
from ..graph.node import Node, TensorType
from ..graph.scalar import Scalar
from ..graph.size import size
from .row import Fit, Row, Sample, check_axis, check_count


@dataclass(frozen=True, kw_only=True)
class Reduction(Row):
    """out[kept axes] ⊕= x[p] over the attribute `axes` (sorted, not negative)."""

    reduce: str

    def infer(self, types: Sequence[TensorType], attrs: Mapping[str, Any], fit: Fit) -> TensorType:
        check_count(self.name, types, 1)
        (x,) = types
        if x.dtype is bool_:
            raise TraceError(f"{self.name} takes numbers, not bool", how="convert it with gc.cast")
        for axis in attrs["axes"]:
            check_axis(self.name, axis, x.rank)
            if self.reduce != "sum":
                fit.at_least(x.shape[axis], size(1), f"{self.name} over axis {axis} of {x}: of nothing it has no value")
        shape = tuple(e for d, e in enumerate(x.shape) if d not in attrs["axes"])
        return TensorType(i64 if self.reduce == "argmax" else x.dtype, shape)

    def formula(self, node: Node) -> Formula:
        (x,) = node.operands
        axes = node.attr("axes")
        kept = [d for d in range(x.type.rank) if d not in axes]
        # the box has the kept axes first, then the reduced ones
        place = {d: i for i, d in enumerate([*kept, *axes])}
        from_operand = tuple(var(place[d]) for d in range(x.type.rank))
        box = tuple(x.shape[d] for d in [*kept, *axes])
        clause = Clause(box, (Read(0, from_operand),), sc.arg(0, x.dtype), identity(len(kept)))
        return Formula((clause,), self.reduce, initial(self.reduce, node) if self.reduce != "argmax" else None)


def initial(reduce: str, node: Node) -> Scalar:
    """The neutral element of a reduction."""
    if reduce in ("sum", "prod"):
        return sc.const(0 if reduce == "sum" else 1, node.dtype)
    low = reduce == "max"
    if node.dtype.is_float:
        return sc.const(float("-inf") if low else float("inf"), node.dtype)
    info = np.iinfo(node.dtype.numpy)
    return sc.const(int(info.min if low else info.max), node.dtype)


def _sample(**attrs: Any) -> Sample:
    return Sample(((2, 3, 4),), ((-2.0, 2.0),), attrs)


_SAMPLES = (_sample(axes=(0,)), _sample(axes=(2,)), _sample(axes=(0, 2)), _sample(axes=(0, 1, 2)), _sample(axes=()))


def _argmax(x: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    moved = np.moveaxis(x, axes, tuple(range(x.ndim - len(axes), x.ndim)))
    return np.argmax(moved.reshape(*moved.shape[: x.ndim - len(axes)], -1), -1)


ROWS: dict[str, Row] = {
    row.name: row
    for row in (
        Reduction(
            name="sum", reduce="sum", latex="\\sum {0}", oracle=lambda x, axes: np.sum(x, axes), samples=_SAMPLES
        ),
        Reduction(
            name="max", reduce="max", latex="\\max {0}", oracle=lambda x, axes: np.max(x, axes), samples=_SAMPLES
        ),
        Reduction(
            name="min", reduce="min", latex="\\min {0}", oracle=lambda x, axes: np.min(x, axes), samples=_SAMPLES
        ),
        # the position of the first maximum, counted over the reduced axes in row-major order
        Reduction(
            name="argmax",
            reduce="argmax",
            latex="\\operatorname{{argmax}} {0}",
            oracle=_argmax,
            samples=_SAMPLES[:4],
            differentiable=False,
        ),
    )
}
