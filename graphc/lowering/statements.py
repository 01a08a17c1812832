"""From nodes to statements: each node that is stored becomes a statement over the arrays that it really reads.

Movements (transposes, slices, broadcasts, look-ups) and elementwise values with one reader are written into their
reader: its access maps are composed with theirs. A reshape is another view of the same array.
"""

from __future__ import annotations

from collections.abc import Callable, MutableMapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

from ..graph import scalar as sc
from ..graph.dtype import i64
from ..graph.formula import AccessMap, Affine, Formula, Lookup, affine, drop_units, identity, is_plain
from ..graph.graph import Graph
from ..graph.node import Node
from ..graph.scalar import Scalar
from ..graph.size import Size, size
from ..ops.leaves import LEAVES
from ..ops.table import row_of
from .cells import at_least
from .loops import rows_of

# values so cheap that computing them again beats storing them
CHEAP = (
    "less",
    "less_equal",
    "greater",
    "greater_equal",
    "equal",
    "not_equal",
    "logical_and",
    "logical_or",
    "logical_not",
    "neg",
    "cast",
)

LONGEST_CHAIN = 40  # values written into one another; then one is kept in a register, or in memory


@dataclass(frozen=True)
class Access:
    """An element of a stored value: `array` is the node whose memory it is, `view` the shape it is seen in.

    Look-ups of the map are the arguments of the `access` expression, in order; here they stand as None.
    """

    array: Node
    view: tuple[Size, ...]
    map: tuple[Affine | None, ...]


@dataclass(frozen=True)
class Statement:
    """out[write] ⊕= body for a box; reads are `access` leaves of the body. `write_lookups` are the values of the
    look-ups in `write`, in order."""

    node: Node
    box: tuple[Size, ...]
    body: Scalar
    write: AccessMap
    reduce: str
    init: Scalar | None
    plain: bool
    write_lookups: tuple[Scalar, ...] = ()
    part: bool = False  # one of several that write an array, each cells of its own

    @cached_property
    def accesses(self) -> list[Access]:
        """Every stored element that the statement reads, each once."""
        return list(dict.fromkeys(e.value for e in sc.distinct([self.body, *self.write_lookups]) if e.op == "access"))


@dataclass(frozen=True)
class Check:
    """Every element of an integer array must be an index into an axis of this length."""

    indices: Node
    limit: Size
    node: Node


