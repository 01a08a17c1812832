"""Running a program on an NVIDIA GPU, or in Numba's simulator of one (NUMBA_ENABLE_CUDASIM=1).

Temporaries, inputs and outputs of a binding have memory on the device that is planned and allocated once. Parameters,
states and constants have one copy there, which all programs share: before a run it is brought up to date where the
caller changed the host's array, which is found by comparing with what the two last had in common; after a run, what the
program updated is copied back. So the host's arrays are always the truth, at the price of a comparison and a copy for
each call.
"""

from __future__ import annotations

import warnings
from collections import ChainMap
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any
from weakref import WeakValueDictionary

import numpy as np

from . import cuda_words
from .cache import KernelSource, Progress
from .faults import index_fault
from .memory import Arena
from .packing import Packed
from .program import Instruction, Loop, Program, plan_arena, viewed

Array = np.ndarray[Any, Any]

NOWHERE = np.iinfo(np.int64).max  # a position that no index has


class CudaExecutor:
    """Kernels compiled by numba-cuda, launched one after the other."""

    def __init__(
        self, kernels: Mapping[str, KernelSource], progress: Progress | None = None, threads: int | None = None
    ):
        cuda_words.numba_cuda()
        self.kernels, self.progress = kernels, progress
        self.copies: WeakValueDictionary[tuple[int, int, str], _Copy] = WeakValueDictionary()

    def prepare(self, programs: Iterable[Program]) -> None:
        """Compile every kernel of some programs now, if there is a GPU; elsewhere there is nothing to prepare."""
        if cuda_words.is_simulated() or not cuda_words.numba_cuda().is_available():
            return
        wanted = dict.fromkeys(sources(self.kernels, programs).values())
        for done, kernel in enumerate(wanted):
            if self.progress:
                self.progress(done, len(wanted), kernel.name)
            cuda_words.function_of(kernel).compile(cuda_words.types_of(kernel))
        if self.progress and wanted:
            self.progress(len(wanted), len(wanted), "")

    def bound(
        self, program: Program, sizes: Mapping[str, int], arena: Arena | None = None, packed: Packed | None = None
    ) -> _CudaBound:
        cuda_words.check_device()
        return _CudaBound(self, program, sizes)

    def copy_of(self, host: Array) -> _Copy:
        """The device's copy of a host array that lives between calls: one for all programs."""
        key = (host.__array_interface__["data"][0], host.nbytes, host.dtype.str)
        copy = self.copies.get(key)
        if copy is None:
            copy = self.copies[key] = _Copy(host)
        return copy


def source_of(kernels: Mapping[str, KernelSource], instruction: Instruction) -> KernelSource:
    """The text of the kernel that an instruction runs."""
    return (cuda_words.fixed_sources() if instruction.fixed else kernels)[instruction.kernel]


def sources(kernels: Mapping[str, KernelSource], programs: Iterable[Program]) -> dict[str, KernelSource]:
    """The kernels that some programs run, by name; the runtime's own are called `fixed_…`."""
    instructions = (i for p in programs for i in p.calls)
    return {("fixed_" if i.fixed else "") + i.kernel: source_of(kernels, i) for i in instructions}


def ptx_of(kernels: Mapping[str, KernelSource], programs: Iterable[Program], cc: int) -> dict[str, str]:
    """The kernels that some programs run as PTX for a compute capability such as 80 or 90, by name. Needs no GPU."""
    return {name: cuda_words.ptx(kernel, cc) for name, kernel in sources(kernels, programs).items()}


class _Copy:
    """A device's copy of a host array, and what both held when they were last the same."""

    def __init__(self, host: Array):
        self.host = host.reshape(-1)
        self.device = _device_array(self.host.size, self.host.dtype)
        self.known: Array | None = None

    def upload(self) -> None:
        """Bring the device's copy up to date, if the host's array was changed."""
        if self.known is None or not np.array_equal(self.known.view(np.uint8), self.host.view(np.uint8)):
            _upload(self.host, self.device)
            self.known = self.host.copy()

    def download(self) -> None:
        """Bring the host's array up to date."""
        _download(self.device, self.host)
        self.known = self.host.copy()


def _device_array(count: int, dtype: np.dtype[Any]) -> Any:
    """Memory of the device; at least one element, since CUDA has no empty memory."""
    return cuda_words.numba_cuda().device_array(max(count, 1), dtype)


def _upload(host: Array, device: Any) -> None:
    if host.size:
        device[: host.size].copy_to_device(host)


