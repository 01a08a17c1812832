"""Compiled programs at a point: run whole, or one instruction at a time to find the first that is wrong."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..assembly import KernelBook, assemble
from ..graph.graph import Graph
from ..graph.node import Node
from ..lowering.schedule import Launch, Multiply, Schedule
from ..pipeline import Compilation, lower
from ..runtime.execute import EXECUTORS
from ..runtime.program import Program

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Point:
    """Numbers for a check: sizes, and exact values for the inputs and variables of a graph."""

    sizes: dict[str, int]
    leaves: dict[Node, Array]


@dataclass
class Lowered:
    """A graph as compiled: its schedule, its program, and the kernels."""

    steps: Schedule
    program: Program
    book: KernelBook


def compiled(compilation: Compilation, graph: Graph) -> Lowered:
    """Lower a graph as the pipeline does, recording the rewrites that fire."""
    graph, steps = lower(graph, fired=compilation.fired)
    assert steps is not None
    book = KernelBook()
    return Lowered(steps, assemble(graph.name, graph, steps, book), book)


def run(compilation: Compilation, graph: Graph, at: Point) -> dict[str, Array]:
    """The outputs of a graph as compiled."""
    lowered = compiled(compilation, graph)
    bound = EXECUTORS[compilation.options.target](lowered.book.kernels).bound(lowered.program, at.sizes)
    arrays = {n: a for n, a in _arrays(lowered, at).items() if lowered.program.buffers[n].kind != "temp"}
    for number, array in arrays.items():
        bound.bind(number, array)
    bound.run()
    return {b.name: arrays[n] for n, b in enumerate(lowered.program.buffers) if b.kind == "output"}


def _arrays(lowered: Lowered, at: Point) -> dict[int, Array]:
    """An array for every buffer: filled where it is a leaf, empty elsewhere."""
    arrays = {}
    for number, buffer in enumerate(lowered.steps.buffers):
        shape = tuple(e.evaluate(at.sizes) for e in buffer.type.shape)
        dtype = buffer.type.dtype.numpy
        if buffer.kind == "const":
            arrays[number] = np.array(buffer.node.attr("value").array)
        elif buffer.kind in ("input", "param", "state"):
            arrays[number] = np.ascontiguousarray(_plain(at.leaves[buffer.node]), dtype).reshape(shape)
        else:
            arrays[number] = np.full(shape, 0, dtype)
    return arrays


def _plain(values: Array) -> Any:
    return np.array([v if isinstance(v, (bool, int)) else float(v) for v in values.ravel()]).reshape(values.shape)


def one_by_one(compilation: Compilation, graph: Graph, at: Point) -> list[tuple[str, Mapping[Node, Array]]]:
    """What each instruction wrote, with the words that describe it. No memory is shared between values."""
    lowered = compiled(compilation, graph)
    apart = tuple(replace(b, kind="scratch") if b.kind == "temp" else b for b in lowered.program.buffers)
    arrays = _arrays(lowered, at)
    executor = EXECUTORS[compilation.options.target](lowered.book.kernels)
    written: list[tuple[str, Mapping[Node, Array]]] = []
    for step, instruction in zip(lowered.steps.steps, lowered.program.instructions, strict=True):
        bound = executor.bound(Program("", apart, (instruction,), ()), at.sizes)
        for number, array in arrays.items():
            bound.bind(number, array)
        bound.run()
        nodes = {lowered.steps.buffers[b].node: arrays[b].copy() for b in lowered.steps.writes(step)}
        if isinstance(step, Launch):
            words = f"kernel {instruction.kernel}: {'; '.join(step.kernel.notes[:3])}"
        else:
            words = f"{instruction.kernel}: {step.note}" if isinstance(step, Multiply) else instruction.kernel
        written.append((words, nodes))
    return written
