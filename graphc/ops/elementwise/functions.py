"""Rows of elementary functions."""

from __future__ import annotations

from math import erf

import numpy as np

from ...symbolic.lazy import sp
from .row import ONE, POSITIVE, Elementwise, by_name


def _erf_np(x: np.ndarray) -> np.ndarray:
    return np.vectorize(erf, otypes=[np.result_type(x, np.float32)])(x)


ROWS = by_name(
    Elementwise(
        name="exp",
        math=lambda x: sp.exp(x),
        oracle=np.exp,
        samples=ONE,
        latex="e^{{{0}}}",
        floats_only=True,
        primitive=True,
    ),
    Elementwise(
        name="expm1",
        math=lambda x: sp.exp(x) - 1,
        oracle=np.expm1,
        samples=ONE,
        latex="(e^{{{0}}} - 1)",
        floats_only=True,
        primitive=True,
        reuse=False,  # y + 1 loses every digit of e^x for x far below 0
    ),
    Elementwise(
        name="log",
        math=lambda x: sp.log(x),
        oracle=np.log,
        samples=POSITIVE,
        latex="\\log {0}",
        floats_only=True,
        primitive=True,
    ),
    Elementwise(
        name="log1p",
        math=lambda x: sp.log(1 + x),
        oracle=np.log1p,
        samples=POSITIVE,
        latex="\\log(1 + {0})",
        floats_only=True,
        primitive=True,
        reuse=False,  # e^-y is a slow way to 1/(1 + x)
    ),
    Elementwise(
        name="sqrt",
        math=lambda x: sp.sqrt(x),
        oracle=np.sqrt,
        samples=POSITIVE,
        latex="\\sqrt{{{0}}}",
        floats_only=True,
        primitive=True,
    ),
    Elementwise(
        name="erf",
        math=lambda x: sp.erf(x),
        oracle=_erf_np,
        samples=ONE,
        latex="\\mathrm{{erf}}({0})",
        floats_only=True,
        primitive=True,
    ),
    Elementwise(
        name="sin",
        math=lambda x: sp.sin(x),
        oracle=np.sin,
        samples=ONE,
        latex="\\sin {0}",
        floats_only=True,
        primitive=True,
        reuse=False,
    ),
    Elementwise(
        name="cos",
        math=lambda x: sp.cos(x),
        oracle=np.cos,
        samples=ONE,
        latex="\\cos {0}",
        floats_only=True,
        primitive=True,
        reuse=False,
    ),
    Elementwise(
        name="tanh",
        math=lambda x: sp.tanh(x),
        oracle=np.tanh,
        samples=ONE,
        latex="\\tanh {0}",
        floats_only=True,
        primitive=True,
    ),
)
