"""The schedule of a graph: buffers, and steps over them in their order."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from ..graph.dtype import DType
from ..graph.graph import Graph
from ..graph.node import Node, TensorType
from ..graph.size import Size, size
from ..ops.scan import Scan
from ..ops.scan import item as result_of
from .cluster import Builder
from .contractions import canonical_contractions
from .describe import describe, readable_names, where
from .finish import finish
from .grouping import Group, Repetition, grouped
from .ir import Kernel, Loop, Store, loads
from .ir import Statement as Item
from .loops import View, rows_of, step_graph, with_paths
from .products import Product
from .statements import Check, Statements


@dataclass(frozen=True)
class Buffer:
    """An array of a step. kind: input, param, state, const (by name), output (by name), temp (in the arena), or view
    (a part of another).

    node: the constant's value for a const."""

    number: int
    kind: str
    name: str
    type: TensorType
    node: Node
    view: View | None = None


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
    """Copy one buffer to another of the same type; `why` says what for."""

    source: int
    target: int
    type: TensorType
    why: str = "an output and a variable need memory of their own, and the value is wanted twice"


BEGINS = "a loop writes over its carry, which begins as this"


@dataclass(frozen=True)
class Repeat:
    """Run steps `count` times, over views that move."""

    count: Size
    views: tuple[int, ...]
    steps: tuple[Step, ...]


Step = Launch | Multiply | CheckIndex | Copy | Repeat


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
        if isinstance(step, Repeat):
            return tuple(dict.fromkeys(b for inner in step.steps for b in self.touches(inner)))
        return (step.source, step.target) if isinstance(step, Copy) else (step.buffer,)

    def writes(self, step: Step) -> tuple[int, ...]:
        """The buffers that a step writes for others to read."""
        if isinstance(step, Launch):
            scratch = {i for i, reduce in step.kernel.private.items() if reduce == "scratch"}
            arrays = enumerate(zip(step.buffers, step.kernel.arrays, strict=True))
            return tuple(b for i, (b, a) in arrays if a.written and i not in scratch)
        if isinstance(step, Multiply):
            return (step.c,)
        if isinstance(step, Repeat):
            return tuple(dict.fromkeys(self.root(b) for inner in step.steps for b in self.writes(inner)))
        return (step.target,) if isinstance(step, Copy) else ()

    def root(self, number: int) -> int:
        """The buffer that a view lies in."""
        while (view := self.buffers[number].view) is not None:
            number = view.parent
        return number

