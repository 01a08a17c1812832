"""Symbolic sizes: one binary for many sizes, arithmetic with sizes, agreement between inputs."""
import re

import numpy as np
import pytest

import graphc as gc

from .helpers import build, reference, same

RNG = np.random.default_rng(2)


def normal(*shape):
    return RNG.standard_normal(shape)


def names(text, *facts):
    """Each fact stands in the text as a word of its own."""
    missing = [f for f in map(str, facts) if not re.search(rf"(?<![\w.]){re.escape(f)}(?![\w])", text)]
    assert not missing, f"{missing} not in: {text}"


@pytest.fixture(scope="module")
def regression():
    @gc.model
    def net(x: gc.f64["B", "F"], y: gc.f64["B"], w: gc.f64["F"]):
        b = gc.param("b", ())
        e = x @ w + b - y
        return gc.outputs(loss=gc.mean(e * e), e=e)
    return gc.compile(net, dtype="float64")


def test_one_binary_for_many_sizes(regression):
    for b, f in ((1, 1), (1, 7), (5, 1), (0, 3), (4, 0), (33, 65), (1000, 3), (5, 1), (1, 1)):
        x, y, w = normal(b, f), normal(b), normal(f)
        regression.params["b"][...] = 0.5
        e = x @ w + 0.5 - y
        np.testing.assert_allclose(regression.forward(x=x, y=y, w=w)["e"], e, rtol=1e-11, atol=1e-12)
        if b:
            out, grads = regression.value_and_grad(x=x, y=y, w=w)
            np.testing.assert_allclose(out["loss"], (e * e).mean(), rtol=1e-11)
            np.testing.assert_allclose(grads["b"], 2 * e.mean(), rtol=1e-10, atol=1e-13)


def test_sizes_of_one_name_agree_between_inputs(regression):
    with pytest.raises(gc.GraphcError) as error:
        regression.forward(x=normal(3, 2), y=normal(4), w=normal(2))
    names(str(error.value), "x", "y", "B", 3, 4)
    with pytest.raises(gc.GraphcError) as error:
        regression.forward(x=normal(3, 2), y=normal(3), w=normal(7))
    names(str(error.value), "x", "w", "F", 2, 7)
    with pytest.raises(gc.GraphcError):                                # a symbolic size of one does not broadcast
        regression.forward(x=normal(3, 2), y=normal(1), w=normal(2))
    assert regression.forward(x=normal(3, 2), y=normal(3), w=normal(2))["e"].shape == (3,)


def test_one_name_twice_in_one_input_is_square():
    m = build(lambda xp, a: dict(y=a @ a, t=a - xp.transpose(a)), gc.f64["N", "N"], dtype="float64")
    a = normal(4, 4)
    np.testing.assert_allclose(m.forward(a)["y"], a @ a, rtol=1e-12)
    with pytest.raises(gc.GraphcError) as error:
        m.forward(normal(4, 5))
    names(str(error.value), "N", 4, 5)


