"""The words a kernel may use besides arithmetic, comparisons and indexing.

A kernel is plain Python text over flat arrays; the same text runs compiled and interpreted. What differs is what its
free names are bound to: `jit_namespace()` binds Numba intrinsics, each a handful of LLVM instructions, and
`numpy_namespace()` binds functions of NumPy scalars with the same results. Only scalars are ever passed.

| words | meaning |
|---|---|
| `f32 f64 i32 i64 bool_` | casts; of a literal, a constant |
| `select(c, a, b)` | a where c, else b; both are evaluated |
| `fmax fmin` | the larger, smaller; NaN if either is NaN |
| `radd rmul rmax rmin` | one step of a reduction whose order the compiler may choose |
| `fma(a, b, c)` | a*b + c rounded once |
| `isnan fabs floor` | as NumPy's |
| `at(p, i)` | the pointer p moved by i elements |
| `short() deep()` | nothing; in an innermost loop, what is known of it: see `LOOP_NOTES` |
| `scratch address words_at call ccall` | for the fixed kernels of the runtime alone, not in NumPy |
| `atomic_load atomic_store atomic_add atomic_swap pause` | the same: words that threads share, in one order for all |

A literal that meets a float32 is written with its cast, `f32(2)`: compiled, a bare 2 or 2.0 widens the result to
float64.

Only `radd` and `rmul` may be reassociated: a floating-point flag is put on these instructions and on no other, so
vectorising a sum changes no other arithmetic. No instruction assumes the absence of NaN or infinity.
"""
from __future__ import annotations

import functools
import platform
from collections.abc import Callable
from typing import Any

Namespace = dict[str, Any]

SCRATCH_WORDS = 64
"""How many int64 words `scratch()` holds: the largest number of arguments of a kernel that is called by address."""

LOOP_NOTES = {"graphc.short": (2, 2), "graphc.deep": (2, 4)}
"""Functions that are called in loops and defined nowhere; the call becomes a note to LLVM, on the loop: how many vectors
to work on at a time, on a machine of 16 vector registers and of more.

A `short` loop has a few vectors. LLVM would take four at a time, and what is left over, one element at a time: of 96
numbers that is a third, which then takes longer than all the rest. A `deep` one has long chains of operations. A
processor looks ahead some hundred operations, which is a few vectors one after the other, but all of four side by side.
"""


# ---------------------------------------------------------------------------------------------------- interpreted

@functools.cache
def numpy_namespace() -> Namespace:
    """The words over NumPy scalars, for running a kernel's text as plain Python."""
    import numpy as np

    def fma(a: Any, b: Any, c: Any) -> Any:
        # The product of two float32 is exact in float64. For float64 the extended type is the closest there is.
        wide = np.float64 if isinstance(a, np.float32) else np.longdouble
        return type(a)(wide(a) * wide(b) + wide(c))

    return {
        "f32": np.float32,
        "f64": np.float64,
        "i32": np.int32,
        "i64": np.int64,
        "bool_": np.bool_,
        "select": lambda c, a, b: a if c else b,
        "fmax": np.maximum,
        "fmin": np.minimum,
        "radd": lambda acc, x: acc + x,
        "rmul": lambda acc, x: acc * x,
        "rmax": np.maximum,
        "rmin": np.minimum,
        "fma": fma,
        "isnan": np.isnan,
        "fabs": np.fabs,
        "floor": np.floor,
        "at": lambda p, i: p[i:],
        "short": lambda: None,
        "deep": lambda: None,
    }


# ------------------------------------------------------------------------------------------------------- compiled

@functools.cache
def jit_namespace() -> Namespace:
    """The words as Numba intrinsics. Imports Numba."""
    return {**_casts(), **_scalar_words(), **_reduction_words(), **_address_words(), **_shared_words(),
            **_loop_words()}


def _casts() -> Namespace:
    from numba.core import types
    from numba.core.extending import intrinsic

    def cast_to(target: Any) -> Any:
        def cast(typingctx: Any, value: Any) -> Any:
            source = types.unliteral(value)

            def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
                if target is types.boolean:
                    return context.is_true(builder, source, args[0])
                return context.cast(builder, args[0], source, target)

            return target(source), emit

        return intrinsic(cast)

    targets = {"f32": types.float32, "f64": types.float64, "i32": types.int32, "i64": types.int64,
               "bool_": types.boolean}
    return {name: cast_to(target) for name, target in targets.items()}


