"""A strip as calls for the driver: loops over its blocks, in which slots move from block to block.

Each part has slots of its own, and memory for the temporaries that nothing but the strip touches: one block of each, so
that those of a long strip take no more memory than those of a short one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from .driver import ZERO_SLOT, Argument, Call, Moving, Repeat, Step, Strands
from .program import Instruction, Program, arrange
from .strips import Member, Part, Strip


@dataclass(frozen=True)
class Blocks:
    """What the calls of a strip are made of.

    place: where a buffer lies. kernel: the address of an instruction's kernel. product: the calls of a matrix product of one
    thread, from its arguments, its sizes and where memory is free, and the bytes that they need there. fresh: slots.
    """

    program: Program
    sizes: Mapping[str, int]
    place: Callable[[int], Argument]
    kernel: Callable[[Instruction], int]
    product: Callable[[Instruction, list[Argument], list[int], int], tuple[list[Call], int]]
    arena_slot: int
    fresh: Iterator[int]

    def calls(self, strip: Strip, free: int, run: int) -> tuple[Sequence[Step], int]:
        """(the calls, bytes of the arena that they need from `free` on). run: the address of the driver."""
        bodies: list[tuple[Repeat, ...]] = []
        at = free
        for part in strip.parts:
            loops, needed = self._part(strip, part, at)
            bodies.append(tuple(loops))
            at += needed
        return bodies[0] if len(bodies) == 1 else [Strands(run, tuple(bodies))], at - free

    def _part(self, strip: Strip, part: Part, free: int) -> tuple[list[Repeat], int]:
        """(the loop over the blocks of a part, bytes that it has of its own)"""
        own, needed = self._own(strip, free)
        work, most = free + needed, 0
        count = part.last - part.first
        groups = _Slots(part.first, count, 1, self.fresh)
        loops: list[Repeat] = []
        for first, times, length in strip.blocks(part):
            blocks = _Slots(first, times, length, self.fresh)
            body: list[Call] = []
            for member in strip.members.values():
                made, size = self._member(strip, member, length, own, groups, blocks, work)
                body += made
                most = max(most, size)
            loops.append(Repeat(times, next(self.fresh), blocks.moving, tuple(body)))
        if count > 1:
            loops = [Repeat(count, next(self.fresh), groups.moving, tuple(loops))]
        return loops, needed + most

    def _member(
        self,
        strip: Strip,
        member: Member,
        length: int,
        own: Mapping[int, Argument],
        groups: _Slots,
        blocks: _Slots,
        free: int,
    ) -> tuple[list[Call], int]:
        """(the calls of an instruction for a block of some slabs, bytes that they need)"""
        instruction, each = member.instruction, member.extent // strip.slabs
        arguments: list[Argument] = []
        for j, ((number, offset), region) in enumerate(zip(instruction.arrays, member.regions, strict=True)):
            itemsize = self.program.buffers[number].dtype.itemsize
            slot, base = own[number] if number in own else self.place(number)
            # a product takes the first element of its block; a kernel counts from that of the array
            ahead = member.steps[j] * each if member.steps else 0
            group = ahead * strip.group
            if number in strip.local:  # which begins with the block
                assert region is not None
                ahead -= region.length // strip.slabs
                group -= region.length // strip.slabs * strip.group
            elif member.matrix and j == 1:
                group = member.ahead
            where = slot, base + offset.evaluate(self.sizes) * itemsize
            arguments.append(blocks.moved(groups.moved(where, group * itemsize), ahead * itemsize))
        values = [s.evaluate(self.sizes) for s in instruction.sizes]
        if member.steps:
            if member.matrix:
                values[0], values[9] = each * length, 1
            else:
                values[9] = each * length
            return self.product(instruction, arguments, values, free)
        slot, begin = blocks.moved(groups.moved((ZERO_SLOT, 0), each * strip.group), each)
        integers = ((ZERO_SLOT, value) for value in values)
        bounds = (slot, begin), (slot, begin + each * length)
        return [Call(self.kernel(instruction), (*arguments, *integers, *bounds))], 0

    def _own(self, strip: Strip, free: int) -> tuple[dict[int, Argument], int]:
        """(where what a part of a strip has of its own lies from `free` on, bytes): a block of each local array, and
        scratch memory, if there are other parts."""
        spans: dict[int, tuple[int, int, int, int]] = {}
        for at, member in enumerate(strip.members.values()):
            for j, ((number, _), region) in enumerate(zip(member.instruction.arrays, member.regions, strict=True)):
                buffer = self.program.buffers[number]
                if region is not None and number in strip.local:
                    length = region.length // strip.slabs * strip.block * buffer.dtype.itemsize
                elif j in member.scratch and len(strip.parts) > 1:
                    length = buffer.numel.evaluate(self.sizes) * buffer.dtype.itemsize
                else:
                    continue
                spans[number] = (length, spans[number][1] if number in spans else at, at, number)
        offsets, total = arrange(spans.values())
        return {number: (self.arena_slot, free + offset) for number, offset in offsets.items()}, total


class _Slots:
    """Slots that move in a loop of some `times`, whose number begins with `first` and goes on by `step`; a loop of one time
    needs none."""

    def __init__(self, first: int, times: int, step: int, fresh: Iterator[int]):
        self._first, self._times, self._step, self._fresh = first, times, step, fresh
        self._moving: dict[tuple[int, int, int], Moving] = {}

    def moved(self, where: Argument, each: int) -> Argument:
        """An argument that is `each` further for each number."""
        slot, offset = where[0], where[1] + each * self._first
        if each == 0 or self._times == 1:
            return slot, offset
        key = slot, offset, each * self._step
        if key not in self._moving:
            self._moving[key] = Moving(next(self._fresh), *key)
        return self._moving[key].slot, 0

    @property
    def moving(self) -> tuple[Moving, ...]:
        return tuple(self._moving.values())
