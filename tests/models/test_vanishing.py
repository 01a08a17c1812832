"""The sizes of Jacobians through time, against products of Jacobians and differences in NumPy."""
from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

import graphc as gc

RNG = np.random.default_rng(0)
T, H = 7, 5
X = RNG.normal(size=(T, 8))


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def size(J):
    return np.sqrt((J**2).sum() / len(J))


def test_an_rnn_is_the_product_of_its_jacobians(page):
    m = gc.compile(page("vanishing").rnn, hidden=H, gain=1.3, dtype="float64")
    W, U, b = (m.params[f"rnn/{n}"] for n in "WUb")
    h, jacobians = np.zeros(H), []
    for x in X:
        h = np.tanh(x @ W + h @ U + b)
        jacobians.append((1 - h**2)[:, None] * U.T)
    J, wanted = np.eye(H), []
    for later in reversed(jacobians):
        wanted.append(size(J))
        J = J @ later
    np.testing.assert_allclose(m.forward(X)["size"], wanted[::-1], rtol=1e-12)


def gru(P, x, s):
    W, U, b = (P[f"gru/{n}"] for n in "WUb")
    (h,) = s
    a = x @ W + b
    r, z = sigmoid(a[:H] + h @ U[:, :H]), sigmoid(a[H : 2 * H] + h @ U[:, H : 2 * H])
    return ((1 - z) * h + z * np.tanh(a[2 * H :] + (r * h) @ U[:, 2 * H :]),)


def lstm(P, x, s):
    W, U, b = (P[f"lstm/{n}"] for n in "WUb")
    h, c = s
    f, i, g, o = np.split(x @ W + h @ U + b, 4)
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    return sigmoid(o) * np.tanh(c), c


@pytest.mark.parametrize("name, cell, arrays", [("gru", gru, ["size"]), ("lstm", lstm, ["size", "memory"])])
@pytest.mark.parametrize("bias", [0.0, 3.0])
def test_gates_by_differences(page, name, cell, arrays, bias):
    """Of each array of the state: how h_T answers to a small change of it at t."""
    module = page("vanishing")
    m = module.keeping(getattr(module, name), name, bias, hidden=H, dtype="float64")
    states = [(np.zeros(H),) * len(arrays)]
    for x in X:
        states.append(cell(m.params, x, states[-1]))

    def h_T(t, k, change):
        s = tuple(a + change * (j == k) for j, a in enumerate(states[t]))
        for x in X[t:]:
            s = cell(m.params, x, s)
        return s[0]

    outputs = m.forward(X)
    for k, output in enumerate(arrays):
        wanted = [
            size(np.stack([(h_T(t, k, 1e-6 * e) - h_T(t, k, -1e-6 * e)) / 2e-6 for e in np.eye(H)], axis=1))
            for t in range(1, T + 1)
        ]
        np.testing.assert_allclose(outputs[output], wanted, rtol=1e-7, atol=1e-9)


def test_what_the_page_says(page):
    """With a largest singular value below 1 it vanishes by at least that factor; open gates keep it, half-open ones do not."""
    module = page("vanishing")
    x = np.random.default_rng(1).normal(0, 0.3, (50, 8)).astype(np.float32)
    below = gc.compile(module.rnn, gain=0.8).forward(x)["size"]
    assert (below <= 0.8 ** np.arange(49, -1, -1) * 1.0001).all() and below[-1] == 1
    assert gc.compile(module.rnn, gain=2.0).forward(0 * x)["size"][0] == pytest.approx(2.0**49, rel=1e-4)
    for name, output in (("gru", "size"), ("lstm", "memory")):
        fresh, kept = (module.keeping(getattr(module, name), name, b).forward(x)[output][0] for b in (0.0, 3.0))
        assert fresh < 1e-8 and 0.01 < kept < 10


def test_it_draws(page, tmp_path):
    pytest.importorskip("matplotlib", reason="the picture needs matplotlib")
    r = subprocess.run(
        [sys.executable, page("vanishing").__file__], cwd=tmp_path, capture_output=True, text=True, env=os.environ
    )
    assert r.returncode == 0, r.stderr
    assert (tmp_path / "vanishing.png").stat().st_size > 10_000 and "LSTM" in r.stdout
