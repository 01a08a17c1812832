"""Contractions before lowering: each becomes a product of two operands whose axes a matrix product can take."""

from __future__ import annotations

from collections.abc import Callable

from ..graph.graph import Graph
from ..graph.node import Node
from ..ops import build
from ..ops.contract import split_spec
from .products import as_product
from .statements import Statements


def canonical_contractions(graph: Graph) -> tuple[Graph, frozenset[Node]]:
    """The graph with contractions in pairs, and the operands that must be stored as they are.

    An index of one operand alone is summed first. Where the axes of an operand do not merge into rows and columns it
    is transposed into an array of its own.
    """
    graph = graph.rewrite(_rewritten(lambda node: _presummed(_paired(node))))
    statements = Statements(graph)
    awkward: set[Node] = set()
    for node in graph.nodes:
        if node.op == "einsum" and node.dtype.is_float and len(node.operands) == 2 and _is_contraction(node):
            (statement,) = statements.of(node)
            if as_product(statement) is None:
                awkward.add(node)
    if not awkward:
        return graph, frozenset()
    stored: set[Node] = set()

    def change(node: Node, operands: tuple[Node, ...]) -> Node:
        new = Node(node.op, operands, node.type, **dict(node.attrs))
        return _laid_out(new, stored) if node in awkward else new

    return graph.rewrite(change), frozenset(stored)


def _rewritten(change: Callable[[Node], Node]) -> Callable[[Node, tuple[Node, ...]], Node]:
    return lambda node, operands: change(Node(node.op, operands, node.type, **dict(node.attrs)))


def _paired(node: Node) -> Node:
    """Three operands and more, two at a time from the left."""
    if node.op != "einsum" or len(node.operands) <= 2:
        return node
    inputs, output = split_spec(node.attr("spec"))
    value, letters = node.operands[0], inputs[0]
    for k in range(1, len(inputs)):
        last = k == len(inputs) - 1
        later = set("".join(inputs[k + 1 :])) | set(output)
        kept = output if last else "".join(dict.fromkeys(c for c in letters + inputs[k] if c in later))
        value = _presummed(build.einsum(f"{letters},{inputs[k]}->{kept}", value, node.operands[k]))
        letters = kept
    return value


def _presummed(node: Node) -> Node:
    """Indices that only one operand has, and the output has not, summed in that operand."""
    if node.op != "einsum" or len(node.operands) != 2:
        return node
    inputs, output = split_spec(node.attr("spec"))
    operands = list(node.operands)
    for k in (0, 1):
        alone = [c for c in inputs[k] if c not in inputs[1 - k] and c not in output]
        if alone and len(set(inputs[k])) == len(inputs[k]):
            operands[k] = build.reduce("sum", operands[k], [inputs[k].index(c) for c in alone])
            inputs[k] = "".join(c for c in inputs[k] if c not in alone)
    return build.einsum(f"{','.join(inputs)}->{output}", *operands) if operands != list(node.operands) else node


def _is_contraction(node: Node) -> bool:
    """Is there an index to sum over, are there rows or columns, and are the letters of each operand distinct?"""
    inputs, output = split_spec(node.attr("spec"))
    distinct = all(len(set(i)) == len(i) for i in inputs)
    return distinct and any(c not in output for c in inputs[0]) and set(inputs[0]) != set(inputs[1])


def _laid_out(node: Node, stored: set[Node]) -> Node:
    """The contraction over operands transposed to (batch, rows, inner) and (batch, inner, columns)."""
    (a, b), output = split_spec(node.attr("spec"))
    batch = [c for c in output if c in a and c in b]
    rows = [c for c in output if c in a and c not in b]
    columns = [c for c in output if c in b and c not in a]
    inner = [c for c in a if c in b and c not in output]
    left = build.transpose(node.operands[0], [a.index(c) for c in batch + rows + inner])
    right = build.transpose(node.operands[1], [b.index(c) for c in batch + inner + columns])
    stored |= {left, right}
    result = build.einsum(
        f"{''.join(batch + rows + inner)},{''.join(batch + inner + columns)}->{''.join(batch + rows + columns)}",
        left,
        right,
    )
    order = batch + rows + columns
    return build.transpose(result, [order.index(c) for c in output])
