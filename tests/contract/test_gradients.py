"""Every gradient against central differences in float64, first and second order; ties, kinks and masks against exact values."""
import functools

import numpy as np
import pytest

import graphc as gc

RNG = np.random.default_rng(1)


def normal(*shape):
    return RNG.standard_normal(shape)


def positive(*shape):
    return RNG.random(shape) + 0.5


def differences(m, output, parameter, h=1e-3):
    """The derivative of a scalar output by a parameter: central differences of fourth order."""
    p = m.params[parameter]
    result = np.zeros(p.shape)
    for index in np.ndindex(p.shape):
        was, values = p[index].copy(), []
        for step in (-2, -1, 1, 2):
            p[index] = was + step * h
            values.append(float(m.forward()[output]))
        p[index] = was
        result[index] = (values[0] - 8 * values[1] + 8 * values[2] - values[3]) / (12 * h)
    return result


def agree(cases, order=1, rtol=1e-6, atol=1e-7):
    """All cases, each a function and the arrays it takes, are the summands of one loss over parameters of their own."""
    @gc.model
    def net():
        outputs = {}
        for name, (f, arrays) in cases.items():
            parameters = [gc.param(f"{name}_{i}", np.shape(a)) for i, a in enumerate(arrays)]
            y = f(*parameters)
            value = gc.sum(y + 0.5 * y * y)                            # every element with a cotangent of its own
            if order == 2:
                gradients = gc.grad(value, parameters)
                value = sum(gc.sum(g + 0.5 * g * g) for g in gradients)
            outputs[name] = value
        return gc.outputs(loss=sum(outputs.values()), **outputs)

    m = gc.compile(net, dtype="float64")
    for name, (_, arrays) in cases.items():
        for i, a in enumerate(arrays):
            m.params[f"{name}_{i}"][...] = a
    grads = {k: np.array(v) for k, v in m.value_and_grad()[1].items()}
    assert set(grads) == set(m.params)
    wrong = []
    for name, (_, arrays) in cases.items():
        for i in range(len(arrays)):
            key = f"{name}_{i}"
            want = differences(m, name, key)
            try:
                np.testing.assert_allclose(grads[key], want, rtol=rtol, atol=atol * (1 + np.abs(want).max(initial=0)))
                assert np.abs(want).max(initial=1 if want.size == 0 else 0) > 1e-9, "the test tests nothing: the derivative is zero"
            except AssertionError as error:
                wrong.append(f"{key}: {error}")
    assert not wrong, "\n".join(wrong)


def gradient(f, *values, dtype="float64"):
    """Loss and gradients of the scalar f over parameters holding `values`."""
    @gc.model
    def net():
        return gc.outputs(loss=f(*[gc.param(f"p{i}", np.shape(v)) for i, v in enumerate(values)]))
    m = gc.compile(net, dtype=dtype)
    for i, v in enumerate(values):
        m.params[f"p{i}"][...] = v
    out, grads = m.value_and_grad()
    return float(out["loss"]), [np.array(grads[f"p{i}"]) for i in range(len(values))]


# First order

