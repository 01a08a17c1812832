"""`gc.scan` against plain NumPy loops and against PyTorch, in float64: values, gradients, nests, lengths, errors."""

import re

import numpy as np
import pytest

import graphc as gc
from graphc.errors import InputError, RuntimeFault, TraceError

try:
    import torch
except ImportError:
    torch = None

needs_torch = pytest.mark.skipif(torch is None, reason="compares with PyTorch: pip install torch")


def filled(m, seed, scale=0.5):
    """Random parameters, also as PyTorch tensors."""
    rng = np.random.default_rng(seed)
    for k in m.params:
        m.params[k][...] = rng.standard_normal(m.params[k].shape) * scale
    return {k: torch.tensor(np.array(m.params[k]), requires_grad=True) for k in m.params}


def same(got, want, tolerance=1e-10):
    want = want.detach().numpy() if isinstance(want, torch.Tensor) else want
    np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance)


def check(m, inputs, loop, seed=0):
    """The compiled loss and gradients are those of a PyTorch loop over the same numbers."""
    params = filled(m, seed)
    loss = loop({k: torch.tensor(v) for k, v in inputs.items()}, params)
    loss.backward()
    out, gradients = m.value_and_grad(**inputs)
    same(out["loss"], loss)
    for name, tensor in params.items():
        same(gradients[name], tensor.grad if tensor.grad is not None else np.zeros(tensor.shape))


SHAPES = [(1, 1, 1), (1, 3, 2), (2, 1, 4), (5, 2, 3), (9, 4, 5)]


@needs_torch
@pytest.mark.parametrize("T,B,H", SHAPES)
@pytest.mark.parametrize("reverse", [False, True])
def test_lstm_with_a_dict_carry(T, B, H, reverse):
    @gc.model
    def lstm(x: gc.f64["T", "B", 3]):
        W, U, b = gc.param("W", (3, 4 * H)), gc.param("U", (H, 4 * H)), gc.param("b", (4 * H,))

        def step(s, x_t):
            f, i, g, o = gc.split(x_t @ W + s["h"] @ U + b, 4, axis=-1)
            c = gc.sigmoid(f) * s["c"] + gc.sigmoid(i) * gc.tanh(g)
            h = gc.sigmoid(o) * gc.tanh(c)
            return {"h": h, "c": c}, (h, c * 2)

        zero = gc.zeros((gc.dim("B"), H))
        last, (hs, cs) = gc.scan(step, init={"h": zero, "c": zero}, xs=x, reverse=reverse)
        return gc.outputs(hs=hs, loss=gc.sum(hs * hs) + gc.sum(cs * hs) + gc.sum(last["c"]) + gc.sum(last["h"] * 3))

    def loop(inputs, p):
        x = inputs["x"]
        h = c = torch.zeros(B, H, dtype=torch.float64)
        total = 0
        for t in range(T)[:: -1 if reverse else 1]:
            f, i, g, o = (x[t] @ p["W"] + h @ p["U"] + p["b"]).split(H, dim=-1)
            c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
            h = torch.sigmoid(o) * torch.tanh(c)
            total = total + (h * h).sum() + (2 * c * h).sum()
        return total + c.sum() + (h * 3).sum()

    m = gc.compile(lstm, dtype="float64", check=True)
    check(m, {"x": np.random.default_rng(T).standard_normal((T, B, 3))}, loop)


