"""What is computed: a workload says one computation for every competitor, and gives each a way to run it.

A new workload is usually a `Model`: its parameters, its data, the graphc model, and the same function in PyTorch and
JAX. A function takes its library as its first argument, so that nothing is imported that is not measured.
"""
from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np

Array = np.ndarray[Any, Any]
Arrays = dict[str, Array]
Mode = Literal["forward", "gradient", "step"]

SEED = 20240229


@dataclass(frozen=True)
class Run:
    """A prepared computation."""

    call: Callable[[], Any]
    """Compute once. The result is complete when it returns."""
    read: Callable[[Any], Mapping[str, Any]]
    """What a call gave, as arrays by name: the same names for each competitor."""


class Yardstick(Protocol):
    """What the machine can do at best, timed in turn with the competitors."""

    @property
    def name(self) -> str: ...

    def prepare(self, threads: int) -> tuple[Callable[[], Any], float]:
        """(a call, c): a perfect implementation of the workload would take c times as long as the call."""


class Workload(Protocol):
    """A computation that several competitors can run."""

    @property
    def competitors(self) -> tuple[str, ...]: ...

    @property
    def tolerance(self) -> float: ...

    @property
    def yardstick(self) -> Yardstick | None: ...

    def prepare(self, competitor: str, threads: int) -> Run:
        """The computation as this competitor runs it."""


class Shapes(dict[str, tuple[int, ...]]):
    """Parameters by their shapes; the values are normal, of variance 1/(length of the first axis) for matrices."""

    def __call__(self, rng: np.random.Generator) -> Arrays:
        found = {}
        for name, shape in self.items():
            scale = shape[0] ** -0.5 if len(shape) > 1 else 0.1
            found[name] = (rng.standard_normal(shape) * scale).astype(np.float32)
        return found


@dataclass(frozen=True)
class Layout:
    """How a library keeps the parameters, where that is not as graphc does: transposed, or in another order.

    Both functions move elements and nothing else, so that `back` serves for parameters and for gradients.
    """

    to: Callable[[Arrays], Arrays]
    back: Callable[[Arrays], Arrays]


def _unchanged(arrays: Arrays) -> Arrays:
    return arrays


def _transposed(arrays: Arrays) -> Arrays:
    return {name: np.ascontiguousarray(a.T) if a.ndim == 2 else a for name, a in arrays.items()}


SAME = Layout(_unchanged, _unchanged)
TRANSPOSED = Layout(_transposed, _transposed)
"""Matrices transposed: as PyTorch keeps the weights of a layer, (out, in)."""


@dataclass(frozen=True)
class Model:
    """A model with parameters, said once for each library.

    mode: "forward" is the value alone, "gradient" the loss and its gradient by every parameter, "step" also Adam's
    update (learning rate 1e-3). In "forward" the graphc model's only output is `y`; otherwise it is `loss`.
    """

    params: Callable[[np.random.Generator], Arrays]
    """The parameters by name: graphc's names."""
    data: Callable[[np.random.Generator, int], Arrays]
    """The inputs by name, for a number of rows."""
    graphc: Callable[[Any], Any]
    """gc → the model."""
    torch: Callable[[Any, dict[str, Any], dict[str, Any]], Any] | None = None
    """(torch, parameters, inputs) → the loss, or y."""
    jax: Callable[[Any, dict[str, Any], dict[str, Any]], Any] | None = None
    """(jax, parameters, inputs) → the loss, or y."""
    torch_layout: Layout = SAME
    mode: Mode = "gradient"
    rows: int = 1
    tolerance: float = 1e-4
    """The largest allowed ‖difference‖ / ‖value‖ of any output."""
    yardstick: Yardstick | None = None
    torch_compiles: bool = True
    """Whether torch.compile takes part. It unrolls loops, and compiles those of a recurrent layer for minutes."""
    reuse: bool = True
    """Whether graphc writes into the arrays of the call before (`out=`). For scalars a fresh array is cheaper."""

    @property
    def competitors(self) -> tuple[str, ...]:
        torch = ("torch", *(("torch.compile",) if self.torch_compiles else ())) if self.torch else ()
        return ("graphc", *torch, *(("jax",) if self.jax else ()))

    def arrays(self, rows: int | None = None) -> tuple[Arrays, Arrays]:
        """(parameters, inputs): the same for each competitor."""
        rng = np.random.default_rng(SEED)
        return self.params(rng), self.data(rng, rows or self.rows)

    def prepare(self, competitor: str, threads: int) -> Run:
        from .peers import PEERS

        return PEERS[competitor].prepare(self, *self.arrays())
