"""The functions of the DSL: pure, with the names and meanings of NumPy and of torch.nn.functional."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import TraceError
from ..graph.dtype import DType, bool_, i32, i64
from ..graph.size import Size, SizeLike, product, size
from ..ops.contract import LETTERS, normal_spec
from .tensor import Tensor, Value, common_type, constant, elementwise, fail, lift, record
from .tensor import cast as _cast
from .tensor import matmul as matmul
from .trace import caller, current

Axis = int | Sequence[int] | None


# -- elementwise -----------------------------------------------------------------------------------------------------
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


def erf(x: Value) -> Tensor:
    """The error function, 2/√π ∫₀ˣ e^−t² dt."""
    return elementwise("erf", x)


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


# -- reductions ------------------------------------------------------------------------------------------------------
def _axes(name: str, x: Tensor, axis: Axis) -> tuple[int, ...] | None:
    """Axes sorted and not negative; None where one is out of range."""
    given = range(x.ndim) if axis is None else axis if isinstance(axis, (tuple, list)) else (axis,)
    result: list[int] = []
    for a in given:
        if not isinstance(a, (int, np.integer)) or isinstance(a, bool):
            fail(TraceError(f"{name}: an axis is an integer, not {a!r}"))
            return None
        if not -x.ndim <= a < x.ndim:
            fail(TraceError(f"{name}: axis {a} is out of range for {x.node.type}, of {x.ndim} axes"))
            return None
        result.append(int(a) % x.ndim)
    if len(set(result)) < len(result):
        fail(TraceError(f"{name}: the axes {tuple(given)} name one axis twice"))
        return None
    return tuple(sorted(result))


def _reduce(op: str, x: Value, axis: Axis, keepdims: bool) -> Tensor:
    tensor = lift(x)
    if tensor.broken:
        return tensor
    if tensor.dtype is bool_ or (op == "sum" and tensor.dtype is i32):
        tensor = _cast(tensor, i64)  # as NumPy: a sum of small integers must not wrap
    axes = _axes(op, tensor, axis)
    if axes is None:
        return Tensor(None)
    kept = tuple(size(1) if d in axes else e for d, e in enumerate(tensor.node.shape))
    result = record(op, tensor, axes=axes)
    return record("reshape", result, shape=kept) if keepdims and not result.broken else result


def sum(x: Value, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """The sum over one axis, several, or all."""
    return _reduce("sum", x, axis, keepdims)


def max(x: Value, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """The maximum; the gradient goes to the first one."""
    return _reduce("max", x, axis, keepdims)


def min(x: Value, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """The minimum; the gradient goes to the first one."""
    return _reduce("min", x, axis, keepdims)


def argmax(x: Value, axis: int | None = None, keepdims: bool = False) -> Tensor:
    """The position of the first maximum, as i64; over all elements in row-major order where no axis is given."""
    return _reduce("argmax", x, axis, keepdims)


def mean(x: Value, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """The mean over one axis, several, or all."""
    tensor = lift(x)
    if tensor.broken:
        return tensor
    if not tensor.dtype.is_float:
        tensor = _cast(tensor, current().float_type)
    axes = _axes("mean", tensor, axis)
    if axes is None:
        return Tensor(None)
    return sum(tensor, axes, keepdims) / product(tensor.node.shape[d] for d in axes)


def logsumexp(x: Value, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """log Σ e^x, never overflowing: the stabilising pass subtracts the maximum."""
    return log(sum(exp(x), axis, keepdims))


def softmax(x: Value, axis: Axis = -1) -> Tensor:
    """e^x / Σ e^x, never overflowing: the stabilising pass subtracts the maximum."""
    e = exp(x)
    return e / sum(e, axis, keepdims=True)


def log_softmax(x: Value, axis: Axis = -1) -> Tensor:
    """x − log Σ e^x, never overflowing."""
    return lift(x) - logsumexp(x, axis, keepdims=True)


def layer_norm(
    x: Value, weight: Value | None = None, bias: Value | None = None, axis: Axis = -1, eps: float = 1e-5
) -> Tensor:
    """(x − mean)/√(variance + eps) · weight + bias over one axis, several, or all; the variance divides by the count.

    weight and bias have the lengths of the axes that are normalised, in the order of x.
    """
    tensor = lift(x)
    if tensor.broken:
        return tensor
    if not tensor.dtype.is_float:
        tensor = _cast(tensor, current().float_type)
    axes = _axes("layer_norm", tensor, axis)
    if axes is None:
        return Tensor(None)
    centred = tensor - mean(tensor, axes, keepdims=True)
    result = centred * (1 / sqrt(mean(square(centred), axes, keepdims=True) + eps))  # one division for each row
    shape = tensor.node.shape
    wanted = tuple(shape[a] for a in axes)
    aligned = tuple(e if d in axes else size(1) for d, e in enumerate(shape))
    for name, given in (("weight", weight), ("bias", bias)):
        if given is None:
            continue
        factor = lift(given, tensor.dtype)
        if factor.broken:
            return factor
        if factor.node.shape != wanted:
            expected = ", ".join(map(str, wanted))
            return fail(
                TraceError(
                    f"layer_norm: {name} is {factor.node.type}, but {tensor.node.type} is normalised over {expected}",
                    how=f"a {name} has the lengths of the axes that are normalised",
                )
            )
        factor = record("reshape", factor, shape=aligned)
        result = result * factor if name == "weight" else result + factor
    return result


# -- contractions ----------------------------------------------------------------------------------------------------
def einsum(spec: str, *operands: Value) -> Tensor:
    """A sum of products by NumPy's notation, `...` and the implicit output included."""
    dtype = common_type(operands)
    tensors = [_cast(lift(o, dtype), dtype) for o in operands]
    if any(t.broken for t in tensors):
        return Tensor(None)
    compact = spec.replace(" ", "")
    inputs = compact.split("->")[0].split(",")
    if len(inputs) != len(tensors):
        return fail(TraceError(f"einsum {spec!r} names {len(inputs)} operands, but {len(tensors)} are given"))
    free = [c for c in LETTERS if c not in compact]
    widest = ""
    for i, (letters, tensor) in enumerate(zip(inputs, tensors, strict=True)):
        if "..." in letters:
            count = tensor.ndim - len(letters) + 3
            names = "".join(free[: _most_axes(tensors)])[_most_axes(tensors) - count :] if count > 0 else ""
            inputs[i] = letters.replace("...", names)
            widest = names if len(names) > len(widest) else widest
    if "->" in compact:
        output = compact.split("->")[1].replace("...", widest)
    else:
        joined = "".join(inputs)
        output = widest + "".join(sorted(c for c in set(joined) if joined.count(c) == 1 and c not in widest))
    return record("einsum", *tensors, spec=normal_spec(f"{','.join(inputs)}->{output}"))


