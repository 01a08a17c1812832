"""Words for matrix products: register tiles of the machine's vectors, and the packing of panels.

A tile computes some rows and a few vectors of C in registers: for each step of the inner axis it loads the vectors of
a row of B, broadcasts one element of A for each of its rows, and adds the products with fused multiply-adds. How A and
B lie in memory is given by distances, so transposed and packed operands need no tile of their own.

| words | meaning |
|---|---|
| `tile(rows, columns, a, a_row, a_step, b, b_step, k, c, ldc, accumulate)` | C = or += A B over k steps |
| `tile_packing(columns, ..., accumulate, panel)` | the same for most_rows() rows, copying the rows of B to `panel` |
| `slim(rows, ..., accumulate)` | the same for at most SLIM_ROWS rows and SLIM_VECTORS whole vectors |
| `pack_transposed(b, ldb, k, columns, panel)` | the panel of a transposed B |

Element (i, p) of A is a[i*a_row + p*a_step]; row p of B begins at b + p*b_step. `rows` is at most most_rows(),
`columns` at most a panel's, VECTORS of them, and of `tile_packing` more than one vector's. Where widest_rows() are given,
a `tile` of so many rows may have the columns of one vector more. A panel is that many
elements for each step, one step after another, zeros beyond `columns`. Memory of B and C beyond `columns` is neither
read nor written. `pack_transposed` writes whole vectors of steps: the panel needs room for k rounded up to lanes.

The bodies are LLVM IR that is finished as it is written: `definitions` gives it to be linked to a kernel after the
kernel's own optimisation.
"""
from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any

from graphc.codegen.host import vector_bytes

Namespace = dict[str, Any]

VECTORS = 2  # of a panel, and of the largest tile
SLIM_ROWS, SLIM_VECTORS = 4, 4
AHEAD = 24  # steps from asking for a row of B to its use


def most_rows() -> int:
    """The rows of the largest tile.

    Sixteen sums with AVX-512 (32 registers) and twelve without (16) hide the latency of a multiply-add and leave
    registers for the vectors of B and a broadcast.
    """
    return 8 if vector_bytes() == 64 else 6


def widest_rows() -> tuple[int, ...]:
    """The rows of tiles with a vector more: a few columns that are left over cost less in it than in a panel of their own.

    It takes as many registers again as there are without AVX-512.
    """
    return (most_rows() - 1, most_rows()) if vector_bytes() == 64 else ()


def lanes(itemsize: int) -> int:
    """The elements of a vector, for elements of so many bytes."""
    return vector_bytes() // itemsize


_P, _I = "pointer", "i64"
_TILE = (_P, _I, _I, _P, _I, _I, _P, _I, _I)
PARAMETERS: dict[str, tuple[str, ...]] = {
    "tile": (_I, _I, *_TILE),
    "tile_packing": (_I, *_TILE, _P),
    "slim": (_I, *_TILE),
    "pack_transposed": (_P, _I, _I, _I, _P),
}
PREFIX = "graphc_"


# ---------------------------------------------------------------------------------------------------------- the words

def numpy_namespace() -> Namespace:
    """None: matrix products have Python forms of their own, in graphc.runtime.library."""
    return {}


@functools.cache
def jit_namespace() -> Namespace:
    """The words as Numba intrinsics. Imports Numba."""
    return {word: _word(word) for word in PARAMETERS}


def _word(word: str) -> Any:
    from llvmlite import ir
    from numba.core import types
    from numba.core.extending import intrinsic

    kinds = PARAMETERS[word]
    first = kinds.index(_P)

    def typed(*given: Any) -> Any:
        pointer = given[1 + first]  # after the typing context
        wanted = [pointer if kind is _P else types.int64 for kind in kinds]

        def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            name = f"{PREFIX}{word}_{pointer.dtype}"
            kind = ir.FunctionType(ir.VoidType(), [a.type for a in args])
            builder.call(builder.module.globals.get(name) or ir.Function(builder.module, kind, name), args)
            return context.get_dummy_value()

        return types.void(*wanted), emit

    # Numba reads the number of arguments from the function's signature.
    names = ", ".join(f"x{i}" for i in range(len(kinds)))
    scope: Namespace = {"typed": typed}
    exec(f"def {word}(context, {names}): return typed(context, {names})", scope)
    return intrinsic(scope[word])


# -------------------------------------------------------------------------------------------------------- their bodies

