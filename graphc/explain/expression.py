"""Index form: what one element of an array is, as an expression over index variables.

    z[i, j] = Σ_k x[i, k] · W[k, j] + b[j]

Every index variable is an object of its own, so that expressions are put into each other without a clash of letters;
letters are chosen when the expression is written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import count

from ..graph.size import Size, SizeLike, size
from .box import Box

_fresh = count()


@dataclass(frozen=True)
class Symbol:
    """A named array. name: unlike all others; box: how it is written; kind: f, i or b, as in NumPy.

    of: the array that this is the derivative of the loss with respect to; partial: it is then written ∂L/∂W.
    """

    name: str
    box: Box
    shape: tuple[Size, ...]
    kind: str = "f"
    of: Symbol | None = None
    partial: bool = False


@dataclass(frozen=True)
class Var:
    """An index variable: it counts from 0 to its extent."""

    extent: Size
    number: int = field(default_factory=lambda: next(_fresh))


@dataclass(frozen=True)
class Num:
    value: Fraction | float


@dataclass(frozen=True)
class Extent:
    """A size as a number."""

    size: Size


@dataclass(frozen=True)
class Ref:
    """symbol[indices]"""

    symbol: Symbol
    indices: tuple[Expr, ...] = ()


@dataclass(frozen=True)
class Apply:
    """An operation by the name of its row. `add` and `mul` take any number of operands."""

    op: str
    args: tuple[Expr, ...]


@dataclass(frozen=True)
class Reduce:
    """sum, prod, max, min or argmax of the body over variables."""

    op: str
    vars: tuple[Var, ...]
    body: Expr


@dataclass(frozen=True)
class Bracket:
    """Iverson's bracket: 1 where the condition holds, else 0."""

    condition: Expr


@dataclass(frozen=True)
class Cases:
    """The value of the first condition that holds, else the last."""

    branches: tuple[tuple[Expr, Expr], ...]
    otherwise: Expr


Expr = Var | Num | Extent | Ref | Apply | Reduce | Bracket | Cases
ZERO, ONE = Num(Fraction(0)), Num(Fraction(1))


# -- making ----------------------------------------------------------------------------------------------------------
def number(value: int | float) -> Num:
    return Num(Fraction(value))


def extent(value: SizeLike) -> Expr:
    constant = size(value).constant
    return Extent(size(value)) if constant is None else number(constant)


def is_number(e: Expr, value: float) -> bool:
    return isinstance(e, Num) and e.value == value


def neg(e: Expr) -> Expr:
    if isinstance(e, Num):
        return Num(-e.value)
    return e.args[0] if isinstance(e, Apply) and e.op == "neg" else Apply("neg", (e,))


def add(*terms: Expr) -> Expr:
    flat: list[Expr] = []
    for term in terms:
        if isinstance(term, Apply) and term.op == "add":
            flat.extend(term.args)
        elif not is_number(term, 0):
            flat.append(term)
    if len(flat) > 1:
        return Apply("add", tuple(flat))
    return flat[0] if flat else ZERO


def mul(*factors: Expr) -> Expr:
    """The product, its sign outside, without factors 1; 0 where a factor is 0."""
    flat: list[Expr] = []
    negative = False
    for factor in factors:
        if isinstance(factor, Apply) and factor.op == "neg":
            negative, factor = not negative, factor.args[0]
        if isinstance(factor, Num) and factor.value < 0:
            negative, factor = not negative, Num(-factor.value)
        if is_number(factor, 0):
            return ZERO
        if isinstance(factor, Apply) and factor.op == "mul":
            flat.extend(factor.args)
        elif not is_number(factor, 1):
            flat.append(factor)
    product = Apply("mul", tuple(flat)) if len(flat) > 1 else flat[0] if flat else ONE
    return neg(product) if negative else product


def div(a: Expr, b: Expr) -> Expr:
    if is_number(b, 1):
        return a
    if isinstance(a, Apply) and a.op == "neg":
        return neg(div(a.args[0], b))
    if isinstance(a, Num) and a.value < 0:
        return neg(div(Num(-a.value), b))
    return Apply("div", (a, b))


def bracket(condition: Expr) -> Expr:
    """Iverson's bracket, where the condition is not certain."""
    condition = decided(condition)
    return condition if condition in (ZERO, ONE) else Bracket(condition)


def equal(a: Expr, b: Expr) -> Expr:
    return Apply("equal", (a, b))


def apply(op: str, *args: Expr) -> Expr:
    """An operation, arithmetic in its normal form."""
    if op == "add":
        return add(*args)
    if op == "sub":
        return add(args[0], neg(args[1]))
    if op == "mul":
        return mul(*args)
    if op == "neg":
        return neg(*args)
    if op == "div":
        return div(*args)
    return Apply(op, args)


def total(op: str, variables: Sequence[Var], body: Expr) -> Expr:
    return Reduce(op, tuple(variables), body) if variables else body


