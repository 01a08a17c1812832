"""A kernel's statements as launches: what many threads may do at once, one launch after the other.

A `Kernel` runs its statements in order. Here its outermost loops are sorted into launches, each with a barrier after it:

- `Grid`: independent iterations (see `cells`), a thread each. Registers that the loop sums up over all iterations (a
  loss) are summed by each thread for itself, and put together at the next launch: in a fixed order, so that the same
  inputs give the same bits.
- `One`: what must be done in order, by one thread.

A sum that stays in memory (a bias's gradient, a scatter) meets one cell from many iterations. It is taken out of its loop
into a nest of its own, in which a thread owns a column and goes through the rows in their order: no atomics, and again the
same bits each time. What it sums is computed again, or read where the loop stored it, or stored in an array made for it.

Where nothing can be shown, one thread does it all: slow, and right.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from ..graph import scalar as sc
from ..graph.dtype import DType, i64
from ..graph.formula import Affine, affine
from ..graph.scalar import Scalar
from ..graph.size import Size, product, size
from ..lowering.ir import (
    Accumulate,
    Arg,
    Array,
    Assign,
    Kernel,
    Load,
    Loop,
    Note,
    Position,
    Statement,
    Store,
)
from .cells import apart, independent, leaves, loads, walk, written

BLOCKS = 1024
"""The most blocks of threads in a launch, and so the most parts that a sum is left in."""


@dataclass(frozen=True)
class Fold:
    """A register that the threads of a Grid accumulate, one part for each block in the array `parts`."""

    local: str
    reduce: str
    dtype: DType
    parts: int
    threads: Size


@dataclass
class Grid:
    """The iterations of `depth` nested loops, independent of one another."""

    loop: Loop
    depth: int
    folds: list[Fold] = field(default_factory=list)
    notes: list[Statement] = field(default_factory=list)
    first: list[Statement] = field(default_factory=list)  # registers that every thread begins with

    @property
    def threads(self) -> Size:
        """How many iterations there are."""
        return product(loop.extent for loop in self.loops)

    @property
    def loops(self) -> list[Loop]:
        """The loops that are taken as one, outermost first."""
        found = [self.loop]
        while len(found) < self.depth:
            found.append(next(item for item in found[-1].body if isinstance(item, Loop)))
        return found

    @property
    def statements(self) -> list[Statement]:
        return [*self.notes, *self.first, self.loop]


@dataclass
class One:
    """Statements for a single thread, after the registers of `folds` are put together."""

    folds: list[Fold] = field(default_factory=list)
    body: list[Statement] = field(default_factory=list)
    first: list[Statement] = field(default_factory=list)

    @property
    def statements(self) -> list[Statement]:
        return [*self.first, *self.body]


Launch = Grid | One


@dataclass
class Launches:
    """The launches of a kernel, and its arrays: the kernel's own, then those made for values between launches."""

    launches: list[Launch]
    arrays: list[Array]
    made: list[Size]  # lengths of the arrays made


def launches_of(kernel: Kernel) -> Launches:
    """Sort a kernel's statements into launches."""
    sorter = _Sorter(kernel)
    sorter.block(kernel.body)
    sorter.keep_registers()
    return Launches(sorter.launches, sorter.arrays, sorter.made)


def identity(reduce: str, dtype: DType) -> Scalar:
    """What changes nothing in a reduction."""
    if reduce in ("sum", "prod"):
        return sc.const(int(reduce == "prod"), dtype)
    if dtype.is_float:
        return sc.const(float("-inf" if reduce == "max" else "inf"), dtype)
    limits = np.iinfo(dtype.numpy)
    return sc.const(int(limits.min if reduce == "max" else limits.max), dtype)


class _Cannot(Exception):
    """A loop that cannot be taken apart."""


