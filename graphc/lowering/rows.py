"""Array contraction: a value that each iteration of an outer loop computes for itself needs the memory of one iteration.

The row of a softmax that a second pass over the row reads again then lies in cache, and never goes to memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from ..graph.formula import Affine, affine
from ..graph.size import Size
from .cells import divides, step
from .ir import Kernel, Loop, Position, Statement, Store, loads, loops, map_places


def contracted(kernel: Kernel, own: Iterable[int]) -> tuple[Kernel, dict[int, Size]]:
    """The kernel with arrays shortened, and their lengths.

    own: the arrays that nothing else touches. Those that are shortened become private scratch memory.
    """
    extents = {variable: loop.extent for variable, loop in loops(kernel.body).items()}
    found = {array: shortened for array in own if (shortened := _shortened(array, kernel, extents)) is not None}

    def place(array: int, position: Position) -> tuple[int, Position]:
        if array not in found:
            return array, position
        dropped, shift, _ = found[array]
        return array, Position(_without(position.affine, dropped) + affine(shift * -1), position.strides)

    private = {**kernel.private, **dict.fromkeys(found, "scratch")}
    body = map_places(kernel.body, place) if found else kernel.body
    lengths = {array: length for array, (_, _, length) in found.items()}
    remarks = tuple(
        f"{kernel.arrays[a].name} is {length} values that stay in cache: each iteration reads only what it stored itself"
        for a, length in lengths.items()
    )
    return replace(kernel, body=body, private=private, remarks=kernel.remarks + remarks), lengths


def _without(form: Affine, dropped: frozenset[int]) -> Affine:
    return Affine(form.constant, tuple(t for t in form.terms if t[0] not in dropped))


def _shortened(array: int, kernel: Kernel, extents: Mapping[int, Size]) -> tuple[frozenset[int], Size, Size] | None:
    """(loop variables that its positions can do without, what they have in common, its length then), or None."""
    touched = list(_touched(kernel.body, array, ()))
    positions = [position for position, _ in touched]
    if not positions:
        return None
    constants = {p.affine.constant for p in positions}
    shift = constants.pop() if len(constants) == 1 else affine(0).constant
    dropped: frozenset[int] = frozenset()
    length: Size | None = None
    for around in zip(*(path for _, path in touched), strict=False):
        variable = around[0]
        if set(around) != {variable}:
            break
        strides = {p.affine.coefficient(variable) for p in positions}
        if strides == {affine(0).constant}:
            continue
        steps = {step(p, variable, extents, dropped, shift) for p in positions}
        if len(strides) > 1 or len(steps) > 1 or None in steps:
            break
        dropped |= {variable}
        length = steps.pop()
    if length is None:
        return None
    inside = {variable for variable in dropped if all(p.affine.coefficient(variable) == length for p in positions)}
    (last,) = inside
    whole = length * extents[last]
    for p in positions:  # nothing is left that reaches beyond one iteration
        left = [*(c for axis, c in p.affine.terms if axis not in dropped), *p.strides]
        constant = p.affine.constant - shift
        if any(divides(whole, c) for c in left) or constant != 0 and divides(whole, constant):
            return None
    return dropped, shift, length


def _touched(
    items: Iterable[Statement], array: int, path: tuple[int, ...]
) -> Iterator[tuple[Position, tuple[int, ...]]]:
    """Where an array is read and stored, with the variables of the loops around."""
    for item in items:
        if isinstance(item, Loop):
            yield from _touched(item.before, array, path)
            yield from _touched(item.body, array, (*path, item.variable))
            yield from _touched(item.after, array, path)
        else:
            yield from ((load.position, path) for load in loads(item) if load.array == array)
            if isinstance(item, Store) and item.array == array:
                yield item.position, path
