"""Stabilising rules: formulas that overflow or cancel, spelt out by hand or by a layer, in their stable form.

They run before gradients are expanded, so that what is differentiated is stable too. The maximum that is
subtracted stands under stop_gradient: e^(x−m)/Σ e^(x−m) and m + log Σ e^(x−m) do not depend on m, so their
derivatives, to any order, do not either.
"""

from __future__ import annotations

from collections.abc import Callable

from ..graph.node import Node
from ..graph.size import size
from ..ops import build
from ..ops.build import make
from .rewrite import VALUE_CHANGING, Memo, Rule, rule

Movement = Callable[[Node], Node]
_MOVEMENTS = ("broadcast_to", "reshape", "transpose", "slice", "take", "take_along")


def strip(node: Node) -> tuple[Node, Movement]:
    """What lies under movements of elements, and how to move something else the same way."""
    if node.op not in _MOVEMENTS:
        return node, lambda n: n
    base, inner = strip(node.operands[0])
    return base, lambda n: make(node.op, inner(n), *node.operands[1:], **dict(node.attrs))


def is_one(node: Node) -> bool:
    return build.const_value(node) == 1


def negated(node: Node) -> Node | None:
    """x where the node is −x, spelt as a negation, a product with −1, or 0 − x."""
    if node.op == "neg":
        return node.operands[0]
    if node.op == "mul":
        for a, b in (node.operands, node.operands[::-1]):
            if build.const_value(a) == -1 and b.shape == node.shape:
                return b
    if node.op == "sub" and build.const_value(node.operands[0]) == 0 and node.operands[1].shape == node.shape:
        return node.operands[1]
    return None


def one_plus(node: Node) -> Node | None:
    """x where the node is 1 + x."""
    if node.op == "add":
        for a, b in (node.operands, node.operands[::-1]):
            if is_one(a) and b.shape == node.shape:
                return b
    return None


def sum_of_exp(node: Node) -> tuple[Node, Node] | None:
    """(the sum, x) where the node is Σ e^x and x is not yet shifted by its maximum."""
    if node.op == "sum" and node.operands[0].op == "exp":
        x = node.operands[0].operands[0]
        if not _is_shifted(x):
            return node, x
    return None


def _is_shifted(x: Node) -> bool:
    if x.op != "sub":
        return False
    shift = strip(x.operands[1])[0]
    chosen = shift.operands[0] if shift.op == "stop_gradient" else shift
    # a model may subtract what it likes; only its own maximum makes the sum safe
    maximum = strip(chosen.operands[1])[0] if chosen.op == "where" else chosen
    return maximum.op == "max" and maximum.operands[0] is x.operands[0]


def maximum_of(x: Node, axes: tuple[int, ...]) -> Node:
    """max x over axes, axes kept with length 1, not differentiated; 0 where it is infinite, so that ∞ − ∞ never is."""
    kept = tuple(size(1) if d in axes else e for d, e in enumerate(x.shape))
    m = build.reshape(build.reduce("max", x, axes), kept)
    finite = make("less", make("abs", m), build.const(float("inf"), x.dtype))
    return make("stop_gradient", make("where", finite, m, build.const(0, x.dtype)))


def shifted_sum(total: Node, x: Node) -> tuple[Node, Node, Node]:
    """(m, x − m, Σ e^(x−m)) for a sum of exponentials."""
    axes = total.attr("axes")
    m = maximum_of(x, axes)
    shifted = make("sub", x, m)
    return m, shifted, build.reduce("sum", make("exp", shifted), axes)


@rule("softmax", VALUE_CHANGING, "e^x/Σe^x overflows; e^(x-m)/Σe^(x-m), with m the maximum, is the same and does not")
def softmax(node: Node, memo: Memo) -> Node | None:
    if node.op != "div":
        return None
    above, move_above = strip(node.operands[0])
    below, move_below = strip(node.operands[1])
    found = sum_of_exp(below)
    if found is None or above.op != "exp":
        return None
    total, x = found
    m, shifted, new_total = shifted_sum(total, x)
    # the same exponentials above and below, and each divided by the sum that it is part of
    in_line = not total.shape or (above is node.operands[0] and node.operands[1] is build.reshape(total, m.shape))
    if above is total.operands[0] and in_line:
        return make("div", move_above(make("exp", shifted)), move_below(new_total))
    # e^z over any sum of exponentials: one exponential of z - log Σ e^x
    log_total = make("add", build.reshape(m, total.shape), make("log", new_total))
    return make("exp", make("sub", move_above(above.operands[0]), move_below(log_total)))


@rule("reciprocal", VALUE_CHANGING, "x⁻¹ is 1/x, where a quotient can be seen")
def reciprocal(node: Node, memo: Memo) -> Node | None:
    if node.op != "pow" or build.const_value(node.operands[1]) != -1:
        return None
    return make("div", build.const(1, node.dtype), build.broadcast_to(node.operands[0], node.shape))


@rule("quotient", VALUE_CHANGING, "e^x·(1/Σe^x) is e^x/Σe^x, where the softmax can be seen")
def quotient(node: Node, memo: Memo) -> Node | None:
    if node.op != "mul":
        return None
    for a, b in (node.operands, node.operands[::-1]):
        inverse, move = strip(b)
        if strip(a)[0].op == "exp" and inverse.op == "div" and is_one(inverse.operands[0]):
            below = inverse.operands[1]
            if strip(below)[0].op == "sum":
                return make("div", build.broadcast_to(a, node.shape), move(build.broadcast_to(below, inverse.shape)))
    return None


