"""The schedule of a graph: buffers, and steps over them in their order."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from ..graph.dtype import DType
from ..graph.graph import Graph
from ..graph.node import Node, TensorType
from ..graph.size import Size
from .cluster import Builder
from .contractions import canonical_contractions
from .describe import describe, readable_names, where
from .finish import finish
from .grouping import Group, grouped
from .ir import Kernel, Loop, Store, loads
from .ir import Statement as Item
from .products import Product
from .statements import Check, Statements


@dataclass(frozen=True)
class Buffer:
    """An array of a step. kind: input, param, state, const (by name), output (by name), or temp (in the arena).

    node: the constant's value for a const."""

    number: int
    kind: str
    name: str
    type: TensorType
    node: Node


@dataclass(frozen=True)
class Launch:
    """Run a kernel over buffers, in the order of its array parameters."""

    kernel: Kernel
    buffers: tuple[int, ...]


@dataclass(frozen=True)
class Multiply:
    """A matrix product: see `Product`. Buffers a, b, c."""

    product: Product
    a: int
    b: int
    c: int
    note: str


@dataclass(frozen=True)
class CheckIndex:
    """Stop with an error unless every element of a buffer is an index below the limit."""

    buffer: int
    dtype: DType
    count: Size
    limit: Size
    message: str
    where: str


@dataclass(frozen=True)
class Copy:
    """Copy one buffer to another of the same type."""

    source: int
    target: int
    type: TensorType


Step = Launch | Multiply | CheckIndex | Copy


@dataclass
class Schedule:
    """What a compiled entry does: buffers, steps, and for each update the buffer and whether it was done in place."""

    buffers: list[Buffer]
    steps: list[Step]
    names: dict[Node, str] = field(default_factory=dict)

    def touches(self, step: Step) -> tuple[int, ...]:
        """The buffers that a step reads or writes."""
        if isinstance(step, Launch):
            return step.buffers
        if isinstance(step, Multiply):
            return step.a, step.b, step.c
        return (step.source, step.target) if isinstance(step, Copy) else (step.buffer,)

    def writes(self, step: Step) -> tuple[int, ...]:
        """The buffers that a step writes for others to read."""
        if isinstance(step, Launch):
            scratch = {i for i, reduce in step.kernel.private.items() if reduce == "scratch"}
            arrays = enumerate(zip(step.buffers, step.kernel.arrays, strict=True))
            return tuple(b for i, (b, a) in arrays if a.written and i not in scratch)
        if isinstance(step, Multiply):
            return (step.c,)
        return (step.target,) if isinstance(step, Copy) else ()


def schedule(graph: Graph) -> Schedule:
    """Lower an optimised graph."""
    graph = _with_copies(graph)
    graph, forced = canonical_contractions(graph)
    statements = Statements(graph)
    for node in forced:
        statements.stored[statements.source(node)] = True
    names = readable_names(graph)
    groups = grouped(graph, statements, names)
    return _Assembly(graph, statements, names, groups).schedule()


def _with_copies(graph: Graph) -> Graph:
    """Outputs and updates that are no computation of their own become a copy: an input, a parameter, a constant."""

    def computed(node: Node) -> Node:
        base = node
        while base.op == "reshape":
            (base,) = base.operands
        if base.op in ("input", "param", "state", "const", "size"):
            copy = Node("stop_gradient", (node,), node.type)
            graph.tables.inherit(copy, node)
            return copy
        return node

    return replace(
        graph,
        outputs={k: computed(v) for k, v in graph.outputs.items()},
        updates={k: computed(v) for k, v in graph.updates.items()},
    )


