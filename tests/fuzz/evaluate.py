"""An evaluator of graphs that shares nothing with the compiler but the rows' oracles: NumPy, node by node, in float64.

Formula nodes, which have no oracle, are run as they are defined: a Python loop over the box, clause by clause.
"""
from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from graphc.graph.formula import Affine, Clause, Formula, Index
from graphc.graph.graph import Graph
from graphc.graph.node import Node
from graphc.graph.scalar import Scalar
from graphc.graph.size import Size
from graphc.ops.elementwise import ROWS as ELEMENTWISE
from graphc.ops.leaves import LEAVES
from graphc.ops.scan import Scan
from graphc.ops.table import ROWS

Array = np.ndarray
COMBINE = {"sum": lambda old, new: old + new, "prod": lambda old, new: old * new, "max": np.maximum, "min": np.minimum}


class Wrong(AssertionError):
    """A node whose value is not of the node's type, or that reads outside its operand."""


def evaluate(graph: Graph, values: Mapping[str, Array], sizes: Mapping[str, int]) -> tuple[dict[str, Array], dict[str, Array]]:
    """(outputs, updates) of a graph; `values` are the inputs, parameters and states by name."""
    found = node_values(graph, values, sizes)
    return {n: found[v] for n, v in graph.outputs.items()}, {n.attr("name"): found[v] for n, v in graph.updates.items()}


def node_values(graph: Graph, values: Mapping[str, Array], sizes: Mapping[str, int]) -> dict[Node, Array]:
    """The value of every node of a graph."""
    found: dict[Node, Array] = {}
    with np.errstate(all="ignore"):
        for node in graph.nodes:
            if node.op == "scan":
                found[node] = scan_value(Scan.of(node), [found[o] for o in node.operands], sizes)
                continue
            value = np.asarray(node_value(node, [found[o] for o in node.operands], values, sizes), node.dtype.numpy)
            expected = tuple(e.evaluate(sizes) for e in node.shape)
            if value.shape != expected:
                raise Wrong(f"{node!r} has the shape {value.shape}, its type says {expected}")
            found[node] = value
    return found


def node_value(node: Node, operands: list[Array], values: Mapping[str, Array], sizes: Mapping[str, int]) -> Any:
    """The value of one node."""
    if node.op == "const":
        return node.attr("value").array
    if node.op == "size":
        return node.attr("value").evaluate(sizes)
    if node.op in LEAVES:
        return values[node.attr("name")]
    if node.op == "item":
        return operands[0][node.attr("index")]
    if node.op == "formula":
        return formula_value(node.attr("formula"), operands, node, sizes)
    oracle = ROWS[node.op].oracle
    assert oracle is not None, f"{node.op} has no oracle"
    if node.op in ELEMENTWISE:
        return oracle(*operands)
    return oracle(*operands, **{name: _number(value, sizes) for name, value in node.attrs})


def scan_value(scan: Scan, operands: list[Array], sizes: Mapping[str, int]) -> list[Array]:
    """The results of a loop: its step evaluated as a graph of its own, again and again."""
    n, m, length = len(scan.init), len(scan.init) + len(scan.xs), scan.length.evaluate(sizes)
    step = scan.body.graph("step")
    names = [i.attr("name") for i in step.inputs]
    carries, given = operands[:n], operands[m:]
    seen: list[Any] = [None] * length
    paths = [carries]
    for t in reversed(range(length)) if scan.reverse else range(length):
        results = list(evaluate(step, dict(zip(names, [*carries, *(x[t] for x in operands[n:m]), *given], strict=True)), sizes)[0].values())
        carries, seen[t] = results[:n], results[n:]
        paths.append(carries)
    shapes = [(0, *(e.evaluate(sizes) for e in y.shape)) for y in scan.body.gives]
    stacks = [np.stack([row[j] for row in seen]) if length else np.zeros(s) for j, s in enumerate(shapes)]
    order = paths[::-1] if scan.reverse else paths
    return [*carries, *stacks, *(np.stack([p[k] for p in order]) for k in scan.paths)]


