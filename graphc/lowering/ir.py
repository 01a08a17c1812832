"""The Kernel IR: loops over index variables, loads, stores and accumulations, for no machine in particular.

A kernel's parameters are flat arrays and sizes. Expressions are the graph's scalar expressions with two more leaves:
`load` (an element of an array, at a flat position) and `local` (a value computed before in the same scope).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ..graph.dtype import DType
from ..graph.formula import Affine
from ..graph.node import Node
from ..graph.scalar import Scalar
from ..graph.size import Size


@dataclass(frozen=True)
class Position:
    """A flat position in an array: an affine form of loop variables plus, for each look-up, index times stride.

    The look-ups' values are the arguments of the `load`, or stand beside the store.
    """

    affine: Affine
    strides: tuple[Size, ...] = ()


@dataclass(frozen=True)
class Load:
    """What a `load` leaf reads: the array's number among the kernel's arrays, and where."""

    array: int
    position: Position


@dataclass
class Assign:
    """local = expression"""

    local: str
    expression: Scalar


@dataclass
class Store:
    """array[position] = expression, or ⊕= where `reduce` is not "assign"."""

    array: int
    position: Position
    expression: Scalar
    reduce: str = "assign"
    lookups: tuple[Scalar, ...] = ()


@dataclass
class Accumulate:
    """local ⊕= expression, in an order of its own choosing for sums (so that it may be vectorised)."""

    local: str
    expression: Scalar
    reduce: str


@dataclass
class Arg:
    """The first maximum: if expression beats `best`, then best, place = expression, position."""

    best: str
    place: str
    expression: Scalar
    position: Affine


@dataclass
class Note:
    """A comment: what the statements after it compute, and the model's line."""

    text: str


@dataclass
class Loop:
    """for variable in range(extent): body; `before` runs once before it, `after` once after it."""

    variable: int
    extent: Size
    before: list[Statement] = field(default_factory=list)
    body: list[Statement] = field(default_factory=list)
    after: list[Statement] = field(default_factory=list)


Statement = Assign | Store | Accumulate | Arg | Note | Loop


@dataclass(frozen=True)
class Array:
    """A kernel's array parameter: its readable name, element type, and whether it is written."""

    name: str
    dtype: DType
    written: bool


@dataclass
class Kernel:
    """A kernel: arrays (and the nodes whose values they hold), then statements. `notes` say in words what it computes."""

    name: str
    nodes: list[Node]
    arrays: list[Array]
    body: list[Statement]
    notes: list[str] = field(default_factory=list)
