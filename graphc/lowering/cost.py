"""What a kernel costs: its arithmetic operations, as a polynomial in the sizes; and what is cheaper done twice.

Operations are not equal. WEIGHTS are those that take longer than an addition, in additions, as measured on vectors of
float32 with the functions of graphc.codegen.vecmath. An element that is read from cache, or stored there, counts as one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from ..graph import scalar as sc
from ..graph.scalar import Scalar
from ..graph.size import Size, size
from .ir import Accumulate, Arg, Loop, Note, Statement, Store

WEIGHTS = {
    **{"div": 4, "sqrt": 4, "exp2": 7, "exp": 8, "log": 8, "log2": 8, "log1p": 10, "expm1": 10, "sigmoid": 12},
    **{"tanh": 9, "erf": 14, "sin": 16, "cos": 16, "pow": 24, "random_bits": 64},
}
LONG = 7
"""From this weight on, an operation is a function of many steps, each of which waits for the one before it."""
CHEAP = 3
"""A value is computed again, and not stored, if that costs at most this: about a store, a load, and the space in cache."""


def operations(items: list[Statement]) -> Size:
    """Elementary operations (an addition and an exponential count one each), loops multiplied out."""
    total = size(0)
    for item in items:
        if isinstance(item, Loop):
            total = total + operations(item.before) + _repeated(item) + operations(item.after)
        elif not isinstance(item, Note):
            total = total + _of(item)
    return total


def _repeated(loop: Loop) -> Size:
    """The operations of all iterations of a loop."""
    if loop.step == 1:
        return loop.extent * operations(loop.body)
    inner = [x for x in loop.body if isinstance(x, Loop) and x.within == loop.variable]  # all blocks are its extent
    rest = [x for x in loop.body if not any(x is y for y in inner)]
    return operations(list(inner)) + (loop.extent + loop.step - 1) // loop.step * operations(rest)


def _of(item: Statement) -> int:
    assert not isinstance(item, (Loop, Note))
    combines = isinstance(item, (Accumulate, Arg)) or (isinstance(item, Store) and item.reduce != "assign")
    return sum(1 for e in _distinct(item.expression) if _computes(e)) + int(combines)


def price(expression: Scalar, read: Callable[[Scalar], int]) -> int:
    """What a value of an expression costs, in additions; `read` says what one of its `access` leaves does."""
    return sum(
        WEIGHTS.get(e.op, 1) if _computes(e) else read(e)
        for e in _distinct(expression)
        if _computes(e) or e.op == "access"
    )


def _distinct(expression: Scalar) -> Iterable[Scalar]:
    memo: dict[Scalar, None] = {}
    sc.fold(expression, lambda e, _: None, memo)
    return memo


def _computes(e: Scalar) -> bool:
    return e.op not in (*sc.LEAVES, "load", "local", "access", "cast")
