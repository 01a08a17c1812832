"""Derivatives inside a model: lazy nodes, which the compiler expands."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..errors import TraceError
from .create import full
from .reduce import sum
from .tensor import Tensor, Value, fail, lift, record
from .trace import current


def grad(y: Value, wrt: Any) -> Any:
    """∂y/∂x of a scalar y: for a list of values a list of gradients, for one value one.

    Gradients are values of the model too, so they nest. Equal expressions are one value: a gradient with respect
    to x counts every use of an expression equal to x. But what zeros, ones, full and const make is each time a value of
    its own.
    """
    single = isinstance(wrt, Tensor)
    target = lift(y)
    results = []
    for x in [wrt] if single else wrt:
        if not isinstance(x, Tensor):
            results.append(fail(TraceError(f"a gradient with respect to {x!r}, which is no value of the model")))
        else:
            results.append(record("grad", target, x))
    return results[0] if single else results


def jvp(y: Value, wrt: Sequence[Tensor], vectors: Sequence[Value]) -> Tensor:
    """The Jacobian of y times vectors, Σ ∂y/∂x · v: how y changes as the values x of `wrt` move along theirs.

    A gradient is linear in the cotangent that it begins with, so its derivative by that is the same product the other
    way round: no second set of rules.
    """
    current("gc.jvp")
    target = lift(y)
    if target.broken:
        return target
    cotangent = full(target.node.shape, 0, target.dtype)  # no other zeros of the model are meant
    gradients = grad(sum(target * cotangent), list(wrt))
    products = [sum(g * lift(v)) for g, v in zip(gradients, vectors, strict=True)]
    total = products[0]
    for p in products[1:]:
        total = total + p
    return grad(total, cotangent)


def hvp(loss: Value, wrt: Sequence[Tensor], vectors: Sequence[Value]) -> list[Tensor]:
    """The Hessian of a scalar times vectors: the gradient of Σ gradient · vector."""
    gradients = grad(loss, list(wrt))
    products = [sum(g * lift(v)) for g, v in zip(gradients, vectors, strict=True)]
    total = products[0]
    for p in products[1:]:
        total = total + p
    return grad(total, list(wrt))