def _alike(count: int, emit_value: Callable[..., Any], returns: Any = None) -> Any:
    """An intrinsic of `count` arguments, all converted to their common type, computed by `emit_value(builder, *args)`.

    The result has that type too, unless `returns` names another.
    """
    from numba.core import types
    from numba.core.errors import TypingError
    from numba.core.extending import intrinsic

    def typed(typingctx: Any, given: tuple[Any, ...]) -> Any:
        common = typingctx.unify_types(*(types.unliteral(t) for t in given))
        if not isinstance(common, (types.Float, types.Integer, types.Boolean)):
            raise TypingError(f"arguments of types {given} have no common type")

        def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return emit_value(builder, *args)

        return (returns or common)(*[common] * count), emit

    # Numba reads the number of arguments from the function's signature.
    if count == 1:
        return intrinsic(lambda typingctx, a: typed(typingctx, (a,)))
    if count == 2:
        return intrinsic(lambda typingctx, a, b: typed(typingctx, (a, b)))
    return intrinsic(lambda typingctx, a, b, c: typed(typingctx, (a, b, c)))


def _llvm(name: str, count: int, flags: tuple[str, ...] = ()) -> Callable[..., Any]:
    """Emit a call of LLVM's overloaded floating-point intrinsic `name`, such as `llvm.floor`."""
    from llvmlite import ir

    def emit(builder: Any, *args: Any) -> Any:
        function = builder.module.declare_intrinsic(f"llvm.{name}", [args[0].type],
                                                    ir.FunctionType(args[0].type, [args[0].type] * count))
        return builder.call(function, args, fastmath=flags)

    return emit


def _scalar_words() -> Namespace:
    from numba.core import types
    from numba.core.extending import intrinsic

    @intrinsic
    def select(typingctx: Any, condition: Any, a: Any, b: Any) -> Any:
        common = typingctx.unify_types(types.unliteral(a), types.unliteral(b))

        def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return builder.select(*args)

        return common(types.boolean, common, common), emit

    return {
        "select": select,
        "fmax": _alike(2, _extreme(">", _pick)),
        "fmin": _alike(2, _extreme("<", _pick)),
        "fma": _alike(3, lambda builder, a, b, c: builder.fma(a, b, c)),
        "isnan": _alike(1, lambda builder, a: builder.fcmp_unordered("uno", a, a), types.boolean),
        "fabs": _alike(1, _llvm("fabs", 1)),
        "floor": _alike(1, _llvm("floor", 1)),
    }


def _extreme(comparison: str, of_floats: Callable[..., Any]) -> Callable[..., Any]:
    """The larger (">") or smaller ("<") of two: integers by comparing, floats by `of_floats`."""
    from llvmlite import ir

    def emit(builder: Any, a: Any, b: Any) -> Any:
        if isinstance(a.type, ir.IntType):
            return builder.select(builder.icmp_signed(comparison, a, b), a, b)
        return of_floats(comparison, builder, a, b)

    return emit


def _pick(comparison: str, builder: Any, a: Any, b: Any) -> Any:
    # `b if isnan(b) else (b if b > a else a)`: a machine's own max instruction returns its second operand when either
    # is NaN, so the inner choice is one instruction and already right for a NaN in a; for a constant b the outer
    # choice folds away. A relu costs one instruction.
    chosen = builder.select(builder.fcmp_ordered(comparison, b, a), b, a)
    return builder.select(builder.fcmp_unordered("uno", b, b), b, chosen)


def _ieee(comparison: str, builder: Any, a: Any, b: Any) -> Any:
    # The loop vectoriser knows `llvm.maximum`, which propagates NaN, as a reduction, but not the choices above. `nsz`
    # spares it an order between -0 and 0.
    return _llvm("maximum" if comparison == ">" else "minimum", 2, ("nsz",))(builder, a, b)


# Numba gives a kernel's flags only to instructions that have none, so `contract` (a sum of products in fused steps) is
# said again.
_STEP = ("reassoc", "contract")


def _reduction_words() -> Namespace:
    from llvmlite import ir

    def add(builder: Any, acc: Any, x: Any) -> Any:
        integers = isinstance(acc.type, ir.IntType)
        return builder.add(acc, x) if integers else builder.fadd(acc, x, flags=_STEP)

    def mul(builder: Any, acc: Any, x: Any) -> Any:
        integers = isinstance(acc.type, ir.IntType)
        return builder.mul(acc, x) if integers else builder.fmul(acc, x, flags=_STEP)

    return {
        "radd": _alike(2, add),
        "rmul": _alike(2, mul),
        "rmax": _alike(2, _extreme(">", _ieee)),
        "rmin": _alike(2, _extreme("<", _ieee)),
    }


