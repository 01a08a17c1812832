"""What verification found: standings, and their text."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

PROVED, EXACT, UNPROVED, FAILED = "PROVED", "EXACT", "UNPROVED", "FAILED"
ORDER = (FAILED, UNPROVED, EXACT, PROVED)
MEANING = {
    PROVED: "a symbolic identity, for all sizes",
    EXACT: "agrees with 50-digit arithmetic at random points",
    UNPROVED: "neither shown nor refuted",
    FAILED: "disagrees",
}


@dataclass(frozen=True)
class Finding:
    """One thing that was checked. kind: operation, rewrite or gradient. detail: the assumption, or what disagrees."""

    kind: str
    subject: str
    standing: str
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.standing:8}  {self.kind:9}  {self.subject}{f'   {self.detail}' if self.detail else ''}"


@dataclass(frozen=True)
class Certificate:
    """All findings of a model."""

    model: str
    findings: tuple[Finding, ...]

    @property
    def passed(self) -> bool:
        """Nothing disagrees."""
        return all(f.standing != FAILED for f in self.findings)

    @property
    def strict(self) -> bool:
        """Nothing disagrees, and everything is proved or exact."""
        return not self.open

    @property
    def open(self) -> tuple[Finding, ...]:
        """What is neither proved nor exact."""
        return tuple(f for f in self.findings if f.standing not in (PROVED, EXACT))

    def summary(self) -> str:
        """How many findings of each standing."""
        return ", ".join(
            f"{self.count(s)} {s}" for s in (PROVED, EXACT, UNPROVED, FAILED) if self.count(s) or s != FAILED
        )

    def count(self, standing: str) -> int:
        return sum(f.standing == standing for f in self.findings)

    def __str__(self) -> str:
        lines = [f"{self.model}"]
        lines += [f"  {f}" for f in sorted(self.findings, key=lambda f: (f.kind, ORDER.index(f.standing), f.subject))]
        legend = "; ".join(f"{s}: {text}" for s, text in MEANING.items() if self.count(s))
        return "\n".join([*lines, f"  {self.summary()}", *([f"  {legend}"] if legend else [])])

    def to_json(self) -> dict[str, Any]:
        return {"model": self.model, "passed": self.passed, "findings": [asdict(f) for f in self.findings]}

    @staticmethod
    def from_json(data: dict[str, Any]) -> Certificate:
        return Certificate(data["model"], tuple(Finding(**f) for f in data["findings"]))


def merge(model: str, parts: Iterable[Certificate]) -> Certificate:
    """One certificate of several, equal findings once."""
    found: dict[Finding, None] = {f: None for part in parts for f in part.findings}
    return Certificate(model, tuple(found))