def _download(device: Any, host: Array) -> None:
    if host.size:
        device[: host.size].copy_to_host(host)


def _quietly() -> AbstractContextManager[Any]:
    """The simulator's arithmetic is NumPy's, which warns of overflow, and in threads where `np.errstate` is not heard."""
    if not cuda_words.is_simulated():
        return nullcontext()
    return warnings.catch_warnings(action="ignore")


class _CudaBound:
    """A program bound to sizes: memory on the device, and launches with their arguments worked out."""

    def __init__(self, executor: CudaExecutor, program: Program, sizes: Mapping[str, int]):
        self.executor, self.program = executor, program
        self.places: dict[int, Array] = {}  # the host's arrays
        self.copies: dict[int, _Copy] = {}
        offsets, length = plan_arena(program, sizes)
        arena = _device_array(length, np.dtype(np.uint8))
        self.device: dict[int, Any] = {}
        for number, buffer in enumerate(program.buffers):
            count, dtype = max(buffer.numel.evaluate(sizes), 1), buffer.dtype.numpy
            if number in offsets:
                start = offsets[number]
                self.device[number] = arena[start : start + count * dtype.itemsize].view(dtype)
            elif buffer.kind in ("input", "output"):
                self.device[number] = _device_array(count, dtype)
        self.first_bad = _device_array(1, np.dtype(np.int64))
        _upload(np.array([NOWHERE]), self.first_bad)
        self.sizes = sizes
        self.launches = {
            id(instruction): (
                instruction,
                cuda_words.function_of(source_of(executor.kernels, instruction)),
                [(number, offset.evaluate(sizes)) for number, offset in instruction.arrays],
                [s.evaluate(sizes) for s in instruction.sizes],
            )
            for instruction in program.calls
        }

    def where(self, array: Array) -> Array:
        return array.reshape(-1)  # a view, where the array is contiguous

    def bind(self, number: int, array: Array) -> None:
        if self.program.buffers[number].kind in ("input", "output"):
            self.places[number] = self.where(array)
        else:
            self.copies[number] = self.executor.copy_of(array)

    def run(self) -> None:
        for copy in self.copies.values():
            copy.upload()
        for number, array in self.places.items():
            if self.program.buffers[number].kind == "input":
                _upload(array, self.device[number])
        try:
            with _quietly():
                self._run(self.program.instructions)
        finally:
            for number in self.program.updated:
                self.copies[number].download()
        for number, array in self.places.items():
            if self.program.buffers[number].kind == "output":
                _download(self.device[number], array)

    def _run(self, instructions: Iterable[Instruction | Loop]) -> None:
        """Launch in order; a loop is the host's, its views parts of arrays on the device."""
        for instruction in instructions:
            if not isinstance(instruction, Loop):
                self._launch(*self.launches[id(instruction)])
                continue
            arrays = ChainMap(self.device, {n: copy.device for n, copy in self.copies.items()})
            for time in range(instruction.count.evaluate(self.sizes)):
                for number in instruction.views:
                    self.device[number] = viewed(self.program, number, arrays, time, self.sizes)
                self._run(instruction.body)

    def _launch(self, instruction: Instruction, function: Any, places: list[tuple[int, int]], sizes: list[int]) -> None:
        arrays = []
        for number, offset in places:
            array = self.copies[number].device if number in self.copies else self.device[number]
            arrays.append(array[offset:] if offset else array)
        if instruction.kernel == "copy":
            arrays = [a.view(np.uint8) for a in arrays]
        if instruction.kernel.startswith("gemm"):
            sizes = sizes if "batch" in instruction.kernel else [*sizes, 1, 0, 0, 0]
            function[cuda_words.gemm_grid(sizes)](*arrays, *sizes)
        elif instruction.kernel.startswith("check_index"):
            function[cuda_words.grid(sizes[0])](*arrays, self.first_bad, *sizes)
            self._check(instruction, arrays[0], limit=sizes[1])
        else:
            function[cuda_words.grid(sizes[0])](*arrays, *sizes)

    def _check(self, instruction: Instruction, indices: Any, limit: int) -> None:
        """RuntimeFault where a check found a bad index; the first in memory order is told, as on the CPU."""
        (position,) = map(int, self.first_bad.copy_to_host())
        if position != NOWHERE:
            _upload(np.array([NOWHERE]), self.first_bad)
            (value,) = indices[position : position + 1].copy_to_host()
            raise index_fault(instruction, int(value), limit, position)
