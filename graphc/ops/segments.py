"""Loops in segments: what a step computes is kept for one segment at a time.

The derivative of a loop needs values of every step. A loop over segments, each a loop itself, that computes them again
keeps the carries at the beginnings of the segments only, and the values of one segment. With segments of √T steps both
are of the order of √T.
"""

from __future__ import annotations

from dataclasses import replace

from ..graph.body import make_body
from ..graph.graph import SideTables
from ..graph.node import Node, TensorType
from ..graph.size import Size, size
from . import build
from .scan import LIGHT, Scan

MOST_BYTES = 1 << 28  # what a loop may keep for its derivative before "auto" cuts it
USUAL = 64  # what a size is taken for that is not known


def kept_bytes(scan: Scan) -> int:
    """Roughly what the derivative needs of all steps: the carries, and what is not light to compute again."""
    body = scan.body
    wanted = [*body.carries, *(n for n in body.nodes if n.op not in LIGHT and n.dtype.is_float)]
    total = sum((n.type.numel * n.dtype.itemsize for n in wanted), size(0)) * scan.length
    return total.evaluate(dict.fromkeys(total.names, USUAL))


def segmented(scan: Scan, steps: Size, tables: SideTables) -> tuple[list[Node], list[Node]]:
    """(last carries, stacks of what the steps give) of a loop cut into segments of so many steps, and a rest."""
    count = scan.length // steps
    whole = count * steps
    rest = scan.length - whole

    def part(x: Node, start: Size, length: Size) -> Node:
        others = (size(0),) * (x.type.rank - 1)
        ones = (size(1),) * x.type.rank
        return build.make("slice", x, start=(start, *others), step=ones, shape=(length, *x.shape[1:]))

    body = scan.body
    stand_ins = [
        Node("input", (), TensorType(v.dtype, (steps, *v.shape)), name=f"segment:{k}")
        for k, v in enumerate(body.elements)
    ]
    inner = replace(scan, length=steps, init=body.carries, xs=tuple(stand_ins), given=body.given)
    n = len(body.carries)
    results = [inner.last(k) for k in range(n)] + [inner.stacked(j) for j in range(len(body.gives))]
    outer = Scan(
        make_body(body.carries, stand_ins, body.given, results, tables),
        count,
        scan.init,
        tuple(build.reshape(part(x, size(0), whole), (count, steps, *x.shape[1:])) for x in scan.xs),
        scan.given,
        scan.reverse,
        recompute=True,
    )
    tail = replace(scan, length=rest, xs=tuple(part(x, whole, rest) for x in scan.xs))
    if rest == 0:
        loops = [outer]
    elif scan.reverse:
        tail, outer = tail, replace(outer, init=tuple(tail.last(k) for k in range(n)))
        loops = [tail, outer]
    else:
        tail = replace(tail, init=tuple(outer.last(k) for k in range(n)))
        loops = [outer, tail]
    stacks = []
    for j, gives in enumerate(body.gives):
        stack = build.reshape(outer.stacked(j), (whole, *gives.shape))
        stacks.append(stack if rest == 0 else build.make("concat", stack, tail.stacked(j), axis=0))
    return [loops[-1].last(k) for k in range(n)], stacks
