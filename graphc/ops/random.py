"""Random bits: a function of a key and a counter, so that a draw is the same wherever, and in whatever order, it is made.

    out[p] = bits_key(position of p in row-major order)

The function is Threefry-2x32 with 20 rounds (J. Salmon, M. Moraes, R. Dror, D. Shaw: "Parallel random numbers: as easy
as 1, 2, 3", SC 2011): a block cipher without tables or multiplications, of two words of 32 bits under a key of two. An
array of random numbers is the cipher of the positions of its elements; another draw is another key.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import TraceError
from ..graph import scalar as sc
from ..graph.dtype import i64
from ..graph.formula import Clause, Formula, Read, affine, identity
from ..graph.node import Node, TensorType
from ..graph.scalar import Scalar
from ..graph.size import product, size
from .row import Fit, Row, Sample, check_count

COUNTER = "random/counter"
"""The state that keys are made from: it begins at a number that the seed gives, and each call that draws adds one."""

ROUNDS = 20
ROTATIONS = (13, 15, 26, 6, 17, 29, 16, 24)
PARITY = 0x1BD11BDA  # keeps a key of zeros from being a weak one


def random_bits(key: Any, counter: Any) -> Any:
    """64 random bits for each key and counter, int64 arrays that broadcast: their low words are the cipher's first."""
    keys, counters = np.broadcast_arrays(np.asarray(key, np.int64), np.asarray(counter, np.int64))
    with np.errstate(over="ignore"):  # words wrap
        return _cipher(_words(keys), _words(counters))


def _cipher(k: tuple[np.ndarray, np.ndarray], words: tuple[np.ndarray, np.ndarray]) -> Any:
    schedule = (*k, k[0] ^ k[1] ^ np.uint32(PARITY))
    x, y = words[0] + schedule[0], words[1] + schedule[1]
    for number in range(ROUNDS):
        turn = ROTATIONS[number % 8]
        x = x + y
        y = ((y << np.uint32(turn)) | (y >> np.uint32(32 - turn))) ^ x
        if number % 4 == 3:
            block = number // 4 + 1
            x = x + schedule[block % 3]
            y = y + schedule[(block + 1) % 3] + np.uint32(block)
    packed = x.astype(np.uint64) | (y.astype(np.uint64) << np.uint64(32))
    return packed.view(np.int64)[()]


def _words(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The low and the high 32 bits."""
    bits = np.ascontiguousarray(values).view(np.uint64).reshape(values.shape)
    return (bits & np.uint64(0xFFFFFFFF)).astype(np.uint32), (bits >> np.uint64(32)).astype(np.uint32)


# -- the row -----------------------------------------------------------------------------------------------------------
@dataclass(frozen=True, kw_only=True)
class Random(Row):
    """64 random bits for each element of the attribute `shape`, from a key: an i64 scalar. It has no derivative."""

    def infer(self, types: Sequence[TensorType], attrs: Mapping[str, Any], fit: Fit) -> TensorType:
        check_count(self.name, types, 1)
        if types[0] != TensorType(i64, ()):
            raise TraceError(f"{self.name}: a key is an i64 scalar, not {types[0]}")
        for extent in attrs["shape"]:
            shown = f"({', '.join(map(str, attrs['shape']))})"
            fit.at_least(extent, 0, f"random numbers of the shape {shown}: the size {extent} is below 0")
        return TensorType(i64, attrs["shape"])

    def formula(self, node: Node) -> Formula:
        shape = node.shape
        place = affine(0, {d: product(shape[d + 1 :]) for d in range(len(shape))})
        body = Scalar("random_bits", (sc.arg(0, i64), Scalar("index", (), i64, place)), i64)
        return Formula((Clause(shape, (Read(0, ()),), body, identity(len(shape))),))


def _draw(key: Any, shape: tuple[Any, ...]) -> Any:
    sizes = tuple(map(int, shape))
    return random_bits(key, np.arange(int(np.prod(sizes)), dtype=np.int64).reshape(sizes))


ROWS: dict[str, Row] = {
    "random": Random(
        name="random",
        latex="\\mathrm{{bits}}_{{{0}}}",
        oracle=_draw,
        samples=(
            Sample(((),), ((-1000, 1000),), {"shape": (size(3), size(4))}),
            Sample(((),), ((-1000, 1000),), {"shape": ()}),
        ),
        differentiable=False,
    )
}
