"""A model's compiled values and derivatives against 50-digit arithmetic on small sizes."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import replace
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
from .culprit import culprit, near
from .rewrites import rewrites
from .running import Point, run

Array = np.ndarray[Any, Any]
Directions = Mapping[Node, Array]

TOLERANCE = {"f64": 1e-9, "f32": 2e-4}  # of compiled values, relative to the largest; second derivatives a hundredfold


def verify(module: Module, seed: int = 0) -> Certificate:
    """Everything that can be shown of a traced module: operations, rewrites, and the compiled code's derivatives."""
    findings: list[Finding] = []
    compilation = Compilation(module, Options(dtype=module.float_type.numpy.name))
    for entry, graph in module.entries.items():
        stable, _ = lower(graph, stop_after="stabilise")
        findings += adjoints(stable)
        findings += _numbers(compilation, entry, graph, seed)
    findings += rewrites(compilation.fired)
    return Certificate(module.name, tuple(dict.fromkeys(findings)))


# -- a point ---------------------------------------------------------------------------------------------------------
def point(graph: Graph, params: list[Node], seed: int) -> Point:
    """Random numbers that the model's sizes and indices allow. ModelError where no sizes are found."""
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
    leaves: dict[Node, Array] = {}
    for node in dict.fromkeys((*graph.inputs, *graph.nodes, *graph.updates, *params)):
        if node.op in ("input", "param", "state"):
            values = sample(node, sizes, rng, limits.get(node, 4))
            if node.dtype.is_float:  # of both signs
                for place in np.ndindex(values.shape):
                    values[place] = float(values[place]) * rng.choice((1, -1))
            leaves[node] = exact.numbers(values.astype(node.dtype.numpy))  # numbers that the model's own type holds
    return Point(sizes, leaves)


def _limits(graph: Graph, sizes: Mapping[str, int]) -> dict[Node, int]:
    """What an integer input must stay below, by the look-ups that use it, directly or moved."""
    limits: dict[Node, int] = {}
    for node in graph.nodes:
        if node.op in ("take", "take_along"):
            source = node.operands[1]
            while source.op in ("reshape", "slice", "transpose", "broadcast_to", "cast"):
                (source,) = source.operands
            limit = node.operands[0].shape[node.attr("axis")].evaluate(sizes)
            limits[source] = min(limits.get(source, limit), limit)
    return limits


# -- numbers ---------------------------------------------------------------------------------------------------------
def _numbers(compilation: Compilation, entry: str, graph: Graph, seed: int) -> list[Finding]:
    """Compiled outputs, gradient and second derivative at a random point."""
    module = compilation.module
    params = [_param(module, n) for n in trainable(module, entry)]
    at = point(graph, params, seed)
    tolerance = TOLERANCE[module.float_type.name]
    findings = [_values(compilation, entry, graph, at, tolerance)]
    if "loss" in graph.outputs and params:
        v, w = (_direction(params, seed + k) for k in (1, 2))
        findings.append(_first(compilation, entry, graph, v, at, tolerance))
        findings.append(_second(compilation, entry, graph, v, w, at, 100 * tolerance))
    return findings


def _param(module: Module, name: str) -> Node:
    variable = module.declarations[name].variable
    return Node("param", (), TensorType(variable.dtype, variable.shape), name=name)


def _direction(params: list[Node], seed: int) -> dict[Node, Array]:
    rng = np.random.default_rng(seed)
    return {p: rng.choice([-1.0, -0.5, 0.5, 1.0], tuple(map(int, p.shape))).astype(p.dtype.numpy) for p in params}


def _values(compilation: Compilation, entry: str, graph: Graph, at: Point, tolerance: float) -> Finding:
    graph = replace(graph, updates={})
    plain, _ = lower(graph, stop_after="differentiate")  # gradients that are outputs, as the deriver has them
    got = run(compilation, graph, at)
    want = exact.evaluate(list(plain.outputs.values()), at.leaves, at.sizes)
    for name, node in plain.outputs.items():
        if not near(got[name], want[node], tolerance):
            blame = culprit(compilation, graph, at, tolerance)
            return Finding("values", f"{entry}.{name}", FAILED, f"the compiled value is not the model's{blame}")
    return Finding("values", f"{entry}: {', '.join(graph.outputs)}", EXACT, f"to {tolerance:g} at a random point")


def _first(compilation: Compilation, entry: str, graph: Graph, v: Directions, at: Point, tolerance: float) -> Finding:
    gradient = replace(program_graph(compilation.module, entry, "gradient"), updates={})
    got = run(compilation, gradient, at)
    slope = sum(_dot(got[f"grad:{p.attr('name')}"], v[p]) for p in v)
    with mp.workdps(exact.DIGITS):
        h = mp.mpf(10) ** -18
        true = (_loss(graph, at, (v, h)) - _loss(graph, at, (v, -h))) / (2 * h)
    subject = f"{entry}: ∂loss along a random direction of {len(v)} parameters"
    if not _agrees(slope, true, tolerance):
        blame = culprit(compilation, gradient, at, tolerance)
        return Finding("gradient", subject, FAILED, f"compiled {slope:.10g}, true {mp.nstr(true, 12)}{blame}")
    return Finding("gradient", subject, EXACT, f"{mp.nstr(true, 8)}, to {tolerance:g}")


def _second(
    compilation: Compilation, entry: str, graph: Graph, v: Directions, w: Directions, at: Point, tolerance: float
) -> Finding:
    loss = graph.outputs["loss"]
    total = build.const(0, loss.dtype)
    for p in v:
        direction = Node("const", (), p.type, value=Constant(v[p]))
        product = make("mul", Node("grad", (loss, p), p.type), direction)
        total = make("add", total, build.reduce("sum", product, range(p.type.rank)))
    outputs = {f"second:{p.attr('name')}": Node("grad", (total, p), p.type) for p in v}
    second = replace(graph, outputs=outputs, updates={})
    got = run(compilation, second, at)
    curvature = sum(_dot(got[f"second:{p.attr('name')}"], w[p]) for p in w)
    with mp.workdps(exact.DIGITS):
        h = mp.mpf(10) ** -12
        corners = [s * t * _loss(graph, at, (v, s * h), (w, t * h)) for s in (1, -1) for t in (1, -1)]
        true = mp.fsum(corners) / (4 * h * h)
    subject = f"{entry}: ∂²loss along two random directions"
    if not _agrees(curvature, true, tolerance):
        blame = culprit(compilation, second, at, tolerance)
        return Finding("gradient", subject, FAILED, f"compiled {curvature:.10g}, true {mp.nstr(true, 12)}{blame}")
    return Finding("gradient", subject, EXACT, f"{mp.nstr(true, 8)}, to {tolerance:g}")


def _dot(a: Array, b: Array) -> float:
    return float(np.sum(a.astype(float) * b.astype(float)))


def _loss(graph: Graph, at: Point, *moves: tuple[Directions, mp.mpf]) -> mp.mpf:
    """The loss with the parameters moved along directions."""
    leaves = dict(at.leaves)
    for direction, length in moves:
        for p, v in direction.items():
            leaves[p] = leaves[p] + length * exact.numbers(v)
    return exact.evaluate([graph.outputs["loss"]], leaves, at.sizes)[graph.outputs["loss"]].item()


def _agrees(got: float, true: mp.mpf, tolerance: float) -> bool:
    return bool(abs(got - float(true)) <= tolerance * max(1.0, abs(float(true))))
