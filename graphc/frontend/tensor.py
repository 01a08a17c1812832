"""The value that a model's function computes with: a node, seen through operators."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Union

import numpy as np

from ..errors import SourceLine, TraceError, raise_all
from ..graph.dtype import DType, bool_, from_numpy, i64, promote
from ..graph.node import Node, TensorType
from ..graph.size import Size, equal, size
from ..ops import build
from ..ops.contract import normal_spec
from ..ops.elementwise import ROWS as ELEMENTWISE
from ..ops.row import Fit
from .indexing import plan
from .mistakes import of_numpy
from .trace import caller, calling, current

Number = bool | int | float | np.generic | Size
Value = Union["Tensor", Number, np.ndarray, Sequence[Any]]


class Tensor:
    """A value of the model being traced. It has no numbers yet: only a shape, an element type and a formula.

    An operation that does not fit leaves a broken tensor behind, so that the errors of a whole model are
    reported together.
    """

    __array_ufunc__ = None  # numpy_array @ tensor comes to Tensor.__rmatmul__

    def __init__(self, node: Node | None):
        self._node = node

    @property
    def node(self) -> Node:
        """The graph's node. A broken tensor ends the trace here, with all errors so far."""
        if self._node is None:
            raise_all(current().errors)
        assert self._node is not None
        return self._node

    @property
    def broken(self) -> bool:
        return self._node is None

    @property
    def shape(self) -> tuple[Any, ...]:
        """Sizes: ints where known, symbolic ones that compute (`x.shape[0] * 2`) elsewhere."""
        return tuple(e if e.constant is None else e.constant for e in self.node.shape)

    @property
    def dtype(self) -> DType:
        return self.node.dtype

    @property
    def ndim(self) -> int:
        return self.node.type.rank

    @property
    def T(self) -> Tensor:
        """The axes in reverse order."""
        return record("transpose", self, perm=tuple(reversed(range(self.ndim)))) if self.ndim > 1 else self

    def __repr__(self) -> str:
        return "Tensor(broken)" if self.broken else f"Tensor({self.node.type})"

    # -- operators ----------------------------------------------------------------------------------------------
    def __add__(self, other: Value) -> Tensor:
        return elementwise("add", self, other)

    def __radd__(self, other: Value) -> Tensor:
        return elementwise("add", other, self)

    def __sub__(self, other: Value) -> Tensor:
        return elementwise("sub", self, other)

    def __rsub__(self, other: Value) -> Tensor:
        return elementwise("sub", other, self)

    def __mul__(self, other: Value) -> Tensor:
        return elementwise("mul", self, other)

    def __rmul__(self, other: Value) -> Tensor:
        return elementwise("mul", other, self)

    def __truediv__(self, other: Value) -> Tensor:
        return elementwise("div", self, other)

    def __rtruediv__(self, other: Value) -> Tensor:
        return elementwise("div", other, self)

    def __pow__(self, other: Value) -> Tensor:
        return power(self, other)

    def __rpow__(self, other: Value) -> Tensor:
        return elementwise("pow", other, self)

    def __matmul__(self, other: Value) -> Tensor:
        return matmul(self, other)

    def __rmatmul__(self, other: Value) -> Tensor:
        return matmul(other, self)

    def __neg__(self) -> Tensor:
        return elementwise("neg", self)

    def __pos__(self) -> Tensor:
        return self

    def __abs__(self) -> Tensor:
        return elementwise("abs", self)

    def __lt__(self, other: Value) -> Tensor:
        return elementwise("less", self, other)

    def __le__(self, other: Value) -> Tensor:
        return elementwise("less_equal", self, other)

    def __gt__(self, other: Value) -> Tensor:
        return elementwise("greater", self, other)

    def __ge__(self, other: Value) -> Tensor:
        return elementwise("greater_equal", self, other)

    def __eq__(self, other: object) -> Tensor:  # type: ignore[override]
        return elementwise("equal", self, other)  # type: ignore[arg-type]

    def __ne__(self, other: object) -> Tensor:  # type: ignore[override]
        return elementwise("not_equal", self, other)  # type: ignore[arg-type]

    def __and__(self, other: Value) -> Tensor:
        return elementwise("logical_and", self, other)

    def __rand__(self, other: Value) -> Tensor:
        return elementwise("logical_and", other, self)

    def __or__(self, other: Value) -> Tensor:
        return elementwise("logical_or", self, other)

    def __ror__(self, other: Value) -> Tensor:
        return elementwise("logical_or", other, self)

    def __invert__(self) -> Tensor:
        return elementwise("logical_not", self)

    __hash__ = object.__hash__

    def __bool__(self) -> bool:
        raise TraceError(
            "a tensor has no truth value while the model is traced",
            where=caller(),
            why="an `if` on it would choose one branch for all inputs",
            how="use gc.where(condition, a, b)",
        )

    def __iter__(self) -> Iterator[Tensor]:
        if not self.ndim or not isinstance(self.shape[0], int):
            raise TraceError(
                f"{self!r} cannot be unpacked: its first axis has no known length",
                where=caller(),
                how="to go along an axis use gc.scan" if self.ndim else None,
            )
        return (self[i] for i in range(self.shape[0]))

    def __len__(self) -> int:
        if not self.ndim or not isinstance(self.shape[0], int):
            raise TraceError(f"{self!r} has no known length", where=caller(), how="x.shape[0] is its symbolic size")
        return self.shape[0]

    def __array__(self, *_: Any) -> np.ndarray:
        what, how = of_numpy(calling())
        raise TraceError(what, where=caller(), why="a tensor has no numbers while the model is traced", how=how)

    def __getitem__(self, key: Any) -> Tensor:
        return index(self, key)

    def __setitem__(self, key: Any, value: Any) -> None:
        raise TraceError("a tensor does not change", where=caller(), how="make a new one: use gc.where or gc.concat")


