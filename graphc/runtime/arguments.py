"""What a caller passes for an input, as the array that a program reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import InputError
from ..graph.dtype import from_numpy
from .program import Buffer
from .signature import Declared

Array = np.ndarray[Any, Any]

_KINDS = {"b": "b", "i": "iu", "f": "f"}  # NumPy's letters of what a declared kind takes
_PYTHON = {"b": bool, "i": int, "f": float}


def number_types(dtype: np.dtype[Any]) -> frozenset[type]:
    """The types of single numbers that NumPy stores in an array of a type just as `array_of` converts them."""
    return frozenset({_PYTHON[dtype.kind], dtype.type})


def array_of(buffer: Buffer, value: Any) -> Array:
    """A value given for an input as a contiguous array of the declared type; InputError where it has another kind."""
    dtype = buffer.dtype.numpy
    if type(value) is np.ndarray and value.dtype == dtype and value.flags.c_contiguous:
        return value
    if not isinstance(value, (np.ndarray, np.generic)) and hasattr(value, "__dlpack__"):
        try:
            value = np.from_dlpack(value)
        except (BufferError, RuntimeError, TypeError) as error:
            how = "pass an array in main memory that needs no gradient: tensor.detach().cpu()"
            raise InputError(f"the input {buffer.name!r} cannot be read: {error}", how=how) from error
    weak = not isinstance(value, (np.ndarray, np.generic))
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise InputError(f"the input {buffer.name!r} is no array: {error}") from error
    own = from_numpy(array.dtype)
    target = buffer.dtype
    # integers and floats widen within their kind: int8 to int32, float32 to float64
    wider = array.dtype.kind in _KINDS[target.kind] and np.can_cast(array.dtype, dtype, "safe")
    numbers = (
        weak
        and own is not None
        and (own.kind == target.kind or (own.kind in "ib" and target.kind == "f") or array.size == 0)
    )
    if not (wider or numbers):
        raise InputError(
            f"the input {buffer.name!r} has the type {array.dtype}, but {target.name} ({dtype}) is declared",
            how=f"convert it: {buffer.name}.astype(np.{dtype})",
        )
    if (
        numbers
        and target.kind == "i"
        and array.size
        and (array.max() > np.iinfo(dtype).max or array.min() < np.iinfo(dtype).min)
    ):
        raise InputError(f"the input {buffer.name!r} holds a number that {target.name} cannot: {array.max()}")
    return np.ascontiguousarray(array, dtype).reshape(array.shape)


def missing(model: str, declared: Mapping[str, Declared], names: set[str], wanted: Sequence[str]) -> InputError:
    """The error for inputs that were not given, but are needed for some outputs."""
    listed = [d for n, d in declared.items() if n in names]
    return InputError(
        f"{model}: missing input{'s' if len(listed) > 1 else ''} for {', '.join(wanted)}: {', '.join(map(str, listed))}",
        how=f"pass {', '.join(f'{d.name}=…' for d in listed)}",
    )
