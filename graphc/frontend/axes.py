"""The axes that a function is asked for, as numbers of a tensor's own."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..errors import TraceError
from .tensor import Tensor, fail

Axis = int | Sequence[int] | None


def axes_of(name: str, x: Tensor, axis: Axis) -> tuple[int, ...] | None:
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
