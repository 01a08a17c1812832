"""The compiler of kernels: what it accepts, what the machine code does, what the optimiser may and may not do."""
from __future__ import annotations

import ctypes
import math
import re
import subprocess
import sys
import textwrap

import llvmlite.binding as llvm
import numpy as np
import pytest

from graphc.codegen import primitives
from graphc.errors import RuntimeFault
from graphc.runtime import jit

F32 = ("f32*", "f32*", "i64")
DTYPES = {"f32": np.float32, "f64": np.float64, "i32": np.int32, "i64": np.int64, "u8": np.uint8, "bool": np.bool_}
SPECIAL = [math.nan, math.inf, -math.inf, 0.0, -0.0, 1.5, -2.5, 3e38, 1e-40]


def compiled(source, name, signature):
    """The compiled kernel as a function of arrays and integers."""
    symbol = f"test_{name}_{abs(hash((source, signature)))}"
    code = jit.compile_kernel(source, name, signature, primitives.jit_namespace(), symbol=symbol)
    entry = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(jit.load({symbol: code})[symbol])

    def call(*arguments):
        words = [a.ctypes.data if isinstance(a, np.ndarray) else a for a in arguments]
        entry((ctypes.c_int64 * len(words))(*words))

    return call


def interpreted(source, name):
    return jit.run_python(source, name, primitives.numpy_namespace())


def llvm_of(source, name, signature):
    return jit.inspect_llvm(source, name, signature, primitives.jit_namespace())


def vector_width(ir, element="float"):
    return max((int(n) for n in re.findall(rf"<(\d+) x {element}>", ir)), default=1)


@pytest.mark.parametrize("bounds", ["range(n)", "range(m, n)", "range(m, n, 3)", "range(m, n, n)", "range(i32(n))", "range(7)"])
@pytest.mark.parametrize("m, n", [(0, 10), (3, 10), (-4, 5), (5, 5), (9, 2), (-6, -2), (0, 1)])
def test_range(bounds, m, n):
    source = f"def k(y, m, n):\n    a = i64(0)\n    for i in {bounds}:\n        a = a * 31 + i + 100\n    y[0] = a\n"
    expected = 0
    for i in eval(bounds, {"i32": int, "m": m, "n": n}) if "n, n" not in bounds or n > 0 else ():
        expected = expected * 31 + i + 100
    y = np.array([-1])
    if n > 0 or "n, n" not in bounds:  # a step of a kernel is 1 or more
        compiled(source, "k", ("i64*", "i64", "i64"))(y, m, n)
        assert y[0] == expected


def test_a_range_is_a_comparison_and_an_addition():
    """Neither a division, which counts the turns, nor an error that a step of 0 would be."""
    text, _ = jit._numba_ir("def k(y, m, n):\n    for i in range(m, n, 64):\n        y[i] = f32(1)\n", "k",
                            ("f32*", "i64", "i64"), primitives.jit_namespace())
    body = text[0][text[0].index("define"):]
    assert "sdiv" not in body and "srem" not in body and len(body.splitlines()) < 90


@pytest.mark.parametrize("first, second, types", [
    ("f32(0)", "a + 1.0", "float64, but float32"), ("f32(0)", "n", "float64, but (float32|int64)"),
    ("i64(1)", "f32(2)", "float64, but (int64|float32)"), ("0", "f64(2)", "float64, but int64"),
    ("1.0", "f32(2)", "float64, but float32"), ("n", "n > 2", "int64, but bool"), ("i32(n)", "n", "int64, but int32"),
    ("True", "n", "int64, but bool")])
@pytest.mark.parametrize("text", ["a = {0}\nfor i in range(n):\n    a = {1}", "if n > 2:\n    a = {0}\nelse:\n    a = {1}"],
                         ids=["loop", "branch"])
def test_a_name_has_one_type(first, second, types, text):
    """Numba would make one type of several, and compute in it."""
    text = text.format(first, second if "else" not in text else second.replace("a +", "n +"))
    with pytest.raises(RuntimeFault) as caught:
        compiled("def k(x, n):\n" + textwrap.indent(text + "\nx[0] = f32(a)\n", "    "), "k", ("f32*", "i64"))
    assert re.search(rf"^a is {types}\d* here$", caught.value.why, re.MULTILINE)


