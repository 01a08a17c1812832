"""Reductions: over one axis, several, or all, with the names and meanings of NumPy."""

from __future__ import annotations

from ..graph.dtype import bool_, i32, i64
from ..graph.size import product, size
from .axes import Axis, axes_of
from .elementwise import exp, log
from .tensor import Tensor, Value, cast, lift, record
from .trace import current


def _reduce(op: str, x: Value, axis: Axis, keepdims: bool) -> Tensor:
    tensor = lift(x)
    if tensor.broken:
        return tensor
    if tensor.dtype is bool_ or (op == "sum" and tensor.dtype is i32):
        tensor = cast(tensor, i64)  # as NumPy: a sum of small integers must not wrap
    axes = axes_of(op, tensor, axis)
    if axes is None:
        return Tensor(None)
    kept = tuple(size(1) if d in axes else e for d, e in enumerate(tensor.node.shape))
    result = record(op, tensor, axes=axes)
    return record("reshape", result, shape=kept) if keepdims and not result.broken else result


def sum(x: Value, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """The sum over one axis, several, or all."""
    return _reduce("sum", x, axis, keepdims)


def max(x: Value, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """The maximum; the gradient goes to the first one."""
    return _reduce("max", x, axis, keepdims)


def min(x: Value, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """The minimum; the gradient goes to the first one."""
    return _reduce("min", x, axis, keepdims)


def argmax(x: Value, axis: int | None = None, keepdims: bool = False) -> Tensor:
    """The position of the first maximum, as i64; over all elements in row-major order where no axis is given."""
    return _reduce("argmax", x, axis, keepdims)


def mean(x: Value, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """The mean over one axis, several, or all."""
    tensor = lift(x)
    if tensor.broken:
        return tensor
    if not tensor.dtype.is_float:
        tensor = cast(tensor, current().float_type)
    axes = axes_of("mean", tensor, axis)
    if axes is None:
        return Tensor(None)
    return sum(tensor, axes, keepdims) / product(tensor.node.shape[d] for d in axes)


def logsumexp(x: Value, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """log Σ e^x, never overflowing: the stabilising pass subtracts the maximum."""
    return log(sum(exp(x), axis, keepdims))
