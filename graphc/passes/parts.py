"""Arrays put together from parts: the adjoint of a split is a concatenation.

Each section of a split array sends back its cotangent among zeros. The sum of these is one array made of the cotangents
side by side.
"""

from __future__ import annotations

from ..graph import scalar as sc
from ..graph.formula import Affine, identity
from ..graph.node import Node
from ..graph.size import Size, size
from ..ops import build
from ..ops.build import const_value, make
from .rewrite import EXACT, Memo, Rule, rule

Parts = list[tuple[Size, Node | None]]  # lengths along an axis, and what stands there; None: zeros


@rule("sum of parts", EXACT, "arrays that are zero but for different parts of an axis add up to these parts in a row")
def sum_of_parts(node: Node, memo: Memo) -> Node | None:
    if node.op != "add" or any(o.shape != node.shape for o in node.operands):
        return None
    a, b = node.operands
    for axis in reversed(range(node.type.rank)):
        left, right = _parts(a, axis), _parts(b, axis)
        if left is None or right is None:
            continue
        together = _together(left, right)
        if together is not None:
            return make("concat", *(_filled(node, axis, n, x) for n, x in together), axis=axis)
    return None


def _filled(node: Node, axis: int, length: Size, part: Node | None) -> Node:
    shape = tuple(length if d == axis else e for d, e in enumerate(node.shape))
    return build.full(0, shape, node.dtype) if part is None else part


def _parts(x: Node, axis: int) -> Parts | None:
    """An array as parts along an axis, some of them zeros; None where it is not made of parts."""
    if x.op == "concat" and x.attr("axis") == axis:
        return [(o.shape[axis], None if _is_zero(o) else o) for o in x.operands]
    if x.op != "formula" or len(x.operands) != 1:
        return None
    formula = x.attr("formula")
    if formula.reduce != "assign" or len(formula.clauses) != 1 or formula.checks:
        return None
    (clause,), (part,) = formula.clauses, x.operands
    zero = formula.init is not None and sc.is_const(formula.init, 0)
    if not zero or clause.guards or clause.body.op != "arg" or len(clause.reads) != 1:
        return None
    place = clause.write[axis]
    kept = identity(x.type.rank)
    if clause.reads[0].map != kept or not isinstance(place, Affine) or place.terms != kept[axis].terms:  # type: ignore[union-attr]
        return None
    whole = [d for d in range(x.type.rank) if d != axis]
    if any(clause.write[d] != kept[d] or clause.box[d] != x.shape[d] for d in whole) or clause.box != part.shape:
        return None
    before, length = place.constant, clause.box[axis]
    after = x.shape[axis] - before - length
    parts: Parts = [(before, None), (length, part), (after, None)]
    return [(n, p) for n, p in parts if n != 0]


def _is_zero(x: Node) -> bool:
    return const_value(x.operands[0] if x.op == "broadcast_to" else x) == 0


def _together(a: Parts, b: Parts) -> Parts | None:
    """Two rows of parts laid over each other, where nothing but zeros lies over a part."""
    result: Parts = []
    a, b = a[::-1], b[::-1]
    while a and b:
        (n, x), (m, y) = a.pop(), b.pop()
        if x is not None and y is not None:
            return None
        rest = n - m
        if rest != 0:  # the longer one is cut, which only zeros can be
            if (rest.constant or 0) > 0 and x is None:
                a.append((rest, None))
            elif (rest.constant or 0) < 0 and y is None:
                b.append((size(0) - rest, None))
            else:
                return None
        length = n if x is not None else m if y is not None else n if (rest.constant or 0) < 0 else m
        part = y if x is None else x
        if part is None and result and result[-1][1] is None:
            result[-1] = (result[-1][0] + length, None)
        else:
            result.append((length, part))
    return result if not a and not b else None


SLICED = ("add", "sub", "mul", "neg")  # so light that an element that two slices hold may be computed twice


@rule("slice of a sum", EXACT, "a slice of a sum is the sum of slices: the sections of a split are never put together")
def slice_of_sum(node: Node, memo: Memo) -> Node | None:
    if node.op != "slice" or node.operands[0].op not in SLICED:
        return None
    (x,) = node.operands
    return make(x.op, *(_section(o, node, x.type.rank) for o in x.operands))


def _section(operand: Node, node: Node, rank: int) -> Node:
    """What a slice of a broadcast operation reads of an operand."""
    axes = range(rank - operand.type.rank, rank)
    (x,) = node.operands
    whole = [operand.shape[i] == 1 and x.shape[d] != 1 for i, d in enumerate(axes)]
    start = tuple(size(0) if w else node.attr("start")[d] for w, d in zip(whole, axes, strict=True))
    step = tuple(size(1) if w else node.attr("step")[d] for w, d in zip(whole, axes, strict=True))
    shape = tuple(size(1) if w else node.shape[d] for w, d in zip(whole, axes, strict=True))
    unchanged = shape == operand.shape and all(s == 1 for s in step)
    return operand if unchanged else make("slice", operand, start=start, step=step, shape=shape)


RULES: tuple[Rule, ...] = (sum_of_parts, slice_of_sum)
