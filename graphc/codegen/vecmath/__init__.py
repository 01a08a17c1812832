"""Elementary functions that LLVM can vectorise, for float32 and float64.

Generated kernels are plain Python (`y[i] = tanh(x[i])`); the names they call are bound through a
namespace.  `jit_namespace` binds them to Numba intrinsics that build straight-line LLVM IR in the
argument's type, so that the loop around them becomes AVX2, AVX-512 or Neon code: llvmlite's wheels
have no vector math library, and one libm call an element is ten times slower.  `numpy_namespace`
binds the same names to NumPy, for running the same source without a compiler.

Special values (NaN, infinities, zeros of both signs, subnormals) are NumPy's.  Errors are at most
2 ULP, `ERROR_BOUNDS` by function and format, as tools/check_vecmath measures them.

Limits.  sin, cos and pow in float64 call the platform's libm, an element at a time.  A machine
without fused multiply-add runs `llvm.fma` in software: right, but slow.  The formulas survive
`fastmath={"contract"}`, and no flag beyond it: `nnan`, `ninf`, `nsz` and `reassoc` remove what
they rely on.

    emit          LLVM IR written as arithmetic
    lanes         tables in registers, where there is AVX-512
    coefficients  written by tools/fit_vecmath.py
    functions     the formulas
    intrinsics    their binding to Numba
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np

UNARY = (
    "exp", "exp2", "expm1", "log", "log2", "log1p", "tanh", "sigmoid", "erf", "sqrt", "sin", "cos",
)  # fmt: skip
BINARY = ("pow",)

#: Largest error in ULP by (name, format), rounded up: over all inputs in float32 (sampled pairs
#: for pow), over millions of random ones in float64, with some room for those not drawn. With AVX-512
#: float32's tanh stays below 1.07, and without it exp below 0.93.
#: float64's sin, cos and pow are the platform's (glibc: 0.52).
ERROR_BOUNDS: dict[tuple[str, str], float] = {
    ("exp", "f32"): 0.99, ("exp", "f64"): 0.92,
    ("exp2", "f32"): 1.00, ("exp2", "f64"): 1.03,
    ("expm1", "f32"): 1.59, ("expm1", "f64"): 1.78,
    ("log", "f32"): 1.00, ("log", "f64"): 0.82,
    ("log2", "f32"): 1.69, ("log2", "f64"): 1.06,
    ("log1p", "f32"): 1.64, ("log1p", "f64"): 1.35,
    ("tanh", "f32"): 1.96, ("tanh", "f64"): 1.58,
    ("sigmoid", "f32"): 1.49, ("sigmoid", "f64"): 1.48,
    ("erf", "f32"): 1.66, ("erf", "f64"): 1.10,
    ("sqrt", "f32"): 0.50, ("sqrt", "f64"): 0.50,
    ("sin", "f32"): 0.69, ("sin", "f64"): 1.00,
    ("cos", "f32"): 0.69, ("cos", "f64"): 1.00,
    ("pow", "f32"): 0.51, ("pow", "f64"): 1.00,
}  # fmt: skip


@cache
def jit_namespace() -> dict[str, object]:
    """name → Numba intrinsic.  Arguments: one float type, integers beside it converted to it."""
    from .intrinsics import make

    return {name: make(name, 1) for name in UNARY} | {name: make(name, 2) for name in BINARY}


@cache
def numpy_namespace() -> dict[str, object]:
    """name → NumPy function that keeps float32 and float64 (warnings by the caller's errstate)."""
    same = {name: getattr(np, name) for name in UNARY if name not in ("sigmoid", "erf")}
    return same | {"pow": np.power, "sigmoid": _sigmoid, "erf": _erf}


def _sigmoid(x: Any) -> Any:
    e = np.exp(-np.abs(x))
    return np.where(x < 0, e, np.ones_like(e))[()] / (1 + e)


_erf_object = np.frompyfunc(math.erf, 1, 1)


def _erf(x: Any) -> Any:
    x = np.asarray(x)
    dtype = x.dtype if x.dtype.kind == "f" else np.float64
    return np.asarray(_erf_object(x)).astype(dtype)[()]
