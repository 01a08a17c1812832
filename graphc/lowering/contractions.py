"""Contractions before lowering: each becomes a product of two operands whose axes a matrix product can take."""

from __future__ import annotations

import itertools
from collections import ChainMap
from collections.abc import Callable, Iterator
from copy import copy
from dataclasses import dataclass

from ..graph.graph import Graph
from ..graph.node import Node
from ..ops import build
from ..ops.contract import split_spec
from ..ops.table import row_of
from .products import as_product
from .statements import Statements

UNKNOWN = 1024
"""What a size is taken for that only the call will tell, where the elements of two copies are compared."""


def canonical_contractions(graph: Graph) -> Statements:
    """The statements of the graph with contractions in pairs.

    An index of one operand alone is summed first. Where the axes of an operand do not merge into rows and columns it
    is transposed into an array of its own.
    """
    graph = graph.rewrite(_rewritten(lambda node: _presummed(_paired(node))))
    statements = Statements(graph)
    awkward = {node for node in graph.nodes if _is_contraction(node) and as_product(*statements.of(node)) is None}
    if not awkward:
        return statements
    stored: set[Node] = set()

    def change(node: Node, operands: tuple[Node, ...]) -> Node:
        new = Node(node.op, operands, node.type, **dict(node.attrs))
        return _laid_out(new, stored, statements, node) if node in awkward else new

    statements = Statements(graph.rewrite(change))
    statements.stored.update((statements.source(node), True) for node in stored)
    return statements


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
    """Does it sum over an index of two operands, are there rows or columns, and are the letters of each distinct?"""
    if node.op != "einsum" or not node.dtype.is_float or len(node.operands) != 2:
        return False
    inputs, output = split_spec(node.attr("spec"))
    distinct = all(len(set(i)) == len(i) for i in inputs)
    return distinct and any(c not in output for c in inputs[0]) and set(inputs[0]) != set(inputs[1])


@dataclass(frozen=True)
class _Layout:
    """A contraction by the letters in which it reads its operands and writes its result; see `_layouts`."""

    left: str
    right: str
    out: str


def _layouts(a: str, b: str, output: str) -> Iterator[_Layout]:
    """Layouts with each operand and the result as they are, or as a batch of matrices."""
    for keep_a, keep_b, keep_out in itertools.product((True, False), repeat=3):
        batch = "".join(c for c in output if c in a and c in b)
        rows = "".join(c for c in (output if keep_out else a) if c in a and c not in b)
        columns = "".join(c for c in (output if keep_out else b) if c in b and c not in a)
        inner = "".join(c for c in (b if keep_b and not keep_a else a) if c in a and c in b and c not in output)
        yield _Layout(
            a if keep_a else batch + _ending_alike(a, rows, inner),
            b if keep_b else batch + _ending_alike(b, inner, columns),
            output if keep_out else batch + _ending_alike(output, rows, columns),
        )


def _ending_alike(letters: str, x: str, y: str) -> str:
    """Two groups of letters with that last which holds the last of `letters`: whole rows are copied then."""
    return y + x if letters[-1] in x else x + y


def _laid_out(node: Node, stored: set[Node], statements: Statements, old: Node) -> Node:
    """The contraction as a matrix product, of whose operands and result as little as possible is copied.

    stored: the operands that are transposed into arrays are added to it. old: the contraction in the graph of `statements`.
    """
    (a, b), output = split_spec(node.attr("spec"))
    best: tuple[int, _Layout, bool] | None = None
    for swapped in (False, True):
        first, second = (b, a) if swapped else (a, b)
        for layout in _layouts(first, second, output):
            made, copied = _contracted(old, layout, swapped)
            _, anew = _contracted(node, layout, swapped)
            elements = 0 if layout.out == output else _elements(made)
            for x, new in zip(copied, anew, strict=True):  # what is there already costs nothing
                there = new in stored or x in statements.formulas and statements.is_stored(x)
                elements += 0 if there else _elements(x)
            if (best is None or elements < best[0]) and _is_product(made, copied, statements):
                best = elements, layout, swapped
    if best is None:  # nothing is summed over an axis of more than one element: a loop does it
        return node
    _, layout, swapped = best
    result, copied = _contracted(node, layout, swapped)
    stored.update(copied)
    return build.transpose(result, [layout.out.index(c) for c in output])


def _contracted(node: Node, layout: _Layout, swapped: bool) -> tuple[Node, list[Node]]:
    """(the contraction in a layout, the operands that it has transposed)"""
    inputs, _ = split_spec(node.attr("spec"))
    operands, copied = [], []
    for number, letters in zip((1, 0) if swapped else (0, 1), (layout.left, layout.right), strict=True):
        operand, given = node.operands[number], inputs[number]
        if letters != given:
            operand = _transposed(operand, [given.index(c) for c in letters])
            copied.append(operand)
        operands.append(operand)
    return build.einsum(f"{layout.left},{layout.right}->{layout.out}", *operands), copied


def _transposed(x: Node, perm: list[int]) -> Node:
    """A transpose, of what x is a transpose of: it may be there already."""
    while x.op == "transpose":
        perm = [x.attr("perm")[axis] for axis in perm]
        (x,) = x.operands
    return build.transpose(x, perm)


def _elements(node: Node) -> int:
    count = node.type.numel
    return count.evaluate(dict.fromkeys(count.names, UNKNOWN))


def _is_product(node: Node, copied: list[Node], statements: Statements) -> bool:
    """Would a contraction be a matrix product if some of its operands were arrays of their own?"""
    supposed = copy(statements)
    supposed.formulas = ChainMap({n: row_of(n.op).formula(n) for n in (node, *copied)}, statements.formulas)
    supposed.stored = ChainMap(dict.fromkeys(map(statements.source, copied), True), statements.stored)
    supposed.made = {}
    return as_product(*supposed.of(node)) is not None
