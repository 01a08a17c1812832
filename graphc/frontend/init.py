"""Initialisers: how a parameter or state begins. Each is called with the shape and a seeded generator.

A generator is seeded by the compilation's seed and the parameter's full name, so that adding a layer does not
change the others' values. Shapes are (fan-in, …, fan-out): the last axis is the output, all others the input.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from math import prod, sqrt
from typing import Any

import numpy as np

from ..errors import TraceError
from .trace import Initializer

Shape = tuple[int, ...]


def generator(seed: int, name: str) -> np.random.Generator:
    """The random numbers of one parameter."""
    return np.random.default_rng([seed, zlib.crc32(name.encode())])


def _fans(shape: Shape) -> tuple[int, int]:
    if len(shape) < 2:
        return (shape[0] if shape else 1,) * 2
    # a convolution kernel (window, in, out) sees window·in inputs and reaches window·out outputs
    return prod(shape[:-1]), prod(shape[:-2]) * shape[-1]


@dataclass(frozen=True)
class Constant:
    """Every element the same number: the one initialiser that needs no shape."""

    value: float

    def __call__(self, shape: Shape, rng: np.random.Generator) -> np.ndarray:
        return np.full(shape, self.value)


def constant(value: float) -> Initializer:
    """Every element the same number."""
    return Constant(value)


def zeros() -> Initializer:
    """All zero."""
    return constant(0.0)


def ones() -> Initializer:
    """All one."""
    return constant(1.0)


def uniform(low: float = -0.1, high: float = 0.1) -> Initializer:
    """Uniform on [low, high)."""
    return lambda shape, rng: rng.uniform(low, high, shape)


def normal(mean: float = 0.0, std: float = 0.01) -> Initializer:
    """Normal with the given mean and standard deviation."""
    return lambda shape, rng: rng.normal(mean, std, shape)


def glorot_uniform() -> Initializer:
    """Uniform on ±√(6/(fan_in + fan_out)) (Glorot and Bengio 2010, equation 16)."""
    return lambda shape, rng: rng.uniform(-1, 1, shape) * sqrt(6 / max(sum(_fans(shape)), 1))


def glorot_normal() -> Initializer:
    """Normal with the variance 2/(fan_in + fan_out) (Glorot and Bengio 2010)."""
    return lambda shape, rng: rng.normal(0, sqrt(2 / max(sum(_fans(shape)), 1)), shape)


def he_uniform() -> Initializer:
    """Uniform on ±√(6/fan_in), for ReLU (He et al. 2015, equation 10)."""
    return lambda shape, rng: rng.uniform(-1, 1, shape) * sqrt(6 / max(_fans(shape)[0], 1))


def he_normal() -> Initializer:
    """Normal with the variance 2/fan_in, for ReLU (He et al. 2015, equation 10)."""
    return lambda shape, rng: rng.normal(0, sqrt(2 / max(_fans(shape)[0], 1)), shape)


def orthogonal(gain: float = 1.0) -> Initializer:
    """Orthonormal rows or columns times a gain (Saxe et al. 2014): the QR factor of a normal matrix."""

    def draw(shape: Shape, rng: np.random.Generator) -> np.ndarray:
        if len(shape) < 2:
            raise TraceError(f"an orthogonal initialiser needs two axes or more, not the shape {shape}")
        rows, columns = prod(shape[:-1]), shape[-1]
        q, r = np.linalg.qr(rng.normal(size=(max(rows, columns), min(rows, columns))))
        q = q * np.sign(np.diag(r))  # makes the distribution uniform over orthogonal matrices
        return gain * (q if rows >= columns else q.T).reshape(shape)

    return draw


def from_array(array: Any) -> Initializer:
    """The given numbers; their shape must be the parameter's."""
    values = np.asarray(array)

    def draw(shape: Shape, rng: np.random.Generator) -> np.ndarray:
        if values.shape != shape:
            raise TraceError(f"the initial array has the shape {values.shape}, the parameter {shape}")
        return values

    return draw


_BY_NAME: dict[str, Callable[[], Initializer]] = {
    "zeros": zeros,
    "ones": ones,
    "uniform": uniform,
    "normal": normal,
    "glorot_uniform": glorot_uniform,
    "glorot_normal": glorot_normal,
    "he_uniform": he_uniform,
    "he_normal": he_normal,
    "orthogonal": orthogonal,
}


def resolve(init: Any, shape: Shape | None, default: Initializer | None = None) -> Initializer:
    """What `init=` may be: None, a name, a number, an array, or a function of (shape, generator)."""
    if init is None:
        # parameters of 0 and 1 axes begin at zero, larger ones as Glorot and Bengio have it
        return default or (zeros() if shape is None or len(shape) < 2 else glorot_uniform())
    if isinstance(init, str):
        if init not in _BY_NAME:
            raise TraceError(f"there is no initialiser {init!r}", how=f"one of {', '.join(_BY_NAME)}")
        return _BY_NAME[init]()
    if callable(init):
        return init
    if isinstance(init, (int, float)):
        return constant(float(init))
    return from_array(init)
