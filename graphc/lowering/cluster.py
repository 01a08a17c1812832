"""Clusters: statements over shared outer loops become one kernel.

A kernel grows statement by statement along its spine, the loops that are still open. A statement joins where it can
share loops: an outer loop is shared if each value that the statement reads from the kernel was written at the same
loop index, and is finished there. So softmax and its gradient over rows become one loop over rows with short loops
inside, and an elementwise chain becomes one loop.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ..graph import scalar as sc
from ..graph.dtype import DType
from ..graph.formula import Affine, affine, var
from ..graph.node import Node
from ..graph.scalar import Scalar
from ..graph.size import Size, size
from .cost import CHEAP, price
from .ir import Accumulate, Arg, Assign, Load, Loop, Note, Position, Store
from .ir import Statement as Item
from .order import accumulates_in_memory, kept_axes, loop_order
from .primitive import primitive
from .products import strides_of
from .statements import Access, Statement, moved

MOST_ARRAYS = 24  # array parameters of one kernel
MOST_WORDS = 56  # of all its parameters, with a margin for products of sizes; the driver passes at most 64


@dataclass
class Placed:
    """A value computed in a kernel: the loops that its axes became, and where it can be read."""

    statement: Statement
    loops: tuple[Loop, ...]  # the spine at its place, outermost first
    axes: tuple[int, ...]  # the statement's axis that each of these loops is
    finished: int  # how many of them its value outlives: inside these it is complete
    local: str | None  # its name in a register, visible inside its innermost kept loop
    closed: bool = False  # a scatter: complete only when the kernel is
    price: int = 0  # what it costs to compute an element of it again; see `cost`
    behind: tuple[Loop, ...] = ()  # open loops that it stands behind: what they still take up cannot read it


@dataclass
class Builder:
    """A kernel under construction."""

    number: int
    stored: frozenset[Node] = frozenset()  # what has an array in any case
    arrays: dict[Node, int] = field(default_factory=dict)
    written: set[Node] = field(default_factory=set)
    roots: list[Item] = field(default_factory=list)
    spine: list[Loop] = field(default_factory=list)
    placed: dict[Node, Placed] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)  # why each of them stands here
    again: dict[Node, int] = field(default_factory=dict)  # what is computed again, and its price
    sizes: set[Size] = field(default_factory=set)
    loops: int = 0
    locals: int = 0
    needs_memory: set[Node] = field(default_factory=set)  # read in this kernel where the register is gone
    small: bool = True  # are all its loops so short that none is worth dividing?

    # -- can a statement join? ----------------------------------------------------------------------------------
    def depth(self, statement: Statement) -> int:
        """How many open loops the statement can share; -1 where it cannot join at all."""
        order = loop_order(statement)
        alike = [loop.extent == statement.box[axis] for loop, axis in zip(self.spine, order, strict=False)]
        deepest = alike.index(False) if False in alike else len(alike)
        if not statement.plain and not statement.part:
            deepest = 0
        for access in statement.accesses:
            producer = self.placed.get(access.array)
            if producer is None:
                continue
            if producer.closed:
                return -1
            deepest = min(deepest, self._shared(producer, access, statement, order))
        return deepest

    def _shared(self, producer: Placed, access: Access, statement: Statement, order: list[int]) -> int:
        """The loops that may be shared with a producer: those whose index it writes and the statement reads alike."""
        same_view = access.view == producer.statement.node.shape
        for depth, loop in enumerate(self.spine):
            if any(loop is b for b in producer.behind):
                return depth
            if depth >= len(producer.loops) or producer.loops[depth] is not loop:
                return len(self.spine)  # the producer stands outside this loop, or in one that is closed
            if depth >= len(order) or depth >= producer.finished or not same_view:
                return depth
            axis = producer.axes[depth]
            dims = [d for d, i in enumerate(producer.statement.write) if isinstance(i, Affine) and i.variable == axis]
            if len(dims) != 1 or access.map[dims[0]] != var(order[depth]):
                return depth
        return len(self.spine)

    def waits_for(self, statement: Statement) -> list[Node]:
        """The values of the kernel that are complete only after the loop which the statement would have to share."""
        read = [self.placed[a.array] for a in statement.accesses if a.array in self.placed]
        return [p.statement.node for p in read if p.closed or p.loops and p.finished == 0]

    def has_room(self, statement: Statement) -> bool:
        """Does the kernel keep to the most parameters that one may have?"""
        arrays = self.arrays.keys() | {a.array for a in statement.accesses} | {statement.node}
        words = len(arrays) + len(self.sizes | _sizes_of(statement)) + self.loops + len(statement.box)
        return len(arrays) <= MOST_ARRAYS and words <= MOST_WORDS

    # -- joining ------------------------------------------------------------------------------------------------
    def add(self, statement: Statement, note: str, reason: str) -> None:
        """Place a statement, sharing as many open loops as it can. Stores that nobody needs are taken out at the end."""
        self.reasons.append(reason)
        order = loop_order(statement)
        self.sizes |= _sizes_of(statement)
        shared = max(self.depth(statement), 0)
        behind: tuple[Loop, ...] = ()
        if len(order) == shared and statement.plain:
            behind = tuple(self.spine[shared:])  # a statement without loops of its own leaves the deeper ones open
        else:
            del self.spine[shared:]
        extents = [statement.box[a] for a in order]
        if statement.init is not None and (not statement.plain or accumulates_in_memory(statement, order)):
            self._initialise(statement, order, shared)
        for extent in extents[len(self.spine) :] if not behind else ():
            loop = Loop(self.loops, extent)
            self.loops += 1
            self._block(len(self.spine)).append(loop)
            self.spine.append(loop)
        where = {axis: var(self.spine[i].variable) for i, axis in enumerate(order)}
        self._block(len(order)).append(Note(note))
        self.notes.append(note)
        self._compute(statement, order, where)
        placed = self.placed[statement.node]
        placed.behind = behind
        placed.price = price(statement.body, lambda e: self._read_price(e.value, order))

    def _block(self, depth: int) -> list[Item]:
        return self.spine[depth - 1].body if depth else self.roots

    def _compute(self, statement: Statement, order: list[int], where: dict[int, Affine]) -> None:
        node, kept = statement.node, kept_axes(statement)
        body = self._localised(statement.body, where)
        inner = self._block(len(order))
        loops, axes = tuple(self.spine[: len(order)]), tuple(order)
        reduced = [i for i, a in enumerate(order) if a not in kept]
        if not statement.plain:
            inner.append(self._store(statement, where, body, statement.reduce))
            self.placed[node] = Placed(statement, loops, axes, 0, None, closed=True)
        elif not reduced and statement.reduce != "argmax":
            local = self._name()
            inner.append(Assign(local, body))
            inner.append(self._store(statement, where, Scalar("local", (), node.dtype, local)))
            self.placed[node] = Placed(statement, loops, axes, len(order), local)
        elif accumulates_in_memory(statement, order):
            inner.append(self._store(statement, where, body, statement.reduce))
            self.placed[node] = Placed(statement, loops, axes, reduced[0], None)
        else:
            first = reduced[0] if reduced else len(order)
            local = self._reduce(statement, body, where, first, order)
            self.placed[node] = Placed(statement, loops, axes, first, local)

    def _reduce(
        self, statement: Statement, body: Scalar, where: dict[int, Affine], first: int, order: list[int]
    ) -> str:
        """Accumulate in a register over the loops from `first` on; the register's name."""
        node, inner = statement.node, self._block(len(order))
        outer = self.spine[first] if first < len(order) else None
        before, after = (outer.before, outer.after) if outer else (inner, inner)
        local = self._name()
        if statement.reduce == "argmax":
            best = self._name()
            before += [Assign(best, _lowest(body.dtype)), Assign(local, sc.const(0, node.dtype))]
            position, stride = affine(0), size(1)
            for axis in reversed([a for a in order if a not in kept_axes(statement)]):
                position = position + where[axis] * stride
                stride = stride * statement.box[axis]
            inner.append(Arg(best, local, body, position))
        else:
            assert statement.init is not None
            before.append(Assign(local, statement.init))
            inner.append(Accumulate(local, body, statement.reduce))
        after.append(self._store(statement, where, Scalar("local", (), node.dtype, local)))
        return local

    def _initialise(self, statement: Statement, order: list[int], shared: int) -> None:
        """Fill the cells that a statement accumulates into, before the first loop that revisits them."""
        node = statement.node
        assert statement.init is not None
        kept = kept_axes(statement)
        if statement.plain:
            first = min(i for i, a in enumerate(order) if a not in kept)
            outer = {a: var(self.spine[i].variable) for i, a in enumerate(order[:first])} if first <= shared else None
            block = self.spine[first].before if first < shared else None
            if outer is None:  # the loops outside the reduction are not open yet: open them
                for axis in order[shared:first]:
                    loop = Loop(self.loops, statement.box[axis])
                    self.loops += 1
                    self._block(len(self.spine)).append(loop)
                    self.spine.append(loop)
                outer = {a: var(self.spine[i].variable) for i, a in enumerate(order[:first])}
            block = block if block is not None else self._block(len(self.spine))
            where = dict(outer)
            for axis in order[first:]:
                if axis in kept:
                    loop = Loop(self.loops, statement.box[axis])
                    self.loops += 1
                    block.append(loop)
                    block = loop.body
                    where[axis] = var(loop.variable)
            block.append(self._store(statement, where, statement.init))
        else:
            # a scatter: all cells, in memory order
            loop = Loop(self.loops, node.type.numel)
            self.loops += 1
            self.roots.append(loop)
            loop.body.append(Store(self.array(node, True), Position(var(loop.variable)), statement.init))

    # -- expressions --------------------------------------------------------------------------------------------
    def array(self, node: Node, written: bool = False) -> int:
        """The number of an array among the kernel's parameters."""
        if written:
            self.written.add(node)
        return self.arrays.setdefault(node, len(self.arrays))

    def _name(self) -> str:
        self.locals += 1
        return f"v{self.locals - 1}"

    def _store(self, statement: Statement, where: dict[int, Affine], value: Scalar, reduce: str = "assign") -> Store:
        strides = strides_of(statement.node.shape)
        position, looked_up = affine(0), []
        for index, stride in zip(statement.write, strides, strict=True):
            if isinstance(index, Affine):
                position = position + index.substitute(where) * stride
            else:
                looked_up.append(stride)
        lookups = tuple(self._localised(e, where) for e in statement.write_lookups)
        return Store(self.array(statement.node, True), Position(position, tuple(looked_up)), value, reduce, lookups)

    def _localised(self, body: Scalar, where: dict[int, Affine]) -> Scalar:
        """The body over loop variables: accesses become registers where the value is at hand, loads elsewhere."""

        def visit(e: Scalar, args: tuple[Scalar, ...]) -> Scalar:
            if e.op == "index":
                return Scalar("index", (), e.dtype, e.value.substitute(where))
            if e.op == "access":
                return self._load(e, args, where)
            return e if e.op in sc.LEAVES else primitive(Scalar(e.op, args, e.dtype, e.value))

        return sc.fold(body, visit)

    def _load(self, e: Scalar, lookups: tuple[Scalar, ...], where: dict[int, Affine]) -> Scalar:
        access: Access = e.value
        producer = self.placed.get(access.array)
        if producer is not None and producer.local is not None and self._in_register(producer, access, where):
            return Scalar("local", (), e.dtype, producer.local)
        if producer is not None and self._is_cheap(producer, access):
            self.again[access.array] = producer.price
            return self._again(producer, access, lookups, where)
        position, looked_up = affine(0), []
        for index, stride in zip(access.map, strides_of(access.view), strict=True):
            if index is None:
                looked_up.append(stride)
            else:
                position = position + index.substitute(where) * stride
        if producer is not None:
            self.needs_memory.add(access.array)
        return Scalar("load", lookups, e.dtype, Load(self.array(access.array), Position(position, tuple(looked_up))))

    def _is_cheap(self, producer: Placed, access: Access) -> bool:
        """Is it cheaper to compute a value again than to store it and read it?"""
        statement = producer.statement
        again = statement.reduce == "assign" and statement.plain and access.view == statement.node.shape
        return again and producer.price <= CHEAP and access.array not in self.stored

    def _read_price(self, access: Access, order: list[int]) -> int:
        """What reading an element costs in a loop nest: nothing where the innermost loop reads the same one."""
        if order and all(i is not None and order[-1] not in i.axes for i in access.map):
            return 0
        producer = self.placed.get(access.array)
        return producer.price if producer is not None and self._is_cheap(producer, access) else 1

    def _again(self, producer: Placed, access: Access, lookups: tuple[Scalar, ...], where: dict[int, Affine]) -> Scalar:
        """The value of a producer at an element, computed from what the producer read."""
        looked_up = iter(lookups)
        values: dict[int, Affine | Scalar] = {}
        for written, read in zip(producer.statement.write, access.map, strict=True):
            value = next(looked_up) if read is None else read.substitute(where)
            if isinstance(written, Affine) and written.variable is not None:
                values[written.variable] = value
        here = {loop: var(loop) for loop in range(self.loops)}
        return self._localised(moved(producer.statement.body, values), here)

    def _in_register(self, producer: Placed, access: Access, where: dict[int, Affine]) -> bool:
        """Is the very element that the producer just computed the one that is read?"""
        if access.view != producer.statement.node.shape or any(i is None for i in access.map):
            return False
        kept = producer.loops[: producer.finished]
        if list(kept) != self.spine[: len(kept)]:
            return False
        own = {axis: var(loop.variable) for axis, loop in zip(producer.axes, kept, strict=False)}
        for written, read in zip(producer.statement.write, access.map, strict=True):
            assert read is not None and isinstance(written, Affine)
            if not all(a in own for a in written.axes) or written.substitute(own) != read.substitute(where):
                return False
        return True


def _sizes_of(statement: Statement) -> set[Size]:
    """The sizes that a kernel needs for a statement: extents and strides that are not 0 or 1."""
    views = [statement.node.shape, *(a.view for a in statement.accesses)]
    sizes = {*statement.box, *(s for view in views for s in strides_of(view))}
    return {s for s in sizes if s.constant not in (0, 1)}


def _lowest(dtype: DType) -> Scalar:
    """What every value of a type beats or equals."""
    return sc.const(float("-inf") if dtype.is_float else np.iinfo(dtype.numpy).min, dtype)