# -- making nodes ----------------------------------------------------------------------------------------------------
def record(op: str, *operands: Tensor, **attrs: Any) -> Tensor:
    """Apply an operation. Where it does not fit, the error is collected and a broken tensor returned."""
    trace = current()
    if any(t.broken for t in operands):
        return Tensor(None)
    source = caller()
    fit = Fit(source=source)
    try:
        node = build.make(op, *(t.node for t in operands), fit=fit, **attrs)
    except TraceError as error:
        return fail(error, source)
    trace.guards += fit.guards
    trace.note(node, source)
    return Tensor(node)


def term(name: str, x: Tensor) -> Tensor:
    """The same value, with the field's name for it: pictures use it where the model's text gives none."""
    if not x.broken:
        current().tables.terms.setdefault(x.node, name)
    return x


def fail(error: TraceError, source: SourceLine | None = None) -> Tensor:
    """Collect an error of the model and go on."""
    error.where = error.where or source or caller()
    current().errors.append(error)
    return Tensor(None)


def same_size(a: Size, b: Size, message: str, how: str | None = None) -> None:
    """TraceError with this message where two sizes can never be equal; what only a call can decide is checked there."""
    fit = Fit(source=caller())
    fit.same(a, b, message, how)
    current().guards.extend(fit.guards)


def constant(value: Any, dtype: DType | None = None) -> Tensor:
    """An array or number as a constant of the graph, with its own type unless one is given."""
    array = np.asarray(value)
    own = from_numpy(array.dtype)
    if own is None:
        return fail(
            TraceError(
                f"an array of {array.dtype} cannot be a constant",
                how="convert it to float32, float64, int32, int64 or bool",
            )
        )
    trace = current("gc.const")
    node = build.const(array, dtype or trace.dtype(own))
    trace.note(node, caller())
    return Tensor(node)


def is_weak(value: Any) -> bool:
    """Python numbers and sizes take the type of the array that they meet."""
    return isinstance(value, (bool, int, float, Size)) and not isinstance(value, np.generic)


def lift(value: Any, dtype: DType | None = None) -> Tensor:
    """Anything a model may compute with, as a tensor; numbers and sizes become `dtype`."""
    if isinstance(value, Tensor):
        return value
    if isinstance(value, Size):
        return Tensor(build.size_value(value, dtype or i64))
    if is_weak(value):
        natural = bool_ if isinstance(value, bool) else i64 if isinstance(value, int) else current().float_type
        kind = dtype or natural
        if kind.kind == "i" and not np.iinfo(kind.numpy).min <= value <= np.iinfo(kind.numpy).max:
            return fail(
                TraceError(f"{value} is no {kind}: it is out of range", how="convert the array with gc.cast(x, gc.i64)")
            )
        return constant(value, kind)
    if isinstance(value, (np.ndarray, np.generic, list, tuple)):
        return constant(value)
    return fail(
        TraceError(
            f"a model cannot compute with {type(value).__name__} {value!r}", how="use tensors, numbers or NumPy arrays"
        )
    )


def common_type(values: Sequence[Any]) -> DType:
    """The type in which values meet: NumPy's promotion of the arrays, numbers being weak."""
    strong = [lift(v) for v in values if not is_weak(v)]
    dtype: DType | None = None
    for tensor in strong:
        if not tensor.broken:
            dtype = tensor.dtype if dtype is None else promote(dtype, tensor.dtype)
    weak = [v for v in values if is_weak(v)]
    if any(isinstance(v, float) for v in weak) and (dtype is None or not dtype.is_float):
        return current().float_type
    if weak and any(not isinstance(v, bool) for v in weak) and (dtype is None or dtype is bool_):
        return i64
    return dtype or bool_


def cast(x: Tensor, dtype: DType) -> Tensor:
    if x.broken or x.dtype is dtype:
        return x
    return record("cast", x, dtype=dtype)


