"""A value as a multiple: a number times something.

Numbers are constants, and scalars made of sizes, such as the 1/B of a mean. They are not so large or small that moving
them could overflow what is not itself near the end of the range.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..graph.dtype import DType
from ..graph.node import Node
from ..ops import build
from ..ops.build import const_value, make

LARGEST = 2.0**60  # of a number that moves; the smallest is its reciprocal
DEEPEST = 8  # operations that are looked through to see whether a scalar is a number


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
        factor = rounded(self.factor * other.factor, dtype)
        if factor is None or not may_meet(self.factor, other.factor):
            return None
        if self.scale is None or other.scale is None:
            return replace(self, factor=factor, scale=self.scale or other.scale)
        return replace(self, factor=factor, scale=make("mul", self.scale, other.scale))

    def node(self, dtype: DType) -> Node:
        """It as a node."""
        value, number = self.value, replace(self, value=None)
        if value is None:
            return _number_node(number, dtype)
        if number.is_plain:
            return value
        return make("neg", value) if number.is_sign else _placed(_number_node(number, dtype), value)


def may_meet(outer: float, inner: float) -> bool:
    """Is outer·(inner·x) the product by one number? Not if inner·x may overflow where the whole does not: (x·2)/2 is ∞
    for large x."""
    return not abs(outer) < 1 < abs(inner)


def rounded(factor: float, dtype: DType) -> float | None:
    """A number in the precision of its type; None where it is too large or too small to move."""
    factor = float(dtype.numpy.type(factor)) if abs(factor) <= LARGEST else 0.0
    return factor if 1 / LARGEST <= abs(factor) <= LARGEST else None


def _number_node(number: Multiple, dtype: DType) -> Node:
    if number.scale is None or number.factor not in (1, -1):
        constant = build.const(number.factor, dtype)
        return constant if number.scale is None else make("mul", constant, number.scale)
    return number.scale if number.factor == 1 else make("neg", number.scale)


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
    return operand.shape == node.shape or operand.type.numel == node.type.numel


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
