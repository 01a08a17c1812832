"""Sizes: integer polynomials in named dimensions, with floor division and integer roots, in a normal form.

Two sizes that are equal as normal forms are equal for every value of their names. `2*B + B - 1` and `3*B - 1`
are one size, and so are `(T - 1)//2 + 1` and `(T + 1)//2`: a quotient keeps only what the divisor leaves over.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache, reduce
from typing import Union

from ..errors import GraphError

Atom = Union[str, "Quotient", "Root"]
Monomial = tuple[tuple[Atom, int], ...]  # ((atom, power), …), sorted; () is the constant term
SizeLike = Union["Size", int]


@dataclass(frozen=True)
class Quotient:
    """⌊numerator / divisor⌋ for a numerator reduced by the divisor."""

    numerator: Size
    divisor: Size

    def __str__(self) -> str:
        return f"({self.numerator})//{_bracket(self.divisor)}"


@dataclass(frozen=True)
class Root:
    """⌊√argument⌋"""

    argument: Size

    def __str__(self) -> str:
        return f"isqrt({self.argument})"


def _names(atom: Atom) -> frozenset[str]:
    if isinstance(atom, str):
        return frozenset((atom,))
    return atom.argument.names if isinstance(atom, Root) else atom.numerator.names | atom.divisor.names


def _evaluated(atom: Atom, values: Mapping[str, int]) -> int:
    if isinstance(atom, str):
        return values[atom]
    if isinstance(atom, Root):
        return math.isqrt(atom.argument.evaluate(values))
    return atom.numerator.evaluate(values) // atom.divisor.evaluate(values)


def _substituted(atom: Atom, values: Mapping[str, SizeLike]) -> Size:
    if isinstance(atom, str):
        return size(values.get(atom, atom))
    if isinstance(atom, Root):
        return isqrt(atom.argument.substitute(values))
    return atom.numerator.substitute(values) // atom.divisor.substitute(values)


def isqrt(argument: SizeLike) -> Size:
    """⌊√argument⌋ of a size that is not negative."""
    number = size(argument).constant
    if number is not None:
        return size(math.isqrt(number))
    return _normal({((Root(size(argument)), 1),): 1})


@dataclass(frozen=True)
class Size:
    """A polynomial: monomials with their integer coefficients, sorted, none of them zero."""

    terms: tuple[tuple[Monomial, int], ...]

    # -- what it is ---------------------------------------------------------------------------------------------
    @cached_property
    def constant(self) -> int | None:
        """The number, if this size is one."""
        if not self.terms:
            return 0
        if len(self.terms) == 1 and self.terms[0][0] == ():
            return self.terms[0][1]
        return None

    @property
    def names(self) -> frozenset[str]:
        """The dimension names it depends on."""
        found: set[str] = set()
        for monomial, _ in self.terms:
            for atom, _ in monomial:
                found |= _names(atom)
        return frozenset(found)

    def evaluate(self, values: Mapping[str, int]) -> int:
        """Its number for given dimensions; KeyError names one that is missing."""
        total = 0
        for monomial, coefficient in self.terms:
            product = coefficient
            for atom, power in monomial:
                product *= _evaluated(atom, values) ** power
            total += product
        return total

    def substitute(self, values: Mapping[str, SizeLike]) -> Size:
        """The size with names replaced by other sizes."""
        total = size(0)
        for monomial, coefficient in self.terms:
            product = size(coefficient)
            for atom, power in monomial:
                base = _substituted(atom, values)
                for _ in range(power):
                    product = product * base
            total = total + product
        return total

    # -- arithmetic ---------------------------------------------------------------------------------------------
    def __add__(self, other: SizeLike) -> Size:
        if not isinstance(other, (Size, int)):
            return NotImplemented
        other = size(other)
        if not other.terms:
            return self
        a, b = self.constant, other.constant
        if a is not None and b is not None:
            return size(a + b)
        terms = dict(self.terms)
        for monomial, coefficient in other.terms:
            terms[monomial] = terms.get(monomial, 0) + coefficient
        return _normal(terms)

    def __mul__(self, other: SizeLike) -> Size:
        if not isinstance(other, (Size, int)):
            return NotImplemented
        other = size(other)
        a, b = self.constant, other.constant
        if a is not None and b is not None:
            return size(a * b)
        if a == 1 or b == 1:
            return other if a == 1 else self
        terms: dict[Monomial, int] = {}
        for m1, c1 in self.terms:
            for m2, c2 in other.terms:
                product = _multiply(m1, m2)
                terms[product] = terms.get(product, 0) + c1 * c2
        return _normal(terms)

    def __floordiv__(self, other: SizeLike) -> Size:
        if not isinstance(other, (Size, int)):
            return NotImplemented
        divisor = size(other)
        if divisor.constant == 0:
            raise ZeroDivisionError(f"the size {self} divided by zero")
        whole, rest = _divide(self, divisor)
        number, by = rest.constant, divisor.constant
        if number is not None and by is not None:
            return whole + number // by
        if not rest.terms:
            return whole
        return whole + _normal({((Quotient(rest, divisor), 1),): 1})

    def __mod__(self, other: SizeLike) -> Size:
        if not isinstance(other, (Size, int)):
            return NotImplemented
        return self - self // other * other

    def __neg__(self) -> Size:
        return self * -1

    def __sub__(self, other: SizeLike) -> Size:
        if not isinstance(other, (Size, int)):
            return NotImplemented
        other = size(other)
        return size(0) if self.terms == other.terms else self + -other

    def __rsub__(self, other: int) -> Size:
        return size(other) - self

    def __rfloordiv__(self, other: int) -> Size:
        return size(other) // self

    __radd__, __rmul__ = __add__, __mul__

    def __eq__(self, other: object) -> bool:
        if isinstance(other, int):
            return self.constant == other
        return self is other or (isinstance(other, Size) and self.terms == other.terms)

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:
        constant = self.constant
        return hash(self.terms) if constant is None else hash(constant)

    def __int__(self) -> int:
        constant = self.constant
        if constant is None:
            raise TypeError(f"the size {self} is symbolic: it has no value before the model is called")
        return constant

    __index__ = __int__

    def __bool__(self) -> bool:
        return self.constant != 0

    def __str__(self) -> str:
        return self._text

    __repr__ = __str__

    @cached_property
    def _text(self) -> str:
        return _print(self)


def size(value: SizeLike | str) -> Size:
    """A size from a number, a dimension's name, or a size."""
    if isinstance(value, Size):
        return value
    return _name(value) if isinstance(value, str) else _number(int(value))


