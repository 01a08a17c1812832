"""What of a graph is drawn as a box, and what only as a mark on an edge or a part of another box's formula.

Numbers and sizes belong to the operation that reads them; a reshape, transpose, broadcast or cast is a mark on the
edge; and where a view asks for it, a value with one reader is written into that reader's formula (x W + b is one box).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field

from ..graph.graph import Graph
from ..graph.node import Node
from ..graph.size import Size, product
from ..ops.build import is_elementwise

MARKS = ("reshape", "transpose", "broadcast_to", "cast", "watched", "stacked", "last")
LOOP_RESULTS = {"stacked": "of all steps", "last": "of the last step"}
"""Marks between a loop and what reads it (see `inlined`)."""
LEAVES = ("input", "param", "state")
COMPARISONS = ("less", "less_equal", "greater", "greater_equal", "equal", "not_equal")

Fold = Callable[[Node, Node], bool]
"""Is the second node, whose only reader is the first, written into the formula of the first?"""


def base(node: Node) -> Node:
    """The value behind the marks."""
    while node.op in MARKS:
        (node,) = node.operands
    return node


def marks(node: Node) -> list[Node]:
    """The marks between a value and where it is read, in the order of their application."""
    found = []
    while node.op in MARKS:
        found.append(node)
        (node,) = node.operands
    return found[::-1]


def summed_by_mean(node: Node) -> Node | None:
    """The sum that a division turns into a mean; None where the node is no mean."""
    if node.op != "div":
        return None
    total, count = base(node.operands[0]), node.operands[1]
    if total.op != "sum" or count.op not in ("size", "const") or count.shape:
        return None
    (x,) = total.operands
    number = count.attr("value") if count.op == "size" else count.attr("value").array.item()
    return total if product(x.shape[a] for a in total.attr("axes")) == number else None


def mean(user: Node, operand: Node) -> bool:
    """A mean is one operation, not a sum and a division."""
    return summed_by_mean(user) is operand


def softmax_parts(node: Node) -> tuple[Node, Node] | None:
    """The exponential and its sum, of which a division makes a softmax; None where the node is none."""
    if node.op != "div":
        return None
    above, below = base(node.operands[0]), base(node.operands[1])
    if above.op != "exp" or below.op != "sum" or base(below.operands[0]) is not above:
        return None
    axes = below.attr("axes")
    kept = tuple(1 if d in axes else e for d, e in enumerate(above.shape))
    spread = [m for m in marks(node.operands[1]) if m.op != "broadcast_to"]
    return (above, below) if node.shape == above.shape and [m.shape for m in spread] == [kept] else None


def dropout_parts(node: Node) -> tuple[Node, list[Node]] | None:
    """What a dropout is of, and the values that decide it; None where the node is none."""
    if node.op != "where" or base(node.operands[0]).op != "training":
        return None
    train, dropped, x = map(base, node.operands)
    if dropped.op != "where" or base(dropped.operands[2]).op != "mul" or base(dropped.operands[0]).op != "less":
        return None
    chosen, scaled = base(dropped.operands[0]), base(dropped.operands[2])
    if base(chosen.operands[0]).op != "random" or x not in map(base, scaled.operands):
        return None
    return x, [train, dropped, chosen, scaled]


def shifted_leaf(node: Node) -> tuple[Node, int] | None:
    """The input that a node is one position later, after a number, with the axis; None where it is none.

    It is what a decoder reads that is told the symbol before: `[start; y[:, :−1]]`.
    """
    if node.op != "concat" or len(node.operands) != 2:
        return None
    axis, (first, rest) = node.attr("axis"), node.operands
    if base(first).op != "const" or base(first).shape or first.shape[axis] != 1 or rest.op != "slice":
        return None
    (x,) = rest.operands
    whole = all(rest.shape[d] == x.shape[d] - (1 if d == axis else 0) for d in range(x.type.rank))
    from_begin = all(s == 0 for s in rest.attr("start")) and all(s == 1 for s in rest.attr("step"))
    return (x, axis) if base(x).op in LEAVES and whole and from_begin else None


def written(graph: Graph, named: Collection[Node] = ()) -> set[Node]:
    """The values without a name that all of their readers write into their formulas: positions, arrays of numbers,
    random bits, and the parts of a softmax, a dropout and a shift."""
    found: set[Node] = set()
    for node in graph.nodes:
        if node.op in ("training", "random", "random_bits") or (node.op in ("arange", "const") and node not in named):
            found.add(node)
            found |= {o for o in map(base, node.operands) if node.op == "random_bits" and o.op == "state"}
        parts: Sequence[Node] = softmax_parts(node) or ()
        if (dropout := dropout_parts(node)) is not None:
            parts = dropout[1]
        if shifted_leaf(node) is not None:
            parts = (node.operands[1],)
        found |= {n for n in parts if n not in named or n.op == "training"}
    return found


def affine(user: Node, operand: Node) -> bool:
    """x W + b is one operation."""
    return user.op == "add" and operand.op == "einsum" and any(base(o).op == "param" for o in user.operands)


def condition(user: Node, operand: Node) -> bool:
    """A comparison is written into the choice that it decides."""
    return user.op == "where" and base(user.operands[0]) is operand and operand.op in COMPARISONS


@dataclass
class Outline:
    """The boxes of a graph and how they are joined.

    folds: what to write into its reader's formula; kept: values that stay boxes although a fold would take them;
    written: values that all of their readers write into their formulas.
    """

    graph: Graph
    folds: tuple[Fold, ...] = ()
    kept: Collection[Node] = ()
    written: Collection[Node] = ()
    boxes: list[Node] = field(init=False)
    inside: dict[Node, Node] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        nodes = self.graph.nodes
        self.numbers: set[Node] = set()
        for node in nodes:
            if self._is_number(node):
                self.numbers.add(node)
        readers: dict[Node, dict[Node, None]] = {}
        for node in nodes:
            if node.op not in MARKS and node not in self.numbers:
                for operand in node.operands:
                    readers.setdefault(base(operand), {})[node] = None
        roots = {base(r) for r in self.graph.roots}
        for node in reversed(nodes):  # readers before what they read
            users = list(readers.get(node, ()))
            if node in self.written and users and node not in roots and node not in self.numbers:
                self.inside[node] = node
            elif len(users) == 1 and node not in roots and node not in self.kept and node not in self.numbers:
                (user,) = users
                if any(fold(user, node) for fold in self.folds):
                    self.inside[node] = self.inside.get(user, user)
        self.boxes = [n for n in nodes if n.op not in MARKS and n not in self.numbers and n not in self.inside]
        self.boxes = [i for i in self.graph.inputs if i not in set(self.boxes)] + self.boxes

    def _is_number(self, node: Node) -> bool:
        """Is it computed from numbers and sizes alone, every element the same?"""
        if node.op in ("const", "size"):
            return not node.shape
        computes = node.op in MARKS or is_elementwise(node)
        return computes and bool(node.operands) and all(o in self.numbers for o in node.operands)

    def reads(self, box: Node) -> Iterator[tuple[Node, Node]]:
        """What a box reads: (the value's own box, the operand with its marks), each once."""
        seen: dict[tuple[Node, tuple[str, ...]], None] = {}
        waiting = [box]
        while waiting:
            node = waiting.pop(0)
            for operand in node.operands:
                value = base(operand)
                if operand in self.numbers or value in self.numbers:
                    continue
                if value in self.inside:
                    waiting.append(value)
                elif (key := (value, tuple(mark_texts(operand)))) not in seen:
                    seen[key] = None
                    yield value, operand


def mark_texts(operand: Node, formula: bool = True) -> list[str]:
    """The marks on an edge as text: `as (B, 20)`, `as f32`. Axes of length 1 come and go unsaid (see `unit_shapes`).

    formula: does the reader have a formula, which says `ᵀ` itself?
    """
    texts: list[str] = []
    for mark in marks(operand):
        if mark.op == "transpose":
            perm = mark.attr("perm")
            swapped = perm == (*range(len(perm) - 2), len(perm) - 1, len(perm) - 2)
            if not (swapped and formula):
                texts.append("transposed" if swapped else f"axes {', '.join(map(str, perm))}")
        elif mark.op == "cast":
            texts.append(f"as {mark.dtype.name.rstrip('_')}")
        elif mark.op in LOOP_RESULTS:
            texts.append(LOOP_RESULTS[mark.op])
    kinds = {m.op for m in marks(operand)}
    if (
        kinds & {"reshape", "broadcast_to"}
        and not kinds & {"transpose", "stacked"}
        and long_axes(base(operand).shape) != long_axes(operand.shape)
    ):
        texts.append(f"as ({', '.join(map(str, operand.shape))})")
    return texts


def unit_shapes(operand: Node) -> list[tuple[Size, ...]]:
    """The shapes in which a value is read that has other axes of length 1 there, one after the other: reshaped, then
    broadcast, before any transposition, which a formula tells. None where it is read as it is."""
    value, found = base(operand), list[tuple[Size, ...]]()
    for mark in marks(operand):
        if mark.op in ("transpose", *LOOP_RESULTS):
            break
        if mark.op == "reshape":
            found = [mark.shape]
        elif mark.op == "broadcast_to" and found:
            found.append(mark.shape)
    read = found and found[0] != value.shape and long_axes(found[0]) == long_axes(value.shape)
    return list(dict.fromkeys(found)) if read else []


def long_axes(shape: Sequence[Size]) -> tuple[Size, ...]:
    """A shape without its axes of length 1."""
    return tuple(e for e in shape if e != 1)
