"""Each operation's generated adjoint against the derivative of its index form.

What the deriver builds for Σ ȳ[o] ∂y[o]/∂A[q] is read as an index form, and compared with the derivative that SymPy
takes of the operation's own index form. Where the two are seen to be one expression, for all sizes, the adjoint is
PROVED; where they cannot be brought to one form it is EXACT if they agree in 50-digit arithmetic at random points.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import mpmath as mp
import numpy as np
import sympy as sp

from ..derivatives.reverse import gradients, pullback
from ..derivatives.support import Support
from ..errors import GraphcError
from ..graph.dtype import DType, f32, f64
from ..graph.graph import Graph
from ..graph.node import Node, TensorType, postorder
from ..graph.size import Size, size
from ..ops import build
from ..ops.leaves import LEAVES
from ..ops.row import Fit
from ..ops.scan import Scan, item
from ..ops.table import ROWS
from . import exact
from .certificate import EXACT, FAILED, ORDER, PROVED, UNPROVED, Finding
from .index_form import IndexForms, NoIndexForm, Term, same, symbol_of, variable
from .sizes import drawn, guards_of

# operations whose attributes hold no sizes: they are proved with every size a symbol
_GENERAL = ("sum", "max", "min", "einsum", "transpose", "take", "take_along", "concat")
_NOT_DERIVED = (*LEAVES, "grad", "argmax", "arange", "item")
ILL_FORMED = (ValueError, IndexError, KeyError, AssertionError)  # what evaluating a graph may raise that is none
POINTS = 3  # random points of an exact check


def adjoints(graph: Graph) -> list[Finding]:
    """A finding for each distinct operation of a graph that a gradient may flow through."""
    found: dict[str, Finding] = {}
    for node in graph.nodes:
        row = ROWS[node.op]
        if node.op == "scan":
            inside = adjoints(node.attr("body").graph("step"))
            found |= {f.subject: f for f in [*inside, check_loop(node)]}
        if node.op in _NOT_DERIVED or not row.differentiable or not node.dtype.is_float:
            continue
        general = generalised(node)
        subject = describe(general)
        if subject not in found:
            found[subject] = check(general, subject)
    return list(found.values())


def check_loop(node: Node) -> Finding:
    """The standing of a loop's adjoint: the gradient of a random sum of its results, against differences."""
    scan = Scan.of(node)
    free = [Node("input", (), o.type, name=f"operand {k}") for k, o in enumerate(scan.operands)]
    n, m = len(scan.init), len(scan.init) + len(scan.xs)
    loop = replace(scan, init=tuple(free[:n]), xs=tuple(free[n:m]), given=tuple(free[m:])).node()
    body = scan.body
    subject = f"scan of {len(body.nodes)} operations over {', '.join(str(o.type) for o in scan.operands)}"
    results = [item(loop, k) for k in range(len(body.results))]
    weights = {r: Node("input", (), r.type, name=f"weight {k}") for k, r in enumerate(results) if r.dtype.is_float}
    y = build.const(0, f64)
    for result, weight in weights.items():
        total = build.reduce("sum", build.make("mul", result, weight), range(result.type.rank))
        y = build.make("add", y, build.cast(total, f64))
    moved = [v for v in free if v.dtype.is_float]
    try:
        gradient = gradients(y, moved)
        verdict = _sloped(y, gradient, [*free, *weights.values()])
    except exact.NoExactValue as error:
        return Finding("operation", subject, UNPROVED, str(error))
    except (GraphcError, *ILL_FORMED) as error:
        return Finding("operation", subject, FAILED, f"the adjoint is ill-formed: {error}")
    if verdict is None:
        return Finding("operation", subject, UNPROVED, "no random point was found where it is a number")
    return Finding("operation", subject, EXACT if verdict else FAILED, "" if verdict else "the adjoint is not the derivative")


def _sloped(y: Node, gradient: Mapping[Node, Node], leaves: Sequence[Node]) -> bool | None:
    """Is a gradient that of y along random directions, at random points? None where none was found."""
    h, seen = mp.mpf(10) ** -20, None
    nodes = postorder([y])
    for seed, rng, sizes in drawn(nodes, guards_of(nodes), 2 * POINTS):
        with mp.workdps(exact.DIGITS):
            values = {v: sample(v, sizes, rng, 2, seed >= POINTS) for v in leaves}
            directions = {x: sample(x, sizes, rng, 1, signed=True) for x in gradient}
            ends = [
                exact.evaluate([y], {**values, **{x: values[x] + t * d for x, d in directions.items()}}, sizes)[y].item()
                for t in (h, -h)
            ]
            found = exact.evaluate(list(gradient.values()), values, sizes)
            slope = (ends[0] - ends[1]) / (2 * h)
            got = mp.fsum(dot(found[g], directions[x]) for x, g in gradient.items())
            if any(isinstance(v, mp.mpc) or not mp.isfinite(v) for v in (slope, got)):
                continue
            if not close(got, slope, TINY):
                return False
            seen = True
    return seen


