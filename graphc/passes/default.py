"""The passes in their order, with the reason for each place."""

from __future__ import annotations

from ..graph.graph import Graph
from . import algebra, fold, linear, loops, parts
from . import stabilise as stable
from .rewrite import LIMIT, Firings, Rule, rewrite

# stop_gradient counts until gradients are expanded, so the rule that drops it comes after
CANONICAL: tuple[Rule, ...] = (*fold.RULES, algebra.compose_movements, algebra.commutative)
STABILISE: tuple[Rule, ...] = stable.RULES
OPTIMISE: tuple[Rule, ...] = (*fold.RULES, *algebra.RULES, *linear.RULES, *parts.RULES)


def canonicalise(graph: Graph, fired: Firings | None = None) -> Graph:
    """Constants folded and movements composed: the form in which the stabilising rules look for patterns."""
    return rewrite(graph, CANONICAL, fired)


def stabilise(graph: Graph, fired: Firings | None = None) -> Graph:
    """Overflowing formulas in stable form: before gradients are expanded, so that they are stable too."""
    return rewrite(graph, STABILISE, fired)


def optimise(graph: Graph, fired: Firings | None = None) -> Graph:
    """Constants, algebra and common subexpressions: last, since derivatives bring products with 1 and sums of equal terms."""
    for _ in range(LIMIT):
        before = graph.roots
        # loops first: what they hold twice, a loop and the same one with more results, is simplified once
        graph = rewrite(loops.simplify_loops(graph, fired), OPTIMISE, fired)
        if graph.roots == before or not any(node.op == "scan" for node in graph.nodes):
            break
    return graph


ALL_RULES: dict[str, Rule] = {r.name: r for r in (*STABILISE, *loops.RULES, loops.MERGE, *OPTIMISE)}
