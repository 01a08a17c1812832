"""The view `unrolled`: loops over time as a grid, with the same loops rolled up beside it.

Time runs to the right and layers upwards. A step is a box with the names of its states; arrows of one colour are the
same weight at every step. On the left one general step, with its formulas and the arrow back into itself.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from ..errors import InputError
from ..graph.graph import Graph
from ..graph.node import Node
from ..graph.size import Size
from .cell import at, step_text
from .dot import RING
from .forward import signature
from .grid import Column, columns_of, rows_of, wholes_of
from .labels import Labels
from .metrics import extent_of
from .names import names_of
from .notation import shape_text
from .outline import LEAVES, base
from .picture import Box, Cluster, Edge, Line, Picture, Place, Point
from .style import BOX, WEIGHTS
from .through_time import ThroughTime
from .timeline import Reading, Timeline, Unit

FEWEST = 2
DETAILS = (0, 1, 2)
PITCH = 19.0
"""Between the arrows of two states."""
GAP = 40.0
"""Between a row and the next."""
ACROSS = 46.0
"""Between a column and the next."""
LANE = 9.0
"""Between two lines beside each other."""
MARGIN = (14.4, 7.2)
"""What a box has beside its text, on both sides together."""


@dataclass(frozen=True)
class Unroll:
    """How loops are drawn. steps: how many are, the last among them; detail: 0 names alone, 1 formulas in the rolled step,
    2 in every step; backward: how the gradient goes back through time, instead of how values go forward."""

    steps: int = 3
    detail: int = 1
    backward: bool = False


def unrolled(graph: Graph, how: Unroll) -> Picture:
    """The picture of a traced graph with loops. InputError where there is none, or too few steps are asked for."""
    if how.steps < FEWEST:
        raise InputError(
            f"--steps {how.steps} is too few: the first step and the last are always drawn", how="give 2 or more"
        )
    if how.detail not in DETAILS:
        raise InputError(f"--detail {how.detail} is none of {', '.join(map(str, DETAILS))}")
    if not any(n.op == "scan" for n in graph.nodes):
        raise InputError(
            f"model {graph.name} has no gc.scan, so there is nothing to unroll", how="use --view forward"
        )
    return Unrolled(graph, how).picture


@dataclass
class Row:
    """What all boxes of a row share."""

    y: float = 0.0
    height: float = 0.0
    below: int = 0  # lines that run just below it


class Unrolled:
    """One picture in the making."""

    def __init__(self, graph: Graph, how: Unroll):
        self.graph, self.detail = graph, how.detail
        known = names_of(graph)
        self.timeline = Timeline(graph, known)
        self._collect()
        self.labels = Labels(graph, self.timeline, known)
        self.back = ThroughTime(graph, self.timeline, self.labels) if how.backward else None
        self.blocks = range(len(self.timeline.blocks))
        self.columns = [columns_of(b.length, how.steps) for b in self.timeline.blocks]
        self.rows = [rows_of(self.timeline, b) for b in self.blocks]
        self.above, self.before = wholes_of(self.timeline)
        self.reads: dict[Unit, list[Reading]] = defaultdict(list)
        for r in self.timeline.readings:
            self.reads[r.reader].append(r)
        self.id = {u: f"u{n}" for n, u in enumerate(self.timeline.units)}
        self.colour = self._colours()
        title = "the gradient back through time" if how.backward else "unrolled in time"
        self.picture = Picture(f"{graph.name}, {title}", signature(graph))
        self.place: dict[str, Place] = {}
        self.lanes: dict[object, int] = defaultdict(int)
        self._measure()
        self._lay_out()

    def _collect(self) -> None:
        """A box for all steps of a value together, where another block reads them."""
        for r in list(self.timeline.readings):
            if r.how == "all" and r.reader.block is not None:
                whole = Unit("stack", [r.value], None)
                self.timeline.units.append(whole)
                self.timeline.readings.remove(r)
                self.timeline.readings += [replace(r, reader=whole), Reading(whole, r.reader, "once", r.value)]

    def _colours(self) -> dict[Node, int]:
        """A colour for each parameter that the steps of loops multiply with."""
        found: dict[Node, int] = {}
        for unit, cell in self.labels.cells.items():
            for w in cell.weights:
                if base(w.operand).op == "param" and w.on:
                    found.setdefault(base(w.operand), len(found) % len(WEIGHTS))
        return found

    def _kind(self, unit: Unit, inner: Node) -> str:
        """The kind of the arrow to an input of a step: the colour of the one weight that it is multiplied with."""
        kinds = {self.colour[base(w.operand)] for w in self.labels.cells[unit].weights
                 if inner in w.on and base(w.operand) in self.colour}
        return f"weight{kinds.pop()}" if len(kinds) == 1 else ""

    # -- sizes ------------------------------------------------------------------------------------------------------
    def _lines(self, unit: Unit, step: Size | str, rolled: bool) -> list[Line]:
        """What is written in the box of a unit at a step."""
        if unit.kind == "loop":
            cell = self.labels.cells[unit]
            told = self.detail == 2 or (rolled and self.detail == 1)
            if told:
                stays = [Line("beyond its end: as before", "small")] if cell.masked else []
                return [*(Line(text, "formula") for text in cell.formulas(step)), *stays]
            names = [at(name, step_text(step)) for name in cell.states]
            back = [Line(f"∂L/∂{n}", "gradient") for k, n in enumerate(names) if self.back and self.back.through(unit, k)]
            return [*(Line(name, "title") for name in names), *back]
        if rolled:
            return self.labels.lines(unit, step) if self.detail else self.labels.lines(unit, step)[:1]
        return [Line(self.labels.title(unit, step), "title")]

    def _size(self, unit: Unit, lines: Sequence[Line]) -> tuple[float, float]:
        width, height = extent_of(lines)
        width, height = max(width + MARGIN[0], 40.0), max(height + MARGIN[1], 26.0)
        if BOX[self._box_kind(unit)].borders > 1:
            width, height = width + RING, height + RING
        if unit.kind == "loop":
            return max(width, 56.0), max(height, PITCH * len(self.labels.cells[unit].states) + 26.0)
        if unit.kind in ("input", "state"):
            return 1.42 * width, 1.3 * height  # an ellipse around its text
        return width, height

    def _measure(self) -> None:
        self.row = [Row() for _ in range(max(map(len, self.rows)))]
        self.width: list[float] = []
        self.rolled_width: list[float] = []
        for b in self.blocks:
            width = rolled = 0.0
            for r, unit in enumerate(self.rows[b]):
                sizes = [self._size(unit, self._lines(unit, c.step, False)) for c in self.columns[b] if c.step is not None]
                general = self._size(unit, self._lines(unit, "t", True))
                width = max(width, *(w for w, _ in sizes))
                rolled = max(rolled, general[0])
                heights = [general[1], *(h for _, h in sizes), *(self._start_height(unit) if unit.kind == "loop" else ())]
                self.row[r].height = max(self.row[r].height, *heights)
                self.row[r].below += any(x.how == "once" for x in self.reads[unit])
            self.width.append(width)
            self.rolled_width.append(rolled)
        y = 0.0
        for row in self.row:
            y += row.below * 14
            row.y = y + row.height / 2
            y += row.height + GAP
        self.top = y

    # -- the first states -------------------------------------------------------------------------------------------
    def _starts(self, unit: Unit) -> list[tuple[tuple[Line, ...], list[int], Reading | None, str]]:
        """The boxes before a loop's first step: (lines, the states that begin with it, what it is read from, kind)."""
        cell = self.labels.cells[unit]
        zero = step_text(unit.scan.length, 1) if unit.scan.reverse else "0"
        readings = {r.carry: r for r in self.reads[unit] if r.how == "init"}
        found: dict[object, tuple[list[str], list[int], Reading | None, str, str]] = {}
        for k, value in enumerate(unit.scan.init):
            r = readings.get(k)
            source = r.source if r else None
            if r is not None and (source in self.above or (source is not None and source.kind == "loop")):
                continue
            text = self.labels.begin(value) if source is None else self.labels.title(source, "t")
            kind = base(value).op if base(value).op in (*LEAVES, "const") else "op"
            key = (source, text) if source is None else source
            entry = found.setdefault(key, ([], [], r, kind, text))
            entry[0].append(at(cell.states[k], zero))
            entry[1].append(k)
        return [
            ((Line(" = ".join([*names, text]), "title"),), carries, r, kind)
            for names, carries, r, kind, text in found.values()
        ]

    def _start_height(self, unit: Unit) -> list[float]:
        sizes = [self._size_of_start(lines, kind) for lines, _, _, kind in self._starts(unit)]
        return [sum(h for _, h in sizes) + 8 * max(len(sizes) - 1, 0)]

    @staticmethod
    def _size_of_start(lines: Sequence[Line], kind: str) -> tuple[float, float]:
        width, height = extent_of(lines)
        width, height = width + MARGIN[0], max(height + MARGIN[1], 26.0)
        return (1.42 * width, 1.3 * height) if kind == "input" else (width, height + (10 if kind == "state" else 0))

    # -- the whole --------------------------------------------------------------------------------------------------
    def _lay_out(self) -> None:
        x, self.inside = 0.0, "rolled"
        for b in self.blocks:
            x = self._rolled(b, x) + 30
        left = -12.0
        self._frame("rolled", "one step", left, x - 30)
        x += 24
        first = x
        self.inside = "unrolled"
        for b in self.blocks:
            x = self._block(b, x) + (30 if b + 1 < len(self.blocks) else 0)
        self._whole_units()
        high = max(p.high for p in self.place.values())
        inside = [b.place for b in self.picture.boxes if b.cluster == "unrolled" and b.place is not None]
        lanes = [x for e in self.picture.edges for x, _ in e.route]
        left_end, right_end = min(p.left for p in inside) - 14, max([*(p.right for p in inside), *lanes]) + 14
        self._frame("unrolled", "unrolled: the same step again and again", min(first, left_end), max(x, right_end), high)
        self.inside = ""
        self._weights(left)
        self._legend()

    def _frame(self, name: str, title: str, left: float, right: float, high: float = 0.0) -> None:
        """A frame from an x to another, as high as the rows or higher, with its title on top."""
        low, high = -52.0, max(high, self.top - GAP) + 16
        lines = (Line(title, "scope"),)
        width, height = extent_of(lines)
        self.picture.clusters.append(
            Cluster(name, "", "", "scope", Place((left + right) / 2, (low + high + height + 8) / 2, right - left, high - low + height + 8))
        )
        self._note(f"title.{name}", lines, left + 8 + width / 2, high + height / 2)

    def _box(self, id: str, kind: str, lines: Sequence[Line], x: float, y: float, size: tuple[float, float], tip: str = "") -> None:
        place = Place(x, y, *size)
        self.place[id] = place
        self.picture.boxes.append(Box(id, kind, tuple(lines), self.inside, tip, place))

    def _note(self, id: str, lines: Sequence[Line], x: float, y: float) -> None:
        width, height = extent_of(lines)
        self.picture.boxes.append(Box(id, "note", tuple(lines), self.inside, "", Place(x, y, width, height)))

    def _edge(self, tail: str, head: str, kind: str, route: Iterable[Point], back: bool = False) -> None:
        """An arrow; in a picture of gradients the way back in its place, if there is one."""
        points = _straightened(route)
        if self.back is None:
            self.picture.edges.append(Edge(tail, head, kind, (), points))
        elif back:
            self.picture.edges.append(Edge(head, tail, "gradient", (), points[::-1]))
        else:
            self.picture.edges.append(Edge(tail, head, "pale", (), points))

    def _carries(self, r: Reading | None) -> bool:
        return self.back is not None and r is not None and self.back.carries(r)

    def _passes(self, unit: Unit, k: int) -> bool:
        return self.back is not None and self.back.through(unit, k)

    # -- columns ----------------------------------------------------------------------------------------------------
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

    def _box_kind(self, unit: Unit) -> str:
        if unit.kind == "loop":
            return "loop output" if unit.boxes[0] in self.timeline.given_out else "loop"
        if unit.kind == "input":
            return unit.kind if unit.boxes[0].op != "state" else "state"
        if unit.kind == "output" or set(unit.boxes) & {base(o) for o in self.graph.outputs.values()}:
            return "output"
        return "op"

    def _upwards(self, b: int, q: Reading, name: str, x: float, width: float) -> None:
        """The arrow from a unit to one above it in the same column: straight, or around what lies between."""
        low, high = self.place[f"{self.id[q.source]}.{name}"], self.place[f"{self.id[q.reader]}.{name}"]
        a, c = self.rows[b].index(q.source), self.rows[b].index(q.reader)
        kind = "flow"
        if q.reader.kind == "loop":
            places = [v for v, o in zip(q.reader.scan.body.elements, q.reader.scan.xs, strict=True) if base(o) is q.value]
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

    def _lane(self, key: object) -> int:
        self.lanes[key] += 1
        return self.lanes[key] - 1

    def _weight_note(self, unit: Unit, kind: str, x: float, y: float, id: str) -> None:
        """The name of the weight of a colour, beside the arrow that it acts on."""
        names = [w.name for w in self.labels.cells[unit].weights
                 if base(w.operand) in self.colour and f"weight{self.colour[base(w.operand)]}" == kind]
        lines = (Line(names[0], kind),)
        self._note(id, lines, x + extent_of(lines)[0] / 2, y)

    def _lanes_of(self, b: int) -> int:
        """How many arrows of a column go around a box."""
        rows = self.rows[b]
        return sum(
            q.how == "step" and rows.index(u) != rows.index(q.source) + 1 for u in rows for q in self.reads[u]
        )

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
                weights = [w.name for w in cell.weights if unit.scan.body.carries[k] in w.on and base(w.operand) in self.colour]
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

    def _offsets(self, unit: Unit) -> list[float]:
        n = len(self.labels.cells[unit].states)
        return [((n - 1) / 2 - k) * PITCH for k in range(n)]

    # -- a block ----------------------------------------------------------------------------------------------------
    def _block(self, b: int, x: float) -> float:
        """The columns of a block with what stands before them; where it ends on the right."""
        lanes = 14 + LANE * self._lanes_of(b)
        left, right = self._beside(b)
        start = x + 16 + left
        gap = max(ACROSS, lanes + 22, *(self._label_width(u, c.step) + lanes + 10 for u in self.rows[b] if u.kind == "loop"
                                        for c in self.columns[b] if c.step is not None))
        at_x = start + (lanes if lanes > 14 else 0)
        self.x_of = getattr(self, "x_of", {})
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
                crossing = any(r.how == "init" and (r.source.kind == "loop" or r.source in self.above) for r in self.reads[unit])
                room[side] = max(room[side], wide + extra + 30 if wide else 0.0, 40.0 if crossing else 0.0)
            room[0] = max(room[0], sum(self._chain_width(r.source) + self._whole_size(r.source)[0] + 40 for r in self.reads[unit]
                                       if r.how == "once" and r.source in self.before))
            if any(r.how == "once" for r in self.reads[unit]):
                room[0] = max(room[0], 40.0)
        return room[0], room[1]

    def _chain_width(self, unit: Unit) -> float:
        return sum(self._whole_size(r.source)[0] + 30 + self._chain_width(r.source) for r in self.reads[unit] if r.source in self.before)

    def _whole_size(self, unit: Unit) -> tuple[float, float]:
        return self._size(unit, self._whole_lines(unit))

    def _whole_lines(self, unit: Unit) -> list[Line]:
        if unit.kind == "stack":
            return [Line(self.labels.title(unit, "t"), "title"), Line(shape_text(unit.boxes[0].type), "small")]
        return self.labels.lines(unit)

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
                self._edge(id, f"{self.id[unit]}.{n}", kind_of, [(side, leave), ((side + face) / 2, leave), ((side + face) / 2, dy), (face, dy)], self._carries(r))
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

    def _last(self, unit: Unit) -> int:
        """The column after which a loop is done."""
        assert unit.block is not None
        return 0 if unit.scan.reverse else len(self.columns[unit.block]) - 1

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
        self.waiting = getattr(self, "waiting", [])
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
                        self._box(f"{self.id[r.source]}.w", self._box_kind(r.source), self._whole_lines(r.source),
                                  side - 18 - size[0] / 2, row.y, size)
                        self._chain(r.source, self.place[f"{self.id[r.source]}.w"], False, f"{self.id[r.source]}.w")
                    self.waiting.append((r, boxes, y, side))
        if b + 1 == len(self.blocks):
            pass

    # -- what there is one of -----------------------------------------------------------------------------------------
    def _whole_units(self) -> None:
        """The units above the columns, each as wide as the columns that it reads."""
        for unit in self.above:
            lines = self._whole_lines(unit)
            width, height = self._size(unit, lines)
            xs = self._arrivals(unit)
            low, high = min(xs, default=0.0), max(xs, default=0.0)
            width = max(width, high - low + 48 if high > low else 0.0)
            id, x = f"{self.id[unit]}.w", (low + high) / 2
            below = [p.high for p in self.place.values() if p.left < x + width / 2 + 8 and x - width / 2 - 8 < p.right]
            y = max(below, default=0.0) + GAP
            self._box(id, self._box_kind(unit), lines, x, y + height / 2, (width, height), self.labels.title(unit, "t"))
            self._into(unit, id)
        for r, boxes, bus, side in self.waiting:
            source = self.place[f"{self.id[r.source]}.w"]
            last = self.place[boxes[-1]]
            tick = last.x - last.width / 4
            id = f"{self.id[r.source]}.w"
            self._edge(id, boxes[-1], "given", [(source.right, source.y), (side, source.y), (side, bus), (tick, bus), (tick, last.low)], self._carries(r))
            for box in boxes[:-1]:
                p = self.place[box]
                at_x = p.x - p.width / 4
                self._edge(id, box, "given", [(at_x, bus), (at_x, p.low)], self._carries(r))

    def _drawn(self, b: int) -> list[int]:
        return [n for n, c in enumerate(self.columns[b]) if c.step is not None]

    def _arrivals(self, unit: Unit) -> list[float]:
        """Where the arrows into a unit above the columns come from."""
        xs: list[float] = []
        for r in self.reads[unit]:
            b = r.source.block
            if b is not None and r.how == "all":
                xs += [self.x_of[b, n] for n in self._drawn(b)]
            elif b is not None and r.how == "last":
                xs.append(self.x_of[b, self._last(r.source)])
            elif f"{self.id[r.source]}.w" in self.place:
                xs.append(self.place[f"{self.id[r.source]}.w"].x)
        return xs

    def _into(self, unit: Unit, id: str) -> None:
        """The arrows into a unit above the columns."""
        p = self.place[id]
        beside: list[Unit] = []
        for r in self.reads[unit]:
            b = r.source.block
            if b is not None:
                for n in self._drawn(b) if r.how == "all" else [self._last(r.source)]:
                    self._rise(b, r, n, id, p)
            elif f"{self.id[r.source]}.w" in self.place:
                q = self.place[f"{self.id[r.source]}.w"]
                self._edge(f"{self.id[r.source]}.w", id, "flow", [(q.x, q.high), (q.x, p.low)], self._carries(r))
            elif r.source.kind == "input":
                beside.append(r.source)
        if beside:
            lines = [line for u in beside for line in self.labels.lines(u)]
            size = self._size(beside[0], lines)
            name = f"{id}.in"
            self._box(name, "input", lines, p.right + 30 + size[0] / 2, p.y, size)
            self._edge(name, id, "flow", [(p.right + 30, p.y), (p.right, p.y)])

    def _rise(self, b: int, r: Reading, n: int, id: str, p: Place) -> None:
        """The arrow from a box of a column up to a unit above all columns, around what lies between."""
        name = f"{self.id[r.source]}.{n}"
        q = self.place[name]
        x = q.x
        if self._is_free(x, q.high + 1, p.low - 1, (name, id)):
            self._edge(name, id, "flow", [(x, q.high), (x, p.low)], self._carries(r))
            return
        leave = q.y if r.source.kind != "loop" else q.high - 7
        room = int((ACROSS - 16) / LANE)
        lefts = [q.left - 10 - LANE * k for k in range(room)]
        rights = [q.right + 10 + LANE * k for k in range(room if n + 1 < len(self.columns[b]) else 999)]
        sides = (*rights, *lefts) if self.back and n + 1 == len(self.columns[b]) else (*lefts, *rights)
        clear = [v for v in sides if min(abs(v - p.left), abs(v - p.right)) > 10]
        lane = next((v for v in clear if self._is_free(v, leave, p.low - 1, (name, id))), lefts[0])
        side = q.left if lane < q.x else q.right
        inside = p.left + 4 < lane < p.right - 4
        end = [(lane, p.low)] if inside else [(lane, p.y), (p.left if lane < p.x else p.right, p.y)]
        self._edge(name, id, "flow", [(side, leave), (lane, leave), *end], self._carries(r))

    def _is_free(self, x: float, low: float, high: float, ends: tuple[str, str]) -> bool:
        """Is there nothing on a vertical line but its ends?"""
        boxes = (p for i, p in self.place.items() if i not in ends)
        if any(p.left - 4 < x < p.right + 4 and p.low < high and low < p.high for p in boxes):
            return False
        lines = (ab for e in self.picture.edges for ab in zip(e.route, e.route[1:], strict=False))
        return not any(
            a[0] == b[0] and abs(a[0] - x) < LANE - 1 and min(a[1], b[1]) < high and low < max(a[1], b[1]) for a, b in lines
        )

    # -- what is said beside it -----------------------------------------------------------------------------------------
    def _weights(self, left: float) -> None:
        """One box for the weights, which are the same at every step."""
        groups: dict[str, dict[Node, Line]] = {}
        for unit, cell in self.labels.cells.items():
            for w in cell.weights:
                if base(w.operand).op == "param":
                    colour = self.colour.get(base(w.operand))
                    style = f"weight{colour}" if colour is not None and not self.back else "weight"
                    self._add_weight(groups, base(w.operand), style)
        for unit in self.timeline.units:
            if unit.kind == "work" and unit.block is not None:
                for box in unit.boxes:
                    for value, _ in self.timeline.outline.reads(box):
                        if value.op == "param":
                            self._add_weight(groups, value, "weight")
        lines: list[Line] = []
        order = {n: k for k, n in enumerate(self.graph.tables.origins)}
        for scope in sorted(groups, key=bool):
            lines += [Line(scope, "step")] if scope else []
            lines += [groups[scope][n] for n in sorted(groups[scope], key=lambda n: order.get(n, 0))]
        if lines:
            lines.insert(0, Line("weights, the same at every step", "small"))
            self._panels(left, lines)

    def _panels(self, left: float, weights: list[Line]) -> None:
        """What is said on the left, one below the other: the weights, and the derivatives of one step."""
        panels = [("weights", "param", weights)]
        if self.back:
            lines = [Line("at every step", "small")]
            for unit in (u for b in self.blocks for u in self.rows[b] if u.kind == "loop"):
                lines += [Line("/".join(unit.scope), "step")] if unit.scope else []
                lines += [Line(t, "gradient formula") for t in self.back.lines(unit)]
            work = [t for b in self.blocks for u in self.rows[b] if u.kind == "work" for t in self.back.of_work(u)]
            lines += [Line("between the layers", "step")] if work else []
            lines += [Line(t, "gradient formula") for t in work]
            panels.append(("derivatives", "note", lines))
        sizes = [tuple(e + m for e, m in zip(extent_of(lines), MARGIN, strict=True)) for _, _, lines in panels]
        y = (self.top - GAP) / 2 + (sum(h for _, h in sizes) + GAP * (len(sizes) - 1)) / 2
        for (id, kind, lines), (width, height) in zip(panels, sizes, strict=True):
            self._box(id, kind, lines, left - 34 - max(w for w, _ in sizes) / 2, y - height / 2, (width, height))
            y -= height + GAP

    @staticmethod
    def _add_weight(groups: dict[str, dict[Node, Line]], node: Node, style: str) -> None:
        scope, _, name = str(node.attr("name")).rpartition("/")
        groups.setdefault(scope, {}).setdefault(node, Line(f"{name} {shape_text(node.type)}", style))

    def _legend(self) -> None:
        kinds = {b.kind for b in self.picture.boxes}
        names = (("input", "input"), ("state", "state"), ("const", "constant"), ("loop", "step of a loop, with its states"),
                 ("op", "operation"), ("output", "output"))
        if "loop output" in kinds:
            kinds |= {"loop", "output"}
        self.picture.legend = [(k, t) for k, t in names if k in kinds]
        if self.back:
            self.picture.legend.append(("gradient", "← gradient ∂L/∂ of the loss L, and the local derivative"))
        elif self.colour:
            self.picture.legend.append(("weight0", "one colour: one weight"))


def _straightened(route: Iterable[Point]) -> tuple[Point, ...]:
    """A way without points that lie on each other or in the middle of a straight line."""
    points: list[Point] = []
    for p in route:
        if points and abs(points[-1][0] - p[0]) + abs(points[-1][1] - p[1]) < 0.05:
            continue
        while len(points) > 1 and any(abs(points[-2][d] - p[d]) < 0.05 and abs(points[-1][d] - p[d]) < 0.05 for d in (0, 1)):
            points.pop()
        points.append(p)
    return tuple(points)