ARITHMETIC = {
    "add": (lambda a, b: a + b, [normal(2, 3), normal(2, 3)]),
    "sub": (lambda a, b: a - 2 * b, [normal(2, 3), normal(2, 3)]),
    "mul": (lambda a, b: a * b, [normal(2, 3), normal(2, 3)]),
    "div": (lambda a, b: a / b, [normal(2, 3), positive(2, 3)]),
    "neg": (lambda a: -a, [normal(3)]),
    "power": (lambda a, b: a ** b, [positive(3), normal(3)]),
    "square": (lambda a: a ** 2, [normal(3)]),
    "cube": (lambda a: a ** 3, [normal(3)]),
    "inverse": (lambda a: 3 / a + a ** -2, [positive(3)]),
    "root": (lambda a: a ** 0.5 + a ** -1.5, [positive(3)]),
    "exponent": (lambda a: 2.0 ** a, [normal(3)]),
    "numbers": (lambda a: (1 - a) * (2 + a) / 4 - 1, [normal(3)]),
    "rows": (lambda a, b: a * b + b, [normal(3, 1), normal(1, 4)]),
    "row": (lambda a, b: a / (1 + b * b), [normal(2, 3), normal(3)]),
    "scalar": (lambda a, b: a * b - b, [normal(2, 3), normal()]),
    "one": (lambda a, b: a * b, [normal(1), normal(2, 3)]),
    "deep": (lambda a, b: a * b * a, [normal(2, 1, 3), normal(2, 1)]),
}
FUNCTIONS = {
    "exp": (lambda a: gc.exp(a), [normal(4)]),
    "log": (lambda a: gc.log(a), [positive(4)]),
    "log1p": (lambda a: gc.log1p(a), [positive(4)]),
    "tanh": (lambda a: gc.tanh(a), [normal(4)]),
    "sigmoid": (lambda a: gc.sigmoid(a), [normal(4)]),
    "sqrt": (lambda a: gc.sqrt(a), [positive(4)]),
    "erf": (lambda a: gc.erf(a), [normal(4)]),
    "chain": (lambda a: gc.tanh(gc.exp(gc.sigmoid(a) * a)) / gc.sqrt(1 + a * a), [normal(4)]),
    "gelu": (lambda a: 0.5 * a * (1 + gc.erf(a / 2 ** 0.5)), [normal(4)]),
}
KINKED = {
    "relu": (lambda a: gc.relu(a), [np.array([-1.5, -0.3, 0.4, 2.0])]),
    "abs": (lambda a: gc.abs(a), [np.array([-1.5, -0.3, 0.4, 2.0])]),
    "maximum": (lambda a, b: gc.maximum(a, b), [np.array([1.0, -2, 3]), np.array([0.5, -1, 4])]),
    "minimum": (lambda a, b: gc.minimum(a, b), [np.array([1.0, -2, 3]), np.array([0.5, -1, 4])]),
    "floor": (lambda a: gc.maximum(a, 0.5) * gc.minimum(2.0, a), [np.array([0.1, 1.0, 3.0])]),
    "where": (lambda a, b: gc.where(a > b, a * b, a - b), [np.array([1.0, -2, 3]), np.array([0.5, -1, 4])]),
    "where_row": (lambda a, b: gc.where(a > 0, b, a), [np.array([[1.0, -2, 3], [-1, 1, 2]]), normal(3)]),
    "max": (lambda a: gc.max(a), [np.array([[1.0, 5, 3], [2, 4, 0]])]),
    "max_rows": (lambda a: gc.max(a, axis=1, keepdims=True) * a, [np.array([[1.0, 5, 3], [2, 4, 0]])]),
    "max_columns": (lambda a: gc.max(a, axis=0), [np.array([[1.0, 5, 3], [2, 4, 0]])]),
    "max_both": (lambda a: gc.max(a, axis=(0, 2)), [RNG.permutation(12.0 * np.arange(12)).reshape(2, 3, 2) / 12]),
}
REDUCTIONS = {
    "sum": (lambda a: gc.sum(a * a), [normal(2, 3)]),
    "sum_0": (lambda a: gc.sum(a, axis=0), [normal(2, 3)]),
    "sum_last": (lambda a: gc.sum(a, axis=-1, keepdims=True) * a, [normal(2, 3)]),
    "sum_two": (lambda a: gc.sum(a, axis=(0, -1)), [normal(2, 3, 2)]),
    "mean": (lambda a: gc.mean(a) * a, [normal(2, 3)]),
    "mean_1": (lambda a: gc.mean(a * a, axis=1), [normal(2, 3)]),
    "centred": (lambda a: (a - gc.mean(a, axis=-1, keepdims=True)) ** 2, [normal(2, 3)]),
    "normalised": (lambda a: a / gc.sqrt(gc.sum(a * a, axis=-1, keepdims=True)), [normal(2, 3)]),
    "variance": (lambda a: gc.mean((a - gc.mean(a, axis=0)) ** 2, axis=0), [normal(3, 2)]),
}
PRODUCTS = {
    "matrix": (lambda a, b: a @ b, [normal(2, 3), normal(3, 2)]),
    "matrix_vector": (lambda a, b: a @ b, [normal(2, 3), normal(3)]),
    "vector_matrix": (lambda a, b: a @ b, [normal(3), normal(3, 2)]),
    "dot": (lambda a, b: a @ b, [normal(3), normal(3)]),
    "batch": (lambda a, b: gc.matmul(a, b), [normal(2, 2, 3), normal(2, 3, 2)]),
    "batch_matrix": (lambda a, b: a @ b, [normal(2, 2, 3), normal(3, 2)]),
    "matrix_batch": (lambda a, b: a @ b, [normal(2, 3), normal(2, 3, 2)]),
    "batch_vector": (lambda a, b: a @ b, [normal(2, 2, 3), normal(3)]),
    "vector_batch": (lambda a, b: a @ b, [normal(3), normal(2, 3, 2)]),
    "spread": (lambda a, b: a @ b, [normal(2, 1, 2, 2), normal(3, 2, 1)]),
    "one_each": (lambda a, b: a @ b, [normal(1, 2, 3), normal(2, 3, 1)]),
    "gram": (lambda a: a @ gc.transpose(a), [normal(2, 3)]),
    "chain": (lambda a, b, c: gc.tanh(a @ b + c) @ a, [normal(2, 3), normal(3, 2), normal(2)]),
}
EINSUM = {f"einsum_{i}": (functools.partial(gc.einsum, spec), [normal(*s) for s in shapes])
          for i, (spec, *shapes) in enumerate([
              ("ij,jk->ik", (2, 3), (3, 2)), ("ij,kj->ki", (2, 3), (2, 3)), ("ij->ji", (2, 3)), ("ij->j", (2, 3)), ("ij->", (2, 2)),
              ("i,j->ij", (2,), (3,)), ("ij,ij->", (2, 3), (2, 3)), ("ij,ij->i", (2, 3), (2, 3)), ("bij,bjk->bik", (2, 2, 2), (2, 2, 1)),
              ("ijk,k->ij", (2, 2, 2), (2,)), ("ijk,ij->k", (2, 2, 2), (2, 2)), ("ij,jk,k->i", (2, 3), (3, 2), (2,)),
              ("bqhd,bkhd->bhqk", (1, 2, 2, 2), (1, 3, 2, 2)), ("ij,k->ijk", (2, 2), (2,)), ("i,i->i", (3,), (3,))])}
