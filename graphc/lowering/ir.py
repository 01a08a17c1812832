"""The Kernel IR: loops over index variables, loads, stores and accumulations, for no machine in particular.

A kernel's parameters are flat arrays and sizes. Expressions are the graph's scalar expressions with two more leaves:
`load` (an element of an array, at a flat position) and `local` (a value computed before in the same scope).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np

from ..graph import scalar as sc
from ..graph.dtype import DType, bool_
from ..graph.formula import Affine
from ..graph.node import Node
from ..graph.scalar import Scalar
from ..graph.size import Size

MOST_WORDS = 62
"""Parameters of a kernel, its range apart; the driver passes at most graphc.codegen.primitives.SCRATCH_WORDS in all."""


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
    """for variable in range(extent): body; `before` runs once before it, `after` once after it.

    step: the variable goes up by so much, as a loop over blocks does. within: the variable of a loop over blocks around
    this one, whose block it runs through; `extent` is still the length of all blocks.
    """

    variable: int
    extent: Size
    before: list[Statement] = field(default_factory=list)
    body: list[Statement] = field(default_factory=list)
    after: list[Statement] = field(default_factory=list)
    step: int | Size = 1
    within: int | None = None


Statement = Assign | Store | Accumulate | Arg | Note | Loop


@dataclass(frozen=True)
class Array:
    """A kernel's array parameter: its readable name, element type, and whether it is written."""

    name: str
    dtype: DType
    written: bool


@dataclass
class Kernel:
    """A kernel: arrays (and the nodes whose values they hold), then statements. `notes` say in words what it computes,
    `reasons` why each of these statements is in this kernel, and `remarks` what else was decided.

    main: the variable of the loop that may run over a part of its range; None where the kernel runs as a whole.
    private: the arrays that such parts cannot share, by number: how copies of them are combined ("sum", "prod", "max",
    "min"), or "scratch" for what nothing reads after the kernel.
    slabs: the arrays of which iteration v of that loop touches no cell outside [c·v, c·(v + 1)), by number: c.
    """

    name: str
    nodes: list[Node]
    arrays: list[Array]
    body: list[Statement]
    notes: list[str] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)
    remarks: tuple[str, ...] = ()
    main: int | None = None
    private: dict[int, str] = field(default_factory=dict)
    slabs: dict[int, Size] = field(default_factory=dict)


# -- looking ---------------------------------------------------------------------------------------------------------
def walk(items: Iterable[Statement]) -> Iterator[Statement]:
    """All statements, in the order in which they first run; a loop before what is in it."""
    for item in items:
        if isinstance(item, Loop):
            yield from walk(item.before)
            yield item
            yield from walk(item.body)
            yield from walk(item.after)
        else:
            yield item


def loops(items: Iterable[Statement]) -> dict[int, Loop]:
    """Every loop by its variable."""
    return {item.variable: item for item in walk(items) if isinstance(item, Loop)}


def expressions(item: Statement) -> Iterator[Scalar]:
    """The expressions of a statement itself, those of its loops' bodies left out."""
    if not isinstance(item, (Loop, Note)):
        yield item.expression
        if isinstance(item, Store):
            yield from item.lookups


def leaves(item: Statement) -> Iterable[Scalar]:
    """Every distinct expression inside those of a statement."""
    return sc.distinct(expressions(item))


def loads(item: Statement) -> Iterator[Load]:
    """The elements that a statement itself reads."""
    yield from (e.value for e in leaves(item) if e.op == "load")


def written(items: Iterable[Statement]) -> set[int]:
    """The arrays that statements write."""
    return {item.array for item in walk(items) if isinstance(item, Store)}


def sizes(items: Iterable[Statement]) -> set[Size]:
    """Every size that statements need, but 0 and 1."""
    found: set[Size] = set()

    def form(f: Affine) -> None:
        found.update((f.constant, *(coefficient for _, coefficient in f.terms)))

    for item in walk(items):
        if isinstance(item, Loop):
            found.add(item.extent)
        elif isinstance(item, (Arg, Store)):
            form(item.position if isinstance(item, Arg) else item.position.affine)
        for e in leaves(item):
            if e.op == "index":
                form(e.value)
            elif e.op == "size":
                found.add(e.value)
            elif e.op == "load":
                form(e.value.position.affine)
                found.update(e.value.position.strides)
        if isinstance(item, Store):
            found.update(item.position.strides)
    return {value for value in found if value.constant not in (0, 1)}


def neutral(reduce: str, dtype: DType) -> Scalar:
    """What changes nothing in a reduction."""
    if reduce in ("sum", "prod"):
        return sc.const(int(reduce == "prod"), dtype)
    if dtype is bool_:
        return sc.const(reduce == "min", dtype)
    if dtype.is_float:
        return sc.const(float("-inf" if reduce == "max" else "inf"), dtype)
    limits = np.iinfo(dtype.numpy)
    return sc.const(int(limits.min if reduce == "max" else limits.max), dtype)


# -- changing --------------------------------------------------------------------------------------------------------
def map_statements(items: Iterable[Statement], change: Callable[[Statement], Iterable[Statement]]) -> list[Statement]:
    """What `change` gives for each statement, in its place; a loop is changed after what is in it."""
    result: list[Statement] = []
    for item in items:
        if isinstance(item, Loop):
            parts = (map_statements(part, change) for part in (item.before, item.body, item.after))
            before, body, after = parts
            item = replace(item, before=before, body=body, after=after)
        result += change(item)
    return result


def map_expressions(item: Statement, change: Callable[[Scalar], Scalar]) -> Statement:
    """The statement with each of its expressions changed as a whole; a loop or a note as it is."""
    if isinstance(item, (Loop, Note)):
        return item
    if isinstance(item, Store):
        return replace(item, expression=change(item.expression), lookups=tuple(map(change, item.lookups)))
    return replace(item, expression=change(item.expression))


Place = tuple[int, Position]


def map_places(
    items: Iterable[Statement],
    place: Callable[[int, Position], Place | None],
    index: Callable[[Affine], Affine] = lambda form: form,
) -> list[Statement]:
    """The statements with every element of an array in another place, and every index replaced.

    A store to what has no place (None) is left out.
    """

    def visit(e: Scalar, args: tuple[Scalar, ...]) -> Scalar:
        value = e.value
        if e.op == "load":
            found = place(value.array, value.position)
            assert found is not None
            value = Load(*found)
        elif e.op == "index":
            value = index(value)
        return Scalar(e.op, args, e.dtype, value)

    def change(item: Statement) -> list[Statement]:
        if isinstance(item, Store):
            found = place(item.array, item.position)
            if found is None:
                return []
            item = replace(item, array=found[0], position=found[1])
        elif isinstance(item, Arg):
            item = replace(item, position=index(item.position))
        return [map_expressions(item, lambda e: sc.fold(e, visit))]

    return map_statements(items, change)
