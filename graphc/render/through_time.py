"""How the gradient goes back through an unrolled picture: which arrows it takes, and the local derivative on each."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import InputError
from ..graph.graph import Graph
from ..graph.node import Node
from ..graph.size import Size
from ..ops.table import row_of
from .cell import at, step_text
from .jacobian import Jacobians
from .labels import Labels, StepPrinter
from .notation import Printer
from .outline import base
from .timeline import Reading, Timeline, Unit
from .walk import reached

SHORT = 44
"""Characters of a local derivative that is written on an arrow."""
LONG = 70
"""Characters of the derivative of a step; of a longer one its parts are told."""


class ThroughTime:
    """The gradient of `loss` by the parameters (or, in a model without any, by its inputs) in a timeline."""

    def __init__(self, graph: Graph, timeline: Timeline, labels: Labels):
        if "loss" not in graph.outputs:
            raise InputError(
                f"model {graph.name} has no output named 'loss', so no gradient goes back through time",
                how="return gc.outputs(loss=…), a scalar, or leave --backward out",
            )
        self.timeline, self.labels = timeline, labels
        self.needed = reached(graph.outputs["loss"])
        leaves = [n for n in graph.nodes if n.op == "param"] or [n for n in graph.nodes if n.op == "input"]
        self.flowing = {n for n in leaves if n.dtype.is_float}
        for node in graph.nodes:
            if any(o in self.flowing for o in node.operands) and row_of(node.op).differentiable:
                self.flowing.add(node)
        self._known: dict[tuple[Unit, Node, Node, str], str | None] = {}

    def carries(self, r: Reading) -> bool:
        """Does a gradient come back along a reading?"""
        if r.reader.kind == "output" or r.value not in self.flowing or not r.value.dtype.is_float:
            return False
        if r.reader.kind == "stack":
            return any(self.carries(q) for q in self.timeline.readings if q.source is r.reader)
        return any(b in self.needed for b in r.reader.boxes)

    def through(self, unit: Unit, k: int) -> bool:
        """Does a gradient come back from step to step along a state?"""
        (loop,) = unit.boxes
        body = unit.scan.body
        return (
            loop in self.needed
            and loop in self.flowing
            and self.local(unit, body.new_carries[k], body.carries[k]) != "0"
        )

    def local(self, unit: Unit, y: Node, x: Node, step: Size | str = "t") -> str | None:
        """∂y/∂x inside a step of a loop."""
        key = unit, y, x, step_text(step)
        if key not in self._known:
            cell = self.labels.cells[unit]
            names = cell.names_at(step)
            printer = Printer(cell.outline, lambda node, reader: names.get(node, "?"))
            self._known[key] = Jacobians(printer, cell.held).text(y, x)
        return self._known[key]

    def on_arrow(self, unit: Unit, k: int, step: Size) -> list[str]:
        """The lines on the arrow back along a state into the step before, from a step."""
        cell = self.labels.cells[unit]
        body = unit.scan.body
        name = f"∂{at(cell.states[k], step_text(step))}/∂{at(cell.states[k], cell.before(step))}"
        value = self.local(unit, body.new_carries[k], body.carries[k], step)
        return [name] if value is None or len(value) > SHORT else [name, f"= {value}"]

    # -- what is said of one step -------------------------------------------------------------------------------------
    def lines(self, unit: Unit) -> list[str]:
        """For each state its gradient as the sum of what comes from above and from the next step; the local derivatives."""
        cell, body = self.labels.cells[unit], unit.scan.body
        after = step_text("t", -1 if unit.scan.reverse else 1)
        lines = []
        for k, state in enumerate(cell.states):
            here = at(state, "t")
            above = self._above(unit, body.new_carries[k])
            terms = [f"{sign}∂L/∂{name} ∂{name}/∂{here}" for name, sign in above.items()]
            for j, other in enumerate(cell.states):
                if self.local(unit, body.new_carries[j], body.carries[k]) != "0":
                    terms.append(f"∂L/∂{at(other, after)} ∂{at(other, after)}/∂{here}")
            lines.append(f"∂L/∂{here} = {' + '.join(terms) or '0'}")
            lines += self._after_the_last(unit, k)
        inputs = [(c, at(n, cell.before("t"))) for c, n in zip(body.carries, cell.states, strict=True)]
        inputs += [
            (e, at(n, "t"))
            for e, n, x in zip(body.elements, cell.elements, unit.scan.xs, strict=True)
            if base(x) in self.flowing and e.dtype.is_float
        ]
        pairs = [
            (y, at(n, "t"), x, name) for y, n in zip(body.new_carries, cell.states, strict=True) for x, name in inputs
        ]
        found = [(f"∂{y_name}/∂{x_name}", self.local(unit, y, x)) for y, y_name, x, x_name in pairs]
        if any(value is None or len(value) > LONG for _, value in found):
            found = self._by_values(unit, inputs)
        return lines + [f"{left} = {value}" for left, value in found if value not in (None, "0")]

    def _after_the_last(self, unit: Unit, k: int) -> list[str]:
        """Where the gradient of a state begins, when something reads the last."""
        last = self.labels.cells[unit].result(k, "1" if unit.scan.reverse else unit.scan.length)
        found: dict[str, None] = {}
        for r in self.timeline.readings:
            if r.source is unit and r.result == k and r.how in ("last", "init") and self.carries(r):
                if r.carry is None:
                    found[self.labels.title(r.reader, "t")] = None
                else:
                    cell = self.labels.cells[r.reader]
                    first = step_text(r.reader.scan.length) if r.reader.scan.reverse else "1"
                    found |= dict.fromkeys(at(n, first) for n in cell.states)
        terms = " + ".join(f"∂L/∂{name} ∂{name}/∂{last}" for name in found)
        return [f"∂L/∂{last} = {terms}"] if found else []

    def _by_values(self, unit: Unit, inputs: Sequence[tuple[Node, str]]) -> list[tuple[str, str | None]]:
        """The local derivative of each value of a step with a name by those with a name that it is computed from."""
        cell = self.labels.cells[unit]
        names = cell.names_at("t")
        jacobians = Jacobians(Printer(cell.outline, lambda node, reader: names.get(node, "?")), cell.held)
        ends = [*(b for b in cell.boxes if b.dtype.is_float), *(n for n, _ in inputs)]
        called = dict(inputs) | {b: names[b] for b in cell.boxes}
        return [
            (f"∂{names[y]}/∂{called[x]}", jacobians.text(y, x, ends))
            for y in cell.boxes
            if y.dtype.is_float
            for x in ends
            if x is not y and x in reached(y)
        ]

    def _above(self, unit: Unit, state: Node) -> dict[str, str]:
        """The values outside of a loop that are computed from a state of every step: name → the sum over their steps."""
        body = unit.scan.body
        found: dict[str, str] = {}
        for r in self.timeline.readings:
            if r.source is not unit or r.result is None or r.how not in ("step", "all") or not self.carries(r):
                continue
            given = r.result >= len(body.carries)
            if not given or not (body.results[r.result] is state or self._gives(unit, r.result, state)):
                continue
            readers = [r.reader]
            if r.reader.kind == "stack":  # every step of another loop reads all of these
                readers = [q.reader for q in self.timeline.readings if q.source is r.reader]
            for reader in readers:
                step, sign = ("u", "Σ_{u} ") if r.reader.kind == "stack" else ("t", "")
                states = self.labels.cells[reader].states if reader.kind == "loop" else ()
                names = [at(n, step) for n in states] or [self.labels.title(reader, step)]
                found |= dict.fromkeys(names, sign)
        return found

    def _gives(self, unit: Unit, result: int, state: Node) -> bool:
        """Is what a step gives a state, but for the mask of a sequence's end?"""
        given, cell = unit.scan.body.results[result], self.labels.cells[unit]
        return given in cell.held and state in cell.held and given.operands[1] is state.operands[1]

    def of_work(self, unit: Unit) -> list[str]:
        """The local derivatives of a unit that is one operation, by what it reads."""
        if len(unit.boxes) != 1 or unit.block is None:
            return []
        (box,) = unit.boxes
        jacobians = Jacobians(StepPrinter(self.labels, unit, "t"), (), self._only_moved)
        lines = []
        for r in self.timeline.readings:
            if r.reader is unit and r.how == "step" and self.carries(r):
                value = jacobians.text(box, r.value)
                if value not in (None, "0"):
                    name = self.labels.value(r.value, r.value, unit, "t")
                    lines.append(f"∂{self.labels.title(unit, 't')}/∂{name} = {value}")
        return lines

    def _only_moved(self, node: Node) -> bool:
        """Is it the same values with the axis of the steps at another place?"""
        (x, *rest) = node.operands
        if node.op not in ("transpose", "reshape") or rest:
            return False
        time = self.timeline.time
        for b in range(len(self.timeline.blocks)):
            if (node, b) in time and (x, b) in time:
                return _without(node, time[node, b]) == _without(x, time[x, b])
        return False


def _without(node: Node, axis: int) -> Sequence[Size]:
    return [e for d, e in enumerate(node.shape) if d != axis]
