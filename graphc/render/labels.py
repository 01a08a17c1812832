"""What is written on the units of a timeline: names with their step below them, formulas, shapes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from ..graph.graph import Graph
from ..graph.node import Node
from ..graph.size import Size
from .cell import Cell, at, step_text
from .names import distinct
from .notation import ATOM, CHOICE, SUM, Printer, number_text, shape_text, size_text
from .outline import base, shifted_leaf
from .picture import Line
from .timeline import Timeline, Unit

RAISED = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")


class Labels:
    """Names and lines for the units of a timeline."""

    def __init__(self, graph: Graph, timeline: Timeline, known: Mapping[Node, str]):
        self.timeline = timeline
        self.known = dict(known)
        self.loops = [u for u in timeline.units if u.kind == "loop"]
        boxes = [b for u in timeline.units if u.kind in ("input", "work") for b in u.boxes]
        self.names = distinct(boxes, self.known)
        for unit in timeline.units:
            if unit.offset is not None and unit.boxes[0] not in self.known:
                self.names[unit.boxes[0]] = self.known[source_of_part(unit.boxes[0])]
        first = {u: Cell(graph, u.boxes[0], self.known, ["x"] * len(u.scan.xs), self._given(u)) for u in self.loops}
        shared = Counter(name for cell in first.values() for name in cell.states)
        number: Counter[str] = Counter()
        self.cells: dict[Unit, Cell] = {}
        for unit, cell in first.items():
            mark = ""
            if any(shared[name] > 1 for name in cell.states):
                number[cell.states[0]] += 1
                mark = f"⁽{str(number[cell.states[0]]).translate(RAISED)}⁾"
            elements = [self._element(x) for x in unit.scan.xs]
            self.cells[unit] = Cell(graph, unit.boxes[0], self.known, elements, self._given(unit), mark)

    def _element(self, x: Node) -> str:
        """The name of what a loop takes an element of at every step."""
        value = base(x)
        if value.op == "item":
            unit = self.timeline.unit_of[value.operands[0]]
            return self.cells[unit].result(value.attr("index"), "t").removesuffix("_{t}")
        return self._title_of(value).rsplit("/", 1)[-1]

    def _given(self, unit: Unit) -> dict[Node, str]:
        """The names of what all steps of a loop share."""
        names: dict[Node, str] = {}
        for operand in unit.scan.given:
            value = base(operand)
            if value.op == "item":
                source = self.timeline.unit_of[value.operands[0]]
                names[operand] = (
                    self.whole(source, value.attr("index")) if source in getattr(self, "cells", {}) else "h"
                )
            else:
                names[operand] = self._title_of(value).rsplit("/", 1)[-1]
        return names

    def _title_of(self, value: Node) -> str:
        """The name of a value, as the unit that computes it has it."""
        unit = self.timeline.unit_of.get(value)
        return self.title_name(unit, value) if unit is not None and unit.kind == "work" else self._name(value)

    def _name(self, value: Node) -> str:
        return self.names.get(value) or self.known.get(value) or "x"

    # -- names ------------------------------------------------------------------------------------------------------
    def whole(self, unit: Unit, result: int) -> str:
        """A result of a loop: its last state, or what all steps gave."""
        cell, scan = self.cells[unit], unit.scan
        if result < len(cell.states):
            return cell.result(result, "1" if scan.reverse else scan.length)
        name = cell.result(result, "t").removesuffix("_{t}")
        return at(name, f"1…{step_text(scan.length)}")

    def value(self, value: Node, operand: Node, unit: Unit, step: Size | str) -> str:
        """A value as a unit writes it at a step."""
        if value.op == "item":
            source, index = self.timeline.unit_of[value.operands[0]], value.attr("index")
            if self._steps(unit, value, source) and index >= len(self.cells[source].states):
                return self.cells[source].result(index, step)
            return self.whole(source, index)
        name = self._name(value)
        source_unit = self.timeline.unit_of.get(value)
        if source_unit is not None and source_unit.kind == "work":
            name = self.title_name(source_unit, value)
        if source_unit is None or source_unit.block is None:
            return name.rsplit("/", 1)[-1] if value.op == "param" else name
        length = self.timeline.blocks[source_unit.block].length
        if source_unit is unit or self._steps(unit, value, source_unit):
            return self.named(source_unit, name, step)
        return at(name, f"1…{step_text(length)}")

    def _steps(self, unit: Unit, value: Node, source: Unit) -> bool:
        """Does a unit read the value of its own step?"""
        return unit.block is not None and unit.block == source.block

    def named(self, unit: Unit, name: str, step: Size | str) -> str:
        """A value of a unit at a step, a part of an input by the place in the whole."""
        if unit.offset is not None and unit.offset.constant is not None and unit.boxes[0] not in self.known:
            return at(name, step_text(step, unit.offset.constant))
        return at(name, step_text(step))

    def title_name(self, unit: Unit, box: Node) -> str:
        """A value's name; of one without a name, which a scope computes, that of the scope."""
        if box.op == "within":
            return "active"
        return unit.scope[0] if unit.kind == "work" and unit.scope and box not in self.known else self._name(box)

    def whole_of_steps(self, unit: Unit) -> str:
        """All steps of a value together: `h_{1…T}`."""
        r = next(r for r in self.timeline.readings if r.reader is unit)
        if r.result is not None:
            return self.whole(r.source, r.result)
        assert r.source.block is not None
        length = self.timeline.blocks[r.source.block].length
        return at(self.title_name(r.source, r.value), f"1…{step_text(length)}")

    # -- lines ------------------------------------------------------------------------------------------------------
    def title(self, unit: Unit, step: Size | str) -> str:
        """What a unit computes, by name alone: `logits_{2}`."""
        box = unit.boxes[-1]
        if unit.kind == "stack":
            return self.whole_of_steps(unit)
        if unit.kind == "output":
            name = self.timeline.names_of_outputs[unit]
            return at(name, step_text(step)) if unit.block is not None else name
        name = self.title_name(unit, box)
        return self.named(unit, name, step) if unit.block is not None else name

    def lines(self, unit: Unit, step: Size | str = "t") -> list[Line]:
        """A unit with its formula and the shape of one step."""
        title = self.title(unit, step)
        formula = self._formula(unit, step)
        text = f"{title} = {formula}" if formula and formula != title else title
        of = self._read_names(unit, step) if not formula and unit.kind == "work" else ""
        lines = [Line(text, "title" if len(text) < 28 else "formula"), Line(self.shape(unit), "small")]
        if unit.kind == "input" and shifted_leaf(unit.boxes[0]) is not None:
            first = base(unit.boxes[0].operands[0]).attr("value").array.item()
            lines.insert(1, Line(f"at first {number_text(first)}", "small"))
        return [lines[0], Line(f"of {of}", "small"), lines[1]] if of else lines

    def _read_names(self, unit: Unit, step: Size | str) -> str:
        inside = set(unit.boxes)
        read = dict.fromkeys(
            self.value(v, o, unit, step)
            for b in unit.boxes
            for v, o in self.timeline.outline.reads(b)
            if v not in inside and (v.op == "item" or v in self.timeline.unit_of)
        )
        return ", ".join(read)

    def _formula(self, unit: Unit, step: Size | str) -> str:
        if unit.kind == "input":
            shifted = shifted_leaf(unit.boxes[0])
            return at(self.known[source_of_part(unit.boxes[0])], step_text(step, -1)) if shifted else ""
        box = unit.boxes[-1]
        if unit.kind == "output":
            value = base(box)
            return self.value(value, box, unit, step) if value.op == "item" else ""
        if len(unit.boxes) > 1:
            known = box in self.known and unit.scope
            return f"{unit.scope[0]}({self._read_names(unit, step)})" if known else ""
        return StepPrinter(self, unit, step).formula(box)

    def shape(self, unit: Unit) -> str:
        """The shape of one step of a unit, or of all of it."""
        node = unit.boxes[-1]
        if unit.block is None:
            return shape_text(node.type)
        if unit.kind == "output":
            node = base(node)
            axis: int | None = 0
        else:
            axis = self.timeline.time.get((node, unit.block))
        extents = [size_text(e) for d, e in enumerate(node.shape) if d != axis]
        text = f"({', '.join(extents)})" if extents else "scalar"
        return text if node.dtype.is_float else f"{text} {node.dtype.name.rstrip('_')}"

    def begin(self, value: Node) -> str:
        """What a state is at first, where it is a number."""
        node = base(value)
        if node.op == "const" and not node.shape:
            return number_text(node.attr("value").array.item())
        return self._name(node) if node in self.names or node in self.known else "…"


