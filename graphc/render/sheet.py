"""What the parts of an unrolled picture share: the timeline, the sizes of boxes and rows, and how boxes and arrows are put
down."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, replace

from ..graph.graph import Graph
from ..graph.node import Node
from ..graph.size import Size
from .cell import at, step_text
from .dot import RING
from .forward import signature
from .grid import columns_of, rows_of, wholes_of
from .labels import Labels
from .metrics import extent_of
from .names import names_of
from .notation import shape_text
from .outline import LEAVES, base
from .picture import Box, Edge, Line, Picture, Place, Point
from .route import Port, Router, Wire, lanes_between
from .style import BOX, WEIGHTS
from .through_time import ThroughTime
from .timeline import Reading, Timeline, Unit

PITCH = 19.0
"""Between the arrows of two states."""
GAP = 40.0
"""Between a row and the next."""
ACROSS = 46.0
"""Between a column and the next."""
MARGIN = (14.4, 7.2)
"""What a box has beside its text, on both sides together."""


@dataclass(frozen=True)
class Unroll:
    """How loops are drawn. steps: how many are, the last among them; detail: 0 names alone, 1 formulas in the rolled step,
    2 in every step; backward: how the gradient goes back through time, instead of how values go forward."""

    steps: int = 3
    detail: int = 1
    backward: bool = False


@dataclass
class Row:
    """What all boxes of a unit in the columns share."""

    y: float = 0.0
    height: float = 0.0
    below: int = 0  # lines that run just below it


class Sheet:
    """A picture in the making."""

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
        self.x_of: dict[tuple[int, int], float] = {}  # (block, column) → the middle
        self.started: dict[Unit, list[str]] = defaultdict(list)  # the first states that are drawn of a unit
        self.begun: list[tuple[Unit, Reading]] = []  # loops that begin with what is drawn elsewhere
        self.wires: list[
            tuple[Wire, Edge, bool]
        ] = []  # lines whose way is found when all boxes stand, and their arrows
        self.inside = ""  # the frame that boxes are drawn in
        self._measure()

    def _collect(self) -> None:
        """A box for all steps of a value together, where another block reads them."""
        wholes: dict[Node, Unit] = {}
        for r in list(self.timeline.readings):
            if r.how == "all" and r.reader.block is not None:
                if r.value not in wholes:
                    whole = wholes[r.value] = Unit("stack", [r.value], None)
                    self.timeline.units.append(whole)
                    self.timeline.readings.append(replace(r, reader=whole))
                self.timeline.readings.remove(r)
                self.timeline.readings.append(Reading(wholes[r.value], r.reader, "once", r.value))

    def _colours(self) -> dict[Node, int]:
        """A colour for each parameter that the steps of loops multiply with, as long as there are any: two never share one."""
        found: dict[Node, int] = {}
        for cell in self.labels.cells.values():
            for w in cell.weights:
                if base(w.operand).op == "param" and w.on and len(found) < len(WEIGHTS):
                    found.setdefault(base(w.operand), len(found))
        return found

    def _kind(self, unit: Unit, inner: Node) -> str:
        """The kind of the arrow to an input of a step: the colour of the one weight that it is multiplied with."""
        kinds = {
            self.colour[base(w.operand)]
            for w in self.labels.cells[unit].weights
            if inner in w.on and base(w.operand) in self.colour
        }
        return f"weight{kinds.pop()}" if len(kinds) == 1 else ""

    def _carries(self, r: Reading | None) -> bool:
        return self.back is not None and r is not None and self.back.carries(r)

    def _passes(self, unit: Unit, k: int) -> bool:
        return self.back is not None and self.back.through(unit, k)

    # -- sizes -----------------------------------------------------------------------------------------------------------
    def _lines(self, unit: Unit, step: Size | str, rolled: bool) -> list[Line]:
        """What is written in the box of a unit at a step."""
        if unit.kind == "loop":
            cell = self.labels.cells[unit]
            told = self.detail == 2 or (rolled and self.detail == 1)
            if told:
                stays = [Line("beyond its end: as before", "small")] if cell.masked else []
                return [*(Line(text, "formula") for text in cell.formulas(step)), *stays]
            names = [at(name, step_text(step)) for name in cell.states]
            back = [
                Line(f"∂L/∂{n}", "gradient") for k, n in enumerate(names) if self.back and self.back.through(unit, k)
            ]
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

    def _whole_size(self, unit: Unit) -> tuple[float, float]:
        return self._size(unit, self._whole_lines(unit))

    def _whole_lines(self, unit: Unit) -> list[Line]:
        if unit.kind == "stack":
            return [Line(self.labels.title(unit, "t"), "title"), Line(shape_text(unit.boxes[0].type), "small")]
        return self.labels.lines(unit)

    def _measure(self) -> None:
        self.row = {unit: Row() for rows in self.rows for unit in rows}
        self.width: list[float] = []
        self.rolled_width: list[float] = []
        for b in self.blocks:
            width = rolled = 0.0
            for unit in self.rows[b]:
                sizes = [
                    self._size(unit, self._lines(unit, c.step, False)) for c in self.columns[b] if c.step is not None
                ]
                general = self._size(unit, self._lines(unit, "t", True))
                width = max(width, *(w for w, _ in sizes))
                rolled = max(rolled, general[0])
                heights = [
                    general[1],
                    *(h for _, h in sizes),
                    *(self._start_height(unit) if unit.kind == "loop" else ()),
                ]
                self.row[unit].height = max(heights)
                self.row[unit].below = len({x.source for x in self.reads[unit] if x.how == "once"})
            self.width.append(width)
            self.rolled_width.append(rolled)
        self.top = 0.0
        for rows in self.rows:
            y = 0.0
            for row in (self.row[unit] for unit in rows):
                y += row.below * 14
                row.y = y + row.height / 2
                y += row.height + GAP
            self.top = max(self.top, y)

    # -- the first states ------------------------------------------------------------------------------------------------
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

    # -- drawing ---------------------------------------------------------------------------------------------------------
    def _box_kind(self, unit: Unit) -> str:
        if unit.kind == "loop":
            return "loop output" if unit.boxes[0] in self.timeline.given_out else "loop"
        if unit.kind == "input":
            return unit.kind if unit.boxes[0].op != "state" else "state"
        if unit.kind == "output" or set(unit.boxes) & {base(o) for o in self.graph.outputs.values()}:
            return "output"
        return "op"

    def _box(
        self, id: str, kind: str, lines: Sequence[Line], x: float, y: float, size: tuple[float, float], tip: str = ""
    ) -> None:
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

    def _wire(
        self, ends: tuple[str, str], kind: str, net: Hashable, ports: tuple[list[Port], list[Port]], r: Reading
    ) -> None:
        """An arrow whose way is found when all boxes stand. net: what arrows that may run together have in common."""
        back = self._carries(r)
        wire = Wire((net, kind, back), tuple(ports[0]), tuple(ports[1]))
        self.wires.append((wire, Edge(*ends, kind), back))

    def _draw_wires(self, left: float) -> None:
        """Find the ways of all arrows that wait, right of an x."""
        if not self.wires:
            return
        places = [b.place for b in self.picture.boxes if b.place is not None and b.place.right > left]
        lines = [(e.route, e.tail) for e in self.picture.edges]
        router = Router(places, lines, [w for w, _, _ in self.wires], left)
        for (_, edge, back), way in zip(self.wires, router.ways(), strict=True):
            # dashes that lie on dashes make a line: only what is not drawn yet is; an arrow back needs its head
            route = way.route[way.joins :] if way.joins and not back else way.route
            self._edge(edge.tail, edge.head, edge.kind, route, back)

    @staticmethod
    def _sides(p: Place) -> list[Port]:
        return [Port((p.right, p.y), (1, 0)), Port((p.left, p.y), (-1, 0))]

    @staticmethod
    def _below(p: Place, x: float) -> list[Port]:
        """Where an arrow from a box at an x may enter one above it: straight, in the middle, elsewhere below."""
        room = p.width / 2 - 14
        elsewhere = lanes_between(p.x - room, p.x + room)
        found = {v: Port((v, p.low), (0, -1), 14.0) for v in elsewhere} | {p.x: Port((p.x, p.low), (0, -1), 6.0)}
        if abs(x - p.x) < room:
            found[x] = Port((x, p.low), (0, -1))
        return list(found.values())

    def _offsets(self, unit: Unit) -> list[float]:
        n = len(self.labels.cells[unit].states)
        return [((n - 1) / 2 - k) * PITCH for k in range(n)]

    def _last(self, unit: Unit) -> int:
        """The column after which a loop is done; of what is no loop the last."""
        assert unit.block is not None
        return 0 if unit.kind == "loop" and unit.scan.reverse else len(self.columns[unit.block]) - 1

    def _drawn(self, b: int) -> list[int]:
        """The columns of a block that are steps."""
        return [n for n, c in enumerate(self.columns[b]) if c.step is not None]


def _straightened(route: Iterable[Point]) -> tuple[Point, ...]:
    """A way without points that lie on each other or in the middle of a straight line."""
    points: list[Point] = []
    for p in route:
        if points and abs(points[-1][0] - p[0]) + abs(points[-1][1] - p[1]) < 0.05:
            continue
        while len(points) > 1 and any(
            abs(points[-2][d] - p[d]) < 0.05 and abs(points[-1][d] - p[d]) < 0.05 for d in (0, 1)
        ):
            points.pop()
        points.append(p)
    return tuple(points)
