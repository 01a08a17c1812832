"""Elementwise loops with long functions of long functions run in tiles; the values stay what they were."""
from __future__ import annotations

import numpy as np
import pytest

import graphc as gc
from graphc.graph.dtype import f32
from graphc.lowering.fission import MOST_ROWS, TILE
from graphc.lowering.ir import Loop, walk
from tests.lowering.structure import lowered
from tests.lowering.test_ranges import in_parts


@gc.model
def chain(x: gc.f64["N"]):
    h = gc.tanh(x * 0.5 + 0.1)
    y = h * gc.exp(-h * h) + x
    loss = gc.sum(y)
    return gc.outputs(y=y, loss=loss, dx=gc.grad(loss, x))


@gc.model
def nested(x: gc.f64["N"]):
    """All in one expression, one function of it needed twice."""
    return gc.outputs(y=gc.tanh(gc.tanh(gc.tanh(x)) * gc.sin(x)), z=gc.sin(x) + 1)


@gc.model
def one_function(x: gc.f64["N"]):
    return gc.outputs(y=gc.exp(x * 2 + 1) / (x * x + 1))


@gc.model
def in_place(x: gc.f64["N"]):
    s = gc.state("s", ("N",), init=0.5)
    gc.update(s, gc.tanh(gc.tanh(s + x) * s))
    return gc.outputs(y=gc.exp(gc.tanh(s)))


@gc.model
def twice_in_place(x: gc.f64["N"]):
    """Two long functions of an array that is written, in one expression."""
    s = gc.state("s", ("N",), init=0.5)
    gc.update(s, gc.exp(gc.tanh(s)) * gc.sin(s))
    return gc.outputs(y=x * 2)


@gc.model
def side_by_side(x: gc.f64["N"]):
    """Four long functions, none of which waits for another."""
    return gc.outputs(y=gc.tanh(x) * gc.exp(-x * x) + gc.sin(x), z=gc.log(x * x + 1) - gc.tanh(x))


@gc.model
def through_short_ones(x: gc.f64["N"]):
    return gc.outputs(y=gc.log(1 + 2 * gc.exp(x) / (x * x + 1)))


def tiles(low):
    return [x for k in low.kernels for x in walk(k.body) if isinstance(x, Loop) and x.step == TILE]


@pytest.mark.parametrize("model, rows", [(chain, 1), (nested, 3)], ids=["chain", "nested"])
def test_long_functions_are_taken_apart(model, rows):
    low = lowered(model)
    (tile,) = tiles(low)
    assert len([x for x in tile.body if isinstance(x, Loop)]) >= 2
    found = [b for b in low.program.buffers if b.name.startswith("tile_")]
    assert len(found) == rows <= MOST_ROWS and all(str(b.shape[0]) == str(TILE) for b in found)
    (text,) = low.book.texts.values()
    code = "\n".join(line.split("#")[0] for line in text.splitlines())
    assert code.count("sin(") == (model is nested), "computed once"
    assert "tile_1[" in code


@pytest.mark.parametrize("model", [one_function, side_by_side], ids=["one", "side by side"])
def test_functions_that_wait_for_no_other_stay_in_one_loop(model):
    assert not tiles(lowered(model))


def test_a_function_waits_for_another_through_what_lies_between():
    (tile,) = tiles(lowered(through_short_ones))
    assert len([x for x in tile.body if isinstance(x, Loop)]) == 2


def test_an_array_written_in_place_is_read_before():
    x, begin = np.linspace(-2, 2, 3000), 0.5
    for target in ("numpy", "cpu"):
        m = gc.compile(in_place, target=target, dtype="float64")
        y = m.forward(x=x)["y"]
        np.testing.assert_allclose(y, np.exp(np.tanh(begin)), rtol=1e-12)
        np.testing.assert_allclose(m.states["s"], np.tanh(np.tanh(begin + x) * begin), rtol=1e-12)


def test_functions_of_an_array_written_in_place_keep_apart():
    m = gc.compile(twice_in_place, dtype="float64")
    m.forward(x=np.ones(2000))
    np.testing.assert_allclose(m.states["s"], np.exp(np.tanh(0.5)) * np.sin(0.5), rtol=1e-12)


@pytest.mark.parametrize("length", [0, 1, 1024, 1025, 2500])
def test_values_in_tiles_and_in_parts_of_them(length):
    x = np.linspace(-3, 3, length)
    h = np.tanh(x * 0.5 + 0.1)
    y = h * np.exp(-h * h) + x
    dx = (1 - 2 * h * h) * np.exp(-h * h) * (1 - h * h) * 0.5 + 1
    low = lowered(chain)
    for seed in range(2):
        got = in_parts(low, dict(x=x), np.random.default_rng(seed))
        for name, want in dict(y=y, loss=y.sum(), dx=dx).items():
            np.testing.assert_allclose(got[name], want, rtol=1e-12, atol=1e-12)
    for target in ("cpu", "numpy"):
        got = gc.compile(nested, target=target, dtype="float64").forward(x=x)
        np.testing.assert_allclose(got["y"], np.tanh(np.tanh(np.tanh(x)) * np.sin(x)), rtol=1e-12)
        np.testing.assert_allclose(got["z"], np.sin(x) + 1, rtol=1e-12)
    if length:
        single = gc.compile(chain).forward(x=x.astype(np.float32))
        np.testing.assert_allclose(single["dx"], dx, rtol=1e-4, atol=1e-5)
    assert lowered(chain, dtype=f32).book.texts
