"""Recurrent networks: the gradient of a character language model, an embedding, one recurrent layer, cross-entropy."""
# ruff: noqa: F821

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..case import Case
from ..targets import Target, faster
from ..workload import Arrays, Layout, Model

#: The gates of a layer, in our order; and where PyTorch has each: its LSTM's are i f g o, its GRU's r z n.
GATES = {"rnn": 1, "lstm": 4, "gru": 3}
_TORCH_ORDER = {"rnn": (0,), "lstm": (1, 0, 2, 3), "gru": (0, 1, 2)}


@dataclass(frozen=True)
class Sizes:
    """steps, batch, embedding, hidden units, vocabulary"""

    steps: int
    batch: int
    embedding: int
    hidden: int
    vocabulary: int


def _turned(kind: str, array: Any, back: bool = False) -> Any:
    """The blocks of the gates along the last axis, in PyTorch's order, or back in ours."""
    blocks = np.split(array, GATES[kind], axis=-1)
    order = _TORCH_ORDER[kind]
    return np.concatenate([blocks[order.index(g) if back else order[g]] for g in range(len(order))], axis=-1)


def _layout(kind: str) -> Layout:
    def to(arrays: Arrays) -> Arrays:
        found = dict(arrays)
        for name in ("r/W", "r/U"):
            found[name] = np.ascontiguousarray(_turned(kind, arrays[name]).T)
        found["r/b"] = _turned(kind, arrays["r/b"])
        found["out/W"] = np.ascontiguousarray(arrays["out/W"].T)
        return found

    def back(arrays: Arrays) -> Arrays:
        found = dict(arrays)
        for name in ("r/W", "r/U"):
            found[name] = np.ascontiguousarray(_turned(kind, arrays[name].T, back=True))
        found["r/b"] = _turned(kind, arrays["r/b"], back=True)
        found["out/W"] = np.ascontiguousarray(arrays["out/W"].T)
        return found

    return Layout(to, back)


def _graphc(kind: str, s: Sizes) -> Any:
    def model(gc: Any) -> Any:
        # PyTorch's GRU resets after the product, and keeps the state by z: the options that say so
        options = {"reset": "after", "update": "old"} if kind == "gru" else {}

        @gc.model
        def language_model(x: gc.i64["B", "T"], y: gc.i64["B", "T"]):
            e = gc.take(gc.param("e", (s.vocabulary, s.embedding)), x, axis=0)
            hs, _ = getattr(gc.nn, kind)(e, s.hidden, name="r", **options)
            return gc.outputs(loss=gc.nn.cross_entropy(gc.nn.linear(hs, s.vocabulary, name="out"), y))

        return language_model

    return model


def _torch(kind: str) -> Any:
    def loss(torch: Any, p: dict[str, Any], d: dict[str, Any]) -> Any:
        e = torch.nn.functional.embedding(d["x"], p["e"])
        zero = torch.zeros(1, len(d["x"]), p["r/U"].shape[1])
        weights = [p["r/W"], p["r/U"], p["r/b"], torch.zeros_like(p["r/b"])]
        options = (True, 1, 0.0, True, False, True)  # biases, layers, dropout, training, bidirectional, batch first
        if kind == "lstm":
            hs = torch.lstm(e, (zero, zero), weights, *options)[0]
        else:
            hs = (torch.gru if kind == "gru" else torch.rnn_tanh)(e, zero, weights, *options)[0]
        logits = torch.nn.functional.linear(hs, p["out/W"], p["out/b"])
        return torch.nn.functional.cross_entropy(logits.flatten(0, 1), d["y"].flatten())

    return loss


def _jax(kind: str) -> Any:
    def loss(jax: Any, p: dict[str, Any], d: dict[str, Any]) -> Any:
        np_, sigmoid = jax.numpy, jax.nn.sigmoid
        e = p["e"][d["x"]].swapaxes(0, 1) @ p["r/W"] + p["r/b"]  # the inputs of all steps in one product
        zero = np_.zeros((len(d["x"]), p["r/U"].shape[0]), np_.float32)

        def rnn(h: Any, a: Any) -> Any:
            h = np_.tanh(a + h @ p["r/U"])
            return h, h

        def lstm(carry: Any, a: Any) -> Any:
            h, c = carry
            f, i, g, o = np_.split(a + h @ p["r/U"], 4, axis=-1)
            c = sigmoid(f) * c + sigmoid(i) * np_.tanh(g)
            h = sigmoid(o) * np_.tanh(c)
            return (h, c), h

        def gru(h: Any, a: Any) -> Any:
            r, z, n = np_.split(a, 3, axis=-1)
            ur, uz, un = np_.split(h @ p["r/U"], 3, axis=-1)
            n = np_.tanh(n + sigmoid(r + ur) * un)
            z = sigmoid(z + uz)
            h = (1 - z) * n + z * h
            return h, h

        step = {"rnn": rnn, "lstm": lstm, "gru": gru}[kind]
        _, hs = jax.lax.scan(step, (zero, zero) if kind == "lstm" else zero, e)
        log_p = jax.nn.log_softmax(hs.swapaxes(0, 1) @ p["out/W"] + p["out/b"])
        return -np_.take_along_axis(log_p, d["y"][..., None], axis=-1).mean()

    return loss


def _model(kind: str, s: Sizes) -> Model:
    def params(rng: np.random.Generator) -> Arrays:
        n = GATES[kind] * s.hidden
        shapes = {"e": (s.vocabulary, s.embedding), "r/W": (s.embedding, n), "r/U": (s.hidden, n), "r/b": (n,),
                  "out/W": (s.hidden, s.vocabulary), "out/b": (s.vocabulary,)}
        return {name: (rng.standard_normal(shape) * 0.08).astype(np.float32) for name, shape in shapes.items()}

    def data(rng: np.random.Generator, rows: int) -> Arrays:
        return {name: rng.integers(0, s.vocabulary, (rows, s.steps)) for name in "xy"}

    return Model(params, data, _graphc(kind, s), _torch(kind), _jax(kind), _layout(kind), rows=s.batch,
                 torch_compiles=False)


def _case(kind: str, sizes: Sizes, *targets: Target) -> Case:
    s = sizes
    what = (f"{kind.upper()}, {s.steps} steps, batch {s.batch}, embedding {s.embedding}, {s.hidden} units,"
            f" vocabulary {s.vocabulary}: the loss and its gradient")
    return Case(f"{kind}/{s.steps}x{s.batch}x{s.hidden}", what, _model(kind, sizes), targets)


_LARGE = Sizes(64, 32, 64, 256, 96)

CASES = (
    _case("rnn", _LARGE, faster("jax", 1.7, 1), faster("torch", 1.7, 1), faster("jax", 1.5, -1), faster("torch", 1.5, -1)),
    _case("gru", _LARGE, faster("jax", 2.5, 1), faster("torch", 2.5, 1), faster("jax", 2, -1), faster("torch", 2, -1)),
    _case("lstm", _LARGE, faster("torch", 1.15, 1), faster("torch", 1.1, -1)),
    _case("lstm", Sizes(20, 1, 32, 64, 50), faster("jax", 2.5, 1)),
)
