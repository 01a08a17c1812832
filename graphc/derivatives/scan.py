"""The adjoint of a loop is a loop in the other direction: backpropagation through time.

Its step is the derivative of the step, taken by the same rule as any graph's. Its carries are the cotangents of the
carries, and a sum for each value that all steps share; its elements are the cotangents of what the steps gave and what
the derivative needs of each step, its residuals, which the loop then gives too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from ..graph.body import Body, make_body
from ..graph.graph import SideTables
from ..graph.node import Node, TensorType
from ..ops import build
from ..ops.scan import LIGHT, Scan

Pull = Callable[[Mapping[Node, Node], Iterable[Node], SideTables | None], dict[Node, Node]]


def scan_pullback(
    node: Node, cotangents: Mapping[int, Node], needed: set[Node], pull: Pull, tables: SideTables
) -> list[tuple[Node, Node]]:
    """(operand, its share of the cotangent) for the operands that are needed, from the cotangents of some results."""
    scan = Scan.of(node)
    body, n = scan.body, len(scan.init)
    out = {j: _stand_in(body.results[j], j) for j in cotangents if j >= n}
    elements = [x for x, operand in zip(body.elements, scan.xs, strict=True) if operand in needed]
    shared = [w for w, operand in zip(body.given, scan.given, strict=True) if operand in needed]
    targets = [v for v in (*body.carries, *elements, *shared) if v.dtype.is_float]
    # a carry matters before a step if it matters after one, or if what the step gives depends on it
    active = {k for k in cotangents if k < n}
    while True:
        after = {k: _stand_in(body.carries[k], k) for k in sorted(active)}
        found = pull(_seeds(body, after | out), targets, tables)
        more = {k for k, carry in enumerate(body.carries) if carry in found} - active
        if not more:
            break
        active |= more
    return _adjoint(scan, cotangents, after, out, found, needed, tables)


def _stand_in(value: Node, position: int) -> Node:
    """The cotangent of a result inside the step of the adjoint."""
    return Node("input", (), value.type, name=f"cotangent:{position}")


def _seeds(body: Body, cotangents: Mapping[int, Node]) -> dict[Node, Node]:
    """root → its cotangent; what is a carry and is given too has the sum of both."""
    seeds: dict[Node, Node] = {}
    for k, cotangent in cotangents.items():
        root = body.results[k]
        seeds[root] = build.make("add", seeds[root], cotangent) if root in seeds else cotangent
    return seeds


def _adjoint(
    scan: Scan,
    cotangents: Mapping[int, Node],
    after: Mapping[int, Node],
    out: Mapping[int, Node],
    found: Mapping[Node, Node],
    needed: set[Node],
    tables: SideTables,
) -> list[tuple[Node, Node]]:
    """The loop back through the steps, and what it gives to each operand.

    after, out: the stand-ins for the cotangents of carries and of what the steps gave. found: the derivative of a step.
    """
    body = scan.body

    def wanted(inner: tuple[Node, ...], operands: tuple[Node, ...]) -> list[tuple[Node, Node]]:
        return [(v, o) for v, o in zip(inner, operands, strict=True) if v in found and o in needed]

    shared, elements = wanted(body.given, scan.given), wanted(body.elements, scan.xs)
    sums = [Node("input", (), v.type, name=f"sum:{i}") for i, (v, _) in enumerate(shared)]
    results = [found[c] if (c := body.carries[k]) in found else build.full(0, c.shape, c.dtype) for k in after]
    results += [build.make("add", total, found[v]) for total, (v, _) in zip(sums, shared, strict=True)]
    results += [found[v] for v, _ in elements]
    residuals, given = _residuals(scan, results)
    stacks = _stacked(scan, [r for r in residuals if r not in body.elements], tables)
    stacks |= dict(zip(body.elements, scan.xs, strict=True))
    operand_of = dict(zip(body.given, scan.given, strict=True))
    back = Scan(
        make_body([*after.values(), *sums], [*out.values(), *residuals], given, results, tables),
        scan.length,
        tuple(cotangents[k] if k in cotangents else _zeros(body.carries[k].type) for k in after)
        + tuple(_zeros(v.type) for v in sums),
        (*(cotangents[j] for j in out), *(stacks[r] for r in residuals)),
        tuple(operand_of[g] for g in given),
        not scan.reverse,
        scan.recompute,
    )
    shares = [(scan.init[k], back.last(i)) for i, k in enumerate(after) if scan.init[k] in needed]
    shares += [(o, back.last(len(after) + i)) for i, (_, o) in enumerate(shared)]
    return shares + [(o, back.stacked(i)) for i, (_, o) in enumerate(elements)]


def _zeros(type: TensorType) -> Node:
    return build.full(0, type.shape, type.dtype)


def _residuals(scan: Scan, results: Iterable[Node]) -> tuple[list[Node], list[Node]]:
    """(what the adjoint needs of every step, what it needs that all steps share), as nodes of the step."""
    body = scan.body
    forward, kept = {*body.inputs, *body.nodes}, set(body.results)
    residuals: dict[Node, None] = {}
    given: dict[Node, None] = {}
    seen: set[Node] = set()
    stack = list(results)[::-1]
    while stack:
        node = stack.pop()
        if node in seen:
            continue
        seen.add(node)
        computed = node in forward and node not in body.inputs and node.operands and not scan.recompute
        if node in body.given:
            given[node] = None
        elif node in body.inputs or (computed and (node in kept or node.op not in LIGHT)):
            residuals[node] = None
        else:
            stack.extend(reversed(node.operands))
    return list(residuals), list(given)


def _stacked(scan: Scan, residuals: list[Node], tables: SideTables) -> dict[Node, Node]:
    """The residuals of all steps: the loop gives them besides what it gave."""
    body = scan.body
    more = [r for r in residuals if r not in body.gives]
    wider = replace(scan, body=replace(body, results=(*body.results, *more)))
    tables.inherit(wider.node(), scan.node())
    return {r: wider.stacked(wider.body.gives.index(r)) for r in residuals}
