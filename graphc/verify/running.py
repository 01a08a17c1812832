"""Compiled programs at a point: run whole, or one instruction at a time to find the first that is wrong."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ..graph.graph import Graph
from ..graph.node import Node, postorder
from ..lowering.schedule import Launch, Multiply, Schedule
from ..pipeline import Compilation, KernelBook, assemble, derive, lower
from ..runtime.execute import EXECUTORS
from ..runtime.program import Loop, Program
from . import exact

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Point:
    """Numbers for a check: sizes, and exact values for the inputs and variables of a graph."""

    sizes: dict[str, int]
    leaves: dict[Node, Array]
    known: dict[Node, Array] = field(default_factory=dict)  # what was evaluated here before

    def values(self, roots: list[Node]) -> dict[Node, Array]:
        """The exact values of nodes, and of all that they need."""
        self.known.update(exact.evaluate(roots, {**self.leaves, **self.known}, self.sizes))
        return self.known

    def moved(self, y: Node, moves: Mapping[Node, Array], held: list[Node]) -> Any:
        """The exact value of a number y where nodes have other values, whatever computes them, and `held` ones theirs."""
        leaves = {**self.leaves, **{n: self.values([n])[n] for n in held}, **moves}
        return exact.evaluate([y], leaves, self.sizes)[y].item()


def results(graph: Graph) -> dict[str, Node]:
    """What a graph computes: its outputs, and its updates as `update:NAME`."""
    return {**graph.outputs, **{f"update:{t.attr('name')}": v for t, v in graph.updates.items()}}


def truth(graph: Graph, at: Point) -> dict[str, Array]:
    """The exact results of a graph, its gradients expanded if they are not, and no rewrite applied."""
    wanted = results(derive(graph))
    values = at.values(list(wanted.values()))
    return {n: values[v] for n, v in wanted.items()}


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
    """The results of a graph as compiled."""
    lowered = compiled(compilation, graph)
    bound = EXECUTORS[compilation.options.target](lowered.book.kernels).bound(lowered.program, at.sizes)
    arrays = {n: a for n, a in _arrays(lowered, at).items() if lowered.program.buffers[n].kind not in ("temp", "view")}
    for number, array in arrays.items():
        bound.bind(number, array)
    bound.run()
    buffers = lowered.program.buffers
    updated = {f"update:{buffers[n].name}": arrays[n] for n in lowered.program.updated}
    return {b.name: arrays[n] for n, b in enumerate(buffers) if b.kind == "output"} | updated


def _arrays(lowered: Lowered, at: Point) -> dict[int, Array]:
    """An array for every buffer: filled where it is a leaf, and elsewhere with what no computation gives."""
    arrays = {}
    for number, buffer in enumerate(lowered.steps.buffers):
        shape = tuple(e.evaluate(at.sizes) for e in buffer.type.shape)
        dtype = buffer.type.dtype.numpy
        if buffer.kind == "const":
            arrays[number] = np.array(buffer.node.attr("value").array)
        elif buffer.kind in ("input", "param", "state"):
            arrays[number] = np.ascontiguousarray(_plain(at.leaves[buffer.node]), dtype).reshape(shape)
        else:
            arrays[number] = np.full(shape, np.nan if dtype.kind == "f" else 0, dtype)
    return arrays


def _plain(values: Array) -> Any:
    return np.array([v if isinstance(v, (bool, int)) else float(v) for v in values.ravel()]).reshape(values.shape)


def lowered_results(lowered: Lowered) -> dict[str, Node]:
    """The nodes of a lowered graph that its outputs are."""
    return {b.name: b.node for b in lowered.steps.buffers if b.kind == "output"}


def one_by_one(compilation: Compilation, lowered: Lowered, at: Point) -> list[tuple[str, Mapping[Node, Array]]]:
    """What each instruction wrote, with the words that describe it. No memory is shared between values."""
    apart = tuple(replace(b, kind="scratch") if b.kind == "temp" else b for b in lowered.program.buffers)
    arrays = _arrays(lowered, at)
    executor = EXECUTORS[compilation.options.target](lowered.book.kernels)
    known = set(postorder(b.node for b in lowered.steps.buffers if b.kind == "output"))
    written: list[tuple[str, Mapping[Node, Array]]] = []
    for step, instruction in zip(lowered.steps.steps, lowered.program.instructions, strict=True):
        bound = executor.bound(Program("", apart, (instruction,), ()), at.sizes)
        for number, array in arrays.items():
            if apart[number].kind != "view":
                bound.bind(number, array)
        bound.run()
        buffers = {b: lowered.steps.buffers[b].node for b in map(lowered.steps.root, lowered.steps.writes(step))}
        if isinstance(step, Launch):  # a value may be written over another
            buffers |= {b: n for b, n in zip(step.buffers, step.kernel.nodes, strict=True) if b in buffers}
        nodes = {node: arrays[n].copy() for n, node in buffers.items() if node in known}
        if isinstance(instruction, Loop):
            words = f"a loop of {instruction.count} steps"
        elif isinstance(step, Launch):
            words = f"kernel {instruction.kernel}: {'; '.join(step.kernel.notes[:3])}"
        else:
            words = f"{instruction.kernel}: {step.note}" if isinstance(step, Multiply) else instruction.kernel
        written.append((words, nodes))
    return written
