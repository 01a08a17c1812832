"""Attention, softmax(QKᵀ/√d)·V of many heads, and its gradient; PyTorch has a kernel of its own for it."""
# ruff: noqa: F821

from typing import Any

import numpy as np

from ..case import Case
from ..workload import Arrays, Model

HEADS, STEPS, WIDTH = 96, 512, 64  # heads of all sequences of a batch
SHAPE = (HEADS, STEPS, WIDTH)
SCALE = WIDTH**-0.5


def _attention(gc: Any, q: Any, k: Any, v: Any) -> Any:
    scores = gc.softmax(gc.einsum("htd,hsd->hts", q, k) * SCALE, axis=-1)
    return gc.einsum("hts,hsd->htd", scores, v)


def _forward(gc: Any) -> Any:
    @gc.model
    def attention(q: gc.f32["H", "T", WIDTH], k: gc.f32["H", "T", WIDTH], v: gc.f32["H", "T", WIDTH]):
        return gc.outputs(y=_attention(gc, q, k, v))

    return attention


def _gradient(gc: Any) -> Any:
    """The loss is Σ g·y for given g, so that g is the gradient that reaches y."""
    @gc.model
    def attention(g: gc.f32[SHAPE]):
        y = _attention(gc, *(gc.param(name, SHAPE) for name in "qkv"))
        return gc.outputs(loss=gc.sum(g * y))

    return attention


def _in_torch(torch: Any, a: dict[str, Any]) -> Any:
    batch = (a[name][None] for name in "qkv")
    return torch.nn.functional.scaled_dot_product_attention(*batch)[0]


def _in_jax(jax: Any, a: dict[str, Any]) -> Any:
    scores = jax.nn.softmax(jax.numpy.einsum("htd,hsd->hts", a["q"], a["k"]) * SCALE)
    return jax.numpy.einsum("hts,hsd->htd", scores, a["v"])


def _arrays(*names: str) -> Any:
    def arrays(rng: np.random.Generator, rows: int = 0) -> Arrays:
        return {name: rng.standard_normal(SHAPE, np.float32) for name in names}

    return arrays


FORWARD = Model(_arrays(), _arrays("q", "k", "v"), _forward, lambda torch, p, d: _in_torch(torch, d),
                lambda jax, p, d: _in_jax(jax, d), mode="forward")
GRADIENT = Model(_arrays("q", "k", "v"), _arrays("g"), _gradient, lambda torch, p, d: (d["g"] * _in_torch(torch, p)).sum(),
                 lambda jax, p, d: (d["g"] * _in_jax(jax, p)).sum())

CASES = (
    Case("attention/forward", "softmax(QKᵀ/√64)·V of 96 heads of 512 steps, 64 wide", FORWARD,
         flops=4.0 * HEADS * STEPS**2 * WIDTH),
    Case("attention/gradient", "the same, and all gradients", GRADIENT, flops=12.0 * HEADS * STEPS**2 * WIDTH),
)
