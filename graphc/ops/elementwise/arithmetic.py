"""Rows of arithmetic: sums, products and powers, the larger of two, signs and whole parts."""

from __future__ import annotations

import numpy as np

from ...graph.scalar import Scalar
from ...symbolic.lazy import sp
from .row import ONE, TWO, Elementwise, apply, by_name, compare, number, sample


def _step(x: Scalar) -> Scalar:
    # a NaN is neither above 0 nor not above it, and stays
    zero = number(0, x)
    return apply(
        "where", compare("greater", x, zero), number(1, x), apply("where", compare("less_equal", x, zero), zero, x)
    )


def _sign(x: Scalar) -> Scalar:
    # what is neither above nor below 0 is 0 or NaN, and stays
    zero = number(0, x)
    below = apply("where", compare("less", x, zero), number(-1, x), x)
    return apply("where", compare("greater", x, zero), number(1, x), below)


ROWS = by_name(
    Elementwise(
        name="add",
        math=lambda a, b: a + b,
        oracle=np.add,
        samples=TWO,
        latex="{0} + {1}",
        commutative=True,
        primitive=True,
    ),
    Elementwise(
        name="sub", math=lambda a, b: a - b, oracle=np.subtract, samples=TWO, latex="{0} - {1}", primitive=True
    ),
    Elementwise(
        name="mul",
        math=lambda a, b: a * b,
        oracle=np.multiply,
        samples=TWO,
        latex="{0} \\cdot {1}",
        commutative=True,
        primitive=True,
        reuse=False,
    ),
    Elementwise(
        name="div",
        math=lambda a, b: a / b,
        oracle=np.divide,
        samples=(sample((3, 4), (3, 4), low=0.3), sample((2, 3), (3,), low=0.3)),
        latex="\\frac{{{0}}}{{{1}}}",
        floats_only=True,
        primitive=True,
        # ∂(a/b)/∂b = -y/b costs one division; the derived -a/b² overflows where b² does
        stable={1: lambda a, b, y: -y / b},
    ),
    Elementwise(name="neg", math=lambda x: -x, oracle=np.negative, samples=ONE, latex="-{0}", primitive=True),
    Elementwise(
        name="pow",
        math=lambda a, b: a**b,
        oracle=np.power,
        samples=(sample((3, 4), (3, 4), low=0.3), sample((4,), (), low=0.3)),
        latex="{{{0}}}^{{{1}}}",
        floats_only=True,
        primitive=True,
        # the derived b·aᵇ/a and aᵇ·log a are 0·∞ at a = 0 or b = 0, where the derivative is 0
        stable={
            0: lambda a, b, y: sp.Piecewise((0, sp.Eq(b, 0)), (b * a ** (b - 1), True)),
            1: lambda a, b, y: sp.Piecewise((0, sp.Eq(a, 0)), (y * sp.log(a), True)),
        },
    ),
    Elementwise(
        name="maximum",
        math=lambda a, b: sp.Piecewise((a, a > b), (b, True)),
        oracle=np.maximum,
        samples=TWO,
        latex="\\max({0}, {1})",
        primitive=True,
    ),
    Elementwise(
        name="minimum",
        math=lambda a, b: sp.Piecewise((a, a < b), (b, True)),
        oracle=np.minimum,
        samples=TWO,
        latex="\\min({0}, {1})",
        primitive=True,
    ),
    Elementwise(
        name="abs",
        math=lambda x: sp.Piecewise((x, x > 0), (-x, x < 0), (0, True)),
        oracle=np.abs,
        samples=ONE,
        latex="\\left|{0}\\right|",
        primitive=True,
    ),
    # steps: flat wherever they have a derivative, and it is declared zero at the jumps too
    Elementwise(
        name="step",
        math=lambda x: sp.Piecewise((1, x > 0), (0, True)),
        oracle=lambda x: np.heaviside(x, np.zeros_like(x)),
        samples=ONE,
        latex="\\mathrm{{step}}({0})",
        eval=_step,
        differentiable=False,
    ),
    Elementwise(
        name="sign",
        math=lambda x: sp.Piecewise((1, x > 0), (-1, x < 0), (0, True)),
        oracle=np.sign,
        samples=ONE,
        latex="\\mathrm{{sign}}({0})",
        eval=_sign,
        differentiable=False,
    ),
    Elementwise(
        name="floor",
        math=lambda x: sp.floor(x),
        oracle=np.floor,
        samples=ONE,
        latex="\\lfloor {0} \\rfloor",
        floats_only=True,
        differentiable=False,
        primitive=True,
    ),
)
