"""One check of every invariant of a graph, run between passes."""

from __future__ import annotations

from ..errors import GraphcError, GraphError
from ..graph.graph import Graph
from ..graph.node import Node, TupleType, size_names
from .leaves import LEAVES
from .row import Fit
from .table import ROWS


def verify(graph: Graph, *, stage: str = "", expanded: bool = False) -> None:
    """Raise GraphError at the first node whose operation, operands, type or place is wrong, in bodies of loops too.

    expanded: gradients must have been expanded.
    """
    _verify(graph, set(graph.sizes()), f" after {stage}" if stage else "", expanded)


def _verify(graph: Graph, known: set[str], after: str, expanded: bool) -> None:
    import networkx as nx  # loaded by those who check, not by those who compile

    if not nx.is_directed_acyclic_graph(graph.nx):
        raise GraphError(f"the graph {graph.name} has a cycle{after}")
    for node in graph.nodes:
        message = _fault(node, expanded)
        if message:
            raise GraphError(f"{message}{after}: {node!r}", where=graph.tables.source(node))
    declared = set(graph.inputs)
    for node in graph.nodes:
        if node.op == "input" and node not in declared:
            raise GraphError(f"the input {node.attr('name')!r} is used but not declared{after}")
    for node in graph.nodes:
        missing = size_names(node) - known
        if missing and node.op != "state":
            raise GraphError(
                f"the size {sorted(missing)[0]!r} is not a size of any input{after}: {node!r}",
                where=graph.tables.source(node),
                how="name it in the shape of an input",
            )
    for node in graph.nodes:
        if node.op == "scan":
            inside = node.attr("body").graph(f"{graph.name}/scan", graph.tables)
            for inner in inside.nodes:
                if inner.op in ("param", "state"):
                    raise GraphError(f"a step reads {inner!r}, which is no input of it{after}")
            _verify(inside, known, after, expanded)


def _fault(node: Node, expanded: bool) -> str | None:
    row = ROWS.get(node.op)
    if row is None:
        return f"there is no operation {node.op!r}"
    if expanded and node.op == "grad":
        return "a gradient was left unexpanded"
    if node.op != "item" and any(isinstance(o.type, TupleType) for o in node.operands):
        return "it takes all results of an operand, not one of them"
    if node.op in LEAVES:
        return None if not node.operands else "a leaf has operands"
    try:
        inferred = row.infer([o.type for o in node.operands], dict(node.attrs), Fit())
    except GraphcError as error:
        return f"the operands do not fit: {error.what}"
    except KeyError as error:
        return f"an attribute is missing: {error}"
    if inferred != node.type:
        return f"the type is {node.type}, the operation gives {inferred}"
    formula = row.formula(node)
    if formula is not None:
        for clause in formula.clauses:
            if len(clause.write) != node.type.rank:
                return "a clause writes another number of axes than the value has"
            for read in clause.reads:
                if read.operand >= len(node.operands) or len(read.map) != node.operands[read.operand].type.rank:
                    return f"the read {read} does not fit its operand"
    return None