class Statements:
    """Which nodes of a graph are stored, and the statements that compute them."""

    def __init__(self, graph: Graph):
        self.graph = graph
        self.made: dict[Node, list[Statement]] = {}
        self.roots = set(graph.roots)
        self.root_sources = {self.source(r) for r in graph.roots}
        self.formulas: MutableMapping[Node, Formula | None] = {n: row_of(n.op).formula(n) for n in graph.nodes}
        self.users: dict[Node, list[Node]] = {n: [] for n in graph.nodes}
        for node in graph.nodes:
            for operand in node.operands:
                self.users[operand].append(node)
        self.whole: set[Node] = set()  # read as whole arrays, by matrix products or a look-up
        for node in graph.nodes:
            if node.op == "scan":
                self.whole |= {rows_of(o)[0] for o in node.operands}
            formula = self.formulas[node]
            for k, _ in formula.checks if formula else ():
                self.whole.add(self.source(node.operands[k]))
            for clause in formula.clauses if formula else ():
                for index in [i for r in clause.reads for i in r.map] + list(clause.write):
                    if isinstance(index, Lookup):
                        self.whole.add(self.source(node.operands[index.operand]))
        self.stored: MutableMapping[Node, bool] = {}
        chain: dict[Node, int] = {}  # how many values are written into one another
        for node in graph.nodes:
            inner = 1 + max((chain[o] for o in node.operands if not self.is_stored(o)), default=0)
            if inner > LONGEST_CHAIN and not self.is_view(node) and self.formulas[node] is not None:
                self.stored[node] = True
            chain[node] = inner

    # -- what is stored -----------------------------------------------------------------------------------------
    def source(self, node: Node) -> Node:
        """The node whose memory a view of it is."""
        while self.is_view(node):
            (node,) = node.operands
        return node

    def is_view(self, node: Node) -> bool:
        """A reshape is a view; one that only adds or drops axes of length 1 may also be composed."""
        return node.op == "reshape"

    def is_stored(self, node: Node) -> bool:
        """Does the node have an array of its own?"""
        if node not in self.stored:
            self.stored[node] = self._decide(node)
        return self.stored[node]

    def _decide(self, node: Node) -> bool:
        if node.op == "const":
            return bool(node.shape)
        if node.op == "size" or self.is_view(node):
            return False
        if node.op in LEAVES or node in self.whole or self._read_as_view(node):
            return True
        if node in self.root_sources:
            return True
        formula = self.formulas[node]
        if formula is None or not _is_composable(formula, node):
            return True
        (clause,) = formula.clauses
        if clause.body.op in ("arg", "const"):
            return self._blocked(node)
        if not node.shape:  # a number: computed where it is needed
            return False
        if node.op in CHEAP and all(self.is_stored(self.source(o)) or not o.shape for o in node.operands):
            return False
        readers = self._readers(node)
        return len(readers) != 1 or not self._reads_each_once(readers[0], node)

    def _read_as_view(self, node: Node) -> bool:
        """Is it read through a reshape that is no composition, so that it must lie in memory?"""
        return any(
            u.op == "reshape" and (self.formulas[u] is None or self._read_as_view(u) or u in self.whole)
            for u in self.users[node]
        )

    def _blocked(self, node: Node) -> bool:
        """A look-up is stored where a contraction reads it: matrix products need evenly spaced elements."""
        mine = self.formulas[node]
        assert mine is not None
        looks_up = any(isinstance(i, Lookup) for r in mine.clauses[0].reads for i in r.map)
        return looks_up and any(u.op == "einsum" for u in self._readers(node))

    def _readers(self, node: Node) -> list[Node]:
        """The nodes that compute with a value, seen through movements."""
        found: list[Node] = []
        for user in self.users[node]:
            formula = self.formulas[user]
            movement = formula is not None and _is_composable(formula, user) and formula.clauses[0].body.op == "arg"
            if movement and user not in self.roots and user not in self.whole:
                found += self._readers(user)
            else:
                found.append(user)
        return found

    def _reads_each_once(self, reader: Node, node: Node) -> bool:
        """Does the reader use each element at most once, one by one or in a reduction?"""
        formula = self.formulas[reader]
        if formula is None or len(formula.clauses) != 1:
            return False
        (clause,) = formula.clauses
        elements = size(1)
        for extent in clause.box:
            elements = elements * extent
        product = formula.reduce == "sum" and len(clause.reads) > 1
        return not product and at_least(node.type.numel, elements) and formula.reduce != "argmax"

    # -- statements ---------------------------------------------------------------------------------------------
    def of(self, node: Node) -> list[Statement]:
        """The statements of a stored node, one a clause."""
        if node not in self.made:
            self.made[node] = self._made(node)
        return self.made[node]

    def _made(self, node: Node) -> list[Statement]:
        formula = self.formulas[node]
        assert formula is not None
        result = []
        for clause in formula.clauses:
            clause = drop_units(clause)
            reads = [self.read(node.operands[r.operand], self.resolve(r.map, node)) for r in clause.reads]
            body = _inlined(clause.body, partial(_read_at, reads))
            lookups = tuple(self.lookup(i, node) for i in clause.write if isinstance(i, Lookup))
            plain = len(formula.clauses) == 1 and is_plain(clause, node.shape) and not clause.guards
            result.append(Statement(node, clause.box, body, clause.write, formula.reduce, formula.init, plain, lookups))
        return result

    def lookup(self, index: Lookup, node: Node) -> Scalar:
        """The value of a look-up as an expression."""
        value = self.read(node.operands[index.operand], index.map)
        return value if value.dtype is i64 else Scalar("cast", (value,), i64)

    def resolve(self, access: AccessMap, node: Node) -> tuple[Affine | Scalar, ...]:
        """A map with its look-ups as expressions."""
        return tuple(self.lookup(i, node) if isinstance(i, Lookup) else i for i in access)

    def read(self, node: Node, access: Sequence[Affine | Scalar]) -> Scalar:
        """The element of a node at a map, as an expression over stored arrays."""
        if node.op == "const" and not node.shape:
            return sc.const(node.attr("value").array.item(), node.dtype)
        if node.op == "size":
            return Scalar("size", (), node.dtype, node.attr("value"))
        formula = self.formulas[node]
        if self.is_stored(node) or self.is_view(node) and formula is None:
            root = self.source(node)
            lookups = tuple(i for i in access if isinstance(i, Scalar))
            known = tuple(None if isinstance(i, Scalar) else i for i in access)
            return Scalar("access", lookups, node.dtype, Access(root, node.shape, known))
        assert formula is not None
        (clause,) = formula.clauses
        # the map gives each variable of the clause, whose write is the identity
        values = dict(enumerate(access))
        reads = []
        for r in clause.reads:
            inner: list[Affine | Scalar] = []
            for index in r.map:
                if isinstance(index, Lookup):
                    found = self.read(node.operands[index.operand], [_compose(m, values) for m in index.map])
                    inner.append(found if found.dtype is i64 else Scalar("cast", (found,), i64))
                else:
                    inner.append(_compose(index, values))
            reads.append(self.read(node.operands[r.operand], inner))

        def leaf(e: Scalar) -> Scalar | None:
            if e.op == "arg":
                return reads[e.value]
            if e.op == "index":
                composed = _compose(e.value, values)
                return composed if isinstance(composed, Scalar) else Scalar("index", (), e.dtype, composed)
            return None

        return _inlined(clause.body, leaf)

    def checks(self, node: Node) -> list[Check]:
        """The look-ups that a node itself makes: (integer array, length of the axis that it indexes)."""
        formula = self.formulas[node]
        indices = formula.indices([o.shape for o in node.operands], node.shape) if formula else []
        return [Check(node.operands[k], length, node) for k, length in indices]


