"""Constant folding of scalar expressions: operations on numbers are done now, as NumPy does them."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from ..graph import scalar as sc
from ..graph.scalar import Scalar
from .elementwise import ROWS


def evaluate(op: str, values: list[Any], dtype: np.dtype) -> np.ndarray:
    """An elementwise operation on NumPy values, in its own precision; no warnings (log(0) is -inf)."""
    row = ROWS[op]
    assert row.oracle is not None
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        return np.asarray(row.oracle(*values)).astype(dtype)


def fold_scalar(expression: Scalar) -> Scalar:
    """The expression with operations on constants done, and choices on constant conditions made."""

    def visit(e: Scalar, args: tuple[Scalar, ...]) -> Scalar:
        if e.op in sc.LEAVES:
            return e
        if e.op == "where" and args[0].op == "const":
            return args[1] if args[0].value else args[2]
        if all(a.op == "const" for a in args):
            result = evaluate(e.op, [np.asarray(a.value, a.dtype.numpy)[()] for a in args], e.dtype.numpy)
            return sc.const(result.item(), e.dtype)
        return Scalar(e.op, args, e.dtype, e.value)

    return sc.fold(expression, visit)