class _Sorter:
    def __init__(self, kernel: Kernel):
        self.arrays = list(kernel.arrays)
        self.made: list[Size] = []
        self.launches: list[Launch] = []
        self.constants: dict[str, Assign] = {}
        self.extents = {item.variable: item.extent for item in walk(kernel.body) if isinstance(item, Loop)}
        self.totals = 0

    def array(self, name: str, dtype: DType, length: Size) -> int:
        """A new array for values between launches."""
        self.made.append(length)
        self.arrays.append(Array(f"{name}_{len(self.made)}", dtype, True))
        return len(self.arrays) - 1

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
        made, arrays = len(self.made), len(self.arrays)
        try:
            launches = self.split(loop)
        except _Cannot:
            del self.made[made:], self.arrays[arrays:]
            self.one().body += [*notes, loop]
            return
        if isinstance(launches[0], Grid):
            launches[0].notes = notes
        self.launches += launches

    def split(self, loop: Loop) -> list[Launch]:
        """The launches of an outermost loop. _Cannot where its iterations cannot be made independent."""
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
            raise _Cannot
        rest, nests = loop, []
        for item in crossing:
            rest, nest = _Taken(self, rest, item).out()
            nests.append(nest)
        grids: list[Launch] = [nest for nest in nests if isinstance(nest, Grid)]
        one = One(body=[x for nest in nests if isinstance(nest, One) for x in nest.body])
        if any(isinstance(item, (Store, Accumulate, Arg)) for item in walk(rest.body)):
            if not independent(rest, self.extents):
                raise _Cannot
            grid = self.grid(rest)
            sums_in_registers = {
                item.local: item for item in walk(rest.body) if isinstance(item, Accumulate) and item.local not in own
            }
            for local, item in sums_in_registers.items():
                dtype = item.expression.dtype
                parts = self.array("parts", dtype, size(BLOCKS))
                grid.folds.append(Fold(local, item.reduce, dtype, parts, grid.threads))
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
                        kept[local, id(maker)] = cell = self.array("kept", dtype, size(1))
                        maker.body.append(Store(cell, Position(affine(0)), Scalar("local", (), dtype, local)))
                    place = Load(kept[local, id(maker)], Position(affine(0)))
                    launch.first.append(Assign(local, Scalar("load", (), dtype, place)))
                else:
                    launch.first.append(self.constants[local])
            if isinstance(launch, Grid):
                launch.first += [Assign(fold.local, identity(fold.reduce, fold.dtype)) for fold in launch.folds]
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


