"""A chain of ten operations on each of 2²² values: bound by memory, if it is one loop."""
# ruff: noqa: F821

from typing import Any

import numpy as np

from ..case import Case
from ..targets import share
from ..workload import Arrays, Model
from ..yardsticks import Copy

VALUES = 1 << 22


def _chain(library: Any, x: Any) -> Any:
    """Ten operations, numbered."""
    t = library.tanh(x * 0.5 + 0.1)          # 1 2 3
    e = library.exp(-(x * x))                # 4 5 6
    return (t * e + x) * 0.25 - t            # 7 8 9 10


def _forward(gc: Any) -> Any:
    @gc.model
    def chain(x: gc.f32["N"]):
        return gc.outputs(y=_chain(gc, x))

    return chain


def _gradient(gc: Any) -> Any:
    @gc.model
    def chain_gradient():
        return gc.outputs(loss=gc.mean(_chain(gc, gc.param("x", (VALUES,)))))

    return chain_gradient


def _values(rng: np.random.Generator) -> Arrays:
    return {"x": rng.standard_normal(VALUES, np.float32)}


def _nothing(rng: np.random.Generator, rows: int = 0) -> Arrays:
    return {}


FORWARD = Model(_nothing, lambda rng, rows: _values(rng), _forward, lambda torch, p, d: _chain(torch, d["x"]),
                lambda jax, p, d: _chain(jax.numpy, d["x"]), mode="forward", yardstick=Copy(VALUES))
# It reads x and writes its gradient: as many bytes as a copy.
GRADIENT = Model(_values, _nothing, _gradient, lambda torch, p, d: _chain(torch, p["x"]).mean(),
                 lambda jax, p, d: _chain(jax.numpy, p["x"]).mean(), yardstick=Copy(VALUES))

CASES = (
    Case("chain/forward", "ten operations with tanh and exp on 2²² values", FORWARD, (share(0.8, "copying"),)),
    Case("chain/gradient", "the mean of the chain, and its gradient", GRADIENT, (share(0.8, "copying"),)),
)