def elementwise(op: str, *values: Value) -> Tensor:
    """Apply an elementwise row, its operands brought to a common type."""
    row = ELEMENTWISE[op]
    condition, rest = (values[:1], values[1:]) if row.condition else ((), values)
    dtype = common_type(rest)
    if row.floats_only and not dtype.is_float:
        dtype = current().float_type
    elif dtype is bool_ and not row.bools and op not in ("where", "equal", "not_equal", "stop_gradient", "cast"):
        dtype = i64
    tensors = [lift(c) for c in condition] + [cast(lift(v, dtype), dtype) if not row.bools else lift(v) for v in rest]
    return record(op, *tensors)


def power(x: Tensor, exponent: Value) -> Tensor:
    """x to a power; of integers to a natural one, 0 included, by repeated products, so that it stays an integer."""
    natural = isinstance(exponent, int) and not isinstance(exponent, bool) and exponent >= 0
    if x.broken or x.dtype.is_float or not natural:
        return elementwise("pow", x, exponent)
    assert isinstance(exponent, int)
    x = cast(x, i64) if x.dtype is bool_ else x
    if exponent < 2:
        return x if exponent else record("broadcast_to", lift(1, x.dtype), shape=x.node.shape)
    half = power(x, exponent // 2)
    return half * half * x if exponent % 2 else half * half


def matmul(a: Value, b: Value) -> Tensor:
    """The matrix product as NumPy has it: vectors, matrices, and stacks of matrices that broadcast."""
    dtype = common_type([a, b])
    x, y = (cast(lift(v, dtype), dtype) for v in (a, b))
    if x.broken or y.broken:
        return Tensor(None)
    if not x.ndim or not y.ndim:
        return fail(
            TraceError(
                f"matmul takes arrays of one axis or more, not {x.node.type} and {y.node.type}",
                how="use * with a scalar",
            )
        )
    if (problem := _matmul_misfit(x.node.type, y.node.type)) is not None:
        return fail(problem)
    batch_x, batch_y = x.ndim - 2, y.ndim - 2
    batch = max(batch_x, batch_y, 0)
    letters = "abcdefghijklmnopqrstuvw"[:batch]
    spec_x, x = _batch_letters(x, letters, batch_x)
    spec_y, y = _batch_letters(y, letters, batch_y)
    left = spec_x + ("x" if batch_x >= 0 else "") + "y"
    right = spec_y + "y" + ("z" if batch_y >= 0 else "")
    known = set(spec_x) | set(spec_y)
    missing = [i for i, c in enumerate(letters) if c not in known]
    kept = "".join(c for c in letters if c in known)
    rows, columns = "x" if batch_x >= 0 else "", "z" if batch_y >= 0 else ""
    result = record("einsum", x, y, spec=normal_spec(f"{left},{right}->{kept}{rows}{columns}"))
    if missing and not result.broken:  # batch axes of length 1 in both operands come back
        shape = list(result.node.shape)
        for i in missing:
            shape.insert(i, size(1))
        result = record("reshape", result, shape=tuple(shape))
    return result


def _matmul_misfit(x: TensorType, y: TensorType) -> TraceError | None:
    """The error of a product whose inner sizes can never agree."""
    inner_x, inner_y = x.shape[-1], y.shape[-2 if y.rank > 1 else 0]
    if equal(inner_x, inner_y) is not False:
        return None
    left = TensorType(x.dtype, (*x.shape[:-1], inner_y))
    right = TensorType(y.dtype, (*y.shape[:-2], inner_x, y.shape[-1]) if y.rank > 1 else (inner_x,))
    axis = "second to last" if y.rank > 1 else "only"
    return TraceError(
        f"matmul: {x} @ {y}: the last axis of the left is {inner_x}, the {axis} axis of the right is {inner_y}",
        how=f"they must be equal: a left operand {left} or a right one {right} would fit",
    )


def _batch_letters(x: Tensor, letters: str, own: int) -> tuple[str, Tensor]:
    """The letters of an operand's batch axes; axes of the literal size 1 stretch, so they are dropped."""
    if own <= 0:
        return "", x
    shape = x.node.shape
    mine = letters[len(letters) - own :]
    kept = [d for d in range(own) if shape[d] != 1]
    if len(kept) < own:
        x = record("reshape", x, shape=tuple(shape[d] for d in kept) + shape[own:])
    return "".join(mine[d] for d in kept), x


def index(x: Tensor, key: Any) -> Tensor:
    """x[key]; see `indexing.plan`."""
    if x.broken:
        return x
    source = caller()
    fit = Fit(source=source)
    try:
        found = plan(key, x.node.type, fit)
    except TraceError as error:
        return fail(error, source)
    current().guards.extend(fit.guards)
    start, step, extents = tuple(found.start), tuple(found.step), tuple(found.extents)
    if any(s != 0 for s in start) or any(s != 1 for s in step) or extents != x.node.shape:
        x = record("slice", x, start=start, step=step, shape=extents)
    if not x.broken and tuple(found.shape) != x.node.shape:
        x = record("reshape", x, shape=tuple(found.shape))
    if found.gather is not None:
        axis, indices = found.gather
        x = record("take", x, lift(indices), axis=axis)
    return x
