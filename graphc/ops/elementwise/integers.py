"""Rows of whole numbers: what random numbers are made with."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...symbolic.lazy import sp
from ..random import random_bits
from ..row import Sample
from .row import Elementwise, by_name


def _random_bits(key: Any, counter: Any) -> sp.Basic:
    """A function of integers that SymPy knows by name, and can evaluate."""
    from sympy.utilities.lambdify import implemented_function

    return implemented_function("random_bits", lambda k, c: int(random_bits(int(k), int(c))))(key, counter)


ROWS = by_name(
    Elementwise(
        name="right_shift",
        math=lambda a, b: sp.floor(a / 2**b),
        oracle=np.right_shift,
        samples=(Sample(((3, 4), (4,)), ((-1000, 1000), (0, 9))),),
        latex="\\lfloor {0} / 2^{{{1}}} \\rfloor",
        integers_only=True,
        differentiable=False,
        primitive=True,
    ),
    Elementwise(
        name="random_bits",
        math=_random_bits,
        oracle=random_bits,
        samples=(Sample(((3, 1), (4,)), ((-1000, 1000), (-1000, 1000))),),
        latex="\\mathrm{{bits}}_{{{0}}}({1})",
        integers_only=True,
        differentiable=False,
        primitive=True,
    ),
)
