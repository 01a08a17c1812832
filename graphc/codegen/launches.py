"""A kernel's statements as launches: what many threads may do at once, one launch after the other.

A `Kernel` runs its statements in order. Here its outermost loops are sorted into launches, each with a barrier after it:

- `Grid`: independent iterations (see `cells`), a thread each. Registers that the loop sums up over all iterations (a
  loss) are summed by each thread for itself, and put together at the next launch: in a fixed order, so that the same
  inputs give the same bits.
- `One`: what must be done in order, by one thread.

A sum that stays in memory is taken out of its loop first (`takeout`).

Where nothing can be shown, one thread does it all: slow, and right.
"""

from __future__ import annotations

from dataclasses import replace

from ..graph.dtype import DType, i64
from ..graph.formula import affine
from ..graph.scalar import Scalar
from ..graph.size import size
from ..lowering.cells import apart, independent
from ..lowering.ir import (
    Accumulate,
    Arg,
    Assign,
    Kernel,
    Load,
    Loop,
    Note,
    Position,
    Statement,
    Store,
    leaves,
    loads,
    neutral,
    walk,
)
from .launch import BLOCKS, Fold, Grid, Launch, Memory, One
from .takeout import Cannot, take_out


def launches_of(kernel: Kernel) -> tuple[list[Launch], Memory]:
    """A kernel's statements as launches, and its arrays with those made for values between them."""
    sorter = _Sorter(kernel)
    sorter.block(kernel.body)
    sorter.keep_registers()
    return sorter.launches, sorter.memory


