"""Optimisers, written only in the DSL: what they do can be read here, and written by anyone.

An optimiser becomes part of the compiled step. Its memory is states of the model under the scope `optimiser`:
`optimiser/lr`, which may be set between steps (`m.states["optimiser/lr"][...] = 1e-4`), and for each parameter
what it remembers, such as `optimiser/hidden/W/m`. The formulas are PyTorch's.

All take clip=c: gradients whose norm, that of all of them as one vector, is above c are scaled down to it, so that one
steep place does not throw the parameters far away (Pascanu, Mikolov and Bengio 2013).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import reduce
from math import log
from operator import add

from ..errors import ModelError
from ..frontend.elementwise import cast, expm1, minimum, sqrt, square
from ..frontend.grad import grad
from ..frontend.model import state, update
from ..frontend.reduce import sum as total
from ..frontend.tensor import Tensor
from ..frontend.trace import scope
from ..graph.dtype import i64

SCOPE = "optimiser"


@dataclass(frozen=True)
class SGD:
    """Stochastic gradient descent: p ← p − lr·d, where d is the gradient g + weight_decay·p.

    With momentum μ the direction is kept: v ← μ·v + d, and p ← p − lr·v, or by Nesterov p ← p − lr·(d + μ·v).
    """

    lr: float = 1e-2
    momentum: float = 0.0
    nesterov: bool = False
    weight_decay: float = 0.0
    clip: float | None = None

    def __post_init__(self) -> None:
        _check(self.lr, self.weight_decay, self.clip, momentum=self.momentum)
        if self.nesterov and not self.momentum:
            raise ModelError("Nesterov's step needs a momentum", how="SGD(momentum=0.9, nesterov=True)")

    def update(self, loss: Tensor, params: Mapping[str, Tensor]) -> None:
        """Update every parameter by its gradient of the loss."""
        with _memory(self.lr) as lr:
            for name, p, g in _gradients(loss, params, self.clip):
                d = _decayed(g, p, self.weight_decay)
                if self.momentum:
                    v = state(f"{name}/v", p.shape)
                    kept = self.momentum * v + d
                    update(v, kept)
                    d = d + self.momentum * kept if self.nesterov else kept
                update(p, p - lr * d)


@dataclass(frozen=True)
class Adam:
    """Adam (Kingma and Ba 2015): steps of about lr, whatever the gradient's scale.

    m ← m + (1 − β₁)(g − m), v ← β₂·v + (1 − β₂)·g², p ← p − lr/(1 − β₁ᵗ) · m / (√v/√(1 − β₂ᵗ) + ε) at step t.
    weight_decay·p is added to the gradient.
    """

    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0
    clip: float | None = None

    def __post_init__(self) -> None:
        _check(self.lr, self.weight_decay, self.clip, beta1=self.betas[0], beta2=self.betas[1])

    def update(self, loss: Tensor, params: Mapping[str, Tensor]) -> None:
        """Update every parameter by its gradient of the loss."""
        with _memory(self.lr) as lr:
            step = _AdamStep(self.betas, self.eps, lr)
            for name, p, g in _gradients(loss, params, self.clip):
                update(p, p - step.of(name, p, _decayed(g, p, self.weight_decay)))


@dataclass(frozen=True)
class AdamW:
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019): p ← (1 − lr·weight_decay)·p, then Adam's step."""

    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 1e-2
    clip: float | None = None

    def __post_init__(self) -> None:
        _check(self.lr, self.weight_decay, self.clip, beta1=self.betas[0], beta2=self.betas[1])

    def update(self, loss: Tensor, params: Mapping[str, Tensor]) -> None:
        """Update every parameter by its gradient of the loss."""
        with _memory(self.lr) as lr:
            step = _AdamStep(self.betas, self.eps, lr)
            for name, p, g in _gradients(loss, params, self.clip):
                update(p, p * (1 - lr * self.weight_decay) - step.of(name, p, g))


class _AdamStep:
    """What Adam and AdamW share: the count of steps, and the step of one parameter."""

    def __init__(self, betas: tuple[float, float], eps: float, lr: Tensor):
        count = state("step", (), dtype=i64)
        update(count, count + 1)
        t = cast(count + 1, lr.dtype)
        self.betas, self.eps = betas, eps
        # 1 − βᵗ as −expm1(t log β): in float32 the difference itself would keep only four digits at the first steps
        self.size = lr / _one_minus_power(betas[0], t)
        self.scale = sqrt(_one_minus_power(betas[1], t))

    def of(self, name: str, p: Tensor, g: Tensor) -> Tensor:
        """What is to be subtracted from a parameter."""
        beta1, beta2 = self.betas
        m, v = state(f"{name}/m", p.shape), state(f"{name}/v", p.shape)
        mean = m + (1 - beta1) * (g - m)
        mean_square = beta2 * v + (1 - beta2) * square(g)
        update(m, mean)
        update(v, mean_square)
        return self.size * mean / (sqrt(mean_square) / self.scale + self.eps)


def _one_minus_power(beta: float, t: Tensor) -> Tensor | float:
    return -expm1(t * log(beta)) if beta else 1.0


@contextmanager
def _memory(lr: float) -> Iterator[Tensor]:
    """The scope of an optimiser's states, and its learning rate, which is one of them."""
    with scope(SCOPE):
        yield state("lr", (), init=lr)


def _gradients(
    loss: Tensor, params: Mapping[str, Tensor], clip: float | None
) -> Iterator[tuple[str, Tensor, Tensor]]:
    gradients = grad(loss, list(params.values()))
    if clip is not None and gradients:
        squares = [total(square(g)) for g in gradients]
        norm = sqrt(reduce(add, squares))
        factor = minimum(clip / (norm + 1e-6), 1.0)
        gradients = [g * factor for g in gradients]
    yield from zip(params, params.values(), gradients, strict=True)


def _decayed(g: Tensor, p: Tensor, weight_decay: float) -> Tensor:
    return g + weight_decay * p if weight_decay else g


def _check(lr: float, weight_decay: float, clip: float | None, **factors: float) -> None:
    if clip is not None and not clip > 0:
        raise ModelError(f"an optimiser with clip={clip}", how="the largest norm of the gradients is above 0")
    if not (lr > 0 and weight_decay >= 0):
        raise ModelError(
            f"an optimiser with lr={lr}, weight_decay={weight_decay}",
            how="the learning rate is above 0, the weight decay not below 0",
        )
    for name, value in factors.items():
        if not 0 <= value < 1:
            raise ModelError(f"an optimiser with {name}={value}", how=f"{name} is at least 0 and below 1")