def test_sizes_compute():
    @gc.model
    def net(x: gc.f64["B", "T", 4]):
        b, t = gc.dim("B"), x.shape[1]
        return gc.outputs(
            rows=gc.zeros((b, 3)), both=gc.ones((b, t)), twice=gc.zeros((2 * b + 1,)), area=gc.ones((b * t,)), less=gc.zeros((b + t - 1, 2)),
            half=gc.zeros((t // 2, 1)), windows=gc.zeros(((t - 1) // 2 + 1,)), shape=gc.zeros(x.shape), merged=gc.reshape(x, (b * t, 4)),
            flat=gc.reshape(x, (b, t * 4)), guess=gc.reshape(x, (b, -1)), all=gc.reshape(x, (-1,)), back=gc.reshape(gc.reshape(x, (-1, 2)), (b, t, 4)),
            start=x + gc.zeros((b, 1, 4)), wide=gc.broadcast_to(x[:, :1], (b, t, 4)), added=gc.ones((b, t))[:, :, None] * x)
    m = gc.compile(net, dtype="float64")
    for b, t in ((1, 1), (2, 3), (3, 6), (5, 2)):
        x = normal(b, t, 4)
        want = dict(
            rows=np.zeros((b, 3)), both=np.ones((b, t)), twice=np.zeros(2 * b + 1), area=np.ones(b * t), less=np.zeros((b + t - 1, 2)),
            half=np.zeros((t // 2, 1)), windows=np.zeros((t - 1) // 2 + 1), shape=np.zeros((b, t, 4)), merged=x.reshape(-1, 4),
            flat=x.reshape(b, -1), guess=x.reshape(b, -1), all=x.ravel(), back=x, start=x, wide=np.broadcast_to(x[:, :1], x.shape), added=x)
        same(m.forward(x=x), {k: np.asarray(v) for k, v in want.items()})


def test_equal_sizes_are_known_to_be_equal():
    @gc.model
    def net(x: gc.f64["T", 2]):                                        # (T − 1)//2 + 1 = (T + 1)//2, (T + T)//2 = T, …
        t = gc.dim("T")
        even = x[::2]
        return gc.outputs(a=even + gc.zeros(((t - 1) // 2 + 1, 2)), b=even + gc.ones(((t + 1) // 2, 2)), c=x + gc.zeros(((t + t) // 2, 2)),
                          d=x[1:] + gc.zeros((t - 1, 2)), e=gc.concat([x[1:], x[:1]], axis=0) + x,
                          f=gc.reshape(x, (2 * t,)) + gc.reshape(gc.transpose(x), (t * 2,)))
    m = gc.compile(net, dtype="float64")
    for t in (1, 2, 5):
        x = normal(t, 2)
        same(m.forward(x=x), dict(a=x[::2], b=x[::2] + 1, c=x, d=x[1:], e=np.roll(x, -1, 0) + x, f=x.ravel() + x.T.ravel()))


def test_reshape_with_sizes_that_may_not_fit():
    @gc.model
    def net(x: gc.f64["N"]):
        return gc.outputs(y=gc.reshape(x, (gc.dim("N") // 2, 2)))
    m = gc.compile(net)
    for n in (0, 2, 6):
        x = normal(n)
        np.testing.assert_array_equal(m.forward(x=x)["y"], x.reshape(-1, 2))
    with pytest.raises(gc.GraphcError) as error:
        m.forward(x=normal(5))
    names(str(error.value), 5)


def test_concat_along_symbolic_axes():
    def table(xp, a, b):
        return dict(rows=xp.concat([a, b], axis=0), three=xp.concat([a, b, a * 2], axis=0), sum=xp.sum(xp.concat([a, b], axis=0), axis=0),
                    wide=xp.concat([a, a], axis=1), mean=xp.mean(xp.concat([a, b], axis=0), axis=0))
    m = build(table, gc.f64["N", 3], gc.f64["M", 3], dtype="float64")
    for n, k in ((1, 1), (4, 2), (0, 3), (2, 0)):
        a, b = normal(n, 3), normal(k, 3)
        same(m.forward(a, b), reference(table, a, b))


def test_gradients_through_concat_along_symbolic_axes():
    @gc.model
    def net(a: gc.f64["N", 2], b: gc.f64["M", 2], v: gc.f64[2]):
        w, u = gc.param("w", (2,)), gc.param("u", (2,))
        y = gc.concat([a * w, b * u], axis=0)
        return gc.outputs(loss=gc.sum(gc.sum(y, axis=0) * v) + gc.sum(y[::-1][0]))
    m = gc.compile(net, dtype="float64")
    for n, k in ((3, 2), (1, 4)):
        a, b, v = normal(n, 2), normal(k, 2), normal(2)
        grads = m.value_and_grad(a=a, b=b, v=v)[1]
        np.testing.assert_allclose(grads["w"], a.sum(0) * v, rtol=1e-12)
        np.testing.assert_allclose(grads["u"], b.sum(0) * v + b[-1], rtol=1e-12)


def test_split_of_a_constant_axis():
    def table(xp, a):
        one, two, three = xp.split(a, 3, axis=1)
        return dict(mix=one * two - three, last=three, back=xp.concat([three, two, one], axis=-1))
    m = build(table, gc.f64["B", 6], dtype="float64")
    for n in (1, 4):
        a = normal(n, 6)
        same(m.forward(a), reference(table, a))


def test_means_over_symbolic_axes():
    @gc.model
    def net(x: gc.f64["B", "T", 2]):
        w = gc.param("w", (2,))
        y = gc.tanh(x * w)
        return gc.outputs(all=gc.mean(y), batch=gc.mean(y, axis=0), time=gc.mean(y, axis=1), both=gc.mean(y, axis=(0, 1), keepdims=True), loss=gc.mean(y))
    m = gc.compile(net, dtype="float64")
    w = normal(2)
    m.params["w"][...] = w
    for b, t in ((1, 1), (3, 5), (2, 8)):
        x = normal(b, t, 2)
        y = np.tanh(x * w)
        out, grads = m.value_and_grad(x=x)
        same(out, dict(all=np.asarray(y.mean()), batch=y.mean(0), time=y.mean(1), both=y.mean((0, 1), keepdims=True), loss=np.asarray(y.mean())))
        np.testing.assert_allclose(grads["w"], ((1 - y * y) * x).sum((0, 1)) / y.size, rtol=1e-11)


def test_a_batch_of_no_rows():
    @gc.model
    def net(x: gc.f64["B", 3], y: gc.i64["B"]):
        h = gc.relu(gc.nn.linear(x, 4, name="one"))
        z = gc.nn.linear(h, 2, name="two")
        return gc.outputs(z=z, p=gc.softmax(z, axis=-1), loss=gc.nn.cross_entropy(z, y, reduction="sum"))
    m = gc.compile(net, dtype="float64")
    out, grads = m.value_and_grad(x=np.zeros((0, 3)), y=np.zeros(0, np.int64))
    assert out["z"].shape == (0, 2) and out["p"].shape == (0, 2) and float(out["loss"]) == 0
    for name, g in grads.items():
        assert g.shape == m.params[name].shape and not np.asarray(g).any(), name
    assert m.forward(x=np.ones((2, 3)))["z"].shape == (2, 2)


def test_gradients_at_many_sizes():
    @gc.model
    def net(x: gc.f64["B", 3], y: gc.f64["B", 2]):
        h = gc.tanh(gc.nn.linear(x, 4, name="one"))
        return gc.outputs(loss=gc.nn.mse(gc.nn.linear(h, 2, name="two"), y))
    m = gc.compile(net, dtype="float64")
    for name in m.params:
        m.params[name][...] = normal(*m.params[name].shape)
    w, b, v, c = (np.array(m.params[n]) for n in ("one/W", "one/b", "two/W", "two/b"))
    for n in (1, 2, 17, 3):
        x, y = normal(n, 3), normal(n, 2)
        h = np.tanh(x @ w + b)
        e = 2 * (h @ v + c - y) / (2 * n)
        d = e @ v.T * (1 - h * h)
        grads = m.value_and_grad(x=x, y=y)[1]
        for name, want in {"one/W": x.T @ d, "one/b": d.sum(0), "two/W": h.T @ e, "two/b": e.sum(0)}.items():
            np.testing.assert_allclose(grads[name], want, rtol=1e-10, atol=1e-13)


def test_products_of_symbolic_sizes():
    def table(xp, a, b):
        return dict(y=a @ b, outer=xp.einsum("ij,jk->ki", a, b), gram=xp.transpose(a) @ a, total=xp.sum(a @ b, axis=1))
    m = build(table, gc.f64["N", "K"], gc.f64["K", "M"], dtype="float64")
    for n, k, o in ((1, 1, 1), (3, 4, 5), (2, 0, 3), (0, 2, 1), (20, 1, 1)):
        a, b = normal(n, k), normal(k, o)
        same(m.forward(a, b), reference(table, a, b), rtol=1e-11)
    with pytest.raises(gc.GraphcError) as error:
        m.forward(normal(2, 3), normal(4, 2))
    names(str(error.value), "K", 3, 4)


def test_different_names_may_have_equal_values():
    m = build(lambda xp, a, b: dict(y=a[:, None] * b[None, :]), gc.f64["N"], gc.f64["M"], dtype="float64")
    for n, k in ((3, 3), (3, 4), (1, 3)):
        a, b = normal(n), normal(k)
        np.testing.assert_allclose(m.forward(a, b)["y"], np.outer(a, b))


def test_a_size_that_no_input_binds():
    def compile_and_run():
        @gc.model
        def net(x: gc.f64["B"]):
            return gc.outputs(y=gc.zeros((gc.dim("Q"),)), z=x)
        gc.compile(net).forward(x=normal(2), outputs=["y"])
    with pytest.raises(gc.GraphcError) as error:
        compile_and_run()
    names(str(error.value), "Q")


def test_sizes_of_parameters_may_come_from_literals_of_inputs():
    @gc.model
    def net(x: gc.f32["B", 5]):
        return gc.outputs(y=x @ gc.param("w", (x.shape[1], x.shape[-1] + 2)))
    m = gc.compile(net)
    assert m.params["w"].shape == (5, 7)
    assert m.forward(x=np.ones((2, 5), np.float32))["y"].shape == (2, 7)


def test_large_sizes_after_small_ones_and_back(regression):
    big = normal(20000, 50), normal(20000), normal(50)
    small = normal(2, 50), normal(2), big[2]
    regression.params["b"][...] = 0
    for x, y, w in (small, big, small, big):
        np.testing.assert_allclose(regression.forward(x=x, y=y, w=w)["e"], x @ w - y, rtol=1e-9, atol=1e-11)
