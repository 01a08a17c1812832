"""Kernels that may run over parts of their main loop, side by side.

A kernel is fills and registers that totals begin with, one main loop, and stores of what it totalled. Its parts are
independent if no iteration of the main loop touches a cell that another writes. Totals are the exception: each part has
a copy of its own that begins with what changes nothing, and the copies are combined.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ..graph.scalar import Scalar
from ..graph.size import Size, size
from .cells import apart, step
from .ir import (
    Accumulate,
    Arg,
    Assign,
    Kernel,
    Loop,
    Note,
    Position,
    Statement,
    Store,
    leaves,
    loads,
    loops,
    neutral,
    walk,
)


def divided(kernel: Kernel) -> Kernel:
    """The kernel with its main loop and its private arrays named; as it was where it must run as a whole."""
    found = [i for i, item in enumerate(kernel.body) if isinstance(item, Loop)]
    working = [i for i in found if not _fills(kernel.body[i])] or found
    if not found:
        return kernel
    if len(working) != 1:
        return _whole(kernel, "it has several loops")
    (at,) = working
    main = kernel.body[at]
    assert isinstance(main, Loop)
    private = _private([*kernel.body[:at], *main.before], main, [*main.after, *kernel.body[at + 1 :]], kernel)
    if isinstance(private, str):
        return _whole(kernel, private)
    copies = ", ".join(f"{kernel.arrays[array].name} by {reduce}" for array, reduce in private.items())
    remark = f"divisible: iterations of range({main.extent}) touch cells of their own"
    remark += f"; parts have copies of their totals, combined: {copies}" if copies else ""
    remarks = (*kernel.remarks, remark)
    every = {**kernel.private, **private}
    return replace(kernel, main=main.variable, private=every, slabs=_slabs(kernel, main, every), remarks=remarks)


def _slabs(kernel: Kernel, main: Loop, private: Mapping[int, str]) -> dict[int, Size]:
    """The arrays of which each iteration of the main loop has a slab of its own, the next one behind it: how long it is."""
    extents = {variable: loop.extent for variable, loop in loops(kernel.body).items()}
    steps: dict[int, set[Size | None]] = {}
    for item in walk(kernel.body):
        touched = [(load.array, load.position) for load in loads(item)]
        touched += [(item.array, item.position)] if isinstance(item, Store) else []
        for array, position in touched:
            steps.setdefault(array, set()).add(step(position, main.variable, extents, frozenset(), size(0)))
    found: dict[int, Size] = {}
    for array, (c, *others) in steps.items():
        # iterations may only share out the array between them: then no cell is beyond the slabs of all
        if c is not None and not others and array not in private and c * main.extent == kernel.nodes[array].type.numel:
            found[array] = c
    return found


def _whole(kernel: Kernel, why: str) -> Kernel:
    return replace(kernel, remarks=(*kernel.remarks, f"runs as a whole: {why}"))


def _fills(item: Statement) -> bool:
    """Does a loop nothing but store a constant?"""
    inside = [x for x in walk([item]) if not isinstance(x, (Loop, Note))]
    return all(isinstance(x, Store) and x.reduce == "assign" and x.expression.op == "const" for x in inside)


def _private(before: list[Statement], main: Loop, after: list[Statement], kernel: Kernel) -> dict[int, str] | str:
    """How the copies of each array are combined that parts cannot share; or why parts are not independent."""
    registers: dict[str, Scalar] = {}
    begun: dict[int, Scalar] = {}
    for item in walk(before):
        if isinstance(item, Assign):
            registers[item.local] = item.expression
        elif isinstance(item, Store) and item.reduce == "assign" and item.expression.op == "const":
            begun[item.array] = item.expression
        elif not isinstance(item, (Loop, Note)):
            return "something is computed before its main loop"
    totals = _totals(main, registers)
    if totals is None:
        return "an iteration needs what those before it found"
    private: dict[int, str] = {}
    for item in after:
        if isinstance(item, Store) and item.reduce == "assign" and item.expression.op == "local":
            if item.expression.value not in totals or item.array in private:
                return "something is computed after its main loop"
            private[item.array] = totals[item.expression.value]
        elif not isinstance(item, Note):
            return "something is computed after its main loop"
    positions: dict[int, list[Position]] = {}
    stores: dict[int, list[Store]] = {}
    read: set[int] = set()
    for item in walk(main.body):
        for load in loads(item):
            positions.setdefault(load.array, []).append(load.position)
            read.add(load.array)
        if isinstance(item, Store):
            positions.setdefault(item.array, []).append(item.position)
            stores.setdefault(item.array, []).append(item)
    if private.keys() & positions.keys():
        return "a total is written over what is read"
    extents = {variable: loop.extent for variable, loop in loops(kernel.body).items()}
    for array, found in stores.items():
        if kernel.private.get(array) == "scratch":
            continue
        if apart(positions[array], main.variable, extents) and array not in begun:
            continue
        (reduce, *others) = {store.reduce for store in found}
        if others or reduce == "assign" or array in read or any(store.lookups for store in found):
            return f"iterations meet in cells of {kernel.arrays[array].name}"
        if begun.get(array) is not neutral(reduce, kernel.arrays[array].dtype):
            return f"{kernel.arrays[array].name} does not begin with what changes nothing"
        private[array] = reduce
    return private if begun.keys() <= private.keys() else "an array is filled before its main loop"


def _totals(main: Loop, begun: dict[str, Scalar]) -> dict[str, str] | None:
    """The registers that the main loop accumulates over all its iterations; None where more than that passes on."""
    inside = list(walk(main.body))
    own = {item.local for item in inside if isinstance(item, Assign)}
    totals: dict[str, str] = {}
    for item in inside:
        if isinstance(item, Accumulate) and item.local not in own:
            start = begun.get(item.local)
            if (
                start is not neutral(item.reduce, item.expression.dtype)
                or totals.setdefault(item.local, item.reduce) != item.reduce
            ):
                return None
        elif isinstance(item, Arg) and not {item.best, item.place} <= own:
            return None
    read = {e.value for item in inside for e in leaves(item) if e.op == "local"}
    return None if read & begun.keys() else totals
