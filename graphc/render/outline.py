"""What of a graph is drawn as a box, and what only as a mark on an edge or a part of another box's formula.

Numbers and sizes belong to the operation that reads them; a reshape, transpose, broadcast or cast is a mark on the
edge; and where a view asks for it, a value with one reader is written into that reader's formula (x W + b is one box).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
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


def affine(user: Node, operand: Node) -> bool:
    """x W + b is one operation."""
    return user.op == "add" and operand.op == "einsum" and any(base(o).op == "param" for o in user.operands)


def condition(user: Node, operand: Node) -> bool:
    """A comparison is written into the choice that it decides."""
    return user.op == "where" and base(user.operands[0]) is operand and operand.op in COMPARISONS


@dataclass
class Outline:
    """The boxes of a graph and how they are joined.

    folds: what to write into its reader's formula; kept: values that stay boxes although a fold would take them.
    """

    graph: Graph
    folds: tuple[Fold, ...] = ()
    kept: Collection[Node] = ()
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
            if len(users) == 1 and node not in roots and node not in self.kept and node not in self.numbers:
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
    """The marks on an edge as text: `as (B, 20)`, `as f32`. Axes of length 1 come and go unsaid.

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
        and _long_axes(operand) != _long_axes(base(operand))
    ):
        texts.append(f"as ({', '.join(map(str, operand.shape))})")
    return texts


def _long_axes(node: Node) -> list[Size]:
    return [e for e in node.shape if e != 1]
