"""The optimisers against NumPy, written from the papers' and PyTorch's formulas."""

import numpy as np
import pytest

import graphc as gc
from graphc.train import SGD, Adam, AdamW

RNG = np.random.default_rng(0)
X, Y = RNG.standard_normal((16, 5)), RNG.standard_normal((16, 2))
W, B = RNG.standard_normal((5, 2)), np.zeros(2)
STEPS = 30


@gc.model
def line(x: gc.f32["B", 5], y: gc.f32["B", 2]):
    y_hat = x @ gc.param("W", (5, 2)) + gc.param("b", (2,))
    return gc.outputs(y_hat=y_hat, loss=gc.nn.mse(y_hat, y))


def gradients(p):
    """Of the mean squared error, by hand."""
    e = 2 * (X @ p["W"] + p["b"] - Y) / Y.size
    return {"W": X.T @ e, "b": e.sum(0)}


def sgd(p, g, s, t, lr=1e-2, momentum=0.0, nesterov=False, weight_decay=0.0):
    d = g + weight_decay * p
    if momentum:
        s["v"] = momentum * s.get("v", 0) + d
        d = d + momentum * s["v"] if nesterov else s["v"]
    return p - lr * d


def adam(p, g, s, t, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0, decoupled=False):
    if decoupled:
        p = p - lr * weight_decay * p
    else:
        g = g + weight_decay * p
    s["m"] = betas[0] * s.get("m", 0) + (1 - betas[0]) * g
    s["v"] = betas[1] * s.get("v", 0) + (1 - betas[1]) * g * g
    m, v = s["m"] / (1 - betas[0] ** t), s["v"] / (1 - betas[1] ** t)
    return p - lr * m / (np.sqrt(v) + eps)


CASES = {
    "sgd": (SGD(0.1), lambda *a: sgd(*a, lr=0.1)),
    "sgd with weight decay": (SGD(0.1, weight_decay=0.1), lambda *a: sgd(*a, lr=0.1, weight_decay=0.1)),
    "momentum": (SGD(0.1, momentum=0.9), lambda *a: sgd(*a, lr=0.1, momentum=0.9)),
    "nesterov": (SGD(0.1, 0.9, True, 0.01), lambda *a: sgd(*a, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01)),
    "adam": (Adam(), adam),
    "adam of other settings": (
        Adam(0.05, (0.5, 0.9), 1e-3, 0.1),
        lambda *a: adam(*a, lr=0.05, betas=(0.5, 0.9), eps=1e-3, weight_decay=0.1),
    ),
    "adam without its first memory": (Adam(0.05, (0.0, 0.9)), lambda *a: adam(*a, lr=0.05, betas=(0.0, 0.9))),
    "adamw": (AdamW(0.01, weight_decay=0.1), lambda *a: adam(*a, lr=0.01, weight_decay=0.1, decoupled=True)),
}


def begun(optimiser, **options):
    m = gc.compile(line, optimiser=optimiser, **options)
    m.params["W"], m.params["b"] = W, B
    return m


@pytest.mark.parametrize("name", CASES)
def test_against_numpy(name):
    optimiser, formula = CASES[name]
    m = begun(optimiser, dtype="float64")
    p, memory = {"W": W, "b": B}, {"W": {}, "b": {}}
    for t in range(1, STEPS + 1):
        g = gradients(p)
        p = {n: formula(p[n], g[n], memory[n], t) for n in p}
        m.step(x=X, y=Y)
        for n in p:
            np.testing.assert_allclose(m.params[n], p[n], rtol=1e-12, atol=1e-13, err_msg=f"{n} at step {t}")


def test_in_float32_the_first_steps_are_exact_too():
    m = begun(Adam(0.01))
    m.step(x=X.astype("f4"), y=Y.astype("f4"))
    first = adam(W, gradients({"W": W, "b": B})["W"], {}, 1, lr=0.01)
    np.testing.assert_allclose(W - m.params["W"], W - first, rtol=2e-4)  # a step of 0.01 on weights of about 1


def test_the_learning_rate_can_be_changed_between_steps():
    m = begun(SGD(0.1), dtype="float64")
    m.step(x=X, y=Y)
    p = {"W": W, "b": B}
    for lr in (0.1, 0.01):
        g = gradients(p)
        p = {n: p[n] - lr * g[n] for n in p}
    m.states["optimiser/lr"][...] = 0.01
    m.step(x=X, y=Y)
    np.testing.assert_allclose(m.params["W"], p["W"], rtol=1e-12)


