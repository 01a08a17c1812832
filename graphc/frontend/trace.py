"""Tracing: a model function runs once, and every operation on its values becomes a node."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

import numpy as np

from ..errors import GraphcError, SourceLine, TraceError
from ..graph.dtype import DType, f32, f64
from ..graph.graph import Guard, Origin, SideTables, Variable
from ..graph.node import Node

PACKAGE = str(Path(__file__).resolve().parent.parent) + os.sep
NUMPY = str(Path(np.__file__).resolve().parent) + os.sep
TRACERS = ("trace_model", "trace_step")

Initializer = Callable[[tuple[int, ...], np.random.Generator], np.ndarray]


@dataclass(frozen=True)
class Declaration:
    """A parameter or state as the model declares it: the variable, how it begins, and whether it may be shared."""

    variable: Variable
    init: Initializer
    shared: bool
    source: SourceLine | None


@dataclass
class Trace:
    """What is collected while one entry is traced. `declarations` is shared by all entries of a module."""

    name: str
    float_type: DType
    declarations: dict[str, Declaration]
    tables: SideTables = field(default_factory=SideTables)
    guards: list[Guard] = field(default_factory=list)
    updates: dict[Node, Node] = field(default_factory=dict)
    errors: list[GraphcError] = field(default_factory=list)
    scopes: list[str] = field(default_factory=list)
    made: dict[str, Declaration] = field(default_factory=dict)
    dims: set[str] = field(default_factory=set)
    steps: int = 0  # counts values that are like no others: what a step of a loop computes with
    positions: list[Node] = field(default_factory=list)  # of the steps being traced, in the loops around them
    draws: int = 0  # counts the arrays of random numbers

    def dtype(self, declared: DType) -> DType:
        """A declared type as this compilation reads it: under float64 every f32 is an f64."""
        return f64 if declared is f32 and self.float_type is f64 else declared

    def full_name(self, name: str) -> str:
        return "/".join([*self.scopes, name])

    def note(self, node: Node, source: SourceLine | None) -> None:
        self.tables.add_origin(node, Origin(source, "/".join(self.scopes)))


class _Open(threading.local):
    """The traces that are open in a thread, the innermost last."""

    def __init__(self) -> None:
        self.traces: list[Trace] = []


_OPEN = _Open()


def current(what: str = "this operation") -> Trace:
    """The trace that is open; TraceError outside a model."""
    if not _OPEN.traces:
        raise TraceError(
            f"{what} was called outside a model",
            where=caller(),
            how="call it inside a function decorated with @gc.model",
        )
    return _OPEN.traces[-1]


@contextmanager
def active(trace: Trace) -> Iterator[Trace]:
    """Make a trace the open one."""
    _OPEN.traces.append(trace)
    try:
        yield trace
    finally:
        _OPEN.traces.pop()


def check_name(kind: str, name: object) -> None:
    """TraceError unless a name can stand in files, comments and messages: a line of text without quotes."""
    if not isinstance(name, str) or not name.strip() or not name.isprintable() or set(name) & set("\"'\\"):
        raise TraceError(
            f"{name!r} cannot name a {kind}",
            where=caller(),
            why="a name is one line of printable text, without quotes and backslashes",
            how="use letters, digits, _ and /",
        )


@contextmanager
def scope(name: str) -> Iterator[None]:
    """Nest the names made inside: `with gc.scope("encoder"):` makes `encoder/hidden/W`."""
    trace = current("gc.scope")
    check_name("scope", name)
    trace.scopes.append(name)
    try:
        yield
    finally:
        trace.scopes.pop()


def caller() -> SourceLine | None:
    """The innermost line on the stack that is neither graphc's nor NumPy's: the line of the user's model. None of an
    optimiser of graphc's."""
    frame = calling()
    return SourceLine(frame.f_code.co_filename, frame.f_lineno) if frame else None


def calling() -> FrameType | None:
    """The frame of that line."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        file = frame.f_code.co_filename
        if file.startswith(PACKAGE) and frame.f_code.co_name in TRACERS:
            return None  # lines further out asked for the compilation: they are not the model's
        if not file.startswith((PACKAGE, NUMPY, "<frozen")) and file != contextlib.__file__:
            return frame
        frame = frame.f_back
    return None
