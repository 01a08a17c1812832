"""The same elements under another shape or in another order, and the sizes that shapes are made of."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..errors import TraceError
from ..graph.size import Size, SizeLike, product, size
from .axes import Axis, axes_of
from .tensor import Tensor, Value, cast, common_type, fail, lift, record
from .trace import caller, current


def dim(name: str) -> Size:
    """A symbolic size of the inputs, such as gc.dim("B"): it computes, `2 * gc.dim("T") + 1`."""
    current("gc.dim").dims.add(name)
    return size(name)


def shape_of(shape: SizeLike | Sequence[SizeLike | str]) -> tuple[Size, ...]:
    """A shape as sizes: integers, sizes that compute, and the names of dimensions."""
    items = (shape,) if isinstance(shape, (int, np.integer, Size, str)) else tuple(shape)
    for item in items:
        if isinstance(item, bool) or not isinstance(item, (int, np.integer, Size, str)):
            raise TraceError(f"a shape is made of integers and sizes, not {item!r}", where=caller())
    return tuple(size(dim(s) if isinstance(s, str) else s) for s in items)


def reshape(x: Value, shape: SizeLike | Sequence[SizeLike]) -> Tensor:
    """The same elements under another shape; one size may be −1, meaning the rest."""
    tensor = lift(x)
    if tensor.broken:
        return tensor
    wanted = shape_of(shape)
    if wanted.count(size(-1)) > 1:
        return fail(TraceError("reshape: only one size may be -1"))
    if size(-1) in wanted:
        known = product(s for s in wanted if s != -1)
        if known == 0 or (rest := tensor.node.type.numel // known) * known != tensor.node.type.numel:
            return fail(
                TraceError(
                    f"reshape: {tensor.node.type} of {tensor.node.type.numel} elements does not divide into ({', '.join(map(str, wanted))})"
                )
            )
        wanted = tuple(rest if s == -1 else s for s in wanted)
    return record("reshape", tensor, shape=wanted)


def transpose(x: Value, axes: Sequence[int] | None = None) -> Tensor:
    """The axes in another order; reversed where none is given."""
    tensor = lift(x)
    if tensor.broken:
        return tensor
    perm = (
        tuple(range(tensor.ndim))[::-1]
        if axes is None
        else tuple(a % tensor.ndim if -tensor.ndim <= a < tensor.ndim else a for a in axes)
    )
    return record("transpose", tensor, perm=perm)


def broadcast_to(x: Value, shape: SizeLike | Sequence[SizeLike]) -> Tensor:
    """x stretched to a shape."""
    return record("broadcast_to", lift(x), shape=shape_of(shape))


def expand_dims(x: Value, axis: int) -> Tensor:
    """A new axis of length 1 at a position."""
    tensor = lift(x)
    if tensor.broken:
        return tensor
    shape = list(tensor.node.shape)
    if not -len(shape) - 1 <= axis <= len(shape):
        return fail(
            TraceError(f"expand_dims: axis {axis} is out of range for {tensor.node.type}, of {len(shape)} axes")
        )
    shape.insert(axis if axis >= 0 else axis + len(shape) + 1, size(1))
    return record("reshape", tensor, shape=tuple(shape))


def squeeze(x: Value, axis: Axis = None) -> Tensor:
    """Axes of length 1 taken out: those given, or all."""
    tensor = lift(x)
    if tensor.broken:
        return tensor
    axes = (
        tuple(d for d, e in enumerate(tensor.node.shape) if e == 1)
        if axis is None
        else axes_of("squeeze", tensor, axis)
    )
    if axes is None:
        return Tensor(None)
    for a in axes:
        if tensor.node.shape[a] != 1:
            return fail(
                TraceError(f"squeeze: axis {a} of {tensor.node.type} has the length {tensor.node.shape[a]}, not 1")
            )
    return record("reshape", tensor, shape=tuple(e for d, e in enumerate(tensor.node.shape) if d not in axes))


def concat(arrays: Sequence[Value], axis: int = 0) -> Tensor:
    """Arrays one after another along an axis."""
    dtype = common_type(arrays)
    tensors = [cast(lift(a, dtype), dtype) for a in arrays]
    if any(t.broken for t in tensors):
        return Tensor(None)
    axes = axes_of("concat", tensors[0], axis) if tensors else (0,)
    return Tensor(None) if axes is None else record("concat", *tensors, axis=axes[0])


def stack(arrays: Sequence[Value], axis: int = 0) -> Tensor:
    """Arrays of one shape along a new axis."""
    tensors = [lift(a) for a in arrays]
    return concat([expand_dims(t, axis) for t in tensors], axis)


def split(x: Value, n: int, axis: int = 0) -> list[Tensor]:
    """n equal sections along an axis, as NumPy has it."""
    tensor = lift(x)
    broken: list[Tensor] = [Tensor(None)] * (n if isinstance(n, int) else 0)
    if tensor.broken:
        return broken
    axes = axes_of("split", tensor, axis)
    if axes is None:
        return broken
    extent = tensor.node.shape[axes[0]]
    if not isinstance(n, int) or n < 1:
        fail(TraceError(f"split into {n!r} sections", how="choose a number of at least 1"))
        return []
    part = extent // n
    if part * n != extent:
        fail(
            TraceError(
                f"split: axis {axis} of {tensor.node.type}, of length {extent}, does not divide into {n} equal parts",
                how=f"choose a number that divides {extent}",
            )
        )
        return broken
    sections = []
    for i in range(n):
        start = tuple(part * i if d == axes[0] else size(0) for d in range(tensor.ndim))
        shape = tuple(part if d == axes[0] else e for d, e in enumerate(tensor.node.shape))
        sections.append(record("slice", tensor, start=start, step=(size(1),) * tensor.ndim, shape=shape))
    return sections
