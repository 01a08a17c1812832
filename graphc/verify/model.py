"""A model's compiled values and derivatives against exact arithmetic on small sizes.

Derivatives are checked in two steps. The derived graph, evaluated exactly, must have the slope that a difference of the
model itself shows, to the digits that its constants have: that is the deriver. Each element that the compiled program
computes must be the derived graph's: that is everything after it.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import replace
from math import isqrt, prod
from typing import Any

import mpmath as mp
import numpy as np

from ..errors import ModelError
from ..frontend.model import Module
from ..graph.graph import Graph
from ..graph.node import Constant, Node, TensorType, postorder
from ..lowering.describe import where
from ..ops import build
from ..ops.build import make
from ..passes.calls import for_training
from ..pipeline import Compilation, Options, derive, lower, program_graph, trainable
from . import exact
from .adjoints import ILL_FORMED, adjoints, describe, dot, sample
from .certificate import EXACT, FAILED, UNPROVED, Certificate, Finding
from .culprit import STEP, agree, culprit, misderived, near, slope
from .integers import allowed
from .rewrites import rewrites
from .running import Point, run, truth
from .sizes import fitting
from .ties import ties

Array = np.ndarray[Any, Any]
Directions = Mapping[Node, Array]

TOLERANCE = {"f64": 1e-9, "f32": 2e-4}  # of compiled values, relative to the largest; second derivatives a hundredfold


def verify(module: Module, seed: int = 0) -> Certificate:
    """Everything that can be shown of a traced module: operations, rewrites, and the compiled code's derivatives."""
    findings: list[Finding] = []
    compilation = Compilation(module, Options(dtype=module.float_type.numpy.name))
    for entry, traced in module.entries.items():
        graph = for_training(traced, True)
        stable, _ = lower(graph, stop_after="stabilise")
        findings += adjoints(stable)
        try:
            findings += ties(module, stable, TOLERANCE[module.float_type.name])
            findings += _numbers(compilation, entry, graph, seed)
        except exact.NoExactValue as error:
            findings.append(Finding("values", entry, UNPROVED, str(error)))
        except ILL_FORMED as error:
            if all(f.standing != FAILED for f in findings):
                raise  # nothing known is wrong: it is verification itself that failed
            findings.append(Finding("values", entry, FAILED, f"what was derived is ill-formed: {error}"))
    findings += rewrites(compilation.fired)
    return Certificate(module.name, tuple(dict.fromkeys(findings)))


# -- a point ---------------------------------------------------------------------------------------------------------
def point(graph: Graph, params: list[Node], seed: int) -> Point:
    """Random numbers that the model's sizes and indices allow. ModelError where no sizes are found."""
    rng = random.Random(seed)
    sizes = fitting({n: rng.randint(2, 4) for n in graph.sizes()}, graph.guards, rng)
    if sizes is None:
        raise ModelError(
            f"no small sizes were found that the model {graph.name} accepts", how="check its size conditions"
        )
    ranges = allowed(graph, sizes)
    leaves = {}
    for node in dict.fromkeys((*graph.inputs, *graph.nodes, *graph.updates, *params)):
        if node.op in ("input", "param", "state"):
            low, high = ranges.get(node, (0, 3))
            drawn = sample(node, sizes, rng, high - low + 1, signed=True)
            leaves[node] = drawn + low if low else _scaled(node, drawn)
    return Point(sizes, leaves)


def _scaled(node: Node, values: Array) -> Array:
    """A parameter's numbers made small by the number of terms that they are summed over, so that nothing saturates."""
    terms = prod(values.shape[:-1])
    if node.op != "param" or not node.dtype.is_float or terms < 4:
        return values
    with mp.workdps(exact.DIGITS):
        return np.array(values / 2 ** (isqrt(terms).bit_length() - 1), dtype=object)


# -- numbers ---------------------------------------------------------------------------------------------------------
def _numbers(compilation: Compilation, entry: str, graph: Graph, seed: int) -> list[Finding]:
    """Compiled results, gradients that the model asks for, and first and second derivatives of the loss."""
    module = compilation.module
    params = [_param(module, n) for n in trainable(module, entry)]
    at = point(graph, params, seed)
    tolerance = TOLERANCE[module.float_type.name]
    findings = [_values(compilation, entry, graph, at, tolerance), *_own_gradients(entry, graph, at, seed)]
    if "loss" in graph.outputs and params:
        v, w = (_direction(params, at.sizes, seed + k) for k in (1, 2))
        findings.append(_first(compilation, entry, graph, v, at, tolerance))
        findings.append(_second(compilation, entry, graph, v, w, at, 100 * tolerance))
    return findings


def _param(module: Module, name: str) -> Node:
    variable = module.declarations[name].variable
    return Node("param", (), TensorType(variable.dtype, variable.shape), name=name)


def _direction(nodes: list[Node], sizes: dict[str, int], seed: int) -> dict[Node, Array]:
    """Random directions, every element another number, which all float types hold."""
    rng = random.Random(seed)
    return {n: sample(n, sizes, rng, 1, signed=True) for n in nodes}


