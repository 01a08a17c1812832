"""vecmath: accuracy, special values, vector code, and the NumPy twin."""

from __future__ import annotations

import ctypes
import importlib.machinery
import importlib.util
import math
import re
import subprocess
import sys
import time
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from graphc.codegen import host, vecmath
from graphc.errors import RuntimeFault
from graphc.runtime import jit

TOOLS = Path(__file__).resolve().parents[2] / "tools"
NAN, INF = math.nan, math.inf
SPECIALS = [NAN, INF, -INF, 0.0, -0.0, 1e-45, -1e-45, 88.72284, 88.8, 103.97, 104.5, 1e4, 3e38, -3e38]
FORMATS = {"f32": np.float32, "f64": np.float64}
NAMES = [*vecmath.UNARY, *vecmath.BINARY]
EVERY = pytest.mark.parametrize("name", NAMES)


@cache
def tool(name: str) -> ModuleType:
    """A script of tools/ as a module."""
    loader = importlib.machinery.SourceFileLoader(name.removesuffix(".py"), str(TOOLS / name))
    spec = importlib.util.spec_from_loader(loader.name, loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[loader.name] = module
    loader.exec_module(module)
    return module


def run(name: str, dtype: type, *arguments: Any) -> np.ndarray:
    arrays = [np.atleast_1d(np.asarray(a, dtype)) for a in arguments]
    out = np.empty_like(arrays[0])
    tool("check_vecmath").compiled(name, dtype)(arrays[0], arrays[-1], out)
    return out


# -- accuracy -------------------------------------------------------------------------------------
@EVERY
def test_float32_error_stays_in_the_stated_bound(name: str) -> None:
    """A prime stride through the bit patterns, and the special values."""
    error, where = tool("check_vecmath").check_f32(name, 100_003)
    assert error <= vecmath.ERROR_BOUNDS[name, "f32"], where


@pytest.mark.parametrize("name, worst", [("exp", -22.0294838), ("sigmoid", -4.14497089), ("tanh", 0.0622414239)])
def test_float32_error_stays_in_the_bound_where_it_is_largest(name: str, worst: float) -> None:
    """Where the whole of float32 has shown a formula to be at its worst: all numbers around."""
    x = (np.float32(worst).view(np.int32) + np.arange(-20_000, 20_000, dtype=np.int32)).view(np.float32)
    error, where = tool("check_vecmath").f32_kernel(name)(x, x)
    assert error <= vecmath.ERROR_BOUNDS[name, "f32"], where


@EVERY
def test_float64_error_stays_in_the_stated_bound(name: str) -> None:
    error, where = tool("check_vecmath").check_f64(name, 400)
    assert error <= vecmath.ERROR_BOUNDS[name, "f64"], where


def test_every_function_has_a_bound_of_two_ulp() -> None:
    assert set(vecmath.ERROR_BOUNDS) == {(n, f) for n in NAMES for f in FORMATS}
    assert max(vecmath.ERROR_BOUNDS.values()) <= 2.0


def test_the_ruler_measures() -> None:
    """ulp_error itself: one step, a wrong sign of zero, NaN, overflow."""
    ulp = tool("check_vecmath").ulp_error
    assert ulp(1.0 + 2.0**-23, 1.0, 23, -126, 127) == 1.0
    assert ulp(2.0**-149, 2.0**-150, 23, -126, 127) == 0.5
    assert ulp(-0.0, 0.0, 23, -126, 127) == INF
    assert ulp(NAN, 1.0, 23, -126, 127) == INF
    assert ulp(INF, 3e38, 23, -126, 127) > 1e6
    assert ulp(INF, 1e300, 23, -126, 127) == 0.0


# -- special values: written out, so that they do not rest on another library ---------------------
SPECIAL = [
    ("exp", [(-INF, 0.0), (INF, INF), (0.0, 1.0), (-0.0, 1.0), (1e4, INF), (-1e4, 0.0)]),
    ("exp2", [(-INF, 0.0), (INF, INF), (3.0, 8.0), (-1.0, 0.5), (1e5, INF), (-1e5, 0.0)]),
    ("expm1", [(-INF, -1.0), (INF, INF), (0.0, 0.0), (-0.0, -0.0), (-1e4, -1.0), (1e4, INF)]),
    ("log", [(0.0, -INF), (-0.0, -INF), (1.0, 0.0), (INF, INF), (-1.0, NAN), (-INF, NAN)]),
    ("log2", [(0.0, -INF), (-0.0, -INF), (1.0, 0.0), (8.0, 3.0), (INF, INF), (-1.0, NAN)]),
    ("log1p", [(-1.0, -INF), (0.0, 0.0), (-0.0, -0.0), (INF, INF), (-2.0, NAN), (-INF, NAN)]),
    ("tanh", [(-INF, -1.0), (INF, 1.0), (0.0, 0.0), (-0.0, -0.0), (40.0, 1.0), (-40.0, -1.0)]),
    ("sigmoid", [(-INF, 0.0), (INF, 1.0), (0.0, 0.5), (-0.0, 0.5), (100.0, 1.0), (-1e4, 0.0)]),
    ("erf", [(-INF, -1.0), (INF, 1.0), (0.0, 0.0), (-0.0, -0.0), (9.0, 1.0), (-9.0, -1.0)]),
    ("sqrt", [(-1.0, NAN), (INF, INF), (0.0, 0.0), (-0.0, -0.0), (9.0, 3.0)]),
    ("sin", [(-INF, NAN), (INF, NAN), (0.0, 0.0), (-0.0, -0.0)]),
    ("cos", [(-INF, NAN), (INF, NAN), (0.0, 1.0), (-0.0, 1.0)]),
]


def assert_identical(got: np.ndarray, want: np.ndarray) -> None:
    """Equal, NaN for NaN, and zeros of the same sign."""
    np.testing.assert_array_equal(got, want)
    zero = want == 0
    np.testing.assert_array_equal(np.signbit(got[zero]), np.signbit(want[zero]))


@pytest.mark.parametrize("dtype", FORMATS.values())
@pytest.mark.parametrize("name, cases", SPECIAL)
def test_special_values(name: str, cases: list[tuple[float, float]], dtype: type) -> None:
    inputs, outputs = zip(*cases, (NAN, NAN), strict=True)
    assert_identical(run(name, dtype, inputs), np.array(outputs, dtype))


#: C99, F.9.4.4: (x, y, x^y).
POWERS = [
    (NAN, 0.0, 1.0), (INF, -0.0, 1.0), (0.0, 0.0, 1.0), (1.0, NAN, 1.0), (1.0, INF, 1.0),
    (-1.0, INF, 1.0), (-1.0, -INF, 1.0), (NAN, 1.0, NAN), (2.0, NAN, NAN), (-1.0, NAN, NAN),
    (0.0, -1.0, INF), (-0.0, -1.0, -INF), (-0.0, -3.0, -INF), (0.0, -2.0, INF), (-0.0, -2.0, INF),
    (-0.0, -0.5, INF), (0.0, -INF, INF), (0.0, 3.0, 0.0), (-0.0, 3.0, -0.0), (-0.0, 2.0, 0.0),
    (-0.0, 0.5, 0.0), (0.0, INF, 0.0), (0.0, 1e-30, 0.0), (-2.0, 3.0, -8.0), (-2.0, 2.0, 4.0),
    (-2.0, -1.0, -0.5), (-2.0, 0.5, NAN), (-8.0, 1 / 3, NAN), (0.5, INF, 0.0), (0.5, -INF, INF),
    (2.0, INF, INF), (2.0, -INF, 0.0), (-2.0, INF, INF), (-0.5, INF, 0.0), (INF, 2.0, INF),
    (INF, -2.0, 0.0), (INF, 1e-30, INF), (-INF, 3.0, -INF), (-INF, 2.0, INF), (-INF, 0.5, INF),
    (-INF, -3.0, -0.0), (-INF, -2.0, 0.0), (-INF, -0.5, 0.0), (-1.0, 1e30, 1.0), (9.0, 0.5, 3.0),
    (-10.0, 1001.0, -INF), (-10.0, -1001.0, -0.0), (10.0, 1000.0, INF), (-1.0, 8388609.0, -1.0),
]  # fmt: skip


@pytest.mark.parametrize("dtype", FORMATS.values())
def test_pow_special_values(dtype: type) -> None:
    x, y, want = zip(*POWERS, strict=True)
    assert_identical(run("pow", dtype, x, y), np.array(want, dtype))


def test_subnormal_results_and_arguments() -> None:
    tiny = np.float32(2.0**-149)
    x = np.float32(-103.0)
    assert run("exp", np.float32, x)[0] == np.float32(math.exp(-103.0)) > 0
    assert run("log", np.float32, tiny)[0] == np.float32(-149 * math.log(2))
    assert run("exp2", np.float64, -1074.0)[0] == 5e-324
    for name in ("expm1", "log1p", "tanh", "sin"):
        assert run(name, np.float32, tiny)[0] == tiny, name


def test_huge_float32_angles() -> None:
    """Where π/2 times a rounded quotient would be pure noise."""
    x = np.float32([3e38, 1e30, -2.5e22, 4.758538e36, 1e15, 16367173 * 2.0**72])
    with np.errstate(all="ignore"):
        np.testing.assert_allclose(run("sin", np.float32, x), np.sin(x.astype(float)), rtol=1e-7)
        np.testing.assert_allclose(run("cos", np.float32, x), np.cos(x.astype(float)), rtol=1e-7)


# -- types ----------------------------------------------------------------------------------------
def call(source: str, signature: tuple[str, ...], *arguments: Any) -> None:
    """Run the kernel `k` of a text that uses the functions of vecmath."""
    symbol = f"vecmath_{abs(hash((source, signature)))}"
    code = jit.compile_kernel(source, "k", signature, vecmath.jit_namespace(), symbol=symbol)
    words = [a.ctypes.data if isinstance(a, np.ndarray) else a for a in arguments]
    ctypes.CFUNCTYPE(None, ctypes.c_void_p)(jit.load({symbol: code})[symbol])((ctypes.c_int64 * len(words))(*words))


@pytest.mark.parametrize("dtype", FORMATS)
def test_the_argument_chooses_the_format(dtype: str) -> None:
    """An integer takes the format beside it, or float64: e as a float32 is not e as a float64."""
    source = "def k(x, out, n):\n    out[0] = exp(x[0])\n    out[1] = pow(x[0], n)\n    out[2] = exp(n)\n"
    x, out = np.ones(1, FORMATS[dtype]), np.empty(3)
    call(source, (f"{dtype}*", "f64*", "i64"), x, out, 1)
    np.testing.assert_allclose(out[0], FORMATS[dtype](math.e), rtol=0)
    assert out[1] == 1.0 and out[2] == math.e


def test_another_type_is_refused() -> None:
    with pytest.raises(RuntimeFault, match="expected float32, float64 or an integer, found none"):
        call("def k(out):\n    out[0] = tanh(None)\n", ("f32*",), np.empty(1, np.float32))


# -- tables in registers --------------------------------------------------------------------------
wide = pytest.mark.skipif(host.vector_bytes() != 64, reason="this processor has no AVX-512")
TABLES = [name for name in NAMES if name in ("exp", "sigmoid", "tanh")]


@wide
@pytest.mark.parametrize("name", TABLES)
def test_numbers_are_looked_up_in_registers(name: str) -> None:
    """By an instruction for 16 lanes; nothing is called, and nothing is left of the functions of several lanes."""
    code = tool("check_vecmath").assembly(name, np.float32)
    assert re.search(r"\bvperm(ps|d)\s.*%zmm", code)
    assert not re.search(r"\bcall|\bjmp[a-z]*\s+\*|graphc\.lanes\.\w+\.\d+:", code)


@wide
@pytest.mark.parametrize("name", TABLES)
def test_all_lanes_and_the_rest_agree(name: str) -> None:
    """However long the loop is: by 16, 8 and 4 lanes, and one at a time."""
    x = np.random.default_rng(3).normal(0, 4, 100).astype(np.float32)
    whole = run(name, np.float32, x)
    for first, last in [(0, 1), (5, 8), (3, 7), (40, 48), (17, 33), (1, 100), (60, 91)]:
        np.testing.assert_array_equal(run(name, np.float32, x[first:last].copy()), whole[first:last])


@wide
def test_the_exponential_of_a_negated_number() -> None:
    """−y goes into the constants: the same bits, and the same special values."""
    x = np.concatenate([np.random.default_rng(4).normal(0, 40, 999), SPECIALS]).astype(np.float32)
    negated, squared = np.empty_like(x), np.empty_like(x)
    loop = "def k(x, out, n):\n    for i in range(n):\n        out[i] = exp(-({}))\n"
    call(loop.format("x[i]"), ("f32*", "f32*", "i64"), x, negated, x.size)
    assert_identical(negated, run("exp", np.float32, -x))
    call(loop.format("x[i] * x[i]"), ("f32*", "f32*", "i64"), x, squared, x.size)
    with np.errstate(all="ignore"):
        assert_identical(squared, run("exp", np.float32, -(x * x)))


# -- vector code and compile time -----------------------------------------------------------------
@pytest.mark.parametrize("name", [n for n in NAMES if n != "sqrt"])
def test_the_float32_loop_is_vectorised(name: str) -> None:
    """A fused multiply-add on packed registers, and no call of the function in libm."""
    code = tool("check_vecmath").assembly(name, np.float32)
    if not re.search(r"\bvfn?m(add|sub)\w+[sp][sd]\b", code):
        pytest.skip("this processor has no fused multiply-add as LLVM spells it on x86")
    assert re.search(r"\bvfn?m(add|sub)\w+p[sd]\s", code)
    assert not re.search(rf"\b{name}f?@PLT|\${name}f?\b", code)


def test_all_functions_compile_quickly() -> None:
    """One kernel with a call of each; the loose limit allows for a busy machine."""
    calls = [f"{n}(x[i])" for n in vecmath.UNARY] + ["pow(x[i], x[i])"]
    body = "".join(f"        out[{k} * n + i] = {one}\n" for k, one in enumerate(calls))
    x = np.linspace(0.1, 2.0, 100, dtype=np.float32)
    out = np.empty((len(calls), x.size), np.float32)
    start = time.process_time()
    call(f"def k(x, out, n):\n    for i in range(n):\n{body}", ("f32*", "f32*", "i64"), x, out, x.size)
    assert time.process_time() - start < 2.0
    np.testing.assert_allclose(out[0], np.exp(x), rtol=1e-6)


# -- the NumPy twin and the import ----------------------------------------------------------------
@EVERY
@pytest.mark.parametrize("dtype", FORMATS.values())
def test_numpy_namespace_agrees_and_keeps_the_dtype(name: str, dtype: type) -> None:
    x = np.linspace(-4.0, 4.0, 41).astype(dtype)
    arguments = [x, x[::-1].copy()] if name in vecmath.BINARY else [x]
    f = vecmath.numpy_namespace()[name]
    with np.errstate(all="ignore"):
        whole = f(*arguments)  # type: ignore[operator]
        one = f(*(a[3] for a in arguments))  # type: ignore[operator]
    assert whole.dtype == dtype and type(one) is dtype
    np.testing.assert_allclose(run(name, dtype, *arguments), whole, rtol=8 * np.finfo(dtype).eps)


def test_the_namespaces_bind_the_same_names() -> None:
    assert set(vecmath.jit_namespace()) == set(vecmath.numpy_namespace()) == set(NAMES)


def test_importing_is_light() -> None:
    code = (
        "import sys, graphc.codegen.vecmath as v; v.numpy_namespace();"
        "print(*sorted({'numba', 'llvmlite', 'scipy', 'sympy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


# -- the coefficients -----------------------------------------------------------------------------
def test_a_coefficient_set_is_what_the_fit_derives() -> None:
    """One short fit; tools/fit_vecmath.py --check does all of them."""
    pytest.importorskip("mpmath")
    from graphc.codegen.vecmath import coefficients

    fitter = tool("fit_vecmath.py")
    for fit in fitter.fits():
        if fit.name in ("EXP_F32", "EXPM1_F32", "SIN_F32"):
            derived, error = fitter.solve(fit)
            assert [fit.format(c) for c in getattr(coefficients, fit.name)] == derived
            assert error < -27
