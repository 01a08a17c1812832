"""What a kernel costs: its arithmetic operations, as a polynomial in the sizes."""

from __future__ import annotations

from ..graph import scalar as sc
from ..graph.size import Size, size
from .ir import Accumulate, Arg, Loop, Note, Statement, Store


def operations(items: list[Statement]) -> Size:
    """Elementary operations (an addition and an exponential count one each), loops multiplied out."""
    total = size(0)
    for item in items:
        if isinstance(item, Loop):
            total = total + operations(item.before) + item.extent * operations(item.body) + operations(item.after)
        elif not isinstance(item, Note):
            total = total + _of(item)
    return total


def _of(item: Statement) -> int:
    assert not isinstance(item, (Loop, Note))
    memo: dict[sc.Scalar, None] = {}
    sc.fold(item.expression, lambda e, _: None, memo)
    count = sum(e.op not in (*sc.LEAVES, "load", "local", "cast") for e in memo)
    combines = isinstance(item, (Accumulate, Arg)) or (isinstance(item, Store) and item.reduce != "assign")
    return count + int(combines)
