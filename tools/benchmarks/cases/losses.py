"""Softmax cross-entropy and layer norm by themselves, with the gradients of all that they read."""

from typing import Any

import numpy as np

from ..case import Case
from ..targets import faster
from ..workload import Arrays, Model

EPS = 1e-5


def _cross_entropy(rows: int, classes: int) -> Model:
    def model(gc: Any) -> Any:
        @gc.model
        def cross_entropy(label: gc.i64[rows]):
            return gc.outputs(loss=gc.nn.cross_entropy(gc.param("logits", (rows, classes)), label))

        return cross_entropy

    def in_jax(jax: Any, p: dict[str, Any], d: dict[str, Any]) -> Any:
        return -jax.numpy.take_along_axis(jax.nn.log_softmax(p["logits"]), d["label"][:, None], axis=1).mean()

    return Model(lambda rng: {"logits": rng.standard_normal((rows, classes), np.float32)},
                 lambda rng, _: {"label": rng.integers(0, classes, rows)}, model,
                 lambda torch, p, d: torch.nn.functional.cross_entropy(p["logits"], d["label"]), in_jax)


def _layer_norm(rows: int, width: int) -> Model:
    """The loss is Σ g·y for given g, so that g is the gradient that reaches y."""
    def model(gc: Any) -> Any:
        @gc.model
        def layer_norm(g: gc.f32[rows, width]):
            x = gc.param("x", (rows, width))
            y = gc.layer_norm(x, gc.param("scale", (width,)), gc.param("shift", (width,)), eps=EPS)
            return gc.outputs(loss=gc.sum(g * y))

        return layer_norm

    def in_torch(torch: Any, p: dict[str, Any], d: dict[str, Any]) -> Any:
        y = torch.nn.functional.layer_norm(p["x"], (width,), p["scale"], p["shift"], EPS)
        return (d["g"] * y).sum()

    def in_jax(jax: Any, p: dict[str, Any], d: dict[str, Any]) -> Any:
        centred = p["x"] - p["x"].mean(-1, keepdims=True)
        variance = jax.numpy.square(centred).mean(-1, keepdims=True)
        return (d["g"] * (centred * jax.lax.rsqrt(variance + EPS) * p["scale"] + p["shift"])).sum()

    def params(rng: np.random.Generator) -> Arrays:
        return {"x": rng.standard_normal((rows, width), np.float32),
                "scale": rng.uniform(0.5, 1.5, width).astype(np.float32),
                "shift": rng.standard_normal(width, np.float32)}

    return Model(params, lambda rng, _: {"g": rng.standard_normal((rows, width), np.float32)}, model,
                 in_torch, in_jax)


_TARGETS = (faster("torch", 2),)

CASES = (
    Case("cross_entropy/2048x96", "softmax cross-entropy of 2048×96 logits and its gradient",
         _cross_entropy(2048, 96), _TARGETS),
    Case("cross_entropy/1024x10000", "the same of 1024×10000", _cross_entropy(1024, 10000), _TARGETS),
    Case("layer_norm", "layer norm of 1024×384 with scale and shift, and all gradients",
         _layer_norm(1024, 384), _TARGETS),
)