class _Taken:
    """A statement being taken out of a loop into a nest of its own."""

    def __init__(self, sorter: _Sorter, loop: Loop, item: Store | Arg):
        self.sorter, self.loop, self.item = sorter, loop, item
        found = _path(loop, item)
        if found is None:
            raise _Cannot
        self.path = found
        self.block = found[-1].body
        self.stored: list[Store] = []  # what the rest of the loop stores for the nest

    def out(self) -> tuple[Loop, Launch]:
        """(the loop without the statement, the launch of its nest)"""
        item = self.item
        expression = self.outside(item.expression)
        lookups = tuple(map(self.outside, item.lookups)) if isinstance(item, Store) else ()
        notes = [self.note] if self.note else []
        rest = _without(self.loop, item, self.stored, self.note)
        if isinstance(item, Arg):
            nest = _nest(self.path, [replace(item, expression=expression)])
            return rest, One(body=[*notes, nest])
        columns = self.columns(item)
        if not columns:
            return rest, One(body=[*notes, _nest(self.path, [replace(item, expression=expression, lookups=lookups)])])
        rows = [loop for loop in self.path if loop not in columns]
        moving = set(item.position.affine.axes) & {loop.variable for loop in rows}
        if lookups or moving:
            inner: list[Statement] = [_nest(rows, [replace(item, expression=expression, lookups=lookups)])]
        else:  # one cell through all the rows: it waits in a register
            dtype = expression.dtype
            self.sorter.totals += 1
            total = f"total_{self.sorter.totals}"
            cell = Scalar("load", (), dtype, Load(item.array, item.position))
            row = Accumulate(total, expression, item.reduce)
            register = Scalar("local", (), dtype, total)
            inner = [Assign(total, cell), _nest(rows, [row]), Store(item.array, item.position, register)]
        return rest, Grid(_nest(columns, [*notes, *inner]), len(columns))

    def columns(self, item: Store) -> list[Loop]:
        """The loops whose iterations store to cells of their own."""
        found: list[Loop] = []
        for loop in self.path:
            fixed = frozenset(c.variable for c in found)
            if apart([item.position], loop.variable, self.sorter.extents, fixed):
                found.append(loop)
        return found

    @property
    def note(self) -> Note | None:
        """The comment that belongs to the statement: the last before it."""
        before = [x for x in self.block[: _index(self.block, self.item)] if isinstance(x, Note)]
        return before[-1] if before else None

    def outside(self, expression: Scalar) -> Scalar:
        """The value of an expression where it stands, for use after the loop has run."""
        twin = self.twin(expression)
        if twin is not None:
            return Scalar("load", (), expression.dtype, Load(twin.array, twin.position))
        again = self.again(expression)
        if again is not None:
            return again
        where = Position(_row_major(self.path))
        length = product(loop.extent for loop in self.path)
        array = self.sorter.array("terms", expression.dtype, length)
        self.stored.append(Store(array, where, expression))
        return Scalar("load", (), expression.dtype, Load(array, where))

    def again(self, expression: Scalar) -> Scalar | None:
        """The expression over arrays that the loop only reads; None where it needs what the loop computes."""
        inside = list(walk(self.loop.body))
        changed = {x.local for x in inside if isinstance(x, Accumulate)}
        changed |= {name for x in inside if isinstance(x, Arg) for name in (x.best, x.place)}
        assigned = {x.local: x.expression for x in inside if isinstance(x, Assign)}
        mine = {x.local for loop in self.path for x in loop.body if isinstance(x, Assign)}
        foreign = written([self.loop])

        def visit(e: Scalar, args: tuple[Scalar | None, ...]) -> Scalar | None:
            if any(a is None for a in args):
                return None
            if e.op == "load" and e.value.array in foreign:
                return None
            if e.op == "local" and e.value in assigned:
                return None if e.value in changed or e.value not in mine else self.again(assigned[e.value])
            if e.op == "local" and e.value in changed:
                return None
            return Scalar(e.op, tuple(a for a in args if a is not None), e.dtype, e.value)

        result: Scalar | None = sc.fold(expression, visit)
        return result

    def twin(self, expression: Scalar) -> Store | None:
        """A store of the same register to cells that nothing else touches, which can be read instead."""
        for x in self.block:
            if isinstance(x, Store) and x.expression is expression and x.reduce == "assign" and not x.lookups:
                writers = [y for y in walk(self.loop.body) if isinstance(y, Store) and y.array == x.array]
                around: frozenset[int] = frozenset()
                for loop in self.path:
                    if not apart([x.position], loop.variable, self.sorter.extents, around):
                        break
                    around |= {loop.variable}
                else:
                    if len(writers) == 1:
                        return x
        return None


def _path(loop: Loop, item: Statement) -> list[Loop] | None:
    """The loops around a statement, outermost first, where it stands in the bodies of all of them."""
    if any(x is item for x in loop.body):
        return [loop]
    for inner in loop.body:
        if isinstance(inner, Loop):
            found = _path(inner, item)
            if found is not None:
                return [loop, *found]
    return None


def _index(block: list[Statement], item: Statement) -> int:
    return next(i for i, x in enumerate(block) if x is item)


def _row_major(path: list[Loop]) -> Affine:
    """The number of an iteration of nested loops."""
    terms: dict[int, Size] = {}
    stride = size(1)
    for loop in reversed(path):
        terms[loop.variable] = stride
        stride = stride * loop.extent
    return affine(0, terms)


def _nest(loops: list[Loop], body: list[Statement]) -> Loop:
    """Loops over the same variables around other statements."""
    for loop in reversed(loops):
        body = [Loop(loop.variable, loop.extent, body=body)]
    (outermost,) = body
    assert isinstance(outermost, Loop)
    return outermost


def _without(loop: Loop, item: Statement, instead: list[Store], note: Note | None) -> Loop:
    """The loop with a statement replaced by others, its comment gone with it."""
    body: list[Statement] = []
    holds = any(x is item for x in loop.body)
    for x in loop.body:
        if x is item:
            body += instead
        elif isinstance(x, Loop):
            body.append(_without(x, item, instead, note))
        elif not (holds and note is not None and x is note and not instead):
            body.append(x)
    return replace(loop, body=body)
