"""Making nodes: types are inferred by the row; nothing else is decided here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..graph.dtype import DType
from ..graph.node import Constant, Node, TensorType
from ..graph.size import Size, SizeLike, size
from .contract import normal_spec
from .elementwise import ROWS as ELEMENTWISE
from .row import Fit
from .table import ROWS


def make(op: str, *operands: Node, fit: Fit | None = None, **attrs: Any) -> Node:
    """The node of an operation over operands; TraceError where they do not fit."""
    kind = ROWS[op].infer([o.type for o in operands], attrs, fit or Fit())
    return Node(op, tuple(operands), kind, **attrs)


def const(value: Any, dtype: DType) -> Node:
    """A constant scalar or array."""
    constant = Constant(np.asarray(value, dtype.numpy))
    return Node("const", (), TensorType(dtype, tuple(map(size, constant.array.shape))), value=constant)


def size_value(value: SizeLike, dtype: DType) -> Node:
    """A size as a scalar of a type."""
    number = size(value)
    if number.constant is not None:
        return const(number.constant, dtype)
    return Node("size", (), TensorType(dtype, ()), value=number)


def const_value(node: Node) -> float | int | bool | None:
    """The number, if the node is a constant scalar."""
    if node.op == "const" and not node.shape:
        return node.attr("value").array.item()
    return None


def full(value: float, shape: Sequence[Size], dtype: DType) -> Node:
    """An array with the same number everywhere."""
    return broadcast_to(const(value, dtype), shape)


def broadcast_to(x: Node, shape: Sequence[Size]) -> Node:
    return x if x.shape == tuple(shape) else make("broadcast_to", x, shape=tuple(shape))


def reshape(x: Node, shape: Sequence[Size]) -> Node:
    while x.op == "reshape":  # the elements keep their order through any number of reshapes
        (x,) = x.operands
    return x if x.shape == tuple(shape) else make("reshape", x, shape=tuple(shape))


def transpose(x: Node, perm: Sequence[int]) -> Node:
    return x if list(perm) == sorted(perm) else make("transpose", x, perm=tuple(perm))


def cast(x: Node, dtype: DType) -> Node:
    return x if x.dtype is dtype else make("cast", x, dtype=dtype)


def reduce(op: str, x: Node, axes: Sequence[int]) -> Node:
    return make(op, x, axes=tuple(sorted(axes))) if axes else x


def einsum(spec: str, *operands: Node, fit: Fit | None = None) -> Node:
    """A contraction, its letters in normal form."""
    return make("einsum", *operands, fit=fit, spec=normal_spec(spec))


def is_elementwise(node: Node) -> bool:
    return node.op in ELEMENTWISE