def definitions(names: Iterable[str]) -> str:
    """LLVM IR of the functions that kernels with these words refer to: `graphc_WORD_float32`, ..."""
    from llvmlite import ir

    module = ir.Module("tiles")
    for name in names:
        word, element = name.removeprefix(PREFIX).rsplit("_", 1)
        value = ir.FloatType() if element == "float32" else ir.DoubleType()
        kinds = [value.as_pointer() if kind is _P else ir.IntType(64) for kind in PARAMETERS[word]]
        function = ir.Function(module, ir.FunctionType(ir.VoidType(), kinds), name)
        builder = ir.IRBuilder(function.append_basic_block("entry"))
        _BODIES[word](builder, list(function.args), value)
    return str(module)


def _choose_tile(builder: Any, args: list[Any], element: Any) -> None:
    """Whole tiles of the most rows; for all others, tiles that are cut off within their last vector."""
    rows, columns, *rest = args
    width = lanes(4 if str(element) == "float" else 8)
    whole = builder.and_(builder.icmp_signed("==", rows, _number(most_rows())),
                         builder.icmp_signed("==", columns, _number(VECTORS * width)))
    with builder.if_then(whole, likely=True):
        builder.call(_tile(builder.module, element, most_rows(), VECTORS), rest)
        builder.ret_void()
    if widest_rows():
        with builder.if_then(builder.icmp_signed(">", columns, _number(VECTORS * width))):
            _switch(builder, rows, {r: _tile(builder.module, element, r, VECTORS + 1, cut=True) for r in widest_rows()},
                    [columns, *rest])
            builder.ret_void()
    wide = builder.icmp_signed(">", columns, _number(width))
    with builder.if_else(wide) as (two, one):
        for vectors, block in ((2, two), (1, one)):
            with block:
                _switch(builder, rows, {r: _tile(builder.module, element, r, vectors, cut=True)
                                        for r in range(1, most_rows() + 1)}, [columns, *rest])
    builder.ret_void()


def _choose_slim(builder: Any, args: list[Any], element: Any) -> None:
    rows, *rest = args
    _switch(builder, rows, {r: _tile(builder.module, element, r, SLIM_VECTORS) for r in range(1, SLIM_ROWS + 1)}, rest)
    builder.ret_void()


def _choose_packing(builder: Any, args: list[Any], element: Any) -> None:
    builder.call(_tile(builder.module, element, most_rows(), VECTORS, cut=True, packing=True), args)
    builder.ret_void()


def _switch(builder: Any, value: Any, functions: dict[int, Any], args: list[Any]) -> None:
    """Call the function of a number; none for others."""
    after = builder.append_basic_block()
    switch = builder.switch(value, after)
    for number, function in functions.items():
        block = builder.append_basic_block()
        switch.add_case(_number(number), block)
        builder.position_at_end(block)
        builder.call(function, args)
        builder.branch(after)
    builder.position_at_end(after)


def _number(value: int) -> Any:
    from llvmlite import ir

    return ir.Constant(ir.IntType(64), value)


# -------------------------------------------------------------------------------------------------------- vectors

class _Vectors:
    """The vectors of one element type, and what a tile does with them."""

    def __init__(self, element: Any) -> None:
        from llvmlite import ir

        self.ir, self.element = ir, element
        self.lanes = lanes(self.align)
        self.type = ir.VectorType(element, self.lanes)
        self.suffix = f"v{self.lanes}f{32 if isinstance(element, ir.FloatType) else 64}"
        self.zero = ir.Constant(self.type, [0.0] * self.lanes)

    def _call(self, builder: Any, name: str, result: Any, args: list[Any]) -> Any:
        ir = self.ir
        kind = ir.FunctionType(result, [a.type for a in args])
        function = builder.module.globals.get(name) or ir.Function(builder.module, kind, name)
        return builder.call(function, args)

    def at(self, builder: Any, pointer: Any, index: Any) -> Any:
        return builder.gep(pointer, [index], inbounds=True, source_etype=self.element)

    def load(self, builder: Any, pointer: Any, mask: Any = None) -> Any:
        if mask is None:
            return builder.load(builder.bitcast(pointer, self.type.as_pointer()), align=self.align)
        align = self.ir.Constant(self.ir.IntType(32), self.align)
        place = builder.bitcast(pointer, self.type.as_pointer())
        return self._call(builder, f"llvm.masked.load.{self.suffix}.p0", self.type, [place, align, mask, self.zero])

    def store(self, builder: Any, value: Any, pointer: Any, mask: Any = None) -> None:
        place = builder.bitcast(pointer, self.type.as_pointer())
        if mask is None:
            builder.store(value, place, align=self.align)
            return
        align = self.ir.Constant(self.ir.IntType(32), self.align)
        self._call(builder, f"llvm.masked.store.{self.suffix}.p0", self.ir.VoidType(), [value, place, align, mask])

    @property
    def align(self) -> int:
        return 4 if isinstance(self.element, self.ir.FloatType) else 8

    def prefetch(self, builder: Any, pointer: Any) -> None:
        ir = self.ir
        # to read, to the nearest cache, data
        flags = [ir.Constant(ir.IntType(32), x) for x in (0, 3, 1)]
        self._call(builder, "llvm.prefetch.p0", ir.VoidType(), [pointer, *flags])

    def fma(self, builder: Any, a: Any, b: Any, c: Any) -> Any:
        return self._call(builder, f"llvm.fma.{self.suffix}", self.type, [a, b, c])

    def broadcast(self, builder: Any, scalar: Any) -> Any:
        ir = self.ir
        undefined = ir.Constant(self.type, ir.Undefined)
        first = builder.insert_element(undefined, scalar, ir.Constant(ir.IntType(32), 0))
        mask = ir.Constant(ir.VectorType(ir.IntType(32), self.lanes), [0] * self.lanes)
        return builder.shuffle_vector(first, undefined, mask)

    def below(self, builder: Any, count: Any) -> Any:
        """The mask of the lanes whose number is below `count`."""
        ir = self.ir
        wide = ir.VectorType(ir.IntType(64), self.lanes)
        numbers = ir.Constant(wide, list(range(self.lanes)))
        undefined = ir.Constant(wide, ir.Undefined)
        first = builder.insert_element(undefined, count, ir.Constant(ir.IntType(32), 0))
        spread = builder.shuffle_vector(first, undefined,
                                        ir.Constant(ir.VectorType(ir.IntType(32), self.lanes), [0] * self.lanes))
        return builder.icmp_signed("<", numbers, spread)



