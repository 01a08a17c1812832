"""Random numbers: `gc.random.uniform`, `normal`, `bernoulli`, and `gc.dropout`.

A draw is a function of the call's number, of its place in the model, of the steps of the loops around it and of the
element's position, by a counter-based generator (see graphc.ops.random). So it is the same on every target and for any
number of threads. `gc.compile(seed=…)` says where the numbers begin; each call that draws goes on from there, and
`m.reset()` goes back.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..errors import TraceError
from ..graph.dtype import DType, bool_, f32, i64
from ..graph.node import Node, TensorType
from ..graph.size import Size, SizeLike
from ..ops.random import COUNTER
from .create import full
from .elementwise import cos, log, sqrt, where
from .model import state
from .shape import shape_of
from .tensor import Tensor, Value, cast, elementwise, fail, is_weak, lift, record
from .trace import current, scope

__all__ = ["bernoulli", "dropout", "normal", "training", "uniform"]

Shape = SizeLike | Sequence[SizeLike | str]


def uniform(shape: Shape = (), low: Value = 0.0, high: Value = 1.0, dtype: DType | None = None) -> Tensor:
    """Numbers from low to below high, each as likely as the others: multiples of 2⁻²⁴ of the range, in f64 of 2⁻⁵³."""
    kind = _float("uniform", dtype)
    if kind is None:
        return Tensor(None)
    digits = 24 if kind is f32 else 53
    whole = cast(elementwise("right_shift", _bits(shape_of(shape)), 64 - digits), kind)
    unit = (whole + 2.0 ** (digits - 1)) * 2.0**-digits
    if is_weak(low) and is_weak(high) and (low, high) == (0, 1):
        return unit
    begin = lift(low, kind)
    return begin + (lift(high, kind) - begin) * unit


def normal(shape: Shape = (), mean: Value = 0.0, std: Value = 1.0, dtype: DType | None = None) -> Tensor:
    """Normally distributed numbers, √(−2 log u)·cos(2πv) of uniform u and v (Box and Muller 1958).

    They agree on all targets as far as these functions do. None is farther than 5.8 standard deviations from the mean, in
    f64 than 8.6.
    """
    if (kind := _float("normal", dtype)) is None:
        return Tensor(None)
    radius = sqrt(-2.0 * log(1.0 - uniform(shape, dtype=kind)))
    z = radius * cos(2 * np.pi * uniform(shape, dtype=kind))
    if is_weak(mean) and is_weak(std) and (mean, std) == (0, 1):
        return z
    return lift(mean, kind) + lift(std, kind) * z


def bernoulli(p: Value, shape: Shape | None = None) -> Tensor:
    """bool: true with the probability p, a number or an array of them; of the shape of p unless one is given."""
    if is_weak(p):
        if not isinstance(p, (int, float)) or not 0 <= p <= 1:
            return fail(TraceError(f"bernoulli: {p!r} is no probability", how="a number from 0 to 1"))
        sizes = shape_of(() if shape is None else shape)
        return _below(_bits(sizes), float(p), sizes)
    chance = lift(p)
    if chance.broken:
        return chance
    if not chance.dtype.is_float:
        return fail(TraceError(f"bernoulli: probabilities are floating-point numbers, not {chance.node.type}"))
    return uniform(chance.node.shape if shape is None else shape, dtype=chance.dtype) < chance


def dropout(x: Value, rate: float = 0.5) -> Tensor:
    """In training each element becomes 0 with the probability `rate`, and x/(1 − rate) otherwise; else it is x.

    (Srivastava et al. 2014.) value_and_grad and step train, forward does with train=True. Another call drops others.
    """
    tensor = lift(x)
    if not isinstance(rate, (int, float)) or isinstance(rate, bool) or not 0 <= rate < 1:
        return fail(TraceError(f"dropout: the rate is {rate!r}", how="a number from 0 to below 1"))
    if tensor.broken or not rate:
        return tensor
    if not tensor.dtype.is_float:
        return fail(TraceError(f"dropout: {tensor.node.type} is no floating-point array", how="convert it with gc.cast"))
    with scope("dropout"):
        shape = tensor.node.shape
        dropped = _below(_bits(shape), float(rate), shape)
        return where(training(), where(dropped, 0.0, tensor * (1 / (1 - rate))), tensor)


def training() -> Tensor:
    """A bool: is this a call that trains, value_and_grad, step or forward(train=True)?"""
    trace = current("gc.training")
    node = Node("training", (), TensorType(bool_, ()), name="train")
    trace.tables.names.setdefault(node, "train")
    return Tensor(node)


def _float(name: str, dtype: DType | None) -> DType | None:
    trace = current(f"gc.random.{name}")
    kind = trace.float_type if dtype is None else trace.dtype(dtype) if isinstance(dtype, DType) else None
    if kind is None or not kind.is_float:
        fail(TraceError(f"random.{name}: {dtype} is no floating-point type", how="gc.f32 or gc.f64"))
        return None
    return kind


def _below(bits: Tensor, p: float, shape: tuple[Size, ...]) -> Tensor:
    """Where 64 random bits, read as a signed number, are among the lowest: of all that there are, the share p."""
    bound = round(p * 2**64) - 2**63
    return bits < bound if bound < 2**63 else full(shape, True, bool_)


# -- bits ------------------------------------------------------------------------------------------------------------
def _bits(shape: tuple[Size, ...]) -> Tensor:
    """64 random bits for each element, that no other draw of the model has."""
    trace = current("gc.random")
    trace.draws += 1
    key = elementwise("random_bits", _counter(), trace.draws)
    for position in trace.positions:
        key = elementwise("random_bits", key, Tensor(position))
    return record("random", key, shape=shape)


def _counter() -> Tensor:
    """The state that says which call this is; it stands outside all scopes, and all models of a file share it."""
    trace = current()
    scopes, trace.scopes = trace.scopes, []
    try:
        # anywhere in 62 bits: draws of other seeds do not overlap, and counting does not overflow
        return state(COUNTER, (), lambda shape, rng: rng.integers(2**62, size=shape), shared=True, dtype=i64)
    finally:
        trace.scopes = scopes
