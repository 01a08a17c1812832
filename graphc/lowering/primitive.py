"""Operations in terms of what every code generator can print: a row's `eval` form, or its mathematics."""

from __future__ import annotations

from functools import cache

from ..graph import scalar as sc
from ..graph.dtype import DType
from ..graph.scalar import Scalar
from ..ops.elementwise import ROWS
from ..symbolic.bridge import from_sympy


def primitive(expression: Scalar) -> Scalar:
    """The expression with its outermost operation written in primitives; its arguments are in them already."""
    row = ROWS.get(expression.op)
    if row is None or row.primitive:
        return expression
    form = _form(expression.op, tuple(a.dtype for a in expression.args), expression.dtype)
    return sc.fold(
        sc.substitute(form, expression.args),
        lambda e, args: (
            e
            if e.op in sc.LEAVES or e.op in ("load", "local", "access")
            else primitive(Scalar(e.op, args, e.dtype, e.value))
        ),
    )


@cache
def _form(name: str, dtypes: tuple[DType, ...], result: DType) -> Scalar:
    """A row's body over arg 0, arg 1, …"""
    row = ROWS[name]
    args = tuple(sc.arg(k, d) for k, d in enumerate(dtypes))
    if row.eval is not None:
        return row.eval(*args)
    return from_sympy(row.expression, dict(zip(row.symbols, args, strict=True)), result)
