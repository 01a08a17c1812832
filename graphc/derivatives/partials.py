"""Partial derivatives of the elementwise rows: SymPy's, once per row, in the inputs and the output `y`."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import sympy as sp

from ..errors import GraphError
from ..graph import scalar as sc
from ..graph.dtype import DType
from ..graph.scalar import Scalar
from ..ops.elementwise import ROWS, Elementwise
from ..symbolic.bridge import from_sympy

Y = sp.Symbol("y", real=True)


@dataclass(frozen=True)
class Operation:
    """An operation as mathematics: its inputs, its expression, and its partial derivatives in the inputs and `y`."""

    name: str
    inputs: tuple[sp.Symbol, ...]
    expression: sp.Basic
    partials: tuple[sp.Basic, ...]

    def _repr_latex_(self) -> str:
        """The operation and its partial derivatives, as a notebook shows them."""
        lines = [f"y &= {sp.latex(self.expression)}"]
        for symbol, partial in zip(self.inputs, self.partials, strict=True):
            lines.append(f"\\frac{{\\partial y}}{{\\partial {symbol}}} &= {sp.latex(partial)}")
        body = " \\\\ ".join(lines)
        return f"$$\\begin{{aligned}} {body} \\end{{aligned}}$$"


def op(name: str) -> Operation:
    """The mathematics of an elementwise operation: `gc.op("tanh").partials` is `(1 - y**2,)`."""
    if name not in ROWS:
        raise GraphError(f"there is no elementwise operation {name!r}", how=f"one of {', '.join(ROWS)}")
    row = ROWS[name]
    return Operation(name, row.symbols, row.expression, tuple(partial(name, k) for k in range(len(row.symbols))))


@cache
def derived(name: str, k: int) -> sp.Basic:
    """∂f/∂(k-th input) as SymPy takes it from the row's mathematics, branch by branch."""
    row = ROWS[name]
    if not row.differentiable or (row.condition and k == 0):
        return sp.Integer(0)
    return differentiate(row.expression, row.symbols[k])


def differentiate(expression: sp.Basic, symbol: sp.Symbol) -> sp.Basic:
    """The derivative; of a Piecewise that of each branch, under the same conditions."""
    if isinstance(expression, sp.Piecewise):
        branches = [(sp.diff(e, symbol), c) for e, c in expression.args]
        # evaluate=False: SymPy must not merge branches or reorder conditions
        return sp.Piecewise(*branches, evaluate=False)
    return sp.powsimp(sp.diff(expression, symbol))


@cache
def partial(name: str, k: int) -> sp.Basic:
    """The partial that is computed: the derived one, through the output where that is cheaper, or the row's stable form."""
    row = ROWS[name]
    if row.stable and k in row.stable:
        return row.stable[k](*row.symbols, Y)
    plain = derived(name, k)
    return through_output(row, plain) if row.reuse and len(row.symbols) == 1 else plain


def through_output(row: Elementwise, plain: sp.Basic) -> sp.Basic:
    """The partial with the inputs expressed by the output y, if it then needs none of them; else as it is.

    y = f(g(x)) is solved for the transcendental g: for the sigmoid e^-x = 1/y - 1, so that
    e^-x/(1 + e^-x)² = y(1 - y).
    """
    (x,) = row.symbols
    f = row.expression
    if not plain.has(x) or f.has(sp.Piecewise):
        return plain
    generators = [e for e in sp.preorder_traversal(f) if e.has(x) and (isinstance(e, sp.Function) or _is_root(e))]
    g = sp.Dummy("g", positive=True)
    for generator in generators:
        in_g = f.subs(generator, g)
        if in_g.has(x):
            continue
        for solution in sp.solve(sp.Eq(in_g, Y), g):
            candidate = sp.factor_terms(sp.expand(sp.simplify(plain.subs(generator, g).subs(g, solution))))
            if not candidate.has(x) and not candidate.has(g):
                return candidate
    return plain


def _is_root(e: sp.Basic) -> bool:
    return isinstance(e, sp.Pow) and e.exp == sp.Rational(1, 2)


@cache
def template(name: str, k: int, dtype: DType) -> Scalar:
    """The partial as a scalar expression: arg i is the i-th input, arg n (n inputs) the output."""
    row = ROWS[name]
    values: dict[sp.Symbol, Scalar] = {s: sc.arg(i, dtype) for i, s in enumerate(row.symbols)}
    values[Y] = sc.arg(len(row.symbols), dtype)
    return from_sympy(partial(name, k), values, dtype)