SHAPES = {
    "reshape": (lambda a: gc.reshape(a, (3, 4)) ** 2, [normal(2, 6)]),
    "transpose": (lambda a, b: gc.transpose(a) * b, [normal(2, 3), normal(3, 2)]),
    "turn": (lambda a, b: gc.transpose(a, (2, 0, 1)) * b, [normal(2, 1, 3), normal(3, 2, 1)]),
    "turn_and_shape": (lambda a, b: gc.reshape(gc.transpose(a, (1, 0, 2)), (3, 4)) * b, [normal(2, 3, 2), normal(3, 4)]),
    "broadcast_to": (lambda a, b: gc.broadcast_to(a, (2, 3, 2)) * b, [normal(3, 1), normal(2, 3, 2)]),
    "concat": (lambda a, b: gc.concat([a, b, a * b], axis=0) ** 2, [normal(2, 2), normal(2, 2)]),
    "concat_1": (lambda a, b: gc.concat([a, gc.tanh(b), a], axis=-1), [normal(2, 2), normal(2, 1)]),
    "stack": (lambda a, b: gc.stack([a, b, a], axis=1) ** 2, [normal(2, 2), normal(2, 2)]),
    "split": (lambda a: (lambda p, q, r: p * q - r)(*gc.split(a, 3, axis=1)), [normal(2, 6)]),
    "one_part": (lambda a: gc.split(a, 2, axis=0)[1] * a[0], [normal(4, 2)]),
}
INDEXING = {
    "row": (lambda a: a[1] * a[-1], [normal(3, 2)]),
    "element": (lambda a: a[1, 0] * a, [normal(2, 2)]),
    "slices": (lambda a: a[1:] * a[:-1], [normal(4)]),
    "steps": (lambda a: a[::2] * a[1::2], [normal(6)]),
    "backwards": (lambda a: a[::-1] * a, [normal(4)]),
    "backwards_by_two": (lambda a: a[3:0:-2] + a[::3], [normal(5)]),
    "axes": (lambda a: a[..., None, 1] * a[None, 0, 0], [normal(2, 2, 2)]),
    "both": (lambda a: a[1:, ::-2] ** 2, [normal(3, 4)]),
    "outer": (lambda a: a[:, None] * a[None, :], [normal(3)]),
    "overlap": (lambda a: a[:3] + a[1:4] * a[2:5], [normal(5)]),
    "take": (lambda a: gc.take(a, gc.const(np.array([1, 1, 0, 1])), axis=0), [normal(3, 2)]),
    "take_columns": (lambda a: gc.take(a, gc.const(np.array([2, 0, 2])), axis=-1) ** 2, [normal(2, 3)]),
    "take_table": (lambda a: gc.take(a, gc.const(np.array([[0, 1], [1, 1]])), axis=0), [normal(2, 2)]),
    "take_one": (lambda a: gc.take(a, gc.const(np.array(1)), axis=0) * a, [normal(2, 2)]),
    "take_twice": (lambda a: gc.take(gc.take(a, gc.const(np.array([1, 1, 0])), axis=0), gc.const(np.array([0, 2, 0, 1])), axis=0), [normal(2, 2)]),
}
LABELS = np.array([2, 0, 1, 1])
ONE_HOT = np.eye(3)[LABELS]
COMPOSITIONS = {
    "softmax": (lambda a: gc.softmax(a, axis=-1), [normal(2, 3)]),
    "softmax_0": (lambda a: gc.softmax(a, axis=0), [normal(2, 3)]),
    "log_softmax": (lambda a: gc.log_softmax(a, axis=-1), [normal(2, 3)]),
    "logsumexp": (lambda a: gc.logsumexp(a, axis=1), [normal(2, 3)]),
    "spelt": (lambda a: gc.exp(a) / gc.sum(gc.exp(a), axis=1, keepdims=True), [normal(2, 3)]),
    "spelt_log": (lambda a: gc.log(gc.sum(gc.exp(a), axis=0)), [normal(2, 3)]),
    "mse": (lambda a, b: gc.nn.mse(a, b), [normal(2, 3), normal(2, 3)]),
    "mse_none": (lambda a, b: gc.nn.mse(a, b, reduction="none"), [normal(2, 2), normal(2, 2)]),
    "ce": (lambda a: gc.nn.cross_entropy(a, gc.const(LABELS)), [normal(4, 3)]),
    "ce_sum": (lambda a: gc.nn.cross_entropy(a, gc.const(LABELS), reduction="sum"), [normal(4, 3)]),
    "ce_none": (lambda a: gc.nn.cross_entropy(a, gc.const(LABELS), reduction="none"), [normal(4, 3)]),
    "bce": (lambda a: gc.nn.binary_cross_entropy(a, gc.const(ONE_HOT)), [normal(4, 3)]),
    "bce_none": (lambda a: gc.nn.binary_cross_entropy(a, gc.const(ONE_HOT), reduction="none"), [normal(4, 3)]),
    "attention": (lambda q, k, v: gc.softmax(q @ gc.transpose(k) / 2 ** 0.5, axis=-1) @ v, [normal(2, 2), normal(3, 2), normal(3, 2)]),
}
FIRST = dict(arithmetic=ARITHMETIC, functions=FUNCTIONS, kinked=KINKED, reductions=REDUCTIONS, products=PRODUCTS, einsum=EINSUM,
             shapes=SHAPES, indexing=INDEXING, compositions=COMPOSITIONS)


