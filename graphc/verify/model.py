"""A model's compiled values and derivatives against 50-digit arithmetic on small sizes."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import mpmath as mp
import numpy as np

from ..errors import ModelError
from ..frontend.model import Module
from ..graph.graph import Graph
from ..graph.node import Constant, Node, TensorType
from ..ops import build
from ..ops.build import make
from ..pipeline import Compilation, Options, lower, program_graph, trainable
from . import exact
from .adjoints import adjoints, sample
from .certificate import EXACT, FAILED, Certificate, Finding
from .culprit import culprit
from .rewrites import rewrites

TOLERANCE = {"float64": 1e-9, "float32": 2e-4}  # of the compiled values, relative to the largest


@dataclass(frozen=True)
class Point:
    """Numbers for a check: sizes, and arrays for the inputs and variables of a graph."""

    sizes: dict[str, int]
    leaves: dict[Node, np.ndarray[Any, Any]]


def verify(module: Module, seed: int = 0) -> Certificate:
    """Everything that can be shown of a traced module: operations, rewrites, and the compiled code's derivatives."""
    findings: list[Finding] = []
    compilation = Compilation(module, Options(dtype=module.float_type.numpy.name))
    for entry, graph in module.entries.items():
        stable, _ = lower(graph, stop_after="stabilise")
        findings += adjoints(stable)
        compilation.program(entry, f"forward:{','.join(graph.outputs)}")
        findings += _numbers(compilation, entry, seed)
    findings += rewrites(compilation.fired)
    return Certificate(module.name, tuple(dict.fromkeys(findings)))


# -- a point ---------------------------------------------------------------------------------------------------------
def point(graph: Graph, seed: int) -> Point:
    """Random numbers that the model's sizes and indices allow. ModelError where none were found."""
    rng = random.Random(seed)
    names = graph.sizes()
    for _ in range(1000):
        sizes = {n: rng.randint(2, 4) for n in names}
        if all(g.holds(sizes) for g in graph.guards):
            break
    else:
        raise ModelError(
            f"no small sizes were found that the model {graph.name} accepts", how="check its size conditions"
        )
    limits = _limits(graph, sizes)
    leaves: dict[Node, np.ndarray[Any, Any]] = {}
    for node in dict.fromkeys((*graph.inputs, *graph.nodes, *graph.updates)):
        if node.op in ("input", "param", "state"):
            values = sample(node, sizes, rng, limits.get(node, 4))
            if node.dtype.is_float:  # both signs, and numbers that the model's own type holds
                values = (
                    np.vectorize(lambda v: float(node.dtype.numpy.type(v)) * rng.choice((1, -1)), otypes=[object])(
                        values
                    )
                    if values.size
                    else values
                )
            leaves[node] = exact.numbers(values.astype(node.dtype.numpy))
    return Point(sizes, leaves)


def _limits(graph: Graph, sizes: Mapping[str, int]) -> dict[Node, int]:
    """What an integer input must stay below, by the look-ups that use it, directly or moved."""
    limits: dict[Node, int] = {}
    for node in graph.nodes:
        if node.op in ("take", "take_along"):
            source = node.operands[1]
            while source.operands and source.op in ("reshape", "slice", "transpose", "broadcast_to", "cast"):
                source = source.operands[0]
            limit = node.operands[0].shape[node.attr("axis")].evaluate(sizes)
            limits[source] = min(limits.get(source, limit), limit)
    return limits


# -- numbers ---------------------------------------------------------------------------------------------------------
def _numbers(compilation: Compilation, entry: str, seed: int) -> list[Finding]:
    """Compiled outputs, gradient and second derivative at a random point."""
    module, graph = compilation.module, compilation.module.entries[entry]
    at = point(graph, seed)
    tolerance = TOLERANCE[module.float_type.numpy.name]
    findings = [_compare(compilation, entry, graph, at, tolerance)]
    names = trainable(module, entry)
    if "loss" in graph.outputs and names:
        params = [build_param(module, n) for n in names]
        directions = [_direction(params, seed + 1), _direction(params, seed + 2)]
        findings.append(_first(compilation, entry, graph, params, directions[0], at, tolerance))
        findings.append(_second(compilation, entry, graph, params, directions, at, 100 * tolerance))
    return findings


def build_param(module: Module, name: str) -> Node:
    variable = module.declarations[name].variable
    return Node("param", (), TensorType(variable.dtype, variable.shape), name=name)


def _direction(params: list[Node], seed: int) -> dict[Node, np.ndarray[Any, Any]]:
    rng = np.random.default_rng(seed)
    return {p: rng.choice([-1.0, -0.5, 0.5, 1.0], tuple(map(int, p.shape))).astype(p.dtype.numpy) for p in params}


def run(compilation: Compilation, entry: str, graph: Graph, at: Point) -> dict[str, np.ndarray[Any, Any]]:
    """The outputs of a graph as compiled, at a point."""
    from . import running

    return running.run(compilation, entry, graph, at.sizes, at.leaves)


