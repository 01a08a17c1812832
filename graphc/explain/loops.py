"""Loops as equations with one index more: the step. What a loop carries is an array of `steps + 1` values, its path.

    path[0] = init;   path[t+1] = what step t makes of path[t]

so that the one rule of derivatives tells backpropagation through time: a state's cotangent is the sum over its readers,
and the next step is one of them. In reverse the path is filled from its end.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from ..errors import DerivativeError
from ..graph.graph import Graph, with_operands
from ..graph.node import Node, TensorType, postorder
from ..graph.size import Size, size
from ..ops.build import make
from ..ops.scan import Scan, item
from ..passes.batch import batch, stack
from .expression import Expr, add, extent, number

PATH = "path"


@dataclass(frozen=True)
class Path:
    """The values of a carry: where it begins, what a step makes of it, for all steps, and which way the steps go."""

    node: Node
    init: Node
    new: Node
    steps: Size
    reverse: bool

    def before(self, t: Expr) -> Expr:
        """Where the value is that step t begins with."""
        return add(t, number(1)) if self.reverse else t

    def after(self, t: Expr) -> Expr:
        return t if self.reverse else add(t, number(1))

    @property
    def first(self) -> Expr:
        return extent(self.steps) if self.reverse else number(0)

    @property
    def last(self) -> Expr:
        return number(0) if self.reverse else extent(self.steps)


@dataclass
class Loops:
    """A graph without loops. paths: by their node; parts: values that are elements of a path, with the place of an element;
    made: what is computed at every step; names: of values of steps."""

    graph: Graph
    paths: dict[Node, Path] = field(default_factory=dict)
    parts: dict[Node, tuple[Node, Callable[[Sequence[Expr]], tuple[Expr, ...]]]] = field(default_factory=dict)
    made: set[Node] = field(default_factory=set)
    names: dict[Node, str] = field(default_factory=dict)

    @property
    def steps(self) -> dict[Node, list[Path]]:
        """What a step makes of carries → the paths that it continues."""
        found: dict[Node, list[Path]] = {}
        for path in self.paths.values():
            found.setdefault(path.new, []).append(path)
        return found


def without_loops(graph: Graph, names: Mapping[Node, str]) -> Loops:
    """The graph with each loop as what it computes at all steps. names: of the graph's values."""
    loops = Loops(graph)
    new: dict[Node, Node] = {}
    for node in graph.nodes:
        if node.op == "scan":
            _loop(node, new, names, loops)
        elif node.op != "item":
            new[node] = with_operands(node, tuple(new[o] for o in node.operands))
        if node in new:
            graph.tables.inherit(new[node], node)
            if node in names:
                loops.names.setdefault(new[node], names[node])
    outputs = {k: new[v] for k, v in graph.outputs.items()}
    needed = set(postorder(outputs.values()))
    while more := [p for p in loops.paths.values() if p.node in needed and p.new not in needed]:
        needed |= set(postorder([p.new for p in more]))
    loops.paths = {n: p for n, p in loops.paths.items() if n in needed}
    loops.graph = replace(graph, outputs=outputs, updates={n: p.new for n, p in loops.paths.items()})
    return loops


def _loop(node: Node, new: dict[Node, Node], names: Mapping[Node, str], loops: Loops) -> None:
    scan, tables = Scan.of(node), loops.graph.tables
    body, steps, number_of = scan.body, scan.length, len(loops.paths)
    if any(n.op == "scan" for n in body.nodes):
        raise DerivativeError("the step of a loop holds a loop, and there is no derivation through that")
    paths: list[Node] = []
    known: dict[Node, tuple[Node, bool]] = {}
    for k, (carry, init) in enumerate(zip(body.carries, scan.init, strict=True)):
        kind = TensorType(carry.dtype, (steps + 1, *carry.shape))
        path = Node(PATH, (new[init],), kind, loop=number_of, index=k)
        paths.append(path)
        known[carry] = _rows(path, 1 if scan.reverse else 0, steps), True
    known |= {e: (new[x], True) for e, x in zip(body.elements, scan.xs, strict=True)}
    known |= {g: (new[w], False) for g, w in zip(body.given, scan.given, strict=True)}
    whole = dict(zip(body.nodes, batch(body.nodes, known, steps), strict=True))
    found = {n: stack(o, steps) for n, o in whole.items()}
    last_named = {names[n]: n for n in body.nodes if n in names and n.op != "input"}
    for inner, (value, stacked) in whole.items():
        tables.inherit(value, inner)
        if stacked and inner.op != "input":
            loops.made.add(value)
        if inner in names and last_named.get(names[inner]) is inner:
            loops.names.setdefault(value, names[inner])
    for k, (carry, result) in enumerate(zip(body.carries, body.new_carries, strict=True)):
        path = paths[k]
        value = found[result]
        entry = loops.paths[path] = Path(path, new[scan.init[k]], value, steps, scan.reverse)
        tables.inherit(path, node)
        loops.names.setdefault(path, loops.names.get(value, "s"))
        loops.parts[known[carry][0]] = path, _place(entry.before)
        if result.op != "input" and whole[result][1] and value not in loops.parts:
            loops.parts[value] = path, _place(entry.after)
        end = Node("last", (path, value), carry.type)  # the last state comes after all steps
        loops.parts[end] = path, _end(entry.last)
        new[item(node, k)] = end
    for j, result in enumerate(body.gives):
        new[item(node, len(paths) + j)] = found[result]


def _rows(path: Node, start: int, steps: Size) -> Node:
    """The values of a path that the steps begin with."""
    rank = path.type.rank
    first = (size(start), *(size(0),) * (rank - 1))
    return make("slice", path, start=first, step=(size(1),) * rank, shape=(steps, *path.shape[1:]))


def _place(step: Callable[[Expr], Expr]) -> Callable[[Sequence[Expr]], tuple[Expr, ...]]:
    return lambda at: (step(at[0]), *at[1:])


def _end(place: Expr) -> Callable[[Sequence[Expr]], tuple[Expr, ...]]:
    return lambda at: (place, *at)
