"""The columns of an unrolled picture: one for a general step, one for each step that is drawn, and the arrows between."""

from __future__ import annotations

from ..graph.size import Size
from .cell import at
from .grid import Column
from .metrics import extent_of
from .outline import base
from .picture import Line, Place
from .sheet import ACROSS, LANE, PITCH, Sheet
from .timeline import Reading, Unit


class Columns(Sheet):
    """The part of a picture that has columns."""

    def _column(self, b: int, x: float, step: Size | str, name: str, width: float) -> None:
        """The boxes of a step, one above the other, and the arrows between them."""
        rolled = name == "t"
        for r, unit in enumerate(self.rows[b]):
            lines = self._lines(unit, step, rolled)
            w, h = self._size(unit, lines)
            if unit.kind != "input":
                w = width
            if unit.kind == "loop":
                h = max(h, self.row[r].height if not rolled else h)
            kind = self._box_kind(unit)
            self._box(f"{self.id[unit]}.{name}", kind, lines, x, self.row[r].y, (w, h), self.labels.title(unit, step))
        for unit in self.rows[b]:
            inputs = [q for q in self.reads[unit] if q.how == "step"]
            for q in inputs:
                self._upwards(b, q, name, x, width)

    def _upwards(self, b: int, q: Reading, name: str, x: float, width: float) -> None:
        """The arrow from a unit to one above it in the same column: straight, or around what lies between."""
        low, high = self.place[f"{self.id[q.source]}.{name}"], self.place[f"{self.id[q.reader]}.{name}"]
        a, c = self.rows[b].index(q.source), self.rows[b].index(q.reader)
        kind = "flow"
        if q.reader.kind == "loop":
            places = [
                v for v, o in zip(q.reader.scan.body.elements, q.reader.scan.xs, strict=True) if base(o) is q.value
            ]
            kind = (self._kind(q.reader, places[0]) if places else "") or "flow"
        ends = f"{self.id[q.source]}.{name}", f"{self.id[q.reader]}.{name}"
        if c == a + 1:
            self._edge(*ends, kind, [(x, low.high), (x, high.low)], self._carries(q))
            if name == "t" and kind != "flow" and not self.back:
                self._weight_note(q.reader, kind, x + 5, (low.high + high.low) / 2, ends[1] + ".in")
            return
        lane = x - width / 2 - 10 - LANE * self._lane((b, name))
        leave = low.y if q.source.kind != "loop" else low.high - 7
        enter = high.y if q.reader.kind != "loop" else high.low + 7
        route = [(low.left, leave), (lane, leave), (lane, enter), (high.left, enter)]
        self._edge(*ends, kind, route, self._carries(q))
        if name == "t" and kind != "flow" and not self.back:
            self._weight_note(q.reader, kind, low.left - 24 - LANE * self._lanes_of(b), enter - 2, ends[1] + ".in")

    def _weight_note(self, unit: Unit, kind: str, x: float, y: float, id: str) -> None:
        """The name of the weight of a colour, beside the arrow that it acts on."""
        names = [
            w.name
            for w in self.labels.cells[unit].weights
            if base(w.operand) in self.colour and f"weight{self.colour[base(w.operand)]}" == kind
        ]
        lines = (Line(names[0], kind),)
        self._note(id, lines, x + extent_of(lines)[0] / 2, y)

    def _rolled(self, b: int, x: float) -> float:
        """The general step of a block, and what it hands on to itself; where it ends on the right."""
        names = [extent_of((Line("/".join(u.scope), "scope"),))[0] for u in self.rows[b] if u.kind == "loop"]
        lanes = 8 + LANE * self._lanes_of(b)
        left = x + lanes + max(names, default=0.0)
        middle = left + self.rolled_width[b] / 2
        self._column(b, middle, "t", "t", self.rolled_width[b])
        right = middle + self.rolled_width[b] / 2
        most = 0.0
        for unit in self.rows[b]:
            if unit.kind != "loop":
                continue
            cell, p = self.labels.cells[unit], self.place[f"{self.id[unit]}.t"]
            for k, dy in enumerate(self._offsets(unit)):
                kind = self._kind(unit, unit.scan.body.carries[k]) or "state"
                y, out = p.y + dy, p.right + 20
                me = f"{self.id[unit]}.t"
                route = [(p.right, y + 4), (out, y + 4), (out, y - 4), (p.right, y - 4)]
                self._edge(me, me, kind, route, self._passes(unit, k))
                now, then = at(cell.states[k], "t"), at(cell.states[k], cell.before("t"))
                lines = [Line(f"∂L/∂{now} → ∂L/∂{then}" if self._passes(unit, k) else f"{now} → {then}", "small")]
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
            if unit.scope:
                lines = [Line("/".join(unit.scope), "scope")]
                self._note(f"{self.id[unit]}.name", lines, p.left - lanes - extent_of(lines)[0] / 2, p.high - 8)
        self._note(f"head{b}.t", [Line("step t", "step")], middle, -32)
        return right + most + 14

    # -- the columns of a block ------------------------------------------------------------------------------------------
    def _block(self, b: int, x: float) -> float:
        """The columns of a block with what stands before them; where it ends on the right."""
        lanes = 14 + LANE * self._lanes_of(b)
        left, right = self._beside(b)
        start = x + 16 + left
        gap = max(
            ACROSS,
            lanes + 22,
            *(
                self._label_width(u, c.step) + lanes + 10
                for u in self.rows[b]
                if u.kind == "loop"
                for c in self.columns[b]
                if c.step is not None
            ),
        )
        at_x = start + (lanes if lanes > 14 else 0)
        columns: list[tuple[Column, float]] = []
        for c in self.columns[b]:
            width = self.width[b] if c.step is not None else 22.0
            columns.append((c, at_x + width / 2))
            at_x += width + gap
        end = at_x - gap
        for n, (c, middle) in enumerate(columns):
            self.x_of[b, n] = middle
            if c.step is not None:
                self._column(b, middle, c.step, str(n), self.width[b])
            self._note(f"head{b}.{n}", [Line(f"t = {c.text}" if c.step is not None else "…", "step")], middle, -32)
        for unit in self.rows[b]:
            if unit.kind == "loop":
                self._through_time(b, unit)
                self._begin(b, unit, start - 22 if not unit.scan.reverse else end + 22)
        self._buses(b)
        return end + 16 + right

    def _beside(self, b: int) -> tuple[float, float]:
        """The room for first states on both sides of the columns of a block."""
        room = [0.0, 0.0]
        for unit in self.rows[b]:
            if unit.kind == "loop":
                starts = self._starts(unit)
                wide = max((self._size_of_start(lines, kind)[0] for lines, _, _, kind in starts), default=0.0)
                extra = sum(self._chain_width(r.source) for _, _, r, _ in starts if r is not None)
                side = 1 if unit.scan.reverse else 0
                crossing = any(
                    r.how == "init" and (r.source.kind == "loop" or r.source in self.above) for r in self.reads[unit]
                )
                room[side] = max(room[side], wide + extra + 30 if wide else 0.0, 40.0 if crossing else 0.0)
            room[0] = max(
                room[0],
                sum(
                    self._chain_width(r.source) + self._whole_size(r.source)[0] + 40
                    for r in self.reads[unit]
                    if r.how == "once" and r.source in self.before
                ),
            )
            if any(r.how == "once" for r in self.reads[unit]):
                room[0] = max(room[0], 40.0)
        return room[0], room[1]

    def _chain_width(self, unit: Unit) -> float:
        return sum(
            self._whole_size(r.source)[0] + 30 + self._chain_width(r.source)
            for r in self.reads[unit]
            if r.source in self.before
        )

    def _through_time(self, b: int, unit: Unit) -> None:
        """The arrows from step to step, over those that are left out."""
        row, columns = self.row[self.rows[b].index(unit)], self.columns[b]
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
                        self._label(b, unit, k, n, (ends[0] + ends[1]) / 2, row.y + dy)
            before = id

    def _label_width(self, unit: Unit, step: Size | str | None) -> float:
        """How wide the local derivatives between two steps are."""
        if self.back is None or not isinstance(step, Size):
            return 0.0
        states = [k for k in range(len(unit.scan.init)) if self.back.through(unit, k)]
        texts = [t for k in states for t in self.back.on_arrow(unit, k, step)]
        return max((extent_of([Line(t, "gradient")])[0] for t in texts), default=0.0)

    def _label(self, b: int, unit: Unit, k: int, n: int, x: float, y: float) -> None:
        """The local derivative on the arrow back from a step: above the first, below the others."""
        step = self.columns[b][n].step
        if self.back is None or not isinstance(step, Size):
            return
        lines = [Line(t, "gradient") for t in self.back.on_arrow(unit, k, step)]
        if k > 1:
            return
        height = extent_of(lines)[1]
        self._note(f"{self.id[unit]}.{n}.d{k}", lines, x, y + (height / 2 + 4 if k == 0 else -height / 2 - 4))

    # -- before the first step -------------------------------------------------------------------------------------------
    def _begin(self, b: int, unit: Unit, x: float) -> None:
        """The first states beside the first step."""
        reverse = unit.scan.reverse
        n = len(self.columns[b]) - 1 if reverse else 0
        first, row = self.place[f"{self.id[unit]}.{n}"], self.row[self.rows[b].index(unit)]
        face = first.right if reverse else first.left
        starts = self._starts(unit)
        sizes = [self._size_of_start(lines, kind) for lines, _, _, kind in starts]
        y = row.y + (sum(h for _, h in sizes) + 8 * (len(sizes) - 1)) / 2 if sizes else row.y
        for number, ((lines, carries, r, kind), size) in enumerate(zip(starts, sizes, strict=True)):
            middle = x + size[0] / 2 if reverse else x - size[0] / 2
            id = f"{self.id[unit]}.start{number}"
            self._box(id, kind, lines, middle, y - size[1] / 2, size)
            p = self.place[id]
            for k in carries:
                kind_of = self._kind(unit, unit.scan.body.carries[k]) or "state"
                dy = row.y + self._offsets(unit)[k]
                leave = dy if p.low + 2 < dy < p.high - 2 else p.y
                side = p.left if reverse else p.right
                self._edge(
                    id,
                    f"{self.id[unit]}.{n}",
                    kind_of,
                    [(side, leave), ((side + face) / 2, leave), ((side + face) / 2, dy), (face, dy)],
                    self._carries(r),
                )
            if r is not None:
                self._chain(r.source, p, reverse, id)
            y -= size[1] + 8
        for r in self.reads[unit]:
            if r.how == "init" and r.carry is not None and r.source.kind == "loop":
                self._handed_on(b, unit, r, face, n)

    def _chain(self, unit: Unit, p: Place, reverse: bool, id: str) -> None:
        """What a box before the columns is computed from, further out."""
        for r in self.reads[unit]:
            if r.source in self.before:
                size = self._whole_size(r.source)
                x = p.right + 30 + size[0] / 2 if reverse else p.left - 30 - size[0] / 2
                name = f"{id}.{self.id[r.source]}"
                self._box(name, self._box_kind(r.source), self._whole_lines(r.source), x, p.y, size)
                q = self.place[name]
                ends = [(q.left, p.y), (p.right, p.y)] if reverse else [(q.right, p.y), (p.left, p.y)]
                self._edge(name, id, "flow", ends, self._carries(r))
                self._chain(r.source, q, reverse, name)

    def _handed_on(self, b: int, unit: Unit, r: Reading, face: float, n: int) -> None:
        """The arrow from the last step of a loop to the first of another, further right."""
        assert r.carry is not None and r.result is not None
        source = self.place[f"{self.id[r.source]}.{self._last(r.source)}"]
        y1 = source.y + self._offsets(r.source)[r.result]
        y2 = self.row[self.rows[b].index(unit)].y + self._offsets(unit)[r.carry]
        kind = self._kind(unit, unit.scan.body.carries[r.carry]) or "state"
        lane = face + (1 if unit.scan.reverse else -1) * (18 + LANE * self._lane(("in", b)))
        start = source.left if r.source.scan.reverse else source.right
        ends = f"{self.id[r.source]}.{self._last(r.source)}", f"{self.id[unit]}.{n}"
        self._edge(*ends, kind, [(start, y1), (lane, y1), (lane, y2), (face, y2)], self._carries(r))

    def _buses(self, b: int) -> None:
        """What every step of a unit reads and there is one of: a line below its row, with an arrow up to every box."""
        for unit in self.rows[b]:
            for r in self.reads[unit]:
                if r.how == "once":
                    row = self.row[self.rows[b].index(unit)]
                    boxes = [f"{self.id[unit]}.{n}" for n, c in enumerate(self.columns[b]) if c.step is not None]
                    low = min(self.place[i].low for i in boxes)
                    y = low - 12 - LANE * self._lane(("bus", b, unit))
                    first = self.place[boxes[0]]
                    side = first.left - 22 - LANE * self._lane(("in", b))
                    if r.source in self.before and f"{self.id[r.source]}.w" not in self.place:
                        size = self._whole_size(r.source)
                        self._box(
                            f"{self.id[r.source]}.w",
                            self._box_kind(r.source),
                            self._whole_lines(r.source),
                            side - 18 - size[0] / 2,
                            row.y,
                            size,
                        )
                        self._chain(r.source, self.place[f"{self.id[r.source]}.w"], False, f"{self.id[r.source]}.w")
                    self.waiting.append((r, boxes, y, side))
