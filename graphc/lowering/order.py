"""The order of a statement's loops."""

from __future__ import annotations

from ..graph.formula import Affine
from .products import strides_of
from .statements import Statement


def kept_axes(statement: Statement) -> set[int]:
    """The axes that the result keeps."""
    return {a for i in statement.write if isinstance(i, Affine) for a in i.axes}


def loop_order(statement: Statement) -> list[int]:
    """The axes of the box from the outermost loop to the innermost.

    Written axes come first and reduced ones last, so that a reduction runs in a register; but where memory is
    contiguous along a written axis, that axis goes innermost and the sums stay in memory (a sum over rows).
    """
    kept = kept_axes(statement)
    rank = len(statement.box)
    written = [a for a in range(rank) if a in kept]
    reduced = [a for a in range(rank) if a not in kept]
    if not statement.plain:
        return list(range(rank))  # a scatter runs through what it reads
    if not reduced or not written or statement.reduce == "argmax":
        return written + reduced
    widest, axis = 0, None
    for access in statement.accesses:
        strides = strides_of(access.view)
        unit = [i.variable for i, s in zip(access.map, strides, strict=True) if i is not None and s == 1]
        count = sum(i is not None and bool(i.axes) for i in access.map)
        if unit and unit[0] is not None and count > widest:
            widest, axis = count, unit[0]
    if axis is None or axis not in kept:
        return written + reduced
    return [a for a in written if a != axis] + reduced + [axis]


def accumulates_in_memory(statement: Statement, order: list[int]) -> bool:
    """Does a loop around one of the result's own axes sum, so that its cells are visited again and again?"""
    kept = kept_axes(statement)
    flags = [a in kept for a in order]
    return statement.plain and False in flags and flags != sorted(flags, reverse=True)
