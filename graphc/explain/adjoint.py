"""The derivative of an equation with respect to each element that it reads, and the cotangent as the sum over uses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache

import sympy as sp

from ..ops.elementwise import ROWS
from ..pipeline import local_derivative
from .algebra import from_sympy, opposite
from .expression import (
    ONE,
    Apply,
    Bracket,
    Cases,
    Expr,
    Num,
    Reduce,
    Ref,
    Symbol,
    Var,
    bracket,
    decided,
    equal,
    extent,
    flat_position,
    mul,
    substitute,
    variables,
    walk,
)
from .reading import FIRST, Equation, reshaped
from .solve import collect, within

Y = sp.Symbol("y", real=True)


@dataclass(frozen=True)
class Use:
    """One reading of an array by an equation.

    local: ∂(the equation's element)/∂(the element read). loops: the variables of sums around it.
    path: the operations between the two, (name, position of the operand), outermost first.
    """

    equation: Equation
    read: Ref
    local: Expr
    loops: tuple[Var, ...]
    path: tuple[tuple[str, int], ...]


def uses(equation: Equation) -> list[Use]:
    """Every reading of a floating-point array by an equation, but those in indices and conditions."""
    found: list[Use] = []

    def visit(e: Expr, local: Expr, loops: tuple[Var, ...], path: tuple[tuple[str, int], ...]) -> None:
        match e:
            case Ref(symbol, _) if symbol.kind == "f":
                found.append(Use(equation, e, local, loops, path))
            case Apply("stop_gradient", _):
                pass
            case Apply(op, args):
                output = equation.left if e is equation.value else e
                for k, argument in enumerate(args):
                    if not isinstance(argument, Num):
                        visit(argument, mul(local, partial(op, k, args, output)), loops, (*path, (op, k)))
            case Reduce("sum", over, body):
                visit(body, local, (*loops, *over), (*path, ("sum", 0)))
            case Reduce("max" | "min" as op, over, body):
                here = flat_position(over, [v.extent for v in over])
                chosen = Bracket(equal(here, Reduce(FIRST[op], over, body)))
                visit(body, mul(local, _other(chosen, over)), (*loops, *over), (*path, (op, 0)))
            case Cases(branches, otherwise):
                earlier: list[Expr] = []
                for value, condition in branches:
                    visit(value, mul(local, bracket(all_of([*earlier, condition]))), loops, (*path, ("where", 1)))
                    earlier.append(opposite(condition))
                visit(otherwise, mul(local, bracket(all_of(earlier))), loops, (*path, ("where", 2)))

    visit(equation.value, Num(Fraction(1)), (), ())
    return found


def _other(chosen: Bracket, over: Sequence[Var]) -> Bracket:
    """[j = argmax_j x] with other variables inside the argmax than the one that it is compared with."""
    assert isinstance(chosen.condition, Apply)
    here, first = chosen.condition.args
    assert isinstance(first, Reduce)
    new = {v: Var(v.extent) for v in over}
    return Bracket(equal(here, Reduce(first.op, tuple(new.values()), substitute(first.body, new))))


def all_of(conditions: Sequence[Expr]) -> Expr:
    """Conditions together; of j ≥ 32 and j ≥ 64 the second."""
    kept = [c for n, c in enumerate(conditions) if not any(_implies(d, c) for d in conditions[n + 1 :])]
    whole = kept[0]
    for condition in kept[1:]:
        whole = Apply("logical_and", (whole, condition))
    return whole


def _implies(a: Expr, b: Expr) -> bool:
    match a, b:
        case Apply("greater_equal", (x, high)), Apply("greater_equal", (y, low)) if x == y:
            return decided(Apply("greater_equal", (high, low))) == ONE
    return False


def partial(op: str, k: int, args: Sequence[Expr], output: Expr) -> Expr:
    """∂op/∂(its k-th operand), in its operands and its output."""
    if op == "add":
        return Num(Fraction(1))
    if op == "mul":
        return mul(*args[:k], *args[k + 1 :])
    if op not in ROWS or not ROWS[op].differentiable:
        return Num(Fraction(0))
    return from_sympy(local_derivative(op, k), dict(zip(ROWS[op].symbols, args, strict=True)) | {Y: output})


@cache
def has_kink(op: str) -> bool:
    """Is the operation defined by cases, so that its derivative at a border is a convention?"""
    return op in ROWS and op != "where" and isinstance(ROWS[op].expression, sp.Piecewise)


def contribution(use: Use, at: Sequence[Expr], cotangent: Symbol) -> Expr:
    """What a use gives to the cotangent of the element `at` of what it reads."""
    equation = use.equation
    if equation.node.op == "reshape" and not set(use.read.indices) <= set(equation.indices):
        return Ref(cotangent, reshaped(at, [v.extent for v in at if isinstance(v, Var)], equation.symbol.shape))
    outer = Ref(cotangent, equation.left.indices)
    pairs = list(zip(use.read.indices, at, strict=True))
    # a state after a step is read by the next step, if there is one
    guards = [bracket(_reached(u, v)) for v, u in pairs if isinstance(v, Var) and isinstance(u, Apply)]
    return collect((*equation.indices, *use.loops), pairs, mul(*guards, outer, use.local))


def _reached(index: Expr, v: Var) -> Expr:
    """Is an index one of those of a variable?"""
    below = Apply("less", (index, extent(v.extent)))
    return below if decided(within(index, Var(v.extent + 1))) == ONE else within(index, v)


def stretched(use: Use) -> bool:
    """Is one element read for several of the equation's elements, though no sum is around it?"""
    used: set[Var] = set()
    for index in use.read.indices:
        used |= variables(index) | {v for v in walk(index) if isinstance(v, Var)}
    return any(v not in used and v.extent != 1 for v in use.equation.indices)
