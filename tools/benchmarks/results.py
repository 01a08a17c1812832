"""Figures as data: what a run of the benchmarks found."""
from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Figures:
    """One competitor's figures of one quantity: seconds, or bytes."""

    median: float
    low: float
    """The first quartile."""
    high: float
    """The third quartile."""
    ratio: float | None = None
    """This competitor : graphc, the median over the rounds of the ratio within a round."""
    share: float | None = None
    """The share that it reaches of the workload's yardstick, in the same way."""
    extra: dict[str, float] = field(default_factory=dict)
    left_out: float = 0.0
    """The part of the rounds in which the machine was disturbed, which do not count."""

    @classmethod
    def of(cls, values: Sequence[float], own: Sequence[float] | None = None,
           ideal: Sequence[float] | None = None) -> Figures:
        """The figures of one value a round, NaN where it does not count; `own` are graphc's, `ideal` the yardstick's, of
        the same rounds."""
        array = np.asarray(values)
        low, median, high = (float(q) for q in np.nanquantile(array, (0.25, 0.5, 0.75)))
        ratio = None if own is None else _median(array / np.asarray(own))
        share = None if ideal is None else _median(np.asarray(ideal) / array)
        return cls(median, low, high, ratio, share, left_out=float(np.isnan(array).mean()))


def _median(values: np.ndarray[Any, Any]) -> float | None:
    """The median of those that count; None if none does."""
    counted = values[~np.isnan(values)]
    return float(np.median(counted)) if counted.size else None


@dataclass(frozen=True)
class Result:
    """One case at one number of threads."""

    case: str
    threads: int
    figures: dict[str, Figures] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    """Why a competitor took no part."""
    error: str | None = None
    """Why there are no figures: the competitors disagree, or graphc failed."""


@dataclass(frozen=True)
class Record:
    """All results of one run, and where it was made."""

    machine: dict[str, str]
    versions: dict[str, str]
    missing: dict[str, str]
    """Why a competitor is absent from the whole run."""
    results: tuple[Result, ...]
    quick: bool = False

    def find(self, case: str, threads: int) -> Result | None:
        """The result of a case; with a number of threads that it was not measured at, None."""
        return next((r for r in self.results if r.case == case and r.threads == threads), None)


def to_json(value: Any) -> Any:
    """Results as what json writes."""
    return dataclasses.asdict(value)


def result_from(data: dict[str, Any]) -> Result:
    """A Result from `to_json`."""
    return Result(**{**data, "figures": {name: Figures(**f) for name, f in data["figures"].items()}})


def record_from(data: dict[str, Any]) -> Record:
    """A Record from `to_json`."""
    return Record(**{**data, "results": tuple(result_from(r) for r in data["results"])})
