"""The target cuda against the CPU: run by the tests in Numba's simulator, by tools/check_cuda on a GPU.

    python tests/runtime/cuda_checks.py [NAME...]       all checks, or those named

Small on purpose: the simulator takes a thread of Python for each thread of the GPU.
"""
from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Callable
from typing import Any

import numpy as np

import graphc as gc
from graphc.errors import RuntimeFault
from graphc.runtime import cuda_words

RNG = np.random.default_rng(0)


# -- models ----------------------------------------------------------------------------------------------------------
@gc.model
def elementwise(x: gc.f32["B", "C"], y: gc.f32["B", 1], n: gc.i64["C"], keep: gc.bool_["B", "C"]):
    w = gc.param("w", (5,), init=lambda shape, rng: rng.uniform(0.5, 1.5, shape))
    a = gc.tanh(x * w) + gc.sigmoid(x - y) * gc.exp(-x * x)
    b = gc.where(keep, gc.log(gc.abs(x) + w), gc.sqrt(x * x + 1.0)) / gc.maximum(y, 0.5)
    return gc.outputs(a=a, b=b, n=n * 3 - 1, near=x < y, loss=gc.mean(a * b))


@gc.model
def reductions(x: gc.f32["B", 3, 4]):
    w = gc.param("w", (3, 1), init=lambda shape, rng: rng.normal(size=shape))
    h = gc.sin(x * w)
    return gc.outputs(
        columns=gc.sum(h, axis=0), middle=gc.mean(h, axis=1), rows=gc.max(h, axis=2), least=gc.min(h, axis=(0, 2)),
        which=gc.argmax(h, axis=1), best=gc.argmax(h), most=gc.max(h),
        share=h / gc.sum(gc.exp(h)), loss=gc.sum(h * h) + gc.sum(gc.max(h, axis=0)),
    )  # fmt: skip


@gc.model
def rows(x: gc.f32["B", 6], y: gc.i64["B"]):
    logits = gc.nn.linear(x, 5, name="out")
    p = gc.softmax(logits)
    return gc.outputs(p=p, squares=gc.sum(p * p, axis=0), loss=gc.nn.cross_entropy(logits, y))


@gc.model
def embedding(tokens: gc.i64["B", "T"]):
    table = gc.param("table", (7, 3), init=lambda shape, rng: rng.normal(size=shape))
    bias = gc.param("bias", (7,), init=lambda shape, rng: rng.normal(size=shape))
    h = gc.take(table, tokens, axis=0) * gc.expand_dims(gc.exp(gc.take(bias, tokens)), -1)
    return gc.outputs(h=h, loss=gc.sum(h * h))


@gc.model
def shapes(x: gc.f32["B", 4], z: gc.f32["B", 3]):
    w = gc.param("w", (3, 4), init=lambda shape, rng: rng.normal(size=shape))
    both = gc.concat([x * w[0], z], axis=1)
    parts = gc.concat([x[:, 0], z[:, 1] * w[1, 2]], axis=0)
    turned = gc.transpose(gc.exp(both[:, 1:6]))
    return gc.outputs(both=both, parts=parts, turned=turned, loss=gc.sum(turned * turned) + gc.sum(parts * parts))


@gc.model
def products(x: gc.f32["B", "T", 3], v: gc.f32["B"]):
    w = gc.param("w", (3, 5), init=lambda shape, rng: rng.normal(size=shape))
    u = gc.param("u", (2, 3), init=lambda shape, rng: rng.normal(size=shape))
    h = gc.matmul(x, w)
    scores = gc.einsum("bte,bse->bts", h, h)
    turned = gc.einsum("uc,btc->utb", u, x)
    outer = gc.einsum("b,btc->bc", v, x)
    return gc.outputs(h=h, scores=scores, turned=turned, outer=outer, loss=gc.sum(scores) + gc.sum(gc.tanh(turned)))


@gc.model
def network(x: gc.f32["B", 4], label: gc.i64["B"]):
    h = gc.relu(gc.nn.linear(x, 6, name="hidden", init="he_normal"))
    logits = gc.nn.linear(h, 3, name="out")
    return gc.outputs(logits=logits, loss=gc.nn.cross_entropy(logits, label))


@gc.model
def recurrence(x: gc.f32["T", "B", 2], n: gc.i32["B"]):
    w = gc.param("w", (2, 8), init=lambda shape, rng: rng.normal(size=shape))
    u = gc.param("u", (2, 8), init=lambda shape, rng: rng.normal(size=shape))

    def lstm(s, x_t):
        h, c = s
        f, i, g, o = gc.split(x_t @ w + h @ u, 4, axis=1)
        c = gc.sigmoid(f) * c + gc.sigmoid(i) * gc.tanh(g)
        h = gc.sigmoid(o) * gc.tanh(c)
        return (h, c), h

    zero = gc.zeros((gc.dim("B"), 2))
    (h, _), hs = gc.scan(lstm, init=(zero, zero), xs=x, lengths=n)
    _, back = gc.scan(lambda c, h_t: (gc.tanh(c + h_t), c), init=zero, xs=hs, reverse=True)
    return gc.outputs(h=h, hs=hs, loss=gc.sum(hs * hs) + gc.sum(back))


