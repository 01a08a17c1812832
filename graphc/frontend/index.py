"""Elements at positions that are computed; `x[…]` is in `indexing`."""

from __future__ import annotations

from .axes import axes_of
from .tensor import Tensor, Value, lift, record


def take(x: Value, indices: Value, axis: int = 0) -> Tensor:
    """The elements at integer positions along an axis; an index out of range is an error at run time."""
    tensor, positions = lift(x), lift(indices)
    if tensor.broken or positions.broken:
        return Tensor(None)
    axes = axes_of("take", tensor, axis)
    return Tensor(None) if axes is None else record("take", tensor, positions, axis=axes[0])


def take_along_axis(x: Value, indices: Value, axis: int) -> Tensor:
    """x at one integer position per element of `indices`, along an axis, as NumPy has it."""
    tensor, positions = lift(x), lift(indices)
    if tensor.broken or positions.broken:
        return Tensor(None)
    axes = axes_of("take_along_axis", tensor, axis)
    return Tensor(None) if axes is None else record("take_along", tensor, positions, axis=axes[0])