@needs_torch
@pytest.mark.parametrize("T,B,H", SHAPES)
def test_gru_with_a_learned_initial_state_along_axis_1(T, B, H):
    @gc.model
    def gru(x: gc.f64["B", "T", 3]):
        W, U = gc.param("W", (3, 3 * H)), gc.param("U", (H, 3 * H))
        h0 = gc.param("h0", (H,))

        def step(h, x_t):
            xr, xz, xn = gc.split(x_t @ W, 3, axis=-1)
            a = h @ U[:, : 2 * H]
            r, z = gc.sigmoid(xr + a[:, :H]), gc.sigmoid(xz + a[:, H:])
            n = gc.tanh(xn + (r * h) @ U[:, 2 * H :])
            h = (1 - z) * h + z * n
            return h, h

        h, hs = gc.scan(step, init=gc.broadcast_to(h0, (gc.dim("B"), H)), xs=x, axis=1)
        return gc.outputs(hs=hs, loss=gc.sum(hs**3) + gc.sum(h))

    def loop(inputs, p):
        x, W, U = inputs["x"], p["W"], p["U"]
        h = p["h0"].expand(B, H)
        total = 0
        for t in range(T):
            xr, xz, xn = (x[:, t] @ W).split(H, dim=-1)
            a = h @ U[:, : 2 * H]
            r, z = torch.sigmoid(xr + a[:, :H]), torch.sigmoid(xz + a[:, H:])
            n = torch.tanh(xn + (r * h) @ U[:, 2 * H :])
            h = (1 - z) * h + z * n
            total = total + (h**3).sum()
        return total + h.sum()

    m = gc.compile(gru, dtype="float64", check=True)
    x = np.random.default_rng(T).standard_normal((B, T, 3))
    check(m, {"x": x}, loop)
    assert m.forward(x=x)["hs"].shape == (B, T, H)


@needs_torch
@pytest.mark.parametrize("target", ["cpu", "numpy"])
def test_scalars_several_inputs_integers_and_no_y(target):
    @gc.model
    def horner(x: gc.f64, c: gc.f64["N"], k: gc.i64["N"]):
        def step(carry, element):
            total, count = carry
            a, n = element
            return (total * x + a, count + n), None

        (total, count), nothing = gc.scan(step, init=(0.0, 0), xs=(c, k))
        assert nothing is None
        return gc.outputs(total=total, count=count, slope=gc.grad(total, x))

    m = gc.compile(horner, dtype="float64", target=target, check=True)
    c = np.array([2.0, -1.0, 0.5, 3.0])
    out = m.forward(x=1.5, c=c, k=np.arange(4))
    assert out["count"] == 6
    same(out["total"], np.polyval(c, 1.5))
    same(out["slope"], np.polyval(np.polyder(c), 1.5))


@needs_torch
def test_length_without_xs_and_results_that_do_not_change():
    @gc.model
    def powers(a: gc.f64["N", "N"]):
        def step(p, _):
            return p @ a, (p, gc.ones((2,)))

        last, (ps, ones) = gc.scan(step, init=a, length=3)
        return gc.outputs(last=last, ps=ps, ones=ones)

    a = np.random.default_rng(0).standard_normal((3, 3))
    out = gc.compile(powers, dtype="float64", check=True).forward(a=a)
    same(out["last"], np.linalg.matrix_power(a, 4))
    same(out["ps"], np.stack([a, a @ a, a @ a @ a]))
    same(out["ones"], np.ones((3, 2)))


@needs_torch
def test_carries_that_swap():
    @gc.model
    def fibonacci(x: gc.f64["N"]):
        def step(s, x_t):
            a, b = s
            return (b, a + b * x_t), a

        (a, b), seen = gc.scan(step, init=(0.0, 1.0), xs=x)
        return gc.outputs(a=a, b=b, seen=seen)

    out = gc.compile(fibonacci, dtype="float64", check=True).forward(x=np.ones(8))
    assert (out["a"], out["b"]) == (21, 34)
    same(out["seen"], [0, 1, 1, 2, 3, 5, 8, 13])


@needs_torch
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("S,T", [(1, 1), (2, 3), (4, 2)])
def test_scans_nest(S, T, reverse):
    @gc.model
    def nested(x: gc.f64["S", "T", "B", 2]):
        U, V = gc.param("U", (2, 2)), gc.param("V", (2, 2))

        def sentence(h, words):
            def word(g, w):
                g = gc.tanh(g @ U + w + h)
                return g, g

            last, gs = gc.scan(word, init=h, xs=words, reverse=reverse)
            return gc.tanh(last @ V), gs

        h, out = gc.scan(sentence, init=gc.zeros((gc.dim("B"), 2)), xs=x)
        return gc.outputs(out=out, loss=gc.sum(out * out) + gc.sum(h))

    def loop(inputs, p):
        h, total = torch.zeros(3, 2, dtype=torch.float64), 0
        for s in range(S):
            g = h
            for t in range(T)[:: -1 if reverse else 1]:
                g = torch.tanh(g @ p["U"] + inputs["x"][s, t] + h)
                total = total + (g * g).sum()
            h = torch.tanh(g @ p["V"])
        return total + h.sum()

    m = gc.compile(nested, dtype="float64", check=True)
    check(m, {"x": np.random.default_rng(S).standard_normal((S, T, 3, 2))}, loop)


