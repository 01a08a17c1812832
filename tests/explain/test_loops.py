"""Loops explained: the recurrences of a general step, evaluated element by element, are the compiled gradients."""
import numpy as np
import pytest

import graphc as gc
from graphc.explain.derivation import derive
from graphc.explain.explain import explain, questions
from graphc.explain.expression import Ref
from graphc.explain.writers import WRITERS
from graphc.frontend.model import trace_models
from graphc.graph.dtype import f64

from .evaluate import Evaluator

SIZES = {"T": 4, "B": 2}


@gc.model
def rnn(x: gc.f64["T", "B", 2]):
    W, U, b = gc.param("W", (2, 3)), gc.param("U", (3, 3)), gc.param("b", (3,))

    def step(h, x_t):
        h = gc.tanh(x_t @ W + h @ U + b)
        return h, h

    last, hs = gc.scan(step, init=gc.zeros((gc.dim("B"), 3)), xs=x)
    return gc.outputs(loss=gc.sum(hs * hs) / 2 + gc.sum(last))


@gc.model
def lstm(x: gc.f64["B", "T", 2]):
    W, U, h0 = gc.param("W", (2, 8)), gc.param("U", (2, 8)), gc.param("h0", (2,))

    def step(s, x_t):
        h, c = s
        f, i, g, o = gc.split(x_t @ W + h @ U, 4, axis=1)
        c = gc.sigmoid(f) * c + gc.sigmoid(i) * gc.tanh(g)
        h = gc.sigmoid(o) * gc.tanh(c)
        return (h, c), h

    begin = gc.broadcast_to(h0, (gc.dim("B"), 2))
    (last, c), hs = gc.scan(step, init=(begin, begin * 2), xs=x, axis=1, reverse=True)
    return gc.outputs(loss=gc.sum(hs * gc.sin(hs)) + gc.sum(last * c))


@gc.model
def gated(x: gc.f64["T", "B", 2]):
    """No result reads the carry, only the next step does."""
    W, U = gc.param("W", (2, 3)), gc.param("U", (3, 3))

    def step(h, x_t):
        new = gc.tanh(x_t @ W + h @ U)
        return gc.where(x_t[:, :1] > 0, new, h), new

    _, hs = gc.scan(step, init=gc.zeros((gc.dim("B"), 3)), xs=x)
    return gc.outputs(loss=gc.sum(hs * hs))


class Recursive(Evaluator):
    """Elements by their equations, which may refer to one another from step to step."""

    def __init__(self, arrays, sizes):
        super().__init__(arrays, sizes)
        self.equations, self.known = {}, {}

    def value(self, e, env):
        if isinstance(e, Ref) and e.symbol.name in self.equations:
            at = tuple(int(self.value(i, env)) for i in e.indices)
            if (e.symbol.name, at) not in self.known:
                indices, value = self.equations[e.symbol.name]
                assert all(0 <= i < self.extent(v.extent) for i, v in zip(at, indices, strict=True)), (e.symbol.name, at)
                self.known[e.symbol.name, at] = self.value(value, dict(zip(indices, at, strict=True)))
            return self.known[e.symbol.name, at]
        return super().value(e, env)


def derived(model):
    module = trace_models([model], model.name, f64, {})
    (question,) = questions(module, model.name)
    return derive(module.entries[model.name], question.y, question.wrt), question, module


FORMS = [(m, form) for m in (rnn, lstm) for form in ("general", "inserted", "closed")]
FORMS += [(gated, "closed")]  # in its other forms a guard stands behind what it guards, and this evaluator reads in order


@pytest.mark.parametrize("model, form", FORMS, ids=lambda v: getattr(v, "name", v))
def test_the_recurrences_are_the_gradients(model, form):
    derivation, question, _ = derived(model)
    m = gc.compile(model, dtype="float64")
    rng = np.random.default_rng(0)
    for array in m.params.values():
        array[...] = rng.standard_normal(array.shape)
    (x,) = (n for n in derivation.graph.nodes if n.op == "input")
    arrays = {"x": rng.standard_normal(tuple(e.evaluate(SIZES) for e in x.shape)), **m.params}
    evaluator = Recursive({derivation.symbols[n].name: arrays[n.attr("name")] for n in (x, *question.wrt)}, SIZES)
    evaluator.equations = {e.symbol.name: (e.indices, e.value) for e in derivation.definitions.values()}
    evaluator.equations |= {c.symbol.name: (c.indices, getattr(c, form)) for c in derivation.cotangents}
    outputs, gradients = m.value_and_grad(x=arrays["x"])
    loss = Ref(derivation.symbols[derivation.loss])
    assert evaluator.value(loss, {}) == pytest.approx(outputs["loss"])
    for c in derivation.cotangents:
        if c.node in question.wrt:
            got = evaluator.define(c.symbol, c.indices, c.left)
            np.testing.assert_allclose(got, gradients[c.node.attr("name")], rtol=1e-9, atol=1e-12)


def test_the_lectures_form():
    """δ_h is the error from the output and the error from the next step; ∂L/∂U = Σ δ h of the step before."""
    text = WRITERS["txt"](explain(derived(rnn)[2]))
    assert "δᵢⱼₖ^h = [0 ≤ i + 1 < T] Σₗ δᵢ₊₁‚ⱼ‚ₗ^(z⁽²⁾) Uₖₗ + hᵢⱼₖ + [0 ≤ i − (T − 1) < 1]" in text
    assert "∂L/∂Uₖᵢ = Σⱼ‚ₗ δⱼₗᵢ^(z⁽²⁾) ({ hⱼ₋₁‚ₗ‚ₖ if j ≥ 1; 0 otherwise })" in text