def describe(node: Node) -> str:
    """An operation by its name, attributes and operand types."""
    attrs = ", ".join(f"{k}={_text(v)}" for k, v in node.attrs if k != "formula")
    return f"{node.op}({', '.join(str(o.type) for o in node.operands)}{f'; {attrs}' if attrs else ''})"


def _text(value: Any) -> str:
    return f"({', '.join(map(_text, value))}{',' * (len(value) == 1)})" if isinstance(value, tuple) else str(value)


def generalised(node: Node) -> Node:
    """The operation over operands that are all unknown and distinct, sizes made symbols where that is possible."""
    general = node.op in _GENERAL or build.is_elementwise(node)

    def free(extent: Size) -> Size:
        number = extent.constant
        return extent if not general or number is None or number <= 1 else size(f"n{number}")

    operands = [
        Node(
            "input",
            (),
            TensorType(f64 if o.dtype is f32 and general else o.dtype, tuple(map(free, o.shape))),
            name=f"{'ABCDEFGH'[k % 8]}{k // 8 or ''}",
        )
        for k, o in enumerate(node.operands)
    ]
    if not general:
        return Node(node.op, tuple(operands), node.type, **dict(node.attrs))
    return build.make(node.op, *operands, fit=Fit(), **dict(node.attrs))


def check(node: Node, subject: str) -> Finding:
    """The standing of an operation's adjoints: the weakest of its operands'."""
    standings, detail = [PROVED], ""
    for k, operand in enumerate(node.operands):
        if not operand.dtype.is_float:
            continue
        try:
            standing = _standing(node, k)
        except exact.NoExactValue as error:
            standing = UNPROVED
            detail = str(error)
        except (GraphcError, *ILL_FORMED) as error:
            return Finding("operation", subject, FAILED, f"the adjoint of operand {k} is ill-formed: {error}")
        if standing == FAILED:
            return Finding("operation", subject, FAILED, f"the adjoint of operand {k} is not the derivative")
        standings.append(standing)
    return Finding("operation", subject, min(standings, key=ORDER.index), detail)


def _standing(node: Node, k: int) -> str:
    cotangent = Node("input", (), node.type, name="G")
    operand = node.operands[k]
    generated = pullback(node, k, cotangent, Support(set()))
    if generated is None:  # no dependence: the derivative must be zero
        generated = build.full(0, operand.shape, operand.dtype)
    if _is_proved(node, k, cotangent, generated):
        return PROVED
    return {True: EXACT, False: FAILED, None: UNPROVED}[agrees(node, k, cotangent, generated)]


def adjoint_agrees(node: Node, k: int) -> bool:
    """Is an operation's adjoint right where it stands, its constants included? Its other operands are taken as free."""
    free = [
        o if o.op in ("const", "size") else Node("input", (), o.type, name=f"operand{i}")
        for i, o in enumerate(node.operands)
    ]
    alone = Node(node.op, tuple(free), node.type, **dict(node.attrs))
    cotangent = Node("input", (), node.type, name="G")
    generated = pullback(alone, k, cotangent, Support(set()))
    if generated is None:
        generated = build.full(0, free[k].shape, free[k].dtype)
    return agrees(alone, k, cotangent, generated, rounding(node.dtype)) is not False


def _is_proved(node: Node, k: int, cotangent: Node, generated: Node) -> bool:
    leaves = {o: o.attr("name") for o in node.operands} | {cotangent: "G"}
    forms = IndexForms(leaves)
    q = [sp.Integer(0) if e == 1 else variable() for e in node.operands[k].shape]
    try:
        return same(forms.of(generated, q), derivative(node, k, q, forms))
    except (NoIndexForm, TypeError, KeyError, NotImplementedError):
        return False  # an expression that SymPy or the index form cannot take: it is checked in numbers