# -------------------------------------------------------------------------------------------------------- tiles

def _opaque(builder: Any, pointer: Any) -> Any:
    """The pointer, its origin hidden: else rows become one chain of additions, each waiting for the one before."""
    from llvmlite import ir

    hide = ir.InlineAsm(ir.FunctionType(pointer.type, [pointer.type]), "", "=r,0")
    return builder.call(hide, [pointer])


def _tile(module: Any, element: Any, rows: int, vectors: int, cut: bool = False, packing: bool = False) -> Any:
    """The function of a tile of so many rows and vectors: of its last vector only a part, if cut."""
    from llvmlite import ir

    name = f"tile_{rows}x{vectors}{'_cut' if cut else ''}{'_packing' if packing else ''}_{element}"
    known = module.globals.get(name)
    if known is not None:
        return known
    word, pointer = ir.IntType(64), element.as_pointer()
    kinds = [word] * cut + [pointer if kind is _P else word for kind in _TILE] + [pointer] * packing
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), kinds), name)
    function.linkage = "internal"
    args = list(function.args)
    columns = args.pop(0) if cut else None
    panel = args.pop() if packing else None
    _emit_tile(ir.IRBuilder(function.append_basic_block("entry")), args, _Vectors(element), rows, vectors, columns,
               panel)
    return function


def _emit_tile(builder: Any, args: list[Any], v: _Vectors, rows: int, vectors: int, columns: Any, panel: Any) -> None:
    a, a_row, a_step, b, b_step, k, c, ldc, accumulate = args
    number, zero = _number, _number(0)

    masks: list[Any] = [None] * vectors
    if columns is not None:
        masks[-1] = v.below(builder, builder.sub(columns, number((vectors - 1) * v.lanes)))
    a_rows = [_opaque(builder, v.at(builder, a, builder.mul(a_row, number(r)))) for r in range(rows)]

    def step(builder: Any, sums: list[Any], at_a: Any, at_b: Any, at_panel: Any) -> list[Any]:
        """One step of the inner axis: the sums with the products of one column of A and one row of B."""
        place = v.at(builder, b, at_b)
        if panel is not None:  # rows of B far apart, which the processor does not foresee
            later = v.at(builder, place, builder.mul(b_step, number(AHEAD)))
            for j in range(vectors):
                v.prefetch(builder, v.at(builder, later, number(j * v.lanes)))
        row = [v.load(builder, v.at(builder, place, number(j * v.lanes)), masks[j]) for j in range(vectors)]
        if panel is not None:
            base = v.at(builder, panel, at_panel)
            for j, value in enumerate(row):
                v.store(builder, value, v.at(builder, base, number(j * v.lanes)))
        done = []
        for r in range(rows):
            factor = v.broadcast(builder, builder.load(v.at(builder, a_rows[r], at_a)))
            done += [v.fma(builder, factor, row[j], sums[r * vectors + j]) for j in range(vectors)]
        return done

    def loop(builder: Any, sums: list[Any]) -> list[Any]:
        """All steps: the sums afterwards. Not unrolled: the loads of several steps would not fit the registers."""
        before = builder.block
        head, body, after = (builder.append_basic_block() for _ in range(3))
        builder.branch(head)
        builder.position_at_end(head)
        start = [zero, zero, zero, zero, *sums]
        values = [builder.phi(x.type) for x in start]
        for phi, x in zip(values, start, strict=True):
            phi.add_incoming(x, before)
        builder.cbranch(builder.icmp_signed("<", values[0], k), body, after)
        builder.position_at_end(body)
        p, at_a, at_b, at_panel, *now = values
        later = step(builder, now, at_a, at_b, at_panel)
        moved = [builder.add(p, number(1)), builder.add(at_a, a_step), builder.add(at_b, b_step),
                 builder.add(at_panel, number(vectors * v.lanes))]
        for phi, x in zip(values, [*moved, *later], strict=True):
            phi.add_incoming(x, body)
        builder.branch(head)
        builder.position_at_end(after)
        return values[4:]

    places = [v.at(builder, v.at(builder, c, builder.mul(ldc, number(r))), number(j * v.lanes))
              for r in range(rows) for j in range(vectors)]
    for place in places:
        v.prefetch(builder, place)
    sums = loop(builder, [v.zero] * len(places))
    # What is there is added last, when it has come from memory.
    with builder.if_else(builder.icmp_signed("!=", accumulate, zero)) as (more, fresh):
        with more:
            for i, (place, value) in enumerate(zip(places, sums, strict=True)):
                held = v.load(builder, place, masks[i % vectors])
                v.store(builder, builder.fadd(held, value), place, masks[i % vectors])
        with fresh:
            for i, (place, value) in enumerate(zip(places, sums, strict=True)):
                v.store(builder, value, place, masks[i % vectors])
    builder.ret_void()


