"""Where a cotangent counts: the mask of a `where` travels with the adjoint.

The cotangent of a branch not taken is zero, and zero times the ∞ or NaN of a singular partial is NaN. So before a
cotangent meets a partial that may be singular, its support is asked for: a condition outside which it is zero by
choice, not by value. The condition is derived from how the cotangent was computed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from ..graph import scalar as sc
from ..graph.dtype import bool_, i32
from ..graph.formula import Affine, Clause, Formula, Read
from ..graph.node import Node
from ..graph.scalar import Scalar
from ..graph.size import Size, size
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
        """The condition outside which a cotangent is zero, or None; its axes are the cotangent's, or have the length 1.

        A condition that is the same along an axis stays short along it: the mask of a batch of sequences is a number for
        each sequence, whatever it is that the sequences hold.
        chosen: only the model's own conditions count, not those of kinks; so it is from a contraction on.
        """
        return self._of(cotangent, chosen)

    def _of(self, node: Node, own: bool) -> Node | None:
        key = (node, own)
        if key not in self.memo:
            self.memo[key] = self._derive(node, own)
        return self.memo[key]

    def _derive(self, node: Node, own: bool) -> Node | None:
        def inner(n: Node) -> Node | None:
            return self._of(n, own)

        if _is_zero(node):
            return build.reshape(build.const(False, bool_), (size(1),) * node.type.rank)
        if node.op == "where":
            return self._choice(node, inner, own)
        if node.op in ("neg", "cast", "div") or node.op in ("transpose", "slice", "reshape", "broadcast_to"):
            found = inner(node.operands[0])
            if found is None or node.op in ("neg", "cast", "div"):
                return found
            return _moved(node, found)
        if node.op == "mul":
            both = [s for s in (_padded(inner(o), node.type.rank) for o in node.operands) if s is not None]
            return None if not both else both[0] if len(both) == 1 else _both("logical_and", *both)
        if node.op in ("add", "sub"):
            a, b = (_padded(inner(o), node.type.rank) for o in node.operands)
            return None if a is None or b is None else _both("logical_or", a, b)
        if node.op == "sum":
            found = inner(node.operands[0])
            return None if found is None else _without(found, node.attr("axes"))
        if node.op == "einsum":
            return self._contraction(node)
        return self._formula(node, inner) if node.op == "formula" else None

    def _choice(self, node: Node, inner: Callable[[Node], Node | None], own: bool) -> Node | None:
        condition, a, b = node.operands
        known = not own or _unmoved(condition) in self.conditions
        taken = _padded(_short(condition), node.type.rank)
        assert taken is not None
        if _is_zero(a) and not _is_zero(b):
            taken, a, b = make("logical_not", taken), b, a
        if _is_zero(b):
            rest = _padded(inner(a), node.type.rank)
            if not known:
                return rest
            return taken if rest is None else _both("logical_and", taken, rest)
        first, second = (_padded(inner(x), node.type.rank) for x in (a, b))
        if first is None or second is None:
            return None
        shape = _met(taken, first, second)
        return make("where", *(build.broadcast_to(x, shape) for x in (taken, first, second)))

    def _contraction(self, node: Node) -> Node | None:
        """A sum of products is zero by choice where one factor is, at every point of the sum."""
        inputs, output = split_spec(node.attr("spec"))
        for letters, operand in zip(inputs, node.operands, strict=True):
            found = self._of(operand, True)
            if found is not None:
                return relabelled(found, letters, output)
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
        short = _where_alike(found, clause, read, node)
        if short is not None:
            return short
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


def _short(condition: Node) -> Node:
    """A condition without the axes along which it was only repeated; those it keeps, of the length 1, come first."""
    while condition.op == "broadcast_to":
        rank = condition.type.rank
        (condition,) = condition.operands
        condition = _reranked(condition, rank)
    return condition


def _reranked(x: Node, rank: int) -> Node:
    return build.reshape(x, (size(1),) * (rank - x.type.rank) + x.shape)


def _padded(found: Node | None, rank: int) -> Node | None:
    return None if found is None else _reranked(found, rank)


def _met(*conditions: Node) -> tuple[Size, ...]:
    """The shape of conditions together."""
    return tuple(next((e for e in extents if e != 1), size(1)) for extents in zip(*(c.shape for c in conditions), strict=True))


def _both(op: str, a: Node, b: Node) -> Node:
    shape = _met(a, b)
    return make(op, build.broadcast_to(a, shape), build.broadcast_to(b, shape))


def _moved(node: Node, found: Node) -> Node:
    """The support of a movement's operand, moved with it."""
    (operand,) = node.operands
    if node.op == "transpose":
        return build.transpose(found, node.attr("perm"))
    if node.op == "broadcast_to":
        return _reranked(found, node.type.rank)
    if node.op == "reshape":
        if all(e == 1 for e in found.shape):
            return build.reshape(found, (size(1),) * node.type.rank)
        return build.reshape(build.broadcast_to(found, operand.shape), node.shape)
    zero, one = size(0), size(1)
    alike = [e == 1 for e in found.shape]  # a slice takes an element of an axis that it is the same along
    start = tuple(zero if same else x for same, x in zip(alike, node.attr("start"), strict=True))
    step = tuple(one if same else x for same, x in zip(alike, node.attr("step"), strict=True))
    shape = tuple(one if same else x for same, x in zip(alike, node.shape, strict=True))
    return make("slice", found, start=start, step=step, shape=shape)


def _without(found: Node, axes: Sequence[int]) -> Node:
    """Is there any along some axes, which are dropped?"""
    counted = [d for d in axes if found.shape[d] != 1]
    if counted:
        found = make("greater", build.reduce("sum", build.cast(found, i32), counted), build.const(0, i32))
    left = [d for d in range(found.type.rank + len(counted)) if d not in counted]
    kept = tuple(e for d, e in zip(left, found.shape, strict=True) if d not in axes)
    return build.reshape(found, kept)


def relabelled(found: Node, labels: Sequence[object], wanted: Sequence[object]) -> Node:
    """A condition over axes with labels as one over others: any along those that are not wanted, the same along those
    that it does not have."""
    found = _without(found, [d for d, label in enumerate(labels) if label not in wanted])
    kept = [label for label in labels if label in wanted]
    found = build.transpose(found, [kept.index(label) for label in wanted if label in kept])
    extents = dict(zip((label for label in wanted if label in kept), found.shape, strict=True))
    return build.reshape(found, tuple(extents.get(label, size(1)) for label in wanted))


def _where_alike(found: Node, clause: Clause, read: Read, node: Node) -> Node | None:
    """The support of what a clause moves, if the axes along which it differs keep their places; None where they do not.

    Cells that the clause does not write are zero in any case.
    """
    labels: list[object] = []
    for d, (index, extent) in enumerate(zip(read.map, found.shape, strict=True)):
        if extent == 1:
            labels.append(("same", d))
        elif isinstance(index, Affine) and index.variable is not None and clause.box[index.variable] == extent:
            labels.append(index.variable)
        else:
            return None
    written = [w.variable if isinstance(w, Affine) else None for w in clause.write]
    own = [label for label in labels if isinstance(label, int)]
    if len(set(own)) != len(own) or any(written.count(label) != 1 for label in own):
        return None
    wanted = [w if w in own else ("new", d) for d, w in enumerate(written)]
    if any(isinstance(w, int) and node.shape[d] != clause.box[w] for d, w in enumerate(wanted)):
        return None
    return relabelled(found, labels, wanted)
