"""Every row's adjoint on every operand pattern of its samples: the proofs that hold whatever model uses the row."""

from __future__ import annotations

from functools import cache

from ..graph.dtype import DType, bool_, f64, i64
from ..graph.node import Node, TensorType
from ..graph.size import size
from ..ops import build
from ..ops.leaves import LEAVES
from ..ops.row import Row, Sample
from ..ops.table import ROWS
from .adjoints import check, describe, generalised
from .certificate import Finding

# leaves, what is expanded, what adjoints themselves are written in, and loops, which are checked as models have them
NO_SAMPLES = (*LEAVES, "grad", "formula", "scan", "item")


def differentiable() -> dict[str, Row]:
    """The rows that a gradient may flow through."""
    return {n: r for n, r in ROWS.items() if n not in NO_SAMPLES and r.differentiable}


def pattern(row: Row, sample: Sample) -> Node:
    """A row over inputs of a sample's shapes, sizes made symbols where the row allows it."""
    operands = (
        Node("input", (), TensorType(_dtype(row, k), tuple(map(size, shape))), name=f"x{k}")
        for k, shape in enumerate(sample.shapes)
    )
    return generalised(build.make(row.name, *operands, **sample.attrs))


def _dtype(row: Row, position: int) -> DType:
    if row.name in ("take", "take_along") and position == 1:
        return i64
    return bool_ if getattr(row, "condition", False) and position == 0 else f64


@cache
def proofs() -> tuple[Finding, ...]:
    """A finding for each differentiable row and each of its patterns."""
    patterns = {p: None for row in differentiable().values() for p in (pattern(row, s) for s in row.samples)}
    return tuple({f.subject: f for f in (check(p, describe(p)) for p in patterns if p.dtype.is_float)}.values())