@pytest.mark.parametrize("family", FIRST)
def test_gradients_agree_with_differences(family):
    agree(FIRST[family])


# Second order

SECOND = {
    "elementwise": {k: (ARITHMETIC | FUNCTIONS)[k] for k in (
        "mul", "div", "power", "cube", "inverse", "root", "row", "scalar", "exp", "log", "log1p", "tanh", "sigmoid", "sqrt", "erf")},
    "contractions": {k: (PRODUCTS | EINSUM | REDUCTIONS)[k] for k in (
        "matrix", "batch_matrix", "vector_batch", "gram", "einsum_1", "einsum_11", "mean", "normalised", "variance")},
    "structure": {k: (SHAPES | INDEXING)[k] for k in ("turn_and_shape", "concat", "stack", "split", "backwards", "overlap", "take_twice", "take_one")},
    "compositions": {k: (COMPOSITIONS | KINKED)[k] for k in ("softmax", "log_softmax", "logsumexp", "spelt", "ce", "bce", "maximum", "where", "max_rows")},
}


@pytest.mark.parametrize("family", SECOND)
def test_gradients_of_gradients_agree_with_differences(family):
    agree(SECOND[family], order=2, rtol=1e-5, atol=1e-6)


def test_third_order():
    def f(a):
        first = gc.grad(gc.sum(gc.tanh(a)), [a])[0]
        second = gc.grad(gc.sum(first), [a])[0]
        return gc.sum(second)
    a = np.array([0.3, -0.7])
    t = np.tanh(a)
    np.testing.assert_allclose(gradient(f, a)[1][0], (1 - t ** 2) * (6 * t ** 2 - 2), rtol=1e-12)


