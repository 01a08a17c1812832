"""What a case must reach, as data, and whether a result reaches it."""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .results import Figures, Record, Result

OURS = "graphc"


@dataclass(frozen=True)
class Target:
    """A bound on one figure. `reached` gives the figure from a result, or None where it was not measured."""

    text: str
    reached: Callable[[Record, Result], float | None]
    bound: float
    at_least: bool
    show: Callable[[float], str]
    threads: int | None = None
    """The number of threads that it is stated for; None is any, and −1 any but one."""

    def applies(self, threads: int) -> bool:
        return self.threads in (None, threads) or (self.threads == -1 and threads > 1)

    def verdict(self, record: Record, result: Result) -> Verdict:
        value = self.reached(record, result)
        if value is None:
            return Verdict(self.text, "not measured", None)
        return Verdict(self.text, self.show(value), value >= self.bound if self.at_least else value <= self.bound)


@dataclass(frozen=True)
class Verdict:
    """A target, what was reached, and whether that suffices; None where it was not measured."""

    target: str
    reached: str
    met: bool | None


def duration(seconds: float) -> str:
    """A time with three digits and its unit."""
    for unit, scale in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= scale * 0.9995:
            return f"{seconds / scale:#.3g}".rstrip(".") + f" {unit}"
    return f"{seconds / 1e-9:.0f} ns"


def _times(value: float) -> str:
    return f"{value:.2f}×"


def _percent(value: float) -> str:
    return f"{100 * value:.0f} %"


def _figures(result: Result) -> Figures | None:
    return result.figures.get(OURS)


def faster(peer: str, factor: float, threads: int | None = None) -> Target:
    """The peer takes `factor` times as long."""
    def ratio(record: Record, result: Result) -> float | None:
        return result.figures[peer].ratio if peer in result.figures else None
    return Target(f"{factor:g}× as fast as {peer}", ratio, factor, True, _times, threads)


def not_slower(*peers: str) -> Target:
    """At least as fast as each of the peers that took part."""
    def ratio(record: Record, result: Result) -> float | None:
        found = [result.figures[p].ratio for p in peers if p in result.figures]
        return min((r for r in found if r is not None), default=None)
    return Target(f"not slower than the better of {' and '.join(peers)}", ratio, 1.0, True, _times)


def share(part: float, of: str, threads: int | None = None) -> Target:
    """A share of the workload's yardstick."""
    def reached(record: Record, result: Result) -> float | None:
        figures = _figures(result)
        return figures.share if figures else None
    return Target(f"{_percent(part)} of {of}", reached, part, True, _percent, threads)


def within(seconds: float) -> Target:
    """The median takes no longer."""
    def median(record: Record, result: Result) -> float | None:
        figures = _figures(result)
        return figures.median if figures else None
    return Target(f"within {duration(seconds)}", median, seconds, False, duration)


def no_more_than(peer: str, quantity: str) -> Target:
    """The median is at most the peer's."""
    def part(record: Record, result: Result) -> float | None:
        ours, theirs = _figures(result), result.figures.get(peer)
        return ours.median / theirs.median if ours and theirs else None
    return Target(f"at most {peer}'s {quantity}", part, 1.0, False, _times)


def at_most_times(case: str, factor: float) -> Target:
    """At most so many times as long as another case takes."""
    def part(record: Record, result: Result) -> float | None:
        ours, other = _figures(result), record.find(case, result.threads)
        base = _figures(other) if other else None
        return ours.median / base.median if ours and base else None
    return Target(f"at most {factor:g} times {case}", part, factor, False, _times)


def same_kernels(case: str) -> Target:
    """As many distinct kernels as another case has."""
    def more(record: Record, result: Result) -> float | None:
        ours, other = _figures(result), record.find(case, result.threads)
        base = _figures(other) if other else None
        if ours is None or base is None or "kernels" not in ours.extra:
            return None
        return ours.extra["kernels"] - base.extra["kernels"]
    return Target(f"as many kernels as {case}", more, 0, False, lambda n: f"{n:+.0f}" if n else "as many")
