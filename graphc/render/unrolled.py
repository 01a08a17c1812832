"""The view `unrolled`: loops over time as a grid, with the same loops rolled up beside it.

Time runs to the right and layers upwards. A step is a box with the names of its states; arrows of one colour are the
same weight at every step. On the left one general step, with its formulas and the arrow back into itself.
"""

from __future__ import annotations

from ..errors import InputError
from ..graph.graph import Graph
from ..graph.node import Node
from .beside import Beside
from .metrics import extent_of
from .notation import shape_text
from .outline import base
from .picture import Cluster, Line, Picture, Place
from .route import Port
from .sheet import GAP, MARGIN, Unroll
from .timeline import Unit

FEWEST = 2
DETAILS = (0, 1, 2)


def unrolled(graph: Graph, how: Unroll) -> Picture:
    """The picture of a traced graph with loops. InputError where there is none, or too few steps are asked for."""
    if how.steps < FEWEST:
        raise InputError(
            f"--steps {how.steps} is too few: the first step and the last are always drawn", how="give 2 or more"
        )
    if how.detail not in DETAILS:
        raise InputError(f"--detail {how.detail} is none of {', '.join(map(str, DETAILS))}")
    if not any(n.op == "scan" for n in graph.nodes):
        raise InputError(f"model {graph.name} has no gc.scan, so there is nothing to unroll", how="use --view forward")
    return _Unrolled(graph, how).whole()


class _Unrolled(Beside):
    """The whole: columns, what stands above them, frames, and what is said on the left."""

    def whole(self) -> Picture:
        """The finished picture."""
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
        self._join_before()
        self._draw_wires(first + 4)
        high = max(p.high for p in self.place.values())
        inside = [b.place for b in self.picture.boxes if b.cluster == "unrolled" and b.place is not None]
        lanes = [x for e in self.picture.edges for x, _ in e.route]
        left_end, right_end = min(p.left for p in inside) - 14, max([*(p.right for p in inside), *lanes]) + 14
        self._frame(
            "unrolled", "unrolled: the same step again and again", min(first, left_end), max(x, right_end), high
        )
        self.inside = ""
        self._weights(left)
        self._legend()
        return self.picture

    def _frame(self, name: str, title: str, left: float, right: float, high: float = 0.0) -> None:
        """A frame from an x to another, as high as the rows or higher, with its title on top."""
        low, high = -52.0, max(high, self.top - GAP) + 16
        lines = (Line(title, "scope"),)
        width, height = extent_of(lines)
        self.picture.clusters.append(
            Cluster(
                name,
                "",
                "",
                "scope",
                Place((left + right) / 2, (low + high + height + 8) / 2, right - left, high - low + height + 8),
            )
        )
        self._note(f"title.{name}", lines, left + 8 + width / 2, high + height / 2)

    # -- what there is one of --------------------------------------------------------------------------------------------
    def _whole_units(self) -> None:
        """The units above the columns, the first over some columns as wide as they are."""
        spanned: set[tuple[float, float]] = set()
        for unit in self.above:
            lines = self._whole_lines(unit)
            width, height = self._size(unit, lines)
            xs = self._arrivals(unit)
            low, high = min(xs, default=self._default_x), max(xs, default=self._default_x)
            if high > low and (low, high) not in spanned:
                width = max(width, high - low + 48)
                spanned.add((low, high))
            id, x = f"{self.id[unit]}.w", (low + high) / 2
            left, right = x - width / 2 - 8, x + width / 2 + 8
            if beside := self._inputs_beside(unit):
                right += 30 + self._size(beside[0], self._lines_beside(beside))[0]
            below = [p.high for p in self.place.values() if p.left < right and left < p.right]
            y = max(below, default=0.0) + GAP
            self._box(id, self._box_kind(unit), lines, x, y + height / 2, (width, height), self.labels.title(unit, "t"))
            self._into(unit, id)

    @property
    def _default_x(self) -> float:
        """Where something stands that no column gives to: over the last one."""
        b = self.blocks[-1]
        return self.x_of[b, len(self.columns[b]) - 1]

    def _arrivals(self, unit: Unit) -> list[float]:
        """Where the arrows into a unit above the columns come from."""
        xs: list[float] = []
        for r in self.reads[unit]:
            b = r.source.block
            if b is not None and r.how == "all":
                xs += [self.x_of[b, n] for n in self._drawn(b)]
            elif b is not None and r.how == "last":
                xs.append(self.x_of[b, self._last(r.source)])
            elif r.source in self.above and f"{self.id[r.source]}.w" in self.place:
                xs.append(self.place[f"{self.id[r.source]}.w"].x)
        return xs

    def _into(self, unit: Unit, id: str) -> None:
        """The arrows into a unit above the columns."""
        p = self.place[id]
        for r in self.reads[unit]:
            b, name = r.source.block, f"{self.id[r.source]}.w"
            if b is not None:
                for n in self._drawn(b) if r.how == "all" else [self._last(r.source)]:
                    box = f"{self.id[r.source]}.{n}"
                    ends = [*self._below(p, self.place[box].x), *self._sides(p)]
                    self._wire((box, id), "flow", (self.id[r.source], id), (self._exits(r.source, box), ends), r)
            elif name in self.place:
                q = self.place[name]
                starts = [Port((q.x, q.high), (0, 1)), *self._sides(q)]
                ends = [*self._below(p, q.x), *self._sides(p)]
                self._wire((name, id), "flow", name, (starts, ends), r)
        if beside := self._inputs_beside(unit):
            lines = self._lines_beside(beside)
            size = self._size(beside[0], lines)
            name = f"{id}.in"
            self._box(name, "input", lines, p.right + 30 + size[0] / 2, p.y, size)
            self._edge(name, id, "flow", [(p.right + 30, p.y), (p.right, p.y)])

    def _inputs_beside(self, unit: Unit) -> list[Unit]:
        """The inputs that are drawn beside a unit above the columns: those that no step reads."""
        return [
            r.source
            for r in self.reads[unit]
            if r.source.kind == "input" and r.source.block is None and f"{self.id[r.source]}.w" not in self.place
        ]

    def _lines_beside(self, inputs: list[Unit]) -> list[Line]:
        return [line for u in inputs for line in self.labels.lines(u)]

    def _exits(self, unit: Unit, box: str) -> list[Port]:
        """Where an arrow up to a unit above the columns leaves a box of a column."""
        p = self.place[box]
        top = Port((p.x, p.high), (0, 1))
        if unit.kind != "loop":
            return [top, *self._sides(p)]
        return [top, Port((p.right, p.high - 7), (1, 0)), Port((p.left, p.high - 7), (-1, 0))]

    # -- what is said beside it ------------------------------------------------------------------------------------------
    def _weights(self, left: float) -> None:
        """One box for the weights, which are the same at every step."""
        groups: dict[str, dict[Node, Line]] = {}
        for cell in self.labels.cells.values():
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
        names = (
            ("input", "input"),
            ("state", "state"),
            ("const", "constant"),
            ("loop", "step of a loop, with its states"),
            ("op", "operation"),
            ("output", "output"),
        )
        if "loop output" in kinds:
            kinds |= {"loop", "output"}
        self.picture.legend = [(k, t) for k, t in names if k in kinds]
        if self.back:
            self.picture.legend.append(("gradient", "← gradient ∂L/∂ of the loss L, and the local derivative"))
        elif self.colour:
            self.picture.legend.append(("weight0", "one colour: one weight"))
