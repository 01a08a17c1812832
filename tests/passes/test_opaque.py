"""Rules and gradients: what a gradient is taken of stays where it is; stop_gradient counts until gradients are there."""
from __future__ import annotations

import numpy as np
import pytest

import graphc as gc
from graphc.frontend.model import trace_models
from graphc.graph.dtype import f64
from graphc.pipeline import STAGES, lower
from tests.fuzz.check import check_graphs
from tests.fuzz.evaluate import evaluate
from tests.fuzz.generate import Given, Program

X = Given("input", ("3", "4"), np.random.default_rng(0).uniform(0.3, 1.5, (3, 4)).round(2))
V = Given("input", ("4",), np.array([0.5, -1.0, 0.25, 2.0]))


def program(*lines, wrt, loss="gc.sum(gc.sin(y) * x1)"):
    named = [line.split(" = ", 1) for line in lines]
    return Program({}, {"x0": X, "x1": V}, tuple((n, e) for n, e in named), (), {}, loss, (wrt,))


INNER = {
    "softmax": ("e = gc.exp(x0)", "y = e / gc.sum(e, axis=1, keepdims=True)"),
    "softmax's sum": ("q = gc.exp(x0)", "e = gc.sum(q, axis=1, keepdims=True)", "y = q / e"),
    "quotient": ("q = gc.exp(x0)", "e = 1 / gc.sum(q, axis=1, keepdims=True)", "y = q * e"),
    "logsumexp": ("e = gc.exp(x0)", "y = gc.log(gc.sum(e, axis=0))"),
    "log of a sum": ("e = gc.sum(gc.exp(x0), axis=0)", "y = gc.log(e)"),
    "log of a quotient": ("q = gc.exp(x0)", "e = q / gc.sum(q, axis=1, keepdims=True)", "y = gc.log(e)"),
    "log of an exponential": ("e = gc.exp(x0)", "y = gc.log(e)"),
    "log of a moved exponential": ("q = gc.exp(x0)", "e = gc.transpose(q)", "y = gc.log(e).T"),
    "sigmoid": ("e = gc.exp(-x0)", "y = 1 / (1 + e)"),
    "sigmoid's sum": ("e = 1 + gc.exp(-x0)", "y = 1 / e"),
    "sigmoid's negation": ("e = -x0", "y = 1 / (1 + gc.exp(e))"),
    "1 - sigmoid": ("e = gc.sigmoid(x0)", "y = 1 - e"),
    "log sigmoid": ("e = gc.sigmoid(x0)", "y = gc.log(e)"),
    "softplus": ("e = gc.exp(x0)", "y = gc.log(1 + e)"),
    "softplus's sum": ("e = 1 + gc.exp(x0)", "y = gc.log(e)"),
    "softplus of log1p": ("e = gc.exp(x0)", "y = gc.log1p(e)"),
    "log1p": ("e = 1 + x0", "y = gc.log(e)"),
    "expm1": ("e = gc.exp(x0)", "y = e - 1"),
    "tanh": ("e = gc.exp(x0)", "q = gc.exp(-x0)", "y = (e - q) / (e + q)"),
    "tanh's sum": ("a = gc.exp(x0)", "q = gc.exp(-x0)", "e = a + q", "y = (a - q) / e"),
    "reshape of a reshape": ("e = gc.reshape(x0, (12,))", "y = gc.reshape(e, (6, 2))[:, :1]"),
    "expand_dims, twice": ("e = gc.expand_dims(x0, 0)", "y = e[..., None][0, :, :, 0]"),
    "transpose of a transpose": ("e = x0.T", "y = gc.exp(e.T)"),
    "broadcast of a broadcast": ("e = gc.broadcast_to(x1, (3, 4))", "y = gc.broadcast_to(e, (2, 3, 4)) * x0"),
    "common subexpression": ("e = x0 + x1", "q = x1 + x0", "y = q * e"),
    "constant": ("e = gc.const(np.ones(4)) * 2", "y = e * x0"),
    "negation": ("e = -x0", "y = x1 - e"),
    "a choice": ("e = gc.where(x0 > 0.7, x0, 0.5)", "y = gc.where(x0 > 0.7, e, 1.0) * x1"),
    "stop_gradient": ("e = gc.stop_gradient(x0)", "y = e * x0"),
}


@pytest.mark.parametrize("name", INNER)
def test_a_gradient_by_an_intermediate_value_is_right(name):
    """Each pattern that a rule rewrites, with the gradient taken of a value inside it: by differences of that value."""
    if name == "common subexpression":  # equal expressions are one value, so q moves with e
        p = program("e = x0 + x1", "y = e * e", wrt="e")
    else:
        p = program(*INNER[name], wrt="e")
    check_graphs(p)


def test_the_differences_see_a_wrong_gradient():
    """The gradient of the constant part is not zero here, so a rule that hides e would be noticed."""
    p = program(*INNER["log of an exponential"], wrt="e")
    outputs = check_graphs(p)
    assert np.abs(outputs["d_e"]).max() > 0.01


@gc.model
def stopped(x: gc.f64[3]):
    frozen = gc.stop_gradient(x * 2)
    y = gc.sum(frozen * x + gc.stop_gradient(gc.exp(x)))
    return gc.outputs(y=y, d=gc.grad(y, x), gate=gc.grad(gc.sum(gc.stop_gradient(gc.sigmoid(x)) * x), x))


def test_stop_gradient_counts_until_gradients_are_expanded():
    graph = trace_models([stopped], "stopped", f64, {}).entries["stopped"]
    ops = {stage: {n.op for n in lower(graph, stop_after=stage)[0].nodes} for stage in STAGES[:5]}
    assert all("stop_gradient" in ops[stage] for stage in STAGES[:3]), "it must still stand when gradients are taken"
    assert "stop_gradient" not in ops[STAGES[4]], "and cost nothing afterwards"
    assert "grad" in ops[STAGES[2]] and "grad" not in ops[STAGES[3]]
    values = {"x": np.array([0.5, -1.0, 2.0])}
    out, _ = evaluate(lower(graph, stop_after=STAGES[4])[0], values, {})
    np.testing.assert_allclose(out["d"], 2 * values["x"])
    np.testing.assert_allclose(out["gate"], 1 / (1 + np.exp(-values["x"])))


def test_softmax_is_stabilised_before_it_is_differentiated():
    @gc.model
    def net(x: gc.f64["B", 3]):
        e = gc.exp(x)
        return gc.outputs(d=gc.grad(gc.sum((e / gc.sum(e, axis=1, keepdims=True))[:, 0]), x))

    graph = trace_models([net], "net", f64, {}).entries["net"]
    for stage in STAGES[3:5]:
        expanded, _ = lower(graph, stop_after=stage)
        values = {"x": np.array([[1000.0, 999.0, -1000.0], [-1e4, -1e4, 3.0]])}
        d = evaluate(expanded, values, {"B": 2})[0]["d"]
        p = np.exp(-1) / (1 + np.exp(-1))
        np.testing.assert_allclose(d, [[p * (1 - p), -p * (1 - p), 0], [0, 0, 0]], atol=1e-12)


def test_origins_are_carried_through():
    """Every node of every stage knows a line of the model."""
    graph = trace_models([stopped], "stopped", f64, {}).entries["stopped"]
    for stage in STAGES[:5]:
        staged, _ = lower(graph, stop_after=stage)
        lost = [n for n in staged.nodes if n.op not in ("const", "size") and staged.tables.source(n) is None]
        assert not lost, (stage, lost)
