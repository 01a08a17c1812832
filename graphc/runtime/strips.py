"""Strips: instructions that run block by block over an outer axis that they share, so that what lies between them stays
in cache.

A batch of matrix products, one by one, and a kernel run over an axis whose iterations may run in any order. Where each
iteration touches, of every array, a slab of its own, and all of several instructions cut the arrays that one of them writes
into the same slabs, they may run one after the other on some slabs, then on some more: slab r of the last needs no more
than slab r of those before it. The bits are the same, since no iteration knows which others run.

The slabs of products are matrices, or, where these are large, rows of them: softmax(Q·Kᵀ)·V needs some rows of Q and all of
K and V. `chosen` finds instructions that follow each other and can do so, and says where it pays.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from math import gcd

from . import products
from .parts import BLOCKS, BYTE_NS, OPERATION_NS, PART_NS, PRODUCT_NS, cut
from .program import Instruction, Loop, Program

SECOND, THIRD = 3 << 18, 16 << 20
"""Bytes of a block that stay in the second cache, and in the third: not all of it, for others use them too."""
SAVED_NS = 0.014
"""What a byte takes less in a cache than where it came from. Measured on attention of many sizes: the same from the second
cache to the third as from the third to memory."""
AGAIN_NS = 0.018
"""What a byte of a product's right-hand operand takes each time that it is read and packed again."""
CALL_NS = 100
"""What an instruction takes that has nothing to do."""
ROWS, GRAIN = 128, 8
"""Rows of a product in a block, where it is not of whole matrices: so many at least, for each block reads the right-hand
operand again; and a multiple of this, for the sake of tiles."""
MOST = 16
"""Instructions in a strip."""


@dataclass(frozen=True)
class Region:
    """Elements of a buffer, `length` from `offset` on, that iterations share out evenly, slab after slab."""

    buffer: int
    offset: int
    length: int


@dataclass(frozen=True)
class Member:
    """An instruction that may run on a part of its iterations, of which there are `extent`.

    regions: what they share out of each array; None of an array of which any may touch any cell. written: the places of the
    arrays that it writes for others, scratch of those that nobody else reads. time: nanoseconds of all iterations.

    matrix: of a product whose iterations are rows, how many have a right-hand operand in common; 0 elsewhere. That operand
    is `again` bytes long, and `ahead` elements from the next.
    """

    instruction: Instruction
    extent: int
    regions: tuple[Region | None, ...]
    written: frozenset[int]
    time: float
    scratch: frozenset[int] = frozenset()
    matrix: int = 0
    again: int = 0
    ahead: int = 0


@dataclass(frozen=True)
class Part:
    """Slabs of a strip: those from `begin` to `end` of each group of them from `first` to `last`."""

    first: int
    last: int
    begin: int
    end: int