def test_a_name_has_several_values():
    """Uses of a name are told apart by where they stand, in branches and loops too."""
    source = textwrap.dedent("""
        def k(x, m, n):
            a = m
            if n > 2:
                a = a * 10
                b = a + n
            else:
                b = 7
            for i in range(n):
                a = a + b
                b = i
            while a > 1000:
                a = a - b
            x[0] = a
            x[1] = b
        """)
    for m, n in [(0, 0), (3, 1), (3, 5), (900, 40), (-8, 3)]:
        got, want = np.zeros((2, 2), np.int64)
        compiled(source, "k", ("i64*", "i64", "i64"))(got, m, n)
        interpreted(source, "k")(want, m, n)
        assert got.tolist() == want.tolist(), (m, n)


def test_the_halves_of_a_compilation():
    """The first gives text alone, of which any process makes the same code."""
    source, name, signature = elementwise("x[i] * y[i] + y[i]")
    modules = jit.kernel_ir(source, name, signature, primitives.jit_namespace(), "a_symbol")
    assert all(isinstance(text, str) for text in modules)
    assert jit.object_code(modules, "a_symbol") == jit.object_code(modules, "a_symbol") == jit.compile_kernel(
        source, name, signature, primitives.jit_namespace(), symbol="a_symbol")
    with pytest.raises(RuntimeError):
        jit.object_code(("no IR",), "a_symbol")


def elementwise(expression, out="f32", inputs=("f32", "f32")):
    names = "xyz"[:len(inputs)]
    arguments = ", ".join(names)
    source = f"def k({arguments}, r, n):\n    for i in range(n):\n        r[i] = {expression}\n"
    return source, "k", tuple(f"{t}*" for t in (*inputs, out)) + ("i64",)


def both(expression, arrays, out="f32"):
    """The results of an elementwise kernel, compiled and interpreted."""
    inputs = tuple(next(k for k, v in DTYPES.items() if v == a.dtype) for a in arrays)
    source, name, signature = elementwise(expression, out, inputs)
    results = []
    for run in (compiled(source, name, signature), interpreted(source, name)):
        result = np.zeros(arrays[0].size, DTYPES[out])
        with np.errstate(all="ignore"):
            run(*arrays, result, result.size)
        results.append(result)
    return results


def pairs(dtype=np.float32):
    a, b = np.meshgrid(np.array(SPECIAL), np.array(SPECIAL))
    return a.ravel().astype(dtype), b.ravel().astype(dtype)


LINEAR_RELU = '''
def linear_relu(x, b, y, n0, n1):
    """y[i, j] = max(x[i, j] + b[j], 0)"""
    for i in range(n0):
        o = i * n1
        for j in range(n1):
            y[o + j] = fmax(x[o + j] + b[j], f32(0))
'''


def test_one_text_two_runs():
    rng = np.random.default_rng(0)
    x, b = rng.standard_normal((7, 37), np.float32), rng.standard_normal(37, np.float32)
    fast, plain = np.empty_like(x), np.empty_like(x)
    compiled(LINEAR_RELU, "linear_relu", ("f32*", "f32*", "f32*", "i64", "i64"))(x, b, fast, 7, 37)
    interpreted(LINEAR_RELU, "linear_relu")(x.ravel(), b, plain.reshape(-1), 7, 37)
    expected = np.maximum(x + b, 0)
    np.testing.assert_array_equal(fast, expected)
    np.testing.assert_array_equal(plain, expected)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("word, function", [("fmax", np.maximum), ("fmin", np.minimum)])
def test_extremes_propagate_nan(word, function, dtype):
    a, b = pairs(dtype)
    for result in both(f"{word}(x[i], y[i])", (a, b), "f32" if dtype is np.float32 else "f64"):
        np.testing.assert_array_equal(result, function(a, b))


def test_scalar_words():
    a, b = pairs()
    cases = {
        "select(x[i] > y[i], x[i], y[i])": np.where(a > b, a, b),
        "fabs(x[i])": np.abs(a),
        "floor(x[i])": np.floor(a),
        "select(isnan(x[i]), f32(7), y[i])": np.where(np.isnan(a), np.float32(7), b),
    }
    for expression, expected in cases.items():
        for result in both(expression, (a, b)):
            np.testing.assert_array_equal(result, expected, err_msg=expression)
            np.testing.assert_array_equal(np.signbit(result), np.signbit(expected), err_msg=expression)


