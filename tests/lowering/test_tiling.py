"""Transposed copies: the same values in tiles, for all that sizes and threads can be, and tiles only where they pay."""

import numpy as np
import pytest

import graphc as gc
from graphc.graph.dtype import f32, f64
from graphc.lowering.cost import operations
from graphc.lowering.ir import loops
from tests.lowering.structure import lowered


def transposed(shape, perm, element="f32"):
    """A model of 2·transpose(x) + 1."""

    def model(x):
        return gc.outputs(y=gc.transpose(x, perm) * 2 + 1)

    model.__annotations__ = {"x": getattr(gc, element)[shape]}
    return gc.model(model)


def tiles(model, dtype=f32):
    """The tiled kernels among those of the forward program."""
    return [k for k in lowered(model, dtype=dtype).kernels if any("tiles of" in r for r in k.remarks)]


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize(
    "shape, perm",
    [((300, 128), (1, 0)), ((1, 256), (1, 0)), ((131, 512), (1, 0)), ((5, 70, 128), (0, 2, 1)),
     ((17, 3, 256), (2, 1, 0)), ((33, 129, 128), (2, 0, 1)), ((65, 1024), (1, 0))],
)
def test_values(shape, perm, threads):
    names = ["B", *shape[1:]] if len(shape) < 3 else [shape[0], "B", *shape[2:]]
    x = np.random.default_rng(0).standard_normal(shape).astype("f")
    for declared in (shape, tuple(names)):
        model = transposed(declared, perm)
        assert tiles(model) or "B" not in declared
        m = gc.compile(model, threads=threads)
        np.testing.assert_array_equal(m.forward(x=x)["y"], np.transpose(x, perm) * np.float32(2) + 1)


def test_float64_has_longer_steps():
    x = np.random.default_rng(0).standard_normal((200, 64))
    model = transposed(("B", 64), (1, 0), "f64")
    assert tiles(model, f64)
    np.testing.assert_array_equal(gc.compile(model, dtype="float64").forward(x=x)["y"], x.T * 2 + 1)
    assert not tiles(transposed(("B", 64), (1, 0)))


@pytest.mark.parametrize(
    "shape, perm",
    [(("B", 100), (1, 0)), ((64, 128), (1, 0)), (("B", 128), (0, 1)), (("B", 2, 128), (0, 2, 1)), (("B", 128, 3), (1, 0, 2))],
)
def test_no_tiles_where_they_do_not_pay(shape, perm):
    """Rows of other lengths, little data, nothing transposed, short axes, whole rows that are moved."""
    assert not tiles(transposed(shape, perm))


def test_totals_are_not_reordered():
    @gc.model
    def total(x: gc.f32["B", 512]):
        return gc.outputs(y=gc.sum(gc.transpose(x) * 2, axis=1))

    assert not tiles(total)


def test_the_operations_are_those_of_the_whole():
    (kernel,) = tiles(transposed(("B", 512), (1, 0)))
    extents = {str(loop.extent) for loop in loops(kernel.body).values()}
    assert str(operations(kernel.body)) == "1024*B" and extents == {"B", "512"}
