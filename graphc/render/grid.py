"""Where the units of a timeline stand: time runs to the right, layers upwards, everything on a grid of straight lines.

Each unit that is computed at every step has a row of its own; the same step of all units is a column. What there is
one of stands above the columns that it reads, or before the first column that reads it.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from ..graph.size import Size, size
from .cell import step_text
from .timeline import Reading, Timeline, Unit


@dataclass(frozen=True)
class Column:
    """A step that is drawn. step None: those that are left out."""

    step: Size | str | None
    text: str


def columns_of(length: Size, steps: int) -> list[Column]:
    """The first steps, those that are left out, the last."""
    number = length.constant
    if number is not None and number <= steps:
        return [Column(size(k), str(k)) for k in range(1, number + 1)]
    shown = [Column(size(k), str(k)) for k in range(1, steps)]
    return [*shown, Column(None, "…"), Column(length, step_text(length))]


def rows_of(timeline: Timeline, block: int) -> list[Unit]:
    """The units of a block from the bottom upwards: each above what it reads, the longest chain first, so that inputs and
    masks stand just below what reads them first."""
    units = [u for u in timeline.units if u.block == block]
    reads: dict[Unit, list[Unit]] = defaultdict(list)
    for r in timeline.readings:
        if r.how == "step" and r.source.block == block and r.reader.block == block:
            reads[r.reader].append(r.source)
    depth: dict[Unit, int] = {}

    def deep(unit: Unit) -> int:
        if unit not in depth:
            depth[unit] = 0  # a cycle cannot be: values are computed one after another
            depth[unit] = 1 + max((deep(s) for s in reads[unit]), default=0)
        return depth[unit]

    result: dict[Unit, None] = {}

    def put(unit: Unit) -> None:
        if unit not in result:
            for source in sorted(reads[unit], key=lambda u: (-deep(u), units.index(u))):
                put(source)
            result[unit] = None

    for unit in sorted((u for u in units if u.kind != "input"), key=lambda u: (deep(u), units.index(u))):
        if not any(unit in sources for sources in reads.values()):
            put(unit)
    return list(result)


def wholes_of(timeline: Timeline) -> tuple[list[Unit], list[Unit]]:
    """What there is one of: (what stands above the columns, what stands before those that read it)."""
    above: list[Unit] = []
    sources: dict[Unit, list[Reading]] = defaultdict(list)
    for r in timeline.readings:
        sources[r.reader].append(r)
    units = _in_order(timeline.units, sources)
    from_steps: set[Unit] = set()
    for unit in units:
        if unit.block is None and any(r.how in ("all", "last") or r.source in from_steps for r in sources[unit]):
            from_steps.add(unit)
            above.append(unit)
    needed: set[Unit] = set()
    for unit in reversed(units):
        readers = [r.reader for r in timeline.readings if r.source is unit]
        if unit.block is None and unit not in from_steps and any(r.block is not None or r in needed for r in readers):
            needed.add(unit)
    before = [u for u in units if u in needed]
    beside = [u for u in units if u.block is None and u not in from_steps and u not in needed]
    return above + [u for u in beside if u.kind != "input"], before


def _in_order(units: list[Unit], sources: dict[Unit, list[Reading]]) -> list[Unit]:
    """Each after what it reads: a unit of several values stands where the first of them is computed."""
    result: dict[Unit, None] = {}
    begun: set[Unit] = set()

    def put(unit: Unit) -> None:
        if unit not in begun:
            begun.add(unit)
            for r in sources[unit]:
                put(r.source)
            result[unit] = None

    for unit in units:
        put(unit)
    return list(result)
