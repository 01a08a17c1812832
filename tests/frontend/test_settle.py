"""Gradients of values that a trace could lose: of zeros made twice, and of what a loop reads in cheap ways.

Each is the gradient of the same function of an input, which nothing can be mistaken for.
"""

import re

import numpy as np
import pytest

import graphc as gc
from graphc.frontend.model import trace_models
from graphc.graph.dtype import f64


def run(function, *arrays):
    return gc.compile(gc.model(function), dtype="float64", check=True).forward(*arrays)


def same(got, want):
    np.testing.assert_allclose(got, want, rtol=1e-10, atol=1e-12)


A, B = np.array([1.0, 2.0, 3.0]), np.array([10.0, 20.0, 30.0])


@pytest.mark.parametrize(
    "make",
    [lambda: gc.zeros((3,)), lambda: gc.ones(3), lambda: gc.full((3,), 0.5), lambda: gc.const(np.array([1.0, -2.0, 0.5]))],
    ids=["zeros", "ones", "full", "const"],
)
def test_equal_numbers_made_twice_are_two_values(make):
    def m(a: gc.f64[3], b: gc.f64[3]):
        u, v = make(), make()
        loss = gc.sum(u * a + v * b + u * u)
        return gc.outputs(u=gc.grad(loss, u), v=gc.grad(loss, v), both=gc.grad(loss, [u, v])[0], value=u)

    out = run(m, A, B)
    same(out["u"], A + 2 * out["value"])
    same(out["v"], B)
    same(out["both"], out["u"])


def test_a_number_made_once_and_used_twice_is_one_value():
    def m(a: gc.f64[3], b: gc.f64[3]):
        z = gc.zeros(3)
        return gc.outputs(g=gc.grad(gc.sum(z * a + z * b), z))

    same(run(m, A, B)["g"], A + B)


def test_numbers_that_a_layer_makes_are_not_those_of_the_model():
    def m(x: gc.f64[2, 4, 3]):
        h0 = gc.zeros((2, 3))
        first, _ = gc.nn.rnn(x, 3, name="rnn", initial=h0)
        again, _ = gc.nn.rnn(x, 3, name="rnn2")  # begins with zeros of its own
        return gc.outputs(g=gc.grad(gc.sum(first) + gc.sum(again), h0), alone=gc.grad(gc.sum(first), h0))

    out = run(m, np.random.default_rng(0).standard_normal((2, 4, 3)))
    assert np.abs(out["g"]).min() > 0
    same(out["g"], out["alone"])


def test_where_no_gradient_is_taken_equal_numbers_are_one_value():
    @gc.model
    def m(a: gc.f64[3], b: gc.f64[3]):
        return gc.outputs(y=gc.exp(gc.zeros(3)) * a + gc.exp(gc.zeros(3)) * b)

    (graph,) = trace_models([m], "m", f64, {}).entries.values()
    ops = [n.op for n in graph.nodes]
    assert "watched" not in ops and ops.count("exp") == 1


# -- loops -------------------------------------------------------------------------------------------------------------
READ = {
    "transposed": lambda w, v: w.T,
    "sliced": lambda w, v: w[:, ::-1],
    "reshaped": lambda w, v: gc.reshape(gc.reshape(w, (9,)), (3, 3)),
    "broadcast": lambda w, v: gc.broadcast_to(v, (3, 3)),
    "zeros": lambda w, v: gc.zeros((3, 3)),
    "number": lambda w, v: gc.const(0.5),
    "twice": lambda w, v: w.T[::-1],
}


def step_of(m, factor=1.0):
    def step(h, x_t):
        h = gc.tanh(gc.sum(x_t[:, None] * m, axis=0) * factor + 0.5 * h)
        return h, h

    return step


