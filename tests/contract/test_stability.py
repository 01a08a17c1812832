"""Softmax, log-sum-exp, cross-entropy and sigmoid cross-entropy in float32, called or spelt out, far from zero."""
import numpy as np
import pytest
import scipy.special

import graphc as gc

TINY = 1.2e-38                                                         # below the smallest normal number of float32
ROWS = np.array([[1000, 999, -1000], [-1000, -1000, -1000], [1000, 1000, 1000], [100, 0, -100], [-100, -101, -99],
                 [0, 0, 0], [-1000, 0, 1000], [1, 2, 3], [-0.5, 88, 89], [-104, -90, -103]], np.float32)
LABELS = np.array([1, 0, 2, 2, 1, 0, 0, 1, 0, 2])
PICK = np.eye(3, dtype=np.float32)[LABELS]
WEIGHTS = np.linspace(-1, 2, ROWS.size, dtype=np.float32).reshape(ROWS.shape)
POINTS = np.array([-1000, -100, 0, 100, 1000, -89, -20, -1, 1, 20, 89], np.float32)


def total(a, keepdims=True):
    return gc.sum(gc.exp(a), axis=-1, keepdims=keepdims)


def shifted(a):
    e = gc.exp(a - gc.max(a, axis=-1, keepdims=True))
    return e / gc.sum(e, axis=-1, keepdims=True)


SOFTMAX = {
    "called": lambda a: gc.softmax(a, axis=-1),
    "spelt": lambda a: gc.exp(a) / total(a),
    "times_inverse": lambda a: gc.exp(a) * (1 / total(a)),
    "shifted": shifted,
    "exp_of_log": lambda a: gc.exp(gc.log_softmax(a, axis=-1)),
    "through_logsumexp": lambda a: gc.exp(a - gc.reshape(gc.logsumexp(a, axis=-1), (ROWS.shape[0], 1))),
    "columns": lambda a: gc.transpose(gc.exp(gc.transpose(a)) / gc.sum(gc.exp(gc.transpose(a)), axis=0)),
}
LOG_SOFTMAX = {
    "called": lambda a: gc.log_softmax(a, axis=-1),
    "log_of_softmax": lambda a: gc.log(gc.softmax(a, axis=-1)),
    "spelt": lambda a: gc.log(gc.exp(a) / total(a)),
    "shifted": lambda a: gc.log(shifted(a)),
    "difference": lambda a: a - gc.log(total(a)),
    "difference_of_called": lambda a: a - gc.reshape(gc.logsumexp(a, axis=-1), (ROWS.shape[0], 1)),
}
LOGSUMEXP = {
    "called": lambda a: gc.logsumexp(a, axis=-1),
    "spelt": lambda a: gc.log(total(a, keepdims=False)),
    "spelt_keepdims": lambda a: gc.log(total(a))[:, 0],
    "by_hand": lambda a: gc.max(a, axis=-1) + gc.log(total(a - gc.max(a, axis=-1, keepdims=True), keepdims=False)),
}
CROSS_ENTROPY = {
    "called": lambda a: gc.nn.cross_entropy(a, gc.const(LABELS), reduction="none"),
    "picked_log_softmax": lambda a: -gc.sum(gc.const(PICK) * gc.log_softmax(a, axis=-1), axis=-1),
    "picked_log_of_softmax": lambda a: -gc.sum(gc.const(PICK) * gc.log(gc.softmax(a, axis=-1)), axis=-1),
    "picked_spelt": lambda a: -gc.sum(gc.const(PICK) * gc.log(gc.exp(a) / total(a)), axis=-1),
}

SIGMOID = {
    "called": lambda x: gc.sigmoid(x),
    "spelt": lambda x: 1 / (1 + gc.exp(-x)),
    "other_order": lambda x: 1.0 / (gc.exp(-x) + 1.0),
}
SOFTPLUS = {
    "spelt": lambda x: gc.log(1 + gc.exp(x)),
    "other_order": lambda x: gc.log(gc.exp(x) + 1.0),
    "log1p": lambda x: gc.log1p(gc.exp(x)),
    "minus_log_sigmoid": lambda x: -gc.log(gc.sigmoid(-x)),
    "minus_log_spelt": lambda x: -gc.log(1 / (1 + gc.exp(x))),
    "minus_log_rest": lambda x: -gc.log(1 - gc.sigmoid(x)),
}