def test_a_gradient_norm_as_penalty():
    w = normal(3)

    def f(w):
        loss = gc.sum(gc.exp(w)) + gc.sum(w) ** 2
        (g,) = gc.grad(loss, [w])
        return loss + gc.sum(g * g)
    g = np.exp(w) + 2 * w.sum()
    np.testing.assert_allclose(gradient(f, w)[1][0], g + 2 * (g * np.exp(w) + 2 * g.sum()), rtol=1e-11)


# Conventions at ties and kinks

def test_relu_and_abs_at_zero():
    x = [-1.0, -0.0, 0.0, 2.0]
    assert gradient(lambda a: gc.sum(gc.relu(a)), x)[1][0].tolist() == [0, 0, 0, 1]
    assert gradient(lambda a: gc.sum(gc.abs(a)), x)[1][0].tolist() == [-1, 0, 0, 1]


def test_a_tie_of_maximum_goes_to_the_second():
    a, b = [1.0, 2.0, 3.0], [3.0, 2.0, 1.0]
    _, (ga, gb) = gradient(lambda a, b: gc.sum(gc.maximum(a, b)), a, b)
    assert ga.tolist() == [0, 0, 1] and gb.tolist() == [1, 1, 0]
    assert gradient(lambda a: gc.sum(gc.maximum(a, 0.0)), [-1.0, 0.0, 1.0])[1][0].tolist() == [0, 0, 1]
    assert gradient(lambda a: gc.sum(gc.maximum(0.0, a)), [-1.0, 0.0, 1.0])[1][0].tolist() == [0, 1, 1]
    assert gradient(lambda a: gc.sum(gc.maximum(a, a)), [2.0])[1][0].tolist() == [1]


def test_the_first_maximum_takes_it_all():
    def f(a, b, c, d):
        rows, cube = gc.const(np.array([1.0, 10, 100])), gc.const(np.array([1.0, 10]))
        return gc.sum(gc.max(a, axis=1) * rows) + gc.max(b) + gc.sum(gc.max(c, axis=0)) + gc.sum(gc.max(d, axis=(0, 2)) * cube)
    a = np.array([[1.0, 1, 1], [0, 2, 2], [3, 0, 3]])
    b = np.array([[0.0, 7], [7, 7]])
    c = np.array([[1.0, 4], [1, 4], [0, 5]])
    d = np.zeros((2, 2, 2))
    d[1, 1] = [6, 6]
    _, (ga, gb, gc_, gd) = gradient(f, a, b, c, d)
    assert ga.tolist() == [[1, 0, 0], [0, 10, 0], [100, 0, 0]]
    assert gb.tolist() == [[0, 1], [0, 0]]
    assert gc_.tolist() == [[1, 0], [0, 0], [0, 1]]
    assert gd.tolist() == [[[1, 0], [0, 0]], [[0, 0], [10, 0]]]


def test_root_and_logarithm_at_zero_are_ieee():
    _, (a, b) = gradient(lambda a, b: gc.sum(gc.sqrt(a)) + gc.sum(gc.log(b)), [0.0, 4.0], [0.0, 4.0])
    assert a.tolist() == [np.inf, 0.25] and b.tolist() == [np.inf, 0.25]


def test_powers_at_zero():
    def f(a, b, c):
        return gc.sum(a ** 2) + gc.sum(b ** 1) + gc.sum(c ** 3)
    _, grads = gradient(f, [0.0, -1], [0.0, -1], [0.0, -1])
    assert [g.tolist() for g in grads] == [[0, -2], [1, 1], [0, 3]]


# A where keeps the branch that it does not take out of every gradient

X = np.array([-1.0, 0.0, 0.5, 2.0])
TAKEN = X > 0
SAFE = np.where(TAKEN, X, 1.0)


def masked(values):
    return np.where(TAKEN, values, 0.0)