@functools.cache
def _pointer_class() -> Any:
    """Numba's C pointer, indexed in bounds (which its own is not told), and with bools stored as bytes."""
    import operator

    from llvmlite import ir
    from numba.core import types
    from numba.core.extending import lower_builtin, models, register_model

    class Pointer(types.CPointer):
        pass

    register_model(Pointer)(models.PointerModel)

    def load(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        value = builder.load(builder.gep(args[0], [args[1]], inbounds=True))
        if signature.args[0].dtype is types.boolean:
            return builder.icmp_unsigned("!=", value, ir.Constant(value.type, 0))
        return value

    def store(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        value = args[2]
        if signature.args[0].dtype is types.boolean:
            value = builder.zext(value, ir.IntType(8))
        builder.store(value, builder.gep(args[0], [args[1]], inbounds=True))
        return context.get_dummy_value()

    lower_builtin(operator.getitem, Pointer, types.Integer)(load)
    lower_builtin(operator.setitem, Pointer, types.Integer, types.Any)(store)
    return Pointer


def pointer_to(dtype: Any) -> Any:
    """The Numba type of a pointer to values of the Numba type `dtype`. Imports Numba."""
    return _pointer_class()(dtype)


def _address_words() -> Namespace:
    from llvmlite import ir
    from numba.core import cgutils, types
    from numba.core.extending import intrinsic

    word, words = ir.IntType(64), pointer_to(types.int64)

    @intrinsic
    def at(typingctx: Any, pointer: Any, index: Any) -> Any:
        def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return builder.gep(args[0], [args[1]], inbounds=True)

        return pointer(pointer, types.int64), emit

    @intrinsic
    def scratch(typingctx: Any) -> Any:
        def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return cgutils.alloca_once(builder, word, size=ir.Constant(word, SCRATCH_WORDS))

        return words(), emit

    @intrinsic
    def address(typingctx: Any, pointer: Any) -> Any:
        def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return builder.ptrtoint(args[0], word)

        return types.int64(pointer), emit

    @intrinsic
    def words_at(typingctx: Any, number: Any) -> Any:
        def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return builder.inttoptr(args[0], word.as_pointer())

        return words(types.int64), emit

    @intrinsic
    def call(typingctx: Any, function: Any, arguments: Any) -> Any:
        def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            kind = ir.FunctionType(ir.VoidType(), [word.as_pointer()])
            builder.call(builder.inttoptr(args[0], kind.as_pointer()), [args[1]])
            return context.get_dummy_value()

        return types.void(types.int64, words), emit

    @intrinsic
    def ccall(typingctx: Any, function: Any, *arguments: Any) -> Any:
        def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            values = cgutils.unpack_tuple(builder, args[1])
            kind = ir.FunctionType(ir.VoidType(), [v.type for v in values])
            builder.call(builder.inttoptr(args[0], kind.as_pointer()), values)
            return context.get_dummy_value()

        return types.void(types.int64, types.StarArgTuple(arguments)), emit

    return {"at": at, "scratch": scratch, "address": address, "words_at": words_at, "call": call, "ccall": ccall}


def _loop_words() -> Namespace:
    from llvmlite import ir
    from numba.core import types
    from numba.core.extending import intrinsic

    def note(name: str) -> Any:
        def word(typingctx: Any) -> Any:
            def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
                kind = ir.FunctionType(ir.VoidType(), [])
                builder.call(builder.module.globals.get(name) or ir.Function(builder.module, kind, name), [])
                return context.get_dummy_value()

            return types.void(), emit

        return intrinsic(word)

    return {name.removeprefix("graphc."): note(name) for name in LOOP_NOTES}


def _shared_words() -> Namespace:
    from llvmlite import ir
    from numba.core import types
    from numba.core.extending import intrinsic

    order = "seq_cst"

    @intrinsic
    def atomic_load(typingctx: Any, pointer: Any, index: Any) -> Any:
        def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return builder.load_atomic(builder.gep(args[0], [args[1]]), order, 8)

        return types.int64(pointer, types.int64), emit

    @intrinsic
    def atomic_store(typingctx: Any, pointer: Any, index: Any, value: Any) -> Any:
        def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            builder.store_atomic(args[2], builder.gep(args[0], [args[1]]), order, 8)
            return context.get_dummy_value()

        return types.void(pointer, types.int64, types.int64), emit

    def exchange(operation: str) -> Any:
        def word(typingctx: Any, pointer: Any, index: Any, value: Any) -> Any:
            def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
                return builder.atomic_rmw(operation, builder.gep(args[0], [args[1]]), args[2], order)

            return types.int64(pointer, types.int64, types.int64), emit

        return intrinsic(word)

    @intrinsic
    def pause(typingctx: Any) -> Any:
        """A moment's rest for a processor that waits in a loop; nothing where it has no such instruction."""
        def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            if platform.machine().lower() in ("x86_64", "amd64"):
                name = "llvm.x86.sse2.pause"
                rest = builder.module.globals.get(name) or ir.Function(builder.module,
                                                                       ir.FunctionType(ir.VoidType(), []), name)
                builder.call(rest, [])
            return context.get_dummy_value()

        return types.void(), emit

    return {"atomic_load": atomic_load, "atomic_store": atomic_store, "atomic_add": exchange("add"),
            "atomic_swap": exchange("xchg"), "pause": pause}
