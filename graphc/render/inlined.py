"""Loops as they are drawn in the ordinary views: the step once, in a frame, between what goes in and what comes out.

The graph is rebuilt with each step in place of its loop. What the step before left, and the element of this step, are
nodes of their own, `carry` and `element`; what comes out is marked as the last step's or as that of all steps.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from ..graph.graph import Graph, with_operands
from ..graph.node import Node, TupleType
from ..ops.scan import Scan, item
from .cell import at
from .notation import size_text, subscript
from .outline import base
from .picture import Edge, Line
from .walk import reached

LOOP = "\N{CLOCKWISE OPEN CIRCLE ARROW} "
"""What the name of a loop's frame begins with."""


@dataclass
class Inlined:
    """A graph with its loops' steps in their place.

    known: names of values. inside: the frames, outermost first, that a value lies in; titles: what is written on them;
    again: what a step leaves, where the next begins with it, and what is written below that.
    """

    graph: Graph
    known: dict[Node, str]
    inside: dict[Node, tuple[str, ...]] = field(default_factory=dict)
    titles: dict[str, str] = field(default_factory=dict)
    again: list[tuple[Node, Node, str]] = field(default_factory=list)
    numbers: dict[object, int] = field(default_factory=dict)

    def through(self, nodes: set[Node]) -> set[Node]:
        """Values, and with those of a step what the step leaves for the next."""
        found = set(nodes)
        while more := [v for v, c, _ in self.again if c in found and v not in found]:
            found |= set().union(*map(reached, more))
        return found

    def rebuilt(self, graph: Graph, new: Mapping[Node, Node]) -> Inlined:
        """The same of a graph made of this one. new: what became of its nodes."""
        known = {new.get(n, n): name for n, name in self.known.items()}
        inside = {new.get(n, n): frames for n, frames in self.inside.items()}
        again = [(new.get(v, v), new.get(c, c), by) for v, c, by in self.again]
        return replace(self, graph=graph, known=known, inside=inside, again=again)

    def named(self, names: Mapping[Node, str]) -> dict[Node, str]:
        """Names with the step below those of the values of a step."""
        plain = dict(names)
        steps = {n: letter_of(len(inside)) for n, inside in self.inside.items()}
        for value, carry, by in self.again:
            plain[carry], steps[carry] = names.get(base(value), "s"), steps[carry] + by
        for node in plain:
            if node.op == "element" and node not in self.known:  # elements of elements come after them
                source = base(node.operands[0])
                plain[node] = plain.get(source, "x").rsplit("/", 1)[-1]
                if source.op == "carry":
                    steps[node] = steps[source]
        return {n: at(name, steps[n]) if n in steps else name for n, name in plain.items()}

    def edges(self, ids: Mapping[Node, str]) -> list[Edge]:
        """The arrows from the end of a step back to the beginning of the next, their heads at their tails."""
        ends = [(base(value), carry) for value, carry, _ in self.again]
        notes = (Line("next step", "small"),)
        return [Edge(ids[c], ids[v], "again", notes) for v, c in ends if v in ids and c in ids and v is not c]


def letter_of(depth: int) -> str:
    """What stands for the step of a loop, of one inside another, and so on."""
    return "tuvw"[min(depth, 4) - 1]


def inlined(graph: Graph, known: Mapping[Node, str]) -> Inlined:
    """The graph with each loop's step drawn once; a graph without loops as it is."""
    if not any(n.op == "scan" for n in graph.nodes):
        return Inlined(graph, dict(known))
    result = Inlined(replace(graph, tables=graph.tables.copy()), {})
    for node in graph.inputs:
        if node in known:
            result.known[node] = known[node]
    new = _nodes(graph.nodes, {}, (), known, result)
    _name_beginnings(result)
    result.graph = replace(
        result.graph,
        outputs={k: new[v] for k, v in graph.outputs.items()},
        # what the next step begins with is needed, though no output may be computed from it
        updates={new[k]: new[v] for k, v in graph.updates.items()} | {c: v for v, c, _ in result.again},
    )
    return result


