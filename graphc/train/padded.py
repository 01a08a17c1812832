"""Batches of examples of different lengths, each padded to its longest, such as sentences."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import DataError

Array = np.ndarray[Any, Any]
POOL = 50
"""So many batches are sorted by length together: batches of like lengths, and still others in each epoch."""


class Padded:
    """Batches of `batch` examples of like lengths: little is padded, and the order is another in each epoch.

    examples: by input name, an array for each example, all of the same number of axes; each axis is padded to the longest
    of the batch. lengths: the name under which the true lengths go along, those of the first input's first axis.
    padding: by input name, what stands where there is nothing; 0 unless given.
    """

    def __init__(
        self,
        examples: Mapping[str, Sequence[Any]],
        batch: int,
        lengths: str | None = "lengths",
        padding: Mapping[str, float] | None = None,
    ):
        """DataError where there are no examples, or of one input more than of another, or one that is empty."""
        if batch < 1:
            raise DataError(f"batch is {batch}, it must be at least 1")
        self._examples = {n: [np.asarray(e) for e in values] for n, values in examples.items()}
        self._batch, self._padding = batch, dict(padding or {})
        counts = {n: len(values) for n, values in self._examples.items()}
        if not any(counts.values()):
            raise DataError("there are no examples")
        if len(set(counts.values())) > 1:
            raise DataError(f"different numbers of examples: {', '.join(f'{n} has {c}' for n, c in counts.items())}")
        first, values = next(iter(self._examples.items()))
        for name, arrays in self._examples.items():
            axes = sorted({a.ndim for a in arrays})
            if len(axes) > 1:
                raise DataError(f"the examples of {name!r} have {' or '.join(map(str, axes))} axes")
        if values[0].ndim < 1:
            raise DataError(f"the examples of {first!r} are numbers, not sequences", how="name a sequence first")
        self._lengths = np.array([len(a) for a in values])
        if not self._lengths.all():
            at = int(np.argmin(self._lengths))
            raise DataError(f"the example {at} of {first!r} is empty", how="leave empty sequences out")
        if lengths is not None:
            self._examples[lengths] = list(self._lengths)

    def __len__(self) -> int:
        return -(-len(self._lengths) // self._batch)

    def __iter__(self) -> Iterator[dict[str, Array]]:
        return self.epoch()

    def epoch(self, seed: int | None = None, number: int = 0) -> Iterator[dict[str, Array]]:
        """The batches of an epoch, in an order that (seed, number) alone decide; by length without a seed."""
        for chosen in self._order(seed, number):
            yield {n: _stacked([values[i] for i in chosen], self._padding.get(n, 0)) for n, values in self._examples.items()}

    def _order(self, seed: int | None, number: int) -> list[Array]:
        if seed is None:
            return self._cut(np.argsort(self._lengths, kind="stable"))
        rng = np.random.default_rng([seed, number])
        shuffled = rng.permutation(len(self._lengths))
        pool = POOL * self._batch
        pools = (shuffled[at : at + pool] for at in range(0, len(shuffled), pool))
        batches = [b for p in pools for b in self._cut(p[np.argsort(self._lengths[p], kind="stable")])]
        return [batches[i] for i in rng.permutation(len(batches))]

    def _cut(self, order: Array) -> list[Array]:
        return [order[at : at + self._batch] for at in range(0, len(order), self._batch)]


def _stacked(arrays: Sequence[Array], padding: float) -> Array:
    """Arrays as one, each padded at the ends of its axes."""
    shape = tuple(max(sizes) for sizes in zip(*(a.shape for a in arrays), strict=True))
    result = np.full((len(arrays), *shape), padding, np.result_type(*arrays))
    for row, array in enumerate(arrays):
        place: tuple[int | slice, ...] = (row, *(slice(0, n) for n in array.shape))
        result[place] = array
    return result
