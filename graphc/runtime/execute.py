"""Running a program: compiled kernels on the CPU, or the same source as plain Python over NumPy arrays.

The GPU's kernels and their executor are in `graphc.runtime.cuda`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

import numpy as np

from . import driver
from .cache import KernelSource, Progress, build
from .cuda import CudaExecutor
from .faults import index_fault
from .jit import interpreted_words, run_python
from .library import LIBRARY
from .program import ALIGNMENT, Instruction, Loop, Program, plan_arena, viewed

Array = np.ndarray[Any, Any]


class Bound(Protocol):
    """A program bound to sizes."""

    def bind(self, number: int, array: Array) -> None:
        """Let a buffer be this array, which the caller keeps alive."""

    def run(self) -> None:
        """Run all instructions. RuntimeFault when a check fails; nothing after the check was run."""


class Executor(Protocol):
    """A way to run programs."""

    def prepare(self, programs: Iterable[Program]) -> None:
        """Do now what would otherwise be done at the first call."""

    def bound(self, program: Program, sizes: Mapping[str, int]) -> Bound:
        """The program for given sizes, ready to be bound to arrays."""


# -- compiled --------------------------------------------------------------------------------------------------------
class CpuExecutor:
    """Kernels compiled by Numba, or found in the cache, run by the native driver."""

    def __init__(self, kernels: Mapping[str, KernelSource], progress: Progress | None = None):
        self.kernels = kernels
        self.progress = progress

    def addresses(self, program: Program) -> dict[tuple[str, bool], int]:
        """The address of each kernel that the program calls, compiling what is in no cache."""
        fixed = driver.fixed_sources()
        wanted = {
            (i.kernel, i.fixed): fixed[i.kernel] if i.fixed else self.kernels[i.kernel] for i in program.calls
        }
        found = build([*wanted.values(), fixed["run"]], self.progress)
        return {key: found[source.name] for key, source in wanted.items()}

    def prepare(self, programs: Iterable[Program]) -> None:
        """Compile every kernel of some programs now."""
        fixed = driver.fixed_sources()
        sources = {
            s.name: s
            for p in programs
            for i in p.calls
            for s in [fixed[i.kernel] if i.fixed else self.kernels[i.kernel]]
        }
        build([*sources.values(), fixed["run"]], self.progress)

    def bound(self, program: Program, sizes: Mapping[str, int]) -> Bound:
        return _CpuBound(program, sizes, self.addresses(program))


class _CpuBound:
    def __init__(self, program: Program, sizes: Mapping[str, int], addresses: Mapping[tuple[str, bool], int]):
        self.program = program
        offsets, length = plan_arena(program, sizes)
        raw = np.empty(length + ALIGNMENT, np.uint8)
        start = -raw.ctypes.data % ALIGNMENT
        self.arena = raw[start : start + length]
        slot_of = {
            b: driver.FIRST_FREE_SLOT + 1 + i
            for i, b in enumerate(n for n, b in enumerate(program.buffers) if b.kind != "temp")
        }
        arena_slot = driver.FIRST_FREE_SLOT
        self.sizes, self.addresses, self.offsets = sizes, addresses, offsets
        self.slot_of, self.arena_slot = slot_of, arena_slot
        self.tags, self.counters = itertools.count(1), itertools.count(arena_slot + 1 + len(slot_of))
        calls = self._encoded(program.instructions)
        self.native = driver.Program(calls, next(self.counters))
        self.native.bind(arena_slot, self.arena)
        self.slots = self.native.slots
        self.kept: dict[int, Array] = {}

    def _encoded(self, instructions: Iterable[Instruction | Loop]) -> list[driver.Call | driver.Repeat]:
        """Instructions over slots, their sizes as numbers; each is tagged by its number among all of them."""
        return [self._loop(i) if isinstance(i, Loop) else self._call(i, next(self.tags)) for i in instructions]

    def _loop(self, loop: Loop) -> driver.Repeat:
        counter, moving = next(self.counters), []
        for number in loop.views:
            buffer = self.program.buffers[number]
            assert buffer.view is not None
            parent, base = self._place(buffer.view.parent)
            begin, step = (e.evaluate(self.sizes) * buffer.dtype.itemsize for e in (buffer.view.start, buffer.view.step))
            moving.append(driver.Moving(self.slot_of[number], parent, base + begin, step))
        body = tuple(self._encoded(loop.body))
        return driver.Repeat(loop.count.evaluate(self.sizes), counter, tuple(moving), body)

    def _place(self, number: int) -> tuple[int, int]:
        """(slot, offset in bytes) of a buffer's first element."""
        return (self.arena_slot, self.offsets[number]) if number in self.offsets else (self.slot_of[number], 0)

    def _call(self, instruction: Instruction, tag: int) -> driver.Call:
        sizes, arguments = self.sizes, []
        for number, offset in instruction.arrays:
            slot, base = self._place(number)
            arguments.append((slot, base + offset.evaluate(sizes) * self.program.buffers[number].dtype.itemsize))
        if instruction.kernel.startswith("check_index"):
            arguments.append((driver.STATUS_SLOT, 0))
        arguments += [(0, s.evaluate(sizes)) for s in instruction.sizes]
        if instruction.extent is not None:
            arguments += [(0, 0), (0, instruction.extent.evaluate(sizes))]
        if instruction.kernel.startswith("check_index"):
            arguments.append((0, tag))
        if instruction.fixed:
            arguments += [(0, word) for word in driver.trailing(instruction.kernel)]
        return driver.Call(self.addresses[instruction.kernel, instruction.fixed], tuple(arguments))

    def bind(self, number: int, array: Array) -> None:
        self.kept[number] = array
        self.slots[self.slot_of[number]] = array.__array_interface__["data"][0]

    def run(self) -> None:
        tag = self.native.run()
        if tag:
            _, value, limit, position = self.native.status[:4]
            raise index_fault(self.program.calls[tag - 1], value, limit, position)


