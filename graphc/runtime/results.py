"""The arrays that a call hands out: they are the caller's, and their memory is used again once nobody holds it.

Fresh memory is dear: the system clears each page when it is first touched. So the blocks of the last calls are kept,
and one of them serves again when its count of references says that no array in it is left: a view, a memoryview or a
tensor made of an array holds the array's block too. What is handed out are always new arrays over the block, so a
caller may do with them as he likes. (A weak reference holds nothing.)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from sys import getrefcount
from typing import Any

import numpy as np

from .execute import Bound
from .memory import side_by_side

Array = np.ndarray[Any, Any]

NONE: Mapping[int, Array] = {}
MOST_BLOCKS = 3  # that take turns: of a loop that still holds its last results, and those before


@dataclass(frozen=True)
class Result:
    """An output for given sizes: the number of its buffer, and what the caller knows it by."""

    number: int
    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]


class Results:
    """Results that lie in one block, side by side by type; keeping one of them keeps the memory of all."""

    def __init__(self, results: Sequence[Result]):
        self.results = sorted(results, key=lambda r: r.dtype.str)
        self._numbers = {r.number for r in results}
        self._blocks: list[_Block] = []
        self._given: tuple[Bound | None, _Block | None] = None, None

    def give(self, bound: Bound, into: dict[str, Array], own: Mapping[int, Array] = NONE) -> None:
        """Bind the results to memory that nobody holds, and put arrays over it into a mapping, by name.

        own: the results, by buffer number, that are bound to arrays of the caller's; these go into the mapping.
        """
        if own:
            self._give_beside(bound, into, own)
            return
        to, block = self._given
        if to is not bound or block is None or getrefcount(block.memory) != block.alone:
            block = self._bound_to_free(bound)
        for name, view in block.views:
            into[name] = view()

    def _bound_to_free(self, bound: Bound) -> _Block:
        """A block that nobody holds, with the results bound to it."""
        for block in self._blocks:
            if getrefcount(block.memory) == block.alone:
                break
        else:
            block = self._another(bound)
        places = bound.places
        for number, place in block.places:
            places[number] = place
        self._given = bound, block
        return block

    def _give_beside(self, bound: Bound, into: dict[str, Array], own: Mapping[int, Array]) -> None:
        """The same where the caller has brought memory for some of the results."""
        if any(r.number not in own for r in self.results):
            self._given = None, None
            self.give(bound, into)
            for number in self._numbers & own.keys():
                bound.bind(number, own[number])
        self._given = None, None
        for result in self.results:
            if result.number in own:
                into[result.name] = own[result.number]

    def release(self) -> None:
        """Let go of all memory; what callers hold is theirs alone."""
        self._blocks.clear()
        self._given = None, None

    def _another(self, bound: Bound) -> _Block:
        if len(self._blocks) == MOST_BLOCKS:
            del self._blocks[0]  # held for long, and perhaps for good
        self._blocks.append(_Block(self.results, bound))
        return self._blocks[-1]


class _Block:
    __slots__ = ("alone", "memory", "places", "views")

    def __init__(self, results: Sequence[Result], bound: Bound):
        self.memory, arrays = side_by_side([(r.dtype, r.shape) for r in results])
        self.views = tuple((r.name, a.view) for r, a in zip(results, arrays, strict=True))
        self.places = tuple((r.number, bound.where(a)) for r, a in zip(results, arrays, strict=True))
        # counted as `give` counts, so that nothing needs to be known of what the interpreter itself holds meanwhile
        self.alone = getrefcount(self.memory)