def _name_beginnings(result: Inlined) -> None:
    """A state that a loop begins with, and that is called as what the loop's steps make of it, is its 0th: `h₀`."""
    for value, carry, by in result.again:
        begin = base(carry.operands[0])
        name = result.known.get(base(value))
        if begin.op == "state" and by == "−1" and name is not None and result.known.get(begin) == name:
            result.known[begin] = name + subscript(0)


def _nodes(
    nodes: tuple[Node, ...],
    given: dict[Node, Node],
    frames: tuple[str, ...],
    known: Mapping[Node, str],
    result: Inlined,
) -> dict[Node, Node]:
    """Nodes rebuilt: old → new. given: what stands for a step's inputs; known: names."""
    new = dict(given)
    names = {known[n]: n for n in nodes if n in known}  # of several that one line of a step makes the last
    tables = result.graph.tables
    for node in nodes:
        if node in new:
            continue
        if node.op == "scan":
            _step(node, new, frames, known, result)
            continue
        if node.op == "item":
            value = new[node]  # made with the loop
        else:
            operands = tuple(new[o] for o in node.operands)
            value = (_moved(node, operands[0]) if operands else None) or with_operands(node, operands)
        new[node] = value
        tables.inherit(value, node)
        if node in known and (not frames or names[known[node]] is node):
            result.known.setdefault(value, known[node])
        if frames and node.operands:
            result.inside.setdefault(value, frames)
    return new


def _step(
    node: Node, new: dict[Node, Node], frames: tuple[str, ...], names: Mapping[Node, str], result: Inlined
) -> None:
    """A loop's step, and its results in terms of what the step computes."""
    scan = Scan.of(node)
    body, tables = scan.body, result.graph.tables
    # loops that differ only in what their steps give are one
    number = result.numbers.setdefault(
        (scan.operands, scan.length, scan.reverse, body.new_carries), len(result.numbers)
    )
    frame = (*frames, f"{LOOP}{number}")
    steps = f"{size_text(scan.length)}, …, 1" if scan.reverse else f"1, …, {size_text(scan.length)}"
    result.titles[frame[-1]] = f"a loop: once for each {letter_of(len(frame))} = {steps}"
    known: dict[Node, Node] = {}
    for k, (inner, operand) in enumerate(zip(body.carries, scan.init, strict=True)):
        known[inner] = Node("carry", (new[operand],), inner.type, loop=number, index=k)
    for k, (inner, operand) in enumerate(zip(body.elements, scan.xs, strict=True)):
        known[inner] = Node("element", (_unmoved(new[operand]),), inner.type, loop=number, index=k)
    result.inside |= dict.fromkeys(known.values(), frame)
    for value in known.values():
        tables.add_origin(value, *tables.origins.get(node, ()))
    known |= {inner: new[operand] for inner, operand in zip(body.given, scan.given, strict=True)}
    inside = _nodes(body.nodes, known, frame, names, result)
    for inner, computed in zip(body.carries, body.new_carries, strict=True):
        entry = inside[computed], known[inner], "+1" if scan.reverse else "−1"
        if entry not in result.again:
            result.again.append(entry)
    _results(node, inside, new)


def _results(node: Node, inside: dict[Node, Node], new: dict[Node, Node]) -> None:
    """What reads a loop reads what its step computes, marked."""
    body, kind = node.attr("body"), node.type
    assert isinstance(kind, TupleType)
    values = [*body.results, *(body.new_carries[k] for k in node.attr("paths"))]
    for k, (value, type) in enumerate(zip(values, kind.items, strict=True)):
        new[item(node, k)] = Node("last" if k < len(body.carries) else "stacked", (inside[value],), type)


def _moved(node: Node, operand: Node) -> Node | None:
    """What stands for a transposition that only moves the axis of the steps; None where it is another."""
    if node.op != "transpose":
        return None
    rest = [d for d in node.attr("perm") if d]
    if operand.op == "stacked" and rest == sorted(rest):
        return Node("stacked", operand.operands, node.type)
    return None


def _unmoved(operand: Node) -> Node:
    """The array whose axis of the steps a transposition brings to the front."""
    if operand.op == "transpose":
        rest = operand.attr("perm")[1:]
        if list(rest) == sorted(rest):
            return operand.operands[0]
    return operand