# -- assembling ------------------------------------------------------------------------------------------------------
class _Assembly:
    """Buffers for what is stored, and steps for the groups."""

    def __init__(self, graph: Graph, statements: Statements, names: dict[Node, str], groups: list[Group]):
        self.graph, self.statements, self.names, self.groups = graph, statements, names, groups
        self.buffers: list[Buffer] = []
        self.number: dict[Node, int] = {}
        self.copies: list[Copy] = []
        self.root_sources = {statements.source(r) for r in graph.roots}
        self.touching: dict[Node, list[int]] = {}  # array → the groups that read or write it, in order
        for index, group in enumerate(groups):
            arrays = (group.a.array, group.b.array, group.node) if isinstance(group, Product) else ()
            for node in dict.fromkeys(group.arrays if isinstance(group, Builder) else arrays):
                self.touching.setdefault(node, []).append(index)
        self.same: dict[int, dict[Node, Node]] = {}  # group → arrays updated in place

    def schedule(self) -> Schedule:
        needed = self._needed()
        self._claim_roots(needed)
        steps: list[Step] = []
        kernels: dict[str, int] = {}
        for index, group in enumerate(self.groups):
            if isinstance(group, Builder):
                steps.append(self._launch(index, group, needed, kernels))
            elif isinstance(group, Product):
                a, b = self._buffer(group.a.array), self._buffer(group.b.array)
                steps.append(Multiply(group, a, b, self._buffer(group.node), self._note(group.node)))
            else:
                steps.append(self._check(group))
        return Schedule(self.buffers, steps + list(self.copies), self.names)

    def _needed(self) -> set[Node]:
        """Values read outside the kernel that computes them."""
        source = self.statements.source
        needed = set(self.root_sources)
        for group in self.groups:
            if isinstance(group, Product):
                needed |= {group.a.array, group.b.array}
            elif isinstance(group, Check):
                needed.add(source(group.indices))
            else:
                needed |= {n for n in group.arrays if n not in group.placed}
        return needed

    def _claim_roots(self, needed: set[Node]) -> None:
        """Outputs and updates get the memory that is theirs; a value wanted twice is copied."""
        source = self.statements.source
        claimed: set[Node] = set()
        for name, node in self.graph.outputs.items():
            base = source(node)
            if base in claimed:
                target = self._add("output", name, node.type, node)
                self.copies.append(Copy(self.number[base], target, node.type))
            else:
                claimed.add(base)
                self.number[base] = self._add("output", name, node.type, node)
        copied: list[tuple[Node, Node]] = []
        for variable, node in self.graph.updates.items():
            base = source(node)
            place = self._in_place(base, variable) if base not in claimed else None
            if place is None:
                copied.append((base, variable))
            else:
                claimed.add(base)
                self.number[base] = self._buffer(variable)
                self.same.setdefault(place, {})[base] = variable
        # after all claims: what is copied may have been written over another variable
        self.copies += [Copy(self._buffer(b), self._buffer(variable), variable.type) for b, variable in copied]

    def _in_place(self, new: Node, variable: Node) -> int | None:
        """The kernel that may write the new value over the old one: nothing reads the old one later or elsewhere."""
        if variable in self.root_sources:
            return None
        makers = [g for g in self.touching.get(new, ()) if self._makes(g, new)]
        if len(makers) != 1 or not isinstance(builder := self.groups[makers[0]], Builder):
            return None  # a matrix product does not write over its operands
        (producer,) = makers
        if any(g > producer for g in self.touching.get(variable, ())):
            return None
        if variable not in builder.arrays:
            return producer
        return producer if _same_place(builder, builder.arrays[new], builder.arrays[variable]) else None

    def _makes(self, index: int, node: Node) -> bool:
        group = self.groups[index]
        return node in group.placed if isinstance(group, Builder) else isinstance(group, Product) and group.node is node

    def _add(self, kind: str, name: str, kind_type: TensorType, node: Node) -> int:
        self.buffers.append(Buffer(len(self.buffers), kind, name, kind_type, node))
        return len(self.buffers) - 1

    def _buffer(self, node: Node) -> int:
        if node not in self.number:
            named = node.op in ("input", "param", "state")
            kind = node.op if named or node.op == "const" else "temp"
            self.number[node] = self._add(kind, node.attr("name") if named else self.names[node], node.type, node)
        return self.number[node]

    def _launch(self, index: int, builder: Builder, needed: set[Node], kernels: dict[str, int]) -> Launch:
        computed = list(builder.placed)
        base = "_".join(dict.fromkeys(n.op if n.op != "formula" else "adjoint" for n in computed[-3:]))
        kernels[base] = kernels.get(base, 0) + 1
        name = base if kernels[base] == 1 else f"{base}_{kernels[base]}"
        kernel = finish(builder, name, self.names, needed, self.same.get(index, {}))
        return Launch(kernel, tuple(self._buffer(n) for n in kernel.nodes))

    def _note(self, node: Node) -> str:
        (statement,) = self.statements.of(node)
        return describe(statement, self.names, self.graph)

    def _check(self, check: Check) -> CheckIndex:
        source = self.statements.source(check.indices)
        name = self.names[source]
        what = "a look-up" if check.node.op == "formula" else check.node.op
        place = f"for an axis of length {{limit}}, at position {{position}} of {name}"
        message = f"{what}: the index {{value}} is out of range {place}"
        line = where(check.node, self.graph).split()
        buffer, count = self._buffer(source), source.type.numel
        return CheckIndex(buffer, source.dtype, count, check.limit, message, line[0] if line else "")


def _same_place(builder: Builder, new: int, old: int) -> bool:
    """Is every element of the old array read just where, and before, the new one is stored?"""
    stores = [
        (block, i, item)
        for block in _blocks(builder.roots)
        for i, item in enumerate(block)
        if isinstance(item, Store) and item.array == new
    ]
    if len(stores) != 1:
        return False
    block, at, store = stores[0]
    for other in _blocks(builder.roots):
        for i, item in enumerate(other):
            positions = [load.position for load in loads(item) if load.array == old]
            if positions and (other is not block or i > at or any(p != store.position for p in positions)):
                return False
    return True


def _blocks(items: list[Item]) -> Iterable[list[Item]]:
    yield items
    for item in items:
        if isinstance(item, Loop):
            yield from _blocks(item.before)
            yield from _blocks(item.body)
            yield from _blocks(item.after)
