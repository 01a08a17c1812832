"""Parts: what an instruction takes, roughly, and into how many parts and where it is cut."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

from .program import Instruction, Program

PART_NS = 4000  # of work in a part: handing it to a worker that is awake takes a few hundred
BLOCKS = 4  # for each thread, where they are taken one by one: a slow thread holds the others up by one block

# What an instruction takes: an operation on vectors, a byte that comes from a cache, an operation of a product.
OPERATION_NS, BYTE_NS, PRODUCT_NS = 0.02, 0.02, 1 / 200


def kernel_time(program: Program, instruction: Instruction, sizes: Mapping[str, int]) -> float:
    """The nanoseconds that a generated kernel takes."""
    buffers = (program.buffers[number] for number, _ in instruction.arrays)
    touched = sum(b.numel.evaluate(sizes) * b.dtype.itemsize for b in buffers)
    return instruction.operations.evaluate(sizes) * OPERATION_NS + touched * BYTE_NS


def parts_worth(time: float, threads: int) -> int:
    """Into how many parts work of so many nanoseconds is cut, one for a thread at most."""
    return max(1, min(threads, int(time / PART_NS)))


def cut(extent: int, grain: int, parts: int) -> tuple[tuple[int, int], ...]:
    """The (begin, end) of at most so many parts of about one length, which begin at multiples of the grain."""
    units = -(-extent // grain)
    parts = max(1, min(parts, units))
    edges = [min(extent, units * p // parts * grain) for p in range(parts + 1)]
    return tuple((a, b) for a, b in pairwise(edges))
