"""Graphs evaluated in 50-digit arithmetic, from the rows' mathematics and NumPy's movements of elements.

It shares nothing with the compiler behind the graph: no formulas, no kernels, no partial derivatives.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache, lru_cache
from math import prod
from typing import Any

import mpmath as mp
import numpy as np
import sympy as sp
from mpmath import libmp

from ..graph import scalar as sc
from ..graph.formula import Affine, Clause, Index
from ..graph.node import Constant, Node, postorder
from ..graph.scalar import Scalar
from ..ops.elementwise import ROWS
from ..ops.random import random_bits
from ..ops.scan import Scan

DIGITS = 80  # 50, and some to lose in differences

Array = np.ndarray[Any, np.dtype[Any]]


class NoExactValue(Exception):
    """The operation is none of those that are known here."""


@cache
def function_of(name: str) -> Callable[..., Any]:
    """An elementwise operation on mpmath numbers, from its mathematics."""
    row = ROWS[name]
    return sp.lambdify(row.symbols, row.expression, modules="mpmath")


def evaluate(roots: list[Node], leaves: Mapping[Node, Array], sizes: Mapping[str, int]) -> dict[Node, Array]:
    """The values of all nodes that the roots need, as arrays of mpmath numbers, ints and bools.

    leaves: values to be taken as given, of inputs and variables, or of any node.
    """
    values: dict[Node, Array] = {n: np.array(v, dtype=object) for n, v in leaves.items()}
    loops: dict[Node, list[Array]] = {}
    with mp.workdps(DIGITS):
        for node in postorder(roots, set(values)):
            if node.op == "scan":
                loops[node] = _scan(Scan.of(node), [values[o] for o in node.operands], sizes)
            elif node.op == "item":
                values[node] = loops[node.operands[0]][node.attr("index")]
            else:
                values[node] = _value(node, [values[o] for o in node.operands], sizes)
    return values


def _scan(scan: Scan, x: list[Array], sizes: Mapping[str, int]) -> list[Array]:
    """The results of a loop, run step by step."""
    body, steps = scan.body, scan.length.evaluate(sizes)
    n, m = len(scan.init), len(scan.init) + len(scan.xs)
    carries, given = x[:n], dict(zip(body.given, x[m:], strict=True))
    rows: list[list[Array]] = [[] for _ in body.gives]
    paths = [[carries[k]] for k in scan.paths]
    for t in range(steps)[:: -1 if scan.reverse else 1]:
        own = dict(zip((*body.carries, *body.elements), (*carries, *(np.array(a[t], dtype=object) for a in x[n:m])), strict=True))
        found = evaluate(list(body.results), {**own, **given}, sizes)
        carries = [found[r] for r in body.new_carries]
        for row, result in zip(rows, body.gives, strict=True):
            row.append(found[result])
        for path, k in zip(paths, scan.paths, strict=True):
            path.append(carries[k])
    back = slice(None, None, -1 if scan.reverse else 1)
    stacks = [_stacked(row[back], node, sizes) for row, node in zip(rows, body.gives, strict=True)]
    return [*carries, *stacks, *(_stacked(p[back], body.carries[k], sizes) for p, k in zip(paths, scan.paths, strict=True))]


def _stacked(rows: list[Array], node: Node, sizes: Mapping[str, int]) -> Array:
    result = np.empty((len(rows), *_shape(node, sizes)), dtype=object)
    for t, row in enumerate(rows):
        result[t] = row
    return result


def numbers(array: Any) -> Array:
    """An array of Python or NumPy numbers as exact ones."""
    given = np.asarray(array)
    if given.dtype.kind == "f":
        return _each(lambda v: mp.make_mpf(libmp.from_float(float(v))), given)
    convert = bool if given.dtype.kind == "b" else int
    return _each(lambda v: v if isinstance(v, mp.mpf) else convert(v), given)


@lru_cache(64)
def _constant(constant: Constant) -> Array:
    return numbers(constant.array)


def dyadic(numerators: Any, exponent: int) -> Array:
    """The exact numbers n · 2^exponent of some integers."""
    return _each(lambda n: mp.make_mpf(libmp.from_man_exp(n, exponent)), np.asarray(numerators, dtype=object))


def _each(function: Callable[..., Any], *arrays: Array) -> Array:
    with np.errstate(all="ignore"):  # NumPy tells of NaN in arrays of objects too
        result = np.frompyfunc(function, len(arrays), 1)(*arrays)
    return np.array(result, dtype=object)


def _shape(node: Node, sizes: Mapping[str, int]) -> tuple[int, ...]:
    return tuple(e.evaluate(sizes) for e in node.shape)


def _value(node: Node, x: list[Array], sizes: Mapping[str, int]) -> Array:
    op = node.op
    if op == "const":
        return _constant(node.attr("value"))
    if op == "size":
        return np.array(_number(node.attr("value").evaluate(sizes), node), dtype=object)
    if op == "cast":
        return _each(lambda v: _number(v, node), x[0])
    if op in ROWS:
        return np.array(_each(function_of(op), *np.broadcast_arrays(*x)), dtype=object).reshape(_shape(node, sizes))
    if op in _MOVES:
        return np.array(_MOVES[op](node, x, sizes), dtype=object).reshape(_shape(node, sizes))
    if op == "einsum":
        return _einsum(node, x, sizes)
    if op == "formula":
        return _formula(node, x, sizes)
    raise NoExactValue(f"{op} has no value in exact arithmetic")


def _number(value: Any, node: Node) -> Any:
    """A number in a node's kind: exact, integer (towards zero) or bool."""
    return mp.mpf(value) if node.dtype.is_float else bool(value) if node.dtype.kind == "b" else int(value)


