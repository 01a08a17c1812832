"""A program: what a compiled entry does, as data. It prints to JSON and needs no compiler to be read.

Buffers are inputs, variables, constants, outputs and temporaries, with symbolic shapes. Instructions run a kernel of
the generated source, or one of the fixed ones, over buffers; sizes are evaluated when the inputs' shapes are known. A loop
runs instructions several times, over views that move along other buffers.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ..graph import dtype as dtypes
from ..graph.dtype import DType
from ..graph.size import Size, parse, product, size


@dataclass(frozen=True)
class View:
    """Where a buffer lies that is a part of another: it begins at `start`, and moves by `step` each time that the loop
    it belongs to comes round. Both in elements."""

    parent: int
    start: Size
    step: Size


@dataclass(frozen=True)
class Buffer:
    """An array: kind is input, param, state, const, output, temp or view; name as the caller or the source knows it."""

    kind: str
    name: str
    dtype: DType
    shape: tuple[Size, ...]
    view: View | None = None

    @cached_property
    def numel(self) -> Size:
        return product(self.shape)

    def to_json(self) -> list[Any]:
        where = [] if self.view is None else [self.view.parent, str(self.view.start), str(self.view.step)]
        return [self.kind, self.name, self.dtype.name, [str(e) for e in self.shape], *where]

    @staticmethod
    def from_json(data: list[Any]) -> Buffer:
        kind, name, dtype, shape, *where = data
        view = View(where[0], parse(where[1]), parse(where[2])) if where else None
        return Buffer(kind, name, dtypes.BY_NAME[dtype], tuple(map(parse, shape)), view)


NOTHING = size(0)


@dataclass(frozen=True)
class Private:
    """An array of an instruction that each part of a divided run has of its own; `array` is its place among the arrays.

    reduce is "scratch" for memory that nothing reads afterwards. Otherwise each part begins its copy with the neutral
    element itself, and the copies are combined into the array by this reduction: "sum", "prod", "max" or "min".
    """

    array: int
    reduce: str


@dataclass(frozen=True)
class Instruction:
    """Run `kernel` over arrays, each a buffer and the offset of its first element, and then sizes.

    fixed: the kernel is one of the runtime's own. message: what to say when a check fails. operations: how many
    arithmetic operations it does. where: the model's line.

    extent: the kernel runs over a range of an outer loop of this length; `begin` and `end` of the range are its last
    two parameters, so that parts of it may run side by side. None: it runs as a whole.
    private: the arrays that parts cannot share.
    slabs: for each array how many elements an iteration of that loop is from the next, if iteration v touches none outside
    [slab·v, slab·(v + 1)); 0 where it may touch any. Empty where there is no such loop.
    written: the places of the arrays that a generated kernel writes for others to read.
    """

    kernel: str
    arrays: tuple[tuple[int, Size], ...]
    sizes: tuple[Size, ...]
    fixed: bool = False
    message: str = ""
    operations: Size = NOTHING
    where: str = ""
    extent: Size | None = None
    private: tuple[Private, ...] = ()
    slabs: tuple[Size, ...] = ()
    written: tuple[int, ...] = ()

    @property
    def writes(self) -> tuple[int, ...]:
        """The buffers that it writes for others to read."""
        fixed = {"gemm": (2,), "copy": (0,)}.get(self.kernel.split("_")[0], ()) if self.fixed else self.written
        return tuple(self.arrays[place][0] for place in fixed)

    def to_json(self) -> list[Any]:
        arrays, sizes = [[b, str(o)] for b, o in self.arrays], [str(s) for s in self.sizes]
        extent = None if self.extent is None else str(self.extent)
        private = [[p.array, p.reduce] for p in self.private]
        told = [self.fixed, self.message, str(self.operations), self.where]
        slabs = [str(s) for s in self.slabs]
        return [self.kernel, arrays, sizes, *told, extent, private, slabs, list(self.written)]

    @staticmethod
    def from_json(data: list[Any]) -> Instruction:
        kernel, arrays, sizes, fixed, message, operations, where, extent, private, slabs, written = data
        read = tuple((b, parse(o)) for b, o in arrays)
        whole = None if extent is None else parse(extent)
        own = tuple(Private(*p) for p in private)
        values = tuple(map(parse, sizes))
        work, lengths = parse(operations), tuple(map(parse, slabs))
        return Instruction(kernel, read, values, fixed, message, work, where, whole, own, lengths, tuple(written))


@dataclass(frozen=True)
class Loop:
    """Run instructions `count` times. `views` are the buffers that move from one time to the next."""

    count: Size
    views: tuple[int, ...]
    body: tuple[Instruction | Loop, ...]

    @property
    def calls(self) -> Iterator[Instruction]:
        """Its instructions in order, those of loops inside too."""
        return calls(self.body)

    def to_json(self) -> dict[str, Any]:
        return {"count": str(self.count), "views": list(self.views), "body": [i.to_json() for i in self.body]}

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Loop:
        return Loop(parse(data["count"]), tuple(data["views"]), _read_instructions(data["body"]))


def _read_instructions(data: Iterable[Any]) -> tuple[Instruction | Loop, ...]:
    return tuple(Loop.from_json(i) if isinstance(i, Mapping) else Instruction.from_json(i) for i in data)


def calls(instructions: Iterable[Instruction | Loop]) -> Iterator[Instruction]:
    """The instructions in order, those inside loops too, each once."""
    for instruction in instructions:
        if isinstance(instruction, Loop):
            yield from calls(instruction.body)
        else:
            yield instruction


@dataclass(frozen=True)
class SizeGuard:
    """A relation of sizes, `==` or `>=`, to be checked when they are bound, with the message for when it does not hold."""

    left: Size
    right: Size
    relation: str
    message: str
    where: str

    def holds(self, sizes: Mapping[str, int]) -> bool:
        left, right = self.left.evaluate(sizes), self.right.evaluate(sizes)
        return left == right if self.relation == "==" else left >= right


@dataclass(frozen=True)
class Program:
    """Buffers and instructions of one entry, with the guards of its sizes. Gradients are outputs `grad:NAME`.

    updated: the numbers of the parameters and states that it writes.
    """

    name: str
    buffers: tuple[Buffer, ...]
    instructions: tuple[Instruction | Loop, ...]
    guards: tuple[SizeGuard, ...]
    updated: tuple[int, ...] = ()

    @cached_property
    def calls(self) -> tuple[Instruction, ...]:
        """Every instruction in order, those inside loops too."""
        return tuple(calls(self.instructions))

    @cached_property
    def inputs(self) -> tuple[str, ...]:
        return tuple(b.name for b in self.buffers if b.kind == "input")

    @cached_property
    def outputs(self) -> tuple[str, ...]:
        return tuple(b.name for b in self.buffers if b.kind == "output")

    @cached_property
    def lifetimes(self) -> dict[int, tuple[int, int]]:
        """For each temporary the first and last instruction that touches it; what a loop touches lives all through it."""
        found: dict[int, tuple[int, int]] = {}
        for at, instruction in enumerate(self.instructions):
            for call in calls([instruction]):
                for buffer, _ in call.arrays:
                    root = self.root(buffer)
                    if self.buffers[root].kind == "temp":
                        found[root] = (found.get(root, (at, at))[0], at)
        return found

    def root(self, number: int) -> int:
        """The buffer that a view, or a view of a view, lies in."""
        while (view := self.buffers[number].view) is not None:
            number = view.parent
        return number

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "buffers": [b.to_json() for b in self.buffers],
            "instructions": [i.to_json() for i in self.instructions],
            "updated": list(self.updated),
            "guards": [[str(g.left), str(g.right), g.relation, g.message, g.where] for g in self.guards],
        }

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Program:
        guards = tuple(SizeGuard(parse(a), parse(b), r, m, w) for a, b, r, m, w in data["guards"])
        buffers, instructions = map(Buffer.from_json, data["buffers"]), _read_instructions(data["instructions"])
        return Program(data["name"], tuple(buffers), instructions, guards, tuple(data["updated"]))

    def cost(self, sizes: Mapping[str, int]) -> dict[str, int]:
        """Arithmetic operations, bytes that the instructions touch, and bytes of the arena, for given sizes.

        What runs block by block needs less of the arena, and less of it in all where there are few threads.
        """
        touched = operations = 0
        todo: list[tuple[Instruction | Loop, int]] = [(i, 1) for i in self.instructions]
        while todo:
            i, times = todo.pop()
            if isinstance(i, Loop):
                todo += [(inner, times * i.count.evaluate(sizes)) for inner in i.body]
                continue
            operations += times * i.operations.evaluate(sizes)
            for b, _ in i.arrays:
                touched += times * self.buffers[b].numel.evaluate(sizes) * self.buffers[b].dtype.itemsize
        return {"operations": operations, "bytes": touched, "arena": plan_arena(self, sizes)[1]}


ALIGNMENT = 64  # bytes: a cache line, and the widest vector


def plan_arena(
    program: Program, sizes: Mapping[str, int], together: Iterable[range] = (), elsewhere: Collection[int] = ()
) -> tuple[dict[int, int], int]:
    """(offset in bytes of each temporary, size of the arena): temporaries that do not live at once share memory.

    together: instructions that do not run one after the other, so that what one of them touches lives all through them.
    elsewhere: temporaries that lie in no arena.
    """
    first_of = {number: group.start for group in together for number in group}
    last_of = {number: group.stop - 1 for group in together for number in group}
    spans = []
    for number, (first, last) in program.lifetimes.items():
        if number not in elsewhere:
            buffer = program.buffers[number]
            length = buffer.numel.evaluate(sizes) * buffer.dtype.itemsize
            spans.append((length, first_of.get(first, first), last_of.get(last, last), number))
    return arrange(spans)


def arrange(spans: Iterable[tuple[int, int, int, int]]) -> tuple[dict[int, int], int]:
    """(offset of each thing, size of all) for things of (bytes, first and last moment, number): what does not live at once
    shares memory.

    Largest first, each at the lowest offset where nothing alive at the same time lies.
    """
    spans = [(aligned(max(length, 1)), first, last, number) for length, first, last, number in spans]
    placed: list[tuple[int, int, int, int]] = []
    offsets: dict[int, int] = {}
    total = 0
    for length, first, last, number in sorted(spans, key=lambda s: (-s[0], s[1])):
        offset = 0
        for start, end, other_first, other_last in sorted(placed):
            if other_first <= last and first <= other_last:
                if offset + length <= start:
                    break
                offset = max(offset, end)
        offsets[number] = offset
        placed.append((offset, offset + length, first, last))
        total = max(total, offset + length)
    return offsets, total


def aligned(length: int) -> int:
    """So many bytes, and what is left of the last line."""
    return -(-length // ALIGNMENT) * ALIGNMENT


def viewed(program: Program, number: int, arrays: Mapping[int, Any], time: int, sizes: Mapping[str, int]) -> Any:
    """A view as a part of its parent's array, when its loop has come round `time` times."""
    buffer = program.buffers[number]
    assert buffer.view is not None
    first = buffer.view.start.evaluate(sizes) + time * buffer.view.step.evaluate(sizes)
    return arrays[buffer.view.parent][first : first + buffer.numel.evaluate(sizes)]
