"""`range` as kernels use it: 64-bit integers going up, by a step of 1 or more. Loads Numba.

Numba's own looks at run time for a step of 0 or a negative one and counts the turns beforehand, in some hundred
instructions a loop, through all of which LLVM has to see. Here a loop is an integer, a comparison and an addition.
"""
from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.core.extending import intrinsic, lower_builtin, models, register_model

NUMBER, ZERO, ONE = types.int64, ir.Constant(ir.IntType(64), 0), ir.Constant(ir.IntType(64), 1)


class Turns(types.SimpleIteratorType):
    """The iterator: where the number of the next turn lies, and the bounds."""

    def __init__(self) -> None:
        super().__init__("turns of a range", NUMBER)


class Upward(types.SimpleIterableType):
    """The range: its bounds."""

    def __init__(self) -> None:
        super().__init__("range going up", Turns())


@register_model(Upward)
class _UpwardModel(models.StructModel):
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, [("start", NUMBER), ("stop", NUMBER), ("step", NUMBER)])


@register_model(Turns)
class _TurnsModel(models.StructModel):
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, [("next", types.CPointer(NUMBER)), ("stop", NUMBER), ("step", NUMBER)])


@intrinsic
def upward(typingctx: Any, *bounds: Any) -> Any:
    """range(stop), range(start, stop) or range(start, stop, step)"""
    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        values = [context.cast(builder, value, kind, NUMBER)
                  for value, kind in zip(cgutils.unpack_tuple(builder, args[0]), bounds, strict=True)]
        start, stop = (ZERO, values[0]) if len(values) == 1 else values[:2]
        return cgutils.pack_struct(builder, [start, stop, values[2] if len(values) == 3 else ONE])

    return Upward()(types.StarArgTuple(bounds)), emit


@lower_builtin("getiter", Upward)
def _turns(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    start, stop, step = cgutils.unpack_tuple(builder, args[0], 3)
    return cgutils.pack_struct(builder, [cgutils.alloca_once_value(builder, start), stop, step])


@lower_builtin("iternext", Turns)
def _turn(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    place, stop, step = cgutils.unpack_tuple(builder, args[0], 3)
    number = builder.load(place)
    builder.store(builder.add(number, step, flags=["nsw"]), place)
    return cgutils.pack_struct(builder, [number, builder.icmp_signed("<", number, stop)])