def _reduced(node: Node, x: Array, function: Callable[[Array], Any]) -> Array:
    """A reduction applied to the elements along the node's axes, in row-major order."""
    axes = node.attr("axes")
    kept = [d for d in range(x.ndim) if d not in axes]
    count = int(np.prod([x.shape[d] for d in axes], dtype=int))
    return _each_last(np.transpose(x, [*kept, *axes]).reshape(*(x.shape[d] for d in kept), count), function)


def _slice(node: Node, x: Array, sizes: Mapping[str, int]) -> Array:
    for axis, (start, step) in enumerate(zip(node.attr("start"), node.attr("step"), strict=True)):
        first, by = start.evaluate(sizes), step.evaluate(sizes)
        x = np.take(x, [first + by * i for i in range(node.shape[axis].evaluate(sizes))], axis)
    return x


_MOVES: dict[str, Callable[[Node, list[Array], Mapping[str, int]], Any]] = {
    "sum": lambda n, x, s: _reduced(n, x[0], lambda v: mp.fsum(v) if n.dtype.is_float else sum(v)),
    "max": lambda n, x, s: _reduced(n, x[0], max),
    "min": lambda n, x, s: _reduced(n, x[0], min),
    "argmax": lambda n, x, s: _reduced(n, x[0], lambda v: max(range(len(v)), key=lambda i: (v[i], -i))),
    "reshape": lambda n, x, s: x[0].reshape(_shape(n, s)),
    "transpose": lambda n, x, s: np.transpose(x[0], n.attr("perm")),
    "broadcast_to": lambda n, x, s: np.broadcast_to(x[0], _shape(n, s)),
    "slice": lambda n, x, s: _slice(n, x[0], s),
    "concat": lambda n, x, s: np.concatenate(x, n.attr("axis")),
    "take": lambda n, x, s: np.take(x[0], x[1].astype(int), n.attr("axis")),
    "take_along": lambda n, x, s: np.take_along_axis(x[0], x[1].astype(int), n.attr("axis")),
    "arange": lambda n, x, s: [
        n.attr("start").evaluate(s) + n.attr("step").evaluate(s) * i for i in range(_shape(n, s)[0])
    ],
    "random": lambda n, x, s: random_bits(int(x[0].item()), np.arange(prod(_shape(n, s))).reshape(_shape(n, s))).astype(object),
    "within": lambda n, x, s: np.arange(_shape(n, s)[0])[:, None] <= x[0][None, :].astype(int),
}


