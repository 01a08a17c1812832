"""Losses: the mean over all examples, or their sum, or each one (`reduction="mean" | "sum" | "none"`)."""

from __future__ import annotations

from ..errors import TraceError
from ..frontend.elementwise import abs, log, relu, softplus, square, where
from ..frontend.index import take_along_axis
from ..frontend.normalise import log_softmax
from ..frontend.reduce import mean, sum
from ..frontend.shape import expand_dims, reshape
from ..frontend.tensor import Tensor, Value, fail, lift
from ..frontend.trace import scope


def _reduced(values: Tensor, reduction: str) -> Tensor:
    if reduction not in ("mean", "sum", "none"):
        return fail(TraceError(f"there is no reduction {reduction!r}", how="one of mean, sum, none"))
    return mean(values) if reduction == "mean" else sum(values) if reduction == "sum" else values


def _same_shape(name: str, a: Tensor, b: Tensor) -> bool:
    """A loss that broadcasts hides a mistake: (B, 1) against (B,) would compare every pair."""
    if a.broken or b.broken:
        return False
    if a.node.shape == b.node.shape:
        return True
    fail(
        TraceError(
            f"{name}: the shapes differ: {a.node.type} and {b.node.type}",
            how="reshape one of them; a loss does not broadcast",
        )
    )
    return False


def mse(y_hat: Value, y: Value, reduction: str = "mean") -> Tensor:
    """The squared error (ŷ − y)²."""
    a, b = lift(y_hat), lift(y)
    with scope("mse"):
        return _reduced(square(a - b), reduction) if _same_shape("mse", a, b) else Tensor(None)


def mae(y_hat: Value, y: Value, reduction: str = "mean") -> Tensor:
    """The absolute error |ŷ − y|."""
    a, b = lift(y_hat), lift(y)
    with scope("mae"):
        return _reduced(abs(a - b), reduction) if _same_shape("mae", a, b) else Tensor(None)


def huber(y_hat: Value, y: Value, delta: float = 1.0, reduction: str = "mean") -> Tensor:
    """r²/2 for an error r = ŷ − y of at most δ, and δ(|r| − δ/2) beyond: quadratic near 0, straight far away."""
    a, b = lift(y_hat), lift(y)
    with scope("huber"):
        if not _same_shape("huber", a, b):
            return Tensor(None)
        r = a - b
        return _reduced(where(abs(r) <= delta, 0.5 * square(r), delta * (abs(r) - 0.5 * delta)), reduction)


def hinge(scores: Value, y: Value, reduction: str = "mean") -> Tensor:
    """max(0, 1 − y·score) for y = 1 or −1: 0 once the score has the right sign and a margin of 1."""
    a, b = lift(scores), lift(y)
    with scope("hinge"):
        return _reduced(relu(1 - a * b), reduction) if _same_shape("hinge", a, b) else Tensor(None)


def cross_entropy(logits: Value, labels: Value, reduction: str = "mean") -> Tensor:
    """−log softmax(logits)[label] over the last axis.

    labels: integers of the shape of logits without its last axis; or probabilities of the shape of logits, for
    −Σ p log softmax(logits).
    """
    x, y = lift(logits), lift(labels)
    if x.broken or y.broken:
        return Tensor(None)
    with scope("cross_entropy"):
        log_p = log_softmax(x, axis=-1)
        if y.dtype.is_float:
            return _reduced(-sum(y * log_p, axis=-1), reduction) if _same_shape("cross_entropy", x, y) else Tensor(None)
        if y.node.shape != x.node.shape[:-1]:
            return fail(
                TraceError(
                    f"cross_entropy: labels {y.node.type} do not fit logits {x.node.type}",
                    how=f"labels have the shape of the logits without the last axis: ({', '.join(map(str, x.node.shape[:-1]))})",
                )
            )
        chosen = take_along_axis(log_p, expand_dims(y, -1), axis=-1)
        return _reduced(-reshape(chosen, y.node.shape), reduction)


def binary_cross_entropy(logits: Value, y: Value, reduction: str = "mean") -> Tensor:
    """−y log σ(x) − (1 − y) log(1 − σ(x)) of logits x, as softplus(x) − x·y, which never overflows."""
    x, t = lift(logits), lift(y)
    with scope("binary_cross_entropy"):
        return _reduced(softplus(x) - x * t, reduction) if _same_shape("binary_cross_entropy", x, t) else Tensor(None)


def kl_divergence(logits: Value, p: Value, reduction: str = "mean") -> Tensor:
    """Σ p log(p/q) over the last axis, with q = softmax(logits): how far q is from probabilities p; 0 log 0 is 0."""
    x, target = lift(logits), lift(p)
    with scope("kl_divergence"):
        if not _same_shape("kl_divergence", x, target):
            return Tensor(None)
        p_log_p = where(target > 0, target * log(target), 0.0)
        return _reduced(sum(p_log_p - target * log_softmax(x, axis=-1), axis=-1), reduction)
