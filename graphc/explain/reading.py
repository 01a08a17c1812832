"""The traced graph as numbered equations, and each value's element in index form."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import isfinite
from typing import Any

from ..errors import DerivativeError
from ..graph import scalar as sc
from ..graph.formula import Affine, Clause, Formula, Index
from ..graph.graph import Graph
from ..graph.node import Node
from ..graph.scalar import Scalar
from ..graph.size import Size, product, size
from ..ops.build import const_value, is_elementwise
from ..ops.leaves import LEAVES
from ..ops.table import row_of
from .expression import (
    ZERO,
    Apply,
    Bracket,
    Cases,
    Expr,
    Extent,
    Num,
    Ref,
    Symbol,
    Var,
    add,
    apply,
    extent,
    flat_position,
    mul,
    neg,
    number,
    total,
)
from .loops import Path
from .solve import collect, solve, summed

Part = tuple[Node, Callable[[Sequence[Expr]], tuple[Expr, ...]]]
_NONE: Mapping[Node, Any] = {}
LAST = "last"
VIEWS = ("reshape", "transpose", "broadcast_to", "cast", "watched")
FIRST = {"max": "argmax", "min": "argmin"}


@dataclass(frozen=True)
class Equation:
    """symbol[indices] = value, for one node. place: the indices on the left, where they are not plain: h[t+1, i]."""

    node: Node
    symbol: Symbol
    indices: tuple[Var, ...]
    value: Expr
    place: tuple[Expr, ...] | None = None

    @property
    def left(self) -> Ref:
        return Ref(self.symbol, self.indices if self.place is None else self.place)


def fresh(shape: Sequence[Size]) -> tuple[Var, ...]:
    return tuple(Var(e) for e in shape)


# -- which values have a symbol --------------------------------------------------------------------------------------
def flowing(graph: Graph, wrt: set[Node], paths: Mapping[Node, Path] = _NONE) -> set[Node]:
    """The values that depend on a parameter so that a gradient flows through them."""
    known: set[Node] = set()
    while True:  # what a step computes depends on what the steps before it computed
        found: set[Node] = set()
        for node in graph.nodes:
            through = any(o in found and o.dtype.is_float for o in node.operands)
            if node in paths:
                through = through or paths[node].new in known
            elif node.op != LAST:
                through = through and row_of(node.op).differentiable
            if node.dtype.is_float and (node in wrt or through):
                found.add(node)
        if found == known:
            return found
        known = found


def stepped(
    graph: Graph,
    flow: set[Node],
    named: Mapping[Node, str],
    parts: Container[Node] = frozenset(),
    made: Container[Node] = frozenset(),
) -> list[Node]:
    """The values that get a symbol: leaves, and all that is not written into its reader's equation. parts: elements of
    paths of loops, which have the symbol of their path; made: what is computed at every step."""
    outputs = set(graph.outputs.values())
    bases = {n.operands[0] for n in graph.nodes if n.op == "reshape" and not _is_view(n)}
    plain: set[Node] = set()  # numbers, and short arithmetic of leaves that no gradient flows through
    kept = []
    for node in graph.nodes:
        if node in parts:
            continue
        if node.op in ("const", "size") and not node.shape:
            plain.add(node)
        elif node.op in LEAVES or node in outputs or node in bases:
            kept.append(node)
        elif node.operands and all(o in plain for o in node.operands) and (is_elementwise(node) or node.op in VIEWS):
            plain.add(node)
        elif not _is_written_in(graph, node, flow, named) and not (node in made and _is_term(graph, node, named)):
            kept.append(node)
    return kept


def _is_written_in(graph: Graph, node: Node, flow: set[Node], named: Mapping[Node, str]) -> bool:
    if _is_view(node):
        return True
    if is_elementwise(node) and node.dtype.kind == "b":
        return True
    if _is_same(node):
        return True
    if node in named:
        return False
    users = graph.users(node)
    if len(users) == 1 and node.op == "einsum" and users[0].op == "add":  # x W + b is one equation
        return any(_base(o).op == "param" for o in users[0].operands if o is not node)
    if len(users) == 1 and node.op == "sum" and users[0].op == "div":  # and so is a mean
        return users[0].operands[0] is node and users[0].operands[1].op in ("const", "size")
    return node not in flow and is_elementwise(node) and all(_base(o).op in LEAVES for o in node.operands)


def _is_term(graph: Graph, node: Node, named: Container[Node]) -> bool:
    """Is it a term without a name of one sum, as x W in x W + h U + b?"""
    users = graph.users(node)
    return node.op in ("einsum", "add") and node not in named and len(users) == 1 and users[0].op == "add"


def _is_same(node: Node) -> bool:
    """Is it another value times 1?"""
    return node.op == "mul" and any(const_value(o) == 1 for o in node.operands)


def _is_view(node: Node) -> bool:
    """Is it the elements of another value at other places, by a formula?"""
    if node.op == "cast":
        return node.dtype.is_float
    return node.op in VIEWS and row_of(node.op).formula(node) is not None


def _base(node: Node) -> Node:
    while node.op in VIEWS:
        (node,) = node.operands
    return node


# -- elements --------------------------------------------------------------------------------------------------------
class Reading:
    """Elements of values as expressions over the symbols of a graph."""

    def __init__(self, symbols: Mapping[Node, Symbol], parts: Mapping[Node, Part] = _NONE):
        self.symbols, self.parts = symbols, parts

    def step(self, path: Path) -> Equation:
        """What a step makes of a carry: path[t+1] = …"""
        indices = fresh(path.new.shape)
        if path.new in self.parts and self.parts[path.new][0] is path.node:
            value = self.definition(path.new, indices)
        else:
            value = self.element(path.new, indices)
        return Equation(path.new, self.symbols[path.node], indices, value, (path.after(indices[0]), *indices[1:]))

    def begin(self, path: Path) -> Equation:
        """path[0] = init"""
        indices = fresh(path.init.shape)
        value = self.element(path.init, indices)
        return Equation(path.node, self.symbols[path.node], indices, value, (path.first, *indices))

    def equation(self, node: Node) -> Equation:
        indices = fresh(node.shape)
        return Equation(node, self.symbols[node], indices, self.definition(node, indices))

    def element(self, node: Node, at: Sequence[Expr]) -> Expr:
        """One element: by its symbol, or as what it is computed from."""
        if node in self.parts:
            path, place = self.parts[node]
            return Ref(self.symbols[path], place(at))
        if node in self.symbols:
            return Ref(self.symbols[node], tuple(at))
        if node.op == "const":
            return constant(node)
        if node.op == "size":
            return extent(node.attr("value"))
        return self.definition(node, at)

    def definition(self, node: Node, at: Sequence[Expr]) -> Expr:
        """One element as what the node computes it from."""
        formula = row_of(node.op).formula(node)
        if formula is None and node.op == "reshape":
            return self.element(node.operands[0], reshaped(at, node.shape, node.operands[0].shape))
        if formula is None or formula.init is not None and formula.reduce == "assign" and len(formula.clauses) > 1:
            raise DerivativeError(f"{node.op} has no index form, so there is no derivation through it")
        return value_of(formula, lambda k, indices: self.element(node.operands[k], indices), at)


def constant(node: Node) -> Num:
    """A number as it was written: 0.1, not the nearest binary fraction."""
    value = node.attr("value").array[()]
    if node.dtype.kind == "b":
        return number(bool(value))
    return Num(Fraction(str(value))) if isfinite(value) else Num(float(value))


def value_of(formula: Formula, read: Callable[[int, Sequence[Expr]], Expr], at: Sequence[Expr]) -> Expr:
    """What a formula writes at an index."""
    parts: list[tuple[Expr, list[Expr]]] = []
    for clause in formula.clauses:
        box = fresh(clause.box)
        body, write, guards = clause_parts(clause, box, read)
        if formula.reduce in ("assign", "sum") and len(formula.clauses) == 1:
            return collect(box, list(zip(write, at, strict=True)), mul(body, *map(Bracket, guards)))
        values, conditions = solve(box, list(zip(write, at, strict=True)))
        left = [v for v in box if v not in values]
        whole = clause_parts(clause, [values.get(v, v) for v in box], read)[0]
        if formula.reduce in ("assign", "sum"):
            parts.append((summed(left, whole), conditions))
        else:
            return total(formula.reduce, left, whole)
    if formula.reduce == "sum":
        return add(*(mul(value, *map(Bracket, conditions)) for value, conditions in parts))
    # one after another: the first that holds, so each needs only its end, and the last nothing
    branches = tuple((value, _end(conditions[0])) for value, conditions in parts[:-1] if conditions)
    return Cases(branches, parts[-1][0]) if branches else parts[-1][0]


def _end(condition: Expr) -> Expr:
    """`i < 5` for 0 ≤ i − 2 < 3, where all below is taken."""
    match condition:
        case Apply("within", (value, length)):
            terms = value.args if isinstance(value, Apply) and value.op == "add" else (value,)
            index = [t for t in terms if isinstance(t, Var)]
            if len(index) == 1:
                rest = [neg(t) for t in terms if t is not index[0]]
                return Apply("less", (index[0], _size_sum([length, *rest])))
    return condition


def _size_sum(terms: Sequence[Expr]) -> Expr:
    """A sum of sizes as one size."""
    sizes: list[Size] = []
    for t in terms:
        negative = isinstance(t, Apply) and t.op == "neg"
        inner = t.args[0] if isinstance(t, Apply) and negative else t
        if isinstance(inner, Num) and isinstance(inner.value, Fraction):
            plain = size(int(inner.value))
        elif isinstance(inner, Extent):
            plain = inner.size
        else:
            return add(*terms)
        sizes.append(-plain if negative else plain)
    return extent(sum(sizes, size(0)))


def clause_parts(
    clause: Clause, box: Sequence[Expr], read: Callable[[int, Sequence[Expr]], Expr]
) -> tuple[Expr, tuple[Expr, ...], list[Expr]]:
    """(the body, the place that is written, the guards) of a clause at a point of its box."""

    def place(index: Index) -> Expr:
        return (
            affine(index, box)
            if isinstance(index, Affine)
            else read(index.operand, [affine(m, box) for m in index.map])
        )

    reads = [read(r.operand, [place(i) for i in r.map]) for r in clause.reads]
    guards: list[Expr] = [Apply("less_equal", (ZERO, affine(g, box))) for g in clause.guards]
    return scalar(clause.body, reads, box), tuple(map(place, clause.write)), guards


def affine(form: Affine, box: Sequence[Expr]) -> Expr:
    return add(*(mul(extent(c), box[a]) for a, c in form.terms), extent(form.constant))


def scalar(body: Scalar, reads: Sequence[Expr], box: Sequence[Expr]) -> Expr:
    """A scalar expression over what a clause reads."""

    def visit(e: Scalar, args: tuple[Expr, ...]) -> Expr:
        if e.op == "arg":
            return reads[e.value]
        if e.op == "const":
            return Num(Fraction(str(e.value))) if isfinite(e.value) else Num(e.value)
        if e.op == "index":
            return affine(e.value, box)
        if e.op == "size":
            return extent(e.value)
        if e.op == "cast":
            return cast(e, args[0])
        if e.op == "watched":
            return args[0]
        if e.op == "where":
            return Cases(((args[1], args[0]),), args[2])
        return apply(e.op, *args)

    found: Expr = sc.fold(body, visit)
    return found


def cast(e: Scalar, value: Expr) -> Expr:
    """A conversion, which changes nothing but a condition, that becomes 0 or 1, and a fraction, that is cut."""
    (old,) = e.args
    if old.dtype.kind == "b" and e.dtype.kind != "b":
        return Bracket(value)
    if old.dtype.is_float and e.dtype.kind == "i":
        return Apply("trunc", (value,))
    return Apply("not_equal", (value, ZERO)) if e.dtype.kind == "b" and old.dtype.kind != "b" else value


# -- reshapes --------------------------------------------------------------------------------------------------------
def reshaped(at: Sequence[Expr], shape: Sequence[Size], old: Sequence[Size]) -> tuple[Expr, ...]:
    """Where in an array of shape `old` the element at an index of its reshape to `shape` is."""
    result: list[Expr] = []
    new_at = [(i, e) for i, e in zip(at, shape, strict=True)]
    rest = list(old)
    while rest:
        if rest[0] == 1:
            rest.pop(0)
            result.append(ZERO)
            continue
        while new_at and new_at[0][1] == 1:
            new_at.pop(0)
        n, m = _group([e for _, e in new_at], rest)
        position = flat_position([i for i, _ in new_at[:n]], [e for _, e in new_at[:n]])
        for d in range(m):
            stride = product(rest[d + 1 : m])
            here = position if stride == 1 else Apply("floordiv", (position, extent(stride)))
            result.append(here if d == 0 else Apply("mod", (here, extent(rest[d]))))
        new_at, rest = new_at[n:], rest[m:]
    return tuple(result)


def _group(new: Sequence[Size], old: Sequence[Size]) -> tuple[int, int]:
    """The fewest leading axes of both shapes that hold equally many elements."""
    for count in range(2, len(new) + len(old) + 1):
        for n in range(max(1, count - len(old)), min(len(new), count - 1) + 1):
            if product(new[:n]) == product(old[: count - n]):
                return n, count - n
    return len(new), len(old)
