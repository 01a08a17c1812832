"""`gc.scan`: a step repeated along an axis, traced once into the body of one node."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import repeat
from typing import Any

from ..errors import SourceLine, TraceError
from ..graph.body import make_body
from ..graph.dtype import i64
from ..graph.node import Node, TensorType, postorder
from ..graph.size import Size, SizeLike, isqrt, size
from ..ops import build
from ..ops.row import Fit
from ..ops.scan import Scan
from ..ops.segments import MOST_BYTES, kept_bytes, segmented
from .elementwise import where
from .nest import Nest, flatten
from .tensor import Tensor, Value, elementwise, fail, lift, record
from .trace import Trace, caller, current

Step = Callable[[Any, Any], Any]


def scan(
    step: Step,
    init: Any = None,
    xs: Any = None,
    axis: int = 0,
    reverse: bool = False,
    *,
    length: SizeLike | None = None,
    lengths: Value | None = None,
    checkpoint: int | str | None = None,
) -> tuple[Any, Any]:
    """Repeat `step(carry, x) -> (carry, y)` along an axis of xs; (the last carry, what the steps gave, stacked).

    init, xs and y are single values, tuples, lists or dicts of them, or None. The carry begins as init and keeps its
    shapes and types. Each x is the element of xs at one position of `axis`; the ys are stacked along `axis`.
    reverse: from the last position to the first; the ys keep the positions of the xs.
    length: the number of steps, where there are no xs.
    lengths: (B,) integers from 1 to the number of steps: the steps of each sequence of a batch, which is the first axis
    of every carry and y. Beyond its length a sequence's carry stays, and its ys are zero; in reverse it begins at its
    own last step. A length out of range is an error of the call.
    checkpoint: the steps of a segment, "sqrt" for the root of the number of steps, or "auto" for this where otherwise
    much would be kept. Gradients then keep what steps compute for one segment at a time, and compute it again.
    """
    trace, source = current("gc.scan"), caller()
    try:
        return _Loop(trace, source, axis, reverse, checkpoint).run(step, init, xs, length, lengths)
    except _Broken:
        return flatten(init)[0].build(repeat(Tensor(None))), Tensor(None)
    except TraceError as error:
        fail(error, source)
        return flatten(init)[0].build(repeat(Tensor(None))), Tensor(None)


def _checked(checkpoint: Any) -> int | str | None:
    number = isinstance(checkpoint, int) and not isinstance(checkpoint, bool) and checkpoint >= 1
    if not number and checkpoint not in (None, "sqrt", "auto"):
        raise TraceError(f"scan: checkpoint={checkpoint!r}", how='pass the steps of a segment, "sqrt" or "auto"')
    return checkpoint


class _Broken(Exception):
    """An operand is broken: its error is told already."""


def _known(tensors: Sequence[Tensor]) -> list[Node]:
    if any(t.broken for t in tensors):
        raise _Broken
    return [t.node for t in tensors]


class _Loop:
    """One call of `scan`."""

    def __init__(self, trace: Trace, source: SourceLine | None, axis: int, reverse: bool, checkpoint: int | str | None):
        self.trace, self.source, self.axis, self.reverse = trace, source, axis, reverse
        self.checkpoint = _checked(checkpoint)
        self.fit = Fit(source=source)

    def run(self, step: Step, init: Any, xs: Any, length: SizeLike | None, lengths: Value | None) -> tuple[Any, Any]:
        carry_nest, carries = flatten(init)
        x_nest, elements = flatten(xs)
        begin = _known([lift(c) for c in carries])
        steps, arrays = self._arrays(x_nest, _known([lift(x) for x in elements]), length)
        active: list[Node] = []
        if lengths is not None:
            last = elementwise("sub", lift(lengths), 1)
            active = _known([record("within", last, length=steps)])
        operands = [*arrays, *active]
        inside = [self._stand_in(n.type) for n in begin]
        taken = [self._stand_in(TensorType(n.dtype, n.shape[1:])) for n in operands]
        self.trace.steps += 1
        position = self._stand_in(TensorType(i64, ()))
        self.trace.positions.append(position)  # random numbers differ by it
        try:
            returned = step(carry_nest.build(map(Tensor, inside)), x_nest.build(map(Tensor, taken[: len(arrays)])))
        finally:
            self.trace.positions.pop()
        if not isinstance(returned, tuple) or len(returned) != 2:
            what = f"{len(returned)} values" if isinstance(returned, tuple) else type(returned).__name__
            raise TraceError(f"scan: the step returns {what}, not two", how="return carry, y; y may be None")
        new_nest, new = flatten(returned[0])
        y_nest, given = flatten(returned[1])
        if new_nest != carry_nest:
            raise TraceError(
                f"scan: the carry begins as {carry_nest} and the step makes it {new_nest}",
                how="return a carry of the structure of init",
            )
        named = zip(carry_nest.names("carry"), begin, _known([lift(n) for n in new]), strict=True)
        results = [self._same(name, old, node) for name, old, node in named]
        ys = _known([lift(y) for y in given])
        if lengths is not None:
            results = [self._held(taken[-1], n, o, "carry") for n, o in zip(results, inside, strict=True)]
            ys = [self._held(taken[-1], y, None, "y") for y in ys]
        if position in postorder([*results, *ys]):
            operands.insert(0, self._noted(build.make("arange", start=size(0), step=size(1), shape=(steps,))))
            taken.insert(0, position)
        self.trace.guards += self.fit.guards
        ends, stacks = self._results(self._loop(begin, operands, inside, taken, [*results, *ys], steps))
        return carry_nest.build(map(Tensor, ends)), y_nest.build(iter([self._moved(Tensor(s)) for s in stacks]))

    # -- what goes in -------------------------------------------------------------------------------------------
    def _arrays(self, nest: Nest, arrays: list[Node], length: SizeLike | None) -> tuple[Size, list[Node]]:
        """(the number of steps, the arrays with the axis of the steps first)"""
        steps = None if length is None else size(length)
        first = "the length given"
        moved = []
        for name, array in zip(nest.names("xs"), arrays, strict=True):
            rank = array.type.rank
            if not -rank <= self.axis < rank:
                raise TraceError(f"scan: axis {self.axis} is out of range for {name}, {array.type}, of {rank} axes")
            axis = self.axis % rank
            extent = array.shape[axis]
            if steps is None:
                steps, first = extent, name
            steps = self.fit.same(
                steps,
                extent,
                f"scan: {first} has the length {steps} along axis {self.axis}, {name} {extent}",
                how="all arrays that a scan runs over have one length",
            )
            moved.append((array, axis))
        if steps is None:
            raise TraceError("scan: there is nothing to run over", how="pass xs, or length=")
        empty = "scan: the sequence is empty: it has no first step"
        self.fit.at_least(steps, 1, empty, how="a sequence has a length of at least 1")
        result = []
        for array, axis in moved:
            order = [axis, *(d for d in range(array.type.rank) if d != axis)]
            value = self._noted(build.transpose(array, order))
            result.append(self._noted(build.broadcast_to(value, (steps, *value.shape[1:]))))
        return steps, result

    def _stand_in(self, type: TensorType) -> Node:
        """What a step computes with in place of a carry or an element; no two are the same."""
        self.trace.steps += 1
        return Node("input", (), type, name=f"step:{self.trace.steps}")

    # -- what comes out -----------------------------------------------------------------------------------------
    def _same(self, name: str, old: Node, new: Node) -> Node:
        """The new carry, of the old one's type."""
        message = f"scan: {name} changes from step to step: it begins as {old.type}, the step makes it {new.type}"
        how = "a carry keeps its shape and element type"
        if old.dtype is not new.dtype or old.type.rank != new.type.rank:
            raise TraceError(message, how=how)
        sizes = list(zip(old.shape, new.shape, strict=True))
        for a, b in sizes:
            if a == 1 and b != 1:  # a literal 1 stretches: that a call may give b the value 1 is not what was meant
                shape = TensorType(new.dtype, tuple(b if a == 1 else a for a, b in sizes))
                raise TraceError(message, how=f"{how}: let it begin as {shape}, by gc.broadcast_to")
            if b == 1 and a != 1:
                raise TraceError(message, how=f"{how}: let the step make it {old.type}, by gc.broadcast_to")
            self.fit.same(a, b, message, how=how)
        return self._noted(build.broadcast_to(new, old.shape))

    def _held(self, active: Node, new: Node, old: Node | None, what: str) -> Node:
        """The value of a sequence's own steps; beyond them what was before, or zero."""
        (batch,) = active.shape
        how = "with lengths= the first axis of every carry and y is that of the batch"
        if not new.shape:
            raise TraceError(f"scan: a {what} is a single number, not one for each of {batch} sequences", how=how)
        message = f"scan: the first axis of a {what}, {new.type}, is not that of the {batch} lengths"
        self.fit.same(batch, new.shape[0], message, how=how)
        condition = Tensor(self._noted(build.reshape(active, (batch, *(size(1) for _ in new.shape[1:])))))
        other: Value = Tensor(old) if old is not None else Tensor(build.full(0, new.shape, new.dtype))
        (held,) = _known([where(condition, Tensor(new), other)])
        return held

    def _loop(
        self,
        begin: list[Node],
        arrays: list[Node],
        inside: list[Node],
        taken: list[Node],
        results: list[Node],
        steps: Size,
    ) -> Scan:
        """The loop: what the step reads from outside becomes an operand."""
        captured = captures(results, {*inside, *taken})
        body = make_body(inside, taken, captured, results, self.trace.tables)
        return Scan(body, steps, tuple(begin), tuple(arrays), tuple(captured), self.reverse)

    def _results(self, loop: Scan) -> tuple[list[Node], list[Node]]:
        """(the last carries, the stacks of what the steps give)"""
        n, steps = len(loop.init), self._segment(loop)
        if steps is not None:
            last, stacks = segmented(loop, steps, self.trace.tables)
        else:
            last = [loop.last(k) for k in range(n)]
            stacks = [loop.stacked(j) for j in range(len(loop.body.gives))]
        for node in postorder([*last, *stacks], {*loop.operands}):
            self._noted(node)
        return last, stacks

    def _segment(self, loop: Scan) -> Size | None:
        """The steps of a segment, where the loop is cut."""
        if self.checkpoint is None or (self.checkpoint == "auto" and kept_bytes(loop) <= MOST_BYTES):
            return None
        if isinstance(self.checkpoint, str):
            return isqrt(loop.length)
        self.fit.at_least(
            loop.length,
            self.checkpoint,
            f"scan: segments of {self.checkpoint} steps are longer than the sequence, of {loop.length}",
        )
        self.trace.guards += self.fit.guards
        return size(self.checkpoint)

    def _moved(self, stack: Tensor) -> Tensor:
        """A stack of ys with the axis of the steps where that of the xs is."""
        rank = stack.ndim
        if not -rank <= self.axis < rank:
            raise TraceError(f"scan: axis {self.axis} is out of range for what the steps give, {stack.node.type}")
        order = list(range(1, rank))
        order.insert(self.axis % rank, 0)
        return Tensor(self._noted(build.transpose(stack.node, order)))

    def _noted(self, node: Node) -> Node:
        if node not in self.trace.tables.origins:
            self.trace.note(node, self.source)
        return node


def captures(
    results: Sequence[Node], own: set[Node], is_cheap: Callable[[Node], bool] = lambda node: False
) -> list[Node]:
    """The values that a step reads from outside, in order: what depends on nothing that changes from step to step.

    A value whose gradient the step takes is captured as it is, and what is computed from it belongs to the step; so does
    what is cheap, which is done again in each.
    """
    order = postorder(results)
    targets = {n.operands[1] for n in order if n.op == "grad"}
    inside: set[Node] = set()
    for node in order:
        if any(o in own or o in inside or o in targets for o in node.operands):
            inside.add(node)
    found: dict[Node, None] = {}
    seen: set[Node] = set()
    stack = list(reversed(results))
    while stack:
        node = stack.pop()
        if node in seen or node in own:
            continue
        seen.add(node)
        if node in inside or (node not in targets and is_cheap(node)):
            stack.extend(reversed(node.operands))
        else:
            found[node] = None
    return list(found)