def binary(p, y):
    return -y * gc.log(p) - (1 - y) * gc.log(1 - p)


def bracketed(p, y):
    return -(y * gc.log(p) + (1 - y) * gc.log(1 - p))


BINARY = {
    "called": lambda x, y: gc.nn.binary_cross_entropy(x, y, reduction="none"),
    "sigmoid": lambda x, y: binary(gc.sigmoid(x), y),
    "bracketed": lambda x, y: bracketed(gc.sigmoid(x), y),
    "spelt": lambda x, y: binary(1 / (1 + gc.exp(-x)), y),
    "spelt_bracketed": lambda x, y: bracketed(1 / (1 + gc.exp(-x)), y),
    "reordered": lambda x, y: (y - 1) * gc.log(1 - gc.sigmoid(x)) - y * gc.log(gc.sigmoid(x)),
}


def compile_forms(forms, shape, *constants, weights=None):
    """One model: each form over a parameter of its own; the loss is the weighted sum of all elements of all forms."""
    @gc.model
    def net():
        outputs, loss = {}, 0.0
        for name, form in forms.items():
            y = form(gc.param(name, shape), *[gc.const(c) for c in constants])
            outputs[f"{name}_value"], loss = y, loss + gc.sum(y if weights is None else y * gc.const(weights))
        return gc.outputs(loss=loss, **outputs)
    return gc.compile(net)


def results(forms, at, *constants, weights=None):
    m = compile_forms(forms, at.shape, *constants, weights=weights)
    for name in forms:
        m.params[name][...] = at
    out, grads = m.value_and_grad()
    return {name: (np.asarray(out[f"{name}_value"]), np.asarray(grads[name])) for name in forms}


P = scipy.special.softmax(ROWS.astype(float), axis=-1)
LOG_P = scipy.special.log_softmax(ROWS.astype(float), axis=-1)


@pytest.fixture(scope="module")
def softmaxes():
    return results(SOFTMAX, ROWS, weights=WEIGHTS)


@pytest.fixture(scope="module")
def log_softmaxes():
    return results(LOG_SOFTMAX, ROWS, weights=WEIGHTS)


@pytest.fixture(scope="module")
def logsumexps():
    return results(LOGSUMEXP, ROWS)


@pytest.fixture(scope="module")
def cross_entropies():
    return results(CROSS_ENTROPY, ROWS)


@pytest.mark.parametrize("form", SOFTMAX)
def test_softmax(softmaxes, form):
    value, grad = softmaxes[form]
    rounded = form == "through_logsumexp"                              # 1000.3 holds only four digits after the point
    np.testing.assert_allclose(value, P, rtol=1e-4 if rounded else 1e-5, atol=TINY)
    want = P * (WEIGHTS - (P * WEIGHTS).sum(-1, keepdims=True))
    np.testing.assert_allclose(grad, want, rtol=1e-5, atol=2e-4 if rounded else 1e-6)


@pytest.mark.parametrize("form", LOG_SOFTMAX)
def test_log_softmax(log_softmaxes, form):
    value, grad = log_softmaxes[form]
    # a difference of two numbers near 1000 may keep the rounding of its operands
    np.testing.assert_allclose(value, LOG_P, rtol=1e-5, atol=1e-4 if form.startswith("difference") else TINY + 1e-7)
    want = WEIGHTS - P * WEIGHTS.sum(-1, keepdims=True, dtype=float)
    np.testing.assert_allclose(grad, want, rtol=1e-5, atol=3e-6 + 5e-4 * form.startswith("difference"))


@pytest.mark.parametrize("form", LOGSUMEXP)
def test_logsumexp(logsumexps, form):
    value, grad = logsumexps[form]
    np.testing.assert_allclose(value, scipy.special.logsumexp(ROWS.astype(float), axis=-1), rtol=1e-5)
    np.testing.assert_allclose(grad, P, rtol=1e-5, atol=TINY)


