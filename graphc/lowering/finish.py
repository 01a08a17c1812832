"""Finishing a kernel: stores that nobody needs go, arrays are numbered, and loops without a gap become one."""

from __future__ import annotations

from ..graph.formula import Affine
from ..graph.node import Node
from .cluster import Builder
from .ir import (
    Arg,
    Array,
    Kernel,
    Loop,
    Note,
    Place,
    Position,
    Statement,
    Store,
    leaves,
    map_places,
    map_statements,
    walk,
)


def finish(builder: Builder, name: str, names: dict[Node, str], needed: set[Node], same: dict[Node, Node]) -> Kernel:
    """The kernel as IR.

    needed: values that other kernels or the caller read; stores of others that stayed in registers are dropped.
    same: arrays that are written over others, new to old: the two are one parameter, which holds the new one in the end.
    """
    dropped = {builder.arrays[n] for n in builder.written if n not in needed and n not in builder.needs_memory}
    kept = [n for n, i in builder.arrays.items() if i not in dropped]
    over = {old: new for new, old in same.items()}
    order = list(dict.fromkeys(over.get(n, n) for n in kept))
    number = {builder.arrays[n]: order.index(over.get(n, n)) for n in kept}

    def renumbered(array: int, position: Position) -> Place | None:
        return (number[array], position) if array in number else None

    arrays = [Array(names[same.get(n, n)], n.dtype, n in builder.written) for n in order]
    body = collapse(map_places(builder.roots, renumbered))
    stored = {n for n in builder.arrays if builder.arrays[n] in number}
    remarks = tuple(
        f"{names[n]} is computed again where it is read: that costs {price} additions, and the storing of "
        f"{n.type.numel} values is saved"
        for n, price in builder.again.items()
        if n not in stored
    )
    remarks += tuple(
        f"{names[new]} takes the memory of {names[old]}, which is read here for the last time"
        for new, old in same.items()
        if old.op not in ("param", "state")
    )
    return Kernel(name, order, arrays, body, builder.notes, builder.reasons, remarks)


def collapse(items: list[Statement]) -> list[Statement]:
    """Two loops that run through memory without a gap become one."""

    def change(item: Statement) -> list[Statement]:
        if not isinstance(item, Loop):
            return [item]
        inner = [x for x in item.body if isinstance(x, Loop)]
        alone = len(inner) == 1 and all(isinstance(x, (Loop, Note)) for x in item.body)
        if not alone or inner[0].before or inner[0].after or not _contiguous(item, inner[0]):
            return [item]
        notes = [x for x in item.body if isinstance(x, Note)]
        body = [*notes, *_without(inner[0].body, item.variable)]
        return [Loop(inner[0].variable, item.extent * inner[0].extent, item.before, body, item.after)]

    return map_statements(items, change)


def _contiguous(outer: Loop, inner: Loop) -> bool:
    """Is a step of the outer loop, everywhere, as long as all steps of the inner one?"""
    forms = []
    for item in walk(inner.body):
        forms += [
            e.value.position.affine if e.op == "load" else e.value for e in leaves(item) if e.op in ("load", "index")
        ]
        if isinstance(item, Store):
            forms.append(item.position.affine)
        elif isinstance(item, Arg):
            forms.append(item.position)
    return all(f.coefficient(outer.variable) == f.coefficient(inner.variable) * inner.extent for f in forms)


def _without(items: list[Statement], variable: int) -> list[Statement]:
    """The statements with a loop variable left out of every position."""

    def form(f: Affine) -> Affine:
        return Affine(f.constant, tuple(t for t in f.terms if t[0] != variable))

    return map_places(items, lambda array, p: (array, Position(form(p.affine), p.strides)), form)
