"""From an adjoint clause to nodes with names: sums, products, contractions, slices; or the clause itself.

A clause that writes each loop variable to an axis of its own is a computation over its box followed by a sum over
the rest. Anything else, a scatter or a strided write, stays a `formula` node, which differentiates by the same rule.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ..graph import scalar as sc
from ..graph.dtype import bool_, i64
from ..graph.formula import ZERO, Affine, Clause, Formula, Lookup, Read, drop_units, var
from ..graph.node import Node, TensorType
from ..graph.scalar import Scalar
from ..graph.size import Size, size
from ..ops import build
from ..ops.contract import LETTERS


def emit(clause: Clause, operands: Sequence[Node], kind: TensorType, *, contraction: bool = False) -> Node:
    """The value of `out[write] += body` over a clause, as a node of the given type.

    contraction: the clause comes from a sum of products, so a product with a sum over it is a contraction too.
    """
    clause = _prune(drop_units(clause))
    if sc.is_const(clause.body, 0):
        return build.full(0, kind.shape, kind.dtype)
    chosen = _select_at_lookup(clause, kind)
    if chosen is not None:
        clause, check = chosen
        return _formula(clause, operands, kind, injective=_is_injective(clause), checks=(check,))
    placed = _placed(clause, kind)
    if placed is None or _has_index(clause.body):
        return _formula(clause, operands, kind, injective=_is_injective(clause))
    aligned = [_align(read, operands[read.operand], clause.box) for read in clause.reads]
    if any(a is None for a in aligned):
        return _formula(clause, operands, kind, injective=sum(axis is not None for axis in placed) == len(clause.box))
    nodes = [a for a in aligned if a is not None]
    kept = [axis for axis in placed if axis is not None]
    summed = [axis for axis in range(len(clause.box)) if axis not in kept]
    factors = _factors(clause.body)
    covers = any(_axes_of(f, clause) == set(range(len(clause.box))) for f in factors)
    if summed and len(factors) > 1 and (contraction or not covers):
        value = _contract(factors, clause, nodes, kept)
    else:
        value = _elementwise(clause.body, nodes)
        shape = tuple(clause.box)
        value = build.broadcast_to(value, shape) if not summed else _sum(value, summed, shape)
        value = build.transpose(value, [sorted(kept).index(axis) for axis in kept])
    return build.reshape(value, kind.shape)


# -- analysis of a clause --------------------------------------------------------------------------------------------
def _prune(clause: Clause) -> Clause:
    """Only the reads that the body uses."""
    used = sc.args_of(clause.body)
    place = {old: new for new, old in enumerate(used)}
    body = sc.rebuild(clause.body, lambda e: sc.arg(place[e.value], e.dtype) if e.op == "arg" else None)
    return replace(clause, reads=tuple(clause.reads[i] for i in used), body=body)


def _placed(clause: Clause, kind: TensorType) -> list[int | None] | None:
    """For each axis of the result the loop variable that it is (None: length 1), or None if some axis is no variable."""
    if clause.guards:
        return None
    found: list[int | None] = []
    for index, extent in zip(clause.write, kind.shape, strict=True):
        axis = index.variable if isinstance(index, Affine) else None
        if axis is not None and axis not in found and clause.box[axis] == extent:
            found.append(axis)
        elif index == ZERO and extent == 1:
            found.append(None)
        else:
            return None
    return found


def _select_at_lookup(clause: Clause, kind: TensorType) -> tuple[Clause, tuple[int, Size]] | None:
    """out[i, I[i]] += v as out[i, j] = (I[i] = j ? v : 0): a scatter with one index per row, turned into reads.

    With it the check that is left to do: (the operand I, the length that its elements must be below).
    """
    lookups = [d for d, index in enumerate(clause.write) if isinstance(index, Lookup)]
    if len(lookups) != 1 or clause.guards:
        return None
    (d,) = lookups
    solved = {index.variable for index in clause.write if isinstance(index, Affine)} - {None}
    if solved != set(range(len(clause.box))):
        return None
    found, j = clause.write[d], len(clause.box)
    assert isinstance(found, Lookup)
    reads = (*clause.reads, Read(found.operand, found.map))
    position = Scalar("cast", (sc.arg(len(clause.reads), i64),), i64)
    same = Scalar("equal", (position, Scalar("index", (), i64, var(j))), bool_)
    body = Scalar("where", (same, clause.body, sc.const(0, clause.body.dtype)), clause.body.dtype)
    write = tuple(var(j) if i == d else index for i, index in enumerate(clause.write))
    return Clause((*clause.box, kind.shape[d]), reads, body, write), (found.operand, kind.shape[d])


def _has_index(body: Scalar) -> bool:
    return any(e.op == "index" for e in sc.distinct([body]))


def _is_injective(clause: Clause) -> bool:
    """Does each point of the box write a cell of its own, for certain?"""
    if not all(isinstance(i, Affine) for i in clause.write):
        return False
    alone = [i.axes[0] for i in clause.write if isinstance(i, Affine) and len(i.axes) == 1]
    constant = all(len(i.axes) <= 1 for i in clause.write if isinstance(i, Affine))
    return constant and sorted(alone) == list(range(len(clause.box)))


def _formula(
    clause: Clause,
    operands: Sequence[Node],
    kind: TensorType,
    injective: bool,
    checks: tuple[tuple[int, Size], ...] = (),
) -> Node:
    """The clause as a node of its own, over only the operands that it uses."""
    used: dict[int, int] = {}

    def place(operand: int) -> int:
        return used.setdefault(operand, len(used))

    def placed(index: Affine | Lookup) -> Affine | Lookup:
        return Lookup(place(index.operand), index.map) if isinstance(index, Lookup) else index

    reads = tuple(Read(place(r.operand), tuple(map(placed, r.map))) for r in clause.reads)
    clause = replace(clause, reads=reads, write=tuple(map(placed, clause.write)))
    plain = injective and _placed(clause, kind) is not None
    reduce = "assign" if injective else "sum"
    placed_checks = tuple((place(k), limit) for k, limit in checks)
    formula = Formula((clause,), reduce, None if plain else sc.const(0, kind.dtype), placed_checks)
    return Node("formula", tuple(operands[o] for o in used), kind, formula=formula, shape=kind.shape)


# -- building nodes --------------------------------------------------------------------------------------------------
def _align(read: Read, operand: Node, box: Sequence[Size]) -> Node | None:
    """The operand with its axes in the order of the box and length 1 where it does not vary; None if it cannot be."""
    if not all(isinstance(i, Affine) and len(i.axes) <= 1 for i in read.map):
        return None
    indices = [i for i in read.map if isinstance(i, Affine)]
    axes = [i.axes[0] if i.axes else None for i in indices]
    used = [a for a in axes if a is not None]
    if len(set(used)) != len(used):
        return None
    wanted = tuple(size(1) if a is None else box[a] for a in axes)
    steps = tuple(size(1) if a is None else i.coefficient(a) for i, a in zip(indices, axes, strict=True))
    starts = tuple(i.constant for i in indices)
    if wanted != operand.shape or any(s != 1 for s in steps) or any(s != 0 for s in starts):
        operand = build.make("slice", operand, start=starts, step=steps, shape=wanted)
    operand = build.reshape(operand, tuple(box[a] for a in used))
    order = sorted(range(len(used)), key=lambda d: used[d])
    operand = build.transpose(operand, order)
    shape = tuple(box[a] if a in used else size(1) for a in range(min(used, default=len(box)), len(box)))
    return build.reshape(operand, shape)


def _elementwise(body: Scalar, nodes: Sequence[Node]) -> Node:
    """A scalar expression applied element by element."""

    def visit(e: Scalar, args: tuple[Node, ...]) -> Node:
        if e.op == "arg":
            return nodes[e.value]
        if e.op == "const":
            return build.const(e.value, e.dtype)
        if e.op == "size":
            return build.size_value(e.value, e.dtype)
        if e.op == "cast":
            return build.cast(args[0], e.dtype)
        return build.make(e.op, *args)

    return sc.fold(body, visit)


def _factors(body: Scalar) -> list[Scalar]:
    return _factors(body.args[0]) + _factors(body.args[1]) if body.op == "mul" else [body]


def _axes_of(body: Scalar, clause: Clause) -> set[int]:
    """The loop variables that an expression varies with."""
    return {a for k in sc.args_of(body) for i in clause.reads[k].map if isinstance(i, Affine) for a in i.axes}


def _contract(factors: list[Scalar], clause: Clause, nodes: Sequence[Node], kept: Sequence[int]) -> Node:
    """Σ Π factors as an einsum, each factor over only the axes that it varies with."""
    terms: list[str] = []
    values: list[Node] = []
    for factor in factors:
        axes = sorted(_axes_of(factor, clause))
        value = _elementwise(factor, nodes)
        value = build.reshape(value, tuple(clause.box[a] for a in axes))
        terms.append("".join(LETTERS[a] for a in axes))
        values.append(value)
    absent = [a for a in range(len(clause.box)) if not any(LETTERS[a] in t for t in terms)]
    result = build.einsum(f"{','.join(terms)}->{''.join(LETTERS[a] for a in kept if a not in absent)}", *values)
    for a in absent:
        if a not in kept:  # a sum of equal terms
            result = build.make("mul", result, build.size_value(clause.box[a], result.dtype))
    if any(a in kept for a in absent):
        shape = tuple(size(1) if a in absent else clause.box[a] for a in kept)
        result = build.broadcast_to(build.reshape(result, shape), tuple(clause.box[a] for a in kept))
    return result


def _sum(value: Node, summed: list[int], box: tuple[Size, ...]) -> Node:
    """The sum over axes of a box; an axis along which the value does not vary multiplies."""
    shift = len(box) - value.type.rank
    varying = [a for a in summed if a >= shift and value.shape[a - shift] == box[a]]
    for a in summed:
        if a not in varying:
            value = build.make("mul", value, build.size_value(box[a], value.dtype))
    shape = tuple(size(1) if a in summed and a not in varying else e for a, e in enumerate(box))
    value = build.reduce("sum", build.broadcast_to(value, shape), varying)
    return build.reshape(value, tuple(e for a, e in enumerate(box) if a not in summed))
