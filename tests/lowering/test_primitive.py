"""Operations in terms of primitives: a model's elementary functions are those of vecmath, with their errors."""
from __future__ import annotations

import ctypes

import numpy as np
import pytest

import graphc as gc
from graphc.codegen import vecmath
from graphc.graph import scalar as sc
from graphc.graph.dtype import f32
from graphc.graph.scalar import Scalar
from graphc.lowering.primitive import primitive
from graphc.ops.elementwise import ROWS
from graphc.runtime import jit

FUNCTIONS = [name for name in vecmath.UNARY if name in ROWS]
EDGES = np.array([0, -0.0, 1e-45, -1e-45, 88, -88, 88.73, -88.73, 95, -95, 103.97, -103.97, 104, -104, 3e38, -3e38], np.float32)


@gc.model
def activations(x: gc.f32["N"]):
    return gc.outputs(sigmoid=gc.sigmoid(x), silu=gc.silu(x), slope=gc.grad(gc.sum(gc.softplus(x)), x))


def sigmoid(x):
    """1/(1 + e^−x) in float64, whose smallest is far below float32's."""
    e = np.exp(-np.abs(x))
    return np.where(x < 0, e, 1) / (1 + e)


def last_place(x):
    """The distance between float32 numbers about x, subnormal ones too."""
    return np.ldexp(1.0, np.maximum(np.frexp(np.maximum(np.abs(x), 2.0**-149))[1] - 24, -149))


@pytest.fixture(scope="module")
def computed():
    """(every 997th float32 and the edges, what a model gives for them)"""
    x = np.arange(0, 2**32, 997, dtype=np.int64).astype(np.uint32).view(np.float32)
    x = np.concatenate([x[np.isfinite(x)], EDGES])
    return x.astype(np.float64), {name: y.astype(np.float64) for name, y in gc.compile(activations).forward(x=x).items()}


@pytest.mark.parametrize("name", ["sigmoid", "slope"])
def test_a_sigmoid_of_a_model_is_within_the_bound_of_vecmath(computed, name):
    x, got = computed
    want = sigmoid(x)
    assert np.max(np.abs(got[name] - want) / last_place(want)) <= vecmath.ERROR_BOUNDS["sigmoid", "f32"]


def test_silu_adds_one_rounding(computed):
    """The error of the sigmoid times x, and half a unit for the product: below −88 the sigmoid is subnormal, which x
    magnifies."""
    x, got = computed
    want = x * sigmoid(x)
    bound = vecmath.ERROR_BOUNDS["sigmoid", "f32"]
    assert np.all(np.abs(got["silu"] - want) <= bound * np.abs(x) * last_place(sigmoid(x)) + last_place(want) / 2)
    usual = sigmoid(x) > np.finfo(np.float32).tiny
    assert np.max((np.abs(got["silu"] - want) / last_place(want))[usual]) < 2.5


@pytest.mark.parametrize("target", ["cpu", "numpy"])
def test_where_a_sigmoid_ends(target):
    x = np.float32([np.nan, np.inf, -np.inf, 0, -0.0, 104, -104.5])
    y = gc.compile(activations, target=target, dtype="float32").forward(x=x)
    np.testing.assert_array_equal(y["sigmoid"], np.float32([np.nan, 1, 0, 0.5, 0.5, 1, 0]))
    # x·σ(x) is −∞·0 at −∞, as in PyTorch
    np.testing.assert_array_equal(y["silu"], np.float32([np.nan, np.inf, np.nan, 0, -0.0, 104, -0.0]))
    np.testing.assert_array_equal(np.signbit(y["silu"][3:]), [False, True, False, True])
    small = gc.compile(activations, target=target, dtype="float32").forward(x=np.float32([-95, -103]))["sigmoid"]
    np.testing.assert_allclose(small, np.exp([-95.0, -103.0]), rtol=0, atol=1.5 * 2.0**-149)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_models_functions_are_vecmaths(name):
    """To the bit."""
    x = np.float32(np.random.default_rng(5).normal(0, 20, 1000))

    @gc.model
    def function(x: gc.f32["N"]):
        return gc.outputs(y=getattr(gc, name)(x))

    got = gc.compile(function).forward(x=x)["y"]
    want = np.empty_like(x)
    loop = f"def k(x, out, n):\n    for i in range(n):\n        out[i] = {name}(x[i])\n"
    code = jit.compile_kernel(loop, "k", ("f32*", "f32*", "i64"), vecmath.jit_namespace(), symbol=f"a_models_{name}")
    words = (ctypes.c_int64 * 3)(x.ctypes.data, want.ctypes.data, x.size)
    ctypes.CFUNCTYPE(None, ctypes.c_void_p)(jit.load({f"a_models_{name}": code})[f"a_models_{name}"])(words)
    np.testing.assert_array_equal(got, want)


def test_a_primitive_stays_as_it_is():
    """And others are written with them, whatever their arguments are."""
    x = Scalar("tanh", (sc.arg(0, f32),), f32)
    one = Scalar("sigmoid", (x,), f32)
    assert primitive(one) is one
    assert primitive(Scalar("silu", (x,), f32)) is Scalar("mul", (x, one), f32)


def test_all_that_is_left_is_primitive():
    for name, row in ROWS.items():
        if not (row.bools or row.condition or row.integers_only):
            written = primitive(Scalar(name, tuple(sc.arg(k, f32) for k in range(row.arity)), f32))
            assert all(e.op in sc.LEAVES or ROWS[e.op].primitive for e in sc.distinct([written])), name
