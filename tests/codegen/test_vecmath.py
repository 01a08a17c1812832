"""vecmath: accuracy, special values, vector code, and the NumPy twin."""

from __future__ import annotations

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

from graphc.codegen import vecmath

TOOLS = Path(__file__).resolve().parents[2] / "tools"
NAN, INF = math.nan, math.inf
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


@cache
def kernel(name: str) -> Any:
    """A loop of one call, compiled for each dtype it meets."""
    numba = pytest.importorskip("numba")
    parameters = "x, y" if name in vecmath.BINARY else "x"
    arguments = "x[i], y[i]" if name in vecmath.BINARY else "x[i]"
    namespace: dict[str, Any] = {"f": vecmath.jit_namespace()[name]}
    loop = f"def loop({parameters}, out):\n  for i in range(out.size): out[i] = f({arguments})\n"
    exec(loop, namespace)
    return numba.njit(error_model="numpy", fastmath={"contract"})(namespace["loop"])


def run(name: str, dtype: type, *arguments: Any) -> np.ndarray:
    arrays = [np.atleast_1d(np.asarray(a, dtype)) for a in arguments]
    out = np.empty_like(arrays[0])
    kernel(name)(*arrays, out)
    return out


# -- accuracy -------------------------------------------------------------------------------------
@EVERY
def test_float32_error_stays_in_the_stated_bound(name: str) -> None:
    """A prime stride through the bit patterns, and the special values."""
    error, where = tool("check_vecmath").check_f32(name, 100_003)
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
def test_the_argument_chooses_the_format() -> None:
    numba = pytest.importorskip("numba")
    f = vecmath.jit_namespace()
    exp, power = f["exp"], f["pow"]

    @numba.njit
    def both(x, n):  # type: ignore[no-untyped-def]
        return exp(x), power(x, n), exp(n)

    signatures = {
        numba.float32: (numba.float32, numba.float32, numba.float64),
        numba.float64: (numba.float64, numba.float64, numba.float64),
    }
    for argument, results in signatures.items():
        compiled = numba.njit((argument, numba.int64))(both.py_func)
        assert compiled.nopython_signatures[0].return_type.types == results
    assert both(np.float32(2.0), 3)[1] == 8.0


def test_another_type_is_refused() -> None:
    numba = pytest.importorskip("numba")
    tanh = vecmath.jit_namespace()["tanh"]
    with pytest.raises(numba.core.errors.TypingError, match="expected float32"):
        numba.njit(lambda x: tanh(x))(1j)


# -- vector code and compile time -----------------------------------------------------------------
@pytest.mark.parametrize("name", [n for n in NAMES if n != "sqrt"])
def test_the_float32_loop_is_vectorised(name: str) -> None:
    """A fused multiply-add on packed registers, and no call of the function in libm."""
    run(name, np.float32, *[[1.0]] * (2 if name in vecmath.BINARY else 1))
    code = {str(s[0].dtype): asm for s, asm in kernel(name).inspect_asm().items()}["float32"]
    if not re.search(r"\bvfn?m(add|sub)\w+[sp][sd]\b", code):
        pytest.skip("this processor has no fused multiply-add as LLVM spells it on x86")
    assert re.search(r"\bvfn?m(add|sub)\w+p[sd]\s", code)
    assert not re.search(rf"\b{name}f?@PLT|\${name}f?\b", code)


def test_all_functions_compile_quickly() -> None:
    """One kernel with a call of each; the loose limit allows for a busy machine."""
    numba = pytest.importorskip("numba")
    calls = [f"{n}(x[i])" for n in vecmath.UNARY] + ["pow(x[i], x[i])"]
    namespace = dict(vecmath.jit_namespace())
    body = "".join(f"    out[{k}, i] = {call}\n" for k, call in enumerate(calls))
    exec(f"def loop(x, out):\n  for i in range(x.size):\n{body}", namespace)
    loop = numba.njit(error_model="numpy")(namespace["loop"])
    x = np.linspace(0.1, 2.0, 100, dtype=np.float32)
    out = np.empty((len(calls), x.size), np.float32)
    start = time.process_time()
    loop(x, out)
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
