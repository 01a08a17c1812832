"""Kernels as CUDA Python: the second printer of the Kernel IR, over the launches that `launches` sorts a kernel into.

Each launch is a function of its own. Its parameters are its arrays, then `threads`, how many threads have work, then the
other sizes. A launch has at most BLOCKS blocks of BLOCK threads each: a loop over independent iterations steps by the
number of threads there are. What the words mean is said in graphc.runtime.cuda_words.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..graph.dtype import DType, bool_
from ..graph.scalar import Scalar
from ..graph.size import Size, product, size
from ..lowering.ir import Array, Kernel, Note, Statement, Store, loads, neutral, walk
from .launch import Fold, Grid, Launch, One
from .launches import launches_of
from .source import ATOM, REDUCE, Printer, Source

# names that a parameter must not hide
RESERVED = frozenset(("cuda", "threads", "thread", "blocks", "part", "block", "BLOCK", "BLOCKS", "TILE", "min", "max"))


@dataclass(frozen=True)
class Part:
    """One launch of a kernel: its source, and the numbers of its arrays: the kernel's own, then those made for it."""

    name: str
    source: Source
    arrays: tuple[int, ...]
    statements: list[Statement]


@dataclass(frozen=True)
class Printed:
    """A kernel's launches in order, and the arrays made for values between them: (name, type, length)."""

    parts: tuple[Part, ...]
    made: tuple[tuple[str, DType, Size], ...]


def print_launches(kernel: Kernel) -> Printed:
    """The sources of a kernel."""
    launches, memory = launches_of(kernel)
    parts = []
    for number, launch in enumerate(launches, 1):
        name = kernel.name if len(launches) == 1 else f"{kernel.name}_{number}"
        parts.append(_part(name, launch, memory.arrays))
    made = zip(memory.arrays[len(kernel.arrays) :], memory.made, strict=True)
    return Printed(tuple(parts), tuple((a.name, a.dtype, length) for a, length in made))


def _part(name: str, launch: Launch, arrays: list[Array]) -> Part:
    used, written = _arrays(launch)
    marked = [replace(a, written=i in written) for i, a in enumerate(arrays)]
    printer = _CudaPrinter(Kernel(name, [], marked, launch.statements))
    printer.used |= {fold.local for fold in launch.folds}
    if isinstance(launch, Grid):
        printer.grid(launch)
        threads, manner = launch.threads, "A thread for each of `threads` iterations."
    else:
        printer.one(launch)
        threads, manner = size(1), "One block; what stands in order is left to one thread of it."
    names = [printer.arrays[i] for i in used]
    sizes = [printer.size_names[value] for value in printer.sizes]
    notes = [item.text for item in walk(launch.statements) if isinstance(item, Note)]
    title = notes[0] if len(notes) == 1 else f"{len(notes)} statements." if notes else "What sums begin with."
    shown = [f"threads = {threads}"]
    shown += [f"{n} = {value}" for n, value in zip(sizes, printer.sizes, strict=True) if n != str(value)]
    doc = [f'    """{title}', "", f"    {manner}", ""]
    doc += [f"    {n}: {marked[i].dtype}{', written' if marked[i].written else ''}" for n, i in zip(names, used)]
    doc += [f"    {', '.join(shown)}", '    """']
    head = f"def {name}({', '.join([*names, 'threads', *sizes])}):"
    signature = tuple(f"{'bool' if marked[i].dtype is bool_ else marked[i].dtype.name}*" for i in used)
    source = Source(
        "\n".join([head, *doc, *printer.lines]) + "\n",
        signature + ("i64",) * (1 + len(sizes)),
        (threads, *printer.sizes),
    )
    return Part(name, source, tuple(used), launch.statements)


def _arrays(launch: Launch) -> tuple[list[int], set[int]]:
    """(the arrays that a launch touches, in order; those that it writes)"""
    touched: dict[int, None] = {}
    written: set[int] = set()
    for item in walk(launch.statements):
        touched |= dict.fromkeys(load.array for load in loads(item))
        if isinstance(item, Store):
            touched[item.array] = None
            written.add(item.array)
    parts = [fold.parts for fold in launch.folds]
    if isinstance(launch, Grid):
        written |= set(parts)
    return list(touched | dict.fromkeys(parts)), written


class _CudaPrinter(Printer):
    """Statements to lines, inside the frame of a launch."""

    def __init__(self, kernel: Kernel):
        super().__init__(kernel, RESERVED)

    # -- frames -------------------------------------------------------------------------------------------------
    def grid(self, launch: Grid) -> None:
        """Independent iterations, several nested loops of them taken as one."""
        self.block(launch.notes, 1)
        self.block(launch.first, 1)
        loops = launch.loops
        names = [self.loop_name(loop) for loop in loops]
        thread = names[0] if len(loops) == 1 else "thread"
        self.line(f"for {thread} in range(cuda.grid(1), threads, cuda.gridsize(1)):", 1)
        for number, name in enumerate(names if len(loops) > 1 else []):
            inside = product(loop.extent for loop in loops[number + 1 :])
            text = "thread" if inside == 1 else f"thread // {self.size(inside)}"
            self.line(f"{name} = {text}" + (f" % {self.size(loops[number].extent)}" if number else ""), 2)
        body = [note for loop in loops[:-1] for note in loop.body if isinstance(note, Note)]
        self.block([*body, *loops[-1].body], 2)
        for fold in launch.folds:
            local, parts = self.local(fold.local), self.arrays[fold.parts]
            self.line(f"part = {self.in_block(fold, local)}", 1)
            self.line("if cuda.threadIdx.x == 0:", 1)
            self.line(f"{parts}[cuda.blockIdx.x] = part", 2)

    def one(self, launch: One) -> None:
        """What the blocks of an earlier launch left is put together, and one thread does the rest."""
        self.block(launch.first, 1)
        for fold in launch.folds:
            local, parts = self.local(fold.local), self.arrays[fold.parts]
            step = REDUCE[fold.reduce]
            nothing = neutral(fold.reduce, fold.dtype)
            self.line(f"part = {self.number(nothing.value, nothing.dtype)}", 1)
            self.line(f"for block in range(cuda.threadIdx.x, blocks({self.size(fold.threads)}), BLOCK):", 1)
            self.line(f"part = {self.rounded(f'{step}(part, {parts}[block])', fold.dtype)}", 2)
            combined = self.rounded(f"{step}({local}, {self.in_block(fold, 'part')})", fold.dtype)
            self.line(f"{local} = {combined}", 1)
        self.line("if cuda.grid(1) == 0:", 1)
        before = len(self.lines)
        self.block(launch.body, 2)
        if all(line.lstrip().startswith("#") for line in self.lines[before:]):
            self.line("pass", 2)

    def in_block(self, fold: Fold, register: str) -> str:
        """A register of all threads of a block put together."""
        return f"block_{fold.reduce}_{fold.dtype}({register})"

    # -- words --------------------------------------------------------------------------------------------------
    def expression(self, e: Scalar, args: list[tuple[str, int]]) -> tuple[str, int]:
        """As on the CPU, but for what CUDA has no function for."""
        if e.op == "sigmoid":
            return f"sigmoid_{e.dtype}({args[0][0]})", ATOM
        return super().expression(e, args)
