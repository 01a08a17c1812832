"""Rows of comparisons, of logic, and of the choice between two values. Only the choice has a derivative."""

from __future__ import annotations

import numpy as np

from ...symbolic.lazy import sp
from .row import Elementwise, by_name, sample

_TWO = (sample((3, 4), (4,)),)

ROWS = by_name(
    Elementwise(
        name="less",
        math=lambda a, b: a < b,
        oracle=np.less,
        samples=_TWO,
        latex="{0} < {1}",
        result="bool",
        differentiable=False,
        primitive=True,
    ),
    Elementwise(
        name="less_equal",
        math=lambda a, b: a <= b,
        oracle=np.less_equal,
        samples=_TWO,
        latex="{0} \\le {1}",
        result="bool",
        differentiable=False,
        primitive=True,
    ),
    Elementwise(
        name="greater",
        math=lambda a, b: a > b,
        oracle=np.greater,
        samples=_TWO,
        latex="{0} > {1}",
        result="bool",
        differentiable=False,
        primitive=True,
    ),
    Elementwise(
        name="greater_equal",
        math=lambda a, b: a >= b,
        oracle=np.greater_equal,
        samples=_TWO,
        latex="{0} \\ge {1}",
        result="bool",
        differentiable=False,
        primitive=True,
    ),
    Elementwise(
        name="equal",
        math=lambda a, b: sp.Eq(a, b),
        oracle=np.equal,
        samples=_TWO,
        latex="{0} = {1}",
        result="bool",
        differentiable=False,
        primitive=True,
    ),
    Elementwise(
        name="not_equal",
        math=lambda a, b: sp.Ne(a, b),
        oracle=np.not_equal,
        samples=_TWO,
        latex="{0} \\ne {1}",
        result="bool",
        differentiable=False,
        primitive=True,
    ),
    Elementwise(
        name="logical_and",
        math=lambda a, b: sp.And(a, b),
        oracle=np.logical_and,
        samples=_TWO,
        latex="{0} \\wedge {1}",
        result="bool",
        bools=True,
        differentiable=False,
        commutative=True,
        primitive=True,
    ),
    Elementwise(
        name="logical_or",
        math=lambda a, b: sp.Or(a, b),
        oracle=np.logical_or,
        samples=_TWO,
        latex="{0} \\vee {1}",
        result="bool",
        bools=True,
        differentiable=False,
        commutative=True,
        primitive=True,
    ),
    Elementwise(
        name="logical_not",
        math=lambda x: sp.Not(x),
        oracle=np.logical_not,
        samples=(sample((3, 4)),),
        latex="\\neg {0}",
        result="bool",
        bools=True,
        differentiable=False,
        primitive=True,
    ),
    Elementwise(
        name="where",
        math=lambda c, a, b: sp.Piecewise((a, c), (b, True)),
        oracle=np.where,
        samples=(sample((3, 4), (3, 4), (4,)), sample((3, 1), (4,), ())),
        latex="{0} \\,?\\, {1} : {2}",
        condition=True,
        primitive=True,
    ),
)