@gc.model
def lstm_lm(x: gc.i64["B", "T"], y: gc.i64["B", "T"]):
    e = gc.take(gc.param("e", (5, 3), init="normal"), x, axis=0)
    hs, _ = gc.nn.lstm(e, 4)
    return gc.outputs(loss=gc.nn.cross_entropy(gc.nn.linear(hs, 5, name="out"), y))


@gc.model
def counter(x: gc.f32["B"]):
    seen = gc.state("seen", (), init=0.0)
    scale = gc.param("scale", (), init=1.0)
    gc.update(seen, seen + gc.sum(x))
    return gc.outputs(y=x * scale + seen)


FAMILIES: list[tuple[Any, dict[str, Any]]] = [
    (elementwise, dict(x=RNG.normal(size=(3, 5)), y=RNG.normal(size=(3, 1)), n=np.arange(5), keep=RNG.random((3, 5)) < 0.5)),
    (reductions, dict(x=RNG.normal(size=(11, 3, 4)))),
    (rows, dict(x=RNG.normal(size=(11, 6)), y=RNG.integers(0, 5, 11))),
    (embedding, dict(tokens=RNG.integers(0, 7, (3, 4)))),
    (shapes, dict(x=RNG.normal(size=(3, 4)), z=RNG.normal(size=(3, 3)))),
    (products, dict(x=RNG.normal(size=(2, 5, 3)), v=RNG.normal(size=2))),
    (recurrence, dict(x=RNG.normal(size=(3, 2, 2)), n=np.array([2, 3], np.int32))),
]
BATCH = dict(x=RNG.normal(size=(9, 4)), label=RNG.integers(0, 3, 9))
TEXT = dict(x=RNG.integers(0, 5, (2, 3)), y=RNG.integers(0, 5, (2, 3)))


# -- checks ----------------------------------------------------------------------------------------------------------
def families() -> None:
    """Every family of operations gives the CPU's values and gradients, in float64."""
    for model, inputs in FAMILIES:
        on_gpu, on_cpu = (gc.compile(model, target=t, dtype="float64").value_and_grad(**inputs) for t in ("cuda", "cpu"))
        for got, want in zip(on_gpu, on_cpu, strict=True):
            assert got.keys() == want.keys() and got
            for name in want:
                np.testing.assert_allclose(got[name], want[name], 1e-10, 1e-12, err_msg=f"{model.name}: {name}")


def training() -> None:
    """Steps of Adam end where the CPU's do, for ten of a network and five of an LSTM; the host's arrays show each step."""
    for model, batch, steps in ((network, BATCH, 10), (lstm_lm, TEXT, 5)):
        on_gpu, on_cpu = (
            gc.compile(model, target=t, dtype="float64", optimiser=gc.train.Adam(0.1)) for t in ("cuda", "cpu")
        )
        losses = [(float(on_gpu.step(**batch)["loss"]), float(on_cpu.step(**batch)["loss"])) for _ in range(steps)]
        assert losses[-1][1] < losses[0][1]
        np.testing.assert_allclose(*np.array(losses).T, rtol=1e-5)
        for name, array in on_cpu.params.items():
            np.testing.assert_allclose(on_gpu.params[name], array, 1e-5, 1e-7, err_msg=f"{model.name}: {name}")
        assert int(on_gpu.states["optimiser/step"]) == steps


def variables() -> None:
    """Parameters and states that the caller sets are read, and those that a call updates are seen."""
    m = gc.compile(counter, target="cuda", dtype="float64")
    x = np.array([1.0, 2.0])
    np.testing.assert_array_equal(m.forward(x=x)["y"], x)
    m.params["scale"] = 10.0
    np.testing.assert_array_equal(m.forward(x=x)["y"], 10 * x + 3)
    assert float(m.states["seen"]) == 6.0
    m.reset()
    np.testing.assert_array_equal(m.forward(x=x)["y"], 10 * x)


def determinism() -> None:
    """The same inputs give the same bits, in float32, sums and scatters included."""
    for model, inputs in ((network, BATCH), (embedding, dict(tokens=RNG.integers(0, 7, (3, 4))))):
        m = gc.compile(model, target="cuda")
        narrow = {n: a.astype(np.float32) if a.dtype.kind == "f" else a for n, a in inputs.items()}
        first, again = (m.value_and_grad(**narrow)[1] for _ in range(2))
        for name, array in first.items():
            assert array.tobytes() == again[name].tobytes(), name


