"""A long text cut into batches that go on where the one before them ended, for truncated backpropagation through time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ..errors import DataError

Array = np.ndarray[Any, Any]


class Streams:
    """Batches (batch, steps) of a sequence: row b of each goes on where row b of the one before ended.

    The sequence is cut into `batch` streams of equal length that are read side by side; each is predicted from itself,
    one step ahead: `targets` is `inputs` shifted by one. What a model carries from batch to batch then belongs to the
    same row. Batches are all full: fewer than batch·steps numbers at the end of the sequence are left out.
    """

    def __init__(self, numbers: Any, batch: int, steps: int, inputs: str = "x", targets: str = "y"):
        """numbers: (N,). inputs, targets: the names of the model's inputs. DataError where there is no full batch."""
        sequence = np.asarray(numbers)
        for name, value in (("batch", batch), ("steps", steps)):
            if value < 1:
                raise DataError(f"{name} is {value}, it must be at least 1")
        if sequence.ndim != 1:
            raise DataError(f"a sequence is an array of one axis, not of the shape {sequence.shape}")
        self._count = (len(sequence) - 1) // (batch * steps)
        if self._count < 1:
            raise DataError(
                f"a sequence of {len(sequence)} has no full batch of {batch} × {steps} and the number after it",
                how="give a longer one, or smaller batches or fewer steps",
            )
        length = self._count * steps
        self._names, self._steps = (inputs, targets), steps
        # each stream has one number more, the target of its last step: it is the first of the next stream
        self._rows = np.stack([sequence[b * length : (b + 1) * length + 1] for b in range(batch)])

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[dict[str, Array]]:
        x, y = self._names
        for at in range(0, self._count * self._steps, self._steps):
            part = self._rows[:, at : at + self._steps + 1]
            yield {x: part[:, :-1], y: part[:, 1:]}


def read_text(path: str, encoding: str = "utf-8") -> str:
    """The text of a file. DataError where it cannot be read."""
    try:
        with open(path, encoding=encoding) as file:
            return file.read()
    except OSError as error:
        raise DataError(f"the text {path} cannot be read: {error.strerror}", how="give another file") from error
    except UnicodeDecodeError as error:
        raise DataError(f"the text {path} is not {encoding}: {error}", how="give its encoding, or convert it") from error
