"""What is kept for all steps of a loop, where something must be: the least that serves."""

from __future__ import annotations

from collections.abc import Iterable

from ..graph.body import Body, dependents
from ..graph.node import Node
from ..ops.leaves import LEAVES
from ..ops.scan import LIGHT, MOVEMENTS
from ..ops.segments import USUAL
from .batch import can_batch


def is_heavy(node: Node) -> bool:
    """Is an operation worth keeping its result for all steps, rather than doing it again?"""
    return node.op not in LIGHT


def is_made_where_read(array: Node) -> bool:
    """Is an array one that nobody keeps, if what is computed of it is kept instead?"""
    while array.op in MOVEMENTS and len(array.operands) == 1:
        (array,) = array.operands
    return array.op not in (*LEAVES, "item")


def smallest(kept: Iterable[Node], body: Body, by_step: set[Node]) -> list[Node]:
    """Values to be kept for all steps, or instead of one, if they are smaller, values that light work makes of it alone
    for all that the step reads it for: a comparison, one byte, instead of random bits, eight.

    by_step: the values that do not depend on the carries, but on the elements.
    """
    readers: dict[Node, list[Node]] = {n: [] for n in (*body.inputs, *body.nodes)}
    for node in body.nodes:
        for operand in dict.fromkeys(node.operands):
            readers[operand].append(node)
    stay = dependents(body.results, [n for n in body.nodes if not can_batch(n)])
    results = set(body.results)
    best: dict[Node, list[Node]] = {}
    for node in (*reversed(body.nodes), *body.elements):
        best[node], users = [node], readers[node]
        if users and node not in results and all(u in by_step and u not in stay and not is_heavy(u) for u in users):
            smaller = list(dict.fromkeys(v for u in users for v in best[u]))
            if sum(map(_bytes, smaller)) < _bytes(node):
                best[node] = smaller
    return list(dict.fromkeys(v for n in kept for v in best[n]))


def _bytes(node: Node) -> int:
    """Roughly what a value of a step takes."""
    total = node.type.numel * node.dtype.itemsize
    return total.evaluate(dict.fromkeys(total.names, USUAL))
