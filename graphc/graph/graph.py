"""A graph: what a model computes, as a networkx MultiDiGraph of interned nodes, with side tables beside it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING

from ..errors import SourceLine
from .dtype import DType
from .node import Node, postorder
from .size import Size

if TYPE_CHECKING:
    import networkx as nx


@dataclass(frozen=True)
class Origin:
    """Where a node was made: the model's line, and the scope that was open."""

    source: SourceLine | None = None
    scope: str = ""


@dataclass(frozen=True)
class Guard:
    """A relation of two sizes, `==` or `>=`, that must hold when the model is called, and what to say if it does not."""

    left: Size
    right: Size
    message: str
    source: SourceLine | None = None
    relation: str = "=="

    def holds(self, sizes: Mapping[str, int]) -> bool:
        left, right = self.left.evaluate(sizes), self.right.evaluate(sizes)
        return left == right if self.relation == "==" else left >= right


@dataclass(frozen=True)
class Variable:
    """A parameter or a state: it lives outside the graph and is read and updated by name."""

    name: str
    kind: str  # "param" or "state"
    dtype: DType
    shape: tuple[Size, ...]
    trainable: bool = False


@dataclass
class SideTables:
    """What is known of nodes beside their structure; a node may have several origins.

    names: what the model calls them. terms: what the field calls the values that a layer computes (an LSTM's f, i, g, o),
    for pictures, where the model has no name for them.
    """

    origins: dict[Node, tuple[Origin, ...]] = field(default_factory=dict)
    names: dict[Node, str] = field(default_factory=dict)
    terms: dict[Node, str] = field(default_factory=dict)

    def add_origin(self, node: Node, *origins: Origin) -> None:
        known = self.origins.get(node, ())
        self.origins[node] = known + tuple(o for o in origins if o not in known)

    def inherit(self, new: Node, old: Node) -> None:
        """A rewritten node keeps the origins, the name and the term of the node that it replaces."""
        if new is not old:
            self.add_origin(new, *self.origins.get(old, ()))
            if old in self.names:
                self.names.setdefault(new, self.names[old])
            if old in self.terms:
                self.terms.setdefault(new, self.terms[old])

    def copy(self) -> SideTables:
        return SideTables(dict(self.origins), dict(self.names), dict(self.terms))

    def source(self, node: Node) -> SourceLine | None:
        """The first model line that made the node."""
        return next((o.source for o in self.origins.get(node, ()) if o.source), None)


@dataclass(frozen=True)
class Graph:
    """The computation of one entry: named outputs, the inputs in signature order, and updates: the node of a
    parameter or state → its value when the call ends."""

    name: str
    inputs: tuple[Node, ...]
    outputs: Mapping[str, Node]
    updates: Mapping[Node, Node] = field(default_factory=dict)
    guards: tuple[Guard, ...] = ()
    tables: SideTables = field(default_factory=SideTables)

    @property
    def roots(self) -> tuple[Node, ...]:
        return (*self.outputs.values(), *self.updates.values())

    @cached_property
    def nodes(self) -> tuple[Node, ...]:
        """Every node needed, operands before users. Inputs that nothing needs are not among them."""
        return tuple(postorder(self.roots))

    @cached_property
    def nx(self) -> nx.MultiDiGraph:
        """The graph as networkx sees it: an edge per operand, keyed by its position (a*a has two)."""
        import networkx as nx  # compiling walks the nodes themselves: loading networkx takes as long as compiling

        graph = nx.MultiDiGraph(name=self.name)
        for node in self.nodes:
            graph.add_node(node, op=node.op, type=str(node.type))
        for node in self.nodes:
            for position, operand in enumerate(node.operands):
                graph.add_edge(operand, node, key=position)
        return graph

    def users(self, node: Node) -> list[Node]:
        """The nodes that read it, each once."""
        return list(self.nx.successors(node))

    def sources(self, node: Node) -> set[Node]:
        """The node and everything that it is computed from."""
        return set(postorder([node]))

    def sizes(self) -> list[str]:
        """The dimension names of the inputs, in the order of their appearance."""
        found: dict[str, None] = {}
        for node in self.inputs:
            for extent in node.shape:
                found.update(dict.fromkeys(sorted(extent.names)))
        return list(found)

    def rewrite(self, change: Callable[[Node, tuple[Node, ...]], Node]) -> Graph:
        """Rebuild bottom-up: change(old node, its new operands) gives the new node; origins are carried over."""
        new: dict[Node, Node] = {}
        for node in self.nodes:
            new[node] = change(node, tuple(new[o] for o in node.operands))
            self.tables.inherit(new[node], node)
        return replace(
            self,
            outputs={k: new[v] for k, v in self.outputs.items()},
            updates={k: new[v] for k, v in self.updates.items()},
        )

    def _repr_svg_(self) -> str | None:
        """The picture that a notebook shows; None where `dot` is not installed."""
        from ..render import notebook

        return notebook.svg(self)

    def _repr_html_(self) -> str:
        """The picture, or the text where `dot` is not installed."""
        from ..render import notebook

        return notebook.page(self)

    def select(self, outputs: Iterable[str], updates: bool = True) -> Graph:
        """The graph of some of the outputs, with only the inputs that they need."""
        kept = {k: self.outputs[k] for k in outputs}
        graph = replace(self, outputs=kept, updates=self.updates if updates else {})
        used = set(graph.nodes)
        return replace(graph, inputs=tuple(i for i in self.inputs if i in used))


def with_operands(node: Node, operands: tuple[Node, ...]) -> Node:
    """The same operation over other operands of the same types."""
    if operands == node.operands:
        return node
    return Node(node.op, operands, node.type, **dict(node.attrs))