def test_fma_rounds_once():
    x = np.array([1 + 2**-12], np.float32)
    expected = np.float32(np.float64(x[0]) ** 2 - 1)  # the product alone would lose its last bit
    assert expected != x[0] * x[0] - np.float32(1)
    for result in both("fma(x[i], x[i], f32(-1))", (x,)):
        assert result[0] == expected


@pytest.mark.parametrize("dtype", ["f32", "f64", "i32", "i64", "bool"])
def test_casts(dtype):
    word = "bool_" if dtype == "bool" else dtype
    x = np.array([0, 1, -3, 2.75, 0.25, 100], np.float32)
    for result in both(f"{word}(x[i])", (x,), dtype):
        np.testing.assert_array_equal(result.view(np.uint8), x.astype(DTYPES[dtype]).view(np.uint8))


def test_casts_of_literals_are_constants():
    ir = llvm_of("def k(y, n):\n    for i in range(n):\n        y[i] = f32(3) * f32(0.5)\n", "k", ("f32*", "i64"))
    assert "sitofp" not in ir and "fptrunc" not in ir and "1.500000e+00" in ir


def test_bools_are_bytes():
    x = np.array([-1, 0, 2, np.nan], np.float32)
    mask = np.array([True, True, False, True])
    for result in both("(x[i] > f32(0)) | (y[i] & (not (x[i] < f32(0))))", (x, mask), "bool"):
        np.testing.assert_array_equal(result, (x > 0) | (mask & ~(x < 0)))
        assert set(result.view(np.uint8)) <= {0, 1}


@pytest.mark.parametrize("word, function", [("radd", np.sum), ("rmul", np.prod), ("rmax", np.max), ("rmin", np.min)])
@pytest.mark.parametrize("dtype", ["f32", "f64", "i64"])
def test_reductions_vectorise(word, function, dtype):
    source = f"def k(x, y, n):\n    a = x[0]\n    for i in range(1, n):\n        a = {word}(a, x[i])\n    y[0] = a\n"
    signature = (f"{dtype}*", f"{dtype}*", "i64")
    element = {"f32": "float", "f64": "double", "i64": "i64"}[dtype]
    assert vector_width(llvm_of(source, "k", signature), element) >= 2
    x = (np.random.default_rng(1).random(1003) + 0.5).astype(DTYPES[dtype]) if dtype != "i64" else np.arange(1, 20)
    y = np.zeros(1, DTYPES[dtype])
    compiled(source, "k", signature)(x, y, x.size)
    np.testing.assert_allclose(y[0], function(x), rtol=1e-5)


@pytest.mark.parametrize("word", ["rmax", "rmin"])
def test_extreme_reductions_propagate_nan(word):
    source = f"def k(x, y, n):\n    a = x[0]\n    for i in range(1, n):\n        a = {word}(a, x[i])\n    y[0] = a\n"
    run = compiled(source, "k", F32)
    for position in (0, 1, 77, 199):
        x, y = np.zeros(200, np.float32), np.zeros(1, np.float32)
        x[position] = np.nan
        run(x, y, 200)
        assert np.isnan(y[0])


def test_only_reduction_steps_are_reassociated():
    source = "def k(x, y, n):\n    a = f32(0)\n    for i in range(n):\n        a = a + x[i]\n    y[0] = a\n"
    ir = llvm_of(source, "k", F32)
    assert vector_width(ir) == 1 and "reassoc" not in ir
    x, y = np.random.default_rng(2).standard_normal(1000).astype(np.float32), np.zeros(1, np.float32)
    compiled(source, "k", F32)(x, y, 1000)
    assert y[0] == np.add.accumulate(x)[-1]  # the sum in order, bit for bit

    mixed = "def k(x, y, n):\n    a = f32(0)\n    for i in range(n):\n        a = radd(a, (x[i] + f32(1)) - f32(1))\n    y[0] = a\n"
    ir = llvm_of(mixed, "k", F32)
    assert vector_width(ir) >= 4 and "splat (float -1.0" in ir  # (x + 1) - 1 is still computed


