"""The pretrained textgenrnn: cuDNN's weights, and a text gone on with, against a plain NumPy loop."""
from __future__ import annotations

import importlib.util
import os
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest

import graphc as gc


def place():
    """The package's folder: that of GRAPHC_TEXTGENRNN, or the installed one's; None where there is none."""
    if "GRAPHC_TEXTGENRNN" in os.environ:
        return Path(os.environ["GRAPHC_TEXTGENRNN"])
    try:
        return Path(metadata.distribution("textgenrnn").locate_file("textgenrnn"))
    except metadata.PackageNotFoundError:
        return None


FOLDER = place()
needs_weights = pytest.mark.skipif(
    FOLDER is None or importlib.util.find_spec("h5py") is None,
    reason="the package textgenrnn, or h5py, is not installed: pip install --no-deps textgenrnn h5py",
)


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def cudnn_lstm(x, kernel, recurrent, bias):
    """cuDNN's formula over its own layout: for each gate a matrix (units, features) and one (units, units), two biases."""
    H = len(recurrent)
    Ws = [np.ravel(kernel[:, k * H : (k + 1) * H]).reshape(H, -1) for k in range(4)]
    Rs = [recurrent[:, k * H : (k + 1) * H] for k in range(4)]
    bs = bias.reshape(2, 4, H).sum(axis=0)
    h, c, hs = np.zeros(H), np.zeros(H), []
    for x_t in x:
        i, f, g, o = (W @ x_t + R @ h + b for W, R, b in zip(Ws, Rs, bs))
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        hs.append(h)
    return np.array(hs)


def reference(stored, numbers):
    """p of the next character, as the package computes it."""
    e = stored["embedding/embedding/embeddings:0"][numbers].astype(float)
    layers = [e]
    for name in ("rnn_1", "rnn_2"):
        own = (stored[f"{name}/{name}/{part}:0"].astype(float) for part in ("kernel", "recurrent_kernel", "bias"))
        layers.append(cudnn_lstm(layers[-1], *own))
    v = np.concatenate(layers, axis=1)
    logits = (v @ stored["attention/attention/attention_W:0"].astype(float))[:, 0]
    a = np.exp(logits - logits.max())
    seen = (a / (a.sum() + 1e-7)) @ v
    z = seen @ stored["output/output/kernel:0"].astype(float) + stored["output/output/bias:0"]
    return np.exp(z - z.max()) / np.exp(z - z.max()).sum()


def test_cudnns_layout(page):
    """The formula over cuDNN's arrays equals a graphc LSTM over what becomes of them."""
    rng = np.random.default_rng(0)
    kernel, recurrent, bias = rng.normal(size=(3, 20)), rng.normal(size=(5, 20)), rng.normal(size=40)

    @gc.model
    def layer(x: gc.f64["B", "T", 3]):
        return gc.outputs(h=gc.nn.lstm(x, 5)[0])

    m = gc.compile(layer, dtype="float64")
    for name, array in zip("WUb", page("textgenrnn").of_cudnn(kernel, recurrent, bias), strict=True):
        m.params[f"lstm/{name}"][...] = array
    x = rng.normal(size=(7, 3))
    np.testing.assert_allclose(m.forward(x[None])["h"][0], cudnn_lstm(x, kernel, recurrent, bias), rtol=1e-12)


def test_the_window(page):
    module = page("textgenrnn")
    vocabulary = {"<s>": 1, "a": 2, "b": 3}
    (numbers,) = module.window(["<s>", "a", "?", "b"], vocabulary)
    assert numbers.tolist() == [0] * 36 + [1, 2, 0, 3]
    assert module.window(["<s>", *"ab" * 30], vocabulary)[0].tolist() == [2, 3] * 20


def test_a_missing_package_is_explained(page, monkeypatch):
    def missing(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "distribution", missing)
    with pytest.raises(gc.GraphcError, match="the package textgenrnn is not installed"):
        page("textgenrnn").pretrained()


@needs_weights
@pytest.mark.parametrize("text", ["I just found", "", "What is the most", "x" * 60])
def test_it_goes_on_as_the_package_does(page, text):
    """200 characters, greedily, are those of the reference; its probabilities are the model's."""
    import h5py

    module = page("textgenrnn")
    m, vocabulary = module.pretrained(FOLDER)
    with h5py.File(FOLDER / "textgenrnn_weights.hdf5") as file:
        stored = {}
        file.visititems(lambda name, item: stored.update({name: item[()]} if isinstance(item, h5py.Dataset) else {}))
    characters = {number: character for character, number in vocabulary.items()}
    said = ["<s>", *text]
    while len(said) < 1 + len(text) + 200:
        numbers = [vocabulary.get(c, 0) for c in said[-40:]]
        numbers = [0] * (40 - len(numbers)) + numbers
        p = reference(stored, numbers)
        np.testing.assert_allclose(m.forward(x=[numbers], outputs=["p"])["p"][0], p, rtol=2e-3, atol=1e-6)
        assert p.argmax() > 0
        if characters[p.argmax()] == "<s>":
            break
        said.append(characters[p.argmax()])
    assert module.go_on(m, vocabulary, text) == "".join(said[1:])
