"""Running a program: compiled kernels on the CPU, or the same source as plain Python over NumPy arrays.

The GPU's kernels and their executor are in `graphc.runtime.cuda`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

import numpy as np

from . import driver
from .binding import Binder, needed_kernels
from .cache import KernelSource, Progress, build
from .cuda import CudaExecutor
from .faults import index_fault
from .jit import interpreted_words, run_python
from .library import LIBRARY
from .memory import Arena, address, address_at_once
from .packing import Packed
from .program import Instruction, Loop, Program, viewed
from .threads import checked_threads

Array = np.ndarray[Any, Any]


class Bound(Protocol):
    """A program bound to sizes."""

    places: Any
    """places[number] = where(array) is bind(number, array) for an input or an output, in less time."""

    def where(self, array: Array) -> Any:
        """What stands for an array in `places`. TypeError where there is none; then `bind` it."""

    def bind(self, number: int, array: Array) -> None:
        """Let a buffer be this contiguous array, which the caller keeps alive."""

    def run(self) -> None:
        """Run all instructions. RuntimeFault when a check fails; nothing after the check was run."""


class Executor(Protocol):
    """A way to run programs."""

    def prepare(self, programs: Iterable[Program]) -> None:
        """Do now what would otherwise be done at the first call."""

    def bound(
        self, program: Program, sizes: Mapping[str, int], arena: Arena | None = None, packed: Packed | None = None
    ) -> Bound:
        """The program for given sizes, ready to be bound to arrays.

        arena: memory for the temporaries, where it is shared with other programs that never run at the same time.
        packed: the parameters, while they are frozen.
        """


# -- compiled --------------------------------------------------------------------------------------------------------
class CpuExecutor:
    """Kernels compiled by Numba, or found in the cache, run by the native driver."""

    def __init__(
        self, kernels: Mapping[str, KernelSource], progress: Progress | None = None, threads: int | None = None
    ):
        self.kernels = kernels
        self.progress = progress
        self.threads = checked_threads(threads)

    def _sources(self, program: Program) -> dict[tuple[str, bool], KernelSource]:
        """The kernels that a program may call, by name and whether they are the runtime's own."""
        fixed = driver.fixed_sources()
        named = {(i.kernel, False) for i in program.calls if not i.fixed}
        named |= {(n, True) for n in needed_kernels(program, self.threads)}
        return {(name, own): fixed[name] if own else self.kernels[name] for name, own in named}

    def addresses(self, program: Program) -> dict[tuple[str, bool], int]:
        """The address of each kernel that the program calls, compiling what is in no cache."""
        wanted = self._sources(program)
        found = build(list(wanted.values()), self._told(wanted))
        return {key: found[source.name] for key, source in wanted.items()}

    def prepare(self, programs: Iterable[Program]) -> None:
        """Compile every kernel of some programs now."""
        wanted = {key: source for p in programs for key, source in self._sources(p).items()}
        build(list(wanted.values()), self._told(wanted))

    def _told(self, wanted: Mapping[tuple[str, bool], KernelSource]) -> Progress | None:
        """The progress, told of kernels by the names that the generated source has for them."""
        tell, names = self.progress, {source.name: name for (name, _), source in wanted.items()}
        return tell and (lambda done, total, name: tell(done, total, names[name]))

    def bound(
        self, program: Program, sizes: Mapping[str, int], arena: Arena | None = None, packed: Packed | None = None
    ) -> Bound:
        return _CpuBound(program, sizes, self.addresses(program), arena or Arena(), self.threads, packed)


class _CpuBound:
    def __init__(
        self,
        program: Program,
        sizes: Mapping[str, int],
        addresses: Mapping[tuple[str, bool], int],
        arena: Arena,
        threads: int,
        packed: Packed | None,
    ):
        self.program, self.arena = program, arena
        # a slot for each buffer, so that `places` may be asked by its number; temporaries leave theirs empty
        arena_slot = driver.FIRST_FREE_SLOT
        slots = {n: arena_slot + 1 + n for n in range(len(program.buffers))}
        counters = itertools.count(arena_slot + 1 + len(slots))
        calls, length = Binder(addresses, sizes, slots, arena_slot, threads, packed, counters).bind(program)
        arena.reserve(length)
        self.native = driver.Program(calls, next(counters), threads)
        self.places = self.native.slots.data[arena_slot + 1 :]
        self._growth = -1  # the arena's, when this last ran

    where = staticmethod(address_at_once)

    def bind(self, number: int, array: Array) -> None:
        self.places[number] = address(array)

    def run(self) -> None:
        if self._growth != self.arena.growth:  # another program made it grow
            self._growth = self.arena.growth
            self.native.bind(driver.FIRST_FREE_SLOT, self.arena.block)
        tag = self.native.run()
        if tag:
            _, value, limit, position = self.native.status[:4]
            raise index_fault(self.program.calls[tag - 1], value, limit, position)


# -- interpreted -----------------------------------------------------------------------------------------------------
class NumpyExecutor:
    """The generated source as plain Python over NumPy scalars: slow, exact to read, and easy to step through."""

    def __init__(
        self, kernels: Mapping[str, KernelSource], progress: Progress | None = None, threads: int | None = None
    ):
        self.kernels = kernels
        self.functions: dict[str, Callable[..., None]] = {}

    def prepare(self, programs: Iterable[Program]) -> None:
        """Make the functions of every kernel that the programs run; Python compiles as it runs."""
        for name in {i.kernel for p in programs for i in p.calls if not i.fixed} - self.functions.keys():
            kernel = self.kernels[name]
            self.functions[name] = run_python(kernel.source, kernel.name, interpreted_words(kernel.source))

    def bound(
        self, program: Program, sizes: Mapping[str, int], arena: Arena | None = None, packed: Packed | None = None
    ) -> Bound:
        self.prepare([program])
        return _NumpyBound(program, sizes, self.functions)


class _NumpyBound:
    def __init__(self, program: Program, sizes: Mapping[str, int], functions: Mapping[str, Callable[..., None]]):
        self.program, self.sizes, self.functions = program, sizes, functions
        self.places: dict[int, Array] = {
            n: np.empty(b.numel.evaluate(sizes), b.dtype.numpy)
            for n, b in enumerate(program.buffers)
            if b.kind == "temp"
        }

    def where(self, array: Array) -> Array:
        return array.reshape(-1)  # a view, where the array is contiguous

    def bind(self, number: int, array: Array) -> None:
        self.places[number] = self.where(array)

    def run(self) -> None:
        with np.errstate(all="ignore"):
            self._run(self.program.instructions)

    def _run(self, instructions: Iterable[Instruction | Loop]) -> None:
        for instruction in instructions:
            if isinstance(instruction, Loop):
                for time in range(instruction.count.evaluate(self.sizes)):
                    for number in instruction.views:
                        self.places[number] = viewed(self.program, number, self.places, time, self.sizes)
                    self._run(instruction.body)
            else:
                self._call(instruction)

    def _call(self, instruction: Instruction) -> None:
        arrays = [self.places[n][o.evaluate(self.sizes) :] for n, o in instruction.arrays]
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


# Each takes the kernels by name, a progress callback, and the number of threads, which only the CPU's kernels heed.
EXECUTORS: dict[str, Callable[..., Executor]] = {"cpu": CpuExecutor, "numpy": NumpyExecutor, "cuda": CudaExecutor}
