"""Which part of the compiler is wrong: the operation, the stage, or the instruction that first disagrees."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import mpmath as mp
import numpy as np

from ..derivatives.reverse import gradients
from ..errors import GraphcError
from ..graph.dtype import DType
from ..graph.graph import Graph
from ..graph.node import Node, postorder
from ..lowering.describe import where
from ..pipeline import STAGES, Compilation, lower
from . import exact
from .adjoints import adjoint_agrees, close, describe, dot, rounding, sample
from .running import Point, compiled, lowered_results, one_by_one, truth

Array = np.ndarray[Any, Any]
STEP = mp.mpf(10) ** -26  # of differences: their error is of its order, and its square is far above the last digit


def culprit(compilation: Compilation, graph: Graph, at: Point, tolerance: float) -> str:
    """Words that name the stage or the kernel after which the results of a graph are no longer the true ones."""
    want = truth(graph, at)
    for stage in STAGES[1:5]:
        staged, _ = lower(graph, stop_after=stage)
        wrong = _differing(truth(staged, at), want, tolerance)
        if wrong:
            return f"; the stage {stage!r} changes {wrong}"
    lowered = compiled(compilation, graph)
    nodes = lowered_results(lowered)
    values = at.values(list(nodes.values()))
    wrong = _differing({n: values[v].reshape(want[n].shape) for n, v in nodes.items()}, want, tolerance)
    if wrong:
        return f"; the stage 'lower' changes {wrong}"
    for words, written in one_by_one(compilation, lowered, at):
        true = at.values(list(written))
        for node, got in written.items():
            if not near(got, true[node], tolerance):
                return f"; the first wrong result is that of {words}"
    return (
        "; each instruction is right by itself: the memory plan (stage 'lower') lets one write over what another needs"
    )


def _differing(got: dict[str, Array], want: dict[str, Array], tolerance: float) -> str:
    return next((repr(n) for n, a in got.items() if not near(a, want[n], tolerance)), "")


def near(got: Array, want: Array, tolerance: float) -> bool:
    """Are two arrays, compiled or exact, alike to a tolerance relative to the largest element?

    Where the true value is no real number, as a logarithm below zero, nothing is asked.
    """
    reference, values = _floats(want), _floats(got)
    real = np.array([not isinstance(v, mp.mpc) for v in np.asarray(want).ravel()], dtype=bool)
    finite = np.abs(reference[real & np.isfinite(reference)])
    scale = max(1.0, float(np.max(finite, initial=0)))
    return bool(np.allclose(values[real], reference[real], rtol=tolerance, atol=tolerance * scale, equal_nan=True))


def _floats(values: Array) -> Array:
    plain = np.asarray(values).ravel()
    if plain.dtype != object:
        return plain.astype(float)
    return np.array([np.nan if isinstance(v, mp.mpc) else float(v) for v in plain], dtype=float)


# -- derivatives -----------------------------------------------------------------------------------------------------
def slope(y: Node, x: Mapping[Node, Array], at: Point) -> mp.mpf:
    """The derivative of a number y along directions, by a difference. What stands under stop_gradient is held."""
    held = [n for n in postorder([y]) if n.op == "stop_gradient"]
    with mp.workdps(exact.DIGITS):
        moves = {n: at.values([n])[n] + STEP * exact.numbers(v) for n, v in x.items()}
        return (at.moved(y, moves, held) - at.values([y])[y].item()) / STEP


def agree(derived: mp.mpf, true: mp.mpf, dtype: DType) -> bool:
    """Is a derivative, evaluated exactly, that of differences? It may hold constants that are rounded to its type."""
    return close(derived, true, rounding(dtype))


def misderived(y: Node, graph: Graph, at: Point, seed: int = 0) -> str:
    """Words that name the adjoint that is wrong in the derivation of a number y: of all that y depends on, the node
    nearest to y whose derivative is not that of differences, and what reads it."""
    order = postorder([y])
    users: dict[Node, list[tuple[Node, int]]] = {n: [] for n in order}
    for node in order:
        for k, operand in enumerate(node.operands):
            users[operand].append((node, k))
    inner = [n for n in order if n.dtype.is_float and n.op not in ("const", "size") and n is not y]
    derived = gradients(y, inner)
    rng = random.Random(seed)
    for node in reversed(inner):
        direction = sample(node, at.sizes, rng, 1, signed=True)
        with mp.workdps(exact.DIGITS):
            got = dot(at.values([derived[node]])[derived[node]], direction)
            if agree(got, slope(y, {node: direction}, at), y.dtype):
                continue
        readers = dict.fromkeys(users[node])
        wrong = {r: None for r, k in readers if not _adjoint_agrees(r, k)}
        of = f"the derivative by {describe(node)}{where(node, graph)}"
        named = ", ".join(describe(r) + where(r, graph) for r in wrong or dict.fromkeys(r for r, _ in readers))
        if wrong:
            return f"; the stage 'differentiate' is wrong: {of}, through the adjoint of {named}"
        return f"; the stage 'differentiate' is wrong: {of}, in what comes together from {named}"
    return ""


def _adjoint_agrees(node: Node, k: int) -> bool:
    try:
        return adjoint_agrees(node, k)
    except GraphcError:
        return False
