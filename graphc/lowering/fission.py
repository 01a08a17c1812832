"""Loop fission: an elementwise loop with long functions of long functions runs in tiles, a loop for each in turn.

The vectors of a loop are as independent as its processor can look ahead. A tanh whose exponential is taken is a chain of
some two hundred cycles, and only a few such chains fit into that window; one function after the other, many more do, and
it takes half the time. A value that a later loop of the tile reads waits in a row of the tile, in the nearest cache.
Functions that do not wait for each other share a loop: they overlap by themselves.
"""

from __future__ import annotations

import itertools
from dataclasses import replace

from ..graph import scalar as sc
from ..graph.dtype import DType
from ..graph.formula import var
from ..graph.scalar import Scalar
from ..graph.size import Size, size
from .cost import LONG, WEIGHTS
from .ir import (
    MOST_WORDS,
    Accumulate,
    Array,
    Assign,
    Kernel,
    Load,
    Loop,
    Note,
    Position,
    Statement,
    Store,
    leaves,
    loops,
    map_expressions,
    map_statements,
    sizes,
    written,
)

TILE = 1024
"""Elements of a tile."""
MOST_ROWS = 6
"""Values of an element that may wait in a tile."""


def fissioned(kernel: Kernel) -> tuple[Kernel, dict[int, Size]]:
    """The kernel with its main loop split, if that is worth it, and the lengths of the private rows of its tiles."""
    found = loops(kernel.body)
    if kernel.main is None:
        return kernel, {}
    main = found[kernel.main]
    inner = [x for x in main.body if isinstance(x, Loop)]
    if main.step == TILE and len(inner) == 1 and not inner[0].before and not inner[0].after:
        (loop,) = inner
    elif main.step == 1 and not inner:
        loop = main
    else:
        return kernel, {}
    if not all(isinstance(x, (Assign, Store, Accumulate, Note)) for x in loop.body):
        return kernel, {}
    segments = _segments(_spelt_out(loop.body))
    waiting = _waiting(segments)
    room = MOST_WORDS - len(kernel.arrays) - len(sizes(kernel.body))
    if len(segments) == 1 or len(waiting) > min(MOST_ROWS, room):
        return kernel, {}
    tiles = loop.within if loop.within is not None else max(found) + 1
    rows = {local: len(kernel.arrays) + k for k, local in enumerate(waiting)}
    split = _loops(segments, loop, tiles, rows, waiting)

    def change(x: Statement) -> list[Statement]:
        if not isinstance(x, Loop) or x.variable != loop.variable:
            return [x]
        return split if loop is not main else [Loop(tiles, x.extent, x.before, split, x.after, step=TILE)]

    arrays = [Array(f"tile_{k}", dtype, True) for k, dtype in enumerate(waiting.values(), 1)]
    changed = replace(
        kernel,
        nodes=[*kernel.nodes, *[kernel.nodes[0]] * len(rows)],
        arrays=[*kernel.arrays, *arrays],
        body=map_statements(kernel.body, change),
        main=tiles,
        remarks=(
            *kernel.remarks,
            f"{len(segments)} loops over tiles of {TILE} elements: a long function waits for no other of its loop",
        ),
        private={**kernel.private, **dict.fromkeys(rows.values(), "scratch")},
    )
    return changed, dict.fromkeys(rows.values(), size(TILE))


def _spelt_out(items: list[Statement]) -> list[Statement]:
    """The statements with each long function inside an expression as a statement of its own, before its first use."""
    stored = written(items)
    known: dict[Scalar, Scalar] = {}
    numbers = itertools.count()
    result: list[Statement] = []

    def visit(e: Scalar, args: tuple[Scalar, ...]) -> Scalar:
        new = Scalar(e.op, args, e.dtype, e.value)
        if WEIGHTS.get(e.op, 1) < LONG:
            return new
        if new not in known:
            local = Scalar("local", (), e.dtype, f"long_{next(numbers)}")
            result.append(Assign(local.value, new))
            if any(x.value.array in stored for x in leaves(result[-1]) if x.op == "load"):
                return local  # the array may have another value when this is read again
            known[new] = local
        return known[new]

    for item in items:
        alone = isinstance(item, Assign) and WEIGHTS.get(item.expression.op, 1) >= LONG
        memo: dict[Scalar, Scalar] = {}

        def change(e: Scalar, alone: bool = alone, memo: dict[Scalar, Scalar] = memo) -> Scalar:
            if not alone:
                return sc.fold(e, visit, memo)
            args = tuple(sc.fold(a, visit, memo) for a in e.args)
            return Scalar(e.op, args, e.dtype, e.value)

        changed = map_expressions(item, change)
        result.append(changed)
    return result


def _segments(items: list[Statement]) -> list[list[Statement]]:
    """The statements in order, cut before a long function of what another in the same segment gave."""
    segments: list[list[Statement]] = [[]]
    late: set[str] = set()  # what waits for a long function of the segment
    for item in items:
        long = any(WEIGHTS.get(e.op, 1) >= LONG for e in leaves(item))
        waits = any(e.op == "local" and e.value in late for e in leaves(item))
        if long and waits:
            last = segments[-1]
            kept = len(last)
            while _goes_with_next(last[kept - 1]):
                kept -= 1
            segments[-1:] = [last[:kept], last[kept:]]
            late = set()
        segments[-1].append(item)
        if isinstance(item, Assign) and (long or waits):
            late.add(item.local)
    return segments


def _goes_with_next(item: Statement) -> bool:
    """Does the last statement of a segment serve the next one as well: a comment, or something light of one register,
    which waits in its stead?"""
    if not isinstance(item, Assign):
        return isinstance(item, Note)
    read = {e.value for e in leaves(item) if e.op == "local"}
    light = all(WEIGHTS.get(e.op, 1) < LONG and e.op != "load" for e in leaves(item))
    return light and len(read) == 1


def _waiting(segments: list[list[Statement]]) -> dict[str, DType]:
    """The registers that a later segment reads, with their types."""
    own = [{x.local: x.expression.dtype for x in items if isinstance(x, Assign)} for items in segments]
    waiting: dict[str, DType] = {}
    for k, items in enumerate(segments):
        before = {local: dtype for earlier in own[:k] for local, dtype in earlier.items()}
        for x in items:
            waiting |= {e.value: before[e.value] for e in leaves(x) if e.op == "local" and e.value in before}
    return waiting


def _loops(
    segments: list[list[Statement]], loop: Loop, tiles: int, rows: dict[str, int], waiting: dict[str, DType]
) -> list[Statement]:
    """A loop over the tile for each segment."""
    result: list[Statement] = []
    place = Position(var(loop.variable) + var(tiles) * -1)
    for items in segments:
        own = {x.local for x in items if isinstance(x, Assign)}
        read = {e.value for x in items for e in leaves(x) if e.op == "local"}
        body: list[Statement] = [
            Assign(local, Scalar("load", (), waiting[local], Load(row, place)))
            for local, row in rows.items()
            if local in read and local not in own
        ]
        for x in items:
            body.append(x)
            if isinstance(x, Assign) and x.local in rows:
                body.append(Store(rows[x.local], place, Scalar("local", (), waiting[x.local], x.local)))
        result.append(Loop(loop.variable, loop.extent, body=body, within=tiles))
    return result
