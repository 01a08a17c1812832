"""A number that multiplies a sum goes into it, where the sum takes the multiplication with it as a multiply-add.

c·((x + b)·y) is (c·x + c·b)·y: a product less. The algebra has numbers outermost, so that they meet; this comes when
they have. Only powers of two below 1 go: the result is then the same to the last bit, fused or not, unless a product
under- or overflows; it does so later.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from math import frexp

from ..graph import scalar as sc
from ..graph.dtype import f32, f64
from ..graph.scalar import Scalar
from .ir import Kernel, expressions, map_expressions, map_statements, walk

FARTHEST = 4  # factors of a product that are looked through
LEAST = {f32: 2.0**-100, f64: 2.0**-960}
"""A sum's number is larger: what then underflows as c·x is nothing beside it, whether as x or as c·x."""


def multiply_adds(kernel: Kernel) -> Kernel:
    """The kernel with numbers in the sums that they multiply."""
    stated = [expression for item in walk(kernel.body) for expression in expressions(item)]
    readers = Counter(stated)
    for expression in sc.distinct(stated):
        readers.update(expression.args)

    def changed(expression: Scalar) -> Scalar:
        return sc.fold(expression, lambda e, args: _absorbed(Scalar(e.op, args, e.dtype, e.value), e, readers))

    return replace(kernel, body=map_statements(kernel.body, lambda item: [map_expressions(item, changed)]))


def _absorbed(product: Scalar, before: Scalar, readers: Counter[Scalar]) -> Scalar:
    """A product with a number without it, where it can be; any other expression as it is.

    before: what the expression was, as `readers` knows it.
    """
    if product.op == "mul":
        for k, number in enumerate(product.args):
            if number.op == "const" and 0 < abs(number.value) < 1 and abs(frexp(number.value)[0]) == 0.5:
                found = _multiplied(product.args[1 - k], before.args[1 - k], number.value, readers, FARTHEST)
                return found or product
    return product


def _multiplied(e: Scalar, before: Scalar, c: float, readers: Counter[Scalar], deep: int) -> Scalar | None:
    """c·e where that costs nothing, for what nobody else reads: a sum with a number in it, or a product of one."""
    if readers[before] != 1 or not deep or e.op not in ("add", "sub", "mul"):
        return None
    a, b = e.args
    if e.op == "mul":
        for k in (0, 1):
            factor = _multiplied(e.args[k], before.args[k], c, readers, deep - 1)
            if factor is not None:
                return Scalar("mul", (factor, b) if k == 0 else (a, factor), e.dtype)
        return None
    for number, other in ((a, b), (b, a)):
        if number.op == "const" and other.op not in ("const", "mul"):  # a product is in a multiply-add already
            if abs(c * number.value) < LEAST[e.dtype]:
                return None
            scaled = sc.const(c * number.value, e.dtype)
            terms = {number: scaled, other: Scalar("mul", (other, sc.const(c, e.dtype)), e.dtype)}
            return Scalar(e.op, (terms[a], terms[b]), e.dtype)
    return None

