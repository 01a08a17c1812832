"""A program bound to sizes: calls for the driver, and where in the arena each value lies.

What depends on sizes is decided here: the way of each matrix product, and into how many parts an instruction is cut.
An instruction is cut only if each part is worth more than handing it over.
"""
from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate as totals
from itertools import count

from . import blas, products, strips
from .blocks import Blocks
from .driver import STATUS_SLOT, ZERO_SLOT, Argument, Call, Moving, Own, Repeat, Step
from .memory import address
from .packing import Packed
from .parts import BLOCKS, PART_NS, PRODUCT_NS, cut, kernel_time, parts_worth
from .program import ALIGNMENT, NOTHING, Instruction, Loop, Program, aligned, plan_arena
from .strips import Strip


@dataclass(frozen=True)
class Operand:
    """The right-hand operand of a product: the (k, n) matrix of elements t that lies in a buffer from `offset` on."""

    buffer: int
    offset: int
    t: str
    n: int
    k: int
    leading: int
    transposed: bool


@dataclass(frozen=True)
class Binder:
    """What binding needs besides the program: addresses of kernels, sizes, slots, and the threads that may take part.

    slots: by buffer; temporaries lie in `arena_slot`. packed: the frozen parameters, if they are. counters: slots for the
    counters of loops.
    """

    addresses: Mapping[tuple[str, bool], int]
    sizes: Mapping[str, int]
    slots: Mapping[int, int]
    arena_slot: int
    threads: int = 1
    packed: Packed | None = None
    counters: Iterator[int] = field(default_factory=count)

    def bind(self, program: Program) -> tuple[list[Step], int]:
        """(calls, bytes of the arena)"""
        groups, length = self.by_instruction(program)
        return [call for group in groups for call in group], length

    def by_instruction(self, program: Program) -> tuple[list[list[Step]], int]:
        """(the calls of each instruction, bytes of the arena); those of a strip stand at its last."""
        found = self.strips(program, program.instructions)
        local = {number for strip in found for number in strip.local}
        offsets, length = plan_arena(program, self.sizes, [strip.range for strip in found], local)
        groups, extra = self._groups(program, program.instructions, found, offsets, length, count(1), {})
        return groups, length + extra

    def _groups(
        self,
        program: Program,
        instructions: Sequence[Instruction | Loop],
        together: Sequence[Strip],
        offsets: Mapping[int, int],
        length: int,
        tags: Iterator[int],
        panels: Mapping[Operand, Argument],
    ) -> tuple[list[list[Step]], int]:
        """(the calls of each instruction, bytes beyond the arena's `length` that they need).

        together: those that run block by block. tags: an instruction is told by its number among all. panels: right-hand
        operands of products that are packed already.
        """
        groups: list[list[Step]] = []
        extra = 0  # what the parts of one instruction have of their own; no two instructions run at once

        def place(number: int) -> Argument:
            return (self.arena_slot, offsets[number]) if number in offsets else (self.slots[number], 0)

        strips_of = {number: strip for strip in together for number in strip.members}
        for number, instruction in enumerate(instructions):
            if number in strips_of:
                strip = strips_of[number]
                last = number == max(strip.members)
                blocks, needed = self._strip(program, strip, place, length) if last else ([], 0)
                groups.append([*blocks])
                extra = max(extra, needed)
                next(tags)
                continue
            if isinstance(instruction, Loop):
                packing, own, size = self._packed_once(program, instruction, length, place, panels)
                steps, panels_too, free = instruction.body, {**panels, **own}, length + size
                found = self.strips(program, steps)
                inner, needed = self._groups(program, steps, found, offsets, free, tags, panels_too)
                moving = tuple(self._moving(program, number, place) for number in instruction.views)
                body = tuple(call for group in inner for call in group)
                times = instruction.count.evaluate(self.sizes)
                groups.append([*packing, Repeat(times, next(self.counters), moving, body)])
                extra = max(extra, size + needed)
                continue
            tag = next(tags)
            arguments: list[Argument] = []
            for number, offset in instruction.arrays:
                slot, base = place(number)
                arguments.append((slot, base + offset.evaluate(self.sizes) * program.buffers[number].dtype.itemsize))
            values = [s.evaluate(self.sizes) for s in instruction.sizes]
            made: Sequence[Step]
            if instruction.kernel.startswith("gemm"):
                made, needed = self._product(program, instruction, arguments, values, length, panels)
            elif instruction.extent is not None:
                made, needed = self._divided(program, instruction, arguments, values, length)
            else:
                if instruction.kernel.startswith("check_index"):
                    arguments.append((STATUS_SLOT, 0))
                    values.append(tag)
                made, needed = [Call(self._address(instruction), (*arguments, *_integers(values)))], 0
            groups.append([*made])
            extra = max(extra, needed)
        return groups, extra

    def _moving(self, program: Program, number: int, place: Callable[[int], Argument]) -> Moving:
        """A view as a slot that moves."""
        buffer = program.buffers[number]
        assert buffer.view is not None
        parent, base = place(buffer.view.parent)
        begin, step = (e.evaluate(self.sizes) * buffer.dtype.itemsize for e in (buffer.view.start, buffer.view.step))
        return Moving(self.slots[number], parent, base + begin, step)

    def _packed_once(
        self,
        program: Program,
        loop: Loop,
        free: int,
        place: Callable[[int], Argument],
        panels: Mapping[Operand, Argument],
    ) -> tuple[list[Step], dict[Operand, Argument], int]:
        """(calls before a loop that pack what its products read again and again, where that then lies, bytes)."""
        packing: list[Step] = []
        found: dict[Operand, Argument] = {}
        size = 0
        for instruction in loop.calls:
            number, offset = instruction.arrays[1] if instruction.kernel.startswith("gemm") else (-1, NOTHING)
            # what a loop may write lies among temporaries and outputs, or is updated
            stays = number >= 0 and program.buffers[number].kind in ("input", "param", "state", "const")
            if not stays or number in program.updated or instruction.kernel.startswith("gemm_batch"):
                continue
            m, n, k, lda, ldb, _, trans_a, trans_b, accumulate = (s.evaluate(self.sizes) for s in instruction.sizes)
            t = instruction.kernel.rsplit("_", 1)[1]
            operand = Operand(number, offset.evaluate(self.sizes), t, n, k, ldb, bool(trans_b))
            frozen = self.packed is not None and program.buffers[number].kind == "param"
            plan = products.plan(t, m, n, k, lda, ldb, bool(trans_a), bool(trans_b), bool(accumulate))
            if frozen or operand in panels or operand in found or not m * n * k or plan.how & products.USE_BLAS:
                continue
            slot, base = place(number)
            where = (slot, base + operand.offset * products.ITEMSIZE[t])
            found[operand] = (self.arena_slot, free + size)
            words = _integers([n, k, ldb, int(operand.transposed)])
            packing.append(Call(self.addresses[f"pack_{t}", True], (where, found[operand], *words)))
            size += aligned(products.packed_size(t, n, k) * products.ITEMSIZE[t])
        return packing, found, size

    def _address(self, instruction: Instruction) -> int:
        return self.addresses[instruction.kernel, instruction.fixed]

    # -- strips -------------------------------------------------------------------------------------------------
    def strips(self, program: Program, instructions: Sequence[Instruction | Loop]) -> list[Strip]:
        """The instructions that run block by block; see `graphc.runtime.strips`."""
        return strips.chosen(program, instructions, self.sizes, self.threads)

    def _strip(
        self, program: Program, strip: Strip, place: Callable[[int], Argument], free: int
    ) -> tuple[Sequence[Step], int]:
        """(the calls of a strip, bytes that its parts have of their own)"""
        alone = replace(self, threads=1)

        def product(
            instruction: Instruction, arguments: list[Argument], values: list[int], free: int
        ) -> tuple[list[Call], int]:
            return alone._product(program, instruction, arguments, values, free, {}, True)

        return Blocks(program, self.sizes, place, self._address, product, self.arena_slot, self.counters).calls(
            strip, free, self.addresses["run", True])

    # -- kernels ------------------------------------------------------------------------------------------------
    def _divided(
        self, program: Program, instruction: Instruction, arguments: list[Argument], values: list[int], free: int
    ) -> tuple[list[Call], int]:
        """A kernel over a range, and the combining of what its parts summed."""
        assert instruction.extent is not None
        extent = instruction.extent.evaluate(self.sizes)
        buffers = (program.buffers[number] for number, _ in instruction.arrays)
        lengths = [b.numel.evaluate(self.sizes) * b.dtype.itemsize for b in buffers]
        time = kernel_time(program, instruction, self.sizes)
        grain = ALIGNMENT if extent > 64 * ALIGNMENT else 1
        bounds = cut(extent, grain, parts_worth(time, self.threads))
        own, combining, at = [], [], free
        if len(bounds) > 1:
            for private in instruction.private:
                stride = aligned(lengths[private.array])
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

    # -- matrix products ----------------------------------------------------------------------------------------
    def _product(
        self,
        program: Program,
        instruction: Instruction,
        arguments: list[Argument],
        values: list[int],
        free: int,
        panels: Mapping[Operand, Argument],
        block: bool = False,
    ) -> tuple[list[Call], int]:
        """The calls of a matrix product. block: it is some of a batch, which lie elsewhere each time."""
        m, n, k, lda, ldb, ldc, trans_a, trans_b, accumulate, *batched = values
        t = instruction.kernel.rsplit("_", 1)[1]
        time = 2 * m * n * k * PRODUCT_NS
        batch = batched[0] if batched else 1
        several = block or batch > 1 and (batch >= self.threads or parts_worth(time, self.threads) == 1)
        single = batch == 1 and not block
        threads = 1 if several else parts_worth(time, self.threads)
        blocks = max(threads, min(BLOCKS * threads, int(time / PART_NS)))

        def planned(packed: bool) -> products.Plan:
            return products.plan(t, m, n, k, lda, ldb, bool(trans_a), bool(trans_b), bool(accumulate), packed, threads,
                                 blocks)

        plan = planned(False)
        number, offset = instruction.arrays[1]
        operand = Operand(number, offset.evaluate(self.sizes), t, n, k, ldb, bool(trans_b))
        frozen = self.packed is not None and program.buffers[number].kind == "param" and single
        if (single and threads == 1 and not frozen and operand not in panels
                and products.is_turned(t, m, n, k, bool(trans_a), bool(trans_b), bool(accumulate))):
            return self._turned(t, arguments, values, free)
        if frozen and m and n and k and not plan.how & products.USE_BLAS:
            assert self.packed is not None
            plan = planned(True)
            packed = self.packed.operand(program.buffers[number].name, operand.offset, t, n, k, ldb, bool(trans_b))
            arguments[1] = (ZERO_SLOT, address(packed))
        if single and operand in panels:
            plan = planned(True)
            arguments[1] = panels[operand]
        if several:
            bounds = cut(batch, 1, parts_worth(time * batch, self.threads))
        else:
            bounds = cut(min(plan.blocks, threads), 1, threads)
        itemsize, stride = products.ITEMSIZE[t], aligned(plan.work)
        kernel, work, shared = "gemm", (self.arena_slot, free), (ZERO_SLOT, 0)
        own: tuple[Own, ...] = ()
        needed = stride * len(bounds)
        if plan.how & products.USE_BLAS:
            kernel, work = "blas", (ZERO_SLOT, blas.routines("s" if t == "f32" else "d"))
            bounds = bounds if several else cut(plan.blocks, 1, threads)
        elif len(bounds) > 1:
            own = (Own(3, (self.arena_slot, free + stride), stride),)
        one = self.addresses[f"{kernel}_{t}", True]
        common = [m, n, k, lda, ldb, ldc, plan.how]
        if several:
            rest = _integers([*common, *batched[1:], one, 0, batch])
            return [Call(self.addresses[f"batch_{t}", True], (*arguments, work, *rest), bounds, own)], needed
        calls = []
        if own:
            shared, needed = (self.arena_slot, free + needed), needed + ALIGNMENT
        rest = _integers([*common, plan.high, plan.wide, 0, plan.blocks if plan.how & products.USE_BLAS else 1])
        for i in range(batch):
            steps = [i * s * itemsize for s in batched[1:]] or [0, 0, 0]
            where = [(slot, offset + step) for (slot, offset), step in zip(arguments, steps, strict=True)]
            if own:  # all blocks are left
                start = _integers([1, plan.blocks * products.BLOCK_AFTER])
                calls.append(Call(self.addresses["fill_64", True], (shared, *start)))
            calls.append(Call(one, (*where, work, shared, *rest), bounds, own))
        return calls, needed

    def _turned(self, t: str, arguments: list[Argument], values: list[int], free: int) -> tuple[list[Call], int]:
        """A product by way of its transpose; see `products.is_turned`."""
        m, n, k, lda, ldb, ldc, *_ = values
        a, b, c = arguments
        plan = products.plan(t, n, m, k, ldb, lda, False, False, False)
        itemsize = products.ITEMSIZE[t]
        lengths = [plan.work, n * m * itemsize, products.packed_size(t, 1, m) * itemsize]
        *places, end = totals(map(aligned, lengths), initial=free)
        work, turned, panel = ((self.arena_slot, place) for place in places)
        sizes = _integers([n, m, k, ldb, lda, m, plan.how, plan.high, plan.wide, 0, 1])
        return [
            Call(self.addresses[f"gemm_{t}", True], (b, a, turned, work, (ZERO_SLOT, 0), *sizes)),
            Call(self.addresses[f"turn_{t}", True], (turned, c, panel, *_integers([m, n, ldc]))),
        ], end - free


def needed_kernels(program: Program, threads: int) -> set[str]:
    """The fixed kernels that bound calls of a program may use."""
    found = {"run"}
    loops = any(isinstance(i, Loop) for i in program.instructions)
    for instruction in program.calls:
        if instruction.kernel.startswith("gemm"):
            t = instruction.kernel.rsplit("_", 1)[1]
            found |= {*products.kernels_of(t), *([f"pack_{t}"] if loops else []), *(["fill_64"] if threads > 1 else [])}
        elif instruction.fixed:
            found.add(instruction.kernel)
        for private in instruction.private:
            if threads > 1 and private.reduce != "scratch":
                dtype = program.buffers[instruction.arrays[private.array][0]].dtype
                found.add(f"combine_{private.reduce}_{dtype}")
    return found | ({"part", "share", "work"} if threads > 1 else set())


def _integers(values: list[int]) -> list[Argument]:
    return [(0, v) for v in values]