def _most_axes(tensors: Sequence[Tensor]) -> int:
    """The most axes any operand has: enough letters for every `...`."""
    return np.max([t.ndim for t in tensors], initial=0)


# -- shapes ----------------------------------------------------------------------------------------------------------
def dim(name: str) -> Size:
    """A symbolic size of the inputs, such as gc.dim("B"): it computes, `2 * gc.dim("T") + 1`."""
    current("gc.dim").dims.add(name)
    return size(name)


def _shape(shape: SizeLike | Sequence[SizeLike | str]) -> tuple[Size, ...]:
    """A shape as sizes: integers, sizes that compute, and the names of dimensions."""
    items = (shape,) if isinstance(shape, (int, np.integer, Size, str)) else tuple(shape)
    for item in items:
        if isinstance(item, bool) or not isinstance(item, (int, np.integer, Size, str)):
            raise TraceError(f"a shape is made of integers and sizes, not {item!r}", where=caller())
    return tuple(size(dim(s) if isinstance(s, str) else s) for s in items)


def reshape(x: Value, shape: SizeLike | Sequence[SizeLike]) -> Tensor:
    """The same elements under another shape; one size may be −1, meaning the rest."""
    tensor = lift(x)
    if tensor.broken:
        return tensor
    wanted = _shape(shape)
    if wanted.count(size(-1)) > 1:
        return fail(TraceError("reshape: only one size may be -1"))
    if size(-1) in wanted:
        known = product(s for s in wanted if s != -1)
        if known == 0 or (rest := tensor.node.type.numel // known) * known != tensor.node.type.numel:
            return fail(
                TraceError(
                    f"reshape: {tensor.node.type} of {tensor.node.type.numel} elements does not divide into ({', '.join(map(str, wanted))})"
                )
            )
        wanted = tuple(rest if s == -1 else s for s in wanted)
    return record("reshape", tensor, shape=wanted)


def transpose(x: Value, axes: Sequence[int] | None = None) -> Tensor:
    """The axes in another order; reversed where none is given."""
    tensor = lift(x)
    if tensor.broken:
        return tensor
    perm = (
        tuple(range(tensor.ndim))[::-1]
        if axes is None
        else tuple(a % tensor.ndim if -tensor.ndim <= a < tensor.ndim else a for a in axes)
    )
    return record("transpose", tensor, perm=perm)


def broadcast_to(x: Value, shape: SizeLike | Sequence[SizeLike]) -> Tensor:
    """x stretched to a shape."""
    return record("broadcast_to", lift(x), shape=_shape(shape))


def expand_dims(x: Value, axis: int) -> Tensor:
    """A new axis of length 1 at a position."""
    tensor = lift(x)
    if tensor.broken:
        return tensor
    shape = list(tensor.node.shape)
    if not -len(shape) - 1 <= axis <= len(shape):
        return fail(
            TraceError(f"expand_dims: axis {axis} is out of range for {tensor.node.type}, of {len(shape)} axes")
        )
    shape.insert(axis if axis >= 0 else axis + len(shape) + 1, size(1))
    return record("reshape", tensor, shape=tuple(shape))


def squeeze(x: Value, axis: Axis = None) -> Tensor:
    """Axes of length 1 taken out: those given, or all."""
    tensor = lift(x)
    if tensor.broken:
        return tensor
    axes = (
        tuple(d for d, e in enumerate(tensor.node.shape) if e == 1) if axis is None else _axes("squeeze", tensor, axis)
    )
    if axes is None:
        return Tensor(None)
    for a in axes:
        if tensor.node.shape[a] != 1:
            return fail(
                TraceError(f"squeeze: axis {a} of {tensor.node.type} has the length {tensor.node.shape[a]}, not 1")
            )
    return record("reshape", tensor, shape=tuple(e for d, e in enumerate(tensor.node.shape) if d not in axes))


def concat(arrays: Sequence[Value], axis: int = 0) -> Tensor:
    """Arrays one after another along an axis."""
    dtype = common_type(arrays)
    tensors = [_cast(lift(a, dtype), dtype) for a in arrays]
    if any(t.broken for t in tensors):
        return Tensor(None)
    axes = _axes("concat", tensors[0], axis) if tensors else (0,)
    return Tensor(None) if axes is None else record("concat", *tensors, axis=axes[0])


def stack(arrays: Sequence[Value], axis: int = 0) -> Tensor:
    """Arrays of one shape along a new axis."""
    tensors = [lift(a) for a in arrays]
    return concat([expand_dims(t, axis) for t in tensors], axis)


def split(x: Value, n: int, axis: int = 0) -> list[Tensor]:
    """n equal sections along an axis, as NumPy has it."""
    tensor = lift(x)
    broken: list[Tensor] = [Tensor(None)] * (n if isinstance(n, int) else 0)
    if tensor.broken:
        return broken
    axes = _axes("split", tensor, axis)
    if axes is None:
        return broken
    extent = tensor.node.shape[axes[0]]
    if not isinstance(n, int) or n < 1:
        fail(TraceError(f"split into {n!r} sections", how="choose a number of at least 1"))
        return []
    part = extent // n
    if part * n != extent:
        fail(
            TraceError(
                f"split: axis {axis} of {tensor.node.type}, of length {extent}, does not divide into {n} equal parts",
                how=f"choose a number that divides {extent}",
            )
        )
        return broken
    sections = []
    for i in range(n):
        start = tuple(part * i if d == axes[0] else size(0) for d in range(tensor.ndim))
        shape = tuple(part if d == axes[0] else e for d, e in enumerate(tensor.node.shape))
        sections.append(record("slice", tensor, start=start, step=(size(1),) * tensor.ndim, shape=shape))
    return sections


def take(x: Value, indices: Value, axis: int = 0) -> Tensor:
    """The elements at integer positions along an axis; an index out of range is an error at run time."""
    tensor, positions = lift(x), lift(indices)
    if tensor.broken or positions.broken:
        return Tensor(None)
    axes = _axes("take", tensor, axis)
    return Tensor(None) if axes is None else record("take", tensor, positions, axis=axes[0])


def take_along_axis(x: Value, indices: Value, axis: int) -> Tensor:
    """x at one integer position per element of `indices`, along an axis, as NumPy has it."""
    tensor, positions = lift(x), lift(indices)
    if tensor.broken or positions.broken:
        return Tensor(None)
    axes = _axes("take_along_axis", tensor, axis)
    return Tensor(None) if axes is None else record("take_along", tensor, positions, axis=axes[0])


# -- fresh arrays ----------------------------------------------------------------------------------------------------
def const(value: Any, dtype: DType | None = None) -> Tensor:
    """A constant array or number."""
    return _apart(constant(value, current("gc.const").dtype(dtype) if dtype else None))


def full(shape: SizeLike | Sequence[SizeLike], value: Value, dtype: DType | None = None) -> Tensor:
    """An array with the same value everywhere, of the compilation's floating type unless one is given."""
    trace = current("gc.full")
    kind = trace.dtype(dtype) if dtype else trace.float_type
    filled = record("broadcast_to", _cast(lift(value, kind), kind), shape=_shape(shape))
    return filled if isinstance(value, Tensor) else _apart(filled)


def _apart(x: Tensor) -> Tensor:
    """Numbers as a value of their own while the model is traced: others of the same numbers are another value."""
    if x.broken or not x.dtype.is_float:
        return x  # no gradient is taken of it
    trace = current()
    trace.steps += 1
    return record("watched", x, tag=trace.steps)


def zeros(shape: SizeLike | Sequence[SizeLike], dtype: DType | None = None) -> Tensor:
    """Zeros, of the compilation's floating type unless one is given."""
    return full(shape, 0, dtype)


def ones(shape: SizeLike | Sequence[SizeLike], dtype: DType | None = None) -> Tensor:
    """Ones, of the compilation's floating type unless one is given."""
    return full(shape, 1, dtype)


def arange(start: SizeLike, stop: SizeLike | None = None, step: int = 1) -> Tensor:
    """The integers from start to stop, without stop, as i64."""
    if step == 0:
        return fail(TraceError("arange has the step 0"))
    first, last = (size(0), size(start)) if stop is None else (size(start), size(stop))
    length = (last - first + (step - 1 if step > 0 else step + 1)) // step
    return record("arange", start=first, step=size(step), shape=(length,))


# -- derivatives -----------------------------------------------------------------------------------------------------
def grad(y: Value, wrt: Any) -> Any:
    """∂y/∂x of a scalar y: for a list of values a list of gradients, for one value one.

    Gradients are values of the model too, so they nest. Equal expressions are one value: a gradient with respect
    to x counts every use of an expression equal to x. But what zeros, ones, full and const make is each time a value of
    its own.
    """
    single = isinstance(wrt, Tensor)
    target = lift(y)
    results = []
    for x in [wrt] if single else wrt:
        if not isinstance(x, Tensor):
            results.append(fail(TraceError(f"a gradient with respect to {x!r}, which is no value of the model")))
        else:
            results.append(record("grad", target, x))
    return results[0] if single else results


def jvp(y: Value, wrt: Sequence[Tensor], vectors: Sequence[Value]) -> Tensor:
    """The Jacobian of y times vectors, Σ ∂y/∂x · v: how y changes as the values x of `wrt` move along theirs.

    A gradient is linear in the cotangent that it begins with, so its derivative by that is the same product the other
    way round: no second set of rules.
    """
    current("gc.jvp")
    target = lift(y)
    if target.broken:
        return target
    cotangent = full(target.node.shape, 0, target.dtype)  # no other zeros of the model are meant
    gradients = grad(sum(target * cotangent), list(wrt))
    products = [sum(g * lift(v)) for g, v in zip(gradients, vectors, strict=True)]
    total = products[0]
    for p in products[1:]:
        total = total + p
    return grad(total, cotangent)


def hvp(loss: Value, wrt: Sequence[Tensor], vectors: Sequence[Value]) -> list[Tensor]:
    """The Hessian of a scalar times vectors: the gradient of Σ gradient · vector."""
    gradients = grad(loss, list(wrt))
    products = [sum(g * lift(v)) for g, v in zip(gradients, vectors, strict=True)]
    total = products[0]
    for p in products[1:]:
        total = total + p
    return grad(total, list(wrt))
