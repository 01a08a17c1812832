"""The rewriting engine: named rules, applied bottom-up until none fires."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from ..graph.graph import Graph, with_operands
from ..graph.node import Node
from ..ops.scan import with_body

EXACT = "exact"
VALUE_CHANGING = "value-changing"
LIMIT = 50  # rounds; rules shrink or stabilise a graph, so few are needed
MOST_INSTANCES = 8  # of each rule that are kept to be proved


class Memo(dict[object, Node]):
    """What rules remember in one round over a graph, and what they may ask of it: who reads a node, and is it there?

    Rules see nodes over operands that this round has rewritten. What is told of such a node is what the graph had in its
    place before the round. So it serves to choose between forms that are both right, and no rule may need it to be.
    """

    def __init__(self, graph: Graph):
        super().__init__()
        self._readers: dict[Node, list[Node | None]] = {root: [None] for root in graph.roots}
        for node in graph.nodes:
            for operand in node.operands:
                self._readers.setdefault(operand, []).append(node)
        self._known = set(graph.nodes)
        self._before: dict[Node, Node] = {}

    def replace(self, old: Node, new: Node) -> None:
        """`new` stands from now on where `old` stood."""
        if new is not old:
            self._readers[new] = self._readers.get(new, []) + self._readers.get(old, [])
            self._known.add(new)
            self._before.setdefault(new, self._before.get(old, old))

    def readers(self, node: Node) -> list[Node | None]:
        """The nodes that read a node, each as often as it reads it; None stands for the caller of the graph. Empty for
        a node that a rule has just made."""
        return self._readers.get(node, [])

    def read_once(self, node: Node) -> bool:
        """Has a node one reader, so that it is gone if that reader does without it?"""
        return len(self.readers(node)) <= 1

    def before(self, node: Node) -> Node:
        """What stood in the place of a node before the round."""
        return self._before.get(node, node)

    def has(self, node: Node) -> bool:
        """Is the node computed anyway?"""
        return node in self._known


@dataclass(frozen=True)
class Rule:
    """A rewrite. kind: exact (the same bits, or the same up to the sign of a zero) or value-changing (the same
    function, other rounding). reason: why it holds, or is worth it."""

    name: str
    kind: str
    reason: str
    apply: Callable[[Node, Memo], Node | None]


def rule(name: str, kind: str, reason: str) -> Callable[[Callable[[Node, Memo], Node | None]], Rule]:
    """Make a rule of a function that gives the node to put in place, or None."""
    return lambda apply: Rule(name, kind, reason, apply)


@dataclass
class Firings:
    """Which rules fired: how often, and a few instances of each (the node before, the node after) to be proved."""

    counts: Counter[str] = field(default_factory=Counter)
    instances: dict[str, dict[tuple[Node, Node], None]] = field(default_factory=dict)

    def record(self, rule: Rule, before: Node, after: Node) -> None:
        self.counts[rule.name] += 1
        kept = self.instances.setdefault(rule.name, {})
        if len(kept) < MOST_INSTANCES:
            kept[before, after] = None


def rewrite(graph: Graph, rules: Sequence[Rule], fired: Firings | None = None) -> Graph:
    """Apply rules until none fires, to the steps of loops too; `fired` records which did."""
    bodies: dict[Node, Node] = {}
    for _ in range(LIMIT):
        before = graph.roots
        graph = _round(graph, rules, fired, bodies)
        if graph.roots == before:
            break
    return graph


def _round(graph: Graph, rules: Sequence[Rule], fired: Firings | None, bodies: dict[Node, Node]) -> Graph:
    """bodies: loops whose steps are rewritten already, before → after."""
    memo = Memo(graph)

    def change(node: Node, operands: tuple[Node, ...]) -> Node:
        result = with_operands(node, operands)
        memo.replace(node, result)
        if result.op == "scan":
            if result not in bodies:
                done = with_body(result, lambda step: rewrite(step, rules, fired), graph.tables)
                bodies[result] = bodies[done] = done
            return bodies[result]
        for _ in range(LIMIT):
            changed = _first(result, rules, memo, fired)
            if changed is None:
                break
            graph.tables.inherit(changed, result)
            memo.replace(result, changed)
            result = changed
        _inherit_inner(graph, result, node)
        return result

    return graph.rewrite(change)


def _first(node: Node, rules: Sequence[Rule], memo: Memo, fired: Firings | None) -> Node | None:
    for r in rules:
        result = r.apply(node, memo)
        if result is not None and result is not node:
            assert result.type == node.type, f"rule {r.name} changed the type of {node!r} to {result.type}"
            if fired is not None:
                fired.record(r, node, result)
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
