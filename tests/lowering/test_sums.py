"""Sums of float32: right to 2e-6 of the float64 sum for up to 2²⁴ terms, and NumPy's infinities, NaNs and denormals."""
from __future__ import annotations

import numpy as np
import pytest

import graphc as gc
from graphc.graph.dtype import f32
from graphc.lowering.ir import Loop, walk
from graphc.lowering.sums import SHORT
from tests.lowering.structure import lowered, statements

N = 1 << 24


@gc.model
def everything(x: gc.f32["N"]):
    return gc.outputs(y=gc.sum(x), mean=gc.mean(x), high=gc.max(x))


@gc.model
def squares(x: gc.f32["B", "C"]):
    return gc.outputs(y=gc.sum(x * x))


@gc.model
def axes(x: gc.f32["B", "C"]):
    return gc.outputs(columns=gc.sum(x, axis=0), rows=gc.sum(x, axis=1))


@gc.model
def row_losses(x: gc.f32["B", "C"], w: gc.f32["C"]):
    """A total over rows of what each row sums up: its loop holds another."""
    s = gc.sum(x * w, axis=1)
    return gc.outputs(y=gc.sum(s * s), columns=gc.sum(gc.exp(x * w), axis=0))


def close(got, want, tolerance=2e-6):
    np.testing.assert_allclose(np.asarray(got, np.float64), want, rtol=tolerance)


@pytest.mark.parametrize("length", [1, 2, 1023, 1025, 4097, 99_999, N])
@pytest.mark.parametrize("fill", ["random", "constant", "growing"])
def test_a_long_sum(length, fill):
    if fill == "random":
        x = np.random.default_rng(length).random(length, np.float32)
    else:
        x = np.full(length, 0.1, np.float32) if fill == "constant" else np.linspace(1, 1000, length, dtype=np.float32)
    got = compiled(everything).forward(x=x)
    close(got["y"], x.sum(dtype=np.float64))
    close(got["mean"], x.mean(dtype=np.float64))
    assert got["high"] == x.max()


MODELS: dict = {}


def compiled(model):
    """One compilation for all tests."""
    return MODELS.setdefault(model.name, gc.compile(model))


@pytest.mark.parametrize("shape", [(1, N), (N, 1), (4096, 4096), (3, 70_001), (70_001, 3)], ids=str)
def test_sums_of_columns_and_of_rows(shape):
    for x in (np.random.default_rng(0).random(shape, np.float32), np.full(shape, 0.1, np.float32)):
        got = compiled(axes).forward(x=x)
        close(got["columns"], x.sum(axis=0, dtype=np.float64))
        close(got["rows"], x.sum(axis=1, dtype=np.float64))
        close(compiled(squares).forward(x=x)["y"], np.sum(np.square(x, dtype=np.float64)))


def test_a_total_over_rows():
    x, w = np.random.default_rng(0).random((300_000, 3), np.float32), np.array([0.1, 0.2, 0.3], np.float32)
    got = compiled(row_losses).forward(x=x, w=w)
    s = x.astype(np.float64) @ w.astype(np.float64)
    close(got["y"], np.sum(s * s))
    close(got["columns"], np.exp(x.astype(np.float64) * w).sum(axis=0))


@pytest.mark.parametrize("values", [
    [np.inf, 1], [-np.inf, 1], [np.inf, -np.inf], [np.nan, 1], [3e38, 3e38], [1e-45] * 7, [-0.0, -0.0], [1e38] * 2, [],
])  # fmt: skip
@pytest.mark.parametrize("padding", [0, 5000])
def test_special_values(values, padding):
    x = np.array([*values, *[0.0] * padding], np.float32)
    with np.errstate(all="ignore"):
        want = x.sum()
    got = compiled(everything).forward(x=x)["y"] if len(x) else compiled(axes).forward(x=x.reshape(1, 0))["rows"][0]
    np.testing.assert_array_equal(got, want)
    np.testing.assert_array_equal(compiled(axes).forward(x=x.reshape(-1, 1))["columns"], [want])


@gc.model
def fixed(x: gc.f32["B", SHORT]):
    return gc.outputs(y=gc.sum(x, axis=1))


@gc.model
def wide(x: gc.f64["N"]):
    return gc.outputs(y=gc.sum(x))


@pytest.mark.parametrize("model", [fixed, wide], ids=lambda m: m.name)
def test_short_sums_and_float64_are_left_alone(model):
    (kernel,) = lowered(model, dtype=f32).kernels
    assert not [x for x in walk(kernel.body) if isinstance(x, Loop) and x.within is not None]


def test_a_long_row_is_summed_in_blocks_and_its_maximum_is_not():
    (kernel,) = (k for k in lowered(axes, "forward:rows", dtype=f32).kernels)
    blocks = [x for x in walk(kernel.body) if isinstance(x, Loop) and x.step > 1]
    assert len(blocks) == 1 and len(statements(blocks[0].body)) == 0


def test_blocks_are_of_the_range_that_a_part_has():
    low = lowered(everything, "forward:y", dtype=f32)
    (text,) = low.book.texts.values()
    assert "in range(begin, end, 1024):" in text and "in range(i0, fmin(i0 + 1024, end)):" in text
