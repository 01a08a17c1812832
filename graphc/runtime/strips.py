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
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from math import gcd

from . import products
from .parts import BLOCKS, PART_NS, PRODUCT_NS, cut, kernel_time
from .program import Instruction, Loop, Program, calls

SECOND, THIRD = 3 << 18, 16 << 20
"""Bytes that stay in the second cache, and in the third: not all of it, for others use them too."""
SAVED_NS = 0.014
"""What a byte takes less in a cache than where it came from. Measured on attention of many sizes: the same from the second
cache to the third as from the third to memory. The fuller the blocks of all threads make the third, the less is saved."""
AGAIN_NS = 0.018
"""What a byte of a product's right-hand operand takes each time that it is read and packed again."""
CALL_NS = 100
"""What an instruction takes that has nothing to do."""
ROWS, GRAIN = 128, 8
"""Rows of a product in a block, where it is not of whole matrices: so many at least, for each block reads the right-hand
operand again; and a multiple of this, for the sake of tiles."""
MOST = 16
"""Instructions in a strip."""
EVEN = 0.02
"""Parts are cut so that threads are idle for no more of the time, if that can be."""


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

    steps: of a product, how many elements each matrix is from that of the next iteration. matrix: of one whose iterations are
    rows, how many have a right-hand operand in common; 0 elsewhere. That operand is `again` bytes long, and `ahead` elements
    from the next.
    """

    instruction: Instruction
    extent: int
    regions: tuple[Region | None, ...]
    written: frozenset[int]
    time: float
    scratch: frozenset[int] = frozenset()
    steps: tuple[int, ...] = ()
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
    """Instructions that run block by block, in place of the last of them, by their numbers.

    There are `slabs`, and `group` of them have the right-hand operands of products in common; all where a slab has its own.
    A block is at most `block` of a group, and a multiple of `grain`. parts: they may run side by side. local: the
    temporaries that nothing else touches, of which there need be no more than a block.
    """

    members: Mapping[int, Member]
    slabs: int
    group: int
    block: int
    grain: int
    parts: tuple[Part, ...]
    local: frozenset[int]
    block_bytes: int

    @property
    def range(self) -> range:
        """The numbers of its instructions and of those between them, which run before it."""
        return range(min(self.members), max(self.members) + 1)

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
    """The strips of a program's instructions, or of a loop's, that save most together, in their order."""
    temporaries = (b for b in program.buffers if b.kind == "temp")
    if sum(b.numel.evaluate(sizes) * b.dtype.itemsize for b in temporaries) <= SECOND:
        return []  # all that lies between any two stays in cache
    touching = Counter(root for i in program.calls for root in {program.root(b) for b, _ in i.arrays})
    whole = instructions is program.instructions  # what a loop touches may be touched again the next time
    chooser = _Chooser(program, instructions, threads, touching if whole else {})
    ways: list[list[Member | None]] = [[], []]
    for instruction in instructions:
        found = _members(program, instruction, sizes) if isinstance(instruction, Instruction) else (None, None)
        for way, member in zip(ways, found, strict=True):
            way.append(member)
    best: dict[int, tuple[float, Strip | None]] = {}  # from an instruction on: what can be saved, and the first strip
    for start in reversed(range(len(instructions))):
        following = best[start + 1][0] if start + 1 in best else 0.0
        best[start] = following, None
        for saved, strip in (pair for members in ways for pair in chooser.strips(members, start)):
            after = best[strip.range.stop][0] if strip.range.stop in best else 0.0
            if saved > 0 and saved + after > best[start][0]:
                best[start] = saved + after, strip
    strips: list[Strip] = []
    at = 0
    while at < len(instructions):
        first = best[at][1]
        strips += [] if first is None else [first]
        at = at + 1 if first is None else first.range.stop
    return strips


# ------------------------------------------------------------------------------------------------------------ members
def _members(
    program: Program, instruction: Instruction, sizes: Mapping[str, int]
) -> tuple[Member | None, Member | None]:
    """An instruction as a member of strips in which products go one by one, and row by row; None where it cannot be."""
    places = [(b, o.evaluate(sizes)) for b, o in instruction.arrays]
    if instruction.kernel.startswith("gemm_batch"):
        return _products(instruction, places, [s.evaluate(sizes) for s in instruction.sizes])
    scratch = frozenset(p.array for p in instruction.private if p.reduce == "scratch")
    extent = instruction.extent.evaluate(sizes) if instruction.extent is not None else 0
    if not extent or not instruction.slabs or len(scratch) < len(instruction.private):
        return None, None  # totals begin anew in each part: blocks of a part would have to add up
    slabs = [s.evaluate(sizes) for s in instruction.slabs]
    regions = tuple(Region(b, o, s * extent) if s else None for (b, o), s in zip(places, slabs, strict=True))
    time = kernel_time(program, instruction, sizes)
    member = Member(instruction, extent, regions, frozenset(instruction.written), time, scratch)
    return member, member


def _products(
    instruction: Instruction, places: list[tuple[int, int]], values: list[int]
) -> tuple[Member | None, Member | None]:
    """A batch of matrix products, one by one and row by row. None where a library computes them, or rows lie apart."""
    m, n, k, lda, ldb, ldc, trans_a, trans_b, accumulate, batch, *strides = values
    t = instruction.kernel.rsplit("_", 1)[1]
    plan = products.plan(t, m, n, k, lda, ldb, bool(trans_a), bool(trans_b), bool(accumulate))
    if not m * n * k * batch or plan.how & products.USE_BLAS:
        return None, None
    shapes = ((k, m, lda) if trans_a else (m, k, lda), (n, k, ldb) if trans_b else (k, n, ldb), (m, n, ldc))
    reaches = [(high - 1) * leading + wide for high, wide, leading in shapes]
    a, b, c = (_region(*way, batch) for way in zip(places, strides, reaches, strict=True))
    time, written = 2 * m * n * k * batch * PRODUCT_NS, frozenset({2})
    if c is None:
        return None, None
    whole = Member(instruction, batch, (a, b, c), written, time, steps=tuple(strides))
    if trans_a or strides[0] != m * lda or strides[2] != m * ldc:
        return whole, None
    again = k * n * products.ITEMSIZE[t]
    a, c = _region(places[0], lda, k, m * batch), _region(places[2], ldc, n, m * batch)
    rows = Member(
        instruction, m * batch, (a, None, c), written, time, steps=(lda, 0, ldc), matrix=m, again=again, ahead=strides[1]
    )
    return whole, rows


def _region(place: tuple[int, int], step: int, reach: int, count: int) -> Region | None:
    """What `count` iterations share out that are `step` apart, each of which touches `reach` elements; None if nothing."""
    buffer, offset = place
    if reach > step:
        return None
    aside = offset % step  # columns of wider rows, as another may have written them
    return Region(buffer, offset - aside if aside + reach <= step else offset, step * count)


# ------------------------------------------------------------------------------------------------------------- choice
class _Chooser:
    """What strips there are from an instruction on. touching: how many instructions touch a temporary, where that counts."""

    def __init__(
        self, program: Program, instructions: Sequence[Instruction | Loop], threads: int, touching: Mapping[int, int]
    ):
        self.program, self.threads, self.touching = program, threads, touching
        self.touched = [{program.root(b) for i in calls([one]) for b, _ in i.arrays} for one in instructions]
        self.written = [{program.root(b) for i in calls([one]) for b in i.writes} for one in instructions]

    def strips(self, members: Sequence[Member | None], start: int) -> Iterator[tuple[float, Strip]]:
        """(nanoseconds saved, strip) for every strip that begins with an instruction."""
        slabs = passed = made = 0
        regions: dict[int, set[Region | None]] = {}
        written: set[int] = set()
        strip: dict[int, Member] = {}
        for number in range(start, len(members)):
            member = members[number]
            common = gcd(slabs, member.extent) if member is not None else 1
            if member is not None and common > 1 and self._joins(number, member, regions, written):
                strip[number], slabs = member, common
                made += sum(self._bytes(member.regions[place]) for place in member.written)
                found = self._laid_out(strip, slabs) if made > SECOND else None
                if found is not None:
                    yield found
            elif not strip or written & self.touched[number] or regions.keys() & self.written[number]:
                return  # it cannot run before those that came before it
            else:
                passed += 1
            if len(strip) == MOST or passed == MOST:
                return

    def _bytes(self, region: Region | None) -> int:
        return region.length * self.program.buffers[region.buffer].dtype.itemsize if region is not None else 0

    def _joins(self, number: int, member: Member, regions: dict[int, set[Region | None]], written: set[int]) -> bool:
        """May an instruction run block by block with others, whose regions by buffer are given? They are added to."""
        mine: dict[int, set[Region | None]] = {}
        for place, ((buffer, _), region) in enumerate(zip(member.instruction.arrays, member.regions, strict=True)):
            if place not in member.scratch:
                mine.setdefault(self.program.root(buffer), set()).add(region)
        for root, found in mine.items():
            if root in regions and root in written | self.written[number]:
                both = regions[root] | found
                if len(both) > 1 or None in both:
                    return False
        for root, found in mine.items():
            regions.setdefault(root, set()).update(found)
        written |= self.written[number]
        return True

    def _laid_out(self, strip: Mapping[int, Member], slabs: int) -> tuple[float, Strip] | None:
        """(nanoseconds saved, the strip), if it can be cut into blocks that are worth it."""
        members, buffers, threads = strip.values(), self.program.buffers, self.threads
        size = {r: self._bytes(r) for m in members for r in m.regions if r}
        touched = Counter(r for m in members for r in {r for r in m.regions if r})
        made = {m.regions[a] for m in members for a in m.written}
        read = {r for m in members for a, r in enumerate(m.regions) if a not in m.written}
        between = [r for r in touched if r in made and r in read]
        slab = sum(size.values()) // slabs
        groups = {m.matrix * slabs // m.extent for m in members if m.matrix}
        if any(m.matrix * slabs % m.extent for m in members if m.matrix) or len(groups) > 1:
            return None
        group, grain = (*groups, GRAIN) if groups else (slabs, 1)
        least = min(group, ROWS if groups else 1)
        block = max(least, SECOND // slab // grain * grain)
        if block > group or not _nearer(block * slab, sum(size[r] for r in between)):
            return None
        parts = _parts(slabs, group, grain, least, threads, sum(m.time for m in members))
        if len(parts) < threads:
            return None
        local = frozenset(
            r.buffer
            for r in between
            if touched[r] == self.touching.get(r.buffer) and buffers[r.buffer].kind == "temp" and r.offset == 0
        )
        found = Strip(dict(strip), slabs, group, block, grain, parts, local, block * slab)
        count = sum((part.last - part.first) * times for part in parts for _, times, _ in found.blocks(part))
        crowded = block * slab * threads / (2 * THIRD) if block * slab > SECOND else 0
        saved = SAVED_NS * max(0, 1 - crowded) * sum(size[r] * touched[r] for r in between)
        saved -= CALL_NS * count * len(members)
        saved -= AGAIN_NS * sum(m.again for m in members) * (count - slabs // group)
        return saved - _idle(parts, threads) * sum(m.time for m in members), found


def _nearer(block: int, between: int) -> bool:
    """Does a block of so many bytes stay in a cache that is too small for all that lies between instructions?"""
    return block <= SECOND < between or block <= THIRD < between


def _parts(slabs: int, group: int, grain: int, least: int, threads: int, time: float) -> tuple[Part, ...]:
    """The parts of a strip: groups, or, where these are few, some of each group. A few more than are needed, if they leave
    no thread idle."""
    groups = slabs // group
    wanted = max(1, min(BLOCKS * threads, int(time / PART_NS))) if threads > 1 else 1
    each = -(-wanted // groups)
    fewest, most = (wanted, groups) if each == 1 else (min(each, group // least), group // least)
    best: tuple[Part, ...] = ()
    for count in range(fewest, min(most, 2 * fewest) + 1):
        if each == 1:
            parts = tuple(Part(first, last, 0, group) for first, last in cut(groups, 1, count))
        else:
            pieces = cut(group, grain, count)
            parts = tuple(Part(number, number + 1, *bounds) for number in range(groups) for bounds in pieces)
        if not best or _idle(parts, threads) < _idle(best, threads):
            best = parts
        if _idle(best, threads) < EVEN:
            break
    return best


def _idle(parts: Sequence[Part], threads: int) -> float:
    """The time in which some threads have nothing left to do, as a part of the time in which all work."""
    busy = [0] * threads
    for part in parts:
        busy[busy.index(min(busy))] += (part.last - part.first) * (part.end - part.begin)
    return max(busy) * threads / sum(busy) - 1