@pytest.mark.parametrize("checkpoint", [None, 2])
@pytest.mark.parametrize("read", READ)
def test_what_a_loop_reads_has_its_gradient(read, checkpoint):
    def model(x: gc.f64["T", 3], w: gc.f64[3, 3], v: gc.f64[3]):
        m = READ[read](w, v)
        _, hs = gc.scan(step_of(m), init=gc.ones(3), xs=x, checkpoint=checkpoint)
        loss = gc.sum(hs * hs)
        return gc.outputs(g=gc.grad(loss, m), value=m, second=gc.grad(gc.sum(gc.grad(loss, m) * m), m))

    def plain(x: gc.f64["T", 3], m: gc.f64["I", "J"]):
        m = gc.reshape(m, ()) if read == "number" else gc.broadcast_to(m, (3, 3))
        _, hs = gc.scan(step_of(m), init=gc.ones(3), xs=x)
        loss = gc.sum(hs * hs)
        return gc.outputs(g=gc.grad(loss, m), second=gc.grad(gc.sum(gc.grad(loss, m) * m), m))

    rng = np.random.default_rng(1)
    x, w, v = rng.standard_normal((5, 3)), rng.standard_normal((3, 3)), rng.standard_normal(3)
    got = run(model, x, w, v)
    want = run(plain, x, np.atleast_2d(got["value"]))
    assert np.abs(got["g"]).min() > 0
    same(got["g"], want["g"])
    same(got["second"], want["second"])


def test_loops_inside_loops_read_what_is_around_them():
    def nested(m, n):
        def outer(h, x_t):
            h, _ = gc.scan(step_of(m, n), init=h, xs=x_t)
            return h, h

        return outer

    def model(x: gc.f64["T", "S", 3], w: gc.f64[3, 3]):
        m, n = w.T, gc.ones(())
        loss = gc.sum(gc.scan(nested(m, n), init=gc.zeros(3), xs=x)[1])
        return gc.outputs(m=gc.grad(loss, m), n=gc.grad(loss, n))

    def plain(x: gc.f64["T", "S", 3], m: gc.f64[3, 3], n: gc.f64[()]):
        loss = gc.sum(gc.scan(nested(m, n), init=gc.zeros(3), xs=x)[1])
        return gc.outputs(m=gc.grad(loss, m), n=gc.grad(loss, n))

    rng = np.random.default_rng(2)
    x, w = rng.standard_normal((3, 2, 3)), rng.standard_normal((3, 3))
    got, want = run(model, x, w), run(plain, x, w.T.copy(), 1.0)
    same(got["m"], want["m"])
    same(got["n"], want["n"])


def test_gradients_that_a_step_takes_of_equal_numbers():
    def model(x: gc.f64["T", 3]):
        shared = gc.zeros(3)

        def step(c, x_t):
            u, v = gc.zeros(3), gc.zeros(3)
            loss = gc.sum(u * x_t + 5 * v * x_t + 7 * shared * x_t)
            return c, (gc.grad(loss, u), gc.grad(loss, v), gc.grad(loss, shared))

        _, (u, v, s) = gc.scan(step, init=0.0, xs=x)
        return gc.outputs(u=u, v=v, s=s)

    x = np.arange(12.0).reshape(4, 3)
    out = run(model, x)
    same(out["u"], x)
    same(out["v"], 5 * x)
    same(out["s"], 7 * x)


def test_a_step_does_itself_what_is_cheap_where_no_gradient_is_taken():
    @gc.model
    def m(x: gc.f64["T", 3], w: gc.f64[3, 3]):
        _, hs = gc.scan(step_of(w.T), init=gc.zeros(3), xs=x)
        return gc.outputs(hs=hs)

    (graph,) = trace_models([m], "m", f64, {}).entries.values()
    (loop,) = [n for n in graph.nodes if n.op == "scan"]
    assert [o.attr("name") for o in loop.operands if o.op == "input"] == ["x", "w"]
    assert "transpose" in [n.op for n in loop.attr("body").nodes]


def test_the_training_step_of_a_model_with_gradients_of_its_own():
    @gc.model
    def m(x: gc.f64["T", 3]):
        w, z = gc.param("w", (3, 3)), gc.zeros(3)
        _, hs = gc.scan(step_of(w.T), init=z, xs=x)
        s = gc.state("s", (3,), init=0.0)
        gc.update(s, s + gc.grad(gc.sum(hs), z))
        return gc.outputs(loss=gc.sum(hs * hs), g=gc.grad(gc.sum(hs), z))

    compiled = gc.compile(m, dtype="float64", optimiser=gc.train.SGD(lr=0.1), check=True)
    out = compiled.step(np.ones((4, 3)))
    assert np.abs(out["g"]).min() > 0
    same(compiled.states["s"], out["g"])


def test_a_jvp_outside_a_model_is_refused():
    with pytest.raises(gc.GraphcError, match=re.escape("gc.jvp was called outside a model")):
        gc.jvp(1.0, [], [])
