"""Forecasting a series: the formula, the data, what it learns against forecasts that know only the window."""
from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

import graphc as gc


@pytest.fixture(scope="module")
def forecasting(page):
    return page("forecasting")


@pytest.fixture(scope="module")
def trained(forecasting):
    m = gc.compile(forecasting.forecasting, optimiser=gc.train.Adam(forecasting.training["lr"]))
    return m, gc.train.fit(m, forecasting.data(), epochs=8, batch_size=32).history[-1]


def test_data(forecasting):
    """Each window stands before its value, and time is cut once."""
    data = forecasting.data(window=30, length=200)
    values = forecasting.series(200)
    x, y = (np.concatenate([data.train[n], data.valid[n]]) for n in "xy")
    assert len(y) == 170 and len(data.train["y"]) == 136
    for i in (0, 57, 169):
        np.testing.assert_array_equal(x[i], values[i : i + 30])
        assert y[i] == values[i + 30]


def test_a_window_shorter_than_a_season_is_explained(forecasting):
    with pytest.raises(gc.GraphcError, match="a series of 3000 values has no windows of 20"):
        forecasting.data(window=20)


def test_the_formula(forecasting):
    m = gc.compile(forecasting.forecasting, hidden=3, season=4, dtype="float64")
    rng = np.random.default_rng(0)
    for p in m.params.values():
        p[...] = rng.normal(size=p.shape)
    W, U, b = (m.params[f"gru/{n}"] for n in "WUb")
    x, y = rng.normal(size=(5, 6)), rng.normal(size=5)
    sigmoid = lambda z: 1 / (1 + np.exp(-z))
    h = np.zeros((5, 3))
    for u in (x - x[:, -1:]).T:
        a = u[:, None] * W[0] + b
        r, z = sigmoid(a[:, :3] + h @ U[:, :3]), sigmoid(a[:, 3:6] + h @ U[:, 3:6])
        h = (1 - z) * h + z * np.tanh(a[:, 6:] + (r * h) @ U[:, 6:])
    y_hat = x[:, -1] + h @ m.params["out/W"][:, 0] + m.params["out/b"][0]
    outputs = m.forward(x, y)
    np.testing.assert_allclose(outputs["y_hat"], y_hat, rtol=1e-12)
    for name, forecast in (("loss", y_hat), ("naive", x[:, -1]), ("seasonal", x[:, -4])):
        assert outputs[name] == pytest.approx(((forecast - y) ** 2).mean(), rel=1e-12)


def test_it_beats_what_knows_only_the_window(trained):
    """Above the noise, 0.09, nothing is to be gained; the level of the held-back time is new, and no harm."""
    _, epoch = trained
    assert 0.08 < epoch.valid["loss"] < 0.16 < 0.2 < epoch.valid["seasonal"] < epoch.valid["naive"]


def test_many_steps_ahead(forecasting, trained):
    """Each forecast is that of the window before it; half a season is gone on with from forecasts alone."""
    m, _ = trained
    clean = forecasting.series(noise=0)[-60:]
    found = forecasting.ahead(m, clean[:48], 12)
    for i in (0, 5, 11):
        window = np.concatenate([clean[:48], found[:i]])[-48:].astype(np.float32)
        assert m.forward(x=window[None], outputs=["y_hat"])["y_hat"][0] == pytest.approx(found[i], rel=1e-6)
    held = clean[47] - clean[48:]
    assert np.mean((found - clean[48:]) ** 2) < 0.1 * np.mean(held**2)


def test_an_lstm_learns_too(forecasting):
    m = gc.compile(forecasting.forecasting, cell="lstm", optimiser=gc.train.Adam(3e-3))
    epoch = gc.train.fit(m, forecasting.data(), epochs=6).history[-1]
    assert epoch.valid["loss"] < epoch.valid["seasonal"]


def test_it_draws(forecasting, trained, tmp_path):
    pytest.importorskip("matplotlib", reason="the picture needs matplotlib")
    folder = trained[0].save(tmp_path)
    command = [sys.executable, forecasting.__file__, folder]
    r = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=os.environ)
    assert r.returncode == 0, r.stderr
    assert (tmp_path / "forecasting.png").stat().st_size > 10_000
