"""Memory: arrays side by side in one block, where an array lies, and the arena that the programs of a model share."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from .program import ALIGNMENT

Array = np.ndarray[Any, Any]

HUGE_PAGE = 2 << 20
"""Bytes of a page of those that Linux gives to large arrays of NumPy's, where they cover it whole: of 64-bit x86, and of
most ARM systems."""

_nothing_at: Any = (ctypes.c_char * 0).from_buffer


def address(array: Array) -> int:
    """The address of an array's first element."""
    found: int = array.ctypes.data
    return found


def address_at_once(array: Array) -> int:
    """`address`, several times faster. TypeError where the array is not C-contiguous or not writable."""
    return ctypes.addressof(_nothing_at(array))


def side_by_side(arrays: Sequence[tuple[np.dtype[Any], tuple[int, ...]]]) -> tuple[Array, list[Array]]:
    """(block, arrays): zeroed arrays of some types and shapes in one block, each at a multiple of 64 bytes.

    The block is the base of the arrays, and of every view of them: it is held for as long as any of them is. A large one
    begins and ends with a huge page. Where small pages lie is chance, and some lie so that they push each other out of the
    second cache.
    """
    offsets, length = [], 0
    for dtype, shape in arrays:
        offsets.append(length)
        length += -(-prod(shape) * dtype.itemsize // ALIGNMENT) * ALIGNMENT
    grain = HUGE_PAGE if length >= HUGE_PAGE else ALIGNMENT
    block = np.zeros(-(-length // grain) * grain + grain, np.uint8)  # what is never touched takes no memory
    start = -address(block) % grain
    made: list[Array] = [
        np.ndarray(shape, dtype, block, start + offset)
        for (dtype, shape), offset in zip(arrays, offsets, strict=True)
    ]
    return block, made


class Arena:
    """The memory of the temporaries of all programs of a model, which never run at once. It grows to the largest."""

    def __init__(self) -> None:
        self.block: Array = np.empty(0, np.uint8)
        self.growth = 0
        """How often `block` became another array: whoever goes by its address asks whether that is still so."""

    def reserve(self, length: int) -> None:
        """Have at least `length` bytes. What was there is lost, and `block` is another array, where it has to grow."""
        if length > self.block.size:
            self.block = np.empty(0, np.uint8)  # let go before there is another: never hold both
            _, (self.block,) = side_by_side([(np.dtype(np.uint8), (length,))])
            self.growth += 1
