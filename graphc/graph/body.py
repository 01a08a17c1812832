"""The body of a loop: one step as a graph of its own, an attribute of the node that runs it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from .graph import Graph, SideTables
from .node import Node, TensorType, postorder

CARRY, ELEMENT, GIVEN = "carry", "element", "given"


def body_input(kind: str, position: int, type: TensorType) -> Node:
    """An input of a body. Its name is its kind and place alone, so that equal bodies are equal."""
    return Node("input", (), type, name=f"{kind}:{position}")


@dataclass(frozen=True)
class Body:
    """One step: what it gives, over inputs of its own. Everything that it reads is an input, a constant or a size.

    carries: what the step before left; elements: this step's element of each array that the loop runs over; given:
    what all steps share. results: the new carries, then what the step gives. Two bodies of one structure are equal.
    """

    carries: tuple[Node, ...]
    elements: tuple[Node, ...]
    given: tuple[Node, ...]
    results: tuple[Node, ...]

    @property
    def inputs(self) -> tuple[Node, ...]:
        return (*self.carries, *self.elements, *self.given)

    @property
    def new_carries(self) -> tuple[Node, ...]:
        return self.results[: len(self.carries)]

    @property
    def gives(self) -> tuple[Node, ...]:
        """What a step gives besides the carries."""
        return self.results[len(self.carries) :]

    @cached_property
    def nodes(self) -> tuple[Node, ...]:
        """Every node needed, operands before users."""
        return tuple(postorder(self.results))

    def graph(self, name: str, tables: SideTables | None = None) -> Graph:
        """The step as a graph, its results named by their position."""
        outputs = {str(k): node for k, node in enumerate(self.results)}
        return Graph(name, self.inputs, outputs, tables=SideTables() if tables is None else tables)


def make_body(
    carries: Sequence[Node],
    elements: Sequence[Node],
    given: Sequence[Node],
    results: Iterable[Node],
    tables: SideTables,
) -> Body:
    """The body that computes some results from nodes that stand for its inputs: they are replaced by its own."""
    kinds = ((CARRY, carries), (ELEMENT, elements), (GIVEN, given))
    inputs = [tuple(body_input(kind, k, n.type) for k, n in enumerate(nodes)) for kind, nodes in kinds]
    own = dict(zip((*carries, *elements, *given), (n for group in inputs for n in group), strict=True))
    for old, new in own.items():
        tables.inherit(new, old)
    first, second, third = inputs
    return Body(first, second, third, tuple(replaced(results, own, tables)))


def replaced(roots: Iterable[Node], new: Mapping[Node, Node], tables: SideTables | None = None) -> list[Node]:
    """The roots with some of the nodes that they are computed from replaced by others of the same types."""
    known = dict(new)
    wanted = list(roots)
    for node in postorder(wanted, set(known)):
        operands = tuple(known[o] for o in node.operands)
        known[node] = node if operands == node.operands else Node(node.op, operands, node.type, **dict(node.attrs))
        if tables is not None:
            tables.inherit(known[node], node)
    return [known[r] for r in wanted]


def dependents(roots: Iterable[Node], sources: Iterable[Node]) -> set[Node]:
    """The nodes, of those that the roots need, that depend on a source; sources among them."""
    found = set(sources)
    for node in postorder(roots):
        if any(o in found for o in node.operands):
            found.add(node)
    return found
