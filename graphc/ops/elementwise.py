"""Rows of elementwise operations: mathematics in SymPy, and where floating point needs one a stable `eval` form.

`math` is the definition. Kinks are Piecewise, so that a derivative is taken branch by branch and the value at the
kink is ours: ReLU'(0) = 0, a tie of maximum(a, b) goes to b, abs'(0) = 0. `eval` is the same function (a test
proves it) written so that it neither overflows nor loses digits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from inspect import signature
from math import erf, erfc
from typing import Any

import numpy as np

from ..errors import TraceError
from ..graph import scalar as sc
from ..graph.dtype import DType, bool_, i64
from ..graph.formula import Clause, Formula, gather, identity
from ..graph.node import Node, TensorType
from ..graph.scalar import Scalar
from ..symbolic.lazy import sp
from .random import random_bits
from .row import Fit, Row, Sample, broadcast, check_count, same_dtype


@dataclass(frozen=True, kw_only=True)
class Elementwise(Row):
    """out[p] = f(operands[p]), operands broadcast.

    math: f over SymPy symbols named as its parameters. eval: f over scalar expressions; without it the code
    generator has a primitive of this name, or prints `math`. stable: partials that replace derived ones which
    overflow or cancel, by operand position; proved equal to the derived ones. reuse: may partials be rewritten
    through the output y. result: "same" as the operands, or "bool". integers_only: of i64.
    """

    math: Callable[..., sp.Basic]
    eval: Callable[..., Scalar] | None = None
    stable: Mapping[int, Callable[..., sp.Basic]] | None = None
    reuse: bool = True
    result: str = "same"
    floats_only: bool = False
    integers_only: bool = False
    bools: bool = False
    commutative: bool = False
    primitive: bool = False
    condition: bool = False  # the first operand is a condition, of type bool

    @cached_property
    def arity(self) -> int:
        """How many operands it takes."""
        return len(signature(self.math).parameters)

    @cached_property
    def symbols(self) -> tuple[sp.Symbol, ...]:
        """The inputs as SymPy symbols, named as in `math`."""
        names = list(signature(self.math).parameters)
        return tuple(
            sp.Symbol(n) if self.bools or (self.condition and i == 0) else sp.Symbol(n, real=True)
            for i, n in enumerate(names)
        )

    @cached_property
    def expression(self) -> sp.Basic:
        """The operation over its symbols."""
        return self.math(*self.symbols)

    def infer(self, types: Sequence[TensorType], attrs: Mapping[str, Any], fit: Fit) -> TensorType:
        check_count(self.name, types, self.arity)
        values = types[1:] if self.condition else types
        if self.condition and types[0].dtype is not bool_:
            raise TraceError(
                f"{self.name}: the condition has the type {types[0].dtype}, not bool",
                how="compare it, for example x != 0",
            )
        dtype = same_dtype(self.name, values)
        if self.floats_only and not dtype.is_float:
            raise TraceError(f"{self.name} takes floating-point arrays, not {dtype}", how="convert it with gc.cast")
        if self.integers_only and dtype is not i64:
            raise TraceError(f"{self.name} takes arrays of i64, not {dtype}", how="convert it with gc.cast")
        if self.bools and dtype is not bool_:
            raise TraceError(f"{self.name} takes arrays of bool, not {dtype}", how="compare it, for example x != 0")
        shape = broadcast(self.name, [t.shape for t in types], fit)
        return TensorType(self.result_dtype(dtype, attrs), shape)

    def result_dtype(self, dtype: DType, attrs: Mapping[str, Any]) -> DType:
        return bool_ if self.result == "bool" else dtype

    def formula(self, node: Node) -> Formula:
        reads = tuple(gather(k, o.shape, node.shape) for k, o in enumerate(node.operands))
        body = Scalar(self.name, tuple(sc.arg(k, o.dtype) for k, o in enumerate(node.operands)), node.dtype)
        return Formula((Clause(node.shape, reads, body, identity(node.type.rank)),))


@dataclass(frozen=True, kw_only=True)
class Cast(Elementwise):
    """Conversion to another element type; as mathematics it is the identity."""

    def result_dtype(self, dtype: DType, attrs: Mapping[str, Any]) -> DType:
        return attrs["dtype"]


def _apply(op: str, *args: Scalar) -> Scalar:
    return Scalar(op, args, bool_ if ROWS[op].result == "bool" else args[-1].dtype)


def _number(value: float, like: Scalar) -> Scalar:
    return sc.const(value, like.dtype)


def _softplus(x: Scalar) -> Scalar:
    # log(1 + e^x) = max(x, 0) + log1p(e^-|x|)
    t = _apply("exp", _apply("neg", _apply("abs", x)))
    return _apply("add", _apply("maximum", x, _number(0, x)), _apply("log1p", t))


def _step(x: Scalar) -> Scalar:
    # a NaN is neither above 0 nor not above it, and stays
    zero = _number(0, x)
    return _apply(
        "where", _apply("greater", x, zero), _number(1, x), _apply("where", _apply("less_equal", x, zero), zero, x)
    )


def _sign(x: Scalar) -> Scalar:
    # what is neither above nor below 0 is 0 or NaN, and stays
    zero = _number(0, x)
    below = _apply("where", _apply("less", x, zero), _number(-1, x), x)
    return _apply("where", _apply("greater", x, zero), _number(1, x), below)


def _gelu(x: Scalar) -> Scalar:
    half = _number(0.5, x)
    z = _apply("mul", x, _apply("sqrt", half))
    return _apply("mul", _apply("mul", half, x), _apply("add", _number(1, x), _apply("erf", z)))


def _s(*shapes: tuple[int, ...], low: float = -2.0, high: float = 2.0) -> Sample:
    return Sample(shapes, ((low, high),) * len(shapes))


_ONE = (_s((3, 4)), _s((1,)), _s(()))
_POSITIVE = (_s((3, 4), low=0.1), _s((), low=0.1))
_TWO = (_s((3, 4), (3, 4)), _s((2, 3), (3,)), _s((2, 1), (1, 3)), _s((), (3,)))
_COMPARE = (_s((3, 4), (4,)),)


def piecewise(*branches: tuple[Any, Any]) -> sp.Basic:
    return sp.Piecewise(*branches)


def _random_bits(key: Any, counter: Any) -> sp.Basic:
    """A function of integers that SymPy knows by name, and can evaluate."""
    from sympy.utilities.lambdify import implemented_function

    return implemented_function("random_bits", lambda k, c: int(random_bits(int(k), int(c))))(key, counter)


def _sigmoid_np(x: np.ndarray) -> np.ndarray:
    # e^min(x, 0)/(1 + e^-|x|): constants are folded with it, so it keeps its digits far below 0
    return np.exp(np.minimum(x, np.zeros_like(x))) / (np.ones_like(x) + np.exp(-np.abs(x)))


def _erf_np(x: np.ndarray) -> np.ndarray:
    return np.vectorize(erf, otypes=[np.result_type(x, np.float32)])(x)


def _gelu_np(x: np.ndarray) -> np.ndarray:
    x = np.asarray(x)
    tail = np.vectorize(erfc, otypes=[np.float64])(x.astype(np.float64) / -(2**0.5))
    return (x * (tail / 2)).astype(x.dtype)


_TABLE: tuple[Elementwise, ...] = (
    # arithmetic
    Elementwise(
        name="add",
        math=lambda a, b: a + b,
        oracle=np.add,
        samples=_TWO,
        latex="{0} + {1}",
        commutative=True,
        primitive=True,
    ),
    Elementwise(
        name="sub", math=lambda a, b: a - b, oracle=np.subtract, samples=_TWO, latex="{0} - {1}", primitive=True
    ),
    Elementwise(
        name="mul",
        math=lambda a, b: a * b,
        oracle=np.multiply,
        samples=_TWO,
        latex="{0} \\cdot {1}",
        commutative=True,
        primitive=True,
        reuse=False,
    ),
    Elementwise(
        name="div",
        math=lambda a, b: a / b,
        oracle=np.divide,
        samples=(_s((3, 4), (3, 4), low=0.3), _s((2, 3), (3,), low=0.3)),
        latex="\\frac{{{0}}}{{{1}}}",
        floats_only=True,
        primitive=True,
        # ∂(a/b)/∂b = -y/b costs one division; the derived -a/b² overflows where b² does
        stable={1: lambda a, b, y: -y / b},
    ),
    Elementwise(name="neg", math=lambda x: -x, oracle=np.negative, samples=_ONE, latex="-{0}", primitive=True),
    Elementwise(
        name="pow",
        math=lambda a, b: a**b,
        oracle=np.power,
        samples=(_s((3, 4), (3, 4), low=0.3), _s((4,), (), low=0.3)),
        latex="{{{0}}}^{{{1}}}",
        floats_only=True,
        primitive=True,
        # the derived b·aᵇ/a and aᵇ·log a are 0·∞ at a = 0 or b = 0, where the derivative is 0
        stable={
            0: lambda a, b, y: piecewise((0, sp.Eq(b, 0)), (b * a ** (b - 1), True)),
            1: lambda a, b, y: piecewise((0, sp.Eq(a, 0)), (y * sp.log(a), True)),
        },
    ),
    # comparison and logic: they have no derivative
    Elementwise(
        name="less",
        math=lambda a, b: a < b,
        oracle=np.less,
        samples=_COMPARE,
        latex="{0} < {1}",
        result="bool",
        differentiable=False,
        primitive=True,
    ),
    Elementwise(
        name="less_equal",
        math=lambda a, b: a <= b,
        oracle=np.less_equal,
        samples=_COMPARE,
        latex="{0} \\le {1}",
        result="bool",
        differentiable=False,
        primitive=True,
    ),
    Elementwise(
        name="greater",
        math=lambda a, b: a > b,
        oracle=np.greater,
        samples=_COMPARE,
        latex="{0} > {1}",
        result="bool",
        differentiable=False,
        primitive=True,
    ),
    Elementwise(
        name="greater_equal",
        math=lambda a, b: a >= b,
        oracle=np.greater_equal,
        samples=_COMPARE,
        latex="{0} \\ge {1}",
        result="bool",
        differentiable=False,
        primitive=True,
    ),
    Elementwise(
        name="equal",
        math=lambda a, b: sp.Eq(a, b),
        oracle=np.equal,
        samples=_COMPARE,
        latex="{0} = {1}",
        result="bool",
        differentiable=False,
        primitive=True,
    ),
    Elementwise(
        name="not_equal",
        math=lambda a, b: sp.Ne(a, b),
        oracle=np.not_equal,
        samples=_COMPARE,
        latex="{0} \\ne {1}",
        result="bool",
        differentiable=False,
        primitive=True,
    ),
    Elementwise(
        name="logical_and",
        math=lambda a, b: sp.And(a, b),
        oracle=np.logical_and,
        samples=(_s((3, 4), (4,)),),
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
        samples=(_s((3, 4), (4,)),),
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
        samples=(_s((3, 4)),),
        latex="\\neg {0}",
        result="bool",
        bools=True,
        differentiable=False,
        primitive=True,
    ),
    Cast(
        name="cast",
        math=lambda x: x,
        oracle=lambda x, dtype=None: x if dtype is None else x.astype(dtype.numpy),
        samples=(Sample(((3, 4),), ((-2.0, 2.0),), {"dtype": i64}),),
        latex="{0}",
        primitive=True,
    ),
    # selection
    Elementwise(
        name="where",
        math=lambda c, a, b: piecewise((a, c), (b, True)),
        oracle=np.where,
        samples=(_s((3, 4), (3, 4), (4,)), _s((3, 1), (4,), ())),
        latex="{0} \\,?\\, {1} : {2}",
        condition=True,
        primitive=True,
    ),
    Elementwise(
        name="maximum",
        math=lambda a, b: piecewise((a, a > b), (b, True)),
        oracle=np.maximum,
        samples=_TWO,
        latex="\\max({0}, {1})",
        primitive=True,
    ),
    Elementwise(
        name="minimum",
        math=lambda a, b: piecewise((a, a < b), (b, True)),
        oracle=np.minimum,
        samples=_TWO,
        latex="\\min({0}, {1})",
        primitive=True,
    ),
    Elementwise(
        name="abs",
        math=lambda x: piecewise((x, x > 0), (-x, x < 0), (0, True)),
        oracle=np.abs,
        samples=_ONE,
        latex="\\left|{0}\\right|",
        primitive=True,
    ),
    Elementwise(
        name="relu",
        math=lambda x: piecewise((x, x > 0), (0, True)),
        oracle=lambda x: np.maximum(x, np.zeros_like(x)),
        samples=_ONE,
        latex="\\mathrm{{ReLU}}({0})",
        eval=lambda x: _apply("maximum", x, _number(0, x)),
        # y > 0 just where x > 0, and y is at hand where x need not be stored
        stable={0: lambda x, y: piecewise((1, y > 0), (0, True))},
    ),
    # steps: flat wherever they have a derivative, and it is declared zero at the jumps too
    Elementwise(
        name="step",
        math=lambda x: piecewise((1, x > 0), (0, True)),
        oracle=lambda x: np.heaviside(x, np.zeros_like(x)),
        samples=_ONE,
        latex="\\mathrm{{step}}({0})",
        eval=_step,
        differentiable=False,
    ),
    Elementwise(
        name="sign",
        math=lambda x: piecewise((1, x > 0), (-1, x < 0), (0, True)),
        oracle=np.sign,
        samples=_ONE,
        latex="\\mathrm{{sign}}({0})",
        eval=_sign,
        differentiable=False,
    ),
    Elementwise(
        name="floor",
        math=lambda x: sp.floor(x),
        oracle=np.floor,
        samples=_ONE,
        latex="\\lfloor {0} \\rfloor",
        floats_only=True,
        differentiable=False,
        primitive=True,
    ),
    # integers
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
    # exponentials and logarithms
    Elementwise(
        name="exp",
        math=lambda x: sp.exp(x),
        oracle=np.exp,
        samples=_ONE,
        latex="e^{{{0}}}",
        floats_only=True,
        primitive=True,
    ),
    Elementwise(
        name="expm1",
        math=lambda x: sp.exp(x) - 1,
        oracle=np.expm1,
        samples=_ONE,
        latex="(e^{{{0}}} - 1)",
        floats_only=True,
        primitive=True,
        reuse=False,
    ),  # y + 1 loses every digit of e^x for x far below 0
    Elementwise(
        name="log",
        math=lambda x: sp.log(x),
        oracle=np.log,
        samples=_POSITIVE,
        latex="\\log {0}",
        floats_only=True,
        primitive=True,
    ),
    Elementwise(
        name="log1p",
        math=lambda x: sp.log(1 + x),
        oracle=np.log1p,
        samples=_POSITIVE,
        latex="\\log(1 + {0})",
        floats_only=True,
        primitive=True,
        reuse=False,
    ),  # e^-y is a slow way to 1/(1 + x)
    Elementwise(
        name="sqrt",
        math=lambda x: sp.sqrt(x),
        oracle=np.sqrt,
        samples=_POSITIVE,
        latex="\\sqrt{{{0}}}",
        floats_only=True,
        primitive=True,
    ),
    Elementwise(
        name="erf",
        math=lambda x: sp.erf(x),
        oracle=_erf_np,
        samples=_ONE,
        latex="\\mathrm{{erf}}({0})",
        floats_only=True,
        primitive=True,
    ),
    Elementwise(
        name="sin",
        math=lambda x: sp.sin(x),
        oracle=np.sin,
        samples=_ONE,
        latex="\\sin {0}",
        floats_only=True,
        primitive=True,
        reuse=False,
    ),
    Elementwise(
        name="cos",
        math=lambda x: sp.cos(x),
        oracle=np.cos,
        samples=_ONE,
        latex="\\cos {0}",
        floats_only=True,
        primitive=True,
        reuse=False,
    ),
    # activations
    Elementwise(
        name="tanh",
        math=lambda x: sp.tanh(x),
        oracle=np.tanh,
        samples=_ONE,
        latex="\\tanh {0}",
        floats_only=True,
        primitive=True,
    ),
    Elementwise(
        name="sigmoid",
        math=lambda x: 1 / (1 + sp.exp(-x)),
        oracle=_sigmoid_np,
        samples=_ONE,
        latex="\\sigma({0})",
        floats_only=True,
        primitive=True,
    ),
    Elementwise(
        name="softplus",
        math=lambda x: sp.log(1 + sp.exp(x)),
        eval=_softplus,
        oracle=lambda x: np.logaddexp(x, np.zeros_like(x)),
        samples=_ONE,
        latex="\\mathrm{{softplus}}({0})",
        floats_only=True,
        # the derived e^x/(1 + e^x) is ∞/∞ for large x; it is the sigmoid
        stable={0: lambda x, y: sp.Function("sigmoid")(x)},
    ),
    Elementwise(
        name="silu",
        math=lambda x: x / (1 + sp.exp(-x)),
        eval=lambda x: _apply("mul", x, _apply("sigmoid", x)),
        oracle=lambda x: x * _sigmoid_np(x),
        samples=_ONE,
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
        samples=_ONE,
        latex="\\mathrm{{GELU}}({0})",
        floats_only=True,
    ),
    # a value that a gradient is taken with respect to: the identity, which no rule looks through
    Elementwise(name="watched", math=lambda x: x, oracle=lambda x: x, samples=_ONE, latex="{0}", eval=lambda x: x),
    # a value whose derivative is declared zero
    Elementwise(
        name="stop_gradient",
        math=lambda x: x,
        oracle=lambda x: x,
        samples=_ONE,
        latex="{0}",
        differentiable=False,
        eval=lambda x: x,
    ),
)
ROWS: dict[str, Elementwise] = {row.name: row for row in _TABLE}
