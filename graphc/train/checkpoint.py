"""Checkpoints: one safetensors file that holds a training at some point, replaced atomically.

    param:NAME       the parameters
    state:NAME       the model's states, the optimiser's memory among them
    history:COLUMN   a number an epoch: train/loss, valid/accuracy, …, seconds
    metadata         JSON: the position, and the settings that the training began with

The order of the data follows from the seed and the epoch alone, so no random state needs to be stored.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ArtifactError
from ..runtime import variables
from ..runtime.model import CompiledModel

FORMAT_VERSION = 1
Array = np.ndarray[Any, Any]


@dataclass
class Average:
    """The mean of named numbers, weighted by rows."""

    sums: dict[str, float] = field(default_factory=dict)
    rows: int = 0

    def add(self, values: Mapping[str, float], rows: int) -> None:
        """Count the numbers of a batch."""
        self.rows += rows
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, 0.0) + rows * value

    @property
    def means(self) -> dict[str, float]:
        """The means so far."""
        return {name: value / self.rows for name, value in self.sums.items()}


@dataclass(frozen=True)
class Epoch:
    """What an epoch came to: the means over the training data while it learned, and over the validation data after it."""

    train: Mapping[str, float]
    valid: Mapping[str, float]
    seconds: float


@dataclass
class Checkpoint:
    """A training at some point: epochs that are done, batches done in the next one and their averages, the history."""

    arrays: dict[str, Array]
    settings: Mapping[str, Any]
    history: list[Epoch]
    batch: int = 0
    average: Average = field(default_factory=Average)

    def save(self, path: Path) -> None:
        """Write the file, whole or not at all, and the folder around it where there is none."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ArtifactError(
                f"the folder {path.parent} cannot be made: {error.strerror or error}", how="choose another with -o"
            ) from error
        metadata = {
            "format_version": FORMAT_VERSION,
            "settings": dict(self.settings),
            "batch": self.batch,
            "sums": self.average.sums,
            "rows": self.average.rows,
        }
        variables.save(path, {**self.arrays, **_columns(self.history)}, {"graphc": json.dumps(metadata)})

    @classmethod
    def of(
        cls, model: CompiledModel, settings: Mapping[str, Any], history: list[Epoch], batch: int, average: Average
    ) -> Checkpoint:
        """A model as it is now."""
        return cls(
            {
                **{f"param:{n}": a for n, a in model.params.items()},
                **{f"state:{n}": a for n, a in model.states.items()},
            },
            settings,
            history,
            batch,
            average,
        )

    @classmethod
    def load(cls, path: Path) -> Checkpoint:
        """A checkpoint from its file. ArtifactError where there is none or it cannot be read."""
        if not path.exists():
            raise ArtifactError(
                f"there is no checkpoint {path} to resume from",
                how="train without --resume first; it writes one each epoch",
            )
        arrays, metadata = variables.load(path)
        try:
            data = json.loads(metadata["graphc"])
            if data["format_version"] != FORMAT_VERSION:
                raise ArtifactError(
                    f"the checkpoint {path} has the format {data['format_version']}",
                    why=f"this graphc reads {FORMAT_VERSION}",
                    how="train again without --resume",
                )
            own = {n: a for n, a in arrays.items() if not n.startswith("history:")}
            history = _epochs({n.removeprefix("history:"): a for n, a in arrays.items() if n not in own})
            return cls(own, data["settings"], history, data["batch"], Average(data["sums"], data["rows"]))
        except (KeyError, ValueError, TypeError) as error:
            raise ArtifactError(
                f"the checkpoint {path} is none that graphc wrote: {error}", how="train again without --resume"
            ) from error

    def restore(self, model: CompiledModel, path: Path) -> None:
        """Put its parameters and states into a model: all of them, or none and an error that lists what does not fit."""
        carried = {f"state:{n}" for n in model.carried}  # their sizes are those of the data, and the first call's
        now = self.of(model, {}, [], 0, Average()).arrays
        fixed, stored = ({n: a for n, a in arrays.items() if n not in carried} for arrays in (now, self.arrays))
        variables.assign(fixed, stored, path)
        model.reset(model.carried)
        model.set_states({n.removeprefix("state:"): self.arrays[n] for n in carried if n in self.arrays})


def _columns(history: Sequence[Epoch]) -> dict[str, Array]:
    """A history as arrays of a number an epoch; NaN where an epoch has none."""
    rows = [
        {
            **{f"train/{n}": v for n, v in e.train.items()},
            **{f"valid/{n}": v for n, v in e.valid.items()},
            "seconds": e.seconds,
        }
        for e in history
    ]
    names = dict.fromkeys(n for row in rows for n in row)
    return {f"history:{n}": np.array([row.get(n, np.nan) for row in rows], np.float64) for n in names}


def _epochs(columns: Mapping[str, Array]) -> list[Epoch]:
    def part(prefix: str, at: int) -> dict[str, float]:
        return {
            n.removeprefix(prefix): float(a[at])
            for n, a in columns.items()
            if n.startswith(prefix) and not np.isnan(a[at])
        }

    count = len(columns.get("seconds", ()))
    return [Epoch(part("train/", i), part("valid/", i), float(columns["seconds"][i])) for i in range(count)]
