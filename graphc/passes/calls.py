"""What follows from the kind of call that a program is made for: whether it trains, and that a call that draws counts."""

from __future__ import annotations

from dataclasses import replace

from ..graph.dtype import bool_
from ..graph.graph import Graph, with_operands
from ..graph.node import Node
from ..ops import build
from ..ops.random import COUNTER


def asks_for_training(graph: Graph) -> bool:
    """Does anything that the graph computes depend on whether the call trains?"""
    return any(node.op == "training" for node in graph.nodes)


def for_training(graph: Graph, training: bool) -> Graph:
    """The graph of a call that trains, or of one that does not."""
    if not asks_for_training(graph):
        return graph
    known = build.const(training, bool_)

    def change(node: Node, operands: tuple[Node, ...]) -> Node:
        return known if node.op == "training" else with_operands(node, operands)

    return replace(graph, tables=graph.tables.copy()).rewrite(change)


def counting(graph: Graph) -> Graph:
    """The graph with one added to the counter of random numbers, if what is left of it draws any."""
    counter = next((n for n in graph.nodes if n.op == "state" and n.attr("name") == COUNTER), None)
    if counter is None or counter in graph.updates:
        return graph
    after = build.make("add", counter, build.const(1, counter.dtype))
    return replace(graph, updates={**graph.updates, counter: after})