def test_the_step_gives_the_outputs_before_it():
    m = begun(SGD(0.1), dtype="float64")
    out = m.step(x=X, y=Y)
    np.testing.assert_allclose(out["y_hat"], X @ W + B, rtol=1e-12)


def test_the_memory_is_states_of_the_model():
    m = begun(Adam())
    m.step(x=X.astype("f4"), y=Y.astype("f4"))
    assert set(m.states) == {f"optimiser/{n}" for n in ("lr", "step", "W/m", "W/v", "b/m", "b/v")}
    assert m.states["optimiser/step"] == 1 and m.states["optimiser/W/v"].any()
    m.reset()
    assert m.states["optimiser/step"] == 0 and not m.states["optimiser/W/v"].any()


@pytest.mark.parametrize(
    "make",
    [
        lambda: SGD(0),
        lambda: SGD(momentum=1),
        lambda: SGD(nesterov=True),
        lambda: Adam(betas=(0.9, 1)),
        lambda: AdamW(weight_decay=-1),
    ],
)
def test_settings_out_of_range(make):
    with pytest.raises(gc.GraphcError, match=r"optimiser|Nesterov"):
        make()


def test_a_parameter_that_is_not_trainable_stays():
    @gc.model
    def net(x: gc.f32["B", 5]):
        y = x @ gc.param("W", (5, 1)) + gc.param("c", (), init=2, trainable=False)
        return gc.outputs(loss=gc.mean(y**2))

    m = gc.compile(net, optimiser=Adam())
    before = m.params["W"].copy()
    m.step(x=X.astype("f4"))
    assert m.params["c"] == 2 and (m.params["W"] != before).all()


def test_a_model_without_an_optimiser_has_no_step():
    with pytest.raises(gc.GraphcError, match="optimiser"):
        gc.compile(line).step(x=X.astype("f4"), y=Y.astype("f4"))


# -- clipping --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("make, rule", [(SGD, sgd), (Adam, adam), (AdamW, lambda *a: adam(*a, lr=0.1, weight_decay=1e-2, decoupled=True))])
@pytest.mark.parametrize("clip", [1e-3, 0.3, 1e3])
def test_gradients_are_scaled_down_to_a_norm(make, rule, clip):
    """All gradients as one vector; those of a smaller norm stay as they are, up to rounding."""
    m = gc.compile(line, dtype="float64", optimiser=make(0.1, clip=clip))
    p, memory = {"W": W.copy(), "b": B.copy()}, {"W": {}, "b": {}}
    m.params["W"], m.params["b"] = W, B
    for t in range(1, 6):
        g = gradients(p)
        norm = np.sqrt(sum((d**2).sum() for d in g.values()))
        factor = min(1, clip / (norm + 1e-6))
        step = rule if make is AdamW else lambda *a: rule(*a, lr=0.1)
        p = {n: step(p[n], factor * g[n], memory[n], t) for n in p}
        m.step(x=X, y=Y)
        for name, value in p.items():
            np.testing.assert_allclose(m.params[name], value, rtol=1e-9, atol=1e-12)


def test_clipping_is_pytorchs():
    torch = pytest.importorskip("torch")
    m = gc.compile(line, dtype="float64", optimiser=SGD(1.0, clip=0.5))
    m.params["W"], m.params["b"] = W, B
    g = [torch.nn.Parameter(torch.zeros(a.shape, dtype=torch.float64)) for a in (W, B)]
    for tensor, value in zip(g, gradients({"W": W, "b": B}).values()):
        tensor.grad = torch.tensor(value)
    torch.nn.utils.clip_grad_norm_(g, 0.5)
    m.step(x=X, y=Y)
    np.testing.assert_allclose(m.params["W"], W - g[0].grad.numpy(), rtol=1e-12)
    np.testing.assert_allclose(m.params["b"], B - g[1].grad.numpy(), rtol=1e-12)


@pytest.mark.parametrize("clip", [0, -1.0, float("nan")])
def test_a_norm_to_clip_to_is_above_zero(clip):
    with pytest.raises(gc.GraphcError, match="largest norm of the gradients is above 0"):
        Adam(clip=clip)
