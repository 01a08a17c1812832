"""The one rule of derivatives on index forms: swap what is read and what is written, and solve for the variables.

    Σ_p [α(p) = u] · body(p)

Where α is a variable, or a variable plus something, it is solved for; a look-up stays a bracket.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fractions import Fraction

from .expression import (
    ZERO,
    Apply,
    Bracket,
    Expr,
    Num,
    Reduce,
    Ref,
    Var,
    add,
    bracket,
    div,
    equal,
    extent,
    is_number,
    mul,
    neg,
    rebuild,
    renamed,
    substitute,
    total,
    variables,
)

Solution = tuple[dict[Var, Expr], list[Expr]]


def solve(unknown: Iterable[Var], pairs: Sequence[tuple[Expr, Expr]]) -> Solution:
    """(values of unknown variables, conditions that are left) so that the first of each pair equals the second."""
    open_vars = list(unknown)
    values: dict[Var, Expr] = {}
    conditions: list[Expr] = []
    # plain variables first: what they are simplifies the rest
    for form, target in sorted(pairs, key=lambda pair: not isinstance(pair[0], Var)):
        form = substitute(form, values)
        if form == target or isinstance(target, Var) and target.extent == 1 and is_number(form, 0):
            continue
        found = _linear(form, target, open_vars)
        if found is None:
            conditions.append(equal(form, target))
            continue
        v, value = found
        open_vars.remove(v)
        if form != v or isinstance(value, Var) and value.extent != v.extent:
            conditions.append(within(value, v))
        values = {old: substitute(e, {v: value}) for old, e in values.items()} | {v: value}
    return values, [substitute(c, values) for c in conditions]


def within(value: Expr, v: Var) -> Expr:
    return Apply("within", (value, extent(v.extent)))


def _linear(form: Expr, target: Expr, unknown: Sequence[Var]) -> tuple[Var, Expr] | None:
    """A variable that the form holds once, with the factor 1 or -1, and what it must be."""
    terms = form.args if isinstance(form, Apply) and form.op == "add" else (form,)
    for n, term in enumerate(terms):
        negative = isinstance(term, Apply) and term.op == "neg"
        v = term.args[0] if isinstance(term, Apply) and negative else term
        rest = add(*terms[:n], *terms[n + 1 :])
        if isinstance(v, Var) and v in unknown and v not in variables(rest):
            return v, _tidy(add(rest, neg(target)) if negative else add(target, *map(neg, _terms(rest))))
    return None


def _terms(e: Expr) -> tuple[Expr, ...]:
    return e.args if isinstance(e, Apply) and e.op == "add" else (e,)


def _tidy(e: Expr) -> Expr:
    """A sum with its numbers added up: t for t + 1 − 1."""
    terms = _terms(e)
    numbers = [t.value for t in terms if isinstance(t, Num)]
    if len(numbers) < 2:
        return e
    return add(*(t for t in terms if not isinstance(t, Num)), Num(sum(numbers, Fraction(0))))


def collect(unknown: Sequence[Var], pairs: Sequence[tuple[Expr, Expr]], body: Expr) -> Expr:
    """Σ over the unknown variables, where the first of each pair equals the second, of the body."""
    values, conditions = solve(unknown, pairs)
    left = [v for v in unknown if v not in values]
    brackets = [bracket(c) for c in conditions]
    return summed(left, mul(substitute(body, values), *brackets))


def summed(over: Sequence[Var], body: Expr) -> Expr:
    """Σ body, shortened: a bracket [j = e] picks one term, what does not vary stands outside, equal terms are counted."""
    if is_number(body, 0):
        return ZERO
    if isinstance(body, Apply) and body.op == "neg":
        return neg(summed(over, body.args[0]))
    if isinstance(body, Apply) and body.op == "div" and not variables(body.args[1]) & set(over):
        return div(summed(over, body.args[0]), body.args[1])
    if isinstance(body, Apply) and body.op == "add" and any(_picks(over, term) for term in body.args):
        return add(*(renamed(summed(over, term)) for term in body.args))
    found = _picks(over, body)
    if found is not None:
        v, value, rest = found
        return summed([w for w in over if w != v], substitute(rest, {v: value}))
    for v in over:  # an axis of length 1 needs no sum, but between two factors it shows that they are matrices
        if v.extent == 1 and sum(v in variables(f) for f in factors_of(body)) == 1:
            return summed([w for w in over if w != v], substitute(body, {v: ZERO}))
    varying = [v for v in over if v in variables(body)]
    counted = [extent(v.extent) for v in over if v not in varying]
    factors = factors_of(body)
    outside = [f for f in factors if not variables(f) & set(varying)]
    inside = mul(*(f for f in factors if variables(f) & set(varying)))
    if isinstance(inside, Reduce) and inside.op == "sum" and varying:
        varying, inside = [*varying, *inside.vars], inside.body
    return mul(*outside, *counted, total("sum", varying, inside) if varying else inside)


def factors_of(e: Expr) -> tuple[Expr, ...]:
    """The factors of a product; those above a fraction's line too, the rest of it as one."""
    if isinstance(e, Apply) and e.op == "mul":
        return tuple(f for a in e.args for f in factors_of(a))
    if isinstance(e, Apply) and e.op == "div":
        return (*factors_of(e.args[0]), Apply("div", (mul(), e.args[1])))
    return (e,)


def _picks(over: Sequence[Var], body: Expr) -> tuple[Var, Expr, Expr] | None:
    """(v, e, the other factors) of a factor [v = e] with a summed v that e is free of."""
    negative = isinstance(body, Apply) and body.op == "neg"
    factors = factors_of(body.args[0] if isinstance(body, Apply) and negative else body)
    for n, factor in enumerate(factors):
        if isinstance(factor, Bracket) and isinstance(factor.condition, Apply) and factor.condition.op == "equal":
            for v, value in (factor.condition.args, factor.condition.args[::-1]):
                if isinstance(v, Var) and v in over and v not in variables(value) and isinstance(value, (Ref, Var)):
                    rest = mul(*factors[:n], *factors[n + 1 :])
                    return v, value, neg(rest) if negative else rest
    return None


def shortened(e: Expr) -> Expr:
    """The expression with all sums shortened, innermost first."""

    def change(x: Expr) -> Expr | None:
        return summed(x.vars, shortened(x.body)) if isinstance(x, Reduce) and x.op == "sum" else None

    return rebuild(e, change)
