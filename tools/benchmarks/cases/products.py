"""Matrix products C = A B in float32, with each operand as it is or transposed.

What is compared is the product: OpenBLAS is called with its arguments converted beforehand, and graphc runs the one
instruction of a bound program; NumPy, PyTorch and JAX are called as one calls them. All but JAX, which has arrays of its
own, find A, B and C side by side in one block of memory, as parameters and values inside a model lie.
"""
from __future__ import annotations

import ctypes
import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphc.runtime.memory import side_by_side

from ..case import Case
from ..peers import PEERS, OpenBLAS
from ..targets import Target, not_slower, share
from ..workload import SEED, Array, Run, Yardstick
from ..yardsticks import Peak

#: A as (M, K) or, transposed, (K, M); B as (K, N) or (N, K)
FORMS = ("nn", "nt", "tn", "tt")


@dataclass(frozen=True)
class Product:
    """A product of an M×K and a K×N matrix. The form `packed` is `nn` with B a frozen parameter."""

    m: int
    n: int
    k: int
    form: str = "nn"
    tolerance: float = 1e-5

    competitors = ("graphc", "openblas", "numpy", "torch", "jax")

    @property
    def flops(self) -> float:
        return 2.0 * self.m * self.n * self.k

    @property
    def yardstick(self) -> Yardstick:
        return Peak(self.flops)

    def arrays(self) -> tuple[Array, Array, Array]:
        """A and B as they lie in memory, and C."""
        rng = np.random.default_rng(SEED)
        a, b = (self.m, self.k), (self.k, self.n)
        shapes = a[::-1] if self.form in ("tn", "tt") else a, b[::-1] if self.form in ("nt", "tt") else b
        _, (first, second, out) = side_by_side([(np.dtype(np.float32), s) for s in (*shapes, (self.m, self.n))])
        rng.standard_normal(out=first, dtype=np.float32)
        rng.standard_normal(out=second, dtype=np.float32)
        return first, second, out

    def prepare(self, competitor: str, threads: int) -> Run:
        return _PREPARE[competitor](self, *self.arrays())

    def turned(self, a: Any, b: Any) -> tuple[Any, Any]:
        """The operands as M×K and K×N, without a copy."""
        return a.T if self.form in ("tn", "tt") else a, b.T if self.form in ("nt", "tt") else b


def _graphc(product: Product, a: Array, b: Array, c: Array) -> Run:
    gc: Any = importlib.import_module("graphc")
    spec = f"{'km' if product.form in ('tn', 'tt') else 'mk'},{'nk' if product.form in ('nt', 'tt') else 'kn'}->mn"
    out = {"c": c}

    def multiply(a: Any, b: Any) -> Any:
        return gc.outputs(c=gc.einsum(spec, a, b))

    def multiply_packed(a: Any) -> Any:
        return gc.outputs(c=gc.einsum(spec, a, gc.param("b", b.shape)))

    if product.form == "packed":
        multiply_packed.__annotations__ = {"a": gc.f32[a.shape]}
        m = gc.compile(gc.model(multiply_packed))
        m.params["b"][...] = b
        m.freeze()
        inputs = {"a": a}
    else:
        multiply.__annotations__ = {"a": gc.f32[a.shape], "b": gc.f32[b.shape]}
        m = gc.compile(gc.model(multiply))
        inputs = {"a": a, "b": b}
    m.forward(**inputs, out=out)  # binds the program to these arrays
    (call,) = next(iter(m.entries.values()))._calls.values()
    again = call._last.bound.run

    def run(_held: Any = (m, inputs)) -> Any:
        again()
        return out

    return Run(run, dict)


def _numpy(product: Product, a: Array, b: Array, c: Array) -> Run:
    left, right = product.turned(a, b)
    return Run(lambda: np.matmul(left, right, out=c), lambda c: {"c": c})


def _openblas(product: Product, a: Array, b: Array, c: Array) -> Run:
    """CBLAS's sgemm, its arguments converted beforehand."""
    peer = PEERS["openblas"]
    assert isinstance(peer, OpenBLAS)
    routine = peer.library().scipy_cblas_sgemm
    routine.restype = None
    integer, real, pointer = ctypes.c_int, ctypes.c_float, ctypes.c_void_p
    row_major, plain, transposed = 101, 111, 112
    arguments = (
        integer(row_major), integer(transposed if product.form in ("tn", "tt") else plain),
        integer(transposed if product.form in ("nt", "tt") else plain),
        integer(product.m), integer(product.n), integer(product.k), real(1.0),
        pointer(a.ctypes.data), integer(a.shape[1]), pointer(b.ctypes.data), integer(b.shape[1]), real(0.0),
        pointer(c.ctypes.data), integer(product.n))

    def call(_operands: tuple[Array, Array] = (a, b)) -> Array:  # which live as long as the call
        routine(*arguments)
        return c
    return Run(call, lambda c: {"c": c})


def _torch(product: Product, a: Array, b: Array, c: Array) -> Run:
    import torch

    left, right = product.turned(torch.from_numpy(a), torch.from_numpy(b))
    out = torch.from_numpy(c)
    return Run(lambda: torch.matmul(left, right, out=out), lambda c: {"c": c.numpy()})


def _jax(product: Product, a: Array, b: Array, c: Array) -> Run:
    import jax

    left, right = jax.device_put(a), jax.device_put(b)
    multiply = jax.jit(lambda a, b: jax.numpy.matmul(*product.turned(a, b)))
    return Run(lambda: jax.block_until_ready(multiply(left, right)), lambda c: {"c": np.asarray(c)})


_PREPARE: dict[str, Callable[[Product, Array, Array, Array], Run]] = {
    "graphc": _graphc, "numpy": _numpy, "openblas": _openblas, "torch": _torch, "jax": _jax}


def _case(size: tuple[int, int, int], form: str, targets: tuple[Target, ...]) -> Case:
    product = Product(*size, form)
    layout = {"nn": "", "nt": ", B transposed", "tn": ", A transposed", "tt": ", both transposed",
              "packed": ", B prepacked"}[form]
    name = f"product/{'x'.join(map(str, size))}/{form}"
    m, n, k = size
    return Case(name, f"{m}×{k} by {k}×{n}{layout}", product, targets, flops=product.flops)


_LARGE = (share(0.85, "peak", 1), share(0.80, "peak", -1))
_MIDDLE = (share(0.75, "peak", 1),)
_SMALL = (not_slower("openblas", "torch"),)

#: (M, N, K) → what each form must reach
_SIZES: dict[tuple[int, int, int], tuple[Target, ...]] = {
    (32, 1024, 256): (),
    (512, 512, 512): _LARGE,
    (1024, 1536, 384): _LARGE,
    (1024, 1024, 1024): _LARGE,
    (64, 256, 784): _MIDDLE,
    (128, 128, 128): _MIDDLE,
    (32, 512, 128): _MIDDLE,
    (16, 256, 64): _SMALL,
    (1, 512, 128): _SMALL,
    (100, 70, 33): _SMALL,
    (7, 5, 3): _SMALL,
}

CASES = (_case((32, 1024, 256), "packed", _LARGE),
         *(_case(size, form, targets) for size, targets in _SIZES.items() for form in FORMS))
