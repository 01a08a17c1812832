"""The one rule: the adjoint of a clause swaps the roles of what it reads and what it writes.

    out[γ(p)] ⊕= f(A[α(p)], …)   becomes   Ā[α(p)] += Ȳ[γ(p)] · ∂f/∂A   over the same box and guards.

Nothing here knows any operation. `∂f/∂A` is a scalar expression put together by the chain rule from the rows'
partials. A partial that is zero in a branch stays a choice of branches, `where(c, ȳ·p, 0)`, so that a singular
value never meets the branch not taken.
"""

from __future__ import annotations

from dataclasses import replace

from ..graph import scalar as sc
from ..graph.dtype import bool_, i64
from ..graph.formula import Clause, Read, affine
from ..graph.scalar import Scalar
from ..graph.size import size
from ..ops.fold import fold_scalar
from .partials import template


def times(cotangent: Scalar, partial: Scalar) -> Scalar:
    """cotangent · partial, where a zero means "does not depend": it meets no other factor."""
    dtype = cotangent.dtype
    if sc.is_const(partial, 0) or sc.is_const(cotangent, 0):
        return sc.const(0, dtype)
    if sc.is_const(partial, 1):
        return cotangent
    if sc.is_const(partial, -1):
        return Scalar("neg", (cotangent,), dtype)
    if partial.op == "where":
        condition, taken, other = partial.args
        return where(condition, times(cotangent, taken), times(cotangent, other))
    if sc.is_const(cotangent, 1):
        return partial
    if partial.op == "neg":
        return Scalar("neg", (times(cotangent, partial.args[0]),), dtype)
    if partial.op == "div" and sc.is_const(partial.args[0], 1):
        return Scalar("div", (cotangent, partial.args[1]), dtype)
    return Scalar("mul", (cotangent, partial), dtype)


def plus(a: Scalar, b: Scalar) -> Scalar:
    if sc.is_const(a, 0):
        return b
    return a if sc.is_const(b, 0) else Scalar("add", (a, b), a.dtype)


def where(condition: Scalar, a: Scalar, b: Scalar) -> Scalar:
    return a if a is b else Scalar("where", (condition, a, b), a.dtype)


def derivative(body: Scalar, k: int, stored: Scalar | None) -> Scalar:
    """∂body/∂(arg k) by the chain rule. `stored` stands for the body's own value where that is at hand."""

    def visit(e: Scalar) -> Scalar:
        if e.op == "arg" and e.value == k:
            return sc.const(1, e.dtype)
        if e.op in sc.LEAVES or not e.dtype.is_float:
            return sc.const(0, e.dtype)
        if e not in memo:
            total = sc.const(0, e.dtype)
            for position, argument in enumerate(e.args):
                if not argument.dtype.is_float:
                    continue
                inner = visit(argument)
                if not sc.is_const(inner, 0):
                    values = [*e.args, stored if e is body and stored is not None else e]
                    partial = fold_scalar(sc.substitute(template(e.op, position, e.dtype), values))
                    total = plus(total, times(_converted(inner, e), partial))
            memo[e] = total
        return memo[e]

    memo: dict[Scalar, Scalar] = {}
    return visit(body)


def _converted(inner: Scalar, outer: Scalar) -> Scalar:
    return inner if inner.dtype is outer.dtype else Scalar("cast", (inner,), outer.dtype)


def adjoint(
    clause: Clause, read: int, cotangent: Scalar, partial: Scalar, support: Scalar | None, extra_reads: tuple[Read, ...]
) -> Clause:
    """The adjoint clause of one read.

    cotangent, partial, support: expressions over the clause's reads followed by `extra_reads`. Where the support is
    false the adjoint is zero, whatever the partial is.
    """
    body = times(cotangent, partial)
    if support is not None:
        body = where(support, body, sc.const(0, body.dtype))
    return replace(clause, reads=clause.reads + extra_reads, body=body, write=clause.reads[read].map)


def chosen(clause: Clause, reduced: int, cotangent: Scalar, position: Scalar) -> Scalar:
    """The cotangent where this point of the box is the one that a max or min chose, else zero.

    position: the row-major position, over the last `reduced` axes of the box, of the first maximum.
    """
    here, stride = affine(0), size(1)
    for axis in reversed(range(len(clause.box) - reduced, len(clause.box))):
        here = here + affine(0, {axis: stride})
        stride = stride * clause.box[axis]
    same = Scalar("equal", (position, Scalar("index", (), i64, here)), bool_)
    return where(same, cotangent, sc.const(0, cotangent.dtype))
