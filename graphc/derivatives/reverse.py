"""Reverse mode on the graph: cotangents flow from a scalar to what it depends on, one adjoint per operand."""
from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from ..errors import DerivativeError
from ..graph import scalar as sc
from ..graph.formula import Clause, Read
from ..graph.graph import Graph, SideTables, with_operands
from ..graph.node import Node, postorder
from ..graph.scalar import Scalar
from ..ops import build
from ..ops.table import row_of
from .emit import broadcast, emit, mask_of, move
from .rule import adjoint, chosen


def gradients(y: Node, wrt: Iterable[Node], tables: SideTables | None = None) -> dict[Node, Node]:
    """∂y/∂x of a scalar y for each x, as nodes; zeros where y does not depend on x.

    tables: the new nodes get the origins of the nodes whose derivative they are.
    """
    targets = list(wrt)
    order = postorder([y])
    known = set(order)
    needed: set[Node] = set()
    for node in order:
        if node in targets or any(o in needed for o in node.operands):
            needed.add(node)
    cotangents: dict[Node, Node] = {y: build.const(1, y.dtype)}
    for node in reversed(order):
        if node not in cotangents or node not in needed:
            continue
        for position, operand in enumerate(node.operands):
            if operand not in needed or not operand.dtype.is_float:
                continue
            contribution = pullback(node, position, cotangents[node])
            if contribution is None:
                continue
            total = add(cotangents[operand], contribution) if operand in cotangents else contribution
            if tables is not None:
                for new in postorder([total]):
                    if new not in known:
                        known.add(new)
                        tables.add_origin(new, *tables.origins.get(node, ()))
            cotangents[operand] = total
    return {x: cotangents[x] if x in cotangents and x in needed else build.full(0, x.shape, x.dtype) for x in targets}


def add(a: Node, b: Node) -> Node:
    """The sum of two cotangents; of masked ones under both masks, so that no mask is lost."""
    masks = mask_of(a), mask_of(b)
    if masks[0] is None or masks[1] is None or a.shape != b.shape:
        return build.make("add", a, b)
    active = [_active(m) for m in masks if m is not None]
    if active[0] is active[1]:
        condition = active[0]
        values = [m[1] if build.const_value(m[1]) != 0 else m[2] for m in masks if m is not None]
        total = build.make("add", *values)
    else:
        condition = build.make("logical_or", *active)
        total = build.make("add", a, b)
    return build.make("where", condition, total, build.const(0, a.dtype))


def _active(mask: tuple[Node, Node, Node]) -> Node:
    """The condition under which a masked value counts."""
    condition, a, _ = mask
    return build.make("logical_not", condition) if build.const_value(a) == 0 else condition


def pullback(node: Node, position: int, cotangent: Node) -> Node | None:
    """The cotangent of one operand of a node; None where the node does not depend on it smoothly."""
    row = row_of(node.op)
    if node.op == "grad":
        raise DerivativeError("a gradient was left unexpanded")
    if not row.differentiable:
        return None
    if row.vjp is not None:
        vjp = row.vjp
        return move(cotangent, lambda n: vjp(node, position, n))
    formula = row.formula(node)
    if formula is None or formula.reduce not in ("assign", "sum", "max", "min"):
        raise DerivativeError(f"{node.op} has no derivative rule")
    operand = node.operands[position]
    total: Node | None = None
    for stated in formula.clauses:
        clause = _with_constants(stated, node.operands)
        for k, read in enumerate(clause.reads):
            if read.operand != position:
                continue
            operands = [*node.operands, node]
            extra = [Read(len(node.operands), clause.write)]
            stored = sc.arg(len(clause.reads), node.dtype) if formula.reduce == "assign" else None
            seed = _seed(cotangent, operands, extra, clause, formula.reduce)
            if formula.reduce in ("max", "min"):
                signed = node.operands[0] if formula.reduce == "max" else build.make("neg", node.operands[0])
                operands.append(build.make("argmax", signed, axes=node.attr("axes")))
                extra.append(Read(len(operands) - 1, clause.write))
                first = sc.arg(len(clause.reads) + len(extra) - 1, operands[-1].dtype)
                seed = chosen(clause, len(clause.box) - node.type.rank, seed, first)
            turned = adjoint(clause, k, seed, tuple(extra), stored)
            if turned.body.dtype is not operand.dtype:
                turned = _converted(turned, operand)
            contribution = emit(turned, operands, operand.type, contraction=formula.reduce == "sum")
            total = contribution if total is None else add(total, contribution)
    return None if total is None else broadcast(total, operand.shape)


def _seed(cotangent: Node, operands: list[Node], extra: list[Read], clause: Clause, reduce: str) -> Scalar:
    """The cotangent as an expression over the reads; a masked one as a choice, unless a contraction would enlarge it."""
    def read(node: Node) -> Scalar:
        value = build.const_value(node)
        if value is not None:
            return sc.const(value, node.dtype)
        operands.append(build.broadcast_to(node, cotangent.shape))
        extra.append(Read(len(operands) - 1, clause.write))
        return sc.arg(len(clause.reads) + len(extra) - 1, node.dtype)

    masked = mask_of(cotangent)
    product = reduce == "sum" and len(clause.reads) > 1
    if masked is None or product:
        return read(cotangent)
    condition, a, b = masked
    return Scalar("where", (read(condition), read(a), read(b)), cotangent.dtype)


def _with_constants(clause: Clause, operands: tuple[Node, ...]) -> Clause:
    """The clause with operands that are numbers written into its body, where partials can be simplified by them."""
    def number(e: Scalar) -> Scalar | None:
        value = build.const_value(operands[clause.reads[e.value].operand]) if e.op == "arg" else None
        return None if value is None else sc.const(value, e.dtype)

    return replace(clause, body=sc.rebuild(clause.body, number))


def _converted(clause: Clause, operand: Node) -> Clause:
    return replace(clause, body=Scalar("cast", (clause.body,), operand.dtype))


def expand(graph: Graph) -> Graph:
    """Replace every lazy gradient by its derivation, innermost first."""
    wanted: dict[Node, list[Node]] = {}
    for node in graph.nodes:
        if node.op == "grad":
            wanted.setdefault(node.operands[0], []).append(node.operands[1])
    if not wanted:
        return graph
    new: dict[Node, Node] = {}
    done: dict[Node, dict[Node, Node]] = {}
    for node in graph.nodes:
        if node.op != "grad":
            new[node] = with_operands(node, tuple(new[o] for o in node.operands))
        else:
            y, x = node.operands
            if y not in done:
                # what y depends on comes before y, so all of it is expanded by now; y's other gradients are zero
                done[y] = gradients(new[y], [new[w] for w in wanted[y] if w in new], graph.tables)
            new[node] = done[y][new[x]] if new[x] in done[y] else build.full(0, x.shape, x.dtype)
        graph.tables.inherit(new[node], node)
    return replace(graph, outputs={k: new[v] for k, v in graph.outputs.items()}, updates={k: new[v] for k, v in graph.updates.items()})
