"""Fresh arrays: constants, and values that need no operand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..errors import TraceError
from ..graph.dtype import DType
from ..graph.size import SizeLike, size
from .shape import shape_of
from .tensor import Tensor, Value, cast, constant, fail, lift, record
from .trace import current


def const(value: Any, dtype: DType | None = None) -> Tensor:
    """A constant array or number."""
    return _apart(constant(value, current("gc.const").dtype(dtype) if dtype else None))


def full(shape: SizeLike | Sequence[SizeLike], value: Value, dtype: DType | None = None) -> Tensor:
    """An array with the same value everywhere, of the compilation's floating type unless one is given."""
    trace = current("gc.full")
    kind = trace.dtype(dtype) if dtype else trace.float_type
    filled = record("broadcast_to", cast(lift(value, kind), kind), shape=shape_of(shape))
    return filled if isinstance(value, Tensor) else _apart(filled)


def _apart(x: Tensor) -> Tensor:
    """Numbers as a value of their own while the model is traced: others of the same numbers are another value."""
    if x.broken or not x.dtype.is_float:
        return x  # no gradient is taken of it
    trace = current()
    trace.steps += 1
    return record("watched", x, tag=trace.steps)


def zeros(shape: SizeLike | Sequence[SizeLike], dtype: DType | None = None) -> Tensor:
    """Zeros, of the compilation's floating type unless one is given."""
    return full(shape, 0, dtype)


def ones(shape: SizeLike | Sequence[SizeLike], dtype: DType | None = None) -> Tensor:
    """Ones, of the compilation's floating type unless one is given."""
    return full(shape, 1, dtype)


def arange(start: SizeLike, stop: SizeLike | None = None, step: int = 1) -> Tensor:
    """The integers from start to stop, without stop, as i64."""
    if step == 0:
        return fail(TraceError("arange has the step 0"))
    first, last = (size(0), size(start)) if stop is None else (size(start), size(stop))
    length = (last - first + (step - 1 if step > 0 else step + 1)) // step
    return record("arange", start=first, step=size(step), shape=(length,))
