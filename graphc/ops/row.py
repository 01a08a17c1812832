"""What a row of the table is: an operation stated once, from which everything else follows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..errors import SourceLine, TraceError
from ..graph.dtype import DType
from ..graph.formula import Formula
from ..graph.graph import Guard
from ..graph.node import Node, TensorType
from ..graph.size import Size, SizeLike, equal, size


@dataclass
class Fit:
    """Checks that sizes fit while types are inferred; what only the call can decide becomes a guard."""

    guards: list[Guard] = field(default_factory=list)
    source: SourceLine | None = None

    def same(self, a: Size, b: Size, message: str, how: str | None = None) -> Size:
        """The common size of two axes; TraceError with `message` if they can never be equal."""
        verdict = equal(a, b)
        if verdict is False:
            raise TraceError(message, how=how)
        if verdict is None:
            self.guards.append(Guard(a, b, message, self.source))
        return a if a.constant is not None else b

    def at_least(self, a: Size, b: SizeLike, message: str, how: str | None = None) -> None:
        """a ≥ b, or TraceError; a guard where only the call can decide."""
        difference = (a - b).constant
        if difference is None:
            self.guards.append(Guard(a, size(b), message, self.source, ">="))
        elif difference < 0:
            raise TraceError(message, how=how)


@dataclass(frozen=True)
class Sample:
    """Operands and attributes to test a row with: shapes, the range of the values, and the attributes."""

    shapes: tuple[tuple[int, ...], ...]
    ranges: tuple[tuple[float, float], ...]
    attrs: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Row:
    """An operation.

    oracle: the operation as NumPy or SciPy has it, for tests: independent of the mathematics stated here.
    samples: what to test it on. latex: its printed form, `{0}`, `{1}` standing for the operands.
    vjp: a derivative by hand, vjp(node, operand's position, cotangent) -> node; only where the rule for formulas
    does not apply, with the reason beside it.
    """

    name: str
    latex: str = ""
    oracle: Callable[..., np.ndarray] | None = None
    samples: tuple[Sample, ...] = ()
    differentiable: bool = True
    vjp: Callable[[Node, int, Node], Node] | None = None

    def infer(self, types: Sequence[TensorType], attrs: Mapping[str, Any], fit: Fit) -> TensorType:
        """The result's type; TraceError where the operands do not fit."""
        raise NotImplementedError(self.name)

    def formula(self, node: Node) -> Formula | None:
        """What the node computes, in index form; None for leaves and primitives."""
        return None


def check_count(name: str, types: Sequence[TensorType], count: int) -> None:
    if len(types) != count:
        raise TraceError(f"{name} takes {count} operands, not {len(types)}")


def check_axis(name: str, axis: int, rank: int) -> None:
    if not 0 <= axis < rank:
        raise TraceError(f"{name}: axis {axis} is out of range for an array of {rank} axes")


def same_dtype(name: str, types: Sequence[TensorType]) -> DType:
    dtypes = {t.dtype for t in types}
    if len(dtypes) != 1:
        raise TraceError(
            f"{name}: the operands have the types {', '.join(str(t.dtype) for t in types)}",
            how="convert one of them with gc.cast",
        )
    return types[0].dtype


def broadcast(name: str, shapes: Sequence[tuple[Size, ...]], fit: Fit) -> tuple[Size, ...]:
    """The common shape of operands: aligned at the last axis, only a literal 1 stretches."""
    rank = max((len(s) for s in shapes), default=0)
    result: list[Size] = []
    for d in range(rank):
        extents = [s[d - rank + len(s)] for s in shapes if d - rank + len(s) >= 0]
        wide = [e for e in extents if e != 1]
        common = wide[0] if wide else extents[0]
        for extent in wide[1:]:
            if extent == common:  # the message is long, and wanted only where they differ
                continue
            printed = " and ".join(f"({', '.join(map(str, s))})" for s in shapes)
            common = fit.same(
                common,
                extent,
                f"{name}: the shapes {printed} do not broadcast: axis {d - rank} is {common} in one and {extent} in another",
                how=f"make both {common} or {extent}, or give one of them the literal size 1 there",
            )
        result.append(common)
    return tuple(result)
