"""A temporary takes the memory of one that its kernel reads for the last time: where that is safe, and only there."""
from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import graphc as gc
from graphc.graph.dtype import f64
from graphc.runtime.program import plan_arena

from .structure import lowered


def w(name="w", n=4):
    return gc.param(name, (n, n))


def overwritten(model, kind=None, dtype=f64):
    """The values that take the memory of others: (new, old), by the remarks of the kernels."""
    words = [remark.split() for kernel in lowered(model, kind, dtype=dtype).kernels for remark in kernel.remarks]
    return [(r[0], r[5].rstrip(",")) for r in words if r[1:4] == ["takes", "the", "memory"]]


@gc.model
def chain(x: gc.f64["B", 4]):
    for i in range(3):
        x = gc.tanh(x @ w(f"w{i}"))
    return gc.outputs(y=x @ w("last"))


def test_each_value_of_a_chain_takes_the_memory_of_the_product_it_reads():
    low = lowered(chain)
    assert len(overwritten(chain)) == 3
    assert len(low.kinds("temp")) == 3
    for kernel in low.kernels:
        assert len(kernel.arrays) == 1, "the two are one parameter: pointers do not overlap"


def test_the_arena_holds_two_values_of_a_chain_at_a_time():
    sizes = {"B": 1000}
    assert plan_arena(lowered(chain).program, sizes)[1] == 2 * 1000 * 4 * 8


@pytest.mark.parametrize("target", ["cpu", "numpy"])
def test_values_of_a_chain(target):
    m = gc.compile(chain, target=target, dtype="float64")
    x = want = np.random.default_rng(0).standard_normal((5, 4))
    for i in range(3):
        want = np.tanh(want @ m.params[f"w{i}"])
    np.testing.assert_allclose(m.forward(x)["y"], want @ m.params["last"], rtol=1e-12)


# each gives a value of a product z and of what else there is; the product must keep its memory
KEPT = {
    "a shifted read": lambda z: gc.exp(z[::-1]),
    "a transposed read": lambda z: gc.exp(gc.transpose(z)),
    "two reads, one shifted": lambda z: z + z[::-1],
    "a row in reverse": lambda z: gc.exp(z) * z[:, ::-1],
    "another row": lambda z: z - z[:1],
    "a gathered row": lambda z: z * z[gc.argmax(z, axis=0)],
}
KEPT_REFERENCE = {
    "a shifted read": lambda z: np.exp(z[::-1]),
    "a transposed read": lambda z: np.exp(z.T),
    "two reads, one shifted": lambda z: z + z[::-1],
    "a row in reverse": lambda z: np.exp(z) * z[:, ::-1],
    "another row": lambda z: z - z[:1],
    "a gathered row": lambda z: z * z[np.argmax(z, 0)],
}


@pytest.mark.parametrize("name", KEPT)
def test_what_reads_other_elements_does_not_overwrite(name):
    @gc.model
    def net(x: gc.f64[4, 4]):
        return gc.outputs(y=KEPT[name](x @ w()) @ w("v"))

    assert not [o for o in overwritten(net) if o[1] == "einsum_1"]
    m = gc.compile(net, dtype="float64")
    x = np.random.default_rng(1).standard_normal((4, 4))
    want = KEPT_REFERENCE[name](x @ m.params["w"]) @ m.params["v"]
    np.testing.assert_allclose(m.forward(x)["y"], want, rtol=1e-10, atol=1e-12)


def test_another_type_or_shape_keeps_its_memory():
    @gc.model
    def net(x: gc.f64["B", 4]):
        z = x @ w()
        return gc.outputs(y=gc.cast(z, gc.f32) @ gc.cast(w("v"), gc.f32), half=gc.tanh((x @ w("u"))[:, :2]) @ gc.param("t", (2, 2)))

    assert overwritten(net) == []


TOTALS = {
    "of rows": (lambda z: gc.exp(z - gc.max(z, axis=1, keepdims=True)), lambda z: np.exp(z - z.max(1, keepdims=True))),
    "of columns": (lambda z: z * gc.sum(z, axis=0), lambda z: z * z.sum(0)),
    "of all": (lambda z: gc.tanh(z) - gc.mean(z), lambda z: np.tanh(z) - z.mean()),
    "beside it": (lambda z: gc.tanh(z) + 0.0 * gc.sum(gc.tanh(z), axis=0), lambda z: np.tanh(z)),
}


@pytest.mark.parametrize("target", ["cpu", "numpy"])
@pytest.mark.parametrize("name", TOTALS)
def test_totals_of_what_is_overwritten(name, target):
    ours, reference = TOTALS[name]

    @gc.model
    def net(x: gc.f64["B", 4]):
        return gc.outputs(y=ours(x @ w()) @ w("v"))

    m = gc.compile(net, target=target, dtype="float64")
    for rows in (1, 3, 300):
        x = np.random.default_rng(rows).standard_normal((rows, 4))
        want = reference(x @ m.params["w"]) @ m.params["v"]
        np.testing.assert_allclose(m.forward(x)["y"], want, rtol=1e-9, atol=1e-10)


def test_a_value_that_is_read_later_keeps_its_memory():
    @gc.model
    def net(x: gc.f64["B", 4]):
        z = x @ w()
        return gc.outputs(y=gc.tanh(z) @ w("v") + z)

    assert overwritten(net) == []


def test_an_output_keeps_its_memory():
    @gc.model
    def net(x: gc.f64["B", 4]):
        z = x @ w()
        return gc.outputs(z=z, y=gc.tanh(z) @ w("v"))

    assert overwritten(net) == []
    m = gc.compile(net, dtype="float64")
    x = np.random.default_rng(2).standard_normal((3, 4))
    np.testing.assert_allclose(m.forward(x)["z"], x @ m.params["w"], rtol=1e-12)


