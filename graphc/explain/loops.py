"""Loops for a reader: each value of a step as an array over the steps, t its first index.

    h[t] = tanh(x[t] W + h[t−1] U)

A carry as a step finds it is a node `previous`: the value of the step before, and at the first step the initial one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from ..graph.graph import Graph, with_operands
from ..graph.node import Node, TensorType
from ..graph.size import size
from ..ops import build
from ..ops.scan import Scan
from ..passes.batch import Operand, batch, stack
from .expression import ONE, Apply, Cases, Expr, Ref, Symbol, add, extent, neg

PREVIOUS = "previous"


def over_steps(graph: Graph) -> tuple[Graph, dict[Node, Node], dict[Node, Node]]:
    """(the graph with each loop as what its steps compute, what each `previous` is the value before of, what became of
    each node, those of steps among them)."""
    came: dict[Node, Node] = {}
    after: dict[Node, Node] = {}
    results: dict[Node, list[Node]] = {}
    for node in graph.nodes:
        operands = tuple(came.get(o, o) for o in node.operands)
        if node.op == "scan":
            results[node] = _results(replace_operands(Scan.of(node), operands), len(after), came, after)
            graph.tables.inherit(results[node][0], node)
        elif node.op == "item":
            came[node] = results[node.operands[0]][node.attr("index")]
        else:
            came[node] = with_operands(node, operands)
        if node in came:
            graph.tables.inherit(came[node], node)
    for old, new in came.items():
        graph.tables.inherit(new, old)
    outputs = {name: came[node] for name, node in graph.outputs.items()}
    return replace(graph, outputs=outputs, updates={}), after, came


def replace_operands(scan: Scan, operands: Sequence[Node]) -> Scan:
    n, m = len(scan.init), len(scan.init) + len(scan.xs)
    return replace(scan, init=tuple(operands[:n]), xs=tuple(operands[n:m]), given=tuple(operands[m:]))


def _results(scan: Scan, number: int, came: dict[Node, Node], after: dict[Node, Node]) -> list[Node]:
    """The results of a loop; notes what its values became, and what comes before what."""
    body = scan.body
    before = [
        Node(
            PREVIOUS,
            (init,),
            TensorType(carry.dtype, (scan.length, *carry.shape)),
            number=number + k,
            reverse=scan.reverse,
        )
        for k, (carry, init) in enumerate(zip(body.carries, scan.init, strict=True))
    ]
    known: dict[Node, Operand] = {c: (b, True) for c, b in zip(body.carries, before, strict=True)}
    known |= {v: (x, True) for v, x in zip(body.elements, scan.xs, strict=True)}
    known |= {v: (g, False) for v, g in zip(body.given, scan.given, strict=True)}
    inside = [n for n in body.nodes if n not in known]
    stacks = [stack(o, scan.length) for o in batch(body.results, known, scan.length)]
    for node, operand in zip(inside, batch(inside, known, scan.length), strict=True):
        if operand[1]:
            came[node] = operand[0]
    results = []
    for k, carry in enumerate(body.carries):
        after[before[k]] = stacks[k]
        last = size(0) if scan.reverse else scan.length - 1
        starts = (last, *(size(0),) * carry.type.rank)
        shape = (size(1), *carry.shape)
        end = build.make("slice", stacks[k], start=starts, step=(size(1),) * len(shape), shape=shape)
        results.append(build.reshape(end, carry.shape))
    return results + stacks[len(body.carries) :]


def previous(node: Node, after: Symbol, initial: Expr, at: Sequence[Expr]) -> Expr:
    """An element of a carry as a step finds it: of the step before, or `initial` at the first."""
    t, *rest = at
    one, last = ONE, add(extent(node.shape[0]), neg(ONE))
    if node.attr("reverse"):
        return Cases(((Ref(after, (add(t, one), *rest)), Apply("less", (t, last))),), initial)
    return Cases(((Ref(after, (add(t, neg(one)), *rest)), Apply("greater_equal", (t, one))),), initial)


def reached(uses: Mapping[Symbol, Sequence[Symbol]], loss: Symbol) -> set[Symbol]:
    """The values that the loss depends on. uses: what the equation of each symbol reads."""
    found, todo = {loss}, [loss]
    while todo:
        for symbol in uses.get(todo.pop(), ()):
            if symbol not in found:
                found.add(symbol)
                todo.append(symbol)
    return found