class _Sorter:
    def __init__(self, kernel: Kernel):
        self.memory = Memory(list(kernel.arrays))
        self.launches: list[Launch] = []
        self.constants: dict[str, Assign] = {}
        self.extents = {item.variable: item.extent for item in walk(kernel.body) if isinstance(item, Loop)}

    def one(self) -> One:
        """The last launch if a single thread runs it, else a new one."""
        if not self.launches or not isinstance(self.launches[-1], One):
            self.launches.append(One())
        last = self.launches[-1]
        assert isinstance(last, One)
        return last

    # -- the outermost statements -------------------------------------------------------------------------------
    def block(self, items: list[Statement]) -> None:
        notes: list[Statement] = []
        for item in items:
            if isinstance(item, Note):
                notes.append(item)
            elif isinstance(item, Loop):
                self.block(item.before)
                self.loop(replace(item, before=[], after=[]), notes)
                self.block(item.after)
                notes = []
            elif isinstance(item, Assign) and not any(e.op in ("load", "local") for e in leaves(item)):
                self.constants[item.local] = item  # every launch that needs it says it again
            else:
                self.one().body += [*notes, item]
                notes = []

    def loop(self, loop: Loop, notes: list[Statement]) -> None:
        memory = Memory(list(self.memory.arrays), list(self.memory.made))
        try:
            launches = self.split(loop)
        except Cannot:
            self.memory = memory
            self.one().body += [*notes, loop]
            return
        if isinstance(launches[0], Grid):
            launches[0].notes = notes
        self.launches += launches

    def split(self, loop: Loop) -> list[Launch]:
        """The launches of an outermost loop. Cannot where its iterations cannot be made independent."""
        items = list(walk(loop.body))
        own = {item.local for item in items if isinstance(item, Assign)}
        crossing = [
            item
            for item in items
            if isinstance(item, Arg) and item.best not in own or isinstance(item, Store) and self._meets(item, loop)
        ]
        # what is summed up in memory is complete only after the loop, and begun before it
        sums = {item.array for item in crossing if isinstance(item, Store)}
        if any(load.array in sums for item in items for load in loads(item)) or any(
            isinstance(item, Store) and item.array in sums and not self._meets(item, loop) for item in items
        ):
            raise Cannot
        rest, nests = loop, []
        for item in crossing:
            rest, nest = take_out(rest, item, self.extents, self.memory)
            nests.append(nest)
        grids: list[Launch] = [nest for nest in nests if isinstance(nest, Grid)]
        one = One(body=[x for nest in nests if isinstance(nest, One) for x in nest.body])
        if any(isinstance(item, (Store, Accumulate, Arg)) for item in walk(rest.body)):
            if not independent(rest, self.extents):
                raise Cannot
            grid = self.grid(rest)
            totals = {x.local: x for x in walk(rest.body) if isinstance(x, Accumulate) and x.local not in own}
            for local, total in totals.items():
                dtype = total.expression.dtype
                parts = self.memory.make("parts", dtype, size(BLOCKS))
                grid.folds.append(Fold(local, total.reduce, dtype, parts, grid.threads))
            one.folds += grid.folds
            grids.insert(0, grid)
        return [*grids, one] if one.folds or one.body else grids

    def grid(self, loop: Loop) -> Grid:
        """A loop whose iterations are independent, with as many of the loops inside it as can be taken with it."""
        depth, fixed = 1, frozenset({loop.variable})
        inner = loop
        while True:
            inside = [item for item in inner.body if not isinstance(item, Note)]
            if len(inside) != 1 or not isinstance(inside[0], Loop) or inside[0].before or inside[0].after:
                return Grid(loop, depth)
            inner = inside[0]
            if not independent(inner, self.extents, fixed):
                return Grid(loop, depth)
            depth, fixed = depth + 1, fixed | {inner.variable}

    def _meets(self, store: Store, loop: Loop) -> bool:
        """Does a store combine with what another iteration of the loop stored?"""
        return store.reduce != "assign" and not apart([store.position], loop.variable, self.extents)

    # -- registers ----------------------------------------------------------------------------------------------
    def keep_registers(self) -> None:
        """Registers that a later launch reads are kept in memory; constants are said again."""
        last: dict[str, One] = {}
        kept: dict[tuple[str, int], int] = {}
        for launch in self.launches:
            folded = {fold.local for fold in launch.folds}
            for local, dtype in _needs(launch).items():
                if local in last:
                    maker = last[local]
                    if (local, id(maker)) not in kept:
                        kept[local, id(maker)] = cell = self.memory.make("kept", dtype, size(1))
                        maker.body.append(Store(cell, Position(affine(0)), Scalar("local", (), dtype, local)))
                    place = Load(kept[local, id(maker)], Position(affine(0)))
                    launch.first.append(Assign(local, Scalar("load", (), dtype, place)))
                else:
                    launch.first.append(self.constants[local])
            if isinstance(launch, Grid):
                launch.first += [Assign(fold.local, neutral(fold.reduce, fold.dtype)) for fold in launch.folds]
            else:
                last.update(dict.fromkeys({*folded, *_sets(launch.body)}, launch))


def _sets(items: list[Statement]) -> set[str]:
    """The registers that statements set or change."""
    found: set[str] = set()
    for item in walk(items):
        if isinstance(item, (Assign, Accumulate)):
            found.add(item.local)
        elif isinstance(item, Arg):
            found |= {item.best, item.place}
    return found


def _needs(launch: Launch) -> dict[str, DType]:
    """The registers that a launch reads before it sets them."""
    known: set[str] = set()
    needed: dict[str, DType] = {}
    if isinstance(launch, One):
        needed |= {fold.local: fold.dtype for fold in launch.folds}
    else:
        known |= {fold.local for fold in launch.folds}
    for item in walk(launch.statements):
        read = {e.value: e.dtype for e in leaves(item) if e.op == "local"}
        if isinstance(item, Accumulate):
            read[item.local] = item.expression.dtype
        elif isinstance(item, Arg):
            read |= {item.best: item.expression.dtype, item.place: i64}
        for local, dtype in read.items():
            if local not in known:
                needed.setdefault(local, dtype)
        known |= _sets([item]) if not isinstance(item, Loop) else set()
    return needed
