"""The printed mathematics is right: every equation and every step is evaluated and compared with the compiled model."""
import numpy as np
import pytest

import graphc as gc
from graphc.explain.derivation import by_rows, derive, written_out
from graphc.explain.explain import questions
from graphc.explain.matrix import matrix_form
from graphc.frontend.model import trace_models
from graphc.graph.dtype import f64
from graphc.pipeline import resolve

from .evaluate import Evaluator

SIZES = {"B": 3, "T": 4}


@gc.model
def logistic(x: gc.f32["B", 3], y: gc.f32["B"]):
    w, b = gc.param("w", (3,)), gc.param("b", ())
    p = gc.sigmoid(x @ w + b)
    return gc.outputs(p=p, loss=-gc.mean(y * gc.log(p) + (1 - y) * gc.log(1 - p)))


@gc.model
def xor(x: gc.f32["B", 2], y: gc.f32["B", 1]):
    h = gc.relu(gc.nn.linear(x, 4, name="hidden"))
    y_hat = gc.nn.linear(h, 1, name="out")
    return gc.outputs(y_hat=y_hat, loss=gc.nn.mse(y_hat, y))


@gc.model
def language(ids: gc.i64["B", 3], labels: gc.i64["B"]):
    E = gc.param("E", (5, 2))
    e = gc.reshape(gc.take(E, ids, axis=0), (gc.dim("B"), 6))
    h = gc.tanh(gc.nn.linear(e, 4, name="hidden"))
    return gc.outputs(loss=gc.nn.cross_entropy(gc.nn.linear(h, 5, name="out"), labels))


@gc.model
def softmax(x: gc.f32["B", 3], y: gc.f32["B", 4]):
    p = gc.softmax(gc.nn.linear(x, 4))
    return gc.outputs(loss=-gc.sum(y * gc.log(p)))


@gc.model
def normal(x: gc.f32["B", "T"]):
    w = gc.param("w", (3,), init=1.0)
    u = gc.param("u", ("T",) if False else (1,), init=0.5)
    z = (x - gc.mean(x, axis=-1, keepdims=True)) * u
    return gc.outputs(loss=gc.sum(z[:, ::2] ** 2) + gc.sum(gc.maximum(w, 0.3)) * gc.max(z))


@gc.model
def pieces(x: gc.f32["B", 3]):
    a, b = gc.param("a", (3, 2)), gc.param("b", (2, 3))
    both = gc.concat([a.T, b], axis=0)
    c = gc.where(both > 0, gc.exp(both), gc.abs(both)) / (1 + both * both)
    return gc.outputs(loss=gc.sum(gc.einsum("ab,cb->ac", x, c) ** 2) + gc.sum(gc.max(c, axis=1)))


@gc.model
def activations(x: gc.f32["B", 2]):
    z = gc.nn.linear(x, 2)
    t = gc.gelu(z) + gc.silu(z) + gc.softplus(z) + gc.elu(z) + gc.leaky_relu(z) + gc.sqrt(1 + z * z)
    return gc.outputs(loss=gc.mean(t) + gc.mean(gc.stop_gradient(t) * t))


@gc.model
def penalised(x: gc.f32["B", 2]):
    """A gradient within the loss."""
    w = gc.param("w", (2,))
    energy = gc.sum(gc.tanh(x @ w))
    return gc.outputs(loss=energy + gc.sum(gc.grad(energy, w) ** 2))


@gc.model
def reshaped(x: gc.f32["B", 12]):
    w = gc.param("w", (2, 6))
    v = gc.reshape(w, (3, 4))
    return gc.outputs(loss=gc.sum(gc.reshape(x, (gc.dim("B"), 3, 4)) * v * gc.reshape(v.T, (3, 4))))


MODELS = [logistic, xor, language, softmax, normal, pieces, activations, penalised, reshaped]


def traced(model):
    models, name, _ = resolve([model])
    return trace_models(models, name, f64, {}, None)


def inputs(model, rng):
    given = {}
    for declared in gc.compile(model, target="numpy").signature.inputs:
        shape = tuple(e.evaluate(SIZES) for e in declared.shape)
        whole = declared.dtype.kind == "i"
        given[declared.name] = rng.integers(0, 5, shape) if whole else rng.uniform(0.1, 0.9, shape)
    return given


@pytest.mark.parametrize("model", MODELS, ids=lambda m: m.name)
def test_every_line_is_true(model):
    rng = np.random.default_rng(0)
    compiled = gc.compile(model, target="numpy")
    for array in compiled.params.values():
        array[...] = rng.uniform(-1, 1, array.shape)
    given = inputs(model, rng)
    outputs, gradients = compiled.value_and_grad(**given)
    module = traced(model)
    (question,) = questions(module, model.name)
    d = derive(module.entries[model.name], question.y, question.wrt)
    known = {**given, **compiled.params}
    arrays = {}
    for node, symbol in d.symbols.items():
        if node.op in ("input", "param"):
            arrays[symbol.name] = np.asarray(known[node.attr("name")])
        if node.op == "const":
            arrays[symbol.name] = node.attr("value").array
    names = [s.name for s in d.symbols.values()]
    assert len(set(names)) == len(names) and len({s.box for s in d.symbols.values()}) == len(names)
    ev = Evaluator(arrays, SIZES)

    def check_matrix(value, indices, array):
        whole = matrix_form(value, indices)
        if whole is not None:
            got = ev.whole(whole)
            np.testing.assert_allclose(np.broadcast_to(got, got.shape).reshape(array.shape), array, rtol=1e-9, atol=1e-12)

    for e in (*d.equations, *d.abbreviations):
        ev.arrays[e.symbol.name] = ev.define(e.symbol, e.indices, e.value)
        check_matrix(e.value, e.indices, ev.arrays[e.symbol.name])
    np.testing.assert_allclose(ev.arrays["L"], outputs["loss"], rtol=1e-12)
    for c in d.cotangents:
        array = ev.arrays[c.symbol.name] = ev.define(c.symbol, c.indices, c.general)
        for other in (c.inserted, c.closed, written_out(d, c.closed)):
            if other is not None:
                np.testing.assert_allclose(ev.define(c.symbol, c.indices, other), array, rtol=1e-9, atol=1e-12)
                check_matrix(other, c.indices, array)
        rows = by_rows(c.closed, c.indices[0]) if len(c.indices) == 1 else None
        if rows is not None:
            np.testing.assert_allclose(ev.value(rows, {}), array, rtol=1e-9)
        if c.node.op == "param":
            np.testing.assert_allclose(array, gradients[c.node.attr("name")], rtol=1e-9, atol=1e-12)
    derived = {c.node.attr("name") for c in d.cotangents if c.node.op == "param"}
    assert derived | {n.attr("name") for n in d.unreached} == set(gradients)
