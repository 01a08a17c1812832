"""What a kernel costs: its arithmetic operations, as a polynomial in the sizes; and what is cheaper done twice.

Operations are not equal. WEIGHTS are those that take longer than an addition, in additions, as measured on vectors of
float32 with the functions of graphc.codegen.vecmath. An element that is read from cache, or stored there, counts as one.
"""

from __future__ import annotations

from collections.abc import Callable

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


def operations(items: list[Statement], around: tuple[Loop, ...] = ()) -> Size:
    """Elementary operations (an addition and an exponential count one each), loops multiplied out."""
    own = sum(_of(item) for item in items if not isinstance(item, (Loop, Note)))
    total = _times(around) * own if own else size(0)
    for item in items:
        if isinstance(item, Loop):
            total = total + operations(item.before, around) + operations(item.after, around)
            total = total + operations(item.body, (*around, item))
    return total


def _times(around: tuple[Loop, ...]) -> Size:
    """How often what is inside loops runs. A loop within a block runs, over all blocks, through its whole extent."""
    times, blocks = size(1), {loop.within for loop in around}
    for loop in around:
        if loop.step == 1:
            times = times * loop.extent
        elif loop.variable not in blocks:
            times = times * ((loop.extent + loop.step - 1) // loop.step)
    return times


def _of(item: Statement) -> int:
    assert not isinstance(item, (Loop, Note))
    combines = isinstance(item, (Accumulate, Arg)) or (isinstance(item, Store) and item.reduce != "assign")
    return sum(1 for e in sc.distinct([item.expression]) if _computes(e)) + int(combines)


def price(expression: Scalar, read: Callable[[Scalar], int]) -> int:
    """What a value of an expression costs, in additions; `read` says what one of its `access` leaves does."""
    return sum(
        WEIGHTS.get(e.op, 1) if _computes(e) else read(e)
        for e in sc.distinct([expression])
        if _computes(e) or e.op == "access"
    )


def _computes(e: Scalar) -> bool:
    return e.op not in (*sc.LEAVES, "load", "local", "access", "cast")
