"""Index form and SymPy: partial derivatives become expressions, and expressions are simplified."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from functools import cache
from typing import Any

import sympy as sp

from ..graph.size import Size
from .expression import (
    ZERO,
    Apply,
    Bracket,
    Cases,
    Expr,
    Extent,
    Num,
    Reduce,
    Ref,
    add,
    canonical,
    div,
    measure,
    mul,
    rebuild,
    variables,
    walk,
)
from .solve import shortened

Sym = Any  # a SymPy expression; SymPy is not typed
Values = Mapping[Any, Expr]

FUNCTIONS: dict[str, Callable[..., Sym]] = {
    "exp": sp.exp,
    "log": sp.log,
    "tanh": sp.tanh,
    "sin": sp.sin,
    "cos": sp.cos,
    "sqrt": sp.sqrt,
    "erf": sp.erf,
}
RELATIONS = {
    sp.StrictGreaterThan: "greater",
    sp.GreaterThan: "greater_equal",
    sp.StrictLessThan: "less",
    sp.LessThan: "less_equal",
    sp.Equality: "equal",
    sp.Unequality: "not_equal",
}
LONGEST = 90
"""Longer expressions stay as they are: nobody reads them, and SymPy takes long."""

MOST_SYMBOLS = 10
"""Polynomials in more symbols than these take long to factor, and seldom have factors."""


# -- from SymPy ------------------------------------------------------------------------------------------------------
def from_sympy(e: Sym, values: Values) -> Expr:
    """A SymPy expression, its symbols replaced by expressions; what are numbers among these is put in first."""
    numbers = {s: to_number(v) for s, v in values.items() if isinstance(v, Num) and isinstance(v.value, Fraction)}
    return _from(e.subs(numbers) if numbers else e, values)


def to_number(value: Num) -> Sym:
    return sp.Rational(value.value.numerator, value.value.denominator) if isinstance(value.value, Fraction) else sp.nan


def _from(e: Sym, values: Values) -> Expr:
    if e in values:
        return values[e]
    if e.is_Rational:
        return Num(Fraction(int(e.p), int(e.q)))
    if e in (sp.pi, sp.E):
        return Apply("pi" if e is sp.pi else "e", ())
    if e.is_Add:
        terms = [_from(t, values) for t in e.as_ordered_terms()]
        return add(*sorted(terms, key=_is_negative))  # y − x, not −x + y
    if e.is_Mul or e.is_Pow:
        return _product(e, values)
    if isinstance(e, sp.Piecewise):
        return _cases([(_from(v, values), c) for v, c in e.args], values)
    if type(e) in RELATIONS:
        return Apply(RELATIONS[type(e)], tuple(_from(a, values) for a in e.args))
    if isinstance(e, sp.And | sp.Or):
        name = "logical_and" if isinstance(e, sp.And) else "logical_or"
        first, *rest = (_from(a, values) for a in e.args)
        for other in rest:
            first = Apply(name, (first, other))
        return first
    if isinstance(e, sp.Not):
        return Apply("logical_not", (_from(e.args[0], values),))
    if e.is_Function:
        return Apply(str(e.func), tuple(_from(a, values) for a in e.args))
    return Num(float(e))


def _is_negative(e: Expr) -> bool:
    return isinstance(e, Apply) and e.op == "neg" or isinstance(e, Num) and e.value < 0


def _product(e: Sym, values: Values) -> Expr:
    """A product or power as a fraction; of two signs of a difference the one that reads better."""
    above: list[Expr] = []
    below: list[Expr] = []
    for factor in _well_signed(sp.Mul.make_args(e)):
        base, exponent = factor.as_base_exp()
        if factor.is_Rational:
            above.append(Num(Fraction(int(factor.p))))
            below.append(Num(Fraction(int(factor.q))))
        elif base is sp.E:
            above.append(Apply("exp", (_from(exponent, values),)))
        elif exponent.could_extract_minus_sign():
            below.append(_power(base, -exponent, values))
        else:
            above.append(_power(base, exponent, values))
    return div(mul(*sorted(above, key=_place)), mul(*sorted(below, key=_place)))


def _well_signed(factors: Sequence[Sym]) -> list[Sym]:
    """The same product with 1 − p for p − 1, and the sign that is left in a difference if it can be."""
    numbers = [f for f in factors if f.is_Rational]
    sign, others = sp.Mul(*numbers), []
    for f in factors:
        base, exponent = f.as_base_exp()
        if not f.is_Rational and base.is_Add and exponent.is_odd and base.as_coeff_Add()[0] < 0:
            sign, f = -sign, sp.Pow(-base, exponent)
        if not f.is_Rational:
            others.append(f)
    if sign < 0:
        for n, f in enumerate(others):
            if f.is_Add and len(f.args) == 2 and f.as_coeff_Add()[0] == 0 and _has_both_signs(f):
                others[n], sign = -f, -sign
                break
    return [sign, *others] if sign != 1 else others


def _has_both_signs(e: Sym) -> bool:
    return len({t.could_extract_minus_sign() for t in e.args}) == 2


def _place(e: Expr) -> tuple[int, int, int]:
    """Where a factor stands: numbers, sizes, then what has fewer indices, a name before a sum, brackets last."""
    kinds = {Num: 0, Extent: 1}
    names = {Ref: 0, Bracket: 2}
    return kinds.get(type(e), 2), len(variables(e)), names.get(type(e), 1)


def _power(base: Sym, exponent: Sym, values: Values) -> Expr:
    if exponent == sp.Rational(1, 2):
        return Apply("sqrt", (_from(base, values),))
    if exponent == 1:
        return _from(base, values)
    return Apply("pow", (_from(base, values), _from(exponent, values)))


def _cases(branches: Sequence[tuple[Expr, Sym]], values: Values) -> Expr:
    """A choice; of a value and 0 the value times a bracket."""
    *first, (last, _) = branches
    named = [(value, _from(c, values)) for value, c in first]
    if len(named) == 1:
        ((value, condition),) = named
        if last == ZERO:
            return mul(value, Bracket(condition))
        if value == ZERO:
            return mul(last, Bracket(opposite(condition)))
    match named:
        case [(Num(1), Apply("greater", (x, Num(0)))), (Num(-1), Apply("less", (y, Num(0))))] if (
            x == y and last == ZERO
        ):
            return Apply("sign", (x,))
    return Cases(tuple(named), last)


OPPOSITE = {"greater": "less_equal", "less_equal": "greater", "less": "greater_equal", "greater_equal": "less"}
OPPOSITE |= {"equal": "not_equal", "not_equal": "equal"}


def opposite(condition: Expr) -> Expr:
    """The negation; of an order it is the other order, which is not so for NaN: mathematics has none."""
    if isinstance(condition, Apply) and condition.op in OPPOSITE:
        return Apply(OPPOSITE[condition.op], condition.args)
    return Apply("logical_not", (condition,))


# -- to SymPy --------------------------------------------------------------------------------------------------------
class Bridge:
    """Expressions as SymPy: elements, sums, brackets and cases are symbols."""

    def __init__(self) -> None:
        self.symbols: dict[Expr, Sym] = {}
        self.values: dict[Any, Expr] = {}

    def to(self, e: Expr) -> Sym:
        match e:
            case Num(value) if isinstance(value, Fraction):
                return to_number(e)
            case Extent(size):
                return self.size(size)
            case Apply("add", args):
                return sp.Add(*map(self.to, args))
            case Apply("mul", args):
                return sp.Mul(*map(self.to, args))
            case Apply("neg", (x,)):
                return -self.to(x)
            case Apply("div", (a, b)):
                return self.to(a) / self.to(b)
            case Apply("pow", (a, Num(n))) if isinstance(n, Fraction):
                return self.to(a) ** sp.Rational(n.numerator, n.denominator)
            case Apply("pi", ()):
                return sp.pi
            case Apply(op, args) if op in FUNCTIONS:
                return FUNCTIONS[op](*map(self.to, args))
        return self.atom(e)

    def atom(self, e: Expr, positive: bool | None = None) -> Sym:
        key = canonical(e)
        if key not in self.symbols:
            self.symbols[key] = sp.Symbol(f"v{len(self.symbols):04}", real=True, positive=positive)
            self.values[self.symbols[key]] = e
        return self.symbols[key]

    def size(self, value: Size) -> Sym:
        """Sizes of one name are symbols; a sum of sizes is one too, so that it is not multiplied out."""
        if len(value.terms) != 1:
            return self.atom(Extent(value), positive=True)
        ((monomial, coefficient),) = value.terms
        result: Sym = sp.Integer(coefficient)
        for atom, power in monomial:
            result *= self.atom(Extent(Size(((((atom, 1),), 1),))), positive=True) ** power
        return result

    def back(self, e: Sym) -> Expr:
        return _from(e, self.values)


def simplified(e: Expr) -> Expr:
    """The shortest of what SymPy makes of it; each sum's body by itself first."""

    def change(x: Expr) -> Expr | None:
        return Reduce(x.op, x.vars, simplified(x.body)) if isinstance(x, Reduce) else None

    e = shortened(rebuild(e, change))
    if measure(e) > LONGEST:
        return e
    bridge = Bridge()
    symbolic = bridge.to(e)
    if symbolic.has(sp.nan):
        return e
    return min([e, *map(bridge.back, forms(symbolic))], key=_length)  # of equally short ones the first


@cache
def forms(e: Sym) -> tuple[Sym, ...]:
    """What SymPy makes of an expression. Symbols are numbered as they appear, so that equal layers ask only once."""
    if len(e.free_symbols) > MOST_SYMBOLS:
        return sp.factor_terms(e), e
    cancelled = sp.cancel(sp.together(e))
    found = [sp.factor(cancelled), sp.factor(e), sp.factor_terms(e), cancelled]
    found += [sp.collect(sp.expand(e), sorted(e.free_symbols, key=str)), e]
    if e.has(sp.Function):
        found.append(sp.simplify(e))
    return tuple(dict.fromkeys(found))


def _length(e: Expr) -> tuple[int, int]:
    """Short first; then few fractions, and those as high as can be."""
    return measure(e), sum(isinstance(x, Apply) and x.op == "div" for x in walk(e))


def is_pointwise(e: Expr) -> bool:
    """Is it free of sums, so that it can be put into other expressions?"""
    return not any(isinstance(x, Reduce) for x in walk(e))