LEAKS = {                                                              # f(x), its first and its second derivative where x > 0
    "log": (lambda a: gc.log(a), 1 / SAFE, -1 / SAFE ** 2),
    "sqrt": (lambda a: gc.sqrt(a), 0.5 * SAFE ** -0.5, -0.25 * SAFE ** -1.5),
    "inverse": (lambda a: 1 / a, -1 / SAFE ** 2, 2 / SAFE ** 3),
    "negative_power": (lambda a: a ** -1.5, -1.5 * SAFE ** -2.5, 3.75 * SAFE ** -3.5),
    "root": (lambda a: a ** 0.5, 0.5 * SAFE ** -0.5, -0.25 * SAFE ** -1.5),
    "power": (lambda a: a ** a, SAFE ** SAFE * (np.log(SAFE) + 1), SAFE ** SAFE * ((np.log(SAFE) + 1) ** 2 + 1 / SAFE)),
    "log1p": (lambda a: gc.log1p(a - 1), 1 / SAFE, -1 / SAFE ** 2),
    "log_of_log": (lambda a: gc.log(gc.log(a + 1)), 1 / (np.log(SAFE + 1) * (SAFE + 1)),
                   -(1 + np.log(SAFE + 1)) / (np.log(SAFE + 1) * (SAFE + 1)) ** 2),
    "square_of_log": (lambda a: gc.log(a) * gc.log(a), 2 * np.log(SAFE) / SAFE, (2 - 2 * np.log(SAFE)) / SAFE ** 2),
    "overflow": (lambda a: gc.exp(1 / gc.maximum(a, 0.0)) * a, np.exp(1 / SAFE) * (1 - 1 / SAFE), np.exp(1 / SAFE) / SAFE ** 3),
}


@pytest.fixture(scope="module")
def leaks():
    """One model for all cases: the gradients of first order through outputs, those of second order through the loss."""
    @gc.model
    def net():
        outputs, total = {}, 0.0
        for name, (f, *_) in LEAKS.items():
            a = gc.param(name, X.shape)
            (g,) = gc.grad(gc.sum(gc.where(a > 0, f(a), 0.0)), [a])
            outputs[name], total = g, total + gc.sum(g)
        return gc.outputs(loss=total, **outputs)
    m = gc.compile(net, dtype="float64")
    for name in LEAKS:
        m.params[name][...] = X
    return m.value_and_grad()


@pytest.mark.parametrize("name", LEAKS)
def test_where_leaks_nothing(leaks, name):
    out, grads = leaks
    _, first, second = LEAKS[name]
    np.testing.assert_allclose(out[name], masked(first), rtol=1e-12)
    np.testing.assert_allclose(grads[name], masked(second), rtol=1e-11)


def test_nested_wheres_leak_nothing():
    def f(a):
        inner = gc.where(a > 1, gc.log(a - 1), gc.sqrt(a))
        return gc.sum(gc.where(a > 0, inner * 2, a * 3))
    x = np.array([-1.0, 0.0, 0.25, 2.0])
    assert gradient(f, x)[1][0].tolist() == [3, 3, 2, 2]

    def g(a):
        return gc.sum(gc.grad(f(a), [a])[0])
    assert gradient(g, x)[1][0].tolist() == [0, 0, -4, -2]


def test_the_branch_of_false_leaks_nothing_either():
    def f(a):
        return gc.sum(gc.where(a <= 0, -a, gc.log(a))) + gc.sum(gc.where(gc.abs(a) < 1e-9, 0.0, 1 / a))
    got = gradient(f, X)[1][0]
    np.testing.assert_allclose(got, [-1 - 1, -1, 2 - 4, 0.5 - 0.25])


def test_a_mask_goes_through_sums_and_broadcasts():
    def f(a, s, c):
        rows = gc.sum(gc.log(a), axis=1)                               # rows with a zero are not chosen
        kept = gc.where(gc.const(np.array([True, False])), rows, 0.0)
        wide = gc.where(gc.const(np.array([[True, False], [True, False]])), gc.sqrt(c) * gc.const(np.ones((2, 1))), 0.0)
        return gc.sum(kept) + gc.sum(gc.where(gc.const(X) > 0, gc.log(s * gc.const(X)), 0.0)) + gc.sum(wide)
    a = np.array([[1.0, 2, 4], [0, -1, 3]])
    _, (ga, gs, gcc) = gradient(f, a, np.array(2.0), np.array([4.0, 0.0]))
    np.testing.assert_allclose(ga, [[1, 0.5, 0.25], [0, 0, 0]])
    np.testing.assert_allclose(gs, 1.0)
    np.testing.assert_allclose(gcc, [0.5, 0])


