"""Random numbers: the published cipher, its statistics, the same bits everywhere, and dropout."""

import math
import os
import subprocess
import sys

import numpy as np
import pytest

import graphc as gc
from graphc.codegen import randomness
from graphc.errors import GraphcError
from graphc.ops.random import COUNTER, random_bits

# Random123's known answers (kat_vectors): key, counter, result, each of two words
F = 0xFFFFFFFF
VECTORS = [
    ((0, 0), (0, 0), (0x6B200159, 0x99BA4EFE)),
    ((F, F), (F, F), (0x1CB996FC, 0xBB002BE7)),
    ((0x13198A2E, 0x03707344), (0x243F6A88, 0x85A308D3), (0xC4923A9C, 0x483DF7A0)),
]


def packed(words):
    return np.uint64(words[0] | words[1] << 32).astype(np.int64)


# -- the cipher --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("key, counter, result", VECTORS)
def test_the_published_vectors(key, counter, result):
    assert random_bits(packed(key), packed(counter)) == packed(result)
    assert randomness.numpy_namespace()["random_bits"](packed(key), packed(counter)) == packed(result)


def bits_of(keys, counters, target):
    from graphc.errors import SourceLine
    from graphc.frontend.model import Model
    from graphc.frontend.tensor import record

    def function(key, counter):
        return gc.outputs(bits=record("random_bits", key, counter))

    model = Model(function, "bits", {"key": gc.i64["N"], "counter": gc.i64["N"]}, {}, SourceLine(__file__, 1))
    return gc.compile(model, target=target).forward(keys, counters)["bits"]


@pytest.mark.parametrize("target", ["cpu", "numpy"])
def test_kernels_have_the_same_bits_as_the_published_cipher(target):
    rng = np.random.default_rng(0)
    keys, counters = rng.integers(-(2**63), 2**63 - 1, (2, 1000))
    keys[:3], counters[:3] = zip(*((packed(k), packed(c)) for k, c, _ in VECTORS), strict=True)
    np.testing.assert_array_equal(bits_of(keys, counters, target), random_bits(keys, counters))


# -- what is drawn -----------------------------------------------------------------------------------------------------
@gc.model
def draws(x: gc.f32["B", "C"]):
    half = gc.dropout(x, 0.5)
    return gc.outputs(
        uniform=gc.random.uniform(x.shape),
        wide=gc.random.uniform(("B", "C"), -2.0, 3.0),
        double=gc.random.uniform(x.shape, dtype=gc.f64),
        normal=gc.random.normal(x.shape),
        moved=gc.random.normal(x.shape, 5.0, 0.5),
        coin=gc.random.bernoulli(0.3, x.shape),
        chance=gc.random.bernoulli(x),
        number=gc.random.uniform(),
        half=half,
        loss=gc.sum(half),
    )


SAME = ("uniform", "double", "coin", "chance", "number", "half")  # no function of the target's own is in them


def test_the_same_bits_on_every_target():
    x = np.full((7, 5), 0.4, np.float32)
    models = [gc.compile(draws, target=t, dtype="float32", seed=5) for t in ("cpu", "numpy")]
    for _ in range(2):
        a, b = (m.forward(x, train=True) for m in models)
        for name in SAME:
            np.testing.assert_array_equal(a[name], b[name], err_msg=name)
        for name in ("wide", "normal", "moved"):
            np.testing.assert_allclose(a[name], b[name], rtol=1e-5, atol=1e-6)


def test_the_same_bits_on_cuda():
    """In Numba's simulator, in a process of its own."""
    script = """
import numpy as np, graphc as gc
from tests.frontend.test_random import draws, SAME
x = np.full((3, 4), 0.4, np.float32)
a, b = (gc.compile(draws, target=t, seed=5) for t in ("cpu", "cuda"))
for train in (True, False):
    one, two = a.forward(x, train=train), b.forward(x, train=train)
    for name in SAME:
        np.testing.assert_array_equal(one[name], two[name], err_msg=name)
assert (a.value_and_grad(x)[0]["half"] == b.value_and_grad(x)[0]["half"]).all()
"""
    pytest.importorskip("numba_cuda")
    environment = os.environ | {"NUMBA_ENABLE_CUDASIM": "1"}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_same_bits_with_any_number_of_threads():
    x = np.full((300, 500), 0.4, np.float32)
    found = [gc.compile(draws, seed=2, threads=n).forward(x, train=True) for n in (1, 2, 3)]
    for other in found[1:]:
        for name in (*SAME, "normal"):
            np.testing.assert_array_equal(found[0][name], other[name], err_msg=name)


