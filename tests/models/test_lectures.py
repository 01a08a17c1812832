"""The numbers that the model pages state, and the mathematics behind them."""
from __future__ import annotations

import numpy as np
import pytest
import sympy as sp

import graphc as gc
from graphc.frontend.model import trace_models
from graphc.graph.node import postorder
from graphc.ops.elementwise import ROWS
from graphc.pipeline import DTYPES, lower, program_graph

F = np.float32


# -- computation graph -----------------------------------------------------------------------------------------------
def test_the_computation_graph(page):
    outputs, gradients = gc.compile(page("computation_graph").computation_graph).value_and_grad()
    assert {n: float(v) for n, v in outputs.items()} == {"d": 2, "e": 5, "loss": -10}
    assert {n: float(v) for n, v in gradients.items()} == {"a": -2, "b": -4, "c": 5}


# -- one unit --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name, y, slope", [("sigmoid", 0.6857, 0.2155), ("tanh", 0.6527, 0.5740), ("relu", 0.78, 1.0)])
def test_one_unit(page, name, y, slope):
    module = page("unit")
    m = gc.compile(getattr(module, f"{name}_unit"), dtype="float64")
    outputs, gradients = m.value_and_grad(x=np.array([[0.5, 0.6]]), t=np.ones(1))
    assert outputs["z"] == pytest.approx([0.78])
    assert outputs["y"] == pytest.approx([y], abs=5e-5)
    delta = (outputs["y"][0] - 1) * slope
    assert gradients["b"] == pytest.approx(delta, abs=5e-5)
    assert gradients["w"] == pytest.approx(delta * np.array([0.5, 0.6]), abs=5e-5)


def test_the_units_share_their_weights(page):
    module = page("unit")
    m = gc.compile(module.sigmoid_unit, module.tanh_unit, module.relu_unit)
    assert set(m.params) == {"w", "b"}
    m.params["b"][...] = -0.28
    assert m.relu_unit.forward(x=[[0.5, 0.6]])["y"] == pytest.approx(0, abs=1e-7)


# -- activations -----------------------------------------------------------------------------------------------------
def test_activations_and_their_derivatives(page):
    """At 0, 2 and −2, from the definitions."""
    from scipy.stats import norm
    s = lambda z: 1 / (1 + np.exp(-z))
    wanted = {
        "heaviside": (lambda z: float(z > 0), lambda z: 0.0),
        "sigmoid": (s, lambda z: s(z) * (1 - s(z))),
        "tanh": (np.tanh, lambda z: 1 - np.tanh(z) ** 2),
        "relu": (lambda z: max(z, 0.0), lambda z: float(z > 0)),
        "leaky_relu": (lambda z: z if z > 0 else 0.01 * z, lambda z: 1.0 if z > 0 else 0.01),
        "elu": (lambda z: z if z > 0 else np.exp(z) - 1, lambda z: 1.0 if z > 0 else np.exp(z)),
        "softplus": (lambda z: np.log(1 + np.exp(z)), s),
        "gelu": (lambda z: z * norm.cdf(z), lambda z: norm.cdf(z) + z * norm.pdf(z)),
    }
    module, points = page("activations"), np.array([0.0, 2.0, -2.0])
    m = gc.compile(*module.ACTIVATIONS, dtype="float64")
    assert set(wanted) == set(m.entries) - {"softmax"}
    for name, (value, slope) in wanted.items():
        found = m.entries[name].forward(points)
        np.testing.assert_allclose(found["y"], [value(z) for z in points], rtol=1e-13, err_msg=name)
        np.testing.assert_allclose(found["slope"], [slope(z) for z in points], rtol=1e-13, err_msg=name)
    found = m.softmax.forward(points)
    p = np.exp(points) / np.exp(points).sum()
    np.testing.assert_allclose(found["y"], p, rtol=1e-13)
    np.testing.assert_allclose(found["slope"], p[0] * ([1, 0, 0] - p), rtol=1e-12)


def test_activations_never_overflow(page):
    z = F([-1e30, -1000, -100, 100, 1000, 1e30])
    for name, entry in gc.compile(*page("activations").ACTIVATIONS).entries.items():
        found = entry.forward(z, outputs=["y", "slope"])
        assert np.isfinite(found["y"]).all() and np.isfinite(found["slope"]).all(), f"{name}: {found}"