def faults() -> None:
    """An index out of range is told as on the CPU, and does not spoil the next call."""
    for tokens in (np.array([[1, 2], [-1, 9]]), np.array([[1, 2], [6, 7]])):
        told = []
        for target in ("cuda", "cpu"):
            m = gc.compile(embedding, target=target, dtype="float64")
            try:
                m.forward(tokens=tokens, outputs=["h"])
            except RuntimeFault as error:
                told.append(str(error))
            assert m.forward(tokens=np.abs(tokens) % 7, outputs=["h"])["h"].shape == (2, 2, 3)
        assert len(told) == 2 and told[0] == told[1], told


@gc.model
def activations(x: gc.f32["N"]):
    return gc.outputs(sigmoid=gc.sigmoid(x), silu=gc.silu(x), softplus=gc.softplus(x))


def ends() -> None:
    """Activations in float32 where exponentials over- and underflow: CUDA's values are the CPU's."""
    x = np.float32([np.nan, np.inf, -np.inf, 0.0, -0.0, 17.0, -17.0, 88.8, -88.8, -95.0, -103.0, 104.5, -104.5])
    on_gpu, on_cpu = (gc.compile(activations, target=t, dtype="float32").forward(x=x) for t in ("cuda", "cpu"))
    for name, want in on_cpu.items():
        # two of the smallest numbers for a sigmoid, times x in x·σ(x)
        np.testing.assert_allclose(on_gpu[name], want, rtol=1e-6, atol=2 * 104 * 2.0**-149, err_msg=name)
    np.testing.assert_allclose(on_gpu["sigmoid"][9:11], np.exp([-95.0, -103.0]), rtol=0, atol=2 * 2.0**-149)


def matrices() -> None:
    """The tiled product for sizes beside the tile, each way that the operands may lie, batches and accumulation."""
    cuda = cuda_words.numba_cuda()
    for dtype, t in ((np.float32, "f32"), (np.float64, "f64")):
        function = cuda_words.function_of(cuda_words.fixed_sources()[f"gemm_{t}"])
        for m, n, k, lie in ((1, 1, 1, (0, 0)), (5, 3, 9, (0, 1)), (4, 8, 0, (1, 0)), (9, 2, 5, (1, 1))):
            a, b, c = RNG.normal(size=(2, m, k)), RNG.normal(size=(2, k, n)), RNG.normal(size=(2, m, n))
            a, b, c = (np.ascontiguousarray(x, dtype) for x in (a, b, c))
            stored = [np.ascontiguousarray(np.swapaxes(x, 1, 2) if turned else x) for x, turned in zip((a, b), lie)]
            for accumulate in (0, 1):
                places = [cuda.to_device(np.append(x.reshape(-1), dtype(0))) for x in (*stored, c)]
                leading = (m if lie[0] else k, k if lie[1] else n, n)
                sizes = (m, n, k, *leading, *lie, accumulate, 2, m * k, k * n, m * n)
                function[cuda_words.gemm_grid(sizes)](*places, *sizes)
                got = places[2].copy_to_host()[:-1].reshape(c.shape)
                np.testing.assert_allclose(got, a @ b + accumulate * c, rtol=1e-5, atol=1e-5)


def fixed() -> None:
    """Copies and fillings."""
    cuda = cuda_words.numba_cuda()
    kernels = cuda_words.fixed_sources()
    for width, dtype, value in ((8, np.uint8, 7), (32, np.int32, -5), (64, np.int64, 1 << 40)):
        out = cuda.to_device(np.zeros(11, dtype))
        cuda_words.function_of(kernels[f"fill_{width}"])[cuda_words.grid(10)](out, 10, value)
        np.testing.assert_array_equal(out.copy_to_host(), np.array([value] * 10 + [0], dtype))
    source, out = cuda.to_device(np.arange(9, dtype=np.uint8)), cuda.to_device(np.zeros(9, np.uint8))
    cuda_words.function_of(kernels["copy"])[cuda_words.grid(9)](out, source, 9)
    np.testing.assert_array_equal(out.copy_to_host(), np.arange(9))


CHECKS: dict[str, Callable[[], None]] = {
    f.__name__: f for f in (families, ends, training, variables, determinism, faults, matrices, fixed)
}


def main(names: list[str]) -> int:
    where = "in Numba's simulator" if cuda_words.is_simulated() else "on the GPU"
    cuda_words.check_device()
    if cuda_words.is_simulated():
        sys.setswitchinterval(1e-5)  # its threads wait for one another most of the time
    failed = 0
    for name in names or CHECKS:
        begun = time.perf_counter()
        try:
            CHECKS[name]()
        except Exception:
            failed += 1
            print(f"{name}: FAILED {where}\n{traceback.format_exc()}", flush=True)
        else:
            print(f"{name}: ok {where}, {time.perf_counter() - begun:.1f} s. {CHECKS[name].__doc__}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