def test_a_row_is_the_same_whatever_the_batch():
    m = gc.compile(draws, seed=1)
    few = m.forward(np.ones((2, 6), np.float32))
    m.reset()
    many = m.forward(np.ones((9, 6), np.float32))
    np.testing.assert_array_equal(few["uniform"], many["uniform"][:2])


def test_statistics():
    m = gc.compile(draws, seed=11)
    x = np.full((1000, 1000), 0.25, np.float32)
    out = m.forward(x, train=True)
    n = x.size

    def close(value, mean, deviation):
        assert abs(value - mean) < 5 * deviation / math.sqrt(n), (value, mean)

    for name, low, high in (("uniform", 0, 1), ("wide", -2, 3), ("double", 0, 1)):
        u = (out[name].astype(float) - low) / (high - low)
        assert u.min() >= 0 and u.max() <= 1 and (name == "wide" or u.max() < 1)
        close(u.mean(), 1 / 2, math.sqrt(1 / 12))
        close(((u - 1 / 2) ** 2).mean(), 1 / 12, math.sqrt(1 / 180))
    z = out["normal"].astype(float)
    for power, moment, spread in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        close((z**power).mean(), moment, math.sqrt(spread))
    close(((out["moved"].astype(float) - 5) / 0.5).mean(), 0, 1)
    close(out["coin"].mean(), 0.3, math.sqrt(0.21))
    close(out["chance"].mean(), 0.25, math.sqrt(0.1875))
    kept = out["half"] != 0
    close(kept.mean(), 0.5, 0.5)
    np.testing.assert_array_equal(out["half"][kept], np.float32(0.5))
    # neighbours in a row, in a column, and other draws know nothing of each other
    u = out["uniform"].astype(float) - 0.5
    for other in (np.roll(u, 1, 1), np.roll(u, 1, 0), np.roll(u, 1024, None), out["double"] - 0.5, z, kept - 0.5):
        assert abs(np.corrcoef(u.ravel(), other.ravel())[0, 1]) < 5 / math.sqrt(n)


def test_bits_are_as_often_set_as_not():
    """χ² of each bit, and of each byte, over counters that follow each other, keys too: what draws are made of."""
    for bits in (random_bits(1, np.arange(200_000)), random_bits(np.arange(200_000), 1)):
        ones = np.array([(bits >> k & 1).sum() for k in range(64)])
        assert ((ones - 100_000) ** 2 / 50_000).sum() < 64 + 5 * math.sqrt(2 * 64)
        assert ((ones - 100_000) ** 2 / 50_000).max() < 25
        for k in range(0, 64, 8):
            count = np.bincount(bits >> k & 255, minlength=256)
            expected = 200_000 / 256
            assert abs(((count - expected) ** 2 / expected).sum() - 255) < 5 * math.sqrt(2 * 255)


# -- calls -------------------------------------------------------------------------------------------------------------
@gc.model
def dropped(x: gc.f64["B", 4]):
    w = gc.param("w", (4,), init="ones")
    y = gc.dropout(x * w, 0.25)
    return gc.outputs(y=y, loss=gc.sum(y * y))


def test_dropout_is_off_unless_the_call_trains():
    m = gc.compile(dropped, dtype="float64")
    x = np.arange(1.0, 401.0).reshape(100, 4)
    before = int(m.states[COUNTER])
    np.testing.assert_array_equal(m.forward(x)["y"], x)
    assert int(m.states[COUNTER]) == before, "a call that draws nothing does not count"
    for call in (lambda: m.forward(x, train=True)["y"], lambda: m.value_and_grad(x)[0]["y"]):
        y = call()
        assert set(np.unique(y / x).round(12)) == {0, round(4 / 3, 12)}
    assert int(m.states[COUNTER]) == before + 2
    np.testing.assert_array_equal(m.forward(x)["y"], x)


def test_the_gradient_is_the_mask_times_the_scale():
    m = gc.compile(dropped, dtype="float64", check=True)
    x = np.random.default_rng(0).standard_normal((50, 4))
    out, gradients = m.value_and_grad(x)
    mask = out["y"] != 0
    np.testing.assert_allclose(out["y"], np.where(mask, x / 0.75, 0), rtol=1e-15)
    np.testing.assert_allclose(gradients["w"], (2 * out["y"] * x / 0.75 * mask).sum(0), rtol=1e-12)