@needs_torch
@pytest.mark.parametrize("reverse", [False, True])
def test_lengths_of_a_ragged_batch(reverse):
    @gc.model
    def ragged(x: gc.f64["T", "B", 2], n: gc.i32["B"]):
        U = gc.param("U", (2, 2))

        def step(h, x_t):
            h = gc.tanh(h @ U + gc.log(x_t))
            return h, h

        last, hs = gc.scan(step, init=gc.ones((gc.dim("B"), 2)), xs=x, lengths=n, reverse=reverse)
        return gc.outputs(hs=hs, last=last, loss=gc.sum(hs * hs) + gc.sum(last))

    m = gc.compile(ragged, dtype="float64", check=True)
    p = filled(m, 0)
    lengths = np.array([3, 1, 5, 2], np.int32)
    x = np.random.default_rng(0).uniform(0.5, 2, (5, 4, 2))
    for b, n in enumerate(lengths):
        x[n:, b] = 0  # log 0 beyond the end must reach neither a value nor a gradient
    total, want, ends = 0, np.zeros((5, 4, 2)), []
    for b, n in enumerate(lengths):
        h = torch.ones(1, 2, dtype=torch.float64)
        for t in range(n)[:: -1 if reverse else 1]:
            h = torch.tanh(h @ p["U"] + torch.log(torch.tensor(x[t, b : b + 1])))
            want[t, b] = h.detach().numpy()
            total = total + (h * h).sum()
        ends.append(h.detach().numpy()[0])
        total = total + h.sum()
    total.backward()
    out, gradients = m.value_and_grad(x=x, n=lengths)
    same(out["hs"], want)
    same(out["last"], ends)
    same(out["loss"], total)
    same(gradients["U"], p["U"].grad)
    for bad in (0, 6, -1):
        with pytest.raises(RuntimeFault, match=f"the length {bad} of sequence 2 is not between 1 and 5"):
            m.forward(x=x, n=np.array([3, 1, bad, 2], np.int32))


@needs_torch
def test_second_derivatives():
    @gc.model
    def rnn(x: gc.f64["T", "B", 2], v: gc.f64[3, 3]):
        U, W = gc.param("U", (3, 3)), gc.param("W", (2, 3))

        def step(h, x_t):
            h = gc.sigmoid(h @ U + x_t @ W)
            return h, h * h

        last, hs = gc.scan(step, init=gc.zeros((gc.dim("B"), 3)), xs=x)
        loss = gc.sum(hs * hs) + gc.sum(last)
        (product,) = gc.hvp(loss, [U], [v])
        return gc.outputs(loss=loss, product=product, third=gc.grad(gc.sum(product * v), U))

    m = gc.compile(rnn, dtype="float64", check=True)
    p = filled(m, 1)
    rng = np.random.default_rng(1)
    x, v = rng.standard_normal((4, 2, 2)), rng.standard_normal((3, 3))
    h, total = torch.zeros(2, 3, dtype=torch.float64), 0
    for t in range(4):
        h = torch.sigmoid(h @ p["U"] + torch.tensor(x[t]) @ p["W"])
        total = total + (h**4).sum()
    total = total + h.sum()
    (g,) = torch.autograd.grad(total, p["U"], create_graph=True)
    (product,) = torch.autograd.grad((g * torch.tensor(v)).sum(), p["U"], create_graph=True)
    (third,) = torch.autograd.grad((product * torch.tensor(v)).sum(), p["U"])
    out = m.forward(x=x, v=v)
    same(out["product"], product)
    same(out["third"], third)


