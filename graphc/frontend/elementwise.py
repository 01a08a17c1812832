"""Elementwise functions, with the names and meanings of NumPy and of torch.nn.functional."""

from __future__ import annotations

import math
from typing import Any

from ..errors import TraceError
from ..graph.dtype import DType
from .tensor import Tensor, Value, elementwise, fail, lift
from .tensor import cast as _cast
from .trace import current


def exp(x: Value) -> Tensor:
    """e to the power x."""
    return elementwise("exp", x)


def expm1(x: Value) -> Tensor:
    """e^x − 1, exact for small x."""
    return elementwise("expm1", x)


def log(x: Value) -> Tensor:
    """The natural logarithm; −∞ at 0, NaN below."""
    return elementwise("log", x)


def log1p(x: Value) -> Tensor:
    """log(1 + x), exact for small x."""
    return elementwise("log1p", x)


def sqrt(x: Value) -> Tensor:
    """The square root; NaN below 0."""
    return elementwise("sqrt", x)


def square(x: Value) -> Tensor:
    """x·x."""
    return elementwise("mul", x, x)


def sin(x: Value) -> Tensor:
    """The sine of x radians."""
    return elementwise("sin", x)


def cos(x: Value) -> Tensor:
    """The cosine of x radians."""
    return elementwise("cos", x)


def tanh(x: Value) -> Tensor:
    """The hyperbolic tangent; tanh′ = 1 − tanh²."""
    return elementwise("tanh", x)


def erf(x: Value) -> Tensor:
    """The error function, 2/√π ∫₀ˣ e^−t² dt."""
    return elementwise("erf", x)


def sigmoid(x: Value) -> Tensor:
    """1/(1 + e^−x), never overflowing; σ′ = σ(1 − σ)."""
    return elementwise("sigmoid", x)


def softplus(x: Value) -> Tensor:
    """log(1 + e^x), never overflowing."""
    return elementwise("softplus", x)


def relu(x: Value) -> Tensor:
    """max(x, 0); its derivative at 0 is 0."""
    return elementwise("relu", x)


def leaky_relu(x: Value, slope: Value = 0.01) -> Tensor:
    """x where x > 0, else slope·x; its derivative at 0 is the slope."""
    x = lift(x)
    return where(x > 0, x, slope * x)


def elu(x: Value, alpha: Value = 1.0) -> Tensor:
    """x where x > 0, else α(e^x − 1); its derivative at 0 is α."""
    x = lift(x)
    return where(x > 0, x, alpha * expm1(x))  # e^x may overflow above 0, where it is not taken


def silu(x: Value) -> Tensor:
    """x·σ(x), also called swish."""
    return elementwise("silu", x)


def gelu(x: Value, approximate: str = "none") -> Tensor:
    """x·Φ(x), Φ being the normal distribution's; approximate="tanh" computes Φ with a tanh instead of an erf."""
    if approximate == "none":
        return elementwise("gelu", x)
    if approximate != "tanh":
        return fail(TraceError(f"gelu has no approximation {approximate!r}", how='"none" or "tanh"'))
    x = lift(x)
    return 0.5 * x * (1 + tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * (x * x * x))))


def step(x: Value) -> Tensor:
    """1 where x > 0, else 0: Heaviside's function, 0 at 0; its derivative is 0."""
    return elementwise("step", x)


def sign(x: Value) -> Tensor:
    """1 above 0, −1 below, 0 at 0; its derivative is 0."""
    return elementwise("sign", x)


def floor(x: Value) -> Tensor:
    """The largest integer that is not above x; its derivative is 0."""
    return elementwise("floor", x)


def abs(x: Value) -> Tensor:
    """|x|; its derivative at 0 is 0."""
    return elementwise("abs", x)


def maximum(a: Value, b: Value) -> Tensor:
    """The larger of two values; at a tie the gradient goes to b."""
    return elementwise("maximum", a, b)


def minimum(a: Value, b: Value) -> Tensor:
    """The smaller of two values; at a tie the gradient goes to b."""
    return elementwise("minimum", a, b)


def where(condition: Value, a: Value, b: Value) -> Tensor:
    """a where the condition holds, else b. The gradient of the branch not taken is 0, even where it is NaN."""
    return elementwise("where", condition, a, b)


def equal(a: Value, b: Value) -> Tensor:
    """a = b, element by element."""
    return elementwise("equal", a, b)


def logical_and(a: Value, b: Value) -> Tensor:
    """Both, of arrays of bool."""
    return elementwise("logical_and", a, b)


def logical_or(a: Value, b: Value) -> Tensor:
    """Either, of arrays of bool."""
    return elementwise("logical_or", a, b)


def logical_not(x: Value) -> Tensor:
    """Not, of an array of bool."""
    return elementwise("logical_not", x)


def cast(x: Value, dtype: Any) -> Tensor:
    """The values in another element type: gc.f32, gc.f64, gc.i32, gc.i64, gc.bool_."""
    trace = current("gc.cast")
    if not isinstance(dtype, DType):
        return fail(TraceError(f"gc.cast to {dtype!r}", how="one of gc.f32, gc.f64, gc.i32, gc.i64, gc.bool_"))
    return _cast(lift(x), trace.dtype(dtype))


def stop_gradient(x: Value) -> Tensor:
    """x, with a derivative of zero."""
    return elementwise("stop_gradient", x)