def test_each_call_draws_others_and_a_reset_the_same():
    m = gc.compile(dropped, dtype="float64", seed=3)
    x = np.ones((100, 4))
    first, second = (m.value_and_grad(x)[0]["y"] for _ in range(2))
    assert (first != second).any()
    m.reset()
    np.testing.assert_array_equal(m.forward(x, train=True)["y"], first)
    np.testing.assert_array_equal(m.value_and_grad(x)[0]["y"], second)
    same, other = (gc.compile(dropped, dtype="float64", seed=s).value_and_grad(x)[0]["y"] for s in (3, 4))
    np.testing.assert_array_equal(same, first)
    assert (other != first).any()
    np.testing.assert_array_equal(m.clone().value_and_grad(x)[0]["y"], first)


def test_a_training_step_draws_and_counts():
    m = gc.compile(dropped, dtype="float64", optimiser=gc.train.SGD(lr=1e-3))
    x = np.ones((100, 4))
    first, second = (m.step(x)["y"] != 0 for _ in range(2))
    assert (first != second).any()
    m.reset()
    np.testing.assert_array_equal(m.step(x)["y"] != 0, first)


def test_what_is_drawn_outside_dropout_is_drawn_in_every_call():
    @gc.model
    def noise(x: gc.f32["B"]):
        return gc.outputs(y=x + gc.random.normal(x.shape), plain=x * 2)

    m = gc.compile(noise)
    x = np.zeros(10, np.float32)
    first, second = (m.forward(x)["y"] for _ in range(2))
    assert (first != second).all()
    count = int(m.states[COUNTER])
    m.forward(x, outputs="plain")
    assert int(m.states[COUNTER]) == count


def test_models_of_one_file_share_the_counter():
    @gc.model
    def other(x: gc.f64["B", 4]):
        return gc.outputs(u=gc.random.uniform(x.shape))

    m = gc.compile(dropped, other, dtype="float64")
    x = np.ones((3, 4))
    count = int(m.states[COUNTER])
    m.dropped.value_and_grad(x)
    m.other.forward(x)
    assert int(m.states[COUNTER]) == count + 2


def test_the_mode_can_be_asked_for():
    @gc.model
    def mode(x: gc.f32["B"]):
        return gc.outputs(y=gc.where(gc.training(), x * 2, x), loss=gc.sum(x))

    m = gc.compile(mode, check=True)
    x = np.ones(2, np.float32)
    assert [m.forward(x)["y"][0], m.forward(x, train=True)["y"][0], m.value_and_grad(x)[0]["y"][0]] == [1, 2, 2]


def test_the_artifact_draws_the_same(tmp_path):
    m = gc.compile(dropped, dtype="float64", seed=7)
    x = np.ones((20, 4))
    want = [m.forward(x, train=True)["y"], m.value_and_grad(x)[0]["y"]]
    m.reset()
    loaded = gc.load(m.save(tmp_path))
    np.testing.assert_array_equal(loaded.forward(x)["y"], x)
    for a, b in zip([loaded.forward(x, train=True)["y"], loaded.value_and_grad(x)[0]["y"]], want, strict=True):
        np.testing.assert_array_equal(a, b)
    loaded.reset()
    np.testing.assert_array_equal(loaded.forward(x, train=True, outputs=["y"])["y"], want[0])


# -- loops -------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("checkpoint", [None, 2, "sqrt"])
@pytest.mark.parametrize("reverse", [False, True])
def test_each_step_of_a_loop_draws_others(checkpoint, reverse):
    @gc.model
    def loop(x: gc.f64["T", "B", 3]):
        w = gc.param("w", (3, 3))
        shared = gc.dropout(gc.ones((gc.dim("B"), 3)), 0.5)  # one mask for all steps

        def step(h, x_t):
            kept = gc.dropout(h, 0.5)
            h = gc.tanh((kept * shared) @ w + x_t)
            return h, (gc.random.uniform(("B",)), h, kept)

        _, (u, hs, kept) = gc.scan(step, gc.ones((gc.dim("B"), 3)), x, reverse=reverse, checkpoint=checkpoint)
        return gc.outputs(u=u, hs=hs, kept=kept, shared=shared, loss=gc.sum(hs * hs))

    models = [gc.compile(loop, target=t, dtype="float64", seed=1, check=True) for t in ("cpu", "numpy")]
    T, B = 6, 4
    x = np.random.default_rng(0).standard_normal((T, B, 3))
    w = np.random.default_rng(1).standard_normal((3, 3))
    results = []
    for m in models:
        m.params["w"] = w
        results.append(m.value_and_grad(x))
    (out, gradients), (again, others) = results
    np.testing.assert_array_equal(out["u"], again["u"])
    assert len(np.unique(out["u"])) == T * B
    assert len({tuple(row) for row in (out["kept"] != 0).reshape(T, -1)}) > 1
    np.testing.assert_allclose(gradients["w"], others["w"], rtol=1e-12)

    torch = pytest.importorskip("torch", reason="the gradient, through the masks that were drawn, is PyTorch's")

    W, h, total = torch.tensor(w, requires_grad=True), torch.ones(B, 3, dtype=torch.float64), 0
    masks, once = torch.tensor((out["kept"] != 0) * 2.0), torch.tensor(out["shared"])
    for t in range(T)[:: -1 if reverse else 1]:
        h = torch.tanh((h * masks[t] * once) @ W + torch.tensor(x[t]))
        total = total + (h * h).sum()
    total.backward()
    np.testing.assert_allclose(gradients["w"], W.grad, rtol=1e-10)


