"""A program bound to sizes: calls for the driver, and where in the arena each value lies.

What depends on sizes is decided here: the way of each matrix product, and into how many parts an instruction is cut.
An instruction is cut only if each part is worth more than handing it over.
"""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

from . import blas, products
from .driver import STATUS_SLOT, ZERO_SLOT, Argument, Call, Own
from .memory import address
from .packing import Packed
from .program import ALIGNMENT, Instruction, Program, plan_arena

PART_NS = 4000  # of work in a part: handing it to a worker that is awake takes a few hundred

# What an instruction takes, roughly: an operation on vectors, a byte that comes from a cache, one of a product.
OPERATION_NS, BYTE_NS, PRODUCT_NS = 0.02, 0.02, 1 / 200


@dataclass(frozen=True)
class Binder:
    """What binding needs besides the program: addresses of kernels, sizes, slots, and the threads that may take part.

    slots: by buffer; temporaries lie in `arena_slot`. packed: the frozen parameters, if they are.
    """

    addresses: Mapping[tuple[str, bool], int]
    sizes: Mapping[str, int]
    slots: Mapping[int, int]
    arena_slot: int
    threads: int = 1
    packed: Packed | None = None

    def bind(self, program: Program) -> tuple[list[Call], int]:
        """(calls, bytes of the arena)"""
        groups, length = self.by_instruction(program)
        return [call for group in groups for call in group], length

    def by_instruction(self, program: Program) -> tuple[list[list[Call]], int]:
        """(the calls of each instruction, bytes of the arena)"""
        offsets, length = plan_arena(program, self.sizes)
        groups: list[list[Call]] = []
        extra = 0  # what the parts of one instruction have of their own; no two instructions run at once
        for tag, instruction in enumerate(program.instructions, 1):
            arguments: list[Argument] = []
            for number, offset in instruction.arrays:
                skip = offset.evaluate(self.sizes) * program.buffers[number].dtype.itemsize
                slot, base = (self.arena_slot, offsets[number]) if number in offsets else (self.slots[number], 0)
                arguments.append((slot, base + skip))
            values = [s.evaluate(self.sizes) for s in instruction.sizes]
            if instruction.kernel.startswith("gemm"):
                made, needed = self._product(program, instruction, arguments, values, length)
            elif instruction.extent is not None:
                made, needed = self._divided(program, instruction, arguments, values, length)
            else:
                if instruction.kernel.startswith("check_index"):
                    arguments.append((STATUS_SLOT, 0))
                    values.append(tag)
                made, needed = [Call(self._address(instruction), (*arguments, *_integers(values)))], 0
            groups.append(made)
            extra = max(extra, needed)
        return groups, length + extra

    def _address(self, instruction: Instruction) -> int:
        return self.addresses[instruction.kernel, instruction.fixed]

    # -- kernels ------------------------------------------------------------------------------------------------
    def _divided(
        self, program: Program, instruction: Instruction, arguments: list[Argument], values: list[int], free: int
    ) -> tuple[list[Call], int]:
        """A kernel over a range, and the combining of what its parts summed."""
        assert instruction.extent is not None
        extent = instruction.extent.evaluate(self.sizes)
        touched = 0
        lengths = []
        for number, _ in instruction.arrays:
            buffer = program.buffers[number]
            lengths.append(buffer.numel.evaluate(self.sizes) * buffer.dtype.itemsize)
            touched += lengths[-1]
        time = instruction.operations.evaluate(self.sizes) * OPERATION_NS + touched * BYTE_NS
        grain = ALIGNMENT if extent > 64 * ALIGNMENT else 1
        bounds = cut(extent, grain, self._parts(time))
        own, combining, at = [], [], free
        if len(bounds) > 1:
            for private in instruction.private:
                stride = _aligned(lengths[private.array])
                own.append(Own(private.array, (self.arena_slot, at), stride))
                if private.reduce != "scratch":
                    buffer = program.buffers[instruction.arrays[private.array][0]]
                    count = buffer.numel.evaluate(self.sizes)
                    combine = self.addresses[f"combine_{private.reduce}_{buffer.dtype}", True]
                    others = (len(bounds) - 1, stride // buffer.dtype.itemsize)
                    where = (arguments[private.array], (self.arena_slot, at))
                    combining.append(Call(combine, (*where, *_integers([count, *others]))))
                at += stride * (len(bounds) - 1)
        given = (*arguments, *_integers([*values, 0, extent]))
        return [Call(self._address(instruction), given, bounds, tuple(own)), *combining], at - free

    def _parts(self, time: float) -> int:
        return max(1, min(self.threads, int(time / PART_NS)))

    # -- matrix products ----------------------------------------------------------------------------------------
    def _product(
        self, program: Program, instruction: Instruction, arguments: list[Argument], values: list[int], free: int
    ) -> tuple[list[Call], int]:
        m, n, k, lda, ldb, ldc, trans_a, trans_b, accumulate, *batched = values
        t = instruction.kernel.rsplit("_", 1)[1]
        time = 2 * m * n * k * PRODUCT_NS
        batch = batched[0] if batched else 1
        several = batch > 1 and (batch >= self.threads or self._parts(time) == 1)
        parts = 1 if several else self._parts(time)
        plan = products.plan(t, m, n, k, lda, ldb, bool(trans_a), bool(trans_b), bool(accumulate), parts=parts)
        number, offset = instruction.arrays[1]
        frozen = self.packed is not None and program.buffers[number].kind == "param" and batch == 1
        if frozen and m and n and k and not plan.how & products.USE_BLAS:
            assert self.packed is not None
            plan = products.plan(t, m, n, k, lda, ldb, bool(trans_a), bool(trans_b), bool(accumulate), True, parts)
            name, start = program.buffers[number].name, offset.evaluate(self.sizes)
            panels = self.packed.operand(name, start, t, n, k, ldb, bool(trans_b))
            arguments[1] = (ZERO_SLOT, address(panels))
        bounds = cut(batch, 1, self._parts(time * batch)) if several else cut(plan.extent, plan.grain, parts)
        stride = _aligned(plan.work)
        kernel, work = "gemm", (self.arena_slot, free)
        own: tuple[Own, ...] = ()
        if plan.how & products.USE_BLAS:
            kernel, work = "blas", (ZERO_SLOT, blas.routines("s" if t == "f32" else "d"))
        elif len(bounds) > 1:
            own = (Own(3, (self.arena_slot, free + stride), stride),)
        one = self.addresses[f"{kernel}_{t}", True]
        common = [m, n, k, lda, ldb, ldc, plan.how]
        if several:
            rest = [*common, *batched[1:], one, 0, batch]
            calls = [Call(self.addresses[f"batch_{t}", True], (*arguments, work, *_integers(rest)), bounds, own)]
        else:
            itemsize = products.ITEMSIZE[t]
            calls = []
            for i in range(batch):
                steps = [i * s * itemsize for s in batched[1:]] or [0, 0, 0]
                where = [(slot, offset + step) for (slot, offset), step in zip(arguments, steps, strict=True)]
                calls.append(Call(one, (*where, work, *_integers([*common, 0, plan.extent])), bounds, own))
        return calls, stride * max(len(bounds), 1)


def cut(extent: int, grain: int, parts: int) -> tuple[tuple[int, int], ...]:
    """The (begin, end) of at most so many parts of about one length, which begin at multiples of the grain."""
    units = -(-extent // grain)
    parts = max(1, min(parts, units))
    edges = [min(extent, units * p // parts * grain) for p in range(parts + 1)]
    return tuple((a, b) for a, b in pairwise(edges))


def needed_kernels(program: Program, threads: int) -> set[str]:
    """The fixed kernels that bound calls of a program may use."""
    found = {"run"}
    for instruction in program.instructions:
        if instruction.kernel.startswith("gemm"):
            found |= set(products.kernels_of(instruction.kernel.rsplit("_", 1)[1]))
        elif instruction.fixed:
            found.add(instruction.kernel)
        for private in instruction.private:
            if threads > 1 and private.reduce != "scratch":
                dtype = program.buffers[instruction.arrays[private.array][0]].dtype
                found.add(f"combine_{private.reduce}_{dtype}")
    return found | ({"part", "share", "work"} if threads > 1 else set())


def _integers(values: list[int]) -> list[Argument]:
    return [(0, v) for v in values]


def _aligned(length: int) -> int:
    return -(-length // ALIGNMENT) * ALIGNMENT
