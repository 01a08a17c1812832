"""Numbers in products and sums: they move outwards, meet there, and like terms of a sum are one.

A number stands outermost in a product, so that what is left of two products can be the same value, numbers that meet
are one, and a sum takes a number with its addition. Where a product has a small operand, stretched over the others, the
number stands at that one instead: it is multiplied fewer times.

Numbers only move outwards or to something smaller, so rewriting ends. Like terms of opposite signs stay apart, since
∞ − ∞ is NaN.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from fractions import Fraction
from math import frexp

from ..graph.dtype import DType
from ..graph.node import Node
from ..ops import build
from ..ops.build import make
from .multiple import Multiple, is_whole, may_meet, multiple, number_of, outer_number, rounded
from .rewrite import EXACT, VALUE_CHANGING, Memo, Rule, rule

ARITHMETIC = ("neg", "add", "sub", "mul", "div")
FARTHEST = 8  # products that are looked through to see whether a number meets another


# -- products --------------------------------------------------------------------------------------------------------
@rule("sign of a product", EXACT, "(−x)·y = x·(−y) = −(x·y), and so for quotients: a sum subtracts instead of adding")
def sign_of_product(node: Node, memo: Memo) -> Node | None:
    taken = _taken(node, memo, signs=True)
    return taken.node(node.dtype) if taken is not None else None


@rule(
    "number of a product",
    VALUE_CHANGING,
    "(c·x)·y = c·(x·y), and so for quotients: x·y may be there, c may meet another",
)
def number_of_product(node: Node, memo: Memo) -> Node | None:
    taken = _taken(node, memo, signs=False)
    return taken.node(node.dtype) if taken is not None else None


def _taken(node: Node, memo: Memo, signs: bool) -> Multiple | None:
    """A product or quotient of multiples as a multiple: of −1, or of other numbers."""
    if node.op not in ("mul", "div") or not node.dtype.is_float:
        return None
    if node.op == "mul" and any(number_of(o) for o in node.operands):
        return None  # the numbers of a product meet below
    operands, result = list(node.operands), Multiple(1.0)
    for k, operand in enumerate(node.operands):
        found = outer_number(operand)
        if found is None or found[0].is_sign is not signs or not is_whole(operand, node):
            continue
        number, x = found
        if outer_number(x) is not None:
            continue  # two numbers that may not meet: each would move through all of a long product
        if node.op == "div" and k == 1:
            if number.scale is not None or abs(frexp(number.factor)[0]) != 0.5:
                continue
            number = Multiple(1 / number.factor)  # exact for a power of two
        plain = [*operands[:k], x, *operands[k + 1 :]]
        product = result.times(number, node.dtype)
        if product is not None and (_is_free(operand, node, memo, signs) or _is_there(node.op, plain, memo)):
            operands, result = plain, product
    return None if operands == list(node.operands) else replace(result, value=make(node.op, *operands))


def _is_free(operand: Node, node: Node, memo: Memo, sign: bool) -> bool:
    """Is a multiple computed no longer if this product does without its number?"""
    if not sign:
        return all(r is memo.before(node) for r in memo.readers(operand))
    products = ("mul", "div", "neg")
    return all(r is not None and r.op in products and is_whole(operand, r) for r in memo.readers(operand))


def _is_there(op: str, operands: Sequence[Node], memo: Memo) -> bool:
    return memo.has(make(op, *operands)) or (op == "mul" and memo.has(make(op, *operands[::-1])))


@rule("numbers of a product", VALUE_CHANGING, "c·(d·x) = (c·d)·x; c·(s·y) = (c·s)·y where s is smaller than y")
def numbers_of_product(node: Node, memo: Memo) -> Node | None:
    if node.op != "mul" or not node.dtype.is_float or not any(number_of(o) for o in node.operands):
        return None
    new = build.broadcast_to(multiple(node).node(node.dtype), node.shape)
    return None if new.op == "mul" and set(new.operands) == set(node.operands) else new


@rule("negated number", EXACT, "−(c·x) = (−c)·x; x + (−c)·y = x − c·y; x − (−c)·y = x + c·y")
def negated_number(node: Node, memo: Memo) -> Node | None:
    if node.op not in ("neg", "add", "sub") or not node.dtype.is_float:
        return None
    operands = [_negated(o) if o.op in ("mul", "div") and memo.read_once(o) else None for o in node.operands]
    if node.op == "neg":
        return operands[0][1] if operands[0] is not None else None
    a, b = node.operands
    if operands[1] is not None and operands[1][0] < 0:
        return make("sub" if node.op == "add" else "add", a, operands[1][1])
    if node.op == "add" and operands[0] is not None and operands[0][0] < 0:
        return make("sub", b, operands[0][1])
    return None


def _negated(node: Node) -> tuple[float, Node] | None:
    """(c, (−c)·x) where the node is c·x, and so where c, or −1, is multiplied to a smaller operand of a product."""
    if node.op == "neg":
        return -1.0, node.operands[0]
    number = number_of(node)
    if number is not None and node.op != "mul":
        return (number.factor, build.const(-number.factor, node.dtype)) if node.op == "const" else None
    for k, operand in enumerate(node.operands if node.op == "mul" else node.operands[:1] if node.op == "div" else ()):
        if number_of(operand) or not is_whole(operand, node):
            found = _negated(operand)
            if found is not None:
                return found[0], make(node.op, *node.operands[:k], found[1], *node.operands[k + 1 :])
    return None


@rule("number of a movement", EXACT, "a reshape or transpose of c·x is c times that of x, where arithmetic reads it")
def number_of_movement(node: Node, memo: Memo) -> Node | None:
    if node.op not in ("reshape", "transpose") or not memo.read_once(node.operands[0]):
        return None
    found = outer_number(node.operands[0])
    readers = memo.readers(node)
    if found is None or not readers or any(r is None or r.op not in ARITHMETIC for r in readers):
        return None
    number, x = found
    return replace(number, value=make(node.op, x, **dict(node.attrs))).node(node.dtype)


# -- sums ------------------------------------------------------------------------------------------------------------
def terms_of(node: Node, memo: Memo) -> list[Multiple]:
    """A chain of additions and subtractions as its terms, in the order in which they are added.

    A sum that something else reads too is one term, and so is a sum inside a term: in (a − b) + (a − c) the
    differences may be small where a is not, so 2a − b − c is another thing.
    """
    found: list[Multiple] = []
    sign = 1

    def add(sign: int, leaf: Node) -> None:
        x = multiple(leaf)
        found.append(replace(x, factor=sign * x.factor))

    while True:
        a, b = node.operands
        second = -sign if node.op == "sub" else sign
        if _goes_on(a, memo):
            add(second, b)
            node = a
        elif _goes_on(b, memo):
            add(sign, a)
            node, sign = b, second
        else:
            add(second, b)
            add(sign, a)
            return found[::-1]


def _is_sum(node: Node) -> bool:
    return node.op in ("add", "sub") and node.dtype.is_float


def _goes_on(node: Node, memo: Memo) -> bool:
    return _is_sum(node) and memo.read_once(node)


def _is_inside_sum(node: Node, memo: Memo) -> bool:
    """Is a sum part of the chain of another one, which is rewritten as a whole?"""
    if len(readers := memo.readers(node)) != 1:
        return False
    (reader,) = readers
    if reader is None or not _is_sum(reader):
        return False
    a, b = reader.operands
    before = memo.before(node)
    return a is before or (b is before and not _goes_on(a, memo))


def sum_of(terms: Iterable[Multiple], dtype: DType) -> Node:
    """Terms added in their order."""
    total, negative = None, False
    for term in terms:
        below = term.factor < 0
        leaf = replace(term, factor=abs(term.factor)).node(dtype)
        if total is None:
            total, negative = leaf, below
        elif negative == below:
            total = make("add", total, leaf)
        else:
            total, negative = make("sub", *((leaf, total) if negative else (total, leaf))), False
    assert total is not None
    return make("neg", total) if negative else total


@rule(
    "like terms",
    VALUE_CHANGING,
    "c·x + … + d·x = (c + d)·x + …, for numbers of one sign: one addition less, one rounding",
)
def like_terms(node: Node, memo: Memo) -> Node | None:
    if not _is_sum(node) or _is_inside_sum(node, memo):
        return None
    terms = terms_of(node, memo)
    together: dict[tuple[bool, Node | None, Node | None], Multiple] = {}
    kept: list[Multiple | tuple[bool, Node | None, Node | None]] = []
    for term in terms:
        key = term.factor < 0, term.scale, term.value
        factor = rounded(together[key].factor + term.factor, node.dtype) if key in together else None
        if factor is not None:
            together[key] = replace(term, factor=factor)
        elif key in together:  # the number would be too large
            kept.append(term)
        else:
            together[key] = term
            kept.append(key)
    if len(kept) == len(terms):
        return None
    total = sum_of((together[k] if isinstance(k, tuple) else k for k in kept), node.dtype)
    return build.broadcast_to(total, node.shape)


@rule(
    "number of a sum",
    VALUE_CHANGING,
    "(c·x + d)·y = c·((x + d/c)·y) where c divides d: the number meets others outside",
)
def number_of_sum(node: Node, memo: Memo) -> Node | None:
    if node.op not in ("mul", "div") or not node.dtype.is_float:
        return None
    for k, operand in enumerate(node.operands[: 1 if node.op == "div" else 2]):
        if _goes_on(operand, memo) and is_whole(operand, node):
            found = _common(operand, terms_of(operand, memo), _met(node, memo))
            if found is not None:
                number, rest = found
                operands = list(node.operands)
                operands[k] = build.broadcast_to(sum_of(rest, node.dtype), operand.shape)
                return replace(number, value=make(node.op, *operands)).node(node.dtype)
    return None


def _common(total: Node, terms: list[Multiple], met: Multiple | None) -> tuple[Multiple, list[Multiple]] | None:
    """A number that all terms have, and the terms without it: where that leaves fewer products, and no more work.

    met: the number that it meets outside."""
    before = _products(terms, total)
    scales = {t.scale for t in terms}
    scale = scales.pop() if len(scales) == 1 else None
    for factor in dict.fromkeys(abs(t.factor) for t in before):
        rest = [t for t in (_divided(t, factor, scale, total.dtype) for t in terms) if t is not None]
        if len(rest) < len(terms):
            continue
        left = _products(rest, total)
        # an addition takes a product with it, so only where every term is a product one costs something
        work = (len(left) == len(terms)) + (met is None or not may_meet(met.factor, factor))
        if len(left) < len(before) and work <= (len(before) == len(terms)):
            return Multiple(factor, scale), rest
    return None


def _products(terms: Iterable[Multiple], total: Node) -> list[Multiple]:
    """The terms as large as their sum that have a number other than 1 and −1."""
    whole = (t for t in terms if t.value is not None and is_whole(t.value, total))
    return [t for t in whole if not (t.is_plain or t.is_sign)]


def _divided(term: Multiple, factor: float, scale: Node | None, dtype: DType) -> Multiple | None:
    """A term without a number, where the quotient is exact."""
    quotient = rounded(term.factor / factor, dtype)
    if quotient is None or Fraction(quotient) * Fraction(factor) != Fraction(term.factor):
        return None
    return replace(term, factor=quotient, scale=None if scale is not None else term.scale)


def _met(node: Node, memo: Memo) -> Multiple | None:
    """The number that a number meets when it leaves a product: beside it there, or on the way up through products."""
    found = _number_beside(None, node)
    value = memo.before(node)
    for _ in range(FARTHEST):
        readers = memo.readers(value)
        above = readers[0] if len(readers) == 1 else None
        if found or above is None or above.op not in ("mul", "div") or not is_whole(value, above):
            return found
        found = _number_beside(value, above) if value is not above.operands[1] or above.op == "mul" else None
        value = above
    return found


def _number_beside(value: Node | None, product: Node) -> Multiple | None:
    """The number that a product's other operand is, or has."""
    for operand in product.operands if product.op == "mul" else ():
        if operand is not value:
            number, outer = number_of(operand), outer_number(operand)
            if number is not None:
                return number
            if outer is not None and not outer[0].is_sign:
                return outer[0]
    return None


RULES: tuple[Rule, ...] = (
    sign_of_product,
    negated_number,
    numbers_of_product,
    number_of_product,
    number_of_movement,
    like_terms,
    number_of_sum,
)