def _einsum(node: Node, x: list[Array], sizes: Mapping[str, int]) -> Array:
    """A contraction. Finite numbers are dyadic, so it is done in integers, without any rounding, and rounded once."""
    spec = node.attr("spec")
    scaled = [_as_integers(a) for a in x] if node.dtype.is_float else [(a, 0) for a in x]
    if any(s is None for s in scaled):  # an infinity or a NaN
        return np.array(np.einsum(spec, *x), dtype=object)
    integers, exponents = zip(*(s for s in scaled if s is not None), strict=True)
    total = np.array(np.einsum(spec, *integers), dtype=object)
    if not node.dtype.is_float:
        return total
    exponent, precision = sum(exponents), mp.mp.prec
    return _each(lambda v: mp.make_mpf(libmp.from_man_exp(v, exponent, precision, "n")), total)


WIDEST = 20_000  # bits between the largest and the smallest number that are still brought to one exponent


def _as_integers(a: Array) -> tuple[Array, int] | None:
    """(integers, e) with a = integers · 2^e; None where a number is not finite, or the exponents lie far apart."""
    parts = []
    for v in a.ravel():
        if isinstance(v, int):
            parts.append((v, 0))
            continue
        if not isinstance(v, mp.mpf):
            return None
        sign, mantissa, exponent, _ = v._mpf_
        if not mantissa and exponent:
            return None
        parts.append((-mantissa if sign else mantissa, exponent))
    exponents = [e for m, e in parts if m]
    lowest = min(exponents, default=0)
    if exponents and max(exponents) - lowest > WIDEST:
        return None
    result = np.empty(len(parts), dtype=object)
    result[:] = [m << (e - lowest) if m else 0 for m, e in parts]
    return result.reshape(a.shape), lowest


def _each_last(a: Array, function: Callable[[Array], Any]) -> Array:
    """A function applied to the elements along the last axis."""
    result = np.empty(a.shape[:-1], dtype=object)
    for place in np.ndindex(result.shape):
        result[place] = function(a[place])
    return result


def _formula(node: Node, x: list[Array], sizes: Mapping[str, int]) -> Array:
    """A generic formula, point by point, as its definition reads."""
    formula = node.attr("formula")
    result = np.full(_shape(node, sizes), None, dtype=object)
    for clause in formula.clauses:
        for point in np.ndindex(*(e.evaluate(sizes) for e in clause.box)):
            if all(_index(g, point, x, sizes) >= 0 for g in clause.guards):
                value = _body(clause, point, x, sizes)
                place = tuple(_index(i, point, x, sizes) for i in clause.write)
                before = result[place]
                result[place] = value if before is None or formula.reduce == "assign" else before + value
    if formula.init is not None:
        result[result == None] = _number(formula.init.value, node)  # noqa: E711 - elementwise
    return result


def _index(index: Index, point: tuple[int, ...], x: list[Array], sizes: Mapping[str, int]) -> int:
    if isinstance(index, Affine):
        return index.constant.evaluate(sizes) + sum(c.evaluate(sizes) * point[a] for a, c in index.terms)
    return int(x[index.operand][tuple(_index(m, point, x, sizes) for m in index.map)])


def _body(clause: Clause, point: tuple[int, ...], x: list[Array], sizes: Mapping[str, int]) -> Any:
    def visit(e: Scalar, args: tuple[Any, ...]) -> Any:
        if e.op == "arg":
            read = clause.reads[e.value]
            return x[read.operand][tuple(_index(i, point, x, sizes) for i in read.map)]
        if e.op == "const":
            return mp.mpf(e.value) if e.dtype.is_float else e.value
        if e.op == "index":
            return _index(e.value, point, x, sizes)
        if e.op == "size":
            return e.value.evaluate(sizes)
        if e.op == "cast":
            return mp.mpf(args[0]) if e.dtype.is_float else int(args[0])
        return function_of(e.op)(*args)

    return sc.fold(clause.body, visit)