def test_no_flag_denies_nan_or_infinity():
    ir = llvm_of("def k(x, y, n):\n    a = x[0]\n    for i in range(n):\n        a = rmax(a, radd(x[i], fmax(x[i], a)))\n"
                 "    y[0] = fma(a, a, a)\n", "k", F32)
    flags = set(re.findall(r"= fadd ([a-z ]*?)(?:float|<)", ir))
    assert flags == {"reassoc contract "}
    for flag in ("nnan", "ninf", "fast ", "arcp", "afn"):
        assert flag not in ir, flag


def test_products_and_sums_contract():
    asm = jit.inspect_asm(*elementwise("x[i] * y[i] + y[i]"), primitives.jit_namespace())
    if "+fma" in jit.host_cpu()[1].split(","):
        assert "fmadd" in asm


def test_sums_of_products_are_fused():
    source = "def k(x, y, n):\n    a = f32(0)\n    for i in range(n):\n        a = radd(a, x[i] * x[i])\n    y[0] = a\n"
    asm = jit.inspect_asm(source, "k", F32, primitives.jit_namespace())
    if "+fma" in jit.host_cpu()[1].split(","):
        assert "vfmadd" in asm and "vaddss" not in asm.split("vfmadd")[0]


def test_pointers_are_noalias():
    source, name, signature = elementwise("x[i] * f32(0.1) + y[i] * x[i] - f32(2)")
    ir = llvm_of(source, name, signature)
    assert vector_width(ir) >= 4
    assert "vector.memcheck" not in ir
    assert ir.count("\ndefine ") == 1  # the kernel is inlined into the entry


def test_division_vectorises_without_a_zero_check():
    source, name, signature = elementwise("x[i] / y[i]")
    assert vector_width(llvm_of(source, name, signature)) >= 4
    x, y = pairs()
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(both("x[i] / y[i]", (x, y))[0], x / y)


def test_library_functions_resolve():
    zero = "def k(x, y, n):\n    for i in range(n):\n        y[i] = f32(0)\n"
    assert "memset" in jit.inspect_asm(zero, "k", F32, primitives.jit_namespace())
    y = np.ones(50, np.float32)
    compiled(zero, "k", F32)(y, y, 50)
    assert not y.any()
    x = np.array([0.5, 2, 3], np.float32)
    np.testing.assert_allclose(both("x[i] ** x[i]", (x,))[0], x**x, rtol=1e-6)


def test_unknown_name_is_told_with_the_text():
    source = "def k(x, y, n):\n    y[0] = nonsense(x[0])\n"
    with pytest.raises(RuntimeFault, match="kernel k does not compile") as caught:
        compiled(source, "k", F32)
    assert "nonsense" in str(caught.value.why) and source in str(caught.value.how)


def test_unresolved_symbol_is_named():
    module = llvm.parse_assembly(
        "declare void @no_such_function()\n"
        "define void @test_unresolved(ptr %args) {\n  call void @no_such_function()\n  ret void\n}")
    code = jit._target_machine().emit_object(module)
    with pytest.raises(RuntimeFault, match="no_such_function"):
        jit.load({"test_unresolved": code})


def test_broken_object_code_is_refused():
    with pytest.raises(RuntimeFault, match="cannot be linked"):
        jit.load({"test_broken": b"not object code"})


def test_interpreter_shows_the_kernels_own_line():
    import traceback
    run = interpreted("def k(x, n):\n    for i in range(n):\n        x[i] = x[i + n]\n", "k")
    try:
        run(np.zeros(3), 3)
    except IndexError:
        assert "x[i] = x[i + n]" in traceback.format_exc()
    else:
        pytest.fail("an index out of range was not noticed")


def test_loading_needs_no_numba(tmp_path):
    source, name, signature = elementwise("x[i] + y[i]")
    (tmp_path / "k.o").write_bytes(jit.compile_kernel(source, name, signature, primitives.jit_namespace()))
    script = f"""
import ctypes, pathlib, sys
import numpy as np
from graphc.runtime import jit
address = jit.load({{"k": pathlib.Path({str(tmp_path / "k.o")!r}).read_bytes()}})["k"]
x, y = np.arange(5, dtype="f4"), np.zeros(5, "f4")
ctypes.CFUNCTYPE(None, ctypes.c_void_p)(address)((ctypes.c_int64 * 4)(x.ctypes.data, x.ctypes.data, y.ctypes.data, 5))
assert (y == 2 * x).all()
assert "numba" not in sys.modules, "numba was imported"
"""
    subprocess.run([sys.executable, "-c", script], check=True)
