"""The competitors: how each is found, told its number of threads, and made to run a model at its best."""
from __future__ import annotations

import ctypes
import importlib
import importlib.metadata
import importlib.util
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from .workload import Array, Arrays, Model, Run

LEARNING_RATE = 1e-3
BETAS = (0.9, 0.999)
EPS = 1e-8


class Peer:
    """A competitor. `imports` are the modules that it needs to compile, which are not part of compiling."""

    def __init__(self, name: str, package: str, imports: tuple[str, ...]):
        self.name, self.package, self.imports = name, package, imports

    def missing(self) -> str | None:
        """Why it cannot take part, or None."""
        if importlib.util.find_spec(self.package.replace("-", "_")) is None:
            return f"{self.package} is not installed"
        return None

    def version(self) -> str:
        return importlib.metadata.version(self.package)

    def start(self, threads: int) -> None:
        """Called once in a process, before the competitor runs."""

    def prepare(self, model: Model, params: Arrays, data: Arrays) -> Run:
        """Ready to run; compiling may wait for the first call."""
        raise NotImplementedError(f"{self.name} runs no models")


class Graphc(Peer):
    """graphc itself. Its threads are $GRAPHC_NUM_THREADS, set before the process starts."""

    def __init__(self) -> None:
        super().__init__("graphc", "graphc", ("graphc.pipeline", "graphc.train", "graphc.runtime.jit", "sympy",
                                              "networkx", "numba.core.compiler"))

    def version(self) -> str:
        import graphc

        return graphc.__version__

    def compiled(self, model: Model, params: Arrays) -> Any:
        """The model compiled, with these parameters."""
        gc: Any = importlib.import_module("graphc")
        options = {"optimiser": gc.train.Adam(LEARNING_RATE, BETAS, EPS)} if model.mode == "step" else {}
        compiled = gc.compile(model.graphc(gc), **options)
        for name, value in params.items():
            compiled.params[name][...] = value
        return compiled

    def prepare(self, model: Model, params: Arrays, data: Arrays) -> Run:
        return self.of(self.compiled(model, params), model, data)

    def imported(self, folder: Path, model: Model, data: Arrays) -> Run:
        """A compiled folder, imported as a package."""
        sys.path.insert(0, str(folder.parent))
        return self.of(importlib.import_module(folder.name), model, data)

    @staticmethod
    def of(compiled: Any, model: Model, data: Arrays) -> Run:
        """A compiled model's run. Each call writes into the arrays of the first."""
        out: dict[str, Array] = {}

        def keep(outputs: Arrays, gradients: Arrays) -> None:
            if model.reuse and not out:
                out.update(outputs)
                out.update({f"grad:{name}": gradient for name, gradient in gradients.items()})

        if model.mode == "gradient":
            def call() -> Any:
                outputs, gradients = compiled.value_and_grad(**data, out=out or None)
                keep(outputs, gradients)
                return {"loss": outputs["loss"], **gradients}
            return Run(call, dict)
        method = compiled.step if model.mode == "step" else compiled.forward

        def run() -> Any:
            outputs = method(**data, out=out or None)
            keep(outputs, {})
            return outputs
        if model.mode == "step":
            return Run(run, lambda outputs: {"loss": outputs["loss"], **dict(compiled.params)})
        return Run(run, dict)


class OpenBLAS(Peer):
    """OpenBLAS with the kernels that suit the processor, as graphc loads it, but with threads of its own.

    It is a copy of the library: graphc keeps its own to one thread, and two handles of one file are one library.
    """

    def __init__(self) -> None:
        super().__init__("openblas", "scipy-openblas32", ())
        self._threads = 1
        self._library: ctypes.CDLL | None = None

    def start(self, threads: int) -> None:
        self._threads = threads

    def library(self) -> ctypes.CDLL:
        """The loaded copy, its symbols prefixed with `scipy_`."""
        if self._library is None:
            from graphc.runtime import blas

            file = Path(blas.library()._name)  # loaded, so that what the copy depends on is there
            before, kernels = os.environ.get("OPENBLAS_CORETYPE"), blas.core_type()
            with tempfile.TemporaryDirectory() as folder:
                copy = shutil.copy(file, Path(folder, f"copy_{file.name}"))
                os.environ.update({"OPENBLAS_CORETYPE": kernels} if kernels else {})
                try:
                    self._library = ctypes.CDLL(str(copy))
                finally:
                    os.environ.pop("OPENBLAS_CORETYPE", None)
                    os.environ.update({"OPENBLAS_CORETYPE": before} if before is not None else {})
            self._library.scipy_openblas_set_num_threads(ctypes.c_int(self._threads))
        return self._library


