"""Rows of activations: the functions between the layers of a network."""

from __future__ import annotations

from math import erfc

import numpy as np

from ...graph.scalar import Scalar
from ...symbolic.lazy import sp
from .row import ONE, Elementwise, apply, by_name, number


def _softplus(x: Scalar) -> Scalar:
    # log(1 + e^x) = max(x, 0) + log1p(e^-|x|)
    t = apply("exp", apply("neg", apply("abs", x)))
    return apply("add", apply("maximum", x, number(0, x)), apply("log1p", t))


def _gelu(x: Scalar) -> Scalar:
    half = number(0.5, x)
    z = apply("mul", x, apply("sqrt", half))
    return apply("mul", apply("mul", half, x), apply("add", number(1, x), apply("erf", z)))


def _sigmoid_np(x: np.ndarray) -> np.ndarray:
    # e^min(x, 0)/(1 + e^-|x|): constants are folded with it, so it keeps its digits far below 0
    return np.exp(np.minimum(x, np.zeros_like(x))) / (np.ones_like(x) + np.exp(-np.abs(x)))


def _gelu_np(x: np.ndarray) -> np.ndarray:
    x = np.asarray(x)
    tail = np.vectorize(erfc, otypes=[np.float64])(x.astype(np.float64) / -(2**0.5))
    return (x * (tail / 2)).astype(x.dtype)


ROWS = by_name(
    Elementwise(
        name="relu",
        math=lambda x: sp.Piecewise((x, x > 0), (0, True)),
        oracle=lambda x: np.maximum(x, np.zeros_like(x)),
        samples=ONE,
        latex="\\mathrm{{ReLU}}({0})",
        eval=lambda x: apply("maximum", x, number(0, x)),
        # y > 0 just where x > 0, and y is at hand where x need not be stored
        stable={0: lambda x, y: sp.Piecewise((1, y > 0), (0, True))},
    ),
    Elementwise(
        name="sigmoid",
        math=lambda x: 1 / (1 + sp.exp(-x)),
        oracle=_sigmoid_np,
        samples=ONE,
        latex="\\sigma({0})",
        floats_only=True,
        primitive=True,
    ),
    Elementwise(
        name="softplus",
        math=lambda x: sp.log(1 + sp.exp(x)),
        eval=_softplus,
        oracle=lambda x: np.logaddexp(x, np.zeros_like(x)),
        samples=ONE,
        latex="\\mathrm{{softplus}}({0})",
        floats_only=True,
        # the derived e^x/(1 + e^x) is ∞/∞ for large x; it is the sigmoid
        stable={0: lambda x, y: sp.Function("sigmoid")(x)},
    ),
    Elementwise(
        name="silu",
        math=lambda x: x / (1 + sp.exp(-x)),
        eval=lambda x: apply("mul", x, apply("sigmoid", x)),
        oracle=lambda x: x * _sigmoid_np(x),
        samples=ONE,
        latex="\\mathrm{{SiLU}}({0})",
        floats_only=True,
        # s + y(1 - s) with s = σ(x); the derived x·e^-x/(1 + e^-x)² is ∞/∞ for x far below 0
        stable={0: lambda x, y: sp.Function("sigmoid")(x) + y * (1 - sp.Function("sigmoid")(x))},
    ),
    Elementwise(
        name="gelu",
        math=lambda x: x * (1 + sp.erf(x / sp.sqrt(2))) / 2,
        eval=_gelu,
        oracle=_gelu_np,
        samples=ONE,
        latex="\\mathrm{{GELU}}({0})",
        floats_only=True,
    ),
)
