"""Phases: a loop over rows that need totals of themselves runs in tiles of rows, one loop for each phase.

A softmax finds the maximum of a row, then sums exponentials, then divides: each phase waits for the last step of the one
before it, and a row is too long for the processor to begin the next one meanwhile. In a loop that does one phase of several
rows it has them all at hand. What later phases need of a row waits in the nearest cache.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from ..graph.dtype import DType
from ..graph.formula import var
from ..graph.scalar import Scalar
from ..graph.size import Size, size
from .cost import LONG, WEIGHTS
from .ir import (
    MOST_WORDS,
    Accumulate,
    Arg,
    Array,
    Assign,
    Kernel,
    Load,
    Loop,
    Position,
    Statement,
    Store,
    leaves,
    loads,
    loops,
    map_places,
    map_statements,
    sizes,
    walk,
)

ELEMENTS = 1536
"""Elements of a tile, about: so many that several arrays of a tile fit into the nearest cache."""


def phased(kernel: Kernel, scratch: Mapping[int, Size]) -> tuple[Kernel, dict[int, Size]]:
    """The kernel with its loop over rows in tiles, if it has phases, and the lengths of private arrays, new or longer.

    scratch: the lengths of those private arrays that hold one row.
    """
    found = loops(kernel.body)
    if kernel.main is None:
        return kernel, {}
    inside = [x for x in found.values() if x.within == kernel.main]
    rows = inside[0] if inside else found[kernel.main]
    phases = _phases(rows.body)
    extents = {x.extent for x in walk(rows.body) if isinstance(x, Loop)}
    if len(phases) < 2 or len(extents) != 1:
        return kernel, {}
    (extent,) = extents
    length = (extent + ELEMENTS) // (extent + 1)  # rows of a tile: at least one
    if length == 1:
        return kernel, {}
    tile = max(found) + 1
    block = found[rows.within] if rows.within is not None else None
    if block is not None and isinstance(block.step, int) and (length.constant or 0) >= block.step:  # tile enough
        tile, length = block.variable, size(block.step)
    waiting = _waiting(phases)
    place = var(rows.variable) + var(tile) * -1
    number = {local: len(kernel.arrays) + k for k, local in enumerate(waiting)}
    shared = {a for a in scratch if sum(_touches(items, a) for items in phases) > 1}
    if len(sizes(kernel.body)) + len(kernel.arrays) + len(waiting) + 2 > MOST_WORDS:
        return kernel, {}

    def longer(array: int, position: Position) -> tuple[int, Position]:
        if array not in shared:
            return array, position
        return array, Position(position.affine + place * scratch[array], position.strides)

    split: list[Statement] = []
    for items in phases:
        own = _sets(items)
        begin = [
            Assign(local, Scalar("load", (), waiting[local], Load(number[local], Position(place))))
            for local in waiting
            if local not in own and local in _reads(items)
        ]
        end = [
            Store(number[local], Position(place), Scalar("local", (), waiting[local], local))
            for local in waiting
            if local in own
        ]
        split.append(Loop(rows.variable, rows.extent, body=[*begin, *map_places(items, longer), *end], within=tile))
    tiles: list[Statement] = [Loop(tile, rows.extent, rows.before, split, rows.after, step=length, within=rows.within)]
    if block is not None and tile == block.variable:
        tiles = [*rows.before, *split, *rows.after]
    body = map_statements(kernel.body, lambda x: tiles if isinstance(x, Loop) and x.variable == rows.variable else [x])
    arrays = [Array(f"row_{k}", dtype, True) for k, dtype in enumerate(waiting.values(), 1)]
    remark = (
        f"{len(phases)} loops over tiles of rows: each waits for a total of the one before, of all rows of the tile"
    )
    changed = replace(
        kernel,
        nodes=[*kernel.nodes, *[kernel.nodes[0]] * len(arrays)],
        arrays=[*kernel.arrays, *arrays],
        body=body,
        main=tile if rows.variable == kernel.main else kernel.main,
        private={**kernel.private, **dict.fromkeys(number.values(), "scratch")},
        remarks=(*kernel.remarks, remark),
    )
    return changed, dict.fromkeys(number.values(), length) | {a: scratch[a] * length for a in shared}


def _phases(items: Iterable[Statement]) -> list[list[Statement]]:
    """The statements of a row in order, cut before each loop that reads what another loop since the last cut totalled.

    A long function of a total has a phase of its own, whose rows become vectors.
    """
    phases: list[list[Statement]] = [[]]
    totals: set[str] = set()  # and what was computed of them
    for item in items:
        read = _reads([item])
        if isinstance(item, Loop) and read & totals:
            phases.append([])
            totals = set()
        elif read & totals and any(WEIGHTS.get(e.op, 1) >= LONG for e in leaves(item)):
            phases.append([])
        phases[-1].append(item)
        if isinstance(item, Loop) or read & totals:
            totals |= _sets([item])
    for later in range(1, len(phases)):  # what a loop totals begins in the loop's own phase, anew for each row
        begun = _sets(x for x in phases[later] if isinstance(x, Loop))
        for items in phases[:later]:
            starts = [x for x in items if isinstance(x, Assign) and x.local in begun]
            items[:] = [x for x in items if x not in starts]
            phases[later][:0] = starts
    return phases


def _sets(items: Iterable[Statement]) -> set[str]:
    """The registers that statements set."""
    found: set[str] = set()
    for item in walk(items):
        if isinstance(item, (Assign, Accumulate)):
            found.add(item.local)
        elif isinstance(item, Arg):
            found |= {item.best, item.place}
    return found


def _reads(items: Iterable[Statement]) -> set[str]:
    """The registers that statements read."""
    return {e.value for item in walk(items) for e in leaves(item) if e.op == "local"}


def _waiting(phases: list[list[Statement]]) -> dict[str, DType]:
    """The registers that are read in a later phase than they are set in, with their types."""
    waiting: dict[str, DType] = {}
    known: set[str] = set()
    for items in phases:
        for item in walk(items):
            waiting |= {e.value: e.dtype for e in leaves(item) if e.op == "local" and e.value in known}
        known |= _sets(items)
    return waiting


def _touches(items: list[Statement], array: int) -> bool:
    return any(
        any(load.array == array for load in loads(x)) or isinstance(x, Store) and x.array == array for x in walk(items)
    )
