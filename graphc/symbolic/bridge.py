"""Scalar expressions to SymPy and back. SymPy sees one operation, or one small body, at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ..graph import scalar as sc
from ..graph.dtype import DType, bool_
from ..graph.scalar import Scalar
from .lazy import sp

# by the names of SymPy's classes, so that this module loads without SymPy
_FUNCTIONS = ("exp", "log", "tanh", "erf", "sin", "cos", "floor")
_RELATIONS = {
    "StrictLessThan": "less",
    "LessThan": "less_equal",
    "StrictGreaterThan": "greater",
    "GreaterThan": "greater_equal",
    "Equality": "equal",
    "Unequality": "not_equal",
}


def from_sympy(expression: sp.Basic, values: Mapping[sp.Symbol, Scalar], dtype: DType) -> Scalar:
    """A scalar expression that computes a SymPy one, over `values` for its symbols, numbers in `dtype`."""

    def go(e: sp.Basic) -> Scalar:
        if isinstance(e, sp.Symbol):
            return values[e]
        if e in (sp.true, sp.false):
            return sc.const(e == sp.true, bool_)
        if isinstance(e, sp.Number | sp.NumberSymbol):
            return sc.const(float(e), dtype)
        if isinstance(e, sp.Add):
            return _sum([go(a) for a in e.args], [_negated(a) for a in e.args], e, go, dtype)
        if isinstance(e, sp.Mul):
            return _product(e, go, dtype)
        if isinstance(e, sp.Pow):
            return _power(e, go, dtype)
        if isinstance(e, sp.Piecewise):
            return _piecewise(e.args, go, dtype)
        if isinstance(e, sp.core.relational.Relational):
            return Scalar(_RELATIONS[type(e).__name__], (go(e.lhs), go(e.rhs)), bool_)
        if isinstance(e, sp.And | sp.Or):
            op = "logical_and" if isinstance(e, sp.And) else "logical_or"
            first, *others = map(go, e.args)
            for other in others:
                first = Scalar(op, (first, other), bool_)
            return first
        if isinstance(e, sp.Not):
            return Scalar("logical_not", (go(e.args[0]),), bool_)
        if isinstance(e, sp.core.function.AppliedUndef):  # an operation named by its row: sigmoid(x)
            return Scalar(e.func.__name__, tuple(map(go, e.args)), dtype)
        if type(e).__name__ in _FUNCTIONS:
            return Scalar(type(e).__name__, tuple(map(go, e.args)), dtype)
        raise TypeError(f"no scalar expression for {e!r}")

    return go(expression)


Go = Callable[["sp.Basic"], Scalar]


def _negated(e: sp.Basic) -> sp.Basic | None:
    """x where e is -x, else None."""
    coefficient, _ = e.as_coeff_Mul()
    return -e if coefficient.is_number and coefficient < 0 else None


def _sum(terms: list[Scalar], negated: list[sp.Basic | None], e: sp.Add, go: Go, dtype: DType) -> Scalar:
    # positive terms first, so that 1 - y² is a subtraction and not a sum with a negation
    positive = [t for t, n in zip(terms, negated, strict=True) if n is None]
    total = positive[0] if positive else Scalar("neg", (go(negated[0]),), dtype)
    for term in positive[1:]:
        total = Scalar("add", (total, term), dtype)
    for n in [n for n in negated if n is not None][0 if positive else 1 :]:
        total = Scalar("sub", (total, go(n)), dtype)
    return total


def _product(e: sp.Mul, go: Go, dtype: DType) -> Scalar:
    sign = 1
    above: list[Scalar] = []
    below: list[Scalar] = []
    for factor in e.args:
        if factor == -1:
            sign = -sign
        elif isinstance(factor, sp.Pow) and factor.exp.is_number and factor.exp < 0:
            below.append(go(factor.base**-factor.exp))
        elif isinstance(factor, sp.Rational) and factor.q != 1:
            if abs(factor.p) != 1:
                above.append(sc.const(float(abs(factor.p)), dtype))
            sign = -sign if factor.p < 0 else sign
            below.append(sc.const(float(factor.q), dtype))
        else:
            above.append(go(factor))
    result = _fold("mul", above, dtype)
    if below:
        result = Scalar("div", (result, _fold("mul", below, dtype)), dtype)
    return Scalar("neg", (result,), dtype) if sign < 0 else result


def _fold(op: str, items: list[Scalar], dtype: DType) -> Scalar:
    if not items:
        return sc.const(1.0, dtype)
    total = items[0]
    for item in items[1:]:
        total = Scalar(op, (total, item), dtype)
    return total


def _power(e: sp.Pow, go: Go, dtype: DType) -> Scalar:
    base, exponent = e.args
    if exponent == sp.Rational(1, 2):
        return Scalar("sqrt", (go(base),), dtype)
    if exponent.is_number and exponent < 0:
        return Scalar("div", (sc.const(1.0, dtype), go(base**-exponent)), dtype)
    if exponent.is_Integer and exponent <= 4:
        return _fold("mul", [go(base)] * int(exponent), dtype)
    return Scalar("pow", (go(base), go(exponent)), dtype)


def _piecewise(pairs: tuple[sp.Tuple, ...], go: Go, dtype: DType) -> Scalar:
    value, condition = pairs[0].args
    if condition == sp.true:
        return go(value)
    # where no branch applies the function is undefined
    rest = _piecewise(pairs[1:], go, dtype) if len(pairs) > 1 else sc.const(float("nan"), dtype)
    return Scalar("where", (go(condition), go(value), rest), dtype)


def to_sympy(
    expression: Scalar, leaf: Callable[[Scalar], sp.Basic], math: Callable[[str], Callable[..., sp.Basic]]
) -> sp.Basic:
    """A scalar expression as SymPy: `leaf` gives arguments and indices, `math(name)` an operation's mathematics."""

    def visit(e: Scalar, args: tuple[sp.Basic, ...]) -> sp.Basic:
        if e.op == "const":
            return sp.sympify(e.value) if e.dtype is bool_ else sp.nsimplify(e.value, rational=True)
        if e.op in sc.LEAVES:
            return leaf(e)
        return math(e.op)(*args)

    return sc.fold(expression, visit)