# A deep model says the same few sizes again and again: one object of each keeps its text and its hash.
@lru_cache(maxsize=4096)
def _name(value: str) -> Size:
    return Size((((((value, 1),)), 1),))


@lru_cache(maxsize=4096)
def _number(value: int) -> Size:
    return Size((((), value),)) if value else Size(())


def product(sizes: Iterable[SizeLike]) -> Size:
    """The number of elements of a shape."""
    return reduce(lambda a, b: a * b, map(size, sizes), size(1))


def equal(a: SizeLike, b: SizeLike) -> bool | None:
    """Are two sizes equal? True and False hold for all dimensions; None: it depends on their values."""
    constant = (size(a) - size(b)).constant
    if constant is not None:
        return constant == 0
    return None


# -- normal form -----------------------------------------------------------------------------------------------------
def _order(monomial: Monomial) -> tuple[int, str]:
    degree = sum(power for _, power in monomial)
    return -degree, " ".join(f"{atom}^{power}" for atom, power in monomial)


def _normal(terms: Mapping[Monomial, int]) -> Size:
    kept = [(m, c) for m, c in terms.items() if c]
    return Size(tuple(sorted(kept, key=lambda t: _order(t[0])) if len(kept) > 1 else kept))


def _multiply(a: Monomial, b: Monomial) -> Monomial:
    powers = dict(a)
    for atom, power in b:
        powers[atom] = powers.get(atom, 0) + power
    return tuple(sorted(powers.items(), key=lambda t: str(t[0])))


