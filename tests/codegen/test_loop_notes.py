"""What the compiler is told of loops: short rows, deep chains. The notes reach LLVM and change no value."""
from __future__ import annotations

import ctypes

import numpy as np
import pytest

import graphc as gc
from graphc.codegen.primitives import LOOP_NOTES
from graphc.graph.dtype import f32
from graphc.runtime import jit
from tests.lowering.structure import lowered

SUMS = """def sums(x, y, n, c):
    for i in range(n):
        v = f32(0)
        m = f32(-1e999)
        for j in range(c):
            short()
            v = radd(v, x[i*c + j])
            m = rmax(m, x[i*c + j])
        y[i*2] = v
        y[i*2 + 1] = m
"""
SIGNATURE = ("f32*", "f32*", "i64", "i64")


@gc.model
def softmax(x: gc.f32["B", "C"]):
    return gc.outputs(p=gc.softmax(x))


@gc.model
def fixed(x: gc.f32["B", 96]):
    return gc.outputs(p=gc.softmax(x))


@gc.model
def whole(x: gc.f32["N"]):
    return gc.outputs(total=gc.sum(x))


@gc.model
def chain(x: gc.f32["N"]):
    return gc.outputs(y=gc.exp(gc.tanh(x)) * 2, z=x + 1)


@gc.model
def plain(x: gc.f32["N"]):
    return gc.outputs(y=x * 2 + 1)


def code(model):
    return "\n".join(lowered(model, dtype=f32).book.texts.values())


def test_rows_of_a_symbolic_length_alone_may_be_short():
    assert code(softmax).count("short()") == 2  # the maximum, and the sum
    assert "short()" not in code(fixed) and "short()" not in code(whole)


def test_loops_with_long_functions_are_deep():
    assert code(chain).count("deep()") == 2, "a loop for each function"
    assert "deep()" not in code(plain) and "deep()" not in code(softmax)


@pytest.mark.parametrize("word", ["short", "deep"])
def test_the_note_is_on_the_loop_and_no_call_is_left(word):
    source = SUMS.replace("short", word)
    (text, *_), _ = jit._numba_ir(source, "sums", SIGNATURE, jit.compiled_words(source))
    assert f"graphc.{word}" in LOOP_NOTES and f"graphc.{word}" in text
    noted = jit._noted(text)
    assert "graphc." not in noted and noted.count("!llvm.loop !") == 1
    assert f"i32 {LOOP_NOTES[f'graphc.{word}'][jit._many_registers()]}}}" in noted
    without = SUMS.replace("            short()\n", "")
    with_note, without = (jit.inspect_llvm(t, "sums", SIGNATURE, jit.compiled_words(t)) for t in (source, without))
    assert "graphc." not in with_note and (word == "deep" or with_note != without)


def test_registers_are_those_of_the_machine_compiled_for(monkeypatch):
    monkeypatch.setattr(jit, "vector_bytes", lambda: 32)
    monkeypatch.setattr(jit.platform, "machine", lambda: "x86_64")
    assert not jit._many_registers()
    monkeypatch.setattr(jit.platform, "machine", lambda: "aarch64")
    assert jit._many_registers()
    monkeypatch.setattr(jit.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(jit, "vector_bytes", lambda: 64)
    assert jit._many_registers()


@pytest.mark.parametrize("c", [0, 1, 15, 16, 31, 33, 96, 100, 1000])
def test_values_of_every_length(c):
    x = np.random.default_rng(c).standard_normal((7, c)).astype(np.float32)
    if c > 20:
        x[3, c // 2] = np.nan
    got, want = np.zeros((7, 2), np.float32), np.zeros((7, 2), np.float32)
    symbol = f"sums_of_{c}"
    object_code = jit.compile_kernel(SUMS, "sums", SIGNATURE, jit.compiled_words(SUMS), symbol=symbol)
    kernel = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(jit.load({symbol: object_code})[symbol])
    arguments = np.array([x.ctypes.data, got.ctypes.data, 7, c])
    kernel(arguments.ctypes.data)
    jit.run_python(SUMS, "sums", jit.interpreted_words(SUMS))(x.reshape(-1), want.reshape(-1), 7, c)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)
