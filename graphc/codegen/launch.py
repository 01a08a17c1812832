"""What a kernel is sorted into for a GPU: launches, each with a barrier after it, and memory for values between them."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..graph.dtype import DType
from ..graph.size import Size, product
from ..lowering.ir import Array, Loop, Statement

BLOCKS = 1024
"""The most blocks of threads in a launch, and so the most parts that a sum is left in."""


@dataclass(frozen=True)
class Fold:
    """A register that the threads of a Grid accumulate, one part for each block in the array `parts`."""

    local: str
    reduce: str
    dtype: DType
    parts: int
    threads: Size


@dataclass
class Grid:
    """The iterations of `depth` nested loops, independent of one another."""

    loop: Loop
    depth: int
    folds: list[Fold] = field(default_factory=list)
    notes: list[Statement] = field(default_factory=list)
    first: list[Statement] = field(default_factory=list)  # registers that every thread begins with

    @property
    def threads(self) -> Size:
        """How many iterations there are."""
        return product(loop.extent for loop in self.loops)

    @property
    def loops(self) -> list[Loop]:
        """The loops that are taken as one, outermost first."""
        found = [self.loop]
        while len(found) < self.depth:
            found.append(next(item for item in found[-1].body if isinstance(item, Loop)))
        return found

    @property
    def statements(self) -> list[Statement]:
        return [*self.notes, *self.first, self.loop]


@dataclass
class One:
    """Statements for a single thread, after the registers of `folds` are put together."""

    folds: list[Fold] = field(default_factory=list)
    body: list[Statement] = field(default_factory=list)
    first: list[Statement] = field(default_factory=list)

    @property
    def statements(self) -> list[Statement]:
        return [*self.first, *self.body]


Launch = Grid | One


@dataclass
class Memory:
    """The arrays of a kernel, its own and then those made for values between launches, of these lengths."""

    arrays: list[Array]
    made: list[Size] = field(default_factory=list)

    def make(self, name: str, dtype: DType, length: Size) -> int:
        """A new array; its number."""
        self.made.append(length)
        self.arrays.append(Array(f"{name}_{len(self.made)}", dtype, True))
        return len(self.arrays) - 1
