"""The formulas of `functions` as Numba intrinsics, typed by their argument."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba.core import types
from numba.core.errors import TypingError
from numba.extending import intrinsic

from . import functions
from .emit import F32, F64, Value

FORMATS = {types.float32: F32, types.float64: F64}


def float_type(*arguments: Any) -> Any:
    """float64 if an argument is, else float32; integers take the others' type, or float64."""
    floats = [a for a in arguments if isinstance(a, types.Float)]
    for a in arguments:
        if a not in FORMATS and not isinstance(a, types.Integer | types.Boolean):
            raise TypingError(f"expected float32, float64 or an integer, found {a}")
    return types.float64 if types.float64 in floats or not floats else types.float32


def make(name: str, arity: int) -> object:
    """An intrinsic that casts its arguments to one float type and emits `functions.<name>`."""
    formula: Callable[..., Value] = getattr(functions, name)

    def build(*arguments: Any) -> tuple[Any, Any]:
        common = float_type(*arguments)

        def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            return formula(*(Value(builder, v, FORMATS[common]) for v in values)).ir

        return common(*[common] * arity), codegen

    def unary(typing_context: Any, x: Any) -> Any:
        return build(x)

    def binary(typing_context: Any, x: Any, y: Any) -> Any:
        return build(x, y)

    typing = unary if arity == 1 else binary  # Numba matches calls with their parameters
    typing.__name__ = typing.__qualname__ = name
    typing.__doc__ = formula.__doc__
    return intrinsic(typing)
