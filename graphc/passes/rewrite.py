"""The rewriting engine: named rules, applied bottom-up until none fires."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from ..graph.graph import Graph, with_operands
from ..graph.node import Node

EXACT = "exact"
VALUE_CHANGING = "value-changing"
LIMIT = 50  # rounds; rules shrink or stabilise a graph, so few are needed


@dataclass
class Sight:
    """What a rule may look through. Nodes that a gradient is taken with respect to are opaque: a rule must not
    rewrite y so that it no longer depends on the x of ∂y/∂x."""

    opaque: frozenset[Node] = frozenset()
    memo: dict[object, Node] = field(default_factory=dict)

    def op(self, node: Node, *names: str) -> bool:
        """Is it one of these operations, and may it be looked through?"""
        return node.op in names and node not in self.opaque


@dataclass(frozen=True)
class Rule:
    """A rewrite. kind: exact (the same bits, or the same up to the sign of a zero) or value-changing (the same
    function, other rounding). reason: why it holds, or is worth it."""

    name: str
    kind: str
    reason: str
    apply: Callable[[Node, Sight], Node | None]


def rule(name: str, kind: str, reason: str) -> Callable[[Callable[[Node, Sight], Node | None]], Rule]:
    """Make a rule of a function that gives the node to put in place, or None."""
    return lambda apply: Rule(name, kind, reason, apply)


def rewrite(graph: Graph, rules: Sequence[Rule], fired: Counter[str] | None = None) -> Graph:
    """Apply rules until none fires; `fired` counts them by name."""
    for _ in range(LIMIT):
        before = graph.roots
        graph = _round(graph, rules, fired if fired is not None else Counter())
        if graph.roots == before:
            break
    return graph


def _round(graph: Graph, rules: Sequence[Rule], fired: Counter[str]) -> Graph:
    sight = Sight()
    new: dict[Node, Node] = {}
    existing: set[Node] = set()
    wrt = {n.operands[1] for n in graph.nodes if n.op == "grad"}
    for node in graph.nodes:
        result = with_operands(node, tuple(new[o] for o in node.operands))
        for _ in range(LIMIT):
            changed = _first(result, rules, sight, fired)
            if changed is None or changed is result:
                break
            graph.tables.inherit(changed, result)
            result = changed
        if node in wrt and result in existing:
            # rewritten into a value that others use too, it would count their uses in ∂y/∂x
            result = with_operands(node, tuple(new[o] for o in node.operands))
        new[node] = result
        existing.add(result)
        if node in wrt:
            sight.opaque = sight.opaque | {result}
        graph.tables.inherit(result, node)
        _inherit_inner(graph, result, node)
    return replace(
        graph,
        outputs={k: new[v] for k, v in graph.outputs.items()},
        updates={k: new[v] for k, v in graph.updates.items()},
    )


def _first(node: Node, rules: Sequence[Rule], sight: Sight, fired: Counter[str]) -> Node | None:
    for r in rules:
        result = r.apply(node, sight)
        if result is not None and result is not node:
            assert result.type == node.type, f"rule {r.name} changed the type of {node!r} to {result.type}"
            fired[r.name] += 1
            return result
    return None


def _inherit_inner(graph: Graph, result: Node, node: Node) -> None:
    """Nodes that a rule made inside its result come from the same lines as the node it replaced."""
    origins = graph.tables.origins.get(node, ())
    stack = list(result.operands) if result is not node else []
    while stack:
        inner = stack.pop()
        if inner not in graph.tables.origins:
            graph.tables.add_origin(inner, *origins)
            stack.extend(inner.operands)
