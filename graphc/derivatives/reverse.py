"""Reverse mode on the graph: cotangents flow from a scalar to what it depends on, one adjoint per operand."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from ..errors import DerivativeError
from ..graph import scalar as sc
from ..graph.body import dependents
from ..graph.dtype import i32
from ..graph.formula import AccessMap, Affine, Clause, Read
from ..graph.graph import Graph, SideTables, with_operands
from ..graph.node import Node, TensorType, postorder
from ..graph.scalar import Scalar
from ..graph.size import Size
from ..ops import build
from ..ops.scan import with_body
from ..ops.table import row_of
from .emit import emit
from .rule import adjoint, chosen, derivative
from .scan import scan_pullback
from .support import Support, may_be_singular, relabelled


def gradients(y: Node, wrt: Iterable[Node], tables: SideTables | None = None) -> dict[Node, Node]:
    """∂y/∂x of a scalar y for each x, as nodes; zeros where y does not depend on x.

    tables: the new nodes get the origins of the nodes whose derivative they are.
    """
    targets = dict.fromkeys(wrt)  # in their order, and quick to look into
    found = cotangents_of({y: build.const(1, y.dtype)}, targets, tables)
    return {x: found[x] if x in found else build.full(0, x.shape, x.dtype) for x in targets}


def cotangents_of(
    seeds: Mapping[Node, Node], wrt: Iterable[Node], tables: SideTables | None = None
) -> dict[Node, Node]:
    """Σ over the seeds of seed · ∂root/∂x for each x that a root depends on, as nodes. seeds: root → its cotangent."""
    targets = dict.fromkeys(wrt)
    order = postorder(seeds)
    known = set(order) | set(postorder(seeds.values()))
    needed = dependents(seeds, targets)
    support = Support({n.operands[0] for n in order if n.op == "where"})
    cotangents = dict(seeds)
    items: dict[Node, dict[int, Node]] = {}  # scan → the cotangents of its results, by their number
    for node in reversed(order):
        if node not in needed:
            continue
        contributions: Iterable[tuple[Node, Node]] = ()
        if node.op == "scan":
            if node in items:
                contributions = scan_pullback(node, items[node], needed, cotangents_of, tables or SideTables())
        elif node not in cotangents:
            continue
        elif node.op == "item":
            if node.operands[0] in needed:
                items.setdefault(node.operands[0], {})[node.attr("index")] = cotangents[node]
        else:
            contributions = _contributions(node, needed, cotangents[node], support)
        for operand, contribution in contributions:
            total = build.make("add", cotangents[operand], contribution) if operand in cotangents else contribution
            if tables is not None:
                for new in postorder([total], known):
                    tables.add_origin(new, *tables.origins.get(node, ()))
            cotangents[operand] = total
    return {x: cotangents[x] for x in targets if x in cotangents and x in needed}


def _contributions(node: Node, needed: set[Node], cotangent: Node, support: Support) -> Iterator[tuple[Node, Node]]:
    """(operand, its share of the cotangent) for the operands that matter."""
    for position, operand in enumerate(node.operands):
        if operand in needed and operand.dtype.is_float:
            contribution = pullback(node, position, cotangent, support)
            if contribution is not None:
                yield operand, contribution


def pullback(node: Node, position: int, cotangent: Node, support: Support) -> Node | None:
    """The cotangent of one operand of a node; None where the node does not depend on it smoothly."""
    row = row_of(node.op)
    if node.op == "grad":
        raise DerivativeError("a gradient was left unexpanded")
    if not row.differentiable:
        return None
    if row.vjp is not None:
        return row.vjp(node, position, cotangent)
    formula = row.formula(node)
    if formula is None or formula.reduce not in ("assign", "sum", "max", "min"):
        raise DerivativeError(f"{node.op} has no derivative rule")
    total: Node | None = None
    for clause in formula.clauses:
        for k, read in enumerate(clause.reads):
            if read.operand == position:
                contribution = _adjoint(
                    node, _with_constants(clause, node.operands), k, formula.reduce, cotangent, support
                )
                total = contribution if total is None else build.make("add", total, contribution)
    return None if total is None else build.broadcast_to(total, node.operands[position].shape)


def _adjoint(node: Node, clause: Clause, k: int, reduce: str, cotangent: Node, support: Support) -> Node:
    """The contribution of the k-th read of a clause."""
    operands = [*node.operands]
    extra: list[Read] = []

    def read(value: Node) -> Scalar:
        """A value of the output's shape, as the clause reads it where it writes."""
        number = build.const_value(value)
        if number is not None:
            return sc.const(number, value.dtype)
        operands.append(build.broadcast_to(value, node.shape))
        extra.append(Read(len(operands) - 1, clause.write))
        return sc.arg(len(clause.reads) + len(extra) - 1, value.dtype)

    stored = read(node) if reduce == "assign" else None
    partial = derivative(clause.body, k, stored)
    seed = read(cotangent)
    if reduce in ("max", "min"):
        signed = node.operands[0] if reduce == "max" else build.make("neg", node.operands[0])
        first = read(build.make("argmax", signed, axes=node.attr("axes")))
        seed = chosen(clause, len(clause.box) - node.type.rank, seed, first)
    mask: Node | None = None
    if reduce == "sum" and len(clause.reads) > 1:
        # a contraction sums over the mask: what its other factors hold where the cotangent does not count is left out
        _mask_factors(operands, clause, k, support.of(cotangent, chosen=True), node.shape)
    elif may_be_singular(partial):
        mask = support.of(cotangent)
    turned = adjoint(clause, k, seed, partial, None if mask is None else read(mask), tuple(extra))
    operand = node.operands[clause.reads[k].operand]
    if turned.body.dtype is not operand.dtype:
        turned = replace(turned, body=Scalar("cast", (turned.body,), operand.dtype))
    return emit(turned, operands, operand.type, contraction=reduce == "sum")


