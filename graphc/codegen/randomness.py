"""The word `random_bits(key, counter)` of kernels: 64 random bits, as graphc.ops.random states them.

`jit_namespace` binds it to straight-line LLVM IR in 32-bit words, which the loop vectoriser widens; `TEXT` is the same
in 64-bit arithmetic, as Python that is interpreted or compiled for a GPU. Tests hold both to the published vectors.
"""

from __future__ import annotations

from functools import cache
from typing import Any

ROUNDS = 20
ROTATIONS = (13, 15, 26, 6, 17, 29, 16, 24)
PARITY = 0x1BD11BDA
# stated here again, and not shared with graphc.ops.random, which is what this is tested against


def _text() -> str:
    mask = 0xFFFFFFFF
    lines = [
        "def random_bits(key, counter):",
        f"a = key & {mask}",
        f"b = (key >> 32) & {mask}",
        f"c = a ^ b ^ {PARITY}",
        f"x = (counter + a) & {mask}",
        f"y = ((counter >> 32) + b) & {mask}",
    ]
    for number in range(ROUNDS):
        turn = ROTATIONS[number % 8]
        lines.append(f"x = (x + y) & {mask}")
        lines.append(f"y = (((y << {turn}) | (y >> {32 - turn})) & {mask}) ^ x")
        if number % 4 == 3:
            block = number // 4 + 1
            lines.append(f"x = (x + {'abc'[block % 3]}) & {mask}")
            lines.append(f"y = (y + {'abc'[(block + 1) % 3]} + {block}) & {mask}")
    return "\n    ".join([*lines, "return (y << 32) | x"]) + "\n"


TEXT = _text()
"""A function of two int64 whose intermediate values are never negative and never longer than 62 bits, but the last."""


@cache
def numpy_namespace() -> dict[str, Any]:
    """The word as a function of NumPy's int64 scalars."""
    import numpy as np

    scope: dict[str, Any] = {}
    exec(compile(TEXT, "<random_bits>", "exec"), scope)
    function = scope["random_bits"]

    def random_bits(key: Any, counter: Any) -> Any:
        bits = function(int(key), int(counter))
        return np.uint64(bits).astype(np.int64)

    return {"random_bits": random_bits}


@cache
def jit_namespace() -> dict[str, Any]:
    """The word as a Numba intrinsic. Imports Numba."""
    from llvmlite import ir
    from numba.core import types
    from numba.core.extending import intrinsic

    word, wide = ir.IntType(32), ir.IntType(64)

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = ir.FunctionType(word, [word] * 3)
        rotate = builder.module.declare_intrinsic("llvm.fshl", [word], kind)

        def halves(value: Any) -> list[Any]:
            return [builder.trunc(v, word) for v in (value, builder.lshr(value, ir.Constant(wide, 32)))]

        keys = halves(args[0])
        keys.append(builder.xor(builder.xor(*keys), ir.Constant(word, PARITY)))
        x, y = (builder.add(v, k) for v, k in zip(halves(args[1]), keys, strict=False))
        for number in range(ROUNDS):
            x = builder.add(x, y)
            y = builder.xor(builder.call(rotate, [y, y, ir.Constant(word, ROTATIONS[number % 8])]), x)
            if number % 4 == 3:
                block = number // 4 + 1
                x = builder.add(x, keys[block % 3])
                y = builder.add(y, builder.add(keys[(block + 1) % 3], ir.Constant(word, block)))
        return builder.or_(builder.shl(builder.zext(y, wide), ir.Constant(wide, 32)), builder.zext(x, wide))

    @intrinsic
    def random_bits(typingctx: Any, key: Any, counter: Any) -> Any:
        return types.int64(types.int64, types.int64), emit

    return {"random_bits": random_bits}
