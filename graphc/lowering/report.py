"""A schedule in words: each step with what it computes, reads, writes and costs, and why it is a step of its own."""

from __future__ import annotations

from collections.abc import Iterable

from ..graph.size import Size, size
from .cost import operations
from .ir import Kernel, Store, loads, walk
from .schedule import CheckIndex, Launch, Multiply, Repeat, Schedule, Step

PRODUCT = "matrix product: its strides merge into rows, columns and an inner axis"


def report(steps: Schedule) -> str:
    """The steps of a schedule. Bytes and operations are polynomials in the sizes; an array counts once a step, and what
    stays in cache does not count."""
    lines: list[str] = []
    for number, step in enumerate(steps.steps, 1):
        lines += [*_numbered(number, _step(steps, step)), ""]
    return "\n".join(lines)


def _numbered(number: int, lines: list[str]) -> list[str]:
    return [f"{number}. {lines[0]}", *(f"   {line}" for line in lines[1:])]


def _step(steps: Schedule, step: Step) -> list[str]:
    names = [steps.buffers[b].name for b in steps.touches(step)]
    if isinstance(step, Launch):
        return _kernel(steps, step)
    if isinstance(step, Multiply):
        p = step.product
        work = _traffic(steps, {step.a, step.b}, {step.c}, p.m * p.n * p.k * p.batch * 2)
        return [f"product: {step.note}", f"    {PRODUCT}", work]
    if isinstance(step, CheckIndex):
        why = f"every element of {names[0]} must be an index below {step.limit}, before it is looked up"
        return [f"check of {names[0]}: {why}", _traffic(steps, {step.buffer}, set(), step.count * 2)]
    if isinstance(step, Repeat):
        moving = ", ".join(steps.buffers[v].name for v in step.views)
        inside = [f"  {line}" for number, s in enumerate(step.steps, 1) for line in _numbered(number, _step(steps, s))]
        return [f"loop of {step.count} steps; each moves on along {moving}", *inside]
    return [f"copy of {names[0]} to {names[1]}: {step.why}", _traffic(steps, {step.source}, {step.target}, size(0))]


def _kernel(steps: Schedule, step: Launch) -> list[str]:
    kernel = step.kernel
    lines = [f"kernel {kernel.name}:"]
    for note, reason in zip(kernel.notes, kernel.reasons, strict=True):
        lines += [f"  {note}", f"    {reason}"]
    lines += [*kernel.remarks, *_blocks(steps, step)]
    read, written = _arrays(kernel)
    buffers = step.buffers
    return [*lines, _traffic(steps, {buffers[a] for a in read}, {buffers[a] for a in written}, operations(kernel.body))]


def _blocks(steps: Schedule, step: Launch) -> list[str]:
    """What a kernel shares with products of a batch, if it may run on some of them at a time."""
    batched = {b for s in steps.steps if isinstance(s, Multiply) and s.product.batch != 1 for b in (s.a, s.b, s.c)}
    shared = [steps.buffers[b].name for a, b in enumerate(step.buffers) if b in batched and a in step.kernel.slabs]
    if not shared:
        return []
    return [
        f"may run block by block with the products of {', '.join(shared)}, if these would not stay in cache: each iteration "
        "touches a slab of its own"
    ]


def _arrays(kernel: Kernel) -> tuple[set[int], set[int]]:
    """(the arrays that a kernel reads, those that it writes); scratch memory is neither."""
    scratch = {array for array, reduce in kernel.private.items() if reduce == "scratch"}
    stores = [x for x in walk(kernel.body) if isinstance(x, Store)]
    summed = {x.array for x in stores if x.reduce != "assign"}
    read = {load.array for x in walk(kernel.body) for load in loads(x)}
    return read - summed - scratch, {x.array for x in stores} - scratch


def _traffic(steps: Schedule, read: Iterable[int], written: Iterable[int], work: Size) -> str:
    def total(buffers: Iterable[int]) -> Size:
        found = size(0)
        for b in buffers:
            kind = steps.buffers[b].type
            found = found + kind.numel * kind.dtype.itemsize
        return found

    return f"reads {total(read)} bytes, writes {total(written)} bytes, does {work} operations"