@pytest.mark.parametrize("form", CROSS_ENTROPY)
def test_cross_entropy(cross_entropies, form):
    value, grad = cross_entropies[form]
    np.testing.assert_allclose(value, -(PICK * LOG_P).sum(-1), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(grad, P - PICK, rtol=1e-5, atol=1e-6)


@pytest.fixture(scope="module")
def sigmoids():
    return results(SIGMOID, POINTS)


@pytest.fixture(scope="module")
def softpluses():
    return results(SOFTPLUS, POINTS)


@pytest.mark.parametrize("form", SIGMOID)
def test_sigmoid(sigmoids, form):
    value, grad = sigmoids[form]
    s = scipy.special.expit(POINTS.astype(float))
    np.testing.assert_allclose(value, s, rtol=1e-5, atol=TINY)
    np.testing.assert_allclose(grad, s * scipy.special.expit(-POINTS.astype(float)), rtol=1e-5, atol=1e-7)


def test_exp_over_one_plus_exp():
    value, grad = results({"ratio": lambda x: gc.exp(x) / (1 + gc.exp(x))}, POINTS)["ratio"]
    s = scipy.special.expit(POINTS.astype(float))
    np.testing.assert_allclose(value, s, rtol=1e-5, atol=TINY)
    np.testing.assert_allclose(grad, s * scipy.special.expit(-POINTS.astype(float)), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("form", SOFTPLUS)
def test_softplus(softpluses, form):
    value, grad = softpluses[form]
    x = POINTS.astype(float)
    np.testing.assert_allclose(value, np.logaddexp(0, x), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(grad, scipy.special.expit(x), rtol=1e-5, atol=1e-7)


TARGETS = np.array([0.0, 1.0, 0.25], np.float32)[:, None]


@pytest.fixture(scope="module")
def binaries():
    return results(BINARY, np.tile(POINTS, (3, 1)), np.tile(TARGETS, (1, POINTS.size)))


@pytest.mark.parametrize("form", BINARY)
def test_binary_cross_entropy(binaries, form):
    value, grad = binaries[form]
    x, y = POINTS.astype(float)[None], TARGETS.astype(float)
    np.testing.assert_allclose(value, y * np.logaddexp(0, -x) + (1 - y) * np.logaddexp(0, x), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(grad, scipy.special.expit(x) - y, rtol=1e-5, atol=1e-6)


def test_the_mean_over_a_batch_of_runs_far_from_zero():
    @gc.model
    def net(y: gc.f32["B"], labels: gc.i64[10]):
        a, z = gc.param("a", POINTS.shape), gc.param("z", ROWS.shape)
        p = gc.sigmoid(a)
        bce = -gc.mean(y * gc.log(p) + (1 - y) * gc.log(1 - p))
        ce = gc.nn.cross_entropy(z, labels)
        return gc.outputs(bce=bce, ce=ce, loss=bce + ce)
    m = gc.compile(net)
    m.params["a"][...], m.params["z"][...] = POINTS, ROWS
    y = (np.arange(POINTS.size) % 2).astype(np.float32)
    out, grads = m.value_and_grad(y=y, labels=LABELS)
    x = POINTS.astype(float)
    np.testing.assert_allclose(out["bce"], (np.logaddexp(0, x) - y * x).mean(), rtol=1e-5)
    np.testing.assert_allclose(out["ce"], -(PICK * LOG_P).sum(-1).mean(), rtol=1e-5)
    np.testing.assert_allclose(grads["a"], (scipy.special.expit(x) - y) / x.size, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(grads["z"], (P - PICK) / len(ROWS), rtol=1e-5, atol=1e-7)


def test_the_probability_of_one_class_by_its_logarithm():
    forms = {"spelt": lambda a: -gc.log((gc.exp(a) / total(a))[:, 1]), "called": lambda a: -gc.log(gc.softmax(a, axis=-1)[:, 1]),
             "log_softmax": lambda a: -gc.log_softmax(a, axis=-1)[:, 1]}
    for form, (value, grad) in results(forms, ROWS).items():
        np.testing.assert_allclose(value, -LOG_P[:, 1], rtol=1e-5, atol=1e-7, err_msg=form)
        np.testing.assert_allclose(grad, P - np.eye(3)[1], rtol=1e-5, atol=1e-6, err_msg=form)


def test_over_one_axis_and_over_all():
    forms = {"vector": lambda a: gc.log(gc.sum(gc.exp(a))), "called": lambda a: gc.logsumexp(a, axis=0), "softmax": lambda a: gc.softmax(a, axis=0)[0],
             "spelt": lambda a: (gc.exp(a) / gc.sum(gc.exp(a)))[0]}
    v = np.array([1000, 1000, -1000], np.float32)
    got = results(forms, v)
    for form in ("vector", "called"):
        np.testing.assert_allclose(got[form][0], 1000 + np.log(2), rtol=1e-6)
        np.testing.assert_allclose(got[form][1], [0.5, 0.5, 0], rtol=1e-5, atol=TINY)
    for form in ("softmax", "spelt"):
        np.testing.assert_allclose(got[form][0], 0.5, rtol=1e-5)
        np.testing.assert_allclose(got[form][1], [0.25, -0.25, 0], rtol=1e-5, atol=TINY)


def test_curvature_is_finite_and_right():
    @gc.model
    def net():
        outputs, loss = {}, 0.0
        for name, (form, at) in CURVED.items():
            a = gc.param(name, at.shape)
            (g,) = gc.grad(gc.sum(form(a)), [a])
            outputs[f"{name}_slope"], loss = g, loss + gc.sum(g * g)
        return gc.outputs(loss=loss, **outputs)
    m = gc.compile(net)
    for name, (_, at) in CURVED.items():
        m.params[name][...] = at
    _, grads = m.value_and_grad()
    x = POINTS.astype(float)
    s = scipy.special.expit(x)
    for name in ("softplus", "minus_log", "binary"):
        np.testing.assert_allclose(grads[name], 2 * s * s * (1 - s), atol=1e-6, err_msg=name)
    d = s * (1 - s)
    for name in ("sigmoid", "spelt"):
        np.testing.assert_allclose(grads[name], 2 * d * d * (1 - 2 * s), atol=1e-6, err_msg=name)
    for name in ("logsumexp", "log_of_sum"):
        np.testing.assert_allclose(grads[name], 2 * P * (P - (P * P).sum(-1, keepdims=True)), atol=1e-6, err_msg=name)


CURVED = {
    "sigmoid": (lambda x: gc.sigmoid(x), POINTS),
    "spelt": (lambda x: 1 / (1 + gc.exp(-x)), POINTS),
    "softplus": (lambda x: gc.log(1 + gc.exp(x)), POINTS),
    "minus_log": (lambda x: -gc.log(1 - gc.sigmoid(x)), POINTS),
    "binary": (lambda x: gc.nn.binary_cross_entropy(x, gc.const(np.zeros_like(POINTS)), reduction="none"), POINTS),
    "logsumexp": (lambda a: gc.logsumexp(a, axis=-1), ROWS),
    "log_of_sum": (lambda a: gc.log(gc.sum(gc.exp(a), axis=-1)), ROWS),
}


def test_infinite_only_where_the_value_overflows():
    @gc.model
    def net():
        a = gc.param("a", (2, 2))
        return gc.outputs(loss=gc.sum(gc.nn.cross_entropy(a, gc.const(np.array([0, 0])), reduction="none")),
                          each=gc.nn.cross_entropy(a, gc.const(np.array([0, 0])), reduction="none"), p=gc.exp(a) / total(a),
                          b=gc.nn.binary_cross_entropy(a, gc.const(np.array([[0, 1], [1, 0]], np.float32)), reduction="none"))
    m = gc.compile(net)
    m.params["a"][...] = [[3e38, -3e38], [-1e38, 1e38]]
    out, grads = m.value_and_grad()
    np.testing.assert_allclose(out["p"], [[1, 0], [0, 1]])
    np.testing.assert_allclose(out["each"], [0, 2e38], rtol=1e-5)
    np.testing.assert_allclose(out["b"], [[3e38, 3e38], [1e38, 1e38]], rtol=1e-5)
    np.testing.assert_allclose(grads["a"], [[0, 0], [-1, 1]])
