"""The values of a graph's nodes for given inputs, by NumPy, node by node, and how they are written in a picture.

A picture shows every value on the way, which compiled kernels never store; so the graph is evaluated here as it is
written. Elementwise operations, reductions and contractions are done by their rows' oracles; a formula over its whole
index space at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..errors import GraphError
from ..graph.formula import Affine, Clause, Formula, Index
from ..graph.graph import Graph
from ..graph.node import Node
from ..graph.scalar import Scalar, fold
from ..graph.size import Size
from ..ops.build import is_elementwise
from ..ops.scan import Scan
from ..ops.table import row_of
from .notation import number_text

Array = np.ndarray[Any, Any]
Sizes = Mapping[str, int]
MOST = 4
"""Rows and columns of an array that are written out; of a larger one the shape, least, mean and greatest value."""
_COMBINE = {"sum": np.add, "prod": np.multiply, "max": np.maximum, "min": np.minimum}


def evaluate(graph: Graph, values: Mapping[str, Array], sizes: Sizes) -> dict[Node, Array]:
    """The value of every node; `values` are the inputs, parameters and states by name."""
    found: dict[Node, Array] = {}
    loops: dict[Node, list[Array]] = {}
    with np.errstate(all="ignore"):
        for node in graph.nodes:
            operands = [found[o] for o in node.operands if o.op != "scan"]
            if node.op == "scan":
                loops[node] = _scan(Scan.of(node), operands, sizes)
                continue
            value = (
                loops[node.operands[0]][node.attr("index")]
                if node.op == "item"
                else _value(node, operands, values, sizes)
            )
            found[node] = np.asarray(value, node.dtype.numpy)
    return found


def _scan(scan: Scan, operands: list[Array], sizes: Sizes) -> list[Array]:
    """The results of a loop, run step by step."""
    body, n = scan.body, len(scan.init)
    step = body.graph("step")
    carries, xs, given = operands[:n], operands[n : n + len(scan.xs)], operands[n + len(scan.xs) :]
    before = [[c] for c in carries]
    gives: list[list[Array]] = [[] for _ in body.gives]
    order = range(scan.length.evaluate(sizes))
    for t in order[::-1] if scan.reverse else order:
        own = zip(body.inputs, (*carries, *(x[t] for x in xs), *given), strict=True)
        found = evaluate(step, {str(node.attr("name")): value for node, value in own}, sizes)
        carries = [found[r] for r in body.new_carries]
        for path, carry in zip(before, carries, strict=True):
            path.append(carry)
        for row, node in zip(gives, body.gives, strict=True):
            row.append(found[node])
    rows = [*gives, *(before[k] for k in scan.paths)]
    return [*carries, *(np.stack(r[::-1] if scan.reverse else r) for r in rows)]


def _value(node: Node, operands: list[Array], values: Mapping[str, Array], sizes: Sizes) -> Any:
    if node.op == "const":
        return node.attr("value").array
    if node.op == "size":
        return node.attr("value").evaluate(sizes)
    if node.op in ("input", "param", "state"):
        return values[node.attr("name")]
    if node.op == "formula":
        return _formula(node.attr("formula"), operands, node, sizes)
    oracle = row_of(node.op).oracle
    if oracle is None:
        raise GraphError(
            f"{node.op} cannot be evaluated for a picture", how="leave the inputs out to draw it without numbers"
        )
    if is_elementwise(node):
        return oracle(*operands)
    return oracle(*operands, **{name: _number(value, sizes) for name, value in node.attrs})


def _number(value: Any, sizes: Sizes) -> Any:
    if isinstance(value, Size):
        return value.evaluate(sizes)
    return tuple(_number(v, sizes) for v in value) if isinstance(value, tuple) else value


# -- formulas --------------------------------------------------------------------------------------------------------
def _formula(formula: Formula, operands: list[Array], node: Node, sizes: Sizes) -> Array:
    initial = 0 if formula.init is None else _scalar(formula.init, [], (), (), sizes)
    out = np.full(tuple(e.evaluate(sizes) for e in node.shape), initial, node.dtype.numpy)
    for clause in formula.clauses:
        _run(clause, formula.reduce, operands, out, sizes)
    return out


def _run(clause: Clause, reduce: str, operands: list[Array], out: Array, sizes: Sizes) -> None:
    """A clause over its box: every loop variable is an axis of the arrays of indices."""
    box = tuple(e.evaluate(sizes) for e in clause.box)
    grid = np.indices(box, sparse=True)
    taken = np.ones(box, bool)
    for guard in clause.guards:
        taken &= _affine(guard, grid, box, sizes) >= 0
    reads = []
    for read in clause.reads:
        array = operands[read.operand]
        cell = tuple(_index(i, grid, box, operands, sizes) for i in read.map)
        # outside the guards an index may lie outside the array: what is read there is not used
        reads.append(array[tuple(np.clip(c, 0, n - 1) for c, n in zip(cell, array.shape, strict=True))])
    body = np.broadcast_to(_scalar(clause.body, reads, grid, box, sizes), box)[taken]
    where = tuple(_index(i, grid, box, operands, sizes)[taken] for i in clause.write)
    if reduce == "assign":
        out[where] = body
    else:
        _COMBINE[reduce].at(out, where, body)


def _affine(form: Affine, grid: tuple[Array, ...], box: tuple[int, ...], sizes: Sizes) -> Array:
    total: Any = np.asarray(form.constant.evaluate(sizes))
    for axis, coefficient in form.terms:
        total = total + grid[axis] * coefficient.evaluate(sizes)
    return np.broadcast_to(total, box)


def _index(index: Index, grid: tuple[Array, ...], box: tuple[int, ...], operands: list[Array], sizes: Sizes) -> Array:
    if isinstance(index, Affine):
        return _affine(index, grid, box, sizes)
    array = operands[index.operand]
    cell = (_affine(i, grid, box, sizes) for i in index.map)
    return array[tuple(np.clip(c, 0, n - 1) for c, n in zip(cell, array.shape, strict=True))]


def _scalar(expression: Scalar, reads: list[Array], grid: Any, box: tuple[int, ...], sizes: Sizes) -> Any:
    def visit(e: Scalar, args: tuple[Any, ...]) -> Any:
        if e.op == "arg":
            value = reads[e.value]
        elif e.op == "const":
            value = e.value
        elif e.op == "index":
            value = _affine(e.value, grid, box, sizes)
        elif e.op == "size":
            value = e.value.evaluate(sizes)
        else:
            oracle = row_of(e.op).oracle
            assert oracle is not None
            value = oracle(*args)
        return np.asarray(value, e.dtype.numpy)

    return fold(expression, visit)


# -- text ------------------------------------------------------------------------------------------------------------
def array_text(array: Array) -> list[str]:
    """A scalar, a small vector or matrix in full, or what a larger array comes to; a line each."""
    if array.ndim == 0 or array.size == 1:
        return [number_text(array.reshape(-1)[0].item())]
    if array.ndim == 1 and array.size <= MOST:
        return [_row(array)]
    if array.ndim == 2 and max(array.shape) <= MOST and array.size:
        return [_row(row) for row in array]
    if not array.size:
        return ["empty"]
    shape = f"({', '.join(map(str, array.shape))})"
    if array.dtype.kind == "b":
        return [f"{shape}, {int(array.sum())} true"]
    low, high = number_text(array.min().item()), number_text(array.max().item())
    return [shape, f"{low} … {high}", f"mean {number_text(float(array.mean()))}"]


def _row(values: Array) -> str:
    return f"[{', '.join(number_text(v) for v in values.tolist())}]"
