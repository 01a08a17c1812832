"""NumPy under the names of the DSL: nothing here comes from graphc but the names of its element types."""
from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import scipy.special


class Reference:
    """`gc` as NumPy has it, for given sizes."""

    f64, f32, i64, i32, bool_ = np.float64, np.float64, np.int64, np.int32, np.bool_
    sigmoid = staticmethod(scipy.special.expit)
    erf = staticmethod(scipy.special.erf)
    softmax = staticmethod(lambda x, axis=-1: scipy.special.softmax(x, axis=axis))
    log_softmax = staticmethod(lambda x, axis=-1: scipy.special.log_softmax(x, axis=axis))
    relu = staticmethod(lambda x: np.maximum(x, 0))
    softplus = staticmethod(lambda x: np.logaddexp(x, 0))
    concat = staticmethod(lambda arrays, axis=0: np.concatenate(arrays, axis))
    const = staticmethod(lambda x: np.asarray(x, np.float64 if np.asarray(x).dtype.kind == "f" else None))
    cast = staticmethod(lambda x, dtype: np.asarray(x).astype(dtype))
    full = staticmethod(lambda shape, value: np.full(shape, value, np.float64))
    ones = staticmethod(lambda shape: np.ones(shape))
    zeros = staticmethod(lambda shape: np.zeros(shape))
    take = staticmethod(lambda x, i, axis=0: np.take(x, i, axis))

    def __init__(self, sizes: Mapping[str, int] | None = None):
        self.sizes = dict(sizes or {})
        self.stopped: list[Any] = []
        self.replay: list[Any] | None = None

    def sized(self, sizes: Mapping[str, int], stopped: list[Any] | None = None) -> Reference:
        """For given sizes. stopped: what each stop_gradient is to give, in the order of the calls."""
        new = Reference(sizes)
        new.replay = None if stopped is None else list(stopped)
        return new

    def stop_gradient(self, x: Any) -> Any:
        """x; under differences, what x was where they are taken."""
        self.stopped.append(x)
        return x if self.replay is None else self.replay.pop(0)

    def dim(self, name: str) -> int:
        return self.sizes[name]

    def logsumexp(self, x: Any, axis: Any = None, keepdims: bool = False) -> Any:
        return np.log(np.sum(np.exp(x), axis=axis, keepdims=keepdims))

    def gap(self, x: np.ndarray, axis: Any, lowest: bool) -> np.ndarray:
        """How far the largest (lowest) along axes is from the next."""
        axes = range(x.ndim) if axis is None else (axis,) if isinstance(axis, int) else axis
        axes = [a % x.ndim for a in axes]
        moved = np.moveaxis(-x if lowest else x, axes, range(x.ndim - len(axes), x.ndim))
        flat = np.sort(moved.reshape(*moved.shape[:x.ndim - len(axes)], -1), -1)
        return flat[..., -1] - flat[..., -2] if flat.shape[-1] > 1 else np.ones(1)

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)


REFERENCE = Reference()