def test_a_mask_goes_through_structure():
    def f(a):
        parts = gc.concat([gc.reshape(gc.transpose(gc.log(a)), (4,)), gc.sqrt(a[0, ::-1])], axis=0)
        return gc.sum(gc.where(gc.const(np.array([True, False, True, False, False, True])), parts, 0.0))
    got = gradient(f, np.array([[4.0, 2.0], [0.0, -1.0]]))[1][0]
    np.testing.assert_allclose(got, [[0.25 + 0.25, 0.5], [0, 0]])


def test_a_mask_goes_through_matrix_products_and_look_ups():
    w = np.array([[1.0, 2.0], [3.0, 4.0]])

    def f(a, t):
        y = gc.where(gc.const(np.array([[True], [False]])), gc.sqrt(a) @ gc.const(w), 0.0)
        z = gc.where(gc.const(np.array([True, False, True])), gc.take(gc.log(t), gc.const(np.array([0, 1, 0])), axis=0), 0.0)
        return gc.sum(y) + gc.sum(z)
    _, (a, t) = gradient(f, np.array([[1.0, 4.0], [0.0, 0.0]]), np.array([2.0, 0.0]))
    np.testing.assert_allclose(a, [[1.5, 1.75], [0, 0]])
    np.testing.assert_allclose(t, [1, 0])


def test_a_mask_in_float32_with_overflow():
    def f(a):
        return gc.sum(gc.where(a < 80, gc.exp(a), a))
    got = gradient(f, np.array([0, 1000, 3e38], np.float32), dtype="float32")[1][0]
    assert got.tolist() == [1, 1, 1]


def test_a_nan_of_the_branch_taken_stays():
    got = gradient(lambda a: gc.sum(gc.where(a > -5, gc.log(a), 0.0)), [0.0, 2.0])[1][0]
    assert got.tolist() == [np.inf, 0.5]


# Uses, paths and stops

def test_many_uses_add_up():
    x = normal(3)

    def f(a):
        b = a
        for _ in range(6):
            b = b * a + b
        return gc.sum(b) + gc.sum(a[0] * a) + a @ a
    want = (1 + x) ** 6 + 6 * x * (1 + x) ** 5 + x[0] + np.eye(3)[0] * x.sum() + 2 * x
    np.testing.assert_allclose(gradient(f, x)[1][0], want, rtol=1e-12)


def test_equal_operands_count_twice():
    x = normal(2, 2)
    _, (g,) = gradient(lambda a: gc.sum(a * a) + gc.sum(a + a) + gc.sum(a @ a) + gc.sum(gc.where(a > 0, a, a)) + gc.sum(a / a) + gc.sum(a - a), x)
    np.testing.assert_allclose(g, 2 * x + 2 + x.sum(1)[None, :] + x.sum(0)[:, None] + 1, rtol=1e-12, atol=1e-12)


def test_stop_gradient():
    _, (a, b) = gradient(lambda a, b: gc.sum(gc.stop_gradient(a) * a * b + gc.stop_gradient(b * b)), [2.0, 3.0], [5.0, 7.0])
    assert a.tolist() == [10, 21] and b.tolist() == [4, 9]

    def f(a):                                                          # a stop inside a nested gradient
        (g,) = gc.grad(gc.sum(a ** 3), [a])
        return gc.sum(gc.stop_gradient(g) * a)
    assert gradient(f, [2.0])[1][0].tolist() == [12]


def test_frozen_and_unused_parameters():
    @gc.model
    def net():
        a, b, c = gc.param("a", (2,)), gc.param("b", (2,), trainable=False), gc.param("c", (3,))
        return gc.outputs(loss=gc.sum(a * b), other=c)
    m = gc.compile(net, dtype="float64")
    m.params["b"][...] = [2, 3]
    grads = m.value_and_grad()[1]
    assert "b" not in grads and np.asarray(grads["a"]).tolist() == [2, 3] and np.asarray(grads["c"]).tolist() == [0, 0, 0]