def test_gelu_by_tanh_is_close_to_gelu():
    @gc.model
    def both(x: gc.f64["N"], slope: gc.f64):
        leaky = gc.leaky_relu(x, slope)
        return gc.outputs(erf=gc.gelu(x), tanh=gc.gelu(x, approximate="tanh"), learned=gc.grad(gc.sum(leaky), slope))

    x = np.linspace(-5, 5, 101)
    found = gc.compile(both, dtype="float64").forward(x, 0.2)
    assert 1e-5 < np.abs(found["erf"] - found["tanh"]).max() < 1e-3
    np.testing.assert_allclose(found["tanh"], 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))), atol=1e-15)
    assert found["learned"] == pytest.approx(x[x < 0].sum())  # a slope may be learned


def test_silu_and_the_steps():
    """Values and derivatives, far out too; the derivative of a step is 0 everywhere."""
    @gc.model
    def several(x: gc.f32["N"]):
        values = dict(silu=gc.silu(x), step=gc.step(x), sign=gc.sign(x), floor=gc.floor(x))
        return gc.outputs(**values, **{f"{n}_slope": gc.grad(gc.sum(v), x) for n, v in values.items()})

    x = F([-1e30, -200, -1.5, -0.0, 0, 1.5, 200, 1e30])
    found = gc.compile(several).forward(x)
    s = 1 / (1 + np.exp(-np.float64([-1.5, 0, 0, 1.5])))
    middle = np.float64(x[2:6])
    np.testing.assert_allclose(found["silu"], [0, 0, *(middle * s), 200, 1e30], rtol=1e-6, atol=1e-30)
    np.testing.assert_allclose(found["silu_slope"], [0, 0, *(s + middle * s * (1 - s)), 1, 1], rtol=1e-6, atol=1e-30)
    for name, wanted in (("step", np.heaviside(x, 0)), ("sign", np.sign(x)), ("floor", np.floor(x))):
        np.testing.assert_array_equal(found[name], wanted)
        assert not found[f"{name}_slope"].any()


def test_a_wrong_approximation_is_explained():
    @gc.model
    def wrong(x: gc.f32["N"]):
        return gc.outputs(y=gc.gelu(x, approximate="erf"))

    with pytest.raises(gc.GraphcError, match="no approximation 'erf'"):
        gc.compile(wrong)


# -- perceptron and XOR ----------------------------------------------------------------------------------------------
def rounds(page, task, most=100):
    """(mistakes in each round until there is one without; the weights after each round)"""
    module = page("perceptron")
    m = gc.compile(module.perceptron)
    table = module.data(task).train
    mistakes, weights = [], []
    while len(mistakes) < most and (not mistakes or mistakes[-1]):
        mistakes.append(sum(float(m.forward(x=table["x"][i:i + 1], y=table["y"][i:i + 1])["loss"]) for i in range(4)))
        weights.append((*m.params["w"].tolist(), float(m.params["b"])))
    return m, table, mistakes, weights


@pytest.mark.parametrize("task", ["and", "or"])
def test_the_perceptron_learns(page, task):
    m, table, mistakes, _ = rounds(page, task)
    assert mistakes[-1] == 0 and 2 <= len(mistakes) <= 10
    np.testing.assert_array_equal(m.forward(x=table["x"])["y_hat"], table["y"])


def test_the_perceptron_does_not_learn_xor(page):
    """It never gets through a round without a mistake, and it cannot: its weights come back."""
    _, _, mistakes, weights = rounds(page, "xor")
    assert len(mistakes) == 100 and min(mistakes) > 0
    assert len(set(weights)) < 20


def test_the_perceptron_names_its_tasks(page):
    with pytest.raises(gc.GraphcError, match="'nand'"):
        page("perceptron").data("nand")


TABLE = F([[0, 0], [0, 1], [1, 0], [1, 1]])


def test_the_known_weights_of_xor(page):
    m = gc.compile(page("xor").xor, hidden=2)
    m.params["hidden/W"][...] = 1
    m.params["hidden/b"][...] = [0, -1]
    m.params["out/W"][...] = [[1], [-2]]
    m.params["out/b"][...] = 0
    outputs, gradients = m.value_and_grad(x=TABLE, y=F([[0], [1], [1], [0]]))
    np.testing.assert_array_equal(outputs["y_hat"], [[0], [1], [1], [0]])
    assert outputs["loss"] == 0 and all(not g.any() for g in gradients.values())