# -- conditions that are certain -------------------------------------------------------------------------------------
def decided(condition: Expr) -> Expr:
    """A condition on indices as 1 or 0 where it holds for all their values or for none; parts that always hold left out."""
    match condition:
        case Apply("logical_and", (a, b)):
            left, right = decided(a), decided(b)
            if ZERO in (left, right):
                return ZERO
            return right if left == ONE else left if right == ONE else Apply("logical_and", (left, right))
        case Apply("logical_not", (a,)):
            inner = decided(a)
            return ONE if inner == ZERO else ZERO if inner == ONE else Apply("logical_not", (inner,))
        case Apply("less", (a, b)):
            verdict = _below(a, b)
            return condition if verdict is None else ONE if verdict else ZERO
        case Apply("greater_equal", (a, b)):
            verdict = _below(a, b)
            return condition if verdict is None else ZERO if verdict else ONE
        case Apply("within", (a, n)):
            verdicts = _below(neg(ONE), a), _below(a, n)
            return ONE if verdicts == (True, True) else ZERO if False in verdicts else condition
    return condition


def _below(a: Expr, b: Expr) -> bool | None:
    """Is a < b, for all values of their variables?"""
    left, right = _range(a), _range(b)
    if left is None or right is None:
        return None
    if _is_positive(right[0] - left[1]):
        return True
    return False if _is_positive(left[0] - right[1] + 1) else None


def _is_positive(value: Size) -> bool:
    """Certainly: no name of a size is negative."""
    constant = next((c for monomial, c in value.terms if not monomial), 0)
    return constant > 0 and all(c >= 0 for _, c in value.terms)


def _range(e: Expr) -> tuple[Size, Size] | None:
    """The least and the greatest value of a sum of indices and sizes."""
    match e:
        case Var(extent):
            return size(0), extent - 1
        case Num(value) if value == int(value):
            return size(int(value)), size(int(value))
        case Extent(value):
            return value, value
        case Apply("neg", (x,)):
            inner = _range(x)
            return None if inner is None else (-inner[1], -inner[0])
        case Apply("add", args):
            low, high = size(0), size(0)
            for inner in map(_range, args):
                if inner is None:
                    return None
                low, high = low + inner[0], high + inner[1]
            return low, high
    return None


# -- looking ---------------------------------------------------------------------------------------------------------
def children(e: Expr) -> tuple[Expr, ...]:
    match e:
        case Ref(_, indices):
            return indices
        case Apply(_, args):
            return args
        case Reduce(_, _, body):
            return (body,)
        case Bracket(condition):
            return (condition,)
        case Cases(branches, otherwise):
            return (*(x for branch in branches for x in branch), otherwise)
    return ()


def walk(e: Expr) -> Iterator[Expr]:
    """The expression and all in it."""
    yield e
    for child in children(e):
        yield from walk(child)


def variables(e: Expr) -> set[Var]:
    """The free index variables."""
    if isinstance(e, Var):
        return {e}
    found: set[Var] = set().union(*map(variables, children(e))) if children(e) else set()
    return found - set(e.vars) if isinstance(e, Reduce) else found


def refs(e: Expr) -> list[Ref]:
    """The elements of arrays that it reads, those in indices too."""
    return [x for x in walk(e) if isinstance(x, Ref)]


def measure(e: Expr) -> int:
    """How long it is when written; the indices of an element count nothing."""
    if isinstance(e, Ref | Extent):
        return 2
    return 1 + sum(map(measure, children(e)))


# -- changing --------------------------------------------------------------------------------------------------------
def rebuild(e: Expr, change: Callable[[Expr], Expr | None]) -> Expr:
    """Top-down: what `change` gives replaces an expression; None goes on inside. Arithmetic comes back in normal form."""
    new = change(e)
    if new is not None:
        return new
    match e:
        case Ref(symbol, indices):
            return Ref(symbol, tuple(rebuild(i, change) for i in indices))
        case Apply(op, args):
            return apply(op, *(rebuild(a, change) for a in args))
        case Reduce(op, vars, body):
            return Reduce(op, vars, rebuild(body, change))
        case Bracket(condition):
            return bracket(rebuild(condition, change))
        case Cases(branches, otherwise):
            new_branches = tuple((rebuild(v, change), rebuild(c, change)) for v, c in branches)
            return Cases(new_branches, rebuild(otherwise, change))
    return e


def substitute(e: Expr, values: Mapping[Var, Expr]) -> Expr:
    return rebuild(e, lambda x: values.get(x) if isinstance(x, Var) else None) if values else e


def renamed(e: Expr) -> Expr:
    """The same with bound variables of its own, to stand beside another copy."""

    def change(x: Expr) -> Expr | None:
        if not isinstance(x, Reduce):
            return None
        new = {v: Var(v.extent) for v in x.vars}
        return Reduce(x.op, tuple(new.values()), renamed(substitute(x.body, new)))

    return rebuild(e, change)


def canonical(e: Expr, depth: int = 0) -> Expr:
    """Equal for expressions that differ only in the names of bound variables."""

    def change(x: Expr) -> Expr | None:
        if not isinstance(x, Reduce):
            return None
        new = {v: Var(v.extent, -1 - depth - n) for n, v in enumerate(x.vars)}
        return Reduce(x.op, tuple(new.values()), canonical(substitute(x.body, new), depth + len(new)))

    return rebuild(e, change)


def flat_position(indices: Sequence[Expr], shape: Sequence[Size]) -> Expr:
    """The row-major position of an index."""
    position: Expr = ZERO
    for index, length in zip(indices, shape, strict=True):
        position = add(mul(position, extent(length)), index)
    return position
