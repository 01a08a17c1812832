"""Nodes: frozen and interned, so that `is` means equal. Where a node came from lives in side tables, not here."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass, fields, is_dataclass
from typing import Any
from weakref import WeakValueDictionary

import numpy as np

from .dtype import DType, from_numpy, results
from .scalar import Scalar
from .size import Size, product


@dataclass(frozen=True)
class TensorType:
    """The type of a node's value: element type and shape."""

    dtype: DType
    shape: tuple[Size, ...]

    @property
    def numel(self) -> Size:
        return product(self.shape)

    @property
    def rank(self) -> int:
        return len(self.shape)

    def __str__(self) -> str:
        return f"{self.dtype}[{', '.join(map(str, self.shape))}]"


@dataclass(frozen=True)
class TupleType(TensorType):
    """The type of a node with several results; an `item` node picks one of them. It is the type of no array."""

    items: tuple[TensorType, ...]

    def __str__(self) -> str:
        return f"({', '.join(map(str, self.items))})"


def tuple_type(items: Iterable[TensorType]) -> TupleType:
    """The type of several results together."""
    return TupleType(results, (), tuple(items))


class Constant:
    """An array as an attribute: hashed by its bytes, so that NaN equals itself and -0.0 differs from 0.0."""

    __slots__ = ("_key", "array")

    def __init__(self, array: np.ndarray):
        self.array = np.array(array, order="C")
        self.array.flags.writeable = False
        self._key = (self.array.dtype.str, self.array.shape, self.array.tobytes())

    @property
    def dtype(self) -> DType:
        dtype = from_numpy(self.array.dtype)
        assert dtype is not None
        return dtype

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Constant) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    def __repr__(self) -> str:
        return f"Constant({self.array.tolist()!r}, {self.array.dtype})"


class Node:
    """One operation of the graph: its row's name, its operands in order, its attributes and its type.

    Equal arguments give the same object.
    """

    __slots__ = ("__weakref__", "attrs", "op", "operands", "type")

    op: str
    operands: tuple[Node, ...]
    attrs: tuple[tuple[str, Any], ...]
    type: TensorType

    def __new__(cls, op: str, operands: tuple[Node, ...], type: TensorType, **attrs: Any) -> Node:
        sorted_attrs = tuple(sorted(attrs.items()))
        # 1, 1.0 and True are equal as keys, but not as attributes
        key = (op, operands, sorted_attrs, tuple(v.__class__ for _, v in sorted_attrs), type)
        with _LOCK:
            node = _INTERNED.get(key)
            if node is None:
                node = object.__new__(cls)
                for field, value in (("op", op), ("operands", operands), ("attrs", sorted_attrs), ("type", type)):
                    object.__setattr__(node, field, value)
                _INTERNED[key] = node
        return node

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"a Node is frozen: {name} cannot be set")

    def __reduce__(self) -> Any:
        raise TypeError("a Node is not pickled; a graph has a text form (graphc.graph.text)")

    def attr(self, name: str) -> Any:
        """An attribute's value; KeyError where the node has none of this name."""
        for key, value in self.attrs:
            if key == name:
                return value
        raise KeyError(f"{self.op} has no attribute {name!r}")

    @property
    def shape(self) -> tuple[Size, ...]:
        return self.type.shape

    @property
    def dtype(self) -> DType:
        return self.type.dtype

    def __repr__(self) -> str:
        attrs = "".join(f" {k}={v}" for k, v in self.attrs)
        return f"<{self.op}{attrs} : {self.type}>"


_LOCK = threading.RLock()  # a collected object may free others while one is made
_INTERNED: WeakValueDictionary[Any, Node] = WeakValueDictionary()


def size_names(node: Node) -> set[str]:
    """The dimension names that a node depends on, in its type or in an attribute."""
    found: set[str] = set()
    stack: list[Any] = [node.type, *(v for _, v in node.attrs)]
    inside: set[Node] = set()  # of bodies
    while stack:
        value = stack.pop()
        if isinstance(value, Node):
            if value not in inside:
                inside.add(value)
                stack.extend((value.type, *(v for _, v in value.attrs), *value.operands))
        elif isinstance(value, Size):
            found |= value.names
        elif isinstance(value, tuple):
            stack.extend(value)
        elif isinstance(value, Scalar):
            stack.extend((value.value, *value.args))
        elif is_dataclass(value) and not isinstance(value, (DType, type)):
            stack.extend(getattr(value, f.name) for f in fields(value))
    return found


def postorder(roots: Iterable[Node], known: set[Node] | None = None) -> list[Node]:
    """All nodes that the roots need, operands before users, in a stable order; those in `known`, and what only they
    need, left out. `known` grows by what is found."""
    seen: set[Node] = set() if known is None else known
    order: list[Node] = []
    for root in roots:
        if root in seen:
            continue
        stack: list[tuple[Node, bool]] = [(root, False)]
        while stack:
            node, ready = stack.pop()
            if ready:
                order.append(node)
            elif node not in seen:
                seen.add(node)
                stack.append((node, True))
                stack.extend((operand, False) for operand in reversed(node.operands) if operand not in seen)
    return order
