"""Values put to a common scale along axes: shares of one, or deviations of one."""

from __future__ import annotations

from ..errors import TraceError
from ..graph.size import size
from .axes import Axis, axes_of
from .elementwise import exp, sqrt, square
from .reduce import logsumexp, mean, sum
from .tensor import Tensor, Value, cast, fail, lift, record
from .trace import current


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
        tensor = cast(tensor, current().float_type)
    axes = axes_of("layer_norm", tensor, axis)
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