def _along(values: Mapping[Node, Array], directions: Directions) -> mp.mpf:
    with mp.workdps(exact.DIGITS):
        return mp.fsum(dot(values[n], v) for n, v in directions.items())


def _values(compilation: Compilation, entry: str, graph: Graph, at: Point, tolerance: float) -> Finding:
    got, want = run(compilation, graph, at), truth(graph, at)
    for name, array in want.items():
        if not near(got[name], array, tolerance):
            blame = culprit(compilation, graph, at, tolerance)
            return Finding("values", f"{entry}.{name}", FAILED, f"the compiled value is not the model's{blame}")
    return Finding("values", f"{entry}: {', '.join(want)}", EXACT, f"to {tolerance:g} at a random point")


def _own_gradients(entry: str, graph: Graph, at: Point, seed: int) -> list[Finding]:
    """The gradients that the model itself asks for, against differences."""
    findings = []
    for number, node in enumerate(n for n in graph.nodes if n.op == "grad"):
        y, x = node.operands
        roots = derive(replace(graph, outputs={"y": y, "x": x, "gradient": node}, updates={})).outputs
        subject = f"{entry}: ∂{describe(y)}/∂{describe(x)}{where(node, graph)}"
        directions = _direction([roots["x"]], at.sizes, seed + number)
        if roots["x"] not in postorder([roots["y"]]):
            true = mp.mpf(0)  # y does not depend on x
        else:
            true = slope(roots["y"], directions, at)
        got = _along({roots["x"]: at.values([roots["gradient"]])[roots["gradient"]]}, directions)
        if agree(got, true, y.dtype):
            findings.append(Finding("gradient", subject, EXACT, f"{mp.nstr(true, 8)} along a random direction"))
        else:
            detail = f"derived {mp.nstr(got, 12)}, true {mp.nstr(true, 12)}{misderived(roots['y'], graph, at)}"
            findings.append(Finding("gradient", subject, FAILED, detail))
    return findings


def _first(compilation: Compilation, entry: str, graph: Graph, v: Directions, at: Point, tolerance: float) -> Finding:
    gradient = replace(program_graph(compilation.module, entry, "gradient"), updates={})
    loss = derive(graph).outputs["loss"]
    subject = f"{entry}: ∂loss along a random direction of {len(v)} parameters"
    return _derivative(compilation, gradient, loss, "grad:", subject, v, slope(loss, v, at), at, tolerance)


def _second(
    compilation: Compilation, entry: str, graph: Graph, v: Directions, w: Directions, at: Point, tolerance: float
) -> Finding:
    loss = graph.outputs["loss"]
    total = build.const(0, loss.dtype)
    for p, direction in v.items():
        number = Node("const", (), p.type, value=Constant(direction.astype(p.dtype.numpy)))
        product = make("mul", Node("grad", (loss, p), p.type), number)
        total = make("add", total, build.reduce("sum", product, range(p.type.rank)))
    outputs = {f"second:{p.attr('name')}": Node("grad", (total, p), p.type) for p in v}
    second = replace(graph, outputs=outputs, updates={})
    plain = derive(replace(graph, outputs={"loss": loss, "slope": total}, updates={})).outputs
    subject = f"{entry}: ∂²loss along two random directions"
    true = _mixed(plain["loss"], v, w, at)
    return _derivative(compilation, second, plain["slope"], "second:", subject, w, true, at, tolerance)


def _mixed(y: Node, v: Directions, w: Directions, at: Point) -> mp.mpf:
    """The second derivative of a number y along two directions, by differences."""
    held = [n for n in postorder([y]) if n.op == "stop_gradient"]
    with mp.workdps(exact.DIGITS):
        corners = [
            at.moved(y, {p: at.leaves[p] + STEP * (a * v[p] + b * w[p]) for p in v}, held)
            for a, b in ((1, 1), (1, 0), (0, 1))
        ]
        return (corners[0] - corners[1] - corners[2] + at.values([y])[y].item()) / STEP**2


def _derivative(
    compilation: Compilation,
    graph: Graph,
    y: Node,
    prefix: str,
    subject: str,
    directions: Directions,
    true: mp.mpf,
    at: Point,
    tolerance: float,
) -> Finding:
    """The derivatives of y that a graph gives as outputs: derived as differences say, compiled as derived."""
    want = truth(graph, at)
    names = {p: f"{prefix}{p.attr('name')}" for p in directions}
    derived = _along({p: want[n] for p, n in names.items()}, directions)
    if not agree(derived, true, y.dtype):
        blame = misderived(y, graph, at)
        detail = f"derived {mp.nstr(derived, 12)}, true {mp.nstr(true, 12)}{blame}"
        return Finding("gradient", subject, FAILED, detail)
    got = run(compilation, graph, at)
    for p, name in names.items():
        if not near(got[name], want[name], tolerance):
            blame = culprit(compilation, graph, at, tolerance)
            return Finding("gradient", subject, FAILED, f"the compiled one by {p.attr('name')!r} is wrong{blame}")
    return Finding("gradient", subject, EXACT, f"{mp.nstr(true, 8)}, each element to {tolerance:g}")