def test_a_variable_that_is_set_to_a_value_gets_that_value():
    @gc.model
    def net(x: gc.f64[4, 4]):
        s, t = gc.state("s", (4, 4)), gc.state("t", (4, 4))
        z = x @ w()
        gc.update(s, z)
        gc.update(t, z)
        return gc.outputs(y=gc.tanh(z) @ w("v"))

    m = gc.compile(net, dtype="float64")
    x = np.random.default_rng(3).standard_normal((4, 4))
    out = m.forward(x)
    np.testing.assert_allclose(m.states["s"], x @ m.params["w"], rtol=1e-12)
    np.testing.assert_allclose(m.states["t"], x @ m.params["w"], rtol=1e-12)
    np.testing.assert_allclose(out["y"], np.tanh(x @ m.params["w"]) @ m.params["v"], rtol=1e-12)


# -- gradients -------------------------------------------------------------------------------------------------------
ACTIVATIONS = {"relu": gc.relu, "tanh": gc.tanh, "gelu": gc.gelu, "square": lambda z: z * z, "softplus": gc.softplus}


def deep(activation):
    @gc.model
    def net(x: gc.f64["B", 4]):
        for i in range(2):
            x = activation(gc.nn.linear(x, 4, name=f"l{i}"))
        return gc.outputs(loss=gc.mean(x * x))

    return net


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_what_the_gradient_needs_is_kept(name):
    m = gc.compile(deep(ACTIVATIONS[name]), dtype="float64")
    x = np.random.default_rng(4).standard_normal((7, 4))
    _, grads = m.value_and_grad(x)
    for p, g in grads.items():
        at = np.unravel_index(np.argmax(np.abs(g)), g.shape)
        value = m.params[p][at]
        losses = []
        for move in (1e-6, -1e-6):
            m.params[p][at] = value + move
            losses.append(float(m.forward(x)["loss"]))
        m.params[p][at] = value
        np.testing.assert_allclose(g[at], (losses[0] - losses[1]) / 2e-6, rtol=1e-5, atol=1e-8, err_msg=p)


def test_relu_keeps_what_it_gives_and_tanhs_product_is_not_kept():
    assert len(overwritten(deep(gc.relu), "gradient")) >= 3  # both activations, and a gradient of one
    assert ("relu_1", "einsum_1") in overwritten(deep(gc.relu), "gradient")


def test_an_input_of_an_activation_that_its_gradient_needs_is_not_overwritten_before():
    replaced = overwritten(deep(gc.softplus), "gradient")
    forward = [new for new, _ in replaced if new.startswith("softplus")]
    assert not forward, "the gradient of softplus needs its input"


def test_inside_a_loop():
    @gc.model
    def net(x: gc.f64["T", "B", 4]):
        def step(h, x):
            h = gc.tanh(gc.tanh(h @ w() + x) @ w("v"))
            return h, h

        _, hs = gc.scan(step, init=gc.zeros((gc.dim("B"), 4)), xs=x)
        return gc.outputs(loss=gc.sum(hs * hs))

    m = gc.compile(net, dtype="float64")
    x = np.random.default_rng(5).standard_normal((3, 2, 4))
    h, want = np.zeros((2, 4)), 0.0
    for t in range(3):
        h = np.tanh(np.tanh(h @ m.params["w"] + x[t]) @ m.params["v"])
        want += (h * h).sum()
    np.testing.assert_allclose(float(m.value_and_grad(x)[0]["loss"]), want, rtol=1e-12)


STEPS = [gc.tanh, lambda z: z * z, lambda z: z[::-1], gc.transpose, lambda z: gc.maximum(z, gc.transpose(z)),
         lambda z: z - gc.sum(z, axis=0), lambda z: gc.reshape(gc.reshape(z, (8, 2))[::-1], (4, 4)), lambda z: z @ w("p"),
         lambda z: gc.where(z > 0, z, z[:, ::-1])]
IN_NUMPY = [np.tanh, lambda z, p: z * z, lambda z, p: z[::-1], lambda z, p: z.T, lambda z, p: np.maximum(z, z.T),
            lambda z, p: z - z.sum(0), lambda z, p: z.reshape(8, 2)[::-1].reshape(4, 4), lambda z, p: z @ p,
            lambda z, p: np.where(z > 0, z, z[:, ::-1])]
IN_NUMPY[0] = lambda z, p: np.tanh(z)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.integers(0, len(STEPS) - 1), st.booleans()), min_size=2, max_size=7))
def test_random_chains(steps):
    """Any steps, with sums into earlier values: the same as NumPy."""
    @gc.model
    def net(x: gc.f64[4, 4]):
        p = gc.param("p", (4, 4))
        z = kept = x @ p
        for number, joined in steps:
            z = z @ p if number == 7 else STEPS[number](z)
            z = gc.tanh(z @ p)
            if joined:
                z, kept = z + kept, z
        return gc.outputs(y=z @ p)

    m = gc.compile(net, target="numpy", dtype="float64")
    p = m.params["p"]
    x = np.random.default_rng(6).standard_normal((4, 4))
    z = kept = x @ p
    for number, joined in steps:
        z = np.tanh(IN_NUMPY[number](z, p) @ p)
        if joined:
            z, kept = z + kept, z
    np.testing.assert_allclose(m.forward(x)["y"], z @ p, rtol=1e-9, atol=1e-12)
