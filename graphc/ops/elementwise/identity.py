"""Rows whose mathematics is the identity: a value under another type, or marked for the compiler."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ...graph.dtype import DType, i64
from ..row import Sample
from .row import ONE, Elementwise, by_name


@dataclass(frozen=True, kw_only=True)
class Cast(Elementwise):
    """Conversion to another element type; as mathematics it is the identity."""

    def result_dtype(self, dtype: DType, attrs: Mapping[str, Any]) -> DType:
        return attrs["dtype"]


ROWS = by_name(
    Cast(
        name="cast",
        math=lambda x: x,
        oracle=lambda x, dtype=None: x if dtype is None else x.astype(dtype.numpy),
        samples=(Sample(((3, 4),), ((-2.0, 2.0),), {"dtype": i64}),),
        latex="{0}",
        primitive=True,
    ),
    # a value that a gradient is taken with respect to: the identity, which no rule looks through
    Elementwise(name="watched", math=lambda x: x, oracle=lambda x: x, samples=ONE, latex="{0}", eval=lambda x: x),
    # a value whose derivative is declared zero
    Elementwise(
        name="stop_gradient",
        math=lambda x: x,
        oracle=lambda x: x,
        samples=ONE,
        latex="{0}",
        differentiable=False,
        eval=lambda x: x,
    ),
)
