"""Where a cotangent counts: the mask of a `where` travels with the adjoint.

The cotangent of a branch not taken is zero, and zero times the ∞ or NaN of a singular partial is NaN. So before a
cotangent meets a partial that may be singular, its support is asked for: a condition outside which it is zero by
choice, not by value. The condition is derived from how the cotangent was computed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from ..graph import scalar as sc
from ..graph.dtype import bool_, i32
from ..graph.formula import Formula
from ..graph.node import Node
from ..graph.scalar import Scalar
from ..graph.size import size
from ..ops import build
from ..ops.build import make
from ..ops.contract import split_spec


def may_be_singular(partial: Scalar) -> bool:
    """May a partial be infinite or NaN? One that is a constant in each branch may not."""
    if partial.op == "where":
        return any(may_be_singular(a) for a in partial.args[1:])
    return partial.op != "const"


class Support:
    """The supports of cotangents. conditions: those of the model's own `where`s, which alone are followed through
    contractions; the masks of kinks (ReLU's) are not, since that would cost a pass over memory for each layer."""

    def __init__(self, conditions: set[Node]):
        self.conditions = {_unmoved(c) for c in conditions}
        self.memo: dict[tuple[Node, bool], Node | None] = {}

    def of(self, cotangent: Node, chosen: bool = False) -> Node | None:
        """The condition outside which a cotangent is zero, of its own shape, or None.

        chosen: only the model's own conditions count, not those of kinks; so it is from a contraction on.
        """
        found = self._of(cotangent, chosen)
        return None if found is None else build.broadcast_to(found, cotangent.shape)

    def _of(self, node: Node, own: bool) -> Node | None:
        key = (node, own)
        if key not in self.memo:
            self.memo[key] = self._derive(node, own)
        return self.memo[key]

    def _derive(self, node: Node, own: bool) -> Node | None:
        def inner(n: Node) -> Node | None:
            return self._of(n, own)

        if _is_zero(node):
            return build.const(False, bool_)
        if node.op == "where":
            return self._choice(node, inner, own)
        if node.op in ("neg", "cast", "div") or node.op in ("transpose", "slice", "reshape", "broadcast_to"):
            found = inner(node.operands[0])
            if found is None or node.op in ("neg", "cast", "div"):
                return found
            return make(node.op, build.broadcast_to(found, node.operands[0].shape), **dict(node.attrs))
        if node.op == "mul":
            both = [s for s in map(inner, node.operands) if s is not None]
            return _all("logical_and", both) if both else None
        if node.op in ("add", "sub"):
            a, b = map(inner, node.operands)
            return None if a is None or b is None else make("logical_or", a, b)
        if node.op == "sum":
            found = inner(node.operands[0])
            return None if found is None else _any(build.broadcast_to(found, node.operands[0].shape), node.attr("axes"))
        if node.op == "einsum":
            return self._contraction(node)
        return self._formula(node, inner) if node.op == "formula" else None

    def _choice(self, node: Node, inner: Callable[[Node], Node | None], own: bool) -> Node | None:
        condition, a, b = node.operands
        known = not own or _unmoved(condition) in self.conditions
        if _is_zero(b):
            rest = inner(a)
            return (
                condition
                if known and rest is None
                else make("logical_and", condition, rest)
                if known and rest is not None
                else rest
            )
        if _is_zero(a):
            rest = inner(b)
            other = make("logical_not", condition)
            return (
                other
                if known and rest is None
                else make("logical_and", other, rest)
                if known and rest is not None
                else rest
            )
        taken, left = inner(a), inner(b)
        return None if taken is None or left is None else make("where", condition, taken, left)

    def _contraction(self, node: Node) -> Node | None:
        """A sum of products is zero by choice where one factor is, at every point of the sum."""
        inputs, output = split_spec(node.attr("spec"))
        for letters, operand in zip(inputs, node.operands, strict=True):
            found = self._of(operand, True)
            if found is None:
                continue
            found = build.broadcast_to(found, operand.shape)
            summed = tuple(d for d, letter in enumerate(letters) if letter not in output)
            kept = [letter for letter in letters if letter in output]
            found = _any(found, summed)
            order = [kept.index(letter) for letter in output if letter in kept]
            found = build.transpose(found, order)
            return build.reshape(
                found, tuple(e if letter in kept else size(1) for letter, e in zip(output, node.shape, strict=True))
            )
        return None

    def _formula(self, node: Node, inner: Callable[[Node], Node | None]) -> Node | None:
        """A scatter moves the support as it moves the values."""
        formula: Formula = node.attr("formula")
        if len(formula.clauses) != 1:
            return None
        (clause,) = formula.clauses
        body = clause.body
        while body.op in ("where", "neg"):  # a choice by index leaves out more: its value's support is a bound
            if body.op == "where" and not sc.is_const(body.args[2], 0):
                return None
            body = body.args[1 if body.op == "where" else 0]
        if body.op != "arg":
            return None
        read = clause.reads[body.value]
        found = inner(node.operands[read.operand])
        if found is None:
            return None
        # moved as the value is moved, and counted where several values meet in one cell
        counted = build.cast(build.broadcast_to(found, node.operands[read.operand].shape), i32)
        operands = tuple(counted if k == read.operand else o for k, o in enumerate(node.operands))
        init = None if formula.init is None else sc.const(0, i32)
        moved = Formula((replace(clause, reads=(read,), body=sc.arg(0, i32)),), formula.reduce, init)
        return make("greater", make("formula", *operands, formula=moved, shape=node.shape), build.const(0, i32))


def _is_zero(node: Node) -> bool:
    return build.const_value(_unmoved(node)) == 0


def _unmoved(node: Node) -> Node:
    """The value whose elements these are."""
    while node.op in ("broadcast_to", "reshape", "transpose", "slice"):
        node = node.operands[0]
    return node


def _any(condition: Node, axes: tuple[int, ...]) -> Node:
    if not axes:
        return condition
    return make("greater", build.reduce("sum", build.cast(condition, i32), axes), build.const(0, i32))


def _all(op: str, conditions: list[Node]) -> Node:
    total = conditions[0]
    for condition in conditions[1:]:
        total = make(op, total, condition)
    return total