def test_xor_is_learned(page):
    module = page("xor")
    m = gc.compile(module.xor, optimiser=gc.train.Adam(0.05))
    history = gc.train.fit(m, module.data(), epochs=20).history
    assert history[-1].train["loss"] < 1e-3
    np.testing.assert_allclose(m.forward(x=TABLE)["y_hat"].ravel(), [0, 1, 1, 0], atol=0.05)


# -- logistic regression ---------------------------------------------------------------------------------------------
def symbolic(roots, leaves, batch):
    """Values of nodes over SymPy symbols: the rows' mathematics, and NumPy for what moves elements."""
    values = dict(leaves)
    for node in postorder(roots, set(values)):
        x = [values[o] for o in node.operands]
        if node.op == "const":
            value = np.vectorize(sp.nsimplify, otypes=[object])(node.attr("value").array)
        elif node.op == "size":
            value = np.array(sp.Integer(node.attr("value").evaluate({"B": batch})), object)
        elif node.op in ROWS:
            value = np.frompyfunc(ROWS[node.op].math, len(x), 1)(*x)
        elif node.op == "einsum":
            value = np.einsum(node.attr("spec"), *x)
        elif node.op == "sum":
            value = x[0].sum(axis=node.attr("axes"))
        else:
            assert node.op in ("broadcast_to", "reshape"), node.op
            shape = tuple(e.evaluate({"B": batch}) for e in node.shape)
            value = np.broadcast_to(x[0], shape) if node.op == "broadcast_to" else x[0].reshape(shape)
        values[node] = np.asarray(value, object)
    return [values[r] for r in roots]


def test_the_gradient_of_logistic_regression_symbolically(page):
    """For two examples of symbols the derived graph is ((σ(w·x + b) − y) x), averaged: an identity, not a number."""
    module = trace_models([page("logistic_regression").logistic_regression], "logistic", DTYPES["float64"], {})
    graph, _ = lower(program_graph(module, "logistic_regression", "gradient"), stop_after="differentiate")
    leaves = {}
    for node in postorder(list(graph.outputs.values())):
        if node.op in ("input", "param"):
            shape = tuple(e.evaluate({"B": 2}) for e in node.shape)
            names = [f"{node.attr('name')}{''.join(f'_{i}' for i in place)}" for place in np.ndindex(shape)]
            leaves[node] = np.array([sp.Symbol(n, real=True) for n in names], object).reshape(shape)
    x, y, w, b = (next(v for n, v in leaves.items() if n.attr("name") == name) for name in "xywb")
    dw, db = symbolic([graph.outputs["grad:w"], graph.outputs["grad:b"]], leaves, 2)

    z = [sum(x[i] * w) + b.item() for i in range(2)]
    error = [1 / (1 + sp.exp(-z[i])) - y[i] for i in range(2)]
    # with one symbol for w·x + b, which is all that SymPy has to know of it
    short = {z[i]: sp.Symbol(f"z_{i}", real=True) for i in range(2)}
    flat = lambda e: sp.sympify(e).subs(short).subs({-k: -v for k, v in short.items()})
    assert sp.simplify(flat(db.item()) - flat(sum(error) / 2)) == 0
    for k in (0, 29):
        wanted = sum(error[i] * x[i, k] for i in range(2)) / 2
        assert sp.simplify(flat(dw[k]) - flat(wanted)) == 0


def test_the_gradient_of_logistic_regression_in_numbers(page):
    rng = np.random.default_rng(0)
    x, y, w = rng.standard_normal((7, 30)), (rng.random(7) < 0.5).astype(float), rng.standard_normal(30)
    m = gc.compile(page("logistic_regression").logistic_regression, dtype="float64")
    m.params["w"][...], m.params["b"][...] = w, 0.3
    outputs, gradients = m.value_and_grad(x=x, y=y)
    p = 1 / (1 + np.exp(-(x @ w + 0.3)))
    np.testing.assert_allclose(outputs["p"], p, rtol=1e-12)
    np.testing.assert_allclose(gradients["w"], ((p - y)[:, None] * x).mean(0), rtol=1e-11, atol=1e-14)
    np.testing.assert_allclose(gradients["b"], (p - y).mean(), rtol=1e-11)


