"""Small networks: a call of the gradient, a training step, and what a step needs in memory."""
# ruff: noqa: F821

from dataclasses import replace
from typing import Any

import numpy as np

from ..case import Case, Memory
from ..targets import faster, no_more_than, within
from ..workload import TRANSPOSED, Arrays, Model, Shapes

PIXELS, FIRST, SECOND, CLASSES = 784, 256, 128, 10


def _mlp(gc: Any) -> Any:
    @gc.model
    def mlp(x: gc.f32["B", PIXELS], label: gc.i64["B"]):
        h = gc.relu(gc.nn.linear(x, FIRST, name="first"))
        h = gc.relu(gc.nn.linear(h, SECOND, name="second"))
        return gc.outputs(loss=gc.nn.cross_entropy(gc.nn.linear(h, CLASSES, name="out"), label))

    return mlp


def _mlp_torch(torch: Any, p: dict[str, Any], d: dict[str, Any]) -> Any:
    linear = torch.nn.functional.linear
    h = torch.relu(linear(d["x"], p["first/W"], p["first/b"]))
    h = torch.relu(linear(h, p["second/W"], p["second/b"]))
    return torch.nn.functional.cross_entropy(linear(h, p["out/W"], p["out/b"]), d["label"])


def _mlp_jax(jax: Any, p: dict[str, Any], d: dict[str, Any]) -> Any:
    h = jax.nn.relu(d["x"] @ p["first/W"] + p["first/b"])
    h = jax.nn.relu(h @ p["second/W"] + p["second/b"])
    log_p = jax.nn.log_softmax(h @ p["out/W"] + p["out/b"])
    return -jax.numpy.take_along_axis(log_p, d["label"][:, None], axis=1).mean()


def _mlp_data(rng: np.random.Generator, rows: int) -> Arrays:
    return {"x": rng.standard_normal((rows, PIXELS), np.float32), "label": rng.integers(0, CLASSES, rows)}


_SHAPES = Shapes({"first/W": (PIXELS, FIRST), "first/b": (FIRST,), "second/W": (FIRST, SECOND), "second/b": (SECOND,),
                  "out/W": (SECOND, CLASSES), "out/b": (CLASSES,)})

MLP = Model(_SHAPES, _mlp_data, _mlp, _mlp_torch, _mlp_jax, TRANSPOSED, rows=64)
MLP_STEP = replace(MLP, mode="step")
MLP_LARGE = replace(MLP_STEP, rows=16384)


def _expression(gc: Any) -> Any:
    @gc.model
    def expression():
        a, b, c = gc.param("a"), gc.param("b"), gc.param("c")
        return gc.outputs(loss=c * (a + 2 * b))

    return expression


def _by_hand(library: Any, p: dict[str, Any], d: dict[str, Any]) -> Any:
    return p["c"] * (p["a"] + 2 * p["b"])


EXPRESSION = Model(lambda rng: {n: np.array(v, np.float32) for n, v in (("a", 3), ("b", 1), ("c", -2))},
                   lambda rng, rows: {}, _expression, _by_hand, _by_hand, reuse=False)

_MLP_TARGETS = (faster("jax", 1.2), faster("torch", 2))

CASES = (
    Case("mlp/gradient", "784–256–128–10, ReLU, cross-entropy, batch 64: the loss and its gradient", MLP, _MLP_TARGETS),
    Case("mlp/step", "the same with Adam's update", MLP_STEP, _MLP_TARGETS),
    Case("expression", "L = c(a + 2b): L and its three partial derivatives", EXPRESSION, (within(2e-6),)),
)

MEMORY = (
    Case("memory/step", "a training step of the same network with Adam, batch 16384", MLP_LARGE,
         (no_more_than("torch", "memory"),), Memory()),
)