def derivative(node: Node, k: int, q: Sequence[sp.Expr], forms: IndexForms) -> list[Term]:
    """Σ_o G[o] ∂node[o]/∂A_k[q], from the index form of the node."""
    o = [sp.Integer(0) if e == 1 else variable() for e in node.shape]
    outer = tuple((v, symbol_of(e)) for v, e in zip(o, node.shape, strict=True) if isinstance(v, sp.Symbol))
    weight = sp.Function("G", real=True)(*o) if node.shape else sp.Symbol("G", real=True)
    name = forms.leaves[node.operands[k]]
    result = []
    for term in forms.of(node, o):
        for place in sorted(_occurrences(term.body, name), key=sp.default_sort_key):
            element = sp.Symbol("element", real=True)
            partial = sp.diff(term.body.subs(place, element), element).subs(element, place)
            index = place.args if isinstance(place, sp.core.function.AppliedUndef) else ()
            equations = (*term.equations, *zip(index, q, strict=True))
            result.append(Term(outer + term.bound, equations, weight * partial))
    return result


def _occurrences(body: sp.Expr, name: str) -> set[sp.Expr]:
    applied = {e for e in body.atoms(sp.core.function.AppliedUndef) if e.func.__name__ == name}
    return applied | {s for s in body.free_symbols if s.name == name}


# -- in numbers ------------------------------------------------------------------------------------------------------
def rounding(dtype: DType) -> mp.mpf:
    """How far constants that are rounded to a type, such as the √2 of a derivative, may take a value: some last digits."""
    return mp.mpf(64 * float(np.finfo(dtype.numpy).eps)) if dtype.is_float else mp.mpf(0)


TINY = mp.mpf(10) ** -25


def agrees(node: Node, k: int, cotangent: Node, generated: Node, tolerance: mp.mpf = TINY) -> bool | None:
    """Does Σ generated·v equal the derivative of Σ G·node along v, at random points? None where none was found at
    which both are real numbers."""
    h, seen = mp.mpf(10) ** -20, None
    for seed, rng, sizes in drawn([*node.operands, node], guards_of([node]), 2 * POINTS):
        signed = seed >= POINTS  # many operations are not defined below zero, so half of the points are above
        with mp.workdps(exact.DIGITS):
            limit = limit_of(node, sizes)
            given = [o for o in node.operands if o.op not in ("const", "size")]
            leaves = {o: sample(o, sizes, rng, limit, signed) for o in given}
            weight = sample(cotangent, sizes, rng, 1, signed=True)
            direction = sample(node.operands[k], sizes, rng, 1, signed=True)
            ends = []
            for t in (h, -h):
                moved = leaves | {node.operands[k]: leaves[node.operands[k]] + t * direction}
                ends.append(dot(weight, exact.evaluate([node], moved, sizes)[node]))
            slope = (ends[0] - ends[1]) / (2 * h)
            got = dot(exact.evaluate([generated], leaves | {cotangent: weight}, sizes)[generated], direction)
            if any(isinstance(v, mp.mpc) or not mp.isfinite(v) for v in (slope, got)):
                continue
            if not close(got, slope, tolerance):
                return False
            seen = True
    return seen


def dot(a: np.ndarray, b: np.ndarray) -> mp.mpf:
    """Σ a·b over all elements."""
    return mp.fsum(np.asarray(a * b, dtype=object).ravel())


def close(a: mp.mpf, b: mp.mpf, tolerance: mp.mpf) -> bool:
    """Are two finite numbers alike, relative to the larger?"""
    return bool(abs(a - b) <= tolerance * max(1, abs(a), abs(b)))


def sample(node: Node, sizes: dict[str, int], rng: random.Random, limit: int, signed: bool = False) -> np.ndarray:
    """Random numbers for a leaf: floats of magnitude 0.2 to 1.5, no two alike, integers below a limit, bools.

    signed: floats of both signs. A float has 20 bits, so that every type of a model holds it as it is.
    """
    shape = tuple(e.evaluate(sizes) for e in node.shape)
    count = math.prod(shape)
    if node.dtype.is_float:
        numerators = rng.sample(range(LEAST, MOST), count)
        if signed:
            numerators = [n if rng.random() < 0.5 else -n for n in numerators]
        return exact.dyadic(numerators, -20).reshape(shape)
    result = np.empty(count, dtype=object)
    result[:] = [rng.random() < 0.5 if node.dtype.kind == "b" else rng.randrange(max(limit, 1)) for _ in range(count)]
    return result.reshape(shape)


LEAST, MOST = round(0.2 * 2**20), round(1.5 * 2**20)


def limit_of(node: Node, sizes: dict[str, int]) -> int:
    """What integers among a node's operands must stay below to be indices."""
    formula = ROWS[node.op].formula(node)
    if node.op in ("take", "take_along"):
        return int(node.operands[0].shape[node.attr("axis")].evaluate(sizes))
    extents = [e.evaluate(sizes) for o in (*node.operands, node) for e in o.shape] if formula else [2]
    return min(extents, default=1)
