"""Loops before they are scheduled: where the values of their steps lie.

A carry that is wanted after each step, or before it, lies in one array of all its values, its path: a step reads one
row and writes the next. Other carries have one place, which each step writes over. What a step takes, and what it gives,
are rows of the stacked arrays. So nothing is copied between steps.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..graph.graph import Graph, with_operands
from ..graph.node import Node
from ..graph.size import Size, product, size
from ..ops import build
from ..ops.scan import Scan, item


@dataclass(frozen=True)
class View:
    """A part of another array, from `start` on; it moves by `step` each time round its loop. Both in elements."""

    parent: int
    start: Size
    step: Size


def with_paths(graph: Graph) -> Graph:
    """Carries that are stacked before or after each step become paths, and their stacks parts of these."""

    def change(node: Node, operands: tuple[Node, ...]) -> Node:
        if node.op == "item":
            return _picked(Scan.of(operands[0]), node.attr("index"))
        new = with_operands(node, operands)
        return _with_paths(Scan.of(new)) if new.op == "scan" else new

    return graph.rewrite(change)


def _with_paths(scan: Scan) -> Node:
    body = scan.body
    paths = [k for k in range(len(body.carries)) if {body.carries[k], body.new_carries[k]} & set(body.gives)]
    return replace(scan, paths=tuple(paths)).node()


def _picked(scan: Scan, index: int) -> Node:
    """A result of a scan with paths: a part of a path where it is one."""
    body, node = scan.body, scan.node()
    first = len(body.results)
    if index < len(body.carries):
        if index not in scan.paths:
            return item(node, index)
        path = item(node, first + scan.paths.index(index))
        return build.reshape(_rows(path, size(0) if scan.reverse else scan.length, size(1)), path.shape[1:])
    value = body.results[index]
    for at, k in enumerate(scan.paths):
        if value in (body.carries[k], body.new_carries[k]):
            after = value is body.new_carries[k]
            return _rows(item(node, first + at), size(int(after != scan.reverse)), scan.length)
    return item(node, index)


def _rows(x: Node, start: Size, count: Size) -> Node:
    rest = x.type.rank - 1
    starts, steps = (start, *(size(0),) * rest), (size(1),) * (rest + 1)
    return build.make("slice", x, start=starts, step=steps, shape=(count, *x.shape[1:]))


def rows_of(node: Node) -> tuple[Node, Size]:
    """(x, number of the first element): a node as a run of x's elements in their order, whole rows of it, reshaped."""
    offset = size(0)
    while node.op in ("reshape", "slice"):
        (x,) = node.operands
        if node.op == "slice":
            whole = x.shape[1:] == node.shape[1:] and all(s == 0 for s in node.attr("start")[1:])
            if not whole or any(s != 1 for s in node.attr("step")):
                break
            offset = offset + node.attr("start")[0] * product(x.shape[1:])
        node = x
    return node, offset


def step_graph(scan: Scan, graph: Graph) -> Graph:
    """One step as a graph to be scheduled. A path's row is an output, and so is what the step gives, by its number;
    a carry without a path is updated."""
    body = scan.body
    stacked = {body.carries[k] for k in scan.paths} | {body.new_carries[k] for k in scan.paths}
    outputs = {f"path:{k}": body.new_carries[k] for k in scan.paths}
    outputs |= {f"gives:{j}": y for j, y in enumerate(body.gives) if y not in stacked}
    kept = [k for k in range(len(body.carries)) if k not in scan.paths]
    updates = {body.carries[k]: body.new_carries[k] for k in kept if body.new_carries[k] is not body.carries[k]}
    return Graph(f"{graph.name}_step", body.inputs, outputs, updates, tables=graph.tables)