@dataclass(frozen=True)
class Strip:
    """Instructions from number `start` on that run block by block.

    There are `slabs`, and `group` of them have the right-hand operands of products in common; all where a slab has its own.
    A block is at most `block` of a group, and a multiple of `grain`. parts: they may run side by side. local: the
    temporaries that nothing else touches, of which there need be no more than a block.
    """

    start: int
    members: tuple[Member, ...]
    slabs: int
    group: int
    block: int
    grain: int
    parts: tuple[Part, ...]
    local: frozenset[int]

    @property
    def range(self) -> range:
        """The numbers of its instructions."""
        return range(self.start, self.start + len(self.members))

    def blocks(self, part: Part) -> list[tuple[int, int, int]]:
        """A part's slabs of a group, in blocks of about one length: (where some begin, how many, slabs in each)."""
        begin, end = part.begin, part.end
        count = -(-(end - begin) // self.block)
        each, longer = divmod(-(-(end - begin) // self.grain), count)
        lengths = [each + 1] * longer + [each] * (count - longer)
        edges = [min(end, begin + before * self.grain) for before in accumulate(lengths, initial=0)]
        found: list[tuple[int, int, int]] = []
        for start, stop in pairwise(edges):
            if found and found[-1][2] == stop - start:
                found[-1] = (found[-1][0], found[-1][1] + 1, stop - start)
            else:
                found.append((start, 1, stop - start))
        return found


def chosen(
    program: Program, instructions: Sequence[Instruction | Loop], sizes: Mapping[str, int], threads: int
) -> list[Strip]:
    """The strips of a program's instructions, or of a loop's, that pay, in their order."""
    ways = [
        [_member(program, i, sizes, rows) if isinstance(i, Instruction) else None for i in instructions]
        for rows in (False, True)
    ]
    touching = Counter(root for i in program.calls for root in {program.root(b) for b, _ in i.arrays})
    whole = instructions is program.instructions  # what a loop touches may be touched again the next time
    strips: list[Strip] = []
    at = 0
    while at < len(instructions):
        found = [_longest(program, members, at, threads, touching if whole else {}) for members in ways]
        _, strip = max(found, key=lambda pair: pair[0])
        if strip is not None:
            strips.append(strip)
        at = strip.range.stop if strip is not None else at + 1
    return strips


# ------------------------------------------------------------------------------------------------------------ members
def _member(program: Program, instruction: Instruction, sizes: Mapping[str, int], rows: bool) -> Member | None:
    """An instruction as a member of a strip; None where it cannot be. rows: products go row by row, not one by one."""
    places = [(b, o.evaluate(sizes)) for b, o in instruction.arrays]
    if instruction.kernel.startswith("gemm_batch"):
        return _products(instruction, places, [s.evaluate(sizes) for s in instruction.sizes], rows)
    scratch = frozenset(p.array for p in instruction.private if p.reduce == "scratch")
    if instruction.extent is None or len(scratch) < len(instruction.private):
        return None  # totals begin anew in each part: blocks of a part would have to add up
    extent = instruction.extent.evaluate(sizes)
    slabs = [s.evaluate(sizes) for s in instruction.slabs]
    regions = tuple(Region(b, o, s * extent) if s else None for (b, o), s in zip(places, slabs, strict=True))
    touched = sum(program.buffers[b].numel.evaluate(sizes) * program.buffers[b].dtype.itemsize for b, _ in places)
    time = instruction.operations.evaluate(sizes) * OPERATION_NS + touched * BYTE_NS
    return Member(instruction, extent, regions, frozenset(instruction.written), time, scratch) if extent else None


def _products(instruction: Instruction, places: list[tuple[int, int]], values: list[int], rows: bool) -> Member | None:
    """A batch of matrix products as a member. None where a library computes them, or no slab is written."""
    m, n, k, lda, ldb, ldc, trans_a, trans_b, accumulate, batch, *strides = values
    t = instruction.kernel.rsplit("_", 1)[1]
    plan = products.plan(t, m, n, k, lda, ldb, bool(trans_a), bool(trans_b), bool(accumulate))
    if not m * n * k * batch or plan.how & products.USE_BLAS:
        return None
    shapes = ((k, m, lda) if trans_a else (m, k, lda), (n, k, ldb) if trans_b else (k, n, ldb), (m, n, ldc))
    reaches = [(high - 1) * leading + wide for high, wide, leading in shapes]
    a, b, c = (_region(*way, batch) for way in zip(places, strides, reaches, strict=True))
    time, written = 2 * m * n * k * batch * PRODUCT_NS, frozenset({2})
    if c is None:
        return None
    if not rows:
        return Member(instruction, batch, (a, b, c), written, time)
    if trans_a or strides[0] != m * lda or strides[2] != m * ldc:
        return None
    again = k * n * products.ITEMSIZE[t]
    a, c = _region(places[0], lda, k, m * batch), _region(places[2], ldc, n, m * batch)
    return Member(instruction, m * batch, (a, None, c), written, time, matrix=m, again=again, ahead=strides[1])


def _region(place: tuple[int, int], step: int, reach: int, count: int) -> Region | None:
    """What `count` iterations share out that are `step` apart, each of which touches `reach` elements; None if nothing."""
    buffer, offset = place
    if reach > step:
        return None
    aside = offset % step  # columns of wider rows, as another may have written them
    return Region(buffer, offset - aside if aside + reach <= step else offset, step * count)


# ------------------------------------------------------------------------------------------------------------- choice
def _longest(
    program: Program, members: Sequence[Member | None], start: int, threads: int, touching: Mapping[int, int]
) -> tuple[float, Strip | None]:
    """(nanoseconds saved, the strip from an instruction on that saves most); None where none saves anything."""
    best: tuple[float, Strip | None] = 0.0, None
    slabs = 0
    regions: dict[int, set[Region | None]] = {}
    written: set[int] = set()
    strip: list[Member] = []
    for member in members[start : start + MOST]:
        slabs = gcd(slabs, member.extent) if member is not None else 1
        if member is None or slabs == 1 or not _joins(program, member, regions, written):
            break
        strip.append(member)
        if len(strip) > 1:
            best = max(best, _laid_out(program, start, tuple(strip), slabs, threads, touching), key=lambda pair: pair[0])
    return best


def _joins(program: Program, member: Member, regions: dict[int, set[Region | None]], written: set[int]) -> bool:
    """May an instruction run block by block with those before it, whose regions by buffer are given? They are added to."""
    mine: dict[int, set[Region | None]] = {}
    writes = set()
    for number, ((buffer, _), region) in enumerate(zip(member.instruction.arrays, member.regions, strict=True)):
        if number not in member.scratch:
            root = program.root(buffer)
            mine.setdefault(root, set()).add(region)
            if number in member.written:
                writes.add(root)
    for root, found in mine.items():
        if root in regions and root in written | writes:
            both = regions[root] | found
            if len(both) > 1 or None in both:
                return False
    for root, found in mine.items():
        regions.setdefault(root, set()).update(found)
    written |= writes
    return True


NOTHING: tuple[float, None] = 0.0, None


def _laid_out(
    program: Program, start: int, members: tuple[Member, ...], slabs: int, threads: int, touching: Mapping[int, int]
) -> tuple[float, Strip | None]:
    """(nanoseconds saved, the strip), if it can be cut into blocks that are worth it."""
    size = {r: r.length * program.buffers[r.buffer].dtype.itemsize for m in members for r in m.regions if r}
    touched = Counter(r for m in members for r in {r for r in m.regions if r})
    made = {m.regions[a] for m in members for a in m.written}
    between = [r for r in touched if r in made and touched[r] > 1]
    slab = sum(size.values()) // slabs
    groups = {m.matrix * slabs // m.extent for m in members if m.matrix}
    if any(m.matrix * slabs % m.extent for m in members if m.matrix) or len(groups) > 1:
        return NOTHING
    group, grain = (*groups, GRAIN) if groups else (slabs, 1)
    least = min(group, ROWS if groups else 1)
    block = max(least, SECOND // slab // grain * grain)
    fits = SECOND if block * slab <= SECOND else THIRD
    # what is between them comes from a farther cache, or from memory, if they run as a whole
    if block > group or block * slab > THIRD or sum(size[r] for r in between) <= fits:
        return NOTHING
    parts = _parts(slabs, group, grain, least, threads, sum(m.time for m in members))
    if len(parts) < threads:
        return NOTHING
    strip = Strip(start, members, slabs, group, block, grain, parts, _local(program, between, touched, touching))
    count = sum((part.last - part.first) * times for part in parts for _, times, _ in strip.blocks(part))
    saved = SAVED_NS * sum(size[r] * touched[r] for r in between) - CALL_NS * count * len(members)
    saved -= AGAIN_NS * sum(m.again for m in members) * (count - slabs // group)
    # the time in which some threads have nothing left to do
    most = max((part.last - part.first) * (part.end - part.begin) for part in parts)
    idle = -(-len(parts) // threads) * most * threads / slabs - 1
    return saved - idle * sum(m.time for m in members), strip


def _parts(slabs: int, group: int, grain: int, least: int, threads: int, time: float) -> tuple[Part, ...]:
    """The parts of a strip: groups, or, where these are few, some of each group."""
    groups = slabs // group
    wanted = min(BLOCKS * threads, int(time / PART_NS)) if threads > 1 else 1
    if wanted <= groups:
        return tuple(Part(first, last, 0, group) for first, last in cut(groups, 1, wanted))
    within = cut(group, grain, min(-(-wanted // groups), group // least))
    return tuple(Part(number, number + 1, *bounds) for number in range(groups) for bounds in within)


def _local(
    program: Program, between: Sequence[Region], touched: Mapping[Region, int], touching: Mapping[int, int]
) -> frozenset[int]:
    """The temporaries that only a strip touches. touching: how many instructions touch each."""
    return frozenset(
        r.buffer
        for r in between
        if touched[r] == touching.get(r.buffer) and program.buffers[r.buffer].kind == "temp" and r.offset == 0
    )
