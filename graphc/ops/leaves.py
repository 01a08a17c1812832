"""Rows without mathematics: inputs, variables, constants, sizes as numbers, and gradients not yet expanded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import TraceError
from ..graph.node import TensorType
from .row import Fit, Row, check_count


@dataclass(frozen=True, kw_only=True)
class Leaf(Row):
    """A value that comes from outside: its type is given when the node is made."""

    def infer(self, types: Sequence[TensorType], attrs: Mapping[str, Any], fit: Fit) -> TensorType:
        check_count(self.name, types, 0)
        return attrs["type"]


@dataclass(frozen=True, kw_only=True)
class Grad(Row):
    """∂(first operand)/∂(second operand), expanded by the pipeline; the first is a scalar."""

    def infer(self, types: Sequence[TensorType], attrs: Mapping[str, Any], fit: Fit) -> TensorType:
        check_count(self.name, types, 2)
        y, x = types
        if y.rank:
            raise TraceError(
                f"a gradient is of a scalar, but this value has the shape {y}",
                how="reduce it first, for example with gc.sum or gc.mean",
            )
        for kind, what in ((y, "of"), (x, "with respect to")):
            if not kind.dtype.is_float:
                raise TraceError(f"a gradient {what} {kind}: only floating-point values have one")
        return x


ROWS: dict[str, Row] = {
    row.name: row
    for row in (
        Leaf(name="input", latex="{name}"),
        Leaf(name="param", latex="{name}"),
        Leaf(name="state", latex="{name}"),
        Leaf(name="const", latex="{value}"),
        # is the call one that trains? Known when a program is made
        Leaf(name="training", latex="{name}"),
        # a size as a number, such as the B in a mean over the batch
        Leaf(name="size", latex="{value}"),
        Grad(name="grad", latex="\\nabla"),
    )
}
LEAVES = ("input", "param", "state", "const", "training", "size")