def test_gradient_by_an_intermediate_value():
    def table(w):
        h = gc.tanh(2 * w)
        y = gc.sum(h * h * h) + gc.sum(w)                              # w beside h does not count
        return gc.grad(y, [h])[0], gc.grad(y, [h, w])[1]

    @gc.model
    def net():
        by_h, by_w = table(gc.param("w", (3,)))
        return gc.outputs(by_h=by_h, by_w=by_w, loss=gc.sum(by_h))
    m = gc.compile(net, dtype="float64")
    w = normal(3)
    m.params["w"][...] = w
    out, grads = m.value_and_grad()
    t = np.tanh(2 * w)
    np.testing.assert_allclose(out["by_h"], 3 * t ** 2, rtol=1e-12)
    np.testing.assert_allclose(out["by_w"], 3 * t ** 2 * 2 * (1 - t ** 2) + 1, rtol=1e-12)
    np.testing.assert_allclose(grads["w"], 6 * t * 2 * (1 - t ** 2), rtol=1e-12)


def test_gradient_by_an_input():
    @gc.model
    def net(x: gc.f64["B", 3], y: gc.f64["B"]):
        w = gc.param("w", (3,))
        loss = gc.mean((gc.tanh(x) @ w - y) ** 2)
        gx, gy, gw = gc.grad(loss, [x, y, w])
        return gc.outputs(loss=loss, gx=gx, gy=gy, gw=gw)
    m = gc.compile(net, dtype="float64")
    w = normal(3)
    m.params["w"][...] = w
    for n in (1, 4):
        x, y = normal(n, 3), normal(n)
        out, grads = m.value_and_grad(x=x, y=y)
        e = 2 * (np.tanh(x) @ w - y) / n
        np.testing.assert_allclose(out["gx"], e[:, None] * w * (1 - np.tanh(x) ** 2), rtol=1e-11)
        np.testing.assert_allclose(out["gy"], -e, rtol=1e-11)
        np.testing.assert_allclose(out["gw"], e @ np.tanh(x), rtol=1e-11)
        np.testing.assert_allclose(grads["w"], out["gw"], rtol=1e-12)


def test_gradient_by_what_does_not_matter_is_zero():
    @gc.model
    def net(x: gc.f64["B", 3]):
        w = gc.param("w", (3,))
        return gc.outputs(g=gc.grad(gc.sum(x ** 2), [w, x])[0], h=gc.grad(gc.sum(w ** 2), [x])[0])
    out = gc.compile(net, dtype="float64").forward(x=normal(2, 3))
    assert out["g"].tolist() == [0, 0, 0] and out["h"].tolist() == [[0, 0, 0]] * 2


def test_gradients_over_inputs_and_look_ups_at_run_time():
    @gc.model
    def net(i: gc.i32["N"], v: gc.f64["N", 2]):
        table = gc.param("E", (4, 2))
        return gc.outputs(loss=gc.sum(gc.take(table, i, axis=0) * v))
    m = gc.compile(net, dtype="float64")
    for i in ([0, 3, 3, 1, 3], [2], [], [1] * 50):
        i, v = np.array(i, np.int32), normal(len(i), 2)
        want = np.zeros((4, 2))
        np.add.at(want, i, v)
        np.testing.assert_allclose(m.value_and_grad(i=i, v=v)[1]["E"], want, rtol=1e-12, atol=1e-14)


def test_returned_gradients_belong_to_the_caller():
    @gc.model
    def net(x: gc.f64[3]):
        return gc.outputs(loss=gc.sum(gc.param("w", (3,)) * x) + gc.sum(gc.param("b", (3,)) * x))
    m = gc.compile(net, dtype="float64")
    x = normal(3)
    out, first = m.value_and_grad(x=x)
    loss, copies = np.array(out["loss"]), {k: np.array(v) for k, v in first.items()}
    _, second = m.value_and_grad(x=x * 5)
    np.testing.assert_array_equal(out["loss"], loss)
    for name in ("w", "b"):
        np.testing.assert_array_equal(first[name], copies[name])
        np.testing.assert_array_equal(first[name], x)
        assert not np.shares_memory(first[name], second[name]) and not np.shares_memory(first[name], m.params[name])
        assert not np.shares_memory(first[name], x)
    assert not np.shares_memory(first["w"], first["b"])


def test_gradients_in_float32_are_float32():
    a, w = normal(7, 5), normal(5, 3)
    _, (ga, gw) = gradient(lambda a, w: gc.mean(gc.tanh(a @ w) ** 2), a, w, dtype="float32")
    t = np.tanh(a @ w)
    d = 2 * t * (1 - t ** 2) / t.size
    assert ga.dtype == gw.dtype == np.float32
    np.testing.assert_allclose(ga, d @ w.T, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(gw, a.T @ d, rtol=1e-4, atol=1e-6)