class Torch(Peer):
    """PyTorch on the CPU, eager or through torch.compile (the loss and its gradient; Adam is PyTorch's fused one)."""

    def __init__(self, compiles: bool):
        extra = ("torch._dynamo", "torch._inductor.compile_fx") if compiles else ()
        super().__init__("torch.compile" if compiles else "torch", "torch", ("torch", *extra))
        self.compiles = compiles

    def start(self, threads: int) -> None:
        import torch

        torch.set_num_threads(threads)

    def prepare(self, model: Model, params: Arrays, data: Arrays) -> Run:
        import torch

        function, layout = model.torch, model.torch_layout
        assert function is not None
        parameters = {name: torch.tensor(value, requires_grad=model.mode != "forward")
                      for name, value in layout.to(params).items()}
        inputs = {name: torch.from_numpy(value) for name, value in data.items()}

        def value(p: dict[str, Any], d: dict[str, Any]) -> Any:
            return function(torch, p, d)

        computed: Callable[..., Any] = torch.compile(value, dynamic=False) if self.compiles else value
        leaves = list(parameters.values())
        if model.mode == "forward":
            def forward() -> Any:
                with torch.no_grad():
                    return computed(parameters, inputs)
            return Run(forward, lambda y: {"y": y.numpy()})
        if model.mode == "gradient":
            def gradient() -> Any:
                loss = computed(parameters, inputs)
                return loss, torch.autograd.grad(loss, leaves)

            def named(result: Any) -> Arrays:
                gradients = {name: g.numpy() for name, g in zip(parameters, result[1])}
                return {"loss": result[0].detach().numpy(), **layout.back(gradients)}
            return Run(gradient, named)
        adam = torch.optim.Adam(leaves, lr=LEARNING_RATE, betas=BETAS, eps=EPS, fused=True)

        def step() -> Any:
            adam.zero_grad(set_to_none=True)
            loss = computed(parameters, inputs)
            loss.backward()
            adam.step()
            return loss
        return Run(step, lambda loss: {"loss": loss.detach().numpy(), **layout.back(
            {name: p.detach().numpy() for name, p in parameters.items()})})


class Jax(Peer):
    """JAX, with everything that a call does under one jit. XLA uses as many threads as the process has cores."""

    def __init__(self) -> None:
        super().__init__("jax", "jax", ("jax",))

    def start(self, threads: int) -> None:
        os.environ.setdefault("JAX_PLATFORMS", "cpu")

    def prepare(self, model: Model, params: Arrays, data: Arrays) -> Run:
        import jax

        function = model.jax
        assert function is not None
        parameters, inputs = jax.device_put(params), jax.device_put(data)

        def value(p: Any, d: Any) -> Any:
            return function(jax, p, d)

        if model.mode == "forward":
            forward = jax.jit(value)
            return Run(lambda: jax.block_until_ready(forward(parameters, inputs)), lambda y: {"y": np.asarray(y)})
        if model.mode == "gradient":
            gradient = jax.jit(jax.value_and_grad(value))
            return Run(lambda: jax.block_until_ready(gradient(parameters, inputs)),
                       lambda result: {"loss": np.asarray(result[0]), **_arrays(result[1])})
        step = jax.jit(_adam(jax, value), donate_argnums=0)
        zeros = jax.tree.map(lambda p: p * 0, parameters)
        state = (parameters, zeros, jax.tree.map(lambda p: p * 0, parameters), jax.numpy.zeros((), jax.numpy.int32))

        def run() -> Any:
            nonlocal state
            state, loss = jax.block_until_ready(step(state, inputs))
            return loss
        return Run(run, lambda loss: {"loss": np.asarray(loss), **_arrays(state[0])})


def _arrays(tree: Any) -> Arrays:
    return {name: np.asarray(value) for name, value in tree.items()}


def _adam(jax: Any, value: Callable[..., Any]) -> Callable[..., Any]:
    """One step of Adam, as PyTorch writes it."""
    def step(state: Any, inputs: Any) -> Any:
        p, m, v, t = state
        loss, g = jax.value_and_grad(value)(p, inputs)
        t = t + 1
        m = jax.tree.map(lambda m, g: m + (1 - BETAS[0]) * (g - m), m, g)
        v = jax.tree.map(lambda v, g: BETAS[1] * v + (1 - BETAS[1]) * g * g, v, g)
        rate, root = LEARNING_RATE / (1 - BETAS[0] ** t), jax.numpy.sqrt(1 - BETAS[1] ** t)
        p = jax.tree.map(lambda p, m, v: p - rate * m / (jax.numpy.sqrt(v) / root + EPS), p, m, v)
        return (p, m, v, t), loss
    return step


#: In the order of the report's columns. `numpy` and `openblas` only multiply matrices.
PEERS: dict[str, Peer] = {peer.name: peer for peer in (
    Graphc(),
    OpenBLAS(),
    Peer("numpy", "numpy", ("numpy",)),
    Torch(compiles=False),
    Torch(compiles=True),
    Jax(),
)}