def _divide(numerator: Size, divisor: Size) -> tuple[Size, Size]:
    """(whole, rest) with numerator = whole·divisor + rest and rest holding no multiple of the divisor."""
    constant = divisor.constant
    if constant is not None:
        whole = _normal({m: c // constant for m, c in numerator.terms})
        return whole, numerator - whole * constant
    if len(divisor.terms) == 1:  # a monomial such as B or 2*B
        ((base, coefficient),) = divisor.terms
        whole_terms: dict[Monomial, int] = {}
        for monomial, c in numerator.terms:
            quotient = _monomial_quotient(monomial, base)
            if quotient is not None and c // coefficient:
                whole_terms[quotient] = c // coefficient
        whole = _normal(whole_terms)
        return whole, numerator - whole * divisor
    ratio = _polynomial_quotient(numerator, divisor)
    return (ratio, size(0)) if ratio is not None else (size(0), numerator)


def _monomial_quotient(a: Monomial, b: Monomial) -> Monomial | None:
    powers = dict(a)
    for atom, power in b:
        powers[atom] = powers.get(atom, 0) - power
        if powers[atom] < 0:
            return None
    return tuple((atom, powers[atom]) for atom, _ in a if powers[atom])


def _polynomial_quotient(numerator: Size, divisor: Size) -> Size | None:
    """The exact quotient where long division leaves no rest, else None."""
    quotient, rest = size(0), numerator
    (lead, lead_coefficient), *_ = divisor.terms
    for _ in range(32):
        if not rest.terms:
            return quotient
        monomial, coefficient = rest.terms[0]
        factor = _monomial_quotient(monomial, lead)
        if factor is None or coefficient % lead_coefficient:
            return None
        term = _normal({factor: coefficient // lead_coefficient})
        quotient, rest = quotient + term, rest - term * divisor
    return None


# -- text ------------------------------------------------------------------------------------------------------------
def _bracket(s: Size) -> str:
    text = str(s)
    return text if re.fullmatch(r"\w+", text) else f"({text})"


def _print(s: Size) -> str:
    if not s.terms:
        return "0"
    parts: list[str] = []
    for monomial, coefficient in s.terms:
        factors = [str(atom) for atom, power in monomial for _ in range(power)]
        if abs(coefficient) != 1 or not factors:
            factors.insert(0, str(abs(coefficient)))
        # a quotient stands in brackets beside a factor or a minus: `2*((T - 1)//2)`
        factors = [f"({f})" if "//" in f and (len(factors) > 1 or coefficient < 0) else f for f in factors]
        sign = "-" if coefficient < 0 else "+"
        parts.append(("-" if sign == "-" else "") + "*".join(factors) if not parts else f"{sign} " + "*".join(factors))
    return " ".join(parts)


_TOKEN = re.compile(r"\s*(//|\d+|[A-Za-z_]\w*|[-+*()%])")


def parse(text: str) -> Size:
    """Read a size: names, integers, `+ - * // %` and brackets. GraphError names what cannot be read."""
    tokens: list[str] = []
    position = 0
    while text[position:].strip():
        match = _TOKEN.match(text, position)
        if not match:
            raise GraphError(
                f"cannot read the size {text!r} at {text[position:]!r}",
                how='a size is made of names, integers, + - * // % and brackets, such as "2*T + 1"',
            )
        tokens.append(match[1])
        position = match.end()
    tokens.append("")
    value, rest = _parse_sum(tokens, 0, text)
    if tokens[rest]:
        raise GraphError(f"cannot read the size {text!r} at {tokens[rest]!r}")
    return value


def _parse_sum(tokens: list[str], i: int, text: str) -> tuple[Size, int]:
    value, i = _parse_product(tokens, i, text)
    while tokens[i] in ("+", "-"):
        operator = tokens[i]
        right, i = _parse_product(tokens, i + 1, text)
        value = value + right if operator == "+" else value - right
    return value, i


_PRODUCTS: dict[str, Callable[[Size, Size], Size]] = {
    "*": lambda a, b: a * b,
    "//": lambda a, b: a // b,
    "%": lambda a, b: a % b,
}


def _parse_product(tokens: list[str], i: int, text: str) -> tuple[Size, int]:
    value, i = _parse_atom(tokens, i, text)
    while tokens[i] in _PRODUCTS:
        operator = _PRODUCTS[tokens[i]]
        right, i = _parse_atom(tokens, i + 1, text)
        value = operator(value, right)
    return value, i


def _parse_atom(tokens: list[str], i: int, text: str) -> tuple[Size, int]:
    token = tokens[i]
    if token == "-":
        value, i = _parse_atom(tokens, i + 1, text)
        return -value, i
    if token == "(":
        value, i = _parse_sum(tokens, i + 1, text)
        if tokens[i] == ")":
            return value, i + 1
    elif token.isdigit():
        return size(int(token)), i + 1
    elif token == "isqrt" and tokens[i + 1] == "(":
        value, i = _parse_sum(tokens, i + 2, text)
        if tokens[i] == ")":
            return isqrt(value), i + 1
    elif token.isidentifier():
        return size(token), i + 1
    raise GraphError(f"cannot read the size {text!r}: {token or 'the end'!r} stands where a size should")
