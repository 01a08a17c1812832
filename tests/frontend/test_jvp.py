"""`gc.jvp` against PyTorch's forward mode: plain graphs, loops, and derivatives of it."""

import numpy as np
import pytest

import graphc as gc

torch = pytest.importorskip("torch", reason="compares with PyTorch: pip install torch")
jvp = torch.func.jvp


def test_a_graph_of_several_inputs():
    @gc.model
    def f(x: gc.f64["B", 3], w: gc.f64[3, 2], dx: gc.f64["B", 3], dw: gc.f64[3, 2]):
        y = gc.tanh(x @ w) * gc.sum(x, axis=1, keepdims=True) + gc.zeros((gc.dim("B"), 2))
        return gc.outputs(y=gc.jvp(y, [x, w], [dx, dw]), slope=gc.jvp(gc.sum(y), [w], [dw]))

    rng = np.random.default_rng(0)
    x, w, dx, dw = (rng.standard_normal(s) for s in ((4, 3), (3, 2), (4, 3), (3, 2)))

    def reference(x, w):
        return torch.tanh(x @ w) * x.sum(1, keepdim=True)

    numbers = tuple(map(torch.tensor, (x, w)))
    _, want = jvp(reference, numbers, tuple(map(torch.tensor, (dx, dw))))
    out = gc.compile(f, dtype="float64", check=True).forward(x=x, w=w, dx=dx, dw=dw)
    np.testing.assert_allclose(out["y"], want.numpy(), rtol=1e-12)
    _, want = jvp(lambda w: reference(numbers[0], w).sum(), numbers[1:], (torch.tensor(dw),))
    np.testing.assert_allclose(out["slope"], want.numpy(), rtol=1e-12)


@pytest.mark.parametrize("T", [1, 2, 6])
@pytest.mark.parametrize("reverse", [False, True])
def test_through_a_loop_and_its_derivative(T, reverse):
    @gc.model
    def rnn(x: gc.f64["T", "B", 2], u: gc.f64[3, 3], h0: gc.f64["B", 3], du: gc.f64[3, 3], dx: gc.f64["T", "B", 2]):
        w = gc.const(np.arange(6.0).reshape(2, 3) / 5)

        def step(h, x_t):
            h = gc.sigmoid(h @ u + x_t @ w)
            return h, h * h

        last, hs = gc.scan(step, init=h0, xs=x, reverse=reverse)
        moved = gc.jvp(hs, [u, x], [du, dx])
        return gc.outputs(moved=moved, last=gc.jvp(last, [u], [du]), slope=gc.grad(gc.sum(moved * moved), u))

    rng = np.random.default_rng(T)
    shapes = {"x": (T, 2, 2), "u": (3, 3), "h0": (2, 3), "du": (3, 3), "dx": (T, 2, 2)}
    given = {k: rng.standard_normal(s) for k, s in shapes.items()}
    t = {k: torch.tensor(v) for k, v in given.items()}
    w = torch.arange(6.0, dtype=torch.float64).reshape(2, 3) / 5

    def loop(u, x):
        h, seen = t["h0"], [None] * T
        for i in range(T)[:: -1 if reverse else 1]:
            h = torch.sigmoid(h @ u + x[i] @ w)
            seen[i] = h * h
        return torch.stack(seen), h

    def moved(u):
        return jvp(loop, (u, t["x"]), (t["du"], t["dx"]))[1][0]

    m = gc.compile(rnn, dtype="float64", check=True)
    out = m.forward(**given)
    np.testing.assert_allclose(out["moved"], moved(t["u"]).numpy(), rtol=1e-10, atol=1e-12)
    last = jvp(lambda u: loop(u, t["x"])[1], (t["u"],), (t["du"],))[1]
    np.testing.assert_allclose(out["last"], last.numpy(), rtol=1e-10, atol=1e-12)
    slope = torch.func.grad(lambda u: (moved(u) ** 2).sum())(t["u"])
    np.testing.assert_allclose(out["slope"], slope.numpy(), rtol=1e-10, atol=1e-12)
