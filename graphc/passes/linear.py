"""Numbers in products and sums: a value as a multiple c·m, a sum as a list of multiples.

A number stands outermost in a product, so that what is left of two products can be the same value, numbers that meet
are one, and a sum takes a number with its addition. Where a product has a small operand, stretched over the others, the
number stands at that one instead: it is multiplied fewer times.

Numbers are constants, and scalars made of sizes, such as the 1/B of a mean. They only move outwards or to something
smaller, so rewriting ends. They are not so large or small that moving them could overflow what is not itself near the
end of the range; and like terms of opposite signs stay apart, since ∞ − ∞ is NaN.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from math import frexp

from ..graph.dtype import DType
from ..graph.node import Node
from ..ops import build
from ..ops.build import const_value, make
from .rewrite import EXACT, VALUE_CHANGING, Memo, Rule, rule

LARGEST = 2.0**60  # of a number that moves; the smallest is its reciprocal
DEEPEST = 8  # operations that are looked through to see whether a scalar is a number, or meets one


# -- multiples -------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Multiple:
    """factor · scale · value. scale: a scalar made of sizes; value: what is no multiple itself. None stands for 1."""

    factor: float
    scale: Node | None = None
    value: Node | None = None

    @property
    def is_plain(self) -> bool:
        return self.factor == 1 and self.scale is None

    @property
    def is_sign(self) -> bool:
        return self.factor == -1 and self.scale is None

    def times(self, other: Multiple, dtype: DType) -> Multiple | None:
        """The number times a number inside it; None where they must not meet."""
        factor = _rounded(self.factor * other.factor, dtype)
        if factor is None or not _may_meet(self.factor, other.factor):
            return None
        both = self.scale is not None and other.scale is not None
        scale = make("mul", self.scale, other.scale) if both else self.scale or other.scale  # type: ignore[arg-type]
        return replace(self, factor=factor, scale=scale)

    def node(self, dtype: DType) -> Node:
        """It as a node."""
        value, number = self.value, replace(self, value=None)
        if value is None:
            return _number_node(number, dtype)
        if number.is_plain:
            return value
        return make("neg", value) if number.is_sign else _placed(_number_node(number, dtype), value)


def _may_meet(outer: float, inner: float) -> bool:
    """Is outer·(inner·x) the product by one number? Not if inner·x may overflow where the whole does not: (x·2)/2 is ∞
    for large x."""
    return not abs(outer) < 1 < abs(inner)


def _rounded(factor: float, dtype: DType) -> float | None:
    """A number in the precision of its type; None where it is too large or too small to move."""
    factor = float(dtype.numpy.type(factor)) if abs(factor) <= LARGEST else 0.0
    return factor if 1 / LARGEST <= abs(factor) <= LARGEST else None


def _number_node(number: Multiple, dtype: DType) -> Node:
    if number.scale is None:
        return build.const(number.factor, dtype)
    if number.is_plain or number.factor == 1:
        return number.scale
    return make("neg", number.scale) if number.factor == -1 else make("mul", build.const(number.factor, dtype), number.scale)


def _placed(number: Node, value: Node) -> Node:
    """number · value, multiplied where the value is smallest."""
    k = _smallest(value)
    if k is None:
        return make("mul", number, value)
    operands = list(value.operands)
    operands[k] = _placed(number, operands[k])
    return make(value.op, *operands)


def _smallest(node: Node) -> int | None:
    """The operand of a product, or of a quotient the dividend, that has fewer elements than the result. Not a
    constant: the product of two might leave the range where that with the result does not."""
    if node.op not in ("mul", "div"):
        return None
    factors = node.operands if node.op == "mul" else node.operands[:1]
    small = [k for k, o in enumerate(factors) if not (is_whole(o, node) or o.op == "const" or number_of(o))]
    return min(small, key=lambda k: sum(e != 1 for e in node.operands[k].shape), default=None)


def is_whole(operand: Node, node: Node) -> bool:
    """Has an operand as many elements as the node?"""
    return operand.type.numel == node.type.numel


def number_of(node: Node, depth: int = DEEPEST) -> Multiple | None:
    """A node that is a number, as a multiple of 1."""
    if node.shape or not node.dtype.is_float or depth == 0:
        return None
    constant = const_value(node)
    if constant is not None:
        return Multiple(float(constant)) if 1 / LARGEST <= abs(constant) <= LARGEST else None
    if node.op == "size":
        return Multiple(1.0, node)
    if node.op not in ("neg", "mul", "div"):
        return None
    numbers = []
    for operand in node.operands:
        number = number_of(operand, depth - 1)
        if number is None:
            return None
        numbers.append(number)
    if node.op == "neg":
        return replace(numbers[0], factor=-numbers[0].factor)
    if node.op == "mul":
        return numbers[0].times(numbers[1], node.dtype)
    above, below = numbers
    if above.scale is None and below.factor == 1:  # c/B is c·(1/B)
        return Multiple(above.factor, make("div", build.const(1, node.dtype), below.node(node.dtype)))
    return Multiple(1.0, node)


def outer_number(node: Node) -> tuple[Multiple, Node] | None:
    """(number, x) where the node is number·x, x·number or −x, and x as large as it."""
    if not node.dtype.is_float or number_of(node):
        return None
    if node.op == "neg":
        return Multiple(-1.0), node.operands[0]
    if node.op == "mul":
        for number, x in (node.operands, node.operands[::-1]):
            found = number_of(number)
            if found is not None:
                return found, x
    return None


def multiple(node: Node) -> Multiple:
    """A node as a multiple."""
    result, value = Multiple(1.0), node
    while True:
        number = number_of(value)
        found = (number, None) if number is not None else outer_number(value) or _inner_number(value)
        product = result.times(found[0], node.dtype) if found is not None else None
        if found is None or product is None:
            return replace(result, value=value)
        result, rest = product, found[1]
        if rest is None:
            return result
        value = rest


def _inner_number(node: Node) -> tuple[Multiple, Node] | None:
    """(number, s·y) where the node is (number·s)·y and s is smaller than y."""
    k = _smallest(node) if node.dtype.is_float else None
    if k is None:
        return None
    inner = multiple(node.operands[k])
    if inner.is_plain or inner.value is None:
        return None
    operands = list(node.operands)
    operands[k] = inner.value
    return replace(inner, value=None), make(node.op, *operands)


# -- products --------------------------------------------------------------------------------------------------------
@rule("sign of a product", EXACT, "(−x)·y = x·(−y) = −(x·y), and so for quotients: a sum subtracts instead of adding")
def sign_of_product(node: Node, memo: Memo) -> Node | None:
    taken = _taken(node, memo, signs=True)
    return taken.node(node.dtype) if taken is not None else None


@rule("number of a product", VALUE_CHANGING, "(c·x)·y = c·(x·y), and so for quotients: x·y may be there, c may meet another")
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


@rule("like terms", VALUE_CHANGING, "c·x + … + d·x = (c + d)·x + …, for numbers of one sign: one addition less, one rounding")
def like_terms(node: Node, memo: Memo) -> Node | None:
    if not _is_sum(node) or _is_inside_sum(node, memo):
        return None
    terms = terms_of(node, memo)
    together: dict[tuple[bool, Node | None, Node | None], Multiple] = {}
    kept: list[Multiple | tuple[bool, Node | None, Node | None]] = []
    for term in terms:
        key = term.factor < 0, term.scale, term.value
        factor = _rounded(together[key].factor + term.factor, node.dtype) if key in together else None
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


@rule("number of a sum", VALUE_CHANGING, "(c·x + d)·y = c·((x + d/c)·y) where c divides d: the number meets others outside")
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
    whole = [t for t in terms if t.value is not None and is_whole(t.value, total)]
    before = [t for t in whole if not _is_one(t)]
    scales = {t.scale for t in terms}
    scale = scales.pop() if len(scales) == 1 else None
    for factor in dict.fromkeys(abs(t.factor) for t in before):
        rest = [_divided(t, factor, scale, total.dtype) for t in terms]
        if any(t is None for t in rest):
            continue
        left = [t for t in rest if t is not None and t.value is not None and is_whole(t.value, total) and not _is_one(t)]
        # an addition takes a product with it, so only where every term is a product one costs something
        work = (len(left) == len(terms)) + (met is None or not _may_meet(met.factor, factor))
        if len(left) < len(before) and work <= (len(before) == len(terms)):
            return Multiple(factor, scale), [t for t in rest if t is not None]
    return None


def _is_one(term: Multiple) -> bool:
    return abs(term.factor) == 1 and term.scale is None


def _divided(term: Multiple, factor: float, scale: Node | None, dtype: DType) -> Multiple | None:
    """A term without a number, where the quotient is exact."""
    quotient = _rounded(term.factor / factor, dtype)
    if quotient is None or Fraction(quotient) * Fraction(factor) != Fraction(term.factor):
        return None
    return replace(term, factor=quotient, scale=None if scale is not None else term.scale)


def _met(node: Node, memo: Memo) -> Multiple | None:
    """The number that a number meets when it leaves a product: beside it there, or on the way up through products."""
    found = _number_beside(None, node)
    value = memo.before(node)
    for _ in range(DEEPEST):
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
            if number is not None or (outer is not None and not outer[0].is_sign):
                return number or outer[0]  # type: ignore[index]
    return None


RULES: tuple[Rule, ...] = (
    sign_of_product,
    negated_number,
    numbers_of_product,
    number_of_product,
    like_terms,
    number_of_sum,
)