@needs_torch
def test_gradients_inside_a_step():
    @gc.model
    def descent(x: gc.f64[3], y: gc.f64["N"]):
        W = gc.param("W", (3,))

        def step(w, y_t):
            loss = (gc.sum(w * x) * gc.sum(W * W) - y_t) ** 2
            d_w, d_x = gc.grad(loss, [w, W])
            return w - 0.1 * d_w, gc.sum(d_x)

        w, seen = gc.scan(step, init=W, xs=y)
        return gc.outputs(w=w, seen=seen, loss=gc.sum(w * w))

    m = gc.compile(descent, dtype="float64", check=True)
    p = filled(m, 3)
    x, y = np.array([0.3, -0.2, 0.5]), np.array([1.0, 2.0, -1.0])
    w = p["W"]
    seen = []
    for y_t in y:  # the carry is a value of its own, though it begins as W
        a, s = (w * torch.tensor(x)).sum(), (p["W"] * p["W"]).sum()
        seen.append((4 * (a * s - y_t) * a * p["W"]).sum().item())
        w = w - 0.1 * 2 * (a * s - y_t) * s * torch.tensor(x)
    (gradient,) = torch.autograd.grad((w * w).sum(), p["W"])
    out, gradients = m.value_and_grad(x=x, y=y)
    same(out["w"], w)
    same(out["seen"], seen)
    same(gradients["W"], gradient)


@needs_torch
def test_a_long_sequence_and_compile_time_without_its_length():
    @gc.model
    def mean(x: gc.f64["T"]):
        a = gc.param("a", ())

        def step(h, x_t):
            h = a * h + (1 - a) * x_t
            return h, h

        _, hs = gc.scan(step, init=0.0, xs=x)
        return gc.outputs(loss=gc.sum(hs * hs))

    m = gc.compile(mean, dtype="float64")
    m.params["a"][...] = 0.9
    x = np.random.default_rng(0).standard_normal(10_000)
    h, dh, total, slope = 0.0, 0.0, 0.0, 0.0
    for v in x:
        dh = h - v + 0.9 * dh
        h = 0.9 * h + 0.1 * v
        total, slope = total + h * h, slope + 2 * h * dh
    out, g = m.value_and_grad(x=x)
    same(out["loss"], total)
    same(g["a"], slope)


# -- errors ----------------------------------------------------------------------------------------------------------
def rejected(function, text):
    with pytest.raises(TraceError, match=re.escape(text)) as caught:
        gc.compile(gc.model(function))
    assert caught.value.where.file == __file__


def test_a_carry_of_another_symbolic_size_is_checked_by_the_call():
    @gc.model
    def m(x: gc.f64["T", "B", 3]):
        _, ys = gc.scan(lambda h, x_t: (gc.tanh(h + x_t),) * 2, init=gc.zeros((4, 3)), xs=x)
        return gc.outputs(y=ys)

    compiled = gc.compile(m, dtype="float64", check=True)
    assert compiled.forward(np.ones((2, 4, 3)))["y"].shape == (2, 4, 3)
    with pytest.raises(InputError, match="B is 5; 4 == B is needed"):
        compiled.forward(np.ones((2, 5, 3)))


def test_a_carry_that_changes():
    def wider(x: gc.f32["T", "B", 3]):
        _, ys = gc.scan(lambda c, x_t: ({"h": c["h"] @ gc.ones((3, 4))}, None), init={"h": gc.zeros((2, 3))}, xs=x)
        return gc.outputs(y=ys)

    rejected(
        wider, "scan: carry['h'] changes from step to step: it begins as f32[2, 3], the step makes it f32[2, 4]"
    )

    def stretched(x: gc.f32["T", "B", 3]):
        _, ys = gc.scan(lambda h, x_t: (gc.tanh(h + x_t),) * 2, init=gc.zeros((1, 3)), xs=x)
        return gc.outputs(y=ys)

    rejected(
        stretched,
        "scan: carry changes from step to step: it begins as f32[1, 3], the step makes it f32[B, 3]\n"
        "  how: a carry keeps its shape and element type: let it begin as f32[B, 3], by gc.broadcast_to",
    )

    def shrunk(x: gc.f32["T", 3], h: gc.f32["B", 3]):
        _, ys = gc.scan(lambda h, x_t: (x_t[None], h), init=h, xs=x)
        return gc.outputs(y=ys)

    rejected(
        shrunk,
        "scan: carry changes from step to step: it begins as f32[B, 3], the step makes it f32[1, 3]\n"
        "  how: a carry keeps its shape and element type: let the step make it f32[B, 3], by gc.broadcast_to",
    )

    def counted(x: gc.f32["T"]):
        last, _ = gc.scan(lambda c, x_t: (c + x_t, None), init=0, xs=x)
        return gc.outputs(y=last)

    rejected(counted, "scan: carry changes from step to step: it begins as i64[], the step makes it f64[]")

    def renamed(x: gc.f32["T"]):
        last, _ = gc.scan(lambda c, x_t: ({"b": c["a"]}, None), init={"a": 0.0}, xs=x)
        return gc.outputs(y=last["a"])

    rejected(renamed, "scan: the carry begins as {'a': *} and the step makes it {'b': *}")

    def lonely(x: gc.f32["T"]):
        last, _ = gc.scan(lambda c, x_t: c, init=0.0, xs=x)
        return gc.outputs(y=last)

    rejected(lonely, "scan: the step returns Tensor, not two")


