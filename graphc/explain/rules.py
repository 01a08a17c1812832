"""What each step of a derivation rests on, in words: the rule of an operation, and how its indices are used."""

from __future__ import annotations

from functools import cache

import sympy as sp

from ..ops.elementwise import ROWS
from ..pipeline import local_derivative
from .adjoint import Use, Y, has_kink, stretched
from .algebra import from_sympy
from .box import Atom, Box, Frac, Row, Script, row, var
from .document import Line, Math
from .expression import Expr, Ref, Symbol, apply, walk
from .typeset import Typesetter

SIMPLE = {
    "add": "linearity",
    "sub": "linearity",
    "neg": "linearity",
    "mul": "product rule",
    "div": "quotient rule",
    "where": "choice: the cotangent goes to the branch that was taken",
    "cast": "conversion: the same value",
}
OPERATIONS = {
    "einsum": "contraction", "take": "look-up", "take_along": "look-up", "mul": "product", "add": "sum of two",
    "sub": "difference", "div": "quotient", "neg": "negation", "sum": "sum over an axis", "max": "maximum over an axis",
    "min": "minimum over an axis", "where": "choice", "concat": "concatenation", "pow": "power", "const": "constant",
    "path": "first state of a loop",
}  # fmt: skip


def operation(use_or_op: str, mean: bool = False, affine: bool = False) -> str:
    """The name of an operation in words."""
    if mean:
        return "mean"
    return "affine map" if affine else OPERATIONS.get(use_or_op, use_or_op)


def rules(use: Use, setter: Typesetter) -> list[Line]:
    """The rules that a local derivative follows."""
    found: list[Line] = []
    ops = [op for op, _ in use.path]
    if "sum" in ops:
        product = "mul" in ops[ops.index("sum") :]
        found.append(
            ("product rule under the sum: the contraction with its roles swapped",)
            if product
            else ("reduction → copy: every term of a sum has the derivative 1",)
        )
    for op, k in use.path:
        if op in ("max", "min"):
            found.append((f"convention of the {op}: the first one that attains it takes the whole cotangent",))
        elif op in SIMPLE:
            known = op == "mul" and "sum" in ops or op == "where" and use.equation.node.op == "concat"
            if not known and (SIMPLE[op],) not in found:
                found.append((SIMPLE[op],))
        elif op in ROWS:
            found.append((f"derivative of {op}: ", *partial_line(op, k, setter)))
            if has_kink(op):
                found.append(kink(op))
    found += [(text,) for text in _indices(use)]
    return found or [("identity",)]


def _indices(use: Use) -> list[str]:
    """What the way that indices are used comes to."""
    node = use.equation.node
    texts = []
    if any(isinstance(x, Ref) for index in use.read.indices for x in walk(index)):
        texts.append("look-up → scatter: an element gathers from all the places that looked it up")
    if stretched(use) and all(op != "sum" for op, _ in use.path):
        texts.append("broadcasting → sum over the stretched axis")
    by_op = {
        "concat": "concatenation → slice",
        "slice": "slice → the rest gets 0",
        "transpose": "transposition → transposition back",
        "reshape": "reshape → the same elements in the old shape",
    }
    return [*texts, by_op[node.op]] if node.op in by_op else texts


@cache
def partial_boxes(op: str, k: int) -> tuple[Expr, Expr, Symbol, Symbol]:
    """(r = op(t), ∂r/∂t as the compiler has it, r, t)"""
    names = ROWS[op].symbols
    letters: list[Box] = [var("t")] if len(names) == 1 else [Script(var("t"), Atom(str(n), "num")) for n in range(1, 4)]
    inputs = [Symbol(f"t{n}", letter, ()) for n, letter in enumerate(letters[: len(names)])]
    output = Symbol("r", var("r"), ())
    values: dict[sp.Symbol, Expr] = {s: Ref(i) for s, i in zip(names, inputs, strict=True)}
    derivative = from_sympy(local_derivative(op, k), values | {Y: Ref(output)})
    return apply(op, *map(Ref, inputs)), derivative, output, inputs[k]


def partial_line(op: str, k: int, setter: Typesetter) -> Line:
    """`r = σ(t) has ∂r/∂t = r (1 − r)`"""
    value, derivative, r, t = partial_boxes(op, k)
    whole = len(ROWS[op].symbols) == 1
    sign = Row((var("d"),)) if whole else Row((Atom("∂", "op"),))
    quotient = Frac(row(*sign.items, r.box), row(*sign.items, t.box))
    return (
        Math(row(r.box, "=", setter.box(value, {}))),
        " has ",
        Math(row(quotient, "=", setter.box(derivative, {}))),
    )


@cache
def kink(op: str) -> Line:
    """The convention at the kink of an operation that is defined by cases, as its partials have it."""
    row_ = ROWS[op]
    if len(row_.symbols) == 1:
        (x,) = row_.symbols
        here = local_derivative(op, 0).subs({x: 0, Y: row_.expression.subs(x, 0)})
        name = {"relu": "ReLU"}.get(op, op)
        return (f"convention at the kink: {name}′(0) = {here}",)
    ties = dict.fromkeys(row_.symbols, sp.Integer(0)) | {Y: sp.Integer(0)}
    values = [local_derivative(op, k).subs(ties) for k in range(len(row_.symbols))]
    ordinal = ("first", "second", "third")
    taker = next((ordinal[k] for k, v in enumerate(values) if v == 1), "last")
    return (f"convention at a tie of {op}: the gradient goes to the {taker} operand",)
