"""Scalar expressions: the body of a formula, an interned DAG over what the formula reads.

SymPy states and differentiates operations; it never holds a kernel's body, because it rewrites on its own what
floating point may not (x/x to 1). These expressions do only what they are told.

Leaves are `arg` (the value of the k-th read), `const` (a number), `index` (an affine form of the loop variables)
and `size` (a size as a number). Inner expressions carry the name of an elementwise row.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any
from weakref import WeakValueDictionary

from .dtype import DType, bool_

LEAVES = ("arg", "const", "index", "size")


class Scalar:
    """An interned scalar expression: `is` means equal."""

    __slots__ = ("__weakref__", "args", "dtype", "op", "value")

    op: str
    args: tuple[Scalar, ...]
    dtype: DType
    value: Any

    def __new__(cls, op: str, args: tuple[Scalar, ...], dtype: DType, value: Any = None) -> Scalar:
        # repr tells -0.0 from 0.0 and makes NaN equal to itself
        key = (op, args, dtype, repr(value) if isinstance(value, float) else value, type(value))
        with _LOCK:
            expression = _INTERNED.get(key)
            if expression is None:
                expression = object.__new__(cls)
                for field, content in (("op", op), ("args", args), ("dtype", dtype), ("value", value)):
                    object.__setattr__(expression, field, content)
                _INTERNED[key] = expression
        return expression

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"a Scalar is frozen: {name} cannot be set")

    def __repr__(self) -> str:
        return to_text(self)


_LOCK = threading.RLock()  # a collected object may free others while one is made
_INTERNED: WeakValueDictionary[Any, Scalar] = WeakValueDictionary()


def arg(k: int, dtype: DType) -> Scalar:
    return Scalar("arg", (), dtype, k)


def const(value: float | int | bool, dtype: DType) -> Scalar:
    number: float | int | bool = bool(value) if dtype is bool_ else float(value) if dtype.is_float else int(value)
    return Scalar("const", (), dtype, number)


def is_const(expression: Scalar, value: float) -> bool:
    """Is it this very number? (0.0 and -0.0 count as the same here: both are a zero factor.)"""
    return expression.op == "const" and expression.value == value


def fold(
    expression: Scalar, visit: Callable[[Scalar, tuple[Any, ...]], Any], memo: dict[Scalar, Any] | None = None
) -> Any:
    """Bottom-up: visit(expression, results of its arguments), each distinct expression once."""
    memo = {} if memo is None else memo
    for e in _bottom_up((expression,), memo):
        memo[e] = visit(e, tuple([memo[a] for a in e.args]))
    return memo[expression]


def distinct(expressions: Iterable[Scalar]) -> Iterable[Scalar]:
    """What expressions hold, each once, the arguments of one before it."""
    found: dict[Scalar, None] = {}
    for e in _bottom_up(expressions, found):
        found[e] = None
    return found


def _bottom_up(expressions: Iterable[Scalar], known: Mapping[Scalar, Any]) -> Iterator[Scalar]:
    """What expressions hold and is not known, arguments first. Who takes one makes it known before asking for the next."""
    stack = [*expressions][::-1]  # explicit, since a chain of operations may be longer than Python's stack
    while stack:
        e = stack[-1]
        waiting = False
        for a in e.args:
            if a not in known:
                stack.append(a)
                waiting = True
        if not waiting:
            stack.pop()
            if e not in known:
                yield e


def rebuild(expression: Scalar, leaf: Callable[[Scalar], Scalar | None]) -> Scalar:
    """The expression with leaves replaced by what `leaf` gives (None keeps a leaf)."""

    def visit(e: Scalar, args: tuple[Scalar, ...]) -> Scalar:
        if e.op in LEAVES:
            return leaf(e) or e
        return Scalar(e.op, args, e.dtype, e.value)

    return fold(expression, visit)


def substitute(expression: Scalar, values: Sequence[Scalar]) -> Scalar:
    """arg k replaced by values[k]."""
    return rebuild(expression, lambda e: values[e.value] if e.op == "arg" else None)


def args_of(expression: Scalar) -> list[int]:
    """The numbers of the reads that an expression uses, sorted."""
    return sorted({e.value for e in distinct([expression]) if e.op == "arg"})


def to_text(expression: Scalar) -> str:
    """`add(mul(a0, a1), 1.0:f32)`: parsed back by graphc.graph.text."""
    if expression.op == "arg":
        return f"a{expression.value}:{expression.dtype}"
    if expression.op == "const":
        return f"{expression.value!r}:{expression.dtype}"
    if expression.op in ("index", "size"):
        return f"{expression.op}<{expression.value}>:{expression.dtype}"
    return f"{expression.op}:{expression.dtype}({', '.join(map(to_text, expression.args))})"