@rule("logsumexp", VALUE_CHANGING, "log Σe^x overflows; m + log Σe^(x-m) is the same and does not")
def logsumexp(node: Node, memo: Memo) -> Node | None:
    if node.op != "log":
        return None
    base, move = strip(node.operands[0])
    found = sum_of_exp(base)
    if found is None:
        return None
    total, x = found
    m, _, new_total = shifted_sum(total, x)
    return move(make("add", build.reshape(m, total.shape), make("log", new_total)))


@rule("log of a quotient", VALUE_CHANGING, "log(e^u/d) = u - log d, where e^u/d underflows to 0 and its log is -∞")
def log_of_softmax(node: Node, memo: Memo) -> Node | None:
    if node.op != "log":
        return None
    base, move = strip(node.operands[0])
    if base.op != "div":
        return None
    above, move_above = strip(base.operands[0])
    if above.op != "exp":
        return None
    return move(make("sub", move_above(above.operands[0]), make("log", base.operands[1])))


@rule("log of a mean", VALUE_CHANGING, "log(Σe^x/n) = log Σe^x - log n, where the sum overflows")
def log_of_mean(node: Node, memo: Memo) -> Node | None:
    if node.op != "log":
        return None
    base, move = strip(node.operands[0])
    if base.op != "div":
        return None
    total, count = base.operands
    number = const_or_size(count)
    if sum_of_exp(strip(total)[0]) is None or not number:
        return None
    return move(make("sub", make("log", build.broadcast_to(total, base.shape)), make("log", count)))


def const_or_size(node: Node) -> bool:
    """Is it a positive number: a constant, or a size?"""
    value = build.const_value(node)
    return node.op == "size" or (value is not None and value > 0)


@rule("log of an exponential", VALUE_CHANGING, "log e^u = u, where e^u over- or underflows")
def log_of_exp(node: Node, memo: Memo) -> Node | None:
    if node.op != "log":
        return None
    base, move = strip(node.operands[0])
    return move(base.operands[0]) if base.op == "exp" else None


@rule(
    "shift before the sum", VALUE_CHANGING, "x - (m + l) loses the digits of l where m is large; (x - m) - l keeps them"
)
def reassociate(node: Node, memo: Memo) -> Node | None:
    if node.op != "sub":
        return None
    base, move = strip(node.operands[1])
    if base.op != "add":
        return None
    m, rest = base.operands
    if strip(m)[0].op != "stop_gradient" or rest.op != "log":
        return None
    return make("sub", make("sub", node.operands[0], move(m)), move(rest))


@rule("sigmoid", VALUE_CHANGING, "1/(1 + e^-x) overflows for x far below 0")
def sigmoid(node: Node, memo: Memo) -> Node | None:
    if node.op != "div":
        return None
    above, below = node.operands
    inner = one_plus(below)
    if inner is None or inner.op != "exp":
        return None
    x = inner.operands[0]
    if is_one(above):
        minus = negated(x)
        return make("sigmoid", minus) if minus is not None else make("sigmoid", make("neg", x))
    return make("sigmoid", x) if above is inner else None


@rule("1 - sigmoid", VALUE_CHANGING, "1 - σ(x) cancels for large x; σ(-x) does not")
def one_minus_sigmoid(node: Node, memo: Memo) -> Node | None:
    if node.op != "sub" or not is_one(node.operands[0]) or node.operands[1].shape != node.shape:
        return None
    base, move = strip(node.operands[1])
    return move(make("sigmoid", make("neg", base.operands[0]))) if base.op == "sigmoid" else None


@rule("log sigmoid", VALUE_CHANGING, "log σ(x) = -softplus(-x), where σ(x) underflows to 0")
def log_sigmoid(node: Node, memo: Memo) -> Node | None:
    if node.op != "log":
        return None
    base, move = strip(node.operands[0])
    if base.op != "sigmoid":
        return None
    x = base.operands[0]
    minus = negated(x)
    return move(make("neg", make("softplus", make("neg", x) if minus is None else minus)))


@rule("softplus", VALUE_CHANGING, "log(1 + e^x) overflows for large x")
def softplus(node: Node, memo: Memo) -> Node | None:
    inner = one_plus(node.operands[0]) if node.op == "log" else node.operands[0] if node.op == "log1p" else None
    return make("softplus", inner.operands[0]) if inner is not None and inner.op == "exp" else None


@rule("log1p", VALUE_CHANGING, "log(1 + x) loses the digits of a small x")
def log1p(node: Node, memo: Memo) -> Node | None:
    inner = one_plus(node.operands[0]) if node.op == "log" else None
    return make("log1p", inner) if inner is not None else None


@rule("expm1", VALUE_CHANGING, "e^x - 1 loses the digits of a small x")
def expm1(node: Node, memo: Memo) -> Node | None:
    if node.op != "sub" or not is_one(node.operands[1]):
        return None
    return make("expm1", node.operands[0].operands[0]) if node.operands[0].op == "exp" else None


@rule("tanh", VALUE_CHANGING, "(e^x - e^-x)/(e^x + e^-x) is ∞/∞ for large x")
def tanh(node: Node, memo: Memo) -> Node | None:
    if node.op != "div" or node.operands[0].op != "sub" or node.operands[1].op != "add":
        return None
    a, b = node.operands[0].operands
    if set(node.operands[1].operands) != {a, b} or not (a.op == "exp" and b.op == "exp"):
        return None
    x = a.operands[0]
    return make("tanh", x) if negated(b.operands[0]) is x else None


RULES: tuple[Rule, ...] = (
    reciprocal,
    quotient,
    softmax,
    logsumexp,
    log_of_softmax,
    log_of_mean,
    log_of_exp,
    reassociate,
    sigmoid,
    one_minus_sigmoid,
    log_sigmoid,
    softplus,
    log1p,
    expm1,
    tanh,
)
