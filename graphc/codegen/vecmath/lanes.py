"""What one instruction of AVX-512 does and scalar LLVM IR has no word for.

    lookup    one of the 16 numbers of a table, which lies in a register
    scalef    p·2^⌊n⌋ for floats p and n; over- and underflow round once

A formula calls them as functions of one lane. Their declarations name the same functions of several lanes, which the
loop vectoriser takes when it widens a call (LLVM Language Reference, "vector-function-abi-variant"). The bodies come
when it has done so, and are inlined: until then nothing may look into a call.

    announced      the text of a module that calls them, with the wide forms declared
    definitions    the bodies, of one lane and of several
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable
from typing import Any

from llvmlite import ir

from . import coefficients as c

PREFIX = "graphc.lanes."

#: 16 numbers by the name they are looked up under.
TABLES = {
    "exp2": c.EXP2_STEPS_F32,
    "exp2_rest": c.EXP2_RESTS_F32,
    "tanh_middle": c.TANH_MIDDLES_F32,
    **{f"tanh{order}": row for order, row in enumerate(c.TANH_PIECES_F32)},
}
SCALEF = "scalef"

WIDTHS = (16, 8, 4)
FLOAT, INT, BYTE = ir.FloatType(), ir.IntType(32), ir.IntType(8)


def kinds(word: str) -> tuple[Any, ...]:
    """The types of a word's arguments; it returns a float."""
    return (FLOAT, FLOAT) if word == SCALEF else (INT,)


def declared(module: Any, word: str) -> Any:
    """The function of one lane, in a module that calls it."""
    name = PREFIX + word
    return module.globals.get(name) or ir.Function(module, ir.FunctionType(FLOAT, kinds(word)), name)


# -- for the vectoriser ---------------------------------------------------------------------------
DECLARATION = re.compile(rf'^declare float @"{re.escape(PREFIX)}(\w+)"\(.*\)', re.MULTILINE)


def announced(text: str) -> str:
    """A module's text with the wide forms of the words it calls."""
    words = DECLARATION.findall(text)
    if not words:
        return text
    noted = DECLARATION.sub(lambda found: f"{found[0]} {_attributes(found[1])}", text)
    wide = [(word, width) for word in words for width in WIDTHS]
    # What no one calls yet would be dropped.
    kept = ", ".join(f"ptr @{_wide(word, width)}" for word, width in wide)
    return "\n".join([
        noted,
        *(f"declare <{width} x float> @{_wide(word, width)}({', '.join(f'<{width} x {k}>' for k in kinds(word))})"
          for word, width in wide),
        f'@llvm.compiler.used = appending global [{len(wide)} x ptr] [{kept}], section "llvm.metadata"',
    ])  # fmt: skip


def _wide(word: str, width: int) -> str:
    return f"{PREFIX}{word}.{width}"


def _attributes(word: str) -> str:
    forms = (f"_ZGV_LLVM_N{width}{'v' * len(kinds(word))}_{PREFIX}{word}({_wide(word, width)})" for width in WIDTHS)
    return f'nounwind willreturn memory(none) "vector-function-abi-variant"="{",".join(forms)}"'


# -- bodies ---------------------------------------------------------------------------------------
def definitions(names: Iterable[str]) -> str:
    """LLVM IR of the functions of these names, to be inlined and then forgotten."""
    module = ir.Module("lanes")
    for name in names:
        word, _, width = name.removeprefix(PREFIX).partition(".")
        lanes = int(width or 1)
        shape = (lambda kind: kind) if lanes == 1 else functools.partial(ir.VectorType, count=lanes)
        function = ir.Function(module, ir.FunctionType(shape(FLOAT), [shape(kind) for kind in kinds(word)]), name)
        function.linkage = "available_externally"
        function.attributes.add("alwaysinline")
        builder = ir.IRBuilder(function.append_basic_block("entry"))
        body = _scalef if word == SCALEF else functools.partial(_lookup, TABLES[word])
        builder.ret(body(builder, lanes, *function.args))
    return str(module)


def _lookup(table: tuple[float, ...], builder: Any, lanes: int, index: Any) -> Any:
    """The low four bits of the index count, for the instruction as for one lane."""
    kind = ir.VectorType(FLOAT, 16)
    numbers = ir.Constant(kind, [ir.Constant(FLOAT, number) for number in table])
    if lanes == 1:
        place = ir.GlobalVariable(builder.module, kind, builder.module.get_unique_name("table"))
        place.initializer, place.linkage, place.global_constant = numbers, "internal", True
        low = builder.and_(index, ir.Constant(INT, 15))
        return builder.load(builder.gep(builder.bitcast(place, ir.ArrayType(FLOAT, 16).as_pointer()),
                                        [ir.Constant(INT, 0), low], inbounds=True))
    choose = _intrinsic(builder, "llvm.x86.avx512.permvar.sf.512", kind, [kind, ir.VectorType(INT, 16)])
    return _cut(builder, builder.call(choose, [numbers, _filled(builder, index)]), lanes)


def _scalef(builder: Any, lanes: int, p: Any, n: Any) -> Any:
    if lanes == 1:  # the instruction for one number takes its first lane
        nothing = ir.Constant(ir.VectorType(FLOAT, 4), None)
        p, n = (builder.insert_element(nothing, value, ir.Constant(INT, 0)) for value in (p, n))
        kind, name = ir.VectorType(FLOAT, 4), "llvm.x86.avx512.mask.scalef.ss"
        mask = ir.Constant(BYTE, 1)
    else:
        p, n = _filled(builder, p), _filled(builder, n)
        kind, name = ir.VectorType(FLOAT, 16), "llvm.x86.avx512.mask.scalef.ps.512"
        mask = ir.Constant(ir.IntType(16), -1)
    current = ir.Constant(INT, 4)  # the rounding that is set
    scale = _intrinsic(builder, name, kind, [kind, kind, kind, mask.type, INT])
    scaled = builder.call(scale, [p, n, ir.Constant(kind, None), mask, current])
    return builder.extract_element(scaled, ir.Constant(INT, 0)) if lanes == 1 else _cut(builder, scaled, lanes)


def _intrinsic(builder: Any, name: str, result: Any, arguments: list[Any]) -> Any:
    module = builder.module
    return module.globals.get(name) or ir.Function(module, ir.FunctionType(result, arguments), name)


def _filled(builder: Any, value: Any) -> Any:
    """A short vector as the first lanes of 16."""
    lanes = value.type.count
    order = [min(lane, lanes) for lane in range(16)]
    return value if lanes == 16 else _shuffled(builder, value, order)


def _cut(builder: Any, value: Any, lanes: int) -> Any:
    """The first lanes of 16."""
    return value if lanes == 16 else _shuffled(builder, value, list(range(lanes)))


def _shuffled(builder: Any, value: Any, order: list[int]) -> Any:
    zero = ir.Constant(value.type, None)
    return builder.shuffle_vector(value, zero, ir.Constant(ir.VectorType(INT, len(order)), order))
