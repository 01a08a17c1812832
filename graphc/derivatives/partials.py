"""Partial derivatives of the elementwise rows: SymPy's, once per row, in the inputs and the output `y`.

What the compiler computes with, `template`, is kept between processes: it is the same until a row, SymPy or the code
that asks it changes.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from .. import store
from ..errors import GraphError
from ..graph import scalar as sc
from ..graph import text
from ..graph.dtype import DType
from ..graph.scalar import Scalar
from ..ops.elementwise import ROWS
from ..ops.elementwise.row import Elementwise
from ..symbolic import bridge
from ..symbolic.bridge import from_sympy
from ..symbolic.lazy import sp


def __getattr__(name: str) -> Any:
    if name == "Y":  # loads SymPy
        return output()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


@cache
def output() -> sp.Symbol:
    """The symbol of an operation's output, y."""
    return sp.Symbol("y", real=True)


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
        return row.stable[k](*row.symbols, output())
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
        in_g, plain_in_g = f.subs(generator, g), plain.subs(generator, g)
        if in_g.has(x) or plain_in_g.has(x):
            continue
        for solution in [output()] if in_g == g else sp.solve(sp.Eq(in_g, output()), g):
            candidate = sp.factor_terms(sp.expand(plain_in_g.subs(g, solution)))
            if not candidate.has(g):
                return candidate
    return plain


def _is_root(e: sp.Basic) -> bool:
    return isinstance(e, sp.Pow) and e.exp == sp.Rational(1, 2)


# -- as the compiler computes them -----------------------------------------------------------------------------------
@cache
def template(name: str, k: int, dtype: DType) -> Scalar:
    """The partial as a scalar expression: arg i is the i-th input, arg n (n inputs) the output."""
    # whoever puts another `partial` in its place neither reads nor writes what is kept
    kept = _kept_as(ROWS[name], k, dtype) if partial is _OWN else None
    known = store.get(kept) if kept else None
    if known is not None:
        return text.parse_scalar(known.decode())
    found = _template(name, k, dtype)
    if kept:
        store.put(kept, sc.to_text(found).encode())
        _keep_others(dtype)
    return found


def _keep_others(dtype: DType) -> None:
    """Keep every row's templates: loading SymPy, as has now been done, costs more than all of them."""
    for name, row in ROWS.items():
        for k in range(row.arity):
            kept = _kept_as(row, k, dtype)
            if kept is not None and store.get(kept) is None:
                store.put(kept, sc.to_text(_template(name, k, dtype)).encode())


_OWN = partial


def _template(name: str, k: int, dtype: DType) -> Scalar:
    row = ROWS[name]
    values: dict[sp.Symbol, Scalar] = {s: sc.arg(i, dtype) for i, s in enumerate(row.symbols)}
    values[output()] = sc.arg(row.arity, dtype)
    return from_sympy(partial(name, k), values, dtype)


def _kept_as(row: Elementwise, k: int, dtype: DType) -> str | None:
    """The name under which a template is kept: a hash of all it depends on. None for a row that no file states."""
    stated = [row.math, *(row.stable or {}).values()]
    try:
        files, version = [_digest(f.__code__.co_filename) for f in stated], _version()
    except OSError:
        return None
    code = [(f.__code__.co_firstlineno, f.__code__.co_code.hex(), f.__code__.co_names) for f in stated]
    options = row.differentiable, row.condition, row.bools, row.reuse, list(row.stable or ())
    parts = json.dumps([row.name, k, dtype.name, files, code, options, version])
    return f"{hashlib.sha256(parts.encode()).hexdigest()}.partial"


@cache
def _digest(file: str) -> str:
    return hashlib.sha256(Path(file).read_bytes()).hexdigest()


@cache
def _version() -> list[str]:
    """What turns a row's mathematics into a template: SymPy, and the code that asks it."""
    return [importlib.metadata.version("sympy"), *(_digest(f) for f in (__file__, bridge.__file__, sc.__file__, text.__file__))]
