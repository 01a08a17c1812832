"""Loops over rows that need totals of themselves: tiles of rows, one loop for each phase."""
from __future__ import annotations

import numpy as np
import pytest

import graphc as gc
from graphc.graph.dtype import f32
from graphc.lowering.ir import Loop, loops
from graphc.lowering.phases import ELEMENTS
from tests.lowering.structure import lowered
from tests.lowering.test_ranges import entropy, layer_norm


def phases(kernel):
    """The loops over the rows of a tile."""
    tile = [x for x in loops(kernel.body).values() if any(isinstance(y, Loop) and y.within == x.variable for y in x.body)][-1]
    return tile, [x for x in tile.body if isinstance(x, Loop)]


def test_softmax_entropy_has_four_phases():
    """The maximum; the exponentials and their sum; logarithms, of many rows at once; the gradient."""
    (kernel, _) = lowered(entropy, dtype=f32).kernels
    tile, found = phases(kernel)
    assert len(found) == 4 and [any(isinstance(x, Loop) for x in loop.body) for loop in found] == [True, True, False, True]
    assert kernel.main == tile.variable and all(loop.extent == tile.extent for loop in found)


def test_layer_norm_forward_and_backward_has_five_and_blocks_of_rows_around_them():
    low = lowered(layer_norm)
    (kernel,) = low.kernels
    tile, found = phases(kernel)
    assert len(found) == 5 and kernel.main == tile.variable
    (kernel,) = lowered(single_norm, dtype=f32).kernels
    tile, found = phases(kernel)
    assert len(found) == 5 and tile.within == kernel.main


@gc.model
def single_norm(x: gc.f32["B", 300], w: gc.f32[300]):
    centred = x - gc.mean(x, axis=-1, keepdims=True)
    y = centred / gc.sqrt(gc.mean(centred * centred, axis=-1, keepdims=True) + 1e-5) * w
    dx, dw = gc.grad(gc.sum(y * y * y), [x, w])
    return gc.outputs(y=y, dx=dx, dw=dw)


def test_a_row_without_totals_stays_one_loop():
    @gc.model
    def bias(x: gc.f32["B", "C"], b: gc.f32["C"]):
        return gc.outputs(y=gc.relu(x + b), total=gc.sum(x, axis=1))

    for kernel in lowered(bias, dtype=f32).kernels:
        assert all(loop.step == 1 or loop.step == 1024 for loop in loops(kernel.body).values())


def test_rows_longer_than_a_tile_stay_as_they_are():
    """A tile of one row would be the row itself."""
    rng = np.random.default_rng(0)

    @gc.model
    def long_rows(x: gc.f32["B", 10_000], y: gc.i64["B"]):
        return gc.outputs(loss=gc.nn.cross_entropy(x, y))

    (kernel, *_) = lowered(long_rows, dtype=f32).kernels
    assert not any(x.step != 1 and isinstance(y, Loop) and any(isinstance(z, Loop) for z in y.body)
                   for x in loops(kernel.body).values() for y in x.body)
    x, y = rng.standard_normal((5, 10_000)).astype(np.float32), rng.integers(0, 10_000, 5)
    wide = x.astype(np.float64)
    want = np.mean(np.log(np.exp(wide).sum(1)) - wide[np.arange(5), y])
    for target in ("cpu", "numpy"):
        np.testing.assert_allclose(gc.compile(long_rows, target=target).forward(x=x, y=y)["loss"], want, rtol=2e-6)


@pytest.mark.parametrize("c", [0, 1, 2, 96, ELEMENTS, 10_000])
def test_a_tile_has_a_row_at_least_and_fits_into_cache(c):
    (kernel, _) = lowered(entropy, dtype=f32).kernels
    rows = phases(kernel)[0].step.evaluate({"C": c})
    assert 1 <= rows and rows * c <= max(2 * ELEMENTS, c)


@pytest.mark.parametrize("shape", [(1, 1), (3, 2), (200, 96), (5, 3000)], ids=str)
def test_values(shape):
    rng = np.random.default_rng(0)
    x, label = rng.normal(size=shape), rng.integers(0, shape[1], shape[0])
    got = gc.compile(entropy, dtype="float64").forward(x=x, label=label)
    p = np.exp(x - x.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    at = np.arange(shape[0])
    np.testing.assert_allclose(got["loss"], -np.log(p[at, label]).mean(), rtol=1e-12, atol=1e-12)
    p[at, label] -= 1
    np.testing.assert_allclose(got["d"], p / shape[0], rtol=1e-11, atol=1e-13)


def test_a_norm_of_many_rows_is_as_on_one():
    """Five hundred rows: several blocks and many tiles; the columns' sums against single rows'."""
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=(500, 300)).astype(np.float32), rng.normal(size=300).astype(np.float32)
    m = gc.compile(single_norm)
    got = m.forward(x=x, w=w)
    each = [m.forward(x=x[k : k + 1], w=w) for k in range(len(x))]
    for name in ("y", "dx"):
        np.testing.assert_allclose(got[name], np.concatenate([e[name] for e in each]), rtol=2e-4, atol=2e-4)
    np.testing.assert_allclose(got["dw"], np.sum([e["dw"] for e in each], axis=0, dtype=np.float64), rtol=1e-4, atol=1e-2)


def test_a_total_of_all_rows_in_a_later_phase_begins_anew_for_each_row():
    @gc.model
    def scaled(x: gc.f32["B", 4], i: gc.i64["B"]):
        scale = gc.param("scale", init=2.0)
        return gc.outputs(loss=gc.nn.cross_entropy(gc.tanh(x) * scale, i))

    rng = np.random.default_rng(0)
    x, i = rng.standard_normal((50, 4)).astype(np.float32), rng.integers(0, 4, 50)
    _, single = gc.compile(scaled).value_and_grad(x=x, i=i)
    _, double = gc.compile(scaled, dtype="float64").value_and_grad(x=x.astype(float), i=i)
    t = np.tanh(x.astype(float))
    p = np.exp(2 * t) / np.exp(2 * t).sum(1, keepdims=True)
    p[np.arange(50), i] -= 1
    np.testing.assert_allclose(double["scale"], (p * t).sum() / 50, rtol=1e-12)
    np.testing.assert_allclose(single["scale"], double["scale"], rtol=1e-5)
