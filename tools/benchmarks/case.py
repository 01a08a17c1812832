"""A case: a workload, how it is measured, and what must be reached."""
from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal

from .targets import Target
from .workload import Model, Workload


@dataclass(frozen=True)
class Speed:
    """The time of a call, all competitors in turn in one process, at each number of threads."""


@dataclass(frozen=True)
class FirstCall:
    """The time to the first result in a process of its own, each competitor alone.

    before: what ran earlier, in another process: nothing; another model (`other`), so that only the model is new; the
    same model, so that everything is in the competitor's cache on disk; or the model was saved, and is now imported.
    The clock starts when a competitor's modules are imported; after `same` and `saved`, before they are.
    """

    before: Literal["nothing", "other", "same", "saved"] = "nothing"
    other: Model | None = None

    @property
    def counts_imports(self) -> bool:
        return self.before in ("same", "saved")

    @property
    def ours_alone(self) -> bool:
        return self.before in ("other", "saved")


@dataclass(frozen=True)
class Memory:
    """The most memory that a process needs beyond what one with a single row of data needed, each competitor alone."""


@dataclass(frozen=True)
class Case:
    """One line of the report. `what` says what is computed; `flops` are its float operations, where they say a speed."""

    name: str
    what: str
    workload: Workload
    targets: tuple[Target, ...] = ()
    measure: Speed | FirstCall | Memory = Speed()
    flops: float | None = None

    @property
    def model(self) -> Model:
        """The workload of a case that is measured in a process of its own."""
        assert isinstance(self.workload, Model)
        return self.workload


def chosen(cases: Iterable[Case], patterns: Iterable[str]) -> list[Case]:
    """The cases that a pattern names: a name, the part of a name before a `/`, or a pattern with `*`.

    All of them without a pattern. Raises LookupError for a pattern that names none.
    """
    cases = list(cases)
    patterns = list(patterns)
    if not patterns:
        return cases

    def named(case: Case, pattern: str) -> bool:
        return fnmatchcase(case.name, pattern) or case.name.startswith(pattern + "/")

    for pattern in patterns:
        if not any(named(case, pattern) for case in cases):
            raise LookupError(f"there is no case {pattern!r}: tools/bench --list shows them")
    return [case for case in cases if any(named(case, pattern) for pattern in patterns)]
