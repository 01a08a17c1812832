"""Element types: the five that graphc computes with, and how two of them meet (NumPy's promotion)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class DType:
    """An element type. `kind` is NumPy's letter: b (bool), i (integer), f (float)."""

    name: str
    kind: str
    itemsize: int

    @property
    def numpy(self) -> np.dtype:
        return np.dtype(_NUMPY[self.name])

    @property
    def is_float(self) -> bool:
        return self.kind == "f"

    def __getitem__(self, shape: str | int | tuple[str | int, ...]) -> Annotation:
        """`f32["B", 2]`: an input of this type; `f32[()]` a scalar. A string is a symbolic size."""
        return Annotation(self, shape if isinstance(shape, tuple) else (shape,))

    def __str__(self) -> str:
        return self.name

    def __repr__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Annotation:
    """The declaration of an input: element type and shape, sizes as numbers or as text such as "T" or "2*T"."""

    dtype: DType
    shape: tuple[str | int, ...]

    def __str__(self) -> str:
        return f"{self.dtype}[{', '.join(map(str, self.shape)) or '()'}]"


f32 = DType("f32", "f", 4)
f64 = DType("f64", "f", 8)
i32 = DType("i32", "i", 4)
i64 = DType("i64", "i", 8)
bool_ = DType("bool_", "b", 1)
results = DType("results", "t", 0)  # of a node with several results: no array's, and no arithmetic takes it

_NUMPY = {"f32": np.float32, "f64": np.float64, "i32": np.int32, "i64": np.int64, "bool_": np.bool_}
BY_NAME = {t.name: t for t in (f32, f64, i32, i64, bool_)}
_BY_NUMPY = {t.numpy: t for t in BY_NAME.values()}


def from_numpy(dtype: np.dtype) -> DType | None:
    """The element type of a NumPy dtype; None where graphc has none (float16, complex, strings)."""
    return _BY_NUMPY.get(np.dtype(dtype))


def promote(a: DType, b: DType) -> DType:
    """NumPy's promotion of two array types."""
    result = from_numpy(np.promote_types(a.numpy, b.numpy))
    assert result is not None  # closed: the five types promote among themselves
    return result
