"""Grouping: which statements become one kernel, and the order of kernels, matrix products and checks.

A kernel has one main loop, which can then be divided among threads. A statement joins a kernel where it shares that loop;
what needs a total of the loop comes in a later kernel, for a call costs no more than a few additions.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..graph.formula import identity
from ..graph.node import Node
from ..graph.size import Size, product
from .cluster import Builder
from .describe import describe
from .order import kept_axes, loop_order
from .products import Product, as_product
from .statements import Check, Statement, Statements


@dataclass(frozen=True)
class Repetition:
    """A loop, to be scheduled by itself."""

    node: Node


Group = Builder | Product | Check | Repetition

SMALL = 4096
"""Elements of a box that no machine would divide: statements of fixed sizes up to this share a kernel even if they share
no loop."""


def grouped(statements: Statements, names: dict[Node, str]) -> list[Group]:
    """Kernels, products and checks in an order that respects what each reads."""
    return _Grouping(statements, names).groups


class _Grouping:
    def __init__(self, statements: Statements, names: dict[Node, str]):
        self.statements, self.names = statements, names
        self.graph = graph = statements.graph
        self.groups: list[Group] = []
        self.made: dict[Node, int] = {}  # node → the last group that computes it
        self.touched: dict[Node, dict[int, None]] = {}  # array → the groups that read or write it
        self.checked: dict[tuple[Node, Size], int] = {}
        self.check_of: dict[Node, int] = {}  # node with look-ups → its check
        for node in graph.nodes:  # what the caller passed is checked before anything runs
            for check in statements.checks(node):
                if statements.source(check.indices).op in ("input", "const"):
                    self.check(check)
        for node in graph.nodes:
            self.node(node)

    def check(self, check: Check) -> int:
        """The group that checks indices, made where there is none yet."""
        key = (self.statements.source(check.indices), check.limit)
        if key not in self.checked:
            self.checked[key] = len(self.groups)
            self.groups.append(check)
        return self.checked[key]

    def node(self, node: Node) -> None:
        """Put a node's statements into groups."""
        statements, check_of = self.statements, self.check_of
        for check in statements.checks(node):
            check_of[node] = max(check_of.get(node, 0), self.check(check))
        # a look-up inside a value that is computed where it is read is checked before the reader
        for operand in node.operands:
            if operand in check_of and (not statements.is_stored(operand)):
                check_of[node] = max(check_of.get(node, 0), check_of[operand])
        if node.op == "scan":
            self.made[node] = len(self.groups)
            self.groups.append(Repetition(node))
        if node.op == "item":
            self.made[node] = self.made[node.operands[0]]
        if node.op in ("scan", "item"):
            return
        earliest = check_of[node] + 1 if node in check_of else 0
        if not statements.is_stored(node) or node.op in ("input", "param", "state", "const"):
            return
        found = statements.of(node)
        multiplied = as_product(found[0]) if len(found) == 1 else None
        for access in (a for s in found for a in s.accesses):
            if access.array in self.made:
                earliest = max(earliest, self.made[access.array])
        if multiplied is not None:
            self.made[node] = len(self.groups)
            self.groups.append(multiplied)
            return
        parts = [replace(s, part=True) for s in found] if _are_parts(found) else []
        if len(found) == 1 and found[0].plain:
            self.place(found[0], *self.joined(found[0], earliest))
        elif parts and self.joined(parts[0], earliest)[0] is not None:
            for part in parts:
                beside = self.groups[self.made[node]] if node in self.made else None
                if isinstance(beside, Builder) and beside.has_room(part) and beside.depth(part) == len(part.box):
                    self.place(part, beside, f"joined: another piece of {self.names[node]}, in the same iteration")
                else:
                    self.place(part, *self.joined(part, earliest))
        elif all(is_small(s) for s in found) and (found[0].init is None or is_small(_filling(found[0]))):
            self.together(found)
        else:  # each piece has a loop of its own
            pieces = [replace(s, init=None) for s in found]
            name = self.names[node]
            if found[0].init is not None:
                self.place(
                    _filling(found[0]), None, f"own kernel: what {name} begins with, before others are stored there"
                )
            for piece in pieces:
                self.place(
                    piece,
                    None,
                    f"own kernel: the pieces of {name} share no loop" if len(pieces) > 1 else "own kernel: it scatters",
                )

    def joined(self, statement: Statement, earliest: int) -> tuple[Builder | None, str]:
        """The kernel that a statement should join, of those that touch what it reads, None for one of its own; and why."""
        arrays = {a.array for a in statement.accesses}
        near = sorted({g for array in arrays for g in self.touched.get(array, ()) if g >= earliest})
        wanted = len(loop_order(statement))
        best: tuple[tuple[int, int, int], Builder] | None = None
        multiplied = [
            self.names[a] for a in arrays if a in self.made and isinstance(self.groups[self.made[a]], Product)
        ]
        why = "nothing that it reads is made or read by a kernel that it could join"
        if multiplied:
            why = f"{_list(sorted(multiplied))} comes from a matrix product"
        for index in near:
            builder = self.groups[index]
            if not isinstance(builder, Builder):
                continue
            if not builder.has_room(statement):
                why = "the kernel it could join has as many arrays as a call passes"
                continue
            depth = builder.depth(statement)
            alike = depth > 0 or not builder.loops and wanted == 0 or builder.small and is_small(statement)
            producer = bool(arrays & builder.placed.keys())
            worth = depth == wanted if not producer else depth > 0 or wanted == 0
            if depth >= 0 and alike and worth:
                key = (int(producer), depth, index)
                best = (key, builder) if best is None or key > best[0] else best
            else:
                waits = [self.names[n] for n in builder.waits_for(statement)]
                what = self.read(arrays & (builder.placed.keys() if producer else builder.arrays.keys()))
                why = (
                    f"{_list(waits)} is complete only after the loop"
                    if waits
                    else f"it goes through {what} in other loops"
                )
        if best is None:
            return None, f"own kernel: {why}"
        (_, depth, _), builder = best
        producer = bool(arrays & builder.placed.keys())
        what = self.read(arrays & (builder.placed.keys() if producer else builder.arrays.keys()))
        where = "in the same iteration" if depth else "beside it"
        return builder, f"joined: reads {what} {where}" + ("" if producer else ", as the kernel does")

    def read(self, arrays: set[Node]) -> str:
        """The names of arrays, in the order of the graph."""
        return _list([self.names[n] for n in self.names if n in arrays])

    def place(self, statement: Statement, builder: Builder | None, reason: str) -> None:
        """Add a statement to a kernel, a new one if None."""
        if builder is None:
            builder = Builder(len(self.groups), frozenset(self.statements.root_sources))
            self.groups.append(builder)
        builder.add(statement, describe(statement, self.names, self.graph), reason)
        builder.small = builder.small and is_small(statement)
        self.made[statement.node] = builder.number
        for array in [statement.node, *(a.array for a in statement.accesses)]:
            self.touched.setdefault(array, {})[builder.number] = None

    def together(self, found: list[Statement]) -> None:
        """The small pieces of one array in as few kernels as have room for them."""
        builder: Builder | None = None
        for k, statement in enumerate(found):
            if builder is not None and not builder.has_room(statement):
                builder = None
            reason = (
                f"joined: another piece of {self.names[statement.node]}"
                if builder
                else "own kernel: several pieces, all small"
            )
            self.place(replace(statement, init=None) if k else statement, builder, reason)
            last = self.groups[self.made[statement.node]]
            assert isinstance(last, Builder)
            builder = last


def _list(names: list[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def is_small(statement: Statement) -> bool:
    """Is its box of a fixed size that is not worth dividing?"""
    elements = product(statement.box).constant
    return elements is not None and elements <= SMALL


def _are_parts(found: list[Statement]) -> bool:
    """Do several statements write an array, each cells of its own, as a concatenation does?"""
    once = all(s.reduce == "assign" and not s.write_lookups and len(kept_axes(s)) == len(s.box) for s in found)
    return once and len(found) > 1 and found[0].init is None


def _filling(statement: Statement) -> Statement:
    """What the cells of an array begin with, as a statement of its own."""
    node = statement.node
    assert statement.init is not None
    return Statement(node, node.shape, statement.init, identity(node.type.rank), "assign", None, True)
