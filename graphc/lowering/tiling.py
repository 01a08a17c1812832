"""Loop tiling: what is read along one axis and stored along another goes in tiles of both.

In a transposed copy one of the two arrays is walked across its rows: every element lies in another cache line. Where the
rows are a power of two apart these lie in the same few places of the nearest cache, and a line is gone before its next
element is asked for. In a tile all elements of a line are taken while it is there. (Rows of other lengths stay there by
themselves, and long rows in order are what the processor fetches ahead best.)
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from ..graph.formula import Affine
from ..graph.size import size
from .cells import divides
from .ir import Assign, Kernel, Loop, Note, Statement, Store, loads, loops

OUTER, INNER = 64, 16
"""Iterations of the outer and of the inner loop in a tile: the inner one is what a cache line has of float32."""
CONFLICT = 512
"""Bytes: rows a multiple of it apart fall on an eighth of the nearest cache, or less."""
SMALL = 1 << 13
"""Elements that stay in cache, whatever the order."""


def tiled(kernel: Kernel) -> Kernel:
    """The kernel with its innermost loop, and the one along which it strides, in tiles; as it was if nothing strides."""
    nest = _nest(kernel.body)
    if len(nest) < 2 or kernel.main != nest[0].variable:  # the outermost loop's iterations are independent, or none
        return kernel
    inner = nest[-1]
    strided = [form for form, bytes_ in _places(kernel, inner.body) if _conflicts(form, inner.variable, bytes_)]
    crossed = [loop for loop in nest[:-1] if any(form.coefficient(loop.variable) == 1 for form in strided)]
    if not crossed or _is_small(nest) or not _independent(inner.body):
        return kernel
    outer = crossed[-1]
    if any((loop.extent.constant or INNER) < INNER for loop in (outer, inner)):
        return kernel
    fresh = max(loops(kernel.body)) + 1
    block = {outer.variable: fresh, inner.variable: fresh + 1}
    body: list[Statement] = [replace(inner, within=block[inner.variable])]
    body = [replace(outer, body=body, within=block[outer.variable])]
    body = [Loop(block[inner.variable], inner.extent, body=body, step=INNER)]
    for loop in reversed(nest[:-1]):
        if loop is outer:
            body = [Loop(block[outer.variable], outer.extent, body=body, step=OUTER)]
        else:
            body = [replace(loop, body=body)]
    head = [x for x in kernel.body if isinstance(x, Note)]
    remark = f"goes in tiles of {OUTER} by {INNER}: what it reads along one axis it stores along another"
    main = block.get(kernel.main, kernel.main)
    return replace(kernel, body=head + body, main=main, remarks=(*kernel.remarks, remark))


def _nest(items: list[Statement]) -> list[Loop]:
    """The loops of a perfect nest, from the outermost; none where there is more than one loop in one."""
    nest: list[Loop] = []
    while True:
        inside = [x for x in items if isinstance(x, Loop)]
        if not inside:
            return nest
        loop = inside[0]
        if len(inside) > 1 or not all(x is loop or isinstance(x, Note) for x in items):
            return []
        if loop.before or loop.after or loop.step != 1 or loop.within is not None:
            return []
        nest.append(loop)
        items = loop.body


def _places(kernel: Kernel, items: list[Statement]) -> Iterator[tuple[Affine, int]]:
    """Where statements read and store, and the bytes of an element there."""
    for item in items:
        stored = [(item.array, item.position)] if isinstance(item, Store) else []
        for array, position in [*((load.array, load.position) for load in loads(item)), *stored]:
            yield position.affine, kernel.arrays[array].dtype.itemsize


def _independent(items: list[Statement]) -> bool:
    """Do statements only store values, in cells of their own, that no other iteration reads?"""
    stores = [x for x in items if isinstance(x, Store)]
    if not all(isinstance(x, (Assign, Store, Note)) for x in items):
        return False
    if any(x.reduce != "assign" or x.lookups for x in stores):
        return False
    cells = {x.array: x.position for x in stores}
    return all(cells.get(load.array, load.position) == load.position for x in items for load in loads(x))


def _conflicts(form: Affine, variable: int, itemsize: int) -> bool:
    """Does a place go in steps of a multiple of CONFLICT with a loop's variable?"""
    step = form.coefficient(variable)
    return step != 0 and divides(size(CONFLICT // itemsize), step)


def _is_small(nest: list[Loop]) -> bool:
    count = 1
    for loop in nest:
        if loop.extent.constant is None:
            return False
        count *= loop.extent.constant
    return count <= SMALL