def test_logistic_regression_is_finite_where_p_rounds_to_one(page):
    m = gc.compile(page("logistic_regression").logistic_regression)
    m.params["w"][...] = 1000
    outputs, gradients = m.value_and_grad(x=np.ones((1, 30), F), y=np.zeros(1, F))
    assert outputs["loss"] == 30000 and gradients["b"] == 1


# -- networks --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("widths", [(), (5,), (4, 3, 4, 3)])
def test_a_network_of_any_depth(page, widths):
    """Forwards and backwards by the two lines of the page, in NumPy with columns as there."""
    m = gc.compile(page("mlp").mlp, widths=widths, activation="tanh", dtype="float64")
    k, rng = len(widths) + 1, np.random.default_rng(1)
    assert m.params[f"layer{k}/W"].shape[1] == 10 and len(m.params) == 2 * k
    for name in m.params:
        m.params[name][...] = rng.standard_normal(m.params[name].shape)
    x, label = rng.standard_normal((6, 64)), rng.integers(0, 10, 6)
    W = {i: m.params[f"layer{i}/W"].T for i in range(1, k + 1)}
    a, z = {0: x.T}, {}
    for i in range(1, k + 1):
        z[i] = W[i] @ a[i - 1] + m.params[f"layer{i}/b"][:, None]
        a[i] = np.tanh(z[i])
    y_hat = np.exp(z[k]) / np.exp(z[k]).sum(0)
    delta = {k: (y_hat - np.eye(10)[label].T) / 6}
    for i in range(k - 1, 0, -1):
        delta[i] = (W[i + 1].T @ delta[i + 1]) * (1 - a[i] ** 2)
    outputs, gradients = m.value_and_grad(x=x, y=label)
    np.testing.assert_allclose(outputs["y_hat"], y_hat.T, rtol=1e-10, atol=1e-13)
    for i in range(1, k + 1):
        np.testing.assert_allclose(gradients[f"layer{i}/W"], (delta[i] @ a[i - 1].T).T, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(gradients[f"layer{i}/b"], delta[i].sum(1), rtol=1e-9, atol=1e-12)


# -- gradient descent ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("eta", [0.25, 1.0, 1.5, 2.0, 2.5])
def test_gradient_descent(page, eta):
    """x after k steps is (1 − η)ᵏ x₀; these learning rates are exact in binary."""
    points = page("gradient_descent").path(eta, steps=8)
    assert [x for x, _ in points] == [4 * (1 - eta) ** k for k in range(8)]
    assert [f for _, f in points] == [x * x / 2 for x, _ in points]


# -- eigenvalues -----------------------------------------------------------------------------------------------------
def test_growth_and_decay(page):
    m = gc.compile(page("eigen").eigen, steps=50, dtype="float64")
    W = m.params["W"]
    values, vectors = np.linalg.eigh(W)
    np.testing.assert_allclose(values, [0.6, 1.1])
    for value, vector in zip(values, vectors.T, strict=True):
        h = m.forward(vector)["h"]
        np.testing.assert_allclose(h, value ** np.arange(51)[:, None] * vector, atol=1e-12)
    h0 = np.array([0.3, -0.8])
    found = m.forward(h0)
    power = np.linalg.matrix_power(W, 50)
    np.testing.assert_allclose(found["h"][-1], power @ h0, rtol=1e-12)
    np.testing.assert_allclose(found["h0_slope"], power.T @ power @ h0, rtol=1e-12)


def test_the_gradient_of_a_matrix_power(page):
    """∂L/∂W = Σ_t (Wᵀ)^(T−1−t) h_T h_tᵀ for L = ½|h_T|²."""
    m = gc.compile(page("eigen").eigen, steps=6, dtype="float64")
    W = m.params["W"]
    W[...] = [[0.4, -0.7], [0.9, 0.3]]
    h = m.forward(np.array([1.0, 2.0]))["h"]
    _, gradients = m.value_and_grad(np.array([1.0, 2.0]))
    wanted = sum(np.outer(np.linalg.matrix_power(W.T, 5 - t) @ h[6], h[t]) for t in range(6))
    np.testing.assert_allclose(gradients["W"], wanted, rtol=1e-12)


# -- losses ----------------------------------------------------------------------------------------------------------
def slopes_are(entry, inputs, loss, slope):
    found = entry.forward(*inputs)
    np.testing.assert_allclose(found["loss"], loss, rtol=1e-12, err_msg=entry.name)
    np.testing.assert_allclose(found["slope"], slope, rtol=1e-10, atol=1e-15, err_msg=entry.name)


def test_losses_and_their_slopes(page):
    """The right column of the page, in NumPy."""
    from scipy.special import rel_entr, softmax
    names = ("mse", "mae", "huber", "binary_cross_entropy", "hinge", "cross_entropy", "kl_divergence")
    m = gc.compile(*(getattr(page("losses"), n) for n in names), delta=1.5, dtype="float64")
    numbers = np.array([1.0, 2.0, 3.0, -4.0]), np.array([1.0, 1.0, 5.5, 0.0])
    r = numbers[0] - numbers[1]
    slopes_are(m.mse, numbers, (r**2).mean(), 2 * r / 4)
    slopes_are(m.mae, numbers, np.abs(r).mean(), np.sign(r) / 4)
    slopes_are(m.huber, numbers, (0 + 0.5 + 1.5 * (2.5 - 0.75) + 1.5 * (4 - 0.75)) / 4, np.clip(r, -1.5, 1.5) / 4)

    z, y = np.array([2.0, -0.5, 0.5, -3.0]), np.array([1.0, 1.0, 0.0, 0.0])
    s = 1 / (1 + np.exp(-z))
    slopes_are(m.binary_cross_entropy, (z, y), -np.mean(y * np.log(s) + (1 - y) * np.log(1 - s)), (s - y) / 4)
    slopes_are(m.hinge, (z, y), (0 + 1.5 + 1.5 + 0) / 4, np.array([0, -1, 1, 0]) / 4)

    rng = np.random.default_rng(2)
    z, label, p = rng.standard_normal((4, 3)), np.array([0, 2, 1, 1]), softmax(rng.standard_normal((4, 3)), axis=1)
    p[0] = [1, 0, 0]  # 0 log 0 is 0
    q = softmax(z, axis=1)
    slopes_are(m.cross_entropy, (z, label), -np.log(q[np.arange(4), label]).mean(), (q - np.eye(3)[label]) / 4)
    slopes_are(m.kl_divergence, (z, p), rel_entr(p, q).sum(1).mean(), (q - p) / 4)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_reductions(reduction):
    @gc.model
    def reduced(a: gc.f64["B", 3], b: gc.f64["B", 3]):
        nn = gc.nn
        return gc.outputs(**{f.__name__: f(a, b, reduction=reduction) for f in (nn.mae, nn.huber, nn.hinge, nn.kl_divergence)})

    a, b = np.full((2, 3), 2.0), np.full((2, 3), 0.5)
    found = gc.compile(reduced, dtype="float64").forward(a, b)
    each = dict(mae=np.full((2, 3), 1.5), huber=np.full((2, 3), 1.0), hinge=np.zeros((2, 3)), kl_divergence=np.full(2, 1.5 * np.log(1.5)))
    for name, values in each.items():
        wanted = values if reduction == "none" else values.sum() if reduction == "sum" else values.mean()
        np.testing.assert_allclose(found[name], wanted, rtol=1e-14, err_msg=name)


@pytest.mark.parametrize("name", ["mae", "huber", "hinge", "kl_divergence"])
def test_a_loss_does_not_broadcast(name):
    @gc.model
    def wrong(a: gc.f32["B", 1], b: gc.f32["B"]):
        return gc.outputs(loss=getattr(gc.nn, name)(a, b))

    with pytest.raises(gc.GraphcError, match=f"{name}: the shapes differ"):
        gc.compile(wrong)


# -- pictures --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["activations", "gradient_descent", "eigen"])
def test_it_draws(page, name, tmp_path):
    pytest.importorskip("matplotlib", reason="drawing needs matplotlib")
    page(name).plot(tmp_path / "picture.png")
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")