# -------------------------------------------------------------------------------------------------------- packing

def _emit_pack(builder: Any, args: list[Any], element: Any) -> None:
    """Squares of lanes × lanes: rows are read, transposed in registers, and written below one another."""
    v, number = _Vectors(element), _number
    b, ldb, k, columns, panel = args
    width = VECTORS * v.lanes

    def square(inner: Any, p: Any, group: int, left: Any) -> None:
        """`left`: the steps that are left, where they are fewer than a vector; None where they are not."""
        rows = []
        for j in range(v.lanes):
            column = group * v.lanes + j
            place = v.at(inner, b, inner.add(inner.mul(ldb, number(column)), p))
            if left is None:
                rows.append(v.load(inner, place))
            else:
                there = inner.select(inner.icmp_signed("<", number(column), columns), left, number(0))
                rows.append(v.load(inner, place, v.below(inner, there)))
        for q, value in enumerate(_transposed(inner, rows)):
            at = inner.add(inner.mul(inner.add(p, number(q)), number(width)), number(group * v.lanes))
            v.store(inner, value, v.at(inner, panel, at))

    before, head, body, after = builder.block, *(builder.append_basic_block() for _ in range(3))
    builder.branch(head)
    builder.position_at_end(head)
    p = builder.phi(number(0).type)
    p.add_incoming(number(0), before)
    builder.cbranch(builder.icmp_signed("<", p, k), body, after)
    builder.position_at_end(body)
    left = builder.sub(k, p)
    for group in range(VECTORS):
        inside = builder.and_(builder.icmp_signed(">=", left, number(v.lanes)),
                              builder.icmp_signed(">=", columns, number((group + 1) * v.lanes)))
        with builder.if_else(inside) as (whole, cut):
            with whole:
                square(builder, p, group, None)
            with cut:
                square(builder, p, group, left)
    p.add_incoming(builder.add(p, number(v.lanes)), builder.block)
    builder.branch(head)
    builder.position_at_end(after)
    builder.ret_void()


def _transposed(builder: Any, rows: list[Any]) -> list[Any]:
    """The transposed square of vectors: blocks off the diagonal change places, of one lane, then two, four and so on."""
    from llvmlite import ir

    count = len(rows)
    size = 1
    while size < count:
        keep = [lane if not lane & size else count + lane - size for lane in range(count)]
        take = [lane + size if not lane & size else count + lane for lane in range(count)]
        first, second = (ir.Constant(ir.VectorType(ir.IntType(32), count), lanes) for lanes in (keep, take))
        after = list(rows)
        for i in range(count):
            if not i & size:
                after[i] = builder.shuffle_vector(rows[i], rows[i + size], first)
                after[i + size] = builder.shuffle_vector(rows[i], rows[i + size], second)
        rows, size = after, 2 * size
    return rows


_BODIES: dict[str, Callable[[Any, list[Any], Any], None]] = {
    "tile": _choose_tile,
    "tile_packing": _choose_packing,
    "slim": _choose_slim,
    "pack_transposed": _emit_pack,
}
