"""Models with loops as a whole: trained with a state carried from call to call, saved, loaded, frozen, profiled."""
from __future__ import annotations

import numpy as np
import pytest

import graphc as gc
from graphc.runtime.profile import profile
from graphc.runtime.program import Loop, Program

V, E, H, B, T = 20, 8, 16, 4, 10


@gc.model
def lm(x: gc.i32["T", "B"], y: gc.i32["T", "B"]):
    table = gc.param("table", (V, E))
    W, U, b = gc.param("W", (E, 4 * H)), gc.param("U", (H, 4 * H)), gc.param("b", (4 * H,))
    h0, c0 = gc.state("h", ("B", H), init=0.0), gc.state("c", ("B", H), init=0.0)

    def lstm(s, x_t):
        h, c = s
        f, i, g, o = gc.split(gc.take(table, x_t) @ W + h @ U + b, 4, axis=1)
        c = gc.sigmoid(f) * c + gc.sigmoid(i) * gc.tanh(g)
        h = gc.sigmoid(o) * gc.tanh(c)
        return (h, c), h

    (h, c), hs = gc.scan(lstm, init=(h0, c0), xs=x)
    gc.update(h0, h)
    gc.update(c0, c)
    return gc.outputs(loss=gc.nn.cross_entropy(gc.nn.linear(hs, V, name="out"), y))


@pytest.fixture(scope="module")
def trained():
    """(a model trained on a text that repeats, the text in columns, its losses)"""
    m = gc.compile(lm, optimiser=gc.train.Adam(1e-2))
    rng = np.random.default_rng(0)
    text = np.tile(rng.integers(0, V, 50), 40)
    data = text[: len(text) // B * B].reshape(B, -1).T.astype(np.int32)
    losses = []
    for _ in range(4):
        m.reset()
        for t in range(0, len(data) - T - 1, T):
            losses.append(float(m.step(x=data[t : t + T], y=data[t + 1 : t + T + 1])["loss"]))
    return m, data, losses


def test_a_recurrent_model_learns_with_its_state_carried(trained):
    m, _, losses = trained
    assert losses[0] > 2.9 and losses[-1] < 0.8
    assert np.abs(m.states["h"]).max() > 0.1
    m.reset()
    assert "h" not in m.states, "it begins again with the next call"


def test_two_calls_with_the_state_carried_are_one_long_call(trained):
    m, data, _ = trained
    m.reset()
    whole = m.forward(x=data[: 2 * T], y=data[1 : 2 * T + 1])["loss"]
    last = np.array(m.states["h"])
    m.reset()
    halves = [m.forward(x=data[t : t + T], y=data[t + 1 : t + T + 1])["loss"] for t in (0, T)]
    np.testing.assert_allclose(np.mean(halves), whole, rtol=1e-5)
    np.testing.assert_allclose(m.states["h"], last, rtol=1e-4, atol=1e-6)


def test_a_folder_holds_loops(trained, tmp_path):
    m, data, _ = trained
    loaded = gc.load(m.save(tmp_path))
    given = {"x": data[:T], "y": data[1 : T + 1]}
    results = []
    for each in (m, loaded):
        each.reset()
        results.append(each.value_and_grad(**given))
    (out, gradients), (again, others) = results
    assert out["loss"] == again["loss"]
    assert all(np.array_equal(gradients[n], others[n]) for n in gradients)
    program = m.entries["lm"].program("gradient")
    assert any(isinstance(i, Loop) for i in program.instructions)
    assert Program.from_json(program.to_json()) == program


def test_frozen_parameters_give_the_same(trained):
    m, data, _ = trained
    given = {"x": data[:T], "y": data[1 : T + 1]}
    results = []
    for change in (m.thaw, m.freeze):
        change()
        m.reset()
        results.append(m.forward(**given)["loss"])
    m.thaw()
    assert results[0] == pytest.approx(results[1], rel=1e-6)


def test_one_thread_and_two_give_the_same():
    rng = np.random.default_rng(0)
    given = {k: rng.integers(0, V, (40, 64)).astype(np.int32) for k in "xy"}
    (out, gradients), (other, others) = (gc.compile(lm, threads=n).value_and_grad(**given) for n in (1, 2))
    np.testing.assert_allclose(out["loss"], other["loss"], rtol=1e-6)
    for name in gradients:
        np.testing.assert_allclose(gradients[name], others[name], rtol=1e-3, atol=1e-6)


def test_the_cost_counts_every_step(trained):
    m, *_ = trained
    one, two = (m.cost(T=t, B=8)["gradient"]["operations"] for t in (64, 128))
    assert 1.95 < two / one < 2.05


def test_a_profile_times_a_loop_as_a_whole(trained):
    m, data, _ = trained
    found = profile(m.entries["lm"], "gradient", {"x": data[:T], "y": data[1 : T + 1]}, runs=4)
    assert len(found.timings) == len(found.program.instructions)
    assert sum(t.instruction.kernel.startswith("loop: ") for t in found.timings) == 2


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("rows", [4, 17])
def test_a_stack_of_weights_and_its_first_alone(rows, threads):
    """What is packed once before the loop for the one product is not what the batched one reads."""
    @gc.model
    def net(x: gc.f64["T", "R", 32]):
        A = gc.param("A", (3, 32, 32), init="normal")

        def step(c, el):
            h, s = c
            s = s + gc.einsum("rk,bkn->brn", h, A)
            return (gc.tanh(h @ A[0] + el), gc.tanh(s @ A[0] + s @ A)), None

        (h, s), _ = gc.scan(step, init=(gc.zeros(("R", 32)), gc.zeros((3, "R", 32))), xs=x)
        return gc.outputs(h=h, s=s)

    m = gc.compile(net, dtype="float64", threads=threads)
    A = m.params["A"]
    A *= 0.1
    x = np.random.default_rng(0).standard_normal((4, rows, 32))
    h, s = np.zeros((rows, 32)), np.zeros((3, rows, 32))
    for x_t in x:
        s = s + h @ A
        h, s = np.tanh(h @ A[0] + x_t), np.tanh(s @ A[0] + s @ A)
    got = m.forward(x=x)
    np.testing.assert_allclose(got["h"], h, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(got["s"], s, rtol=1e-12, atol=1e-12)
