"""The columns of an unrolled picture: one for a general step, one for each step that is drawn, and the arrows in and between
them."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property

from ..graph.size import Size
from .cell import at
from .grid import Column
from .metrics import extent_of
from .outline import base
from .picture import Line, Place
from .route import PITCH as LANE
from .route import Port
from .sheet import ACROSS, PITCH, Sheet
from .timeline import Reading, Unit

BAND = 12.0
"""The parts of a loop's side, above and below its states, where arrows from step to step leave and enter."""
Net = tuple[Unit, str, bool]
"""What arrows around boxes have in common that share a lane: the source, the kind, whether a gradient comes back."""


class Columns(Sheet):
    """The part of a picture that has columns."""

    # -- in a column -----------------------------------------------------------------------------------------------------
    def _column(self, b: int, x: float, step: Size | str, name: str, width: float) -> None:
        """The boxes of a step, one above the other, and the arrows between them."""
        rolled = name == "t"
        for unit in self.rows[b]:
            lines = self._lines(unit, step, rolled)
            w, h = self._size(unit, lines)
            if unit.kind != "input":
                w = width
            if unit.kind == "loop":
                h = max(h, self.row[unit].height if not rolled else h)
            kind = self._box_kind(unit)
            self._box(
                f"{self.id[unit]}.{name}", kind, lines, x, self.row[unit].y, (w, h), self.labels.title(unit, step)
            )
        for q in self._steps(b):
            self._upwards(b, q, name, x, width)

    def _steps(self, b: int) -> list[Reading]:
        """What the units of a column read in it."""
        return [q for unit in self.rows[b] for q in self.reads[unit] if q.how == "step"]

    def _is_next(self, b: int, q: Reading) -> bool:
        rows = self.rows[b]
        return rows.index(q.reader) == rows.index(q.source) + 1

    def _net(self, q: Reading) -> Net:
        kind = "flow"
        if q.reader.kind == "loop":
            body = q.reader.scan.body
            places = [v for v, o in zip(body.elements, q.reader.scan.xs, strict=True) if base(o) is q.value]
            kind = (self._kind(q.reader, places[0]) if places else "") or "flow"
        return q.source, kind, self._carries(q)

    @cached_property
    def _lane_of(self) -> list[dict[Net, int]]:
        """For each block the lanes, beside a column, of the arrows around boxes: short ones inside, none over another."""
        found: list[dict[Net, int]] = []
        for b in self.blocks:
            rows, spans = self.rows[b], dict[Net, tuple[int, int]]()
            for q in self._steps(b):
                if not self._is_next(b, q):
                    low, high = rows.index(q.source), rows.index(q.reader)
                    spans[self._net(q)] = low, max(high, spans.get(self._net(q), (low, high))[1])
            lanes: list[list[tuple[int, int]]] = []
            found.append({})
            for net, (low, high) in sorted(spans.items(), key=lambda s: (s[1][1] - s[1][0], s[1])):
                free = [k for k, taken in enumerate(lanes) if all(high < a or c < low for a, c in taken)]
                lane = free[0] if free else len(lanes)
                if not free:
                    lanes.append([])
                lanes[lane].append((low, high))
                found[b][net] = lane
        return found

    def _beside_column(self, b: int) -> float:
        """How wide the lanes beside a column are."""
        lanes = self._lane_of[b].values()
        return 12 + LANE * (1 + max(lanes)) if lanes else 14.0

    def _heights(self, b: int, unit: Unit, p: Place) -> tuple[dict[Net, float], dict[Net, float]]:
        """Where, at the left of a box, arrows around others enter and leave; so that none crosses another for it."""
        far = [q for q in self._steps(b) if not self._is_next(b, q)]
        lane = self._lane_of[b]
        enter = sorted({self._net(q): None for q in far if q.reader is unit}, key=lambda n: lane[n])
        leave = sorted({self._net(q): None for q in far if q.source is unit}, key=lambda n: -lane[n])
        if unit.kind == "loop":
            low, high = _spread(p.low + 2, p.low + BAND, len(enter)), _spread(p.high - BAND, p.high - 2, len(leave))
            return dict(zip(enter, low, strict=True)), dict(zip(leave, high, strict=True))
        if unit.kind == "input":
            return {}, dict.fromkeys(leave, p.y)
        ys = _spread(p.low + 2, p.high - 2, len(enter) + len(leave))
        return dict(zip(enter, ys, strict=False)), dict(zip(leave, ys[len(enter) :], strict=True))

    def _upwards(self, b: int, q: Reading, name: str, x: float, width: float) -> None:
        """The arrow from a unit to one above it in the same column: straight, or around what lies between."""
        ends = f"{self.id[q.source]}.{name}", f"{self.id[q.reader]}.{name}"
        low, high = self.place[ends[0]], self.place[ends[1]]
        net = self._net(q)
        _, kind, back = net
        said = name == "t" and kind != "flow" and not self.back
        if self._is_next(b, q):
            self._edge(*ends, kind, [(x, low.high), (x, high.low)], back)
            if said:
                self._weight_note(q.reader, kind, x + 5, (low.high + high.low) / 2, ends[1] + ".in")
            return
        lane = x - width / 2 - 12 - LANE * self._lane_of[b][net]
        leave = self._heights(b, q.source, low)[1][net]
        enter = self._heights(b, q.reader, high)[0][net]
        self._edge(*ends, kind, [(low.left, leave), (lane, leave), (lane, enter), (high.left, enter)], back)
        if said:
            self._weight_note(q.reader, kind, x - width / 2 - self._beside_column(b) - 12, enter - 2, ends[1] + ".in")

    def _weight_note(self, unit: Unit, kind: str, x: float, y: float, id: str) -> None:
        """The name of the weight of a colour, beside the arrow that it acts on."""
        names = [
            w.name
            for w in self.labels.cells[unit].weights
            if base(w.operand) in self.colour and f"weight{self.colour[base(w.operand)]}" == kind
        ]
        lines = (Line(names[0], kind),)
        self._note(id, lines, x + extent_of(lines)[0] / 2, y)

    # -- the general step ------------------------------------------------------------------------------------------------
    def _rolled(self, b: int, x: float) -> float:
        """The general step of a block, and what it hands on to itself; where it ends on the right."""
        names = [extent_of((Line("/".join(u.scope), "scope"),))[0] for u in self.rows[b] if u.kind == "loop"]
        lanes = self._beside_column(b) + 4
        left = x + lanes + max(names, default=0.0)
        middle = left + self.rolled_width[b] / 2
        self._column(b, middle, "t", "t", self.rolled_width[b])
        right = middle + self.rolled_width[b] / 2
        most = 0.0
        for unit in self.rows[b]:
            if unit.kind != "loop":
                continue
            most = max(most, self._again(unit))
            if unit.scope:
                p = self.place[f"{self.id[unit]}.t"]
                lines = [Line("/".join(unit.scope), "scope")]
                self._note(f"{self.id[unit]}.name", lines, p.left - lanes - extent_of(lines)[0] / 2, p.high - 8)
        self._note(f"head{b}.t", [Line("step t", "step")], middle, -32)
        return right + most + 14

    def _again(self, unit: Unit) -> float:
        """The arrows of a general step back into itself; how far they and their text stand out."""
        cell, me = self.labels.cells[unit], f"{self.id[unit]}.t"
        p, most = self.place[me], 0.0
        for k, dy in enumerate(self._offsets(unit)):
            kind = self._kind(unit, unit.scan.body.carries[k]) or "state"
            y, out = p.y + dy, p.right + 20
            route = [(p.right, y + 4), (out, y + 4), (out, y - 4), (p.right, y - 4)]
            self._edge(me, me, kind, route, self._passes(unit, k))
            now, then = at(cell.states[k], "t"), at(cell.states[k], cell.before("t"))
            # the way of the arrow: values from the step before, gradients back to it
            text = f"∂L/∂{now} → ∂L/∂{then}" if self._passes(unit, k) else f"{then} → {now}"
            lines = [Line(text, "small")]
            width = extent_of(lines)[0]
            weights = [
                w.name for w in cell.weights if unit.scan.body.carries[k] in w.on and base(w.operand) in self.colour
            ]
            self._note(f"{me}.loop{k}", lines, out + 5 + width / 2, y)
            at_right = out + 5 + width
            if kind != "state" and len(weights) == 1 and not self.back:
                note = (Line(weights[0], kind),)
                self._note(f"{me}.w{k}", note, at_right + 7 + extent_of(note)[0] / 2, y)
                at_right += 7 + extent_of(note)[0]
            most = max(most, at_right - p.right)
        return most

    # -- the columns of a block ------------------------------------------------------------------------------------------
    def _columns(self, b: int, start: float) -> float:
        """The columns of a block, the first right of an x; where they end on the right."""
        lanes = self._beside_column(b)
        labels = [
            self._label_width(u, c.step)
            for u in self.rows[b]
            if u.kind == "loop"
            for c in self.columns[b]
            if c.step is not None
        ]
        rising = {
            r.value
            for unit in self.timeline.units
            for r in self.reads[unit]
            if r.how == "all" and r.source.block == b and r.source is not self.rows[b][-1]
        }
        gap = max(ACROSS, lanes + 22, *(w + lanes + 18 for w in labels if w)) + LANE * max(len(rising) - 1, 0)
        at_x = start + max(lanes, 16.0)
        columns: list[tuple[Column, float]] = []
        for c in self.columns[b]:
            width = self.width[b] if c.step is not None else 22.0
            columns.append((c, at_x + width / 2))
            at_x += width + gap
        for n, (c, middle) in enumerate(columns):
            self.x_of[b, n] = middle
            if c.step is not None:
                self._column(b, middle, c.step, str(n), self.width[b])
            self._note(f"head{b}.{n}", [Line(f"t = {c.text}" if c.step is not None else "…", "step")], middle, -32)
        for unit in self.rows[b]:
            if unit.kind == "loop":
                self._through_time(b, unit)
        return at_x - gap

    def _through_time(self, b: int, unit: Unit) -> None:
        """The arrows from step to step, over those that are left out."""
        row, columns = self.row[unit], self.columns[b]
        order = range(len(columns) - 1, -1, -1) if unit.scan.reverse else range(len(columns))
        before = None
        for n in order:
            id, x = f"{self.id[unit]}.{n}", self.x_of[b, n]
            if columns[n].step is None:
                self._box(id, "note", [Line("…", "title")], x, row.y, (22.0, 16.0 + PITCH * (len(unit.scan.init) - 1)))
            if before is not None:
                for k, dy in enumerate(self._offsets(unit)):
                    kind = self._kind(unit, unit.scan.body.carries[k]) or "state"
                    a, c = self.place[before], self.place[id]
                    ends = (a.left, c.right) if unit.scan.reverse else (a.right, c.left)
                    passes = self._passes(unit, k)
                    self._edge(before, id, kind, [(ends[0], row.y + dy), (ends[1], row.y + dy)], passes)
                    if passes:
                        after = columns[n + 1 if unit.scan.reverse else n]  # whose lanes stand to its left
                        right = max(ends) - (self._beside_column(b) if after.step is not None else 0)
                        self._label(unit, k, b, n, (min(ends) + right) / 2, row.y + dy)
            before = id

    def _label_width(self, unit: Unit, step: Size | str | None) -> float:
        """How wide the local derivatives between two steps are."""
        if self.back is None or not isinstance(step, Size):
            return 0.0
        states = [k for k in range(len(unit.scan.init)) if self.back.through(unit, k)]
        texts = [t for k in states for t in self.back.on_arrow(unit, k, step)]
        return max((extent_of([Line(t, "arrow")])[0] for t in texts), default=0.0)

    def _label(self, unit: Unit, k: int, b: int, n: int, x: float, y: float) -> None:
        """The local derivative on the arrow back from a step: above the first, below the others."""
        step = self.columns[b][n].step
        if self.back is None or not isinstance(step, Size):
            return
        lines = [Line(t, "arrow") for t in self.back.on_arrow(unit, k, step)]
        if k > 1:
            return
        height = extent_of(lines)[1]
        self._note(f"{self.id[unit]}.{n}.d{k}", lines, x, y + (height / 2 + 4 if k == 0 else -height / 2 - 4))

    def _entry(self, unit: Unit, k: int) -> tuple[str, Port]:
        """The box of a loop's first step, and where the state that it begins with enters it."""
        assert unit.block is not None
        n = len(self.columns[unit.block]) - 1 if unit.scan.reverse else 0
        id = f"{self.id[unit]}.{n}"
        p, y = self.place[id], self.place[id].y + self._offsets(unit)[k]
        return id, Port((p.right, y), (1, 0)) if unit.scan.reverse else Port((p.left, y), (-1, 0))


def _spread(low: float, high: float, count: int) -> list[float]:
    """So many places at equal distances between two."""
    return [low + (high - low) * (k + 1) / (count + 1) for k in range(count)]


def stacked(places: Iterable[tuple[float, float]], gap: float) -> list[float]:
    """The middles of boxes (middle wished, height) one above the other, moved up as little as need be."""
    found: list[float] = []
    top = float("-inf")
    for middle, height in places:
        found.append(max(middle, top + gap + height / 2))
        top = found[-1] + height / 2
    return found