def schedule(graph: Graph) -> Schedule:
    """Lower an optimised graph."""
    graph = with_paths(_with_copies(graph))
    statements = canonical_contractions(graph)
    names = readable_names(statements.graph)
    groups = grouped(statements, names)
    return _Assembly(statements, names, groups).schedule()


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

    def __init__(self, statements: Statements, names: dict[Node, str], groups: list[Group]):
        self.statements, self.names, self.groups = statements, names, groups
        self.graph = graph = statements.graph
        self.buffers: list[Buffer] = []
        self.number: dict[Node, int] = {}
        self.copies: list[Copy] = []
        self.root_sources = {statements.source(r) for r in graph.roots}
        self.touching: dict[Node, list[int]] = {}  # array → the groups that read or write it, in order
        self.items: dict[Node, list[Node]] = {}  # of loops, those that are wanted
        for node in graph.nodes:
            if node.op == "item":
                self.items.setdefault(node.operands[0], []).append(node)
        self.over: dict[Node, Node] = {}  # temporary → the one whose memory it takes
        for index, group in enumerate(groups):
            for node in dict.fromkeys(self._arrays(group)):
                self.touching.setdefault(node, []).append(index)
        self.same: dict[int, dict[Node, Node]] = {}  # group → arrays that it writes over others: new → old

    def schedule(self) -> Schedule:
        needed = self._needed()
        self._claim_roots(needed)
        self._write_over()
        steps: list[Step] = []
        kernels: dict[str, int] = {}
        for index, group in enumerate(self.groups):
            if isinstance(group, Builder):
                steps.append(self._launch(index, group, needed, kernels))
            elif isinstance(group, Product):
                a, b = self._buffer(group.a.array), self._buffer(group.b.array)
                steps.append(Multiply(group, a, b, self._buffer(group.node), self._note(group.node)))
            elif isinstance(group, Repetition):
                steps += self._repeat(group.node)
            else:
                steps.append(self._check(group))
        return Schedule(self.buffers, steps + list(self.copies), self.names)

    def _arrays(self, group: Group) -> list[Node]:
        """The arrays that a group reads or writes."""
        if isinstance(group, Builder):
            return list(group.arrays)
        if isinstance(group, Product):
            return [group.a.array, group.b.array, group.node]
        if isinstance(group, Repetition):
            return [*(rows_of(o)[0] for o in group.node.operands), *self.items.get(group.node, ())]
        return [self.statements.source(group.indices)]

    def _needed(self) -> set[Node]:
        """Values read outside the kernel that computes them."""
        source = self.statements.source
        needed = set(self.root_sources)
        for group in self.groups:
            if isinstance(group, Product):
                needed |= {group.a.array, group.b.array}
            elif isinstance(group, Repetition):
                needed |= {rows_of(o)[0] for o in group.node.operands}
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
        if len(makers) != 1:
            return None
        (producer,) = makers
        builder = self.groups[producer]
        if any(g > producer for g in self.touching.get(variable, ())):
            return None
        if isinstance(builder, Product):  # it does not write over its operands
            return producer if variable not in (builder.a.array, builder.b.array) else None
        if not isinstance(builder, Builder):
            return None
        if variable not in builder.arrays:
            return producer
        return producer if _same_place(builder, builder.arrays[new], builder.arrays[variable]) else None

    def _write_over(self) -> None:
        """A temporary takes the memory of another that its kernel reads for the last time, where each element is read
        just where, and before, the new one is stored."""
        for index, builder in enumerate(self.groups):
            if not isinstance(builder, Builder):
                continue
            dying = [n for n in builder.arrays if n not in builder.placed and self._dies(n, index)]
            for new in builder.placed:
                # what no later step reads needs no memory, or a row's that stays in cache
                alone = new in self.number or new not in builder.arrays or self.touching[new][0] != index
                if alone or self.touching[new][-1] == index:
                    continue
                for old in dying:
                    if old.type == new.type and _same_place(builder, builder.arrays[new], builder.arrays[old]):
                        self.same.setdefault(index, {})[new] = old
                        self.over[new] = old
                        dying.remove(old)
                        break

    def _dies(self, node: Node, index: int) -> bool:
        """Is an array a kernel's or a product's temporary that nothing reads after a group?"""
        if node in self.number or node in self.root_sources or self.touching[node][-1] > index:
            return False
        return self._makes(self.touching[node][0], node)

    def _makes(self, index: int, node: Node) -> bool:
        group = self.groups[index]
        return node in group.placed if isinstance(group, Builder) else isinstance(group, Product) and group.node is node

    def _add(self, kind: str, name: str, kind_type: TensorType, node: Node, view: View | None = None) -> int:
        self.buffers.append(Buffer(len(self.buffers), kind, name, kind_type, node, view))
        return len(self.buffers) - 1

    def _buffer(self, node: Node) -> int:
        if node in self.over:
            return self._buffer(self.over[node])
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

    def _repeat(self, node: Node) -> list[Step]:
        """A loop: its step scheduled as a graph of its own, over parts of this one's arrays."""
        scan = Scan.of(node)
        inner = schedule(step_graph(scan, self.graph))
        places, copies, moving = self._step_places(node, scan)
        number: dict[int, int] = {}
        for b in inner.buffers:
            if b.name in places and b.kind in ("input", "output"):
                number[b.number] = places[b.name]
            elif b.kind == "const":
                number[b.number] = self._buffer(b.node)
            else:
                view = replace(b.view, parent=number[b.view.parent]) if b.view else None
                number[b.number] = self._add(b.kind, b.name, b.type, b.node, view)
        repeat = Repeat(scan.length, tuple(moving), tuple(_renumbered(s, number) for s in inner.steps))
        return [*copies, repeat]

    def _step_places(self, node: Node, scan: Scan) -> tuple[dict[str, int], list[Copy], list[int]]:
        """(the buffers of a step's inputs and outputs by name, what is copied before the loop, the views that move)"""
        body, last = scan.body, scan.length - 1
        found = {i.attr("index"): i for i in self.items.get(node, ())}
        pathed = {body.carries[k] for k in scan.paths} | {body.new_carries[k] for k in scan.paths}
        places: dict[str, int] = {}
        copies: list[Copy] = []
        moving: list[int] = []

        def row(of: int, kind: TensorType, first: Size, at: Node) -> int:
            """A row of a stacked array: number `first` in the first step, or counted from the end in reverse."""
            length = kind.numel
            begin, step = ((last + first) * length, -length) if scan.reverse else (first * length, length)
            moving.append(self._add("view", f"{self.buffers[of].name}_t", kind, at, View(of, begin, step)))
            return moving[-1]

        for k, (carry, init) in enumerate(zip(body.carries, scan.init, strict=True)):
            begin = self._rows(init)
            if k not in scan.paths:
                place = places[carry.attr("name")] = self._result(found, node, k)
                copies.append(Copy(begin, place, carry.type, BEGINS))
                continue
            path = self._result(found, node, len(body.results) + scan.paths.index(k))
            before, after = (1, 0) if scan.reverse else (0, 1)
            places[carry.attr("name")] = row(path, carry.type, size(before), carry)
            places[f"path:{k}"] = row(path, carry.type, size(after), carry)
            first = scan.length * carry.type.numel if scan.reverse else size(0)
            copies.append(Copy(begin, self._add("view", "init", carry.type, carry, View(path, first, size(0))), carry.type, BEGINS))
        for element, xs in zip(body.elements, scan.xs, strict=True):
            places[element.attr("name")] = row(self._rows(xs), element.type, size(0), element)
        for given, operand in zip(body.given, scan.given, strict=True):
            places[given.attr("name")] = self._rows(operand)
        for j, gives in enumerate(body.gives):
            if gives not in pathed:
                place = self._result(found, node, len(body.carries) + j)
                places[f"gives:{j}"] = row(place, gives.type, size(0), gives)
        return places, copies, moving

    def _result(self, found: dict[int, Node], node: Node, k: int) -> int:
        """The buffer of a loop's result; one that nothing reads needs a place too."""
        picked = found[k] if k in found else result_of(node, k)
        if picked not in self.number:
            self.number[picked] = self._add("temp", self.names.get(picked, f"result_{k}"), picked.type, picked)
        return self.number[picked]

    def _rows(self, operand: Node) -> int:
        """The buffer of a loop's operand: an array, or a part of one."""
        base, offset = rows_of(operand)
        number = self._buffer(base)
        if offset == 0:
            return number
        return self._add("view", f"{self.buffers[number].name}_part", operand.type, operand, View(number, offset, size(0)))

    def _note(self, node: Node) -> str:
        (statement,) = self.statements.of(node)
        return describe(statement, self.names, self.graph)

    def _check(self, check: Check) -> CheckIndex:
        source = self.statements.source(check.indices)
        name = self.names[source]
        what = "a look-up" if check.node.op == "formula" else check.node.op
        place = f"for an axis of length {{limit}}, at position {{position}} of {name}"
        message = f"{what}: the index {{value}} is out of range {place}"
        if check.node.op == "within":
            message = "scan: the length {length} of sequence {position} is not between 1 and {limit}, the number of steps"
        line = where(check.node, self.graph).split()
        buffer, count = self._buffer(source), source.type.numel
        return CheckIndex(buffer, source.dtype, count, check.limit, message, line[0] if line else "")


def _renumbered(step: Step, number: dict[int, int]) -> Step:
    """A step over other buffers."""
    if isinstance(step, Launch):
        return replace(step, buffers=tuple(number[b] for b in step.buffers))
    if isinstance(step, Multiply):
        return replace(step, a=number[step.a], b=number[step.b], c=number[step.c])
    if isinstance(step, CheckIndex):
        return replace(step, buffer=number[step.buffer])
    if isinstance(step, Copy):
        return replace(step, source=number[step.source], target=number[step.target])
    return replace(step, views=tuple(number[v] for v in step.views), steps=tuple(_renumbered(s, number) for s in step.steps))


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
    if store.reduce != "assign" or store.lookups:
        return False
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