def _number(value: Any, sizes: Mapping[str, int]) -> Any:
    if isinstance(value, Size):
        return value.evaluate(sizes)
    return tuple(_number(v, sizes) for v in value) if isinstance(value, tuple) else value


def formula_value(formula: Formula, operands: list[Array], node: Node, sizes: Mapping[str, int]) -> Array:
    """out[γ(p)] ⊕= f(A[α(p)], …), point by point."""
    shape = tuple(e.evaluate(sizes) for e in node.shape)
    assert formula.reduce in ("assign", *COMBINE), formula.reduce
    assert formula.init is not None or formula.reduce == "assign"
    initial = scalar_value(formula.init, (), [], sizes) if formula.init is not None else None
    out = np.full(shape, 0 if initial is None else initial, node.dtype.numpy)
    written = np.zeros(shape, bool)
    for clause in formula.clauses:
        for p in np.ndindex(*(e.evaluate(sizes) for e in clause.box)):
            if all(affine_value(g, p, sizes) >= 0 for g in clause.guards):
                _point(clause, formula.reduce, p, operands, out, written, sizes)
    if initial is None and not written.all():
        raise Wrong(f"{node!r} leaves {(~written).sum()} cells unwritten, and has no initial value")
    return out


def _point(clause: Clause, reduce: str, p: tuple[int, ...], operands: list[Array], out: Array, written: Array, sizes: Mapping[str, int]) -> None:
    reads = [_cell(operands[r.operand], tuple(_index(i, p, operands, sizes) for i in r.map)) for r in clause.reads]
    value = scalar_value(clause.body, p, reads, sizes)
    cell = tuple(_index(i, p, operands, sizes) for i in clause.write)
    _cell(out, cell)
    if reduce == "assign" and written[cell]:
        raise Wrong(f"a formula assigns the cell {cell} twice")
    out[cell] = value if reduce == "assign" else COMBINE[reduce](out[cell], value)
    written[cell] = True


def _cell(array: Array, cell: tuple[int, ...]) -> Any:
    if len(cell) != array.ndim or not all(0 <= i < n for i, n in zip(cell, array.shape, strict=True)):
        raise Wrong(f"the cell {cell} is outside an array of the shape {array.shape}")
    return array[cell]


def _index(index: Index, p: tuple[int, ...], operands: list[Array], sizes: Mapping[str, int]) -> int:
    if isinstance(index, Affine):
        return affine_value(index, p, sizes)
    return int(_cell(operands[index.operand], tuple(affine_value(i, p, sizes) for i in index.map)))


def affine_value(form: Affine, p: tuple[int, ...], sizes: Mapping[str, int]) -> int:
    """An affine form at a point of the box."""
    return form.constant.evaluate(sizes) + sum(c.evaluate(sizes) * p[axis] for axis, c in form.terms)


def scalar_value(expression: Scalar, p: tuple[int, ...], reads: list[Any], sizes: Mapping[str, int]) -> Any:
    """A scalar expression at a point of the box, by the oracles of its operations."""
    memo: dict[Scalar, Any] = {}

    def visit(e: Scalar) -> Any:
        if e not in memo:
            memo[e] = compute(e)
        return memo[e]

    def compute(e: Scalar) -> Any:
        if e.op == "arg":
            value = reads[e.value]
        elif e.op == "const":
            value = e.value
        elif e.op == "index":
            value = affine_value(e.value, p, sizes)
        elif e.op == "size":
            value = e.value.evaluate(sizes)
        else:
            oracle = ELEMENTWISE[e.op].oracle
            assert oracle is not None
            value = oracle(*(visit(a) for a in e.args))
        return e.dtype.numpy.type(np.asarray(value)[()])

    return visit(expression)
