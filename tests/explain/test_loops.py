"""Backpropagation through time as it is told: every line is evaluated and compared with the compiled model."""
import itertools

import numpy as np
import pytest

import graphc as gc
from graphc.explain.derivation import derive, written_out
from graphc.explain.explain import explain, questions
from graphc.explain.writers import WRITERS
from graphc.frontend.model import trace_models
from graphc.graph.dtype import f64
from graphc.pipeline import resolve
from tests.render import loops

from .evaluate import Evaluator
from .test_derivation import traced

SIZES = {"B": 2, "T": 4, "S": 3, "L": 5}


@gc.model
def learned_start(x: gc.f32["B", "T", 3], y: gc.f32["B", 4]):
    """A first state that is a parameter, a reversed loop, a state that is never a number alone."""
    h0, U = gc.param("h0", (4,)), gc.param("U", (4, 4))
    W = gc.param("W", (3, 4))

    def step(h_old, x_t):
        h = gc.tanh(x_t @ W + h_old @ U)
        return h, h * x_t[:, :1]

    last, ys = gc.scan(step, init=gc.broadcast_to(h0, (gc.dim("B"), 4)), xs=x, axis=1, reverse=True)
    return gc.outputs(loss=gc.mean((last - y) ** 2) + gc.sum(ys**2))


MODELS = [loops.rnn, loops.lstm_lm, loops.stacked, loops.tagger, loops.seq2seq, loops.ragged, loops.powers, loops.shifted, learned_start]


def inputs(model, rng):
    given = {}
    for declared in gc.compile(model, target="numpy").signature.inputs:
        shape = tuple(e.evaluate(SIZES) for e in declared.shape)
        high = SIZES["T"] + 1 if declared.name == "n" else 3
        low = 1 if declared.name == "n" else 0
        given[declared.name] = rng.integers(low, high, shape) if declared.dtype.kind == "i" else rng.uniform(0.1, 0.9, shape)
    return given


def assign(ev, symbol, left, indices, value):
    """symbol[left] = value for all indices; whether something changed."""
    array = ev.arrays[symbol.name]
    before = array.copy()
    for at in itertools.product(*(range(ev.extent(v.extent)) for v in indices)):
        env = dict(zip(indices, at))
        array[tuple(int(ev.value(i, env)) for i in left.indices)] = ev.value(value, env)
    return not np.array_equal(before, array)


def settle(ev, lines):
    """Evaluate equations that need each other, step by step, until nothing changes."""
    for symbol, *_ in lines:
        shape = tuple(e.evaluate(SIZES) for e in symbol.shape)
        ev.arrays.setdefault(symbol.name, np.zeros(shape, {"f": float, "i": int, "b": bool}[symbol.kind]))
    for _ in range(40):
        changed = [assign(ev, *line) for line in lines]
        if not any(changed):
            return
    raise AssertionError("it does not settle")


@pytest.mark.parametrize("model", MODELS, ids=lambda m: m.name)
def test_every_line_is_true(model):
    rng = np.random.default_rng(0)
    small = {"hidden": 3, "vocabulary": 4} if model is loops.lstm_lm else {}
    compiled = gc.compile(model, target="numpy", **small)
    for array in compiled.params.values():
        array[...] = rng.uniform(-1, 1, array.shape)
    given = inputs(model, rng)
    outputs, gradients = compiled.value_and_grad(**given)
    models, name, _ = resolve([model])
    module = trace_models(models, name, f64, small, None)
    (question,) = questions(module, model.name)
    d = derive(module.entries[model.name], question.y, question.wrt)
    arrays = {}
    for node, symbol in d.symbols.items():
        if node.op in ("input", "param"):
            arrays[symbol.name] = np.asarray({**given, **compiled.params}[node.attr("name")])
        if node.op == "const":
            arrays[symbol.name] = node.attr("value").array
    ev = Evaluator(arrays, SIZES)
    settle(ev, [(e.symbol, e.left, e.indices, e.value) for e in d.equations])
    for a in d.abbreviations:
        ev.arrays[a.symbol.name] = ev.define(a.symbol, a.indices, a.value)
    np.testing.assert_allclose(ev.arrays["L"], outputs["loss"], rtol=1e-9)
    settle(ev, [(c.symbol, c.left, c.indices, c.general) for c in d.cotangents])
    for c in d.cotangents:
        array = ev.arrays[c.symbol.name].copy()
        for other in (c.inserted, c.closed, None if c.place else written_out(d, c.closed)):
            if other is not None:
                assign(ev, c.symbol, c.left, c.indices, other)
                np.testing.assert_allclose(ev.arrays[c.symbol.name], array, rtol=1e-9, atol=1e-12)
        if c.node.op == "param":
            np.testing.assert_allclose(array, gradients[c.node.attr("name")], rtol=1e-8, atol=1e-11)
    assert {c.node.attr("name") for c in d.cotangents if c.node.op == "param"} == set(gradients)


def text_of(model):
    return WRITERS["txt"](explain(traced(model)))


def test_the_recurrences_of_the_lecture():
    text = text_of(loops.rnn)
    assert "first state of a loop" in text and "h₀ᵢⱼ = 0" in text
    assert "zₜᵢⱼ^rnn = Σₖ xᵢₜₖ Wₖⱼ^rnn + Σₖ hₜᵢₖ Uₖⱼ^rnn + bⱼ^rnn" in text and "hₜ₊₁‚ᵢ‚ⱼ = tanh(zₜᵢⱼ^rnn)" in text
    # the error from the next step, where there is one, and that from the output
    assert "= [t + 1 < T] Σₖ δₜ₊₁‚ᵢ‚ₖ^(z^rnn) Uⱼₖ^rnn + Σₖ δᵢₜₖ^(y\u0302) Wⱼₖ^out" in text
    assert "δₜᵢⱼ^(z^rnn) = ∂L/∂zₜᵢⱼ^rnn" in text and "= δₜ₊₁‚ᵢ‚ⱼ^h (1 − hₜ₊₁‚ᵢ‚ⱼ²)" in text
    assert "∂L/∂Wₖⱼ^rnn = Σₜ‚ᵢ δₜᵢⱼ^(z^rnn) xᵢₜₖ" in text and "∂L/∂Uⱼᵢ^rnn = Σₜ‚ₖ δₜₖᵢ^(z^rnn) hₜₖⱼ" in text


def test_a_last_state_is_read_at_the_last_step():
    assert "[T = t + 1]" in text_of(loops.stacked)


def test_a_loop_inside_a_loop_says_so():
    with pytest.raises(gc.GraphcError, match="the step of a loop holds a loop, and there is no derivation through that"):
        text_of(loops.words_in_sentences)
