"""Data sets: arrays by input name, or batches; brought to the types that a model declares, and cut into batches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sized
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import numpy as np

from ..errors import DataError, GraphcError, raise_all
from ..runtime.signature import Declared, Signature

Array = np.ndarray[Any, Any]
Batch = Mapping[str, Array]
Source = Mapping[str, Any] | Iterable[Mapping[str, Any]]


@dataclass(frozen=True)
class Dataset:
    """What a model learns from: `train`, and optionally `valid` (looked at after each epoch) and `test` (at the end).

    Each is a dict of arrays by input name, which is shuffled and cut into batches, or an iterable of such dicts, which
    are the batches, in their order; one with a method epoch(seed, number) gives those of each epoch. Names that are no
    input are left alone. `vocab` goes along with the trained model: a `gc.Vocabulary`, a list of tokens, or a dict of
    these by name.
    """

    train: Source
    valid: Source | None = None
    test: Source | None = None
    vocab: Any = None


class Batches:
    """A part of a data set, checked against a model: iterated in batches, shuffled by (seed, epoch) alone."""

    def __init__(
        self,
        source: Source,
        signature: Signature,
        batch_size: int,
        name: str = "train",
        wanted: Iterable[str] = ("loss",),
    ):
        """wanted: the outputs to be computed. DataError where an input that they need is missing or does not fit."""
        self.signature, self.batch_size, self.name = signature, batch_size, name
        self.needed = frozenset().union(*(signature.needs[n] for n in wanted))
        self._arrays: dict[str, Array] | None = None
        self._rows: dict[str, Array] = {}
        self._given: Iterable[Mapping[str, Any]] = ()
        if isinstance(source, Mapping):
            self._arrays = conform(source, signature, self.needed, name)
            self._rows = self._split_axis(self._arrays)
        elif isinstance(source, Iterable):
            # an iterator can be read but once, and every epoch reads it
            self._given = list(source) if isinstance(source, Iterator) else source
        else:
            raise DataError(
                f"the {name} data are {type(source).__name__}",
                how="give a dict of arrays, or an iterable of such dicts",
            )

    def _split_axis(self, arrays: Mapping[str, Array]) -> dict[str, Array]:
        """The arrays that are cut into batches: those whose first axis is that of the first input with a symbolic one."""
        declared = {d.name: d for d in self.signature.inputs if d.name in arrays}
        axes = {n: d.shape[0] for n, d in declared.items() if d.shape and d.shape[0].constant is None}
        if not axes:
            raise DataError(
                f"the {self.name} data cannot be cut into batches: no input has a symbolic first axis",
                how='declare one, such as x: gc.f32["B", 2], or give an iterable of batches',
            )
        rows = {n: arrays[n] for n, axis in axes.items() if axis == next(iter(axes.values()))}
        lengths = {n: len(a) for n, a in rows.items()}
        if len(set(lengths.values())) > 1:
            listed = ", ".join(f"{n} has {count}" for n, count in lengths.items())
            raise DataError(
                f"the {self.name} data have different numbers of rows: {listed}",
                how="every array has one row an example, in the same order",
            )
        if not next(iter(lengths.values())):
            raise DataError(f"the {self.name} data have no rows")
        return rows

    def __len__(self) -> int:
        """The number of batches; 0 where an iterable does not say."""
        if self._arrays is not None:
            return -(-self.rows // self.batch_size)
        return len(self._given) if isinstance(self._given, Sized) else 0

    @property
    def rows(self) -> int:
        """The number of rows of arrays; 0 of an iterable of batches."""
        return len(next(iter(self._rows.values()), ()))

    def epoch(self, seed: int | None = None, number: int = 0, start: int = 0) -> Iterator[tuple[dict[str, Any], int]]:
        """(batch, its rows), from batch `start` on; arrays in an order that (seed, number) alone decide, or as they are."""
        if self._arrays is None:
            yield from self._given_batches(seed, number, start)
            return
        count = self.rows
        order = None if seed is None else np.random.default_rng([seed, number]).permutation(count)
        for at in range(start * self.batch_size, count, self.batch_size):
            chosen = slice(at, at + self.batch_size) if order is None else order[at : at + self.batch_size]
            yield {**self._arrays, **{n: a[chosen] for n, a in self._rows.items()}}, min(self.batch_size, count - at)

    def _given_batches(self, seed: int | None, epoch: int, start: int) -> Iterator[tuple[dict[str, Any], int]]:
        empty = True
        ordered = getattr(self._given, "epoch", None)
        for number, given in enumerate(self._given if ordered is None else ordered(seed, epoch)):
            empty = False
            if number < start:
                continue
            if not isinstance(given, Mapping):
                raise DataError(
                    f"batch {number} of the {self.name} data is {type(given).__name__}",
                    how="a batch is a dict of arrays by input name",
                )
            batch = conform(given, self.signature, self.needed, f"{self.name}, batch {number}")
            declared = {d.name: d for d in self.signature.inputs}
            counted = (n for n in batch if declared[n].shape and declared[n].shape[0].constant is None)
            yield batch, next((len(batch[n]) for n in counted), 1)
        if empty:
            raise DataError(f"the {self.name} data have no batches")


def conform(arrays: Mapping[str, Any], signature: Signature, needed: Iterable[str], name: str) -> dict[str, Array]:
    """The arrays that are inputs of a model, in the declared types. DataError, with all that is wrong, where they do not fit."""
    errors: list[GraphcError] = []
    result: dict[str, Array] = {}
    for missing in [d for d in signature.inputs if d.name in set(needed) and d.name not in arrays]:
        near = get_close_matches(missing.name, [n for n in arrays if n not in {d.name for d in signature.inputs}], 1)
        errors.append(
            DataError(
                f"the {name} data have no {missing.name!r}, which the model needs: {missing}",
                how=f"rename {near[0]!r}" if near else f"they have: {', '.join(arrays) or 'nothing'}",
            )
        )
    for declared in signature.inputs:
        if declared.name in arrays:
            try:
                result[declared.name] = as_declared(arrays[declared.name], declared, name)
            except DataError as error:
                errors.append(error)
    raise_all(errors)
    return result


def as_declared(value: Any, declared: Declared, name: str) -> Array:
    """An array in the declared type and of the declared shape. Rounding a float to a narrower one is no loss; the rest is."""
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise DataError(f"the {name} data: {declared.name!r} is no array: {error}") from error
    fixed = [e.constant for e in declared.shape]
    if array.ndim != len(fixed) or any(c is not None and c != n for c, n in zip(fixed, array.shape, strict=True)):
        raise DataError(
            f"the {name} data: {declared.name!r} has the shape {array.shape}, but {declared} is declared",
            how="the sizes of all axes but the symbolic ones must be equal",
        )
    target = declared.dtype.numpy
    if array.dtype == target:
        return np.asarray(array, order="C")
    if array.dtype.kind not in "fiub":
        raise DataError(
            f"the {name} data: {declared.name!r} has the type {array.dtype}, but {declared} is declared",
            how="give numbers",
        )
    with np.errstate(all="ignore"):
        cast = array.astype(target)
        lost = _lost(array, cast)
    if lost.any():
        at = tuple(map(int, np.argwhere(lost)[0]))
        place = f"{declared.name!r}{list(at) if at else ''}"
        raise DataError(
            f"the {name} data: {place} is {array[at]}, which {declared.dtype.name} cannot hold",
            why=f"{declared} is declared, the data are {array.dtype}",
            how="change the data, or the input's declared type",
        )
    return np.asarray(cast, order="C")


def _lost(array: Array, cast: Array) -> Array:
    """Where a cast array is not the original: for floats only where a finite number became infinite."""
    if array.dtype.kind == "f" and cast.dtype.kind == "f":
        return np.isinf(cast) & ~np.isinf(array)
    lost = cast.astype(array.dtype) != array
    if cast.dtype.kind == "i":  # cast there and back, 2⁶³ may come out as itself
        beyond = (
            ~(np.abs(array) < 2.0 ** (8 * cast.dtype.itemsize - 1))
            if array.dtype.kind == "f"
            else (array < 0) != (cast < 0)
        )
        lost |= beyond
    return lost