def _mask_factors(
    operands: list[Node], clause: Clause, k: int, mask: Node | None, shape: tuple[Size, ...]
) -> None:
    """Put zeros into the factors of a product, but the k-th, where no cell of the output that they reach counts.

    A factor that shares no axis with the mask, as a weight shares none with the mask of a batch, is left as it is: all
    cells reach all of it.
    """
    if mask is None:
        return
    labels = _labels(clause.write)
    for other, read in enumerate(clause.reads):
        factor = operands[read.operand]
        if other == k or not factor.dtype.is_float:
            continue
        own = _labels(read.map)
        if labels is not None and own is not None:
            if not any(label in own for label, extent in zip(labels, mask.shape, strict=True) if extent != 1):
                continue
            active = relabelled(mask, labels, own)
        else:
            counted = build.cast(build.broadcast_to(mask, shape), i32)
            box = replace(clause, reads=(Read(0, clause.write),), body=sc.arg(0, i32), write=read.map)
            active = build.make("greater", emit(box, [counted], TensorType(i32, factor.shape)), build.const(0, i32))
        zero = build.const(0, factor.dtype)
        operands[read.operand] = build.make("where", build.broadcast_to(active, factor.shape), factor, zero)


def _labels(access: AccessMap) -> list[object] | None:
    """The variable that each axis is indexed by, or a label of its own where it is not indexed; None for other maps."""
    found: list[object] = []
    for d, index in enumerate(access):
        if not isinstance(index, Affine) or index.variable is None and index.axes:
            return None
        found.append(("fixed", d) if index.variable is None else index.variable)
    return found if len(set(found)) == len(found) else None


def _with_constants(clause: Clause, operands: tuple[Node, ...]) -> Clause:
    """The clause with operands that are numbers written into its body, where partials can be simplified by them."""

    def number(e: Scalar) -> Scalar | None:
        value = build.const_value(operands[clause.reads[e.value].operand]) if e.op == "arg" else None
        return None if value is None else sc.const(value, e.dtype)

    return replace(clause, body=sc.rebuild(clause.body, number))


def watch(graph: Graph) -> Graph:
    """Set apart the computed values that gradients are taken of, so that no rewrite looks through them.

    A rule may turn log(e^x) into x; but ∂y/∂(e^x) of y = log(e^x) is asked for as if e^x were free.
    """
    wrt = {n.operands[1] for n in graph.nodes if n.op == "grad"}

    def change(node: Node, operands: tuple[Node, ...]) -> Node:
        new = with_operands(node, operands)
        if new.op == "scan":
            new = with_body(new, watch, graph.tables)
        return Node("watched", (new,), new.type) if node in wrt and node.op not in LEAF_VARIABLES else new

    return graph.rewrite(change)


LEAF_VARIABLES = ("input", "param", "state")  # nothing computes them, so no rule looks into them


def expand(graph: Graph) -> Graph:
    """Replace every lazy gradient by its derivation, innermost first; those of the steps of loops before all others."""
    wanted: dict[Node, list[Node]] = {}
    for node in graph.nodes:
        if node.op == "grad":
            wanted.setdefault(node.operands[0], []).append(node.operands[1])
    if not wanted and all(node.op != "scan" for node in graph.nodes):
        return graph
    new: dict[Node, Node] = {}
    done: dict[Node, dict[Node, Node]] = {}
    for node in graph.nodes:
        if node.op != "grad":
            new[node] = with_operands(node, tuple(new[o] for o in node.operands))
            if node.op == "scan":
                new[node] = with_body(new[node], expand, graph.tables)
        else:
            y, x = node.operands
            if y not in done:
                # what y depends on comes before y, so all of it is expanded by now; y's other gradients are zero
                done[y] = gradients(new[y], [new[w] for w in wanted[y] if w in new], graph.tables)
            new[node] = done[y][new[x]] if new[x] in done[y] else build.full(0, x.shape, x.dtype)
        graph.tables.inherit(new[node], node)
    return replace(
        graph,
        outputs={k: new[v] for k, v in graph.outputs.items()},
        updates={k: new[v] for k, v in graph.updates.items()},
    )