def _read_at(reads: Sequence[Scalar], e: Scalar) -> Scalar | None:
    return reads[e.value] if e.op == "arg" else None


def _inlined(body: Scalar, leaf: Callable[[Scalar], Scalar | None]) -> Scalar:
    """A clause's body over other expressions. Where two negations come together neither is left: no rule of graphs sees
    those that a look-up, whose indices must be checked, stood between."""

    def visit(e: Scalar, args: tuple[Scalar, ...]) -> Scalar:
        if e.op in sc.LEAVES:
            return leaf(e) or e
        if e.op == "neg" and args[0].op == "neg":
            return args[0].args[0]
        return Scalar(e.op, args, e.dtype, e.value)

    return sc.fold(body, visit)


def _compose(index: Affine, values: dict[int, Affine | Scalar]) -> Affine | Scalar:
    """An affine form with its variables replaced; where one becomes a look-up's value, the form is an expression."""
    looked_up = {a: v for a in index.axes if isinstance(v := values[a], Scalar)}
    if not looked_up:
        return index.substitute(values)  # type: ignore[arg-type]
    if index.variable is not None:
        return looked_up[index.variable]
    rest = affine(index.constant, {a: c for a, c in index.terms if a not in looked_up})
    total = Scalar("index", (), i64, rest.substitute(values))  # type: ignore[arg-type]
    for axis, value in looked_up.items():
        step = Scalar("size", (), i64, index.coefficient(axis))
        total = Scalar("add", (total, Scalar("mul", (value, step), i64)), i64)
    return total


def moved(body: Scalar, values: dict[int, Affine | Scalar]) -> Scalar:
    """A statement's body where its loop variables have other values: affine forms, or look-ups."""

    def visit(e: Scalar, args: tuple[Scalar, ...]) -> Scalar:
        if e.op == "index":
            index = _compose(e.value, values)
            return index if isinstance(index, Scalar) else Scalar("index", (), e.dtype, index)
        if e.op != "access":
            return Scalar(e.op, args, e.dtype, e.value)
        access: Access = e.value
        lookups = iter(args)
        found = [next(lookups) if i is None else _compose(i, values) for i in access.map]
        known = tuple(None if isinstance(i, Scalar) else i for i in found)
        inner = tuple(i for i in found if isinstance(i, Scalar))
        return Scalar("access", inner, e.dtype, Access(access.array, access.view, known))

    result: Scalar = sc.fold(body, visit)
    return result


def _is_composable(formula: Formula, node: Node) -> bool:
    """Can a reader compute the value itself? One clause, no reduction, every cell written once."""
    if len(formula.clauses) != 1 or formula.reduce != "assign" or formula.init is not None:
        return False
    (clause,) = formula.clauses
    return not clause.guards and clause.write == identity(node.type.rank)
