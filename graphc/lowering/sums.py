"""Long sums of float32, right to about the last digit: blocks are summed in float32, and their totals in float64.

A sum of n equal numbers in one float32 register loses up to n/2 units of the last place. In a block each lane of a vector
adds up few numbers, and the loop keeps the speed of float32; a column's sum, which stays in memory, is emptied into a
float64 after every few rows. The result is rounded to float32 once, at the end.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from ..graph import scalar as sc
from ..graph.dtype import DType, f32, f64
from ..graph.formula import Affine
from ..graph.node import Node
from ..graph.scalar import Scalar
from ..graph.size import Size
from .ir import (
    MOST_WORDS,
    Accumulate,
    Array,
    Assign,
    Kernel,
    Load,
    Loop,
    Position,
    Statement,
    Store,
    loops,
    map_statements,
    sizes,
    walk,
)

SHORT = 4096
"""Terms that one register may sum in float32: some hundred for each lane of a vector."""
BLOCK = 1024
"""Terms of a block, in a loop that becomes vectors."""
ROWS = 64
"""Rows of a block, in a loop that adds them up in memory."""


def accurate(kernel: Kernel) -> tuple[Kernel, dict[int, Size]]:
    """The kernel with its long sums in blocks, and the lengths of the private float64 arrays that it has for them."""
    sums = _Sums(kernel)
    body = sums.registers(kernel.body, {})
    if sums.main == kernel.main and kernel.main is not None:  # its main loop is not in blocks yet
        body = sums.columns(body)
    if body == kernel.body:
        return kernel, {}
    private = {**kernel.private, **dict.fromkeys(sums.lengths, "scratch")}
    remark = "long sums of float32 go in blocks, whose totals are added in float64"
    changed = replace(kernel, body=body, main=sums.main, private=private, remarks=(*kernel.remarks, remark))
    return replace(changed, nodes=kernel.nodes + sums.nodes, arrays=kernel.arrays + sums.arrays), sums.lengths


class _Sums:
    def __init__(self, kernel: Kernel):
        self.kernel, self.main = kernel, kernel.main
        self.next = max(loops(kernel.body), default=-1) + 1  # the next loop variable
        self.nodes: list[Node] = []  # of the arrays made
        self.arrays: list[Array] = []
        self.lengths: dict[int, Size] = {}

    # -- sums in registers --------------------------------------------------------------------------------------
    def registers(self, items: list[Statement], totals: dict[str, str]) -> list[Statement]:
        """Statements with their loops changed. totals: for each register that they sum up, one in float64."""
        return [y for x in items for y in (self.loop(x, totals) if isinstance(x, Loop) else [x])]

    def loop(self, loop: Loop, totals: dict[str, str]) -> list[Statement]:
        """A loop, with sums that begin before it, or before one around it, in float64."""
        begun = {x.local: f"{x.local}_total" for x in loop.before if isinstance(x, Assign) and _is_long(x, loop)}
        totals = totals | begun

        def start(x: Statement) -> Statement:
            mine = isinstance(x, Assign) and x.local in begun
            return Assign(begun[x.local], sc.const(0.0, f64)) if isinstance(x, Assign) and mine else x

        def widened(x: Statement) -> Statement:
            mine = isinstance(x, Accumulate) and x.local in totals
            return _add(totals[x.local], x.expression) if isinstance(x, Accumulate) and mine else x

        rounded: list[Statement] = [Assign(local, _cast(_register(t, f64), f32)) for local, t in begun.items()]
        before = [start(x) for x in self.registers(loop.before, {})]
        body = self.registers(loop.body, totals)
        after = rounded + self.registers(loop.after, {})
        loop = replace(loop, before=before, body=body, after=after)
        here = [x.local for x in body if isinstance(x, Accumulate) and x.local in totals]
        if any(isinstance(x, Loop) for x in body):  # one element at a time: float64 costs nothing
            return [replace(loop, body=[widened(x) for x in body])]
        if not here:
            return [loop]
        zeros: list[Statement] = [Assign(local, sc.const(0.0, f32)) for local in here]
        adds: list[Statement] = [_add(totals[local], _register(local, f32)) for local in here]
        if _at_most(loop.extent, SHORT):
            return [*zeros, replace(loop, after=adds + after)]
        return [self.blocks(loop, BLOCK, zeros, adds)]

    def blocks(self, loop: Loop, length: int, first: list[Statement], last: list[Statement]) -> Loop:
        """A loop in blocks, with what is done first and last in each."""
        variable = self.variable()
        if loop.variable == self.main:
            self.main = variable
        inner = replace(loop, before=[], after=[], within=variable)
        return Loop(variable, loop.extent, loop.before, [*first, inner, *last], loop.after, step=length)

    def variable(self) -> int:
        self.next += 1
        return self.next - 1

    # -- sums in memory -----------------------------------------------------------------------------------------
    def columns(self, body: list[Statement]) -> list[Statement]:
        """The statements with the main loop in blocks, if it adds up rows in memory."""
        (at,) = (i for i, x in enumerate(body) if isinstance(x, Loop) and x.variable == self.main)
        main = body[at]
        assert isinstance(main, Loop)
        summed = {x.array for x in walk(main.body) if isinstance(x, Store) and x.reduce == "sum"}
        narrow = {a for a in summed if self.kernel.private.get(a) == "sum" and self.kernel.arrays[a].dtype is f32}
        fills = [x for x in [*body[:at], *main.before] if _filled([x]) & narrow]
        free = MOST_WORDS - len(self.kernel.arrays) - len(sizes(body))
        if not fills or len(fills) > free or _at_most(main.extent, 4 * ROWS):
            return body
        wide = {array: self.array(array) for array in sorted(narrow)}

        def wide_zero(s: Store) -> Store:
            return replace(s, array=wide[s.array], expression=sc.const(0.0, f64))

        def emptied(s: Store) -> Store:
            return replace(s, array=wide[s.array], expression=_cast(_element(s.array, s, f32), f64), reduce="sum")

        def rounded(s: Store) -> Store:
            return replace(s, expression=_cast(_element(wide[s.array], s, f64), f32))

        def prologue(items: list[Statement]) -> list[Statement]:
            return [y for x in items for y in (self.over(x, wide_zero) if x in fills else [x])]

        zeros = [y for x in fills for y in self.over(x, lambda s: s)]
        adds = [y for x in fills for y in self.over(x, emptied)]
        ends = [y for x in fills for y in self.over(x, rounded)]
        main = replace(main, before=prologue(main.before), after=ends + main.after)
        return [*prologue(body[:at]), self.blocks(main, ROWS, zeros, adds), *body[at + 1 :]]

    def array(self, narrow: int) -> int:
        """A float64 array beside a float32 one; its number."""
        number = len(self.kernel.arrays) + len(self.arrays)
        node = self.kernel.nodes[narrow]
        self.nodes.append(node)
        self.arrays.append(Array(f"{self.kernel.arrays[narrow].name}_total", f64, True))
        self.lengths[number] = node.type.numel
        return number

    def over(self, fill: Statement, store: Callable[[Store], Store]) -> list[Statement]:
        """Another store to each cell that a fill fills."""
        fresh = {variable: self.variable() for variable in loops([fill])}

        def change(item: Statement) -> list[Statement]:
            if isinstance(item, Loop):
                return [replace(item, variable=fresh[item.variable])]
            if not isinstance(item, Store):
                return [item]
            form = item.position.affine
            terms = tuple(sorted((fresh[axis], coefficient) for axis, coefficient in form.terms))
            return [store(replace(item, position=Position(Affine(form.constant, terms))))]

        return map_statements([fill], change)


def _is_long(begin: Assign, loop: Loop) -> bool:
    """Does a loop sum up more than a few float32 in a register that begins so?"""
    local, zero = begin.local, sc.const(0.0, f32)
    if begin.expression is not zero:
        return False

    def terms(inside: Loop) -> Size | None:
        for x in inside.body:
            if isinstance(x, Accumulate) and x.local == local and x.reduce == "sum":
                return inside.extent
            count = terms(x) if isinstance(x, Loop) else None
            if count is not None:
                return inside.extent * count
        return None

    count = terms(loop)
    return count is not None and not _at_most(count, SHORT)


def _at_most(extent: Size, limit: int) -> bool:
    return extent.constant is not None and extent.constant <= limit


def _filled(items: list[Statement]) -> set[int]:
    """The arrays that statements fill."""
    return {x.array for x in walk(items) if isinstance(x, Store)}


def _register(name: str, dtype: DType) -> Scalar:
    return Scalar("local", (), dtype, name)


def _element(array: int, place: Store, dtype: DType) -> Scalar:
    return Scalar("load", (), dtype, Load(array, place.position))


def _cast(value: Scalar, dtype: DType) -> Scalar:
    return Scalar("cast", (value,), dtype)


def _add(total: str, value: Scalar) -> Accumulate:
    return Accumulate(total, _cast(value, f64), "sum")