def test_loops_in_loops_draw_others_at_every_step():
    @gc.model
    def nested(x: gc.f32["T", "S"]):
        def outer(carry, row):
            def inner(c, v):
                return c, gc.random.uniform((2,))

            _, us = gc.scan(inner, carry, row)
            return carry, us

        _, us = gc.scan(outer, gc.zeros(()), x)
        return gc.outputs(us=us)

    us = gc.compile(nested, check=True).forward(np.zeros((3, 4), np.float32))["us"]
    assert us.shape == (3, 4, 2) and len(np.unique(us)) == 24


def test_verification_covers_random_numbers():
    from graphc.frontend.model import trace_models
    from graphc.graph.dtype import f64
    from graphc.verify.model import verify

    certificate = verify(trace_models([dropped], "dropped", f64, {}))
    assert certificate.findings and all(f.standing in ("PROVED", "EXACT") for f in certificate.findings)


# -- errors ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "draw, text",
    [
        (lambda x: gc.dropout(x, 1.0), "dropout: the rate is 1.0"),
        (lambda x: gc.dropout(x, -0.1), "dropout: the rate is -0.1"),
        (lambda x: gc.dropout(x, x), "dropout: the rate is Tensor(f32[B])"),
        (lambda x: gc.dropout(x > 0), "dropout: bool_[B] is no floating-point array"),
        (lambda x: gc.random.bernoulli(1.5, (2,)), "bernoulli: 1.5 is no probability"),
        (lambda x: gc.random.bernoulli(x > 0), "bernoulli: probabilities are floating-point numbers, not bool_[B]"),
        (lambda x: gc.random.uniform((2,), dtype=gc.i64), "random.uniform: i64 is no floating-point type"),
        (lambda x: gc.random.normal((2,), dtype="f32"), "random.normal: f32 is no floating-point type"),
        (lambda x: gc.random.uniform(("Q",)), "the size 'Q' is not a size of any input"),
        (lambda x: gc.random.uniform((-2,)), "below 0"),
    ],
)
def test_errors(draw, text):
    @gc.model
    def model(x: gc.f32["B"]):
        return gc.outputs(y=draw(x))

    with pytest.raises(GraphcError) as caught:
        gc.compile(model)
    assert text in str(caught.value)


def test_probabilities_at_the_ends():
    @gc.model
    def ends(x: gc.f32["B"]):
        return gc.outputs(no=gc.random.bernoulli(0.0, x.shape), yes=gc.random.bernoulli(1, x.shape), same=gc.dropout(x, 0.0))

    out = gc.compile(ends).forward(np.ones(1000, np.float32), train=True)
    assert not out["no"].any() and out["yes"].all() and (out["same"] == 1).all()


def test_a_loop_that_drops_nothing_does_not_count():
    @gc.model
    def loop(x: gc.f64["T", "B"]):
        def step(h, x_t):
            h = gc.dropout(h, 0.5) + x_t
            return h, h

        _, hs = gc.scan(step, gc.zeros(("B",)), x)
        return gc.outputs(hs=hs)

    m = gc.compile(loop, dtype="float64")
    count, x = int(m.states[COUNTER]), np.ones((4, 3))
    np.testing.assert_array_equal(m.forward(x)["hs"], np.cumsum(x, 0))
    assert int(m.states[COUNTER]) == count
    assert (m.forward(x, train=True)["hs"] != np.cumsum(x, 0)).any()
    assert int(m.states[COUNTER]) == count + 1
