"""Basic indexing as NumPy has it, as a plan: a slice, then a reshape, then at most one look-up."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..errors import TraceError
from ..graph.node import TensorType
from ..graph.size import Size, size
from ..ops.row import Fit


@dataclass
class Plan:
    """start, step, extents: of the slice, axis by axis; shape: after it; gather: (axis, integer array) if there is one."""

    start: list[Size] = field(default_factory=list)
    step: list[Size] = field(default_factory=list)
    extents: list[Size] = field(default_factory=list)
    shape: list[Size] = field(default_factory=list)
    gather: tuple[int, Any] | None = None


def plan(key: Any, kind: TensorType, fit: Fit) -> Plan:
    """What `x[key]` means for an array of a type: integers, slices, None and `...`; one integer array looks up.

    TraceError where the key does not fit; what only the call can decide becomes a guard of `fit`. A bound outside a
    symbolic axis is an error of the call: it is not clamped.
    """
    items = list(key) if isinstance(key, tuple) else [key]
    used = sum(item is not None and item is not Ellipsis for item in items)
    if used > kind.rank:
        raise TraceError(f"{used} indices for the {kind.rank} axes of {kind}")
    dots = [i for i, item in enumerate(items) if item is Ellipsis]
    if len(dots) > 1:
        raise TraceError("an index may hold one `...` only")
    place = dots[0] if dots else len(items)
    items[place : place + len(dots)] = [slice(None)] * (kind.rank - used)
    result = Plan()
    axis = 0
    for item in items:
        if item is None:
            result.shape.append(size(1))
            continue
        first, step, length, kept = _along(item, axis, kind, fit, result)
        result.start.append(first)
        result.step.append(step)
        result.extents.append(length)
        if kept:
            result.shape.append(length)
        axis += 1
    return result


def _along(item: Any, axis: int, kind: TensorType, fit: Fit, result: Plan) -> tuple[Size, Size, Size, bool]:
    """(start, step, length) along an axis, and whether the axis stays."""
    extent = kind.shape[axis]
    if isinstance(item, slice):
        return *_slice(item, axis, kind, fit), True
    if isinstance(item, (int, np.integer, Size)) and not isinstance(item, bool):
        return _position(item, axis, kind, fit), size(1), size(1), False
    if isinstance(item, (np.ndarray, list)) or hasattr(item, "node"):
        if result.gather is not None:
            raise TraceError("more than one integer array in an index", how="use gc.take, one axis at a time")
        result.gather = len(result.shape), item
        return size(0), size(1), extent, True
    raise TraceError(
        f"an index of type {type(item).__name__}: {item!r}",
        how="use integers, slices, None, `...` or one integer array; for a mask use gc.where",
    )


def _position(item: Any, axis: int, kind: TensorType, fit: Fit) -> Size:
    extent, message = (
        kind.shape[axis],
        f"index {item} is out of range for axis {axis} of {kind}, of length {kind.shape[axis]}",
    )
    if not isinstance(item, Size) and int(item) < 0:
        fit.at_least(extent, -int(item), message)
        return extent + int(item)
    fit.at_least(size(item), 0, message)
    fit.at_least(extent, size(item) + 1, message)
    return size(item)


def _slice(item: slice, axis: int, kind: TensorType, fit: Fit) -> tuple[Size, Size, Size]:
    extent = kind.shape[axis]
    step = 1 if item.step is None else int(item.step)
    if step == 0:
        raise TraceError("a slice has the step 0")
    if extent.constant is not None and not isinstance(item.start, Size) and not isinstance(item.stop, Size):
        whole = range(*item.indices(extent.constant))
        return size(whole.start), size(whole.step), size(len(whole))

    def bound(value: Any, default: Size, room: int) -> Size:
        """A bound between 0 and the length minus `room`."""
        if value is None:
            return default
        message = f"the slice bound {value} is out of range for axis {axis} of {kind}, of length {extent}"
        if not isinstance(value, Size) and int(value) < 0:
            fit.at_least(extent, -int(value), message)
            return extent + int(value)
        fit.at_least(size(value), 0, message)
        fit.at_least(extent, size(value) + room, message)
        return size(value)

    if step > 0:
        first, stop = bound(item.start, size(0), 0), bound(item.stop, extent, 0)
        length = (stop - first + step - 1) // step
    else:
        first, stop = bound(item.start, extent - 1, 1), bound(item.stop, size(-1), 1)
        length = (first - stop - step - 1) // -step
    fit.at_least(
        length, 0, f"the slice {item.start}:{item.stop}:{item.step} of axis {axis} of {kind} has the length {length}"
    )
    return first, size(step), length
