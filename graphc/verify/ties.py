"""What operations do where elements are equal: the first maximum, and the branch that a kink belongs to.

Random numbers are never alike, so each such operation of a model is compiled by itself, with its gradient, and run on
numbers many of which are.
"""

from __future__ import annotations

import random

import mpmath as mp
import numpy as np

from ..frontend.model import Module
from ..graph.graph import Graph
from ..graph.node import Node
from ..ops import build
from ..ops.build import make
from ..pipeline import Compilation, Options, derive
from . import exact
from .adjoints import describe, sample
from .certificate import EXACT, FAILED, Finding
from .culprit import culprit, near
from .running import Point, run, truth
from .sizes import fitting, guards_of

KINKED = ("max", "min", "argmax", "maximum", "minimum", "abs", "relu")
FEW = (-2, -1, 0, 1)  # halves: what floats are where some are to be alike


def ties(module: Module, graph: Graph, tolerance: float) -> list[Finding]:
    """A finding for each distinct operation of a graph that treats equal elements in a way of its own."""
    found: dict[str, Finding] = {}
    for node in graph.nodes:
        if node.op in KINKED and describe(node) not in found:
            found[describe(node)] = _check(module, node, tolerance)
    return list(found.values())


def _check(module: Module, node: Node, tolerance: float) -> Finding:
    inputs = tuple(Node("input", (), o.type, name=f"x{k}") for k, o in enumerate(node.operands))
    y = Node(node.op, inputs, node.type, **dict(node.attrs))
    outputs = {"y": y}
    if node.dtype.is_float:
        weight = Node("input", (), node.type, name="weight")
        loss = build.reduce("sum", make("mul", y, weight), range(node.type.rank))
        outputs |= {f"gradient{k}": Node("grad", (loss, x), x.type) for k, x in enumerate(inputs) if x.dtype.is_float}
        inputs = (*inputs, weight)
    graph = Graph(node.op, inputs, outputs)
    names = sorted({n for x in inputs for e in x.shape for n in e.names})
    sizes = fitting({n: 3 + i for i, n in enumerate(names)}, guards_of([y]), random.Random(0))
    assert sizes is not None, f"no sizes fit {node!r}"
    compilation = Compilation(module, Options(dtype=module.float_type.numpy.name))
    subject = f"{describe(node)} where elements are equal"
    for seed in range(3):
        rng = random.Random(seed)
        leaves = {x: _few(x, sizes, rng) for x in inputs}
        at = Point(sizes, leaves)
        got, want = run(compilation, graph, at), truth(derive(graph), at)
        for name, array in want.items():
            if not near(got[name], array, tolerance):
                blame = culprit(compilation, graph, at, tolerance)
                return Finding("values", subject, FAILED, f"the compiled {name} is not by the convention{blame}")
    return Finding("values", subject, EXACT, "the value and the gradient")


def _few(node: Node, sizes: dict[str, int], rng: random.Random) -> np.ndarray:
    """A leaf's numbers, drawn from few; the weight's are all different."""
    if node.attr("name") == "weight":
        return sample(node, sizes, rng, 1, signed=True)
    shape = tuple(e.evaluate(sizes) for e in node.shape)
    numbers = np.array([rng.choice(FEW) for _ in range(int(np.prod(shape, dtype=int)))], dtype=object).reshape(shape)
    with mp.workdps(exact.DIGITS):
        return exact.dyadic(numbers, -1) if node.dtype.is_float else numbers
