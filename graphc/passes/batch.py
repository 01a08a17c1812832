"""An operation done for all steps of a loop at once: the same operation over arrays with one more axis in front."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from ..graph import scalar as sc
from ..graph.formula import Affine, Clause, Formula, Index, Lookup, Read, renumber, var
from ..graph.graph import with_operands
from ..graph.node import Node, TensorType, postorder
from ..graph.size import Size, size
from ..ops import build
from ..ops.build import make
from ..ops.contract import LETTERS, split_spec
from ..ops.table import row_of

Operand = tuple[Node, bool]  # a value, and whether it has the axis of the steps in front


def can_batch(node: Node) -> bool:
    """Is there a form of the operation for all steps at once?"""
    return node.op not in ("scan", "item", "grad")


def batch(roots: Sequence[Node], known: Mapping[Node, Operand], length: Size) -> list[Operand]:
    """Nodes of a step computed for all steps: `known` says what stands for the values that they begin with."""
    found = dict(known)
    for node in postorder(roots, set(found)):
        operands = [found[o] for o in node.operands]
        if any(stacked for _, stacked in operands):
            found[node] = batched(node, operands, length), True
        else:
            found[node] = with_operands(node, tuple(o for o, _ in operands)), False
    return [found[r] for r in roots]


def stack(operand: Operand, length: Size) -> Node:
    """A value with the axis of the steps in front, repeated along it where it is the same for all."""
    node, stacked = operand
    return node if stacked else build.broadcast_to(node, (length, *node.shape))


def batched(node: Node, operands: Sequence[Operand], length: Size) -> Node:
    """One operation for all steps."""
    if build.is_elementwise(node):
        aligned = [_aligned(o, node.type.rank) if stacked else o for o, stacked in operands]
        return make(node.op, *aligned, **dict(node.attrs))
    if node.op in _FORMS:
        return _FORMS[node.op](node, list(operands), length)
    return _formula(node, operands, length)


def _aligned(x: Node, rank: int) -> Node:
    """A stacked value whose other axes are aligned with the last of `rank`."""
    missing = rank - (x.type.rank - 1)
    return build.reshape(x, (x.shape[0], *(size(1),) * missing, *x.shape[1:])) if missing else x


# -- forms of operations ---------------------------------------------------------------------------------------------
Form = Callable[[Node, list[Operand], Size], Node]


def _einsum(node: Node, operands: list[Operand], length: Size) -> Node:
    inputs, output = split_spec(node.attr("spec"))
    t = step_letter(node)
    terms = [t + letters if stacked else letters for letters, (_, stacked) in zip(inputs, operands, strict=True)]
    return build.einsum(f"{','.join(terms)}->{t}{output}", *(o for o, _ in operands))


def step_letter(node: Node) -> str:
    """A letter that a contraction does not use."""
    return next(c for c in LETTERS if c not in node.attr("spec"))


def _reduction(node: Node, operands: list[Operand], length: Size) -> Node:
    return make(node.op, operands[0][0], axes=tuple(a + 1 for a in node.attr("axes")))


def _reshape(node: Node, operands: list[Operand], length: Size) -> Node:
    return build.reshape(operands[0][0], (length, *node.shape))


def _broadcast(node: Node, operands: list[Operand], length: Size) -> Node:
    return build.broadcast_to(_aligned(operands[0][0], node.type.rank), (length, *node.shape))


def _transpose(node: Node, operands: list[Operand], length: Size) -> Node:
    return build.transpose(operands[0][0], (0, *(d + 1 for d in node.attr("perm"))))


def _slice(node: Node, operands: list[Operand], length: Size) -> Node:
    start, step = (size(0), *node.attr("start")), (size(1), *node.attr("step"))
    return make("slice", operands[0][0], start=start, step=step, shape=(length, *node.shape))


def _concat(node: Node, operands: list[Operand], length: Size) -> Node:
    return make("concat", *(stack(o, length) for o in operands), axis=node.attr("axis") + 1)


def _take(node: Node, operands: list[Operand], length: Size) -> Node:
    (x, x_stacked), (indices, stacked) = operands
    axis = node.attr("axis")
    if x_stacked and stacked:
        return _formula(node, operands, length)
    if x_stacked:
        return make("take", x, indices, axis=axis + 1)
    found = make("take", x, indices, axis=axis)
    return build.transpose(found, (axis, *(d for d in range(found.type.rank) if d != axis)))


_FORMS: dict[str, Form] = {
    "einsum": _einsum,
    "sum": _reduction,
    "max": _reduction,
    "min": _reduction,
    "argmax": _reduction,
    "reshape": _reshape,
    "broadcast_to": _broadcast,
    "transpose": _transpose,
    "slice": _slice,
    "concat": _concat,
    "take": _take,
}


def _formula(node: Node, operands: Sequence[Operand], length: Size) -> Node:
    """Any formula: a loop variable more, by which stacked operands and the result are indexed."""
    formula = row_of(node.op).formula(node)
    assert formula is not None, node.op
    clauses = tuple(_clause(c, operands, length, (var(0),)) for c in formula.clauses)
    return _over(node, operands, replace(formula, clauses=clauses), (length, *node.shape))


def is_movement(node: Node) -> bool:
    """Does a formula only put elements, or sums of them, elsewhere, among zeros?"""
    formula: Formula = node.attr("formula")
    zeros = formula.init is None or sc.is_const(formula.init, 0)
    return zeros and formula.reduce in ("assign", "sum") and all(c.body.op == "arg" for c in formula.clauses)


def summed_formula(node: Node, operands: Sequence[Operand], length: Size) -> Node | None:
    """Σ over the steps of a formula that assigns or adds: a loop variable more, by which the result is not indexed."""
    formula: Formula = node.attr("formula")
    if formula.reduce not in ("assign", "sum") or (formula.init is not None and not sc.is_const(formula.init, 0)):
        return None
    clauses = tuple(_clause(c, operands, length, ()) for c in formula.clauses)
    return _over(node, operands, Formula(clauses, "sum", sc.const(0, node.dtype), formula.checks), node.shape)


def _over(node: Node, operands: Sequence[Operand], formula: Formula, shape: tuple[Size, ...]) -> Node:
    kind = TensorType(node.dtype, shape)
    return Node("formula", tuple(o for o, _ in operands), kind, formula=formula, shape=shape)


def _clause(clause: Clause, operands: Sequence[Operand], length: Size, at: tuple[Affine, ...]) -> Clause:
    """The clause over the steps too: a variable in front, by which stacked operands are indexed; `at` in the result."""
    moved = renumber(clause, (length, *clause.box), {a: var(a + 1) for a in range(len(clause.box))})

    def row(operand: int) -> tuple[Affine, ...]:
        return (var(0),) if operands[operand][1] else ()

    def index(i: Index) -> Index:
        return Lookup(i.operand, (*row(i.operand), *i.map)) if isinstance(i, Lookup) else i

    reads = tuple(Read(r.operand, (*row(r.operand), *map(index, r.map))) for r in moved.reads)
    return replace(moved, reads=reads, write=(*at, *map(index, moved.write)))
