"""The loops of a graph along time: which values there are at every step, and which there is one of.

An axis of a value is time where each position is computed from the same position of other values alone; this is read
from the formulas of the operations, so it holds for any of them. Loops that can run side by side, step by step, share
a block of columns; one that needs the last state, or all steps, of another has a block of its own, further right.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

from ..graph.body import Body
from ..graph.formula import Affine
from ..graph.graph import Graph
from ..graph.node import Node
from ..graph.size import Size, product, size
from ..ops.build import is_elementwise
from ..ops.scan import Scan
from ..ops.table import row_of
from .outline import LEAVES, MARKS, Outline, affine, base, condition, mean, shifted_leaf, softmax_parts, written
from .repeats import Path, scope_of

FOLDED = ("argmax", "concat", "max", "min", "slice", "sum", "take")
"""Operations that are written into a formula where their value has no name, as short arithmetic is."""


@dataclass(eq=False)
class Unit:
    """What is drawn as one box: in every column of a block, or (block None) once.

    kind: "input", "loop", "work" or "output". boxes: the nodes in it, for a loop its `scan` node.
    offset: of an input that is a part of another, how many steps later it begins.
    """

    kind: str
    boxes: list[Node]
    block: int | None = None
    scope: Path = ()
    offset: Size | None = None

    @property
    def scan(self) -> Scan:
        return Scan.of(self.boxes[0])


@dataclass(frozen=True)
class Reading:
    """That a unit reads another. how: "step" (each column the same column's), "all" (every column), "last" (the state
    after the last step, or the last column), "once" (what there is one of), "init" (a loop's first state; `carry` says which).

    result: of a loop that is read, the number of its result.
    """

    source: Unit
    reader: Unit
    how: str
    value: Node
    carry: int | None = None
    result: int | None = None


@dataclass
class Block:
    """Columns for the steps of loops of one length."""

    level: int
    length: Size


@dataclass
class Timeline:
    """The units of a graph, in an order in which they can be computed, and what they read.

    known: names of values. given_out: loops what whose steps give is an output as it is.
    """

    graph: Graph
    known: Mapping[Node, str]
    units: list[Unit] = field(default_factory=list)
    readings: list[Reading] = field(default_factory=list)
    blocks: list[Block] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.named = {n for n in self.known if n.op not in LEAVES}
        self.given_out: set[Node] = set()
        self.time: dict[tuple[Node, int], int] = {}  # (value, block) → the axis of its steps
        self.block_of: dict[Node, int] = {}
        self.loops: dict[Node, frozenset[Node]] = {}  # the loops that a value is computed by
        self._follow()
        self._mark_sources()
        self._products = self._only_products()
        folds = (mean, affine, condition, self._is_inner)
        self.outline = Outline(
            self.graph, folds, self.named, written(self.graph, self.named) - self._softmaxes_of_steps()
        )
        self._make_units()
        self._join()

    # -- what has an axis of steps ----------------------------------------------------------------------------------
    def _follow(self) -> None:
        """Blocks for the loops, and time from what their steps give to what is computed from it step by step."""
        for node in self.graph.nodes:
            before = frozenset[Node]().union(*(self.loops[o] for o in node.operands))
            self.loops[node] = before | {node} if node.op == "scan" else before
            if node.op == "scan":
                self.block_of[node] = self._block(node)
            elif node.op == "item":
                (loop,) = node.operands
                if node.attr("index") >= len(loop.attr("body").carries):
                    self.time[node, self.block_of[loop]] = 0
            else:
                # a value with steps of two loops, as the weights of an attention are, stands at those of the later
                found = [(b, a) for b in range(len(self.blocks)) if (a := self._axis(node, b)) is not None]
                if found:
                    block, axis = max(found, key=lambda f: (self.blocks[f[0]].level, f[0]))
                    self.time[node, block] = axis

    def _level(self, node: Node) -> int:
        """The first level of a block in which all of a value is known."""
        return max((self.blocks[self.block_of[loop]].level + 1 for loop in self.loops[node]), default=0)

    def _block(self, node: Node) -> int:
        scan = Scan.of(node)
        level = max((self._level(o) for o in (*scan.init, *scan.given)), default=0)
        beside = [b for x in scan.xs for b in range(len(self.blocks)) if self.time.get((x, b)) == 0]
        for x in scan.xs:
            if not any(self.time.get((x, b)) == 0 for b in range(len(self.blocks))):
                level = max(level, self._level(x))
        for number in sorted({*beside, *range(len(self.blocks))}, key=lambda b: (b not in beside, b)):
            block = self.blocks[number]
            if block.length == scan.length and (block.level == level or (number in beside and block.level >= level)):
                return number
        self.blocks.append(Block(max([level, *(self.blocks[b].level + 1 for b in beside)]), scan.length))
        return len(self.blocks) - 1

    def _axis(self, node: Node, block: int) -> int | None:
        """The axis along which a node goes step by step with what it reads."""
        timed = {k: self.time[o, block] for k, o in enumerate(node.operands) if (o, block) in self.time}
        for axis, extent in enumerate(node.shape):
            if timed and extent == self.blocks[block].length:
                read = along(node, axis)
                if read is not None and all(read.get(k) == a for k, a in timed.items()):
                    return axis
        return None

    def _mark_sources(self) -> None:
        """What the elements of loops are computed from, and what else is read step by step."""
        for node, block in list(self.block_of.items()):
            for x in Scan.of(node).xs:
                self._mark(x, block, 0)
        for node, block in list(self.time):
            if node.op != "item":
                self._mark_operands(node, block, self.time[node, block])

    def _mark(self, node: Node, block: int, axis: int) -> None:
        if (node, block) not in self.time and not any((node, b) in self.time for b in range(block)):
            self.time[node, block] = axis
            self._mark_operands(node, block, axis)

    def _mark_operands(self, node: Node, block: int, axis: int) -> None:
        for k, a in (along(node, axis) or {}).items():
            if node.operands[k].shape[a] == node.shape[axis]:
                self._mark(node.operands[k], block, a)

    # -- units ------------------------------------------------------------------------------------------------------
    def _is_inner(self, user: Node, operand: Node) -> bool:
        """Short arithmetic without a name is written into its reader's formula."""
        if operand.op == "concat" and user.op == "einsum" and user in self._products:
            return self._same_steps(user, operand)
        if is_elementwise(operand):
            summed = is_elementwise(user) or user.op == "sum"
            inner = (summed and self._same_steps(user, operand)) or user.op == "within"
        else:
            inner = operand.op in FOLDED and is_elementwise(user) and self._same_steps(user, operand)
        return inner and scope_of(self.graph, user) == scope_of(self.graph, operand)

    def _same_steps(self, a: Node, b: Node) -> bool:
        return all(((a, k) in self.time) == ((b, k) in self.time) for k in range(len(self.blocks)))

    def _softmaxes_of_steps(self) -> set[Node]:
        """The parts of softmaxes over all steps, whose sum is no value of one step."""
        pairs = (parts for n in self.graph.nodes if (parts := softmax_parts(n)) is not None)
        return {
            node
            for exp, total in pairs
            for b in range(len(self.blocks))
            if self.time.get((exp, b)) in total.attr("axes")
            for node in (exp, total)
        }

    def _only_products(self) -> set[Node]:
        """The products of scopes that are x W + b and nothing else."""
        scopes: dict[Path, set[str]] = defaultdict(set)
        for node in self.graph.nodes:
            if node.op not in (*LEAVES, *MARKS, "const", "size"):
                scopes[scope_of(self.graph, node)].add(node.op)
        products = (n for n in self.graph.nodes if n.op == "einsum")
        return {n for n in products if scopes[scope_of(self.graph, n)] <= {"einsum", "add"}}

    def _block_of_value(self, node: Node) -> int | None:
        return next((b for b in range(len(self.blocks)) if (node, b) in self.time), None)

    def _make_units(self) -> None:
        self.unit_of: dict[Node, Unit] = {}
        groups: dict[object, list[Unit]] = defaultdict(list)
        for box in self.outline.boxes:
            if box.op == "item":
                continue
            block = self.block_of[box] if box.op == "scan" else self._block_of_value(box)
            scope = scope_of(self.graph, box)
            part = self._part_of(box, block)
            if box.op == "scan":
                unit = Unit("loop", [box], block, scope)
            elif box.op in LEAVES or part is not None:
                unit = Unit("input", [box], block, scope, part)
            else:
                # a scope is one box; what lies before and after a loop in it are two
                key = (scope[0], block, self.loops[box], self._depth(box)) if scope else box
                if self._joined(box, groups[key]):
                    continue
                unit = Unit("work", [box], block, scope[:1])
                groups[key].append(unit)
            self.unit_of[box] = unit
            self.units.append(unit)

    def _joined(self, box: Node, units: list[Unit]) -> bool:
        """Put a box into the one of some units that it reads, with all others that it reads; False if it reads none: a
        scope may be entered again for something else."""
        read = {v for v, _ in self.outline.reads(box)}
        found = [u for u in units if read & set(u.boxes)]
        for unit in found[1:]:
            found[0].boxes += unit.boxes
            self.unit_of |= dict.fromkeys(unit.boxes, found[0])
            units.remove(unit)
            self.units.remove(unit)
        if found:
            found[0].boxes.append(box)
            self.unit_of[box] = found[0]
        return bool(found)

    def _depth(self, box: Node) -> int:
        """How often the way to a value leaves its scope and comes back: boxes of one unit must not lie around another."""
        if not hasattr(self, "_depths"):
            self._depths: dict[Node, int] = {}
            scopes = {n: (scope_of(self.graph, n)[:1], self._block_of_value(n)) for n in self.graph.nodes}
            reached: dict[Node, dict[object, int]] = {}
            for n in self.graph.nodes:
                found: dict[object, int] = {}
                for o in n.operands:
                    for key, depth in reached[o].items():
                        # back in a scope that was left: one deeper
                        deeper = (
                            depth + 1 if key == scopes[n] and scopes[o] != scopes[n] and o.op not in MARKS else depth
                        )
                        found[key] = max(found.get(key, 0), deeper)
                found.setdefault(scopes[n], 0)
                reached[n] = found
                self._depths[n] = found[scopes[n]]
        return self._depths[box]

    def _part_of(self, box: Node, block: int | None) -> Size | None:
        """How many steps later a slice of something begins, where its steps are those of a block; None if it is none."""
        if block is not None and (shifted := shifted_leaf(box)) is not None and shifted[1] == self.time[box, block]:
            return size(-1)
        if block is None or box.op != "slice" or base(box.operands[0]).op not in LEAVES:
            return None
        axis = self.time[box, block]
        whole = all(e == box.operands[0].shape[d] for d, e in enumerate(box.shape) if d != axis)
        if not whole or box.attr("step")[axis] != 1 or (box.operands[0], block) in self.time:
            return None
        start = box.attr("start")[axis]
        assert isinstance(start, Size)
        return start

    def _join(self) -> None:
        for unit in list(self.units):
            if unit.kind == "loop":
                self._join_loop(unit)
            elif unit.kind == "work":
                for box in unit.boxes:
                    for value, operand in self.outline.reads(box):
                        self._read(unit, value, operand)
        for name, node in self.graph.outputs.items():
            value = base(node)
            if value.op == "item" and not self._is_shown(name, value):
                loop = value.operands[0]
                stacked = value.attr("index") >= len(loop.attr("body").carries)
                unit = Unit("output", [node], self.block_of[loop] if stacked else None)
                self.names_of_outputs[unit] = name
                self.units.append(unit)
                self._read(unit, value, node)
        read = {r.source for r in self.readings}
        self.units = [u for u in self.units if u.kind != "input" or u in read]

    def _is_shown(self, name: str, value: Node) -> bool:
        """Is an output what the steps of a loop give, under the name that it has there?"""
        loop, index = value.operands[0], value.attr("index")
        body = loop.attr("body")
        inner = self.known.get(body.results[index])
        if index < len(body.carries) or inner != name:
            return False
        self.given_out.add(loop)
        return True

    names_of_outputs: dict[Unit, str] = field(default_factory=dict)

    def _join_loop(self, unit: Unit) -> None:
        scan = unit.scan
        for x in scan.xs:
            self._read(unit, base(x), x, element=True)
        for k, value in enumerate(scan.init):
            self._read(unit, base(value), value, carry=k)
        for value in scan.given:
            self._read(unit, base(value), value)

    def _read(self, unit: Unit, value: Node, operand: Node, carry: int | None = None, element: bool = False) -> None:
        """Note what a unit reads; weights and numbers are no readings."""
        if value.op == "item":
            loop, result = value.operands[0], value.attr("index")
            source, n = self.unit_of[loop], len(loop.attr("body").carries)
            how = (
                "last"
                if result < n
                else "step"
                if unit.block == source.block and (element or self._in_step(unit, operand))
                else "all"
            )
            self._add(Reading(source, unit, "init" if carry is not None else how, value, carry, result))
            return
        if value not in self.unit_of or self.unit_of[value] is unit:
            return
        source = self.unit_of[value]
        timed = source.block is not None
        if source.kind == "input" and not timed and value.op == "param" and carry is None:
            return
        if carry is not None:
            how = "init"
        elif not timed:
            how = "once"
        elif unit.block == source.block and (element or unit.kind == "work"):
            how = "step"
        else:
            how = "last" if self._reads_last(unit, value) else "all"
        self._add(Reading(source, unit, how, value, carry))

    def is_last(self, node: Node) -> bool:
        """Is it the last step of a value that is there at every step?"""
        value = base(node.operands[0]) if node.op == "slice" else node
        block = self._block_of_value(value)
        if node.op != "slice" or block is None or value is not node.operands[0]:
            return False
        axis = self.time[value, block]
        whole = all(e == value.shape[d] for d, e in enumerate(node.shape) if d != axis)
        return whole and node.shape[axis] == 1 and node.attr("start")[axis] == value.shape[axis] - 1

    def _reads_last(self, unit: Unit, value: Node) -> bool:
        """Does a unit read nothing but the last step of a value?"""
        waiting, readers = list(unit.boxes), set[Node]()
        while waiting:
            node = waiting.pop()
            readers |= {node} if value in map(base, node.operands) else set()
            waiting += [o for o in map(base, node.operands) if o in self.outline.inside]
        return bool(readers) and all(self.is_last(n) for n in readers)

    def _in_step(self, unit: Unit, operand: Node) -> bool:
        return unit.kind in ("work", "output") and unit.block is not None

    def _add(self, reading: Reading) -> None:
        seen = (reading.source, reading.reader, reading.how, reading.carry, reading.result)
        if all((r.source, r.reader, r.how, r.carry, r.result) != seen for r in self.readings):
            self.readings.append(reading)


def along(node: Node, axis: int) -> dict[int, int] | None:
    """operand → the axis of it that runs with an axis of the node; None where one position needs others of an operand."""
    if node.op == "reshape":
        (x,) = node.operands
        before = product(node.shape[:axis])
        found = [d for d in range(x.type.rank) if x.shape[d] == node.shape[axis] and product(x.shape[:d]) == before]
        return {0: found[0]} if found else None
    if node.op in (*LEAVES, "const", "size", "scan", "item", "grad"):
        return None
    formula = row_of(node.op).formula(node)
    if formula is None:
        return None
    result: dict[int, int] = {}
    for clause in formula.clauses:
        place = clause.write[axis]
        if not isinstance(place, Affine) or place.variable is None:
            return None
        step = place.variable
        if clause.box[step] != node.shape[axis] or any(step in g.axes for g in clause.guards):
            return None
        reads = [(r.operand, r.map) for r in clause.reads]
        reads += [(i.operand, i.map) for r in clause.reads for i in r.map if not isinstance(i, Affine)]
        for operand, places in reads:
            for d, index in enumerate(places):
                if (
                    isinstance(index, Affine)
                    and step in index.axes
                    and (index.variable is None or result.setdefault(operand, d) != d)
                ):
                    return None
    return result


def inner_scans(body: Body) -> list[Node]:
    """The loops inside a step."""
    return [n for n in body.nodes if n.op == "scan"]
