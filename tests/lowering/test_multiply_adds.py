"""Numbers that go into the sums they multiply: which do, and to the same bits."""

import re

import numpy as np
import pytest

import graphc as gc
from graphc.graph import scalar as sc
from graphc.graph.dtype import f32
from graphc.graph.formula import Affine
from graphc.graph.scalar import Scalar
from graphc.graph.size import size
from graphc.lowering.ir import Kernel, Loop, Position, Store
from graphc.lowering.multiply_adds import multiply_adds

X, Y = sc.arg(0, f32), sc.arg(1, f32)


def c(number, dtype=f32):
    return sc.const(number, dtype)


def op(name, *args):
    return Scalar(name, args, args[0].dtype)


def changed(*expressions):
    """The expressions of a kernel of as many stores, after the pass."""
    position = Position(Affine(size(0), ((0, size(1)),)))
    body = [Loop(0, size("n"), body=[Store(0, position, e) for e in expressions])]
    kernel = multiply_adds(Kernel("k", [], [], body, [], []))
    return [sc.to_text(store.expression).replace(":f32", "") for store in kernel.body[0].body]


def text(expression):
    return sc.to_text(expression).replace(":f32", "")


ADD, SUB = op("add", X, c(3.0)), op("sub", c(3.0), X)


@pytest.mark.parametrize("expression, expected", [
    (op("mul", c(0.5), ADD), "add(mul(a0, 0.5), 1.5)"),
    (op("mul", ADD, c(0.5)), "add(mul(a0, 0.5), 1.5)"),
    (op("mul", c(0.5), SUB), "sub(1.5, mul(a0, 0.5))"),
    (op("mul", c(0.5), op("mul", ADD, Y)), "mul(add(mul(a0, 0.5), 1.5), a1)"),
    (op("mul", c(0.5), op("mul", Y, op("mul", SUB, Y))), "mul(a1, mul(sub(1.5, mul(a0, 0.5)), a1))"),
    (op("tanh", op("mul", c(0.5), ADD)), "tanh(add(mul(a0, 0.5), 1.5))"),
])
def test_a_number_goes_into_the_sum(expression, expected):
    assert changed(expression) == [expected]


@pytest.mark.parametrize("expression", [
    op("mul", c(0.5), X),
    op("mul", c(0.5), op("add", X, Y)),                          # would be two products for one
    op("mul", c(0.5), op("add", op("mul", X, Y), c(3.0))),       # that product is in a multiply-add
    op("mul", c(0.3), ADD),                                      # 0.3·a0 is rounded
    op("mul", c(2.0), ADD),                                      # and this may be infinite
    op("mul", c(2.0**-70), op("add", X, c(2.0**-70))),           # and this nothing
    op("mul", c(0.5), op("div", ADD, Y)),
])  # fmt: skip
def test_a_number_stays(expression):
    assert changed(expression) == [text(expression)]


def test_a_sum_that_something_else_reads_stays():
    half = op("mul", c(0.5), op("mul", ADD, Y))
    assert changed(half, op("tanh", ADD)) == [text(half), text(op("tanh", ADD))]
    assert changed(op("add", half, ADD)) == [text(op("add", half, ADD))]
    assert changed(half, half) == changed(half) * 2  # one expression, wherever it stands


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_bits_are_the_same(dtype):
    """As when every step is one of NumPy's own, on numbers of every size and on special ones."""

    @gc.model
    def gated(x: gc.f32["n"], y: gc.f32["n"]):
        return gc.outputs(value=0.25 * ((gc.sqrt(x) - 4) * (y * y)))

    rng = np.random.default_rng(0)
    x = (np.exp2(rng.uniform(-140, 60, 4000)) * rng.uniform(1, 2, 4000)).astype(dtype)
    x[:6] = 0.0, np.nan, np.inf, 16.0, 15.999999, 16.000002
    y = np.exp2(rng.uniform(-20, 20, 4000)).astype(dtype)
    m = gc.compile(gated, dtype=dtype)
    assert re.search(r"\* f(32|64)\(0\.25\) - f(32|64)\(1\.0\)", m.source)
    with np.errstate(all="ignore"):
        quarter = np.dtype(dtype).type(0.25)
        np.testing.assert_array_equal(m.forward(x=x, y=y)["value"], quarter * ((np.sqrt(x) - 4) * (y * y)))