def source_of_part(part: Node) -> Node:
    """The input that a slice, or a shift, is of."""
    shifted = shifted_leaf(part)
    return base(shifted[0] if shifted else part.operands[0])


class StepPrinter(Printer):
    """The formula of a unit at one step, where the axis of the steps is not there."""

    def __init__(self, labels: Labels, unit: Unit, step: Size | str):
        super().__init__(labels.timeline.outline, lambda value, reader: labels.value(value, value, unit, step))
        self.labels, self.unit, self.step = labels, unit, step_text(step)

    def operand(self, operand: Node, box: Node, level: int = CHOICE) -> str:
        """An operand that only moved the axis of the steps is not transposed at a step."""
        value, times = base(operand), self.labels.timeline.time
        for b in range(len(self.labels.timeline.blocks)):
            if operand is not value and (operand, b) in times:
                own = 0 if value.op == "item" else times.get((value, b))
                if _without(operand, times[operand, b]) == _without(value, own):
                    return super().operand(value, box, level)
        return super().operand(operand, box, level)

    def _node(self, node: Node, box: Node) -> tuple[str, int]:
        """The position of a step, which counts from 0, by its number, which counts from 1."""
        if node.op == "less" and self._is_position(node.operands[0]):
            return f"{self.step} ≤ {self.operand(node.operands[1], box, SUM)}", CHOICE
        if self._is_position(node):
            return f"{self.step} − 1", SUM
        timeline = self.labels.timeline
        if timeline.is_last(node):
            source = timeline.unit_of[node.operands[0]]
            assert source.block is not None
            return self.labels.named(
                source, self.labels.title_name(source, node.operands[0]), timeline.blocks[source.block].length
            ), ATOM
        return super()._node(node, box)

    def _is_position(self, operand: Node) -> bool:
        """Is it 0, 1, 2, … along the steps?"""
        node = base(operand)
        if node.op != "arange" or self.unit.block is None or (node, self.unit.block) not in self.labels.timeline.time:
            return False
        return bool(node.attr("start") == 0 and node.attr("step") == 1)

    def formula(self, box: Node) -> str:
        """A step counts from 1, `within` from 0 to the last."""
        if box.op == "within":
            count, one = box.operands[0].operands if box.operands[0].op == "sub" else (box.operands[0], None)
            return f"{self.step} ≤ {self.operand(count, box)}" + ("" if one is not None else " + 1")
        return super().formula(box)


def _without(node: Node, axis: int | None) -> list[Size]:
    return [e for d, e in enumerate(node.shape) if d != axis]
