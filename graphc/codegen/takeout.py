"""Taking a statement out of a loop, into a nest of its own.

A sum that stays in memory (a bias's gradient, a scatter) meets one cell from many iterations of its loop. In a nest of its
own a thread owns a column of it and goes through the rows in their order: no atomics, and the same bits each time. What it
sums is read where the loop stored it, computed again, or stored in an array made for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ..graph import scalar as sc
from ..graph.formula import Affine, affine
from ..graph.scalar import Scalar
from ..graph.size import Size, product, size
from ..lowering.cells import apart
from ..lowering.ir import Accumulate, Arg, Assign, Load, Loop, Note, Position, Statement, Store, walk, written
from .launch import Grid, Launch, Memory, One


class Cannot(Exception):
    """A loop that cannot be taken apart."""


def take_out(loop: Loop, item: Store | Arg, extents: Mapping[int, Size], memory: Memory) -> tuple[Loop, Launch]:
    """(the loop without the statement, the launch of its nest); Cannot where it stands beside a loop."""
    return _Taken(loop, item, extents, memory).out()


class _Taken:
    def __init__(self, loop: Loop, item: Store | Arg, extents: Mapping[int, Size], memory: Memory):
        self.loop, self.item, self.extents, self.memory = loop, item, extents, memory
        found = _path(loop, item)
        if found is None:
            raise Cannot
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
            total = f"total_{item.array}"
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
            if apart([item.position], loop.variable, self.extents, fixed):
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
        array = self.memory.make("terms", expression.dtype, length)
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
                    if not apart([x.position], loop.variable, self.extents, around):
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
