"""Layers: functions that make their parameters under a name."""

from __future__ import annotations

from typing import Any

from ..errors import TraceError
from ..frontend.model import param
from ..frontend.tensor import Tensor, fail
from ..frontend.trace import scope


def linear(x: Tensor, features: int, *, name: str = "linear", bias: bool = True, init: Any = None) -> Tensor:
    """x W + b over the last axis: W of shape (in, features), b of shape (features,), under the scope `name`.

    init: the weights' initialiser, Glorot uniform unless given; the bias begins at zero.
    """
    if x.broken:
        return x
    if not x.ndim:
        return fail(TraceError(f"linear takes an array of one axis or more, not {x!r}"))
    with scope(name):
        weight = param("W", (x.shape[-1], features), init=init)
        y = x @ weight
        return y + param("b", (features,)) if bias else y
