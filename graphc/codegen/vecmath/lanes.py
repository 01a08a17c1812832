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

import re
import struct
from collections.abc import Iterable, Sequence

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
DECLARATION = re.compile(rf'^declare float @"{re.escape(PREFIX)}(\w+)"\(.*\)', re.MULTILINE)


# -- for the vectoriser ---------------------------------------------------------------------------
def announced(text: str) -> str:
    """A module's text with the wide forms of the words it calls."""
    words = DECLARATION.findall(text)
    if not words:
        return text
    forms = [(word, width) for word in words for width in WIDTHS]
    # What no one calls yet would be dropped.
    kept = ", ".join(f"ptr @{_wide(word, width)}" for word, width in forms)
    return "\n".join([
        DECLARATION.sub(lambda found: f"{found[0]} {_attributes(found[1])}", text),
        *(f"declare {_head(_wide(word, width), word, width)}" for word, width in forms),
        f'@llvm.compiler.used = appending global [{len(forms)} x ptr] [{kept}], section "llvm.metadata"',
    ])  # fmt: skip


def _attributes(word: str) -> str:
    lanes = "v" * len(_kinds(word))
    forms = (f"_ZGV_LLVM_N{width}{lanes}_{PREFIX}{word}({_wide(word, width)})" for width in WIDTHS)
    return f'nounwind willreturn memory(none) "vector-function-abi-variant"="{",".join(forms)}"'


def _wide(word: str, width: int) -> str:
    return f"{PREFIX}{word}.{width}"


def _kinds(word: str) -> tuple[str, ...]:
    """The types of a word's arguments."""
    return ("float", "float") if word == SCALEF else ("i32",)


def _head(name: str, word: str, lanes: int) -> str:
    arguments = (f"{_vector(kind, lanes)} %{k}" for k, kind in enumerate(_kinds(word)))
    return f"{_vector('float', lanes)} @{name}({', '.join(arguments)})"


def _vector(kind: str, lanes: int) -> str:
    return kind if lanes == 1 else f"<{lanes} x {kind}>"


# -- bodies ---------------------------------------------------------------------------------------
LOOKUP = "declare <16 x float> @llvm.x86.avx512.permvar.sf.512(<16 x float>, <16 x i32>)"
SCALE = (
    "declare <16 x float> @llvm.x86.avx512.mask.scalef.ps.512(<16 x float>, <16 x float>, <16 x float>, i16, i32)",
    "declare <4 x float> @llvm.x86.avx512.mask.scalef.ss(<4 x float>, <4 x float>, <4 x float>, i8, i32)",
)


def definitions(names: Iterable[str]) -> str:
    """LLVM IR of the functions of these names, to be inlined and then forgotten."""
    lines = [LOOKUP, *SCALE]
    for name in names:
        word, _, width = name.removeprefix(PREFIX).partition(".")
        lanes = int(width or 1)
        if lanes == 1 and word != SCALEF:
            lines.append(f"@{word} = internal unnamed_addr constant [16 x float] [{_numbers(TABLES[word])}]")
        lines.append(f"define available_externally {_head(name, word, lanes)} alwaysinline {{")
        lines += _one_lane(word) if lanes == 1 else _all_lanes(word, lanes)
        lines += [f"  ret {_vector('float', lanes)} %result", "}"]
    return "\n".join(lines)


def _one_lane(word: str) -> list[str]:
    if word != SCALEF:  # the low four bits count, as for the instruction
        return [
            "  %low = and i32 %0, 15",
            f"  %place = getelementptr inbounds [16 x float], ptr @{word}, i32 0, i32 %low",
            "  %result = load float, ptr %place",
        ]
    return [  # the instruction for one number takes the first of four lanes
        *(f"  %x{k} = insertelement <4 x float> zeroinitializer, float %{k}, i32 0" for k in (0, 1)),
        "  %y = call <4 x float> @llvm.x86.avx512.mask.scalef.ss("
        "<4 x float> %x0, <4 x float> %x1, <4 x float> zeroinitializer, i8 1, i32 4)",
        "  %result = extractelement <4 x float> %y, i32 0",
    ]


def _all_lanes(word: str, lanes: int) -> list[str]:
    """By the instruction for 16 lanes, whose others are idle."""
    kinds = _kinds(word)
    if word == SCALEF:  # every lane, and rounding as it is set
        call = "mask.scalef.ps.512(<16 x float> %x0, <16 x float> %x1, <16 x float> zeroinitializer, i16 -1, i32 4)"
    else:
        call = f"permvar.sf.512(<16 x float> <{_numbers(TABLES[word])}>, <16 x i32> %x0)"
    return [
        *(_shuffled(f"x{k}", f"<{lanes} x {kind}> %{k}", [min(i, lanes - 1) for i in range(16)])
          for k, kind in enumerate(kinds)),
        f"  %y = call <16 x float> @llvm.x86.avx512.{call}",
        _shuffled("result", "<16 x float> %y", range(lanes)),
    ]  # fmt: skip


def _shuffled(name: str, vector: str, order: Sequence[int]) -> str:
    indices = ", ".join(f"i32 {i}" for i in order)
    nothing = vector.partition("%")[0] + "poison"
    return f"  %{name} = shufflevector {vector}, {nothing}, <{len(order)} x i32> <{indices}>"


def _numbers(table: Sequence[float]) -> str:
    """float32 numbers as LLVM reads them: the bits of the same numbers in float64."""
    rounded = struct.unpack("16f", struct.pack("16f", *table))
    return ", ".join(f"float 0x{struct.pack('>d', number).hex()}" for number in rounded)
