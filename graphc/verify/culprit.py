"""Which part of a compiled program is wrong: the first instruction whose result is not what its graph says."""

from __future__ import annotations

from typing import Any

import mpmath as mp
import numpy as np

from ..graph.graph import Graph
from ..pipeline import STAGES, Compilation, lower
from . import exact
from .running import Point, one_by_one

Array = np.ndarray[Any, Any]


def culprit(compilation: Compilation, graph: Graph, at: Point, tolerance: float) -> str:
    """Words that name the kernel, or the stage of the compiler, that first disagrees; empty where none does."""
    want = _outputs(graph, at)
    for stage in STAGES[1:5]:
        staged, _ = lower(graph, stop_after=stage)
        values = _outputs(staged, at)
        if values is not None and want is not None:
            for name, array in values.items():
                if not near(_floats(array), want[name], tolerance):
                    return f"; the stage {stage!r} changes {name!r}"
        want = values if want is None else want
    for words, nodes in one_by_one(compilation, graph, at):
        true = exact.evaluate(list(nodes), at.leaves, at.sizes)
        for node, got in nodes.items():
            if not near(got, true[node], tolerance):
                return f"; the first wrong result is that of {words}"
    return ""


def _has_gradients(graph: Graph) -> bool:
    return any(n.op == "grad" for n in graph.nodes)


def _outputs(graph: Graph, at: Point) -> dict[str, Array] | None:
    """The exact outputs of a graph; None while it holds gradients that are not expanded."""
    if _has_gradients(graph):
        return None
    values = exact.evaluate(list(graph.outputs.values()), at.leaves, at.sizes)
    return {n: values[v] for n, v in graph.outputs.items()}


def _floats(values: Array) -> Array:
    return np.array([complex(v).real if isinstance(v, mp.mpc) else float(v) for v in values.ravel()])


def near(got: Array, want: Array, tolerance: float) -> bool:
    """Is a compiled array the exact one, to a tolerance relative to the largest element?"""
    if any(isinstance(v, mp.mpc) for v in want.ravel()):
        return True  # outside the domain of a logarithm or root, where the compiled value is NaN
    reference = _floats(want)
    scale = max(1.0, float(np.max(np.abs(reference), initial=0)))
    values = np.asarray(got).ravel().astype(float)
    return bool(np.allclose(values, reference, rtol=tolerance, atol=tolerance * scale, equal_nan=True))