def _compare(compilation: Compilation, entry: str, graph: Graph, at: Point, tolerance: float) -> Finding:
    got = run(compilation, entry, replace(graph, updates={}), at)
    want = exact.evaluate(list(graph.outputs.values()), at.leaves, at.sizes)
    for name, node in graph.outputs.items():
        if not _near(got[name], want[node], tolerance):
            blame = culprit(compilation, entry, graph, at)
            return Finding("values", f"{entry}.{name}", FAILED, f"the compiled value is not the model's{blame}")
    return Finding("values", f"{entry}: {', '.join(graph.outputs)}", EXACT, f"to {tolerance:g} at a random point")


def _near(got: np.ndarray[Any, Any], want: np.ndarray[Any, Any], tolerance: float) -> bool:
    reference = np.array([complex(v).real if isinstance(v, mp.mpc) else float(v) for v in want.ravel()])
    if any(isinstance(v, mp.mpc) for v in want.ravel()):
        return True  # outside the domain of a logarithm or root: the compiled value is NaN there
    scale = max(1.0, float(np.max(np.abs(reference), initial=0)))
    return bool(
        np.allclose(got.ravel().astype(float), reference, rtol=tolerance, atol=tolerance * scale, equal_nan=True)
    )


def _first(
    compilation: Compilation,
    entry: str,
    graph: Graph,
    params: list[Node],
    v: dict[Node, np.ndarray[Any, Any]],
    at: Point,
    tolerance: float,
) -> Finding:
    gradient = program_graph(compilation.module, entry, "gradient")
    got = run(compilation, entry, replace(gradient, updates={}), at)
    slope = sum(float(np.sum(got[f"grad:{p.attr('name')}"].astype(float) * v[p].astype(float))) for p in params)
    with mp.workdps(exact.DIGITS):
        h = mp.mpf(10) ** -18
        true = (_loss(graph, at, v, h) - _loss(graph, at, v, -h)) / (2 * h)
    subject = f"{entry}: ∂loss along a random direction of {len(params)} parameters"
    if not _agrees(slope, true, tolerance):
        blame = culprit(compilation, entry, gradient, at)
        return Finding(
            "gradient", subject, FAILED, f"compiled {slope:.10g}, 50-digit arithmetic {mp.nstr(true, 12)}{blame}"
        )
    return Finding("gradient", subject, EXACT, f"{mp.nstr(true, 8)}, to {tolerance:g}")


def _second(
    compilation: Compilation,
    entry: str,
    graph: Graph,
    params: list[Node],
    directions: list[dict[Node, np.ndarray[Any, Any]]],
    at: Point,
    tolerance: float,
) -> Finding:
    v, w = directions
    loss = graph.outputs["loss"]
    total = build.const(0, loss.dtype)
    for p in params:
        direction = Node("const", (), p.type, value=Constant(v[p])) if p.shape else build.const(v[p].item(), p.dtype)
        product = make("mul", Node("grad", (loss, p), p.type), direction)
        total = make("add", total, build.reduce("sum", product, range(p.type.rank)))
    outputs = {f"second:{p.attr('name')}": Node("grad", (total, p), p.type) for p in params}
    got = run(compilation, entry, replace(graph, outputs=outputs, updates={}), at)
    curvature = sum(float(np.sum(got[f"second:{p.attr('name')}"].astype(float) * w[p].astype(float))) for p in params)
    with mp.workdps(exact.DIGITS):
        h = mp.mpf(10) ** -12
        true = (
            _loss(graph, at, v, h, w, h)
            - _loss(graph, at, v, h, w, -h)
            - _loss(graph, at, v, -h, w, h)
            + _loss(graph, at, v, -h, w, -h)
        ) / (4 * h * h)
    subject = f"{entry}: ∂²loss along two random directions"
    if not _agrees(curvature, true, tolerance):
        return Finding(
            "gradient", subject, FAILED, f"compiled {curvature:.10g}, 50-digit arithmetic {mp.nstr(true, 12)}"
        )
    return Finding("gradient", subject, EXACT, f"{mp.nstr(true, 8)}, to {tolerance:g}")


def _loss(
    graph: Graph,
    at: Point,
    v: dict[Node, np.ndarray[Any, Any]],
    t: mp.mpf,
    w: dict[Node, np.ndarray[Any, Any]] | None = None,
    s: mp.mpf | int = 0,
) -> mp.mpf:
    """The loss with the parameters moved by t·v + s·w."""
    moved = {
        p: at.leaves[p] + t * exact.numbers(v[p]) + (s * exact.numbers(w[p]) if w else 0) for p in v if p in at.leaves
    }
    return exact.evaluate([graph.outputs["loss"]], at.leaves | moved, at.sizes)[graph.outputs["loss"]].item()


def _agrees(got: float, true: mp.mpf, tolerance: float) -> bool:
    return bool(abs(got - float(true)) <= tolerance * max(1.0, abs(float(true))))
