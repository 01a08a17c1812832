"""A loop's step as it is written: its states, its formulas with the step below each name, and what its weights act on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..graph.graph import Graph
from ..graph.node import Node
from ..graph.size import Size
from ..ops.build import is_elementwise
from ..ops.scan import Scan
from .dot import SUBSCRIPT
from .names import distinct
from .notation import Printer, size_text, subscript
from .outline import LEAVES, Outline, base, condition, mean, written
from .walk import reached


@dataclass(frozen=True)
class Weight:
    """A value that all steps share. on: the inputs of the step that products with it are computed from."""

    name: str
    operand: Node
    inner: Node
    on: frozenset[Node]


def at(name: str, step: str) -> str:
    """The name of a value at a step: `h_{t}`."""
    return f"{name}_{{{step}}}"


def step_text(step: Size | str, by: int = 0) -> str:
    """A step by its number or its letter, some steps later: `2`, `t−1`, `T+1`."""
    if isinstance(step, Size):
        return size_text(step + by).replace(" ", "").replace("-", "−")
    return step if not by else f"{step}{'+' if by > 0 else '−'}{abs(by)}"


class Cell:
    """The step of a loop, read with the names of a graph.

    states: the names of its carries; elements: of what it takes at each step; gives: of what it gives.
    """

    def __init__(
        self,
        graph: Graph,
        loop: Node,
        known: Mapping[Node, str],
        elements: Sequence[str],
        given: Mapping[Node, str],
        mark: str = "",
    ):
        """known: names of the graph's values; given: of what all steps share, by operand; mark: what tells the names of
        the states from those of other loops."""
        self.scan, self.known = Scan.of(loop), known
        body = self.scan.body
        self.graph = body.graph("step", graph.tables)
        inside = self._inside(known)
        taken: set[str] = set()
        pairs = list(zip(body.carries, body.new_carries, strict=True))
        self.states = [_fresh(inside.get(unmasked(new, old), "s") + mark, taken) for old, new in pairs]
        self.elements = [_fresh(name, taken) for name in elements]
        self.masked = any(unmasked(n, o) is not n for o, n in pairs)
        self.held = {n for o, n in pairs if unmasked(n, o) is not n}
        self.held |= {n for n in body.gives if unmasked(n, None) is not n}
        inside |= {unmasked(new, old): name for (old, new), name in zip(pairs, self.states, strict=True)}
        for number, node in enumerate(body.gives):
            inside.setdefault(unmasked(node, None), f"y{subscript(number + 1)}" if len(body.gives) > 1 else "y")
        inside = {n: name for n, name in inside.items() if n.op != "input" and n not in self.held}
        idioms = written(self.graph, inside)
        self.outline = Outline(self.graph, (mean, condition, self._is_inner), {*inside, *self.held}, idioms)
        self.boxes = [b for b in self.outline.boxes if b.op not in LEAVES and b not in self.held]
        self.boxes = self._ordered(self.boxes)
        self.names = distinct(self.boxes, inside)
        self.weights = self._weights(given)

    def _inside(self, known: Mapping[Node, str]) -> dict[Node, str]:
        """The model's names for values of the step; of several made by one line the last."""
        named: dict[str, list[Node]] = {}
        for node in self.scan.body.nodes:
            if node in known and node.op != "input":
                named.setdefault(known[node], []).append(node)
        return {nodes[-1]: name for name, nodes in named.items()}

    def _ordered(self, boxes: list[Node]) -> list[Node]:
        """In the order of the model's lines, as far as each comes after what it reads; of one line as they are needed, the
        longest chain first."""
        reads = {b: [v for v, _ in self.outline.reads(b)] for b in boxes}
        depth: dict[Node, int] = {}
        for b in boxes:  # operands come before users
            depth[b] = 1 + max((depth[v] for v in reads[b] if v in depth), default=0)
        needed: dict[Node, None] = {}

        def need(b: Node) -> None:
            if b in depth and b not in needed:
                for v in sorted(reads[b], key=lambda v: -depth.get(v, 0)):
                    need(v)
                needed[b] = None

        for b in sorted(boxes, key=lambda b: -depth[b]):
            need(b)
        lines = {b: s.line if (s := self.graph.tables.source(b)) else 0 for b in boxes}
        ready: list[Node] = []
        waiting = list(needed)
        while waiting:
            able = [b for b in waiting if not set(reads[b]) & set(waiting)] or waiting[:1]
            ready.append(min(able, key=lambda b: lines[b]))
            waiting.remove(ready[-1])
        return ready

    def _is_inner(self, user: Node, operand: Node) -> bool:
        """A value without a name is written into its reader's formula."""
        return is_elementwise(operand) or operand.op in ("einsum", "slice", "take")

    def _weights(self, given: Mapping[Node, str]) -> list[Weight]:
        """What all steps share."""
        pairs = zip(self.scan.body.given, self.scan.given, strict=True)
        return [Weight(given[o], o, inner, frozenset(self._acts_on(inner))) for inner, o in pairs]

    def _acts_on(self, weight: Node) -> set[Node]:
        """The inputs of a step that products with a weight are computed from."""
        own = {*self.scan.body.carries, *self.scan.body.elements}
        found: set[Node] = set()
        for node in self.scan.body.nodes:
            if node.op == "einsum" and any(base(o) is weight for o in node.operands):
                for o in node.operands:
                    found |= reached(o) & own
        return found

    # -- text -------------------------------------------------------------------------------------------------------
    def before(self, step: Size | str) -> str:
        """The step whose states a step begins with."""
        return step_text(step, 1 if self.scan.reverse else -1)

    def input_names(self, step: Size | str) -> dict[Node, str]:
        """The names of what a step reads."""
        body, here = self.scan.body, step_text(step)
        names = {c: at(n, self.before(step)) for c, n in zip(body.carries, self.states, strict=True)}
        names |= {x: at(n, here) for x, n in zip(body.elements, self.elements, strict=True)}
        return names | {w.inner: w.name for w in self.weights}

    def result(self, number: int, step: Size | str) -> str:
        """A result of the loop at a step: a state after it, or what it gives."""
        body = self.scan.body
        n = len(body.carries)
        if number < n:
            return at(self.states[number], step_text(step))
        node = unmasked(body.results[number], None)
        if node in body.inputs:
            return self.input_names(step)[node]
        name = self.names.get(base(node))
        return at(name, step_text(step)) if name else at("y", step_text(step))

    def result_name(self, number: int) -> str:
        """The name of a result of the loop without its step."""
        return SUBSCRIPT.sub("", self.result(number, "t"))

    def names_at(self, step: Size | str) -> dict[Node, str]:
        """The names of a step's inputs and of its values."""
        return self.input_names(step) | {box: at(self.names[box], step_text(step)) for box in self.boxes}

    def formulas(self, step: Size | str = "t") -> list[str]:
        """A line for each value with a name, in the order of their computation; for loops inside, their lines too."""
        here, names = step_text(step), self.names_at(step)
        printer = Printer(self.outline, lambda node, reader: names.get(node, "?"))
        lines: list[str] = []
        inner: dict[Node, Cell] = {}
        for box in self.boxes:
            if box.op == "scan":
                cell = inner[box] = self._inner_cell(box, names)
                after = cell.after(here)
                lines.append(f"for {after} = 1, …, {size_text(cell.scan.length)}{cell.beginning(printer, box)}:")
                lines += [f"    {text}" for text in cell.formulas(after)]
            elif box.op == "item":
                cell, number = inner[box.operands[0]], box.attr("index")
                last = number < len(cell.states)
                names[box] = cell.result(number, cell.scan.length if last else cell.after(here)) if last else "y"
            else:
                lines.append(f"{names[box]} = {printer.formula(box)}")
        return lines

    def _inner_cell(self, loop: Node, names: Mapping[Node, str]) -> Cell:
        """The step of a loop inside the step."""
        scan = Scan.of(loop)
        plain = {n: SUBSCRIPT.sub("", name) for n, name in names.items()}
        elements = [plain.get(base(x), "x") for x in scan.xs]
        given = {o: names.get(base(o), "w") for o in scan.given}
        return Cell(self.graph, loop, self.known, elements, given)

    def after(self, step: str) -> str:
        """The letter of a step of this loop inside a step of another."""
        return chr(ord(step[0]) + 1) if step[0].isalpha() else "u"

    def beginning(self, printer: Printer, reader: Node) -> str:
        """`, from w_{0} = 0`: the states that a loop begins with."""
        zero = size_text(self.scan.length + 1) if self.scan.reverse else "0"
        pairs = zip(self.states, self.scan.init, strict=True)
        return ", from " + ", ".join(f"{at(n, zero)} = {printer.operand(v, reader)}" for n, v in pairs)


def _fresh(name: str, taken: set[str]) -> str:
    found = name
    while found in taken:
        found += "′"
    taken.add(found)
    return found


def unmasked(new: Node, old: Node | None) -> Node:
    """The value behind `new if the sequence goes on else old`."""
    if new.op == "where":
        mask, value, other = new.operands
        source = base(mask)
        is_mask = source.op == "input" and source.attr("name").startswith("element:")
        if is_mask and (other is old or (old is None and base(other).op == "const")):
            return value
    return new