# -- interpreted -----------------------------------------------------------------------------------------------------
class NumpyExecutor:
    """The generated source as plain Python over NumPy scalars: slow, exact to read, and easy to step through."""

    def __init__(self, kernels: Mapping[str, KernelSource], progress: Progress | None = None):
        self.kernels = kernels
        self.functions: dict[str, Callable[..., None]] = {}

    def prepare(self, programs: Iterable[Program]) -> None:
        """Make the functions of every kernel that the programs run; Python compiles as it runs."""
        for name in {i.kernel for p in programs for i in p.calls if not i.fixed} - self.functions.keys():
            kernel = self.kernels[name]
            self.functions[name] = run_python(kernel.source, kernel.name, interpreted_words(kernel.source))

    def bound(self, program: Program, sizes: Mapping[str, int]) -> Bound:
        self.prepare([program])
        return _NumpyBound(program, sizes, self.functions)


class _NumpyBound:
    def __init__(self, program: Program, sizes: Mapping[str, int], functions: Mapping[str, Callable[..., None]]):
        self.program, self.sizes, self.functions = program, sizes, functions
        self.arrays: dict[int, Array] = {
            n: np.empty(b.numel.evaluate(sizes), b.dtype.numpy)
            for n, b in enumerate(program.buffers)
            if b.kind == "temp"
        }

    def bind(self, number: int, array: Array) -> None:
        self.arrays[number] = array.reshape(-1)  # a view: the caller's arrays are contiguous

    def run(self) -> None:
        with np.errstate(all="ignore"):
            self._run(self.program.instructions)

    def _run(self, instructions: Iterable[Instruction | Loop]) -> None:
        for instruction in instructions:
            if isinstance(instruction, Loop):
                for time in range(instruction.count.evaluate(self.sizes)):
                    for number in instruction.views:
                        self.arrays[number] = viewed(self.program, number, self.arrays, time, self.sizes)
                    self._run(instruction.body)
            else:
                self._call(instruction)

    def _call(self, instruction: Instruction) -> None:
        arrays = [self.arrays[n][o.evaluate(self.sizes) :] for n, o in instruction.arrays]
        sizes = [s.evaluate(self.sizes) for s in instruction.sizes]
        if instruction.extent is not None:
            sizes += [0, instruction.extent.evaluate(self.sizes)]
        if instruction.kernel.startswith("check_index"):
            status = np.zeros(4, np.int64)
            LIBRARY[instruction.kernel](*arrays, status, *sizes, 1)
            if status[0]:
                raise index_fault(instruction, *map(int, status[1:4]))
        elif instruction.fixed:
            LIBRARY[instruction.kernel](*arrays, *sizes)
        else:
            self.functions[instruction.kernel](*arrays, *sizes)


EXECUTORS: dict[str, Callable[..., Executor]] = {"cpu": CpuExecutor, "numpy": NumpyExecutor, "cuda": CudaExecutor}