def test_sequences_that_do_not_fit():
    def lengths(x: gc.f32[4], y: gc.f32[5]):
        last, _ = gc.scan(lambda c, v: (c + v[0] + v[1], None), init=0.0, xs=(x, y))
        return gc.outputs(y=last)

    rejected(lengths, "scan: xs[0] has the length 4 along axis 0, xs[1] 5")

    def nothing(x: gc.f32[4]):
        last, _ = gc.scan(lambda c, _: (c, None), init=x)
        return gc.outputs(y=last)

    rejected(nothing, "scan: there is nothing to run over")

    def empty(x: gc.f32[0]):
        last, _ = gc.scan(lambda c, v: (c + v, None), init=0.0, xs=x)
        return gc.outputs(y=last)

    rejected(empty, "scan: the sequence is empty: it has no first step")

    def flat(x: gc.f32["T"]):
        last, _ = gc.scan(lambda c, v: (c + v, None), init=0.0, xs=x, axis=1)
        return gc.outputs(y=last)

    rejected(flat, "scan: axis 1 is out of range for xs, f32[T], of 1 axes")

    @gc.model
    def symbolic(x: gc.f32["T"], y: gc.f32["S"]):
        last, _ = gc.scan(lambda c, v: (c + v[0] * v[1], None), init=0.0, xs=(x, y))
        return gc.outputs(y=last)

    m = gc.compile(symbolic)
    assert m.forward(x=np.ones(3, np.float32), y=np.ones(3, np.float32))["y"] == 3
    with pytest.raises(InputError, match=re.escape("scan: xs[0] has the length T along axis 0, xs[1] S")):
        m.forward(x=np.ones(3, np.float32), y=np.ones(2, np.float32))
    with pytest.raises(InputError, match="scan: the sequence is empty"):
        m.forward(x=np.ones(0, np.float32), y=np.ones(0, np.float32))


def test_a_value_of_a_step_used_outside():
    def leaked(x: gc.f32["T"]):
        kept = []

        def step(c, v):
            kept.append(v)
            return c + v, None

        last, _ = gc.scan(step, init=0.0, xs=x)
        return gc.outputs(y=last + kept[0])

    with pytest.raises(gc.GraphcError, match=r"a value of a step of gc\.scan is used outside the step"):
        gc.compile(gc.model(leaked))


# -- segments --------------------------------------------------------------------------------------------------------
@needs_torch
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("checkpoint", [1, 3, "sqrt", "auto"])
@pytest.mark.parametrize("T", [3, 4, 7, 9])
def test_checkpoints_change_nothing(T, checkpoint, reverse):
    def model(segment):
        @gc.model
        def rnn(x: gc.f64["T", "B", 2]):
            U, W = gc.param("U", (3, 3)), gc.param("W", (2, 3))

            def step(h, x_t):
                h = gc.tanh(h @ U + x_t @ W)
                return h, gc.exp(h)

            last, hs = gc.scan(step, init=gc.zeros((gc.dim("B"), 3)), xs=x, reverse=reverse, checkpoint=segment)
            return gc.outputs(hs=hs, loss=gc.sum(hs * hs) + gc.sum(last))

        m = gc.compile(rnn, dtype="float64", check=True)
        filled(m, T)
        return m.value_and_grad(x=np.random.default_rng(T).standard_normal((T, 2, 2)))

    (out, gradients), (want, wanted) = model(checkpoint), model(None)
    same(out["hs"], want["hs"], 1e-13)
    for k in wanted:
        same(gradients[k], wanted[k])


def test_memory_grows_as_the_root_of_the_length():
    def arena(checkpoint, T):
        @gc.model
        def rnn(x: gc.f64["T", "B", 2]):
            U, W = gc.param("U", (8, 8)), gc.param("W", (2, 8))
            last, _ = gc.scan(
                lambda h, x_t: (gc.tanh(h @ U + gc.sin(x_t) @ W), None),
                init=gc.zeros((gc.dim("B"), 8)),
                xs=x,
                checkpoint=checkpoint,
            )
            return gc.outputs(loss=gc.sum(last))

        return gc.compile(rnn, dtype="float64").cost(T=T, B=4)["gradient"]["arena"]

    plain, cut = ([arena(c, T) for T in (100, 400, 1600)] for c in (None, "sqrt"))
    assert plain[2] > 12 * plain[0]
    assert cut[2] < 5 * cut[0]


def test_a_checkpoint_that_is_none():
    def wrong(x: gc.f32["T"]):
        last, _ = gc.scan(lambda c, v: (c + v, None), init=0.0, xs=x, checkpoint="often")
        return gc.outputs(y=last)

    rejected(wrong, "scan: checkpoint='often'")

    @gc.model
    def long(x: gc.f32["T"]):
        last, _ = gc.scan(lambda c, v: (c + v, None), init=0.0, xs=x, checkpoint=5)
        return gc.outputs(y=last)

    with pytest.raises(InputError, match="segments of 5 steps are longer than the sequence, of T"):
        gc.compile(long).forward(x=np.ones(4, np.float32))


# -- look-ups that depend on the carry -------------------------------------------------------------------------------
@needs_torch
@pytest.mark.parametrize("target", ["cpu", "numpy"])
def test_a_generator_looks_up_what_it_gave(target):
    @gc.model
    def generator(first: gc.i64["B"]):
        E, W, U = gc.param("E", (5, 3)), gc.param("W", (3, 5)), gc.param("U", (5, 5))

        def step(s, _):
            h, token = s
            h = gc.tanh(gc.take(E, token) @ W + h @ U)
            token = gc.argmax(h, axis=1)
            return (h, token), token

        _, tokens = gc.scan(step, init=(gc.zeros((gc.dim("B"), 5)), first), length=6)
        return gc.outputs(tokens=tokens)

    m = gc.compile(generator, dtype="float64", target=target, check=True)
    filled(m, 0, 1.5)
    h, token, want = np.zeros((2, 5)), np.array([4, 1]), []
    for _ in range(6):
        h = np.tanh(m.params["E"][token] @ m.params["W"] + h @ m.params["U"])
        token = h.argmax(1)
        want.append(token)
    assert m.forward(first=np.array([4, 1]))["tokens"].tolist() == np.stack(want).tolist()
    with pytest.raises(RuntimeFault, match="take: the index 7 is out of range for an axis of length 5"):
        m.forward(first=np.array([0, 7]))


@pytest.mark.parametrize("target", ["cpu", "numpy"])
def test_an_index_that_leaves_its_range_on_the_way(target):
    @gc.model
    def walk(table: gc.f64[4], jump: gc.i64["T"]):
        (total, _), _ = gc.scan(
            lambda s, j: ((s[0] + gc.take(table, s[1]), s[1] + j), None), init=(0.0, gc.const(np.int64(0))), xs=jump
        )
        return gc.outputs(total=total)

    m = gc.compile(walk, dtype="float64", target=target, check=True)
    table = np.array([1.0, 10, 100, 1000])
    assert m.forward(table=table, jump=np.array([1, 2, -3, 5]))["total"] == 1 + 10 + 1000 + 1
    with pytest.raises(RuntimeFault, match="take: the index 4 is out of range"):
        m.forward(table=table, jump=np.array([1, 3, 0]))
