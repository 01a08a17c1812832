"""What stands before the columns of an unrolled picture: the states that loops begin with, and what there is one of and
every step reads."""

from __future__ import annotations

from collections import defaultdict
from functools import cached_property

from .columns import Columns, stacked
from .picture import Place
from .route import PITCH as LANE
from .route import Port
from .timeline import Reading, Unit

APART = 34.0
"""Between what stands before the columns and what it is read by."""


class Beside(Columns):
    """The blocks of columns, each with what stands before it."""

    def _block(self, b: int, x: float) -> float:
        """The columns of a block with what stands before them; where it ends on the right."""
        wide = [max(self._whole_size(u)[0] for u in layer) + APART for layer in self._layers[b]]
        left, right = self._starts_width(b)
        start = x + 16 + sum(wide) + left
        end = self._columns(b, start + self._buses_width(b))
        for unit in self.rows[b]:
            if unit.kind == "loop":
                self._begin(unit, end + 22 if unit.scan.reverse else start - 6)
        at = start - left
        for layer, width in zip(self._layers[b], wide, strict=True):
            self._layer(b, layer, at - width / 2 - APART / 2 + 6)
            at -= width
        return end + 16 + right

    def _buses_width(self, b: int) -> float:
        """The room for lines, before the first column, of what every step reads."""
        return LANE * len({r.source for u in self.rows[b] for r in self.reads[u] if r.how == "once"})

    # -- what there is one of --------------------------------------------------------------------------------------------
    @cached_property
    def _layers(self) -> list[list[list[Unit]]]:
        """For each block what stands before it: what its steps read, then what that is computed from, and so on."""
        found: list[list[list[Unit]]] = []
        known: set[Unit] = set()
        for b in self.blocks:
            readers, layers = list(self.rows[b]), list[list[Unit]]()
            while readers:
                read = [r for u in readers for r in self.reads[u] if r.source in self.before and r.source not in known]
                own = list(dict.fromkeys(r.source for r in read if r.how != "init"))
                known |= set(own)
                if own:
                    layers.append(own)
                # a first state is a box of its own: what it is computed from stands behind it
                readers = [*own, *dict.fromkeys(r.source for r in read if r.how == "init")]
            found.append(layers)
        return found

    def _layer(self, b: int, units: list[Unit], x: float) -> None:
        """Boxes one above the other, each as near as can be to the first row that reads it."""
        rows = {u: self.row[u].y - self.row[u].height / 2 for u in self.rows[b]}

        def wished(unit: Unit) -> float:
            readers = [r.reader for r in self.timeline.readings if r.source is unit]
            near = [rows[r] for r in readers if r in rows]
            inner = [self.place[f"{self.id[r]}.w"].y for r in readers if f"{self.id[r]}.w" in self.place]
            return min(near or inner or [0.0])

        sizes = {u: self._whole_size(u) for u in units}
        order = sorted(units, key=wished)
        for unit, y in zip(order, stacked(((wished(u), sizes[u][1]) for u in order), 16), strict=True):
            id, title = f"{self.id[unit]}.w", self.labels.title(unit, "t")
            self._box(id, self._box_kind(unit), self._whole_lines(unit), x, y, sizes[unit], title)

    # -- the first states ------------------------------------------------------------------------------------------------
    def _starts_width(self, b: int) -> tuple[float, float]:
        """The room for first states on both sides of the columns of a block."""
        room = [0.0, 0.0]
        for unit in self.rows[b]:
            if unit.kind == "loop":
                side = 1 if unit.scan.reverse else 0
                wide = max((self._size_of_start(lines, kind)[0] for lines, _, _, kind in self._starts(unit)), default=0)
                elsewhere = any(r.how == "init" and not self._is_start(r) for r in self.reads[unit])
                room[side] = max(room[side], wide + 30 if wide else 0.0, 40.0 if elsewhere else 0.0)
        return room[0], room[1]

    def _begin(self, unit: Unit, x: float) -> None:
        """The first states beside the first step of a loop, from an x outwards."""
        reverse = unit.scan.reverse
        starts = self._starts(unit)
        sizes = [self._size_of_start(lines, kind) for lines, _, _, kind in starts]
        middle = self.place[self._entry(unit, 0)[0]].y
        y = middle + (sum(h for _, h in sizes) + 8 * (len(sizes) - 1)) / 2 if sizes else middle
        for number, ((lines, carries, r, kind), size) in enumerate(zip(starts, sizes, strict=True)):
            id = f"{self.id[unit]}.start{number}"
            self._box(id, kind, lines, x + (size[0] if reverse else -size[0]) / 2, y - size[1] / 2, size)
            p = self.place[id]
            side, turn = (p.left, p.left - 8) if reverse else (p.right, p.right + 8)
            for k in carries:
                first, port = self._entry(unit, k)
                enter = port.point[1]
                leave = enter if p.low + 2 < enter < p.high - 2 else p.y
                route = [(side, leave), (turn, leave), (turn, enter), port.point]
                self._edge(id, first, self._state_kind(unit, k), route, self._carries(r))
            if r is not None:
                self._join_start(r.source, id)
            y -= size[1] + 8
        for r in self.reads[unit]:
            if r.how == "init" and r.carry is not None and not self._is_start(r):
                self.begun.append((unit, r))

    def _join_start(self, source: Unit, id: str) -> None:
        """The arrows from what a first state is computed from."""
        self.started[source].append(id)

    def _join_before(self) -> None:
        """The arrows between what stands before the columns, to first states, and to every step."""
        for layers in self._layers:
            for unit in (u for layer in layers for u in layer):
                self._join(unit, f"{self.id[unit]}.w")
        for source, ids in self.started.items():
            for id in ids:
                self._join(source, id)
        for b in self.blocks:
            for unit in self.rows[b]:
                taken: dict[Unit, float] = defaultdict(float)
                for r in self.reads[unit]:
                    name = f"{self.id[r.source]}.w"
                    if r.how == "once" and name in self.place:
                        taken[r.source] = (-1) ** len(taken) / (4 + 2 * (len(taken) // 2))
                        for n in self._drawn(b):
                            p = self.place[f"{self.id[unit]}.{n}"]
                            port = Port((p.x + taken[r.source] * p.width * -1, p.low), (0, -1))
                            ends = name, f"{self.id[unit]}.{n}"
                            self._wire(ends, "given", name, (self._around(self.place[name]), [port]), r)
        for unit, r in self.begun:
            assert r.carry is not None
            first, port = self._entry(unit, r.carry)
            if r.source.kind == "loop":
                assert r.result is not None
                name = f"{self.id[r.source]}.{self._last(r.source)}"
                q = self.place[name]
                y, reverse = q.y + self._offsets(r.source)[r.result], r.source.scan.reverse
                starts = [Port((q.left, y), (-1, 0)) if reverse else Port((q.right, y), (1, 0))]
            else:
                name = f"{self.id[r.source]}.w"
                starts = self._around(self.place[name])
            kind = self._state_kind(unit, r.carry)
            self._wire((name, first), kind, (name, r.carry), (starts, [port]), r)

    def _join(self, unit: Unit, id: str) -> None:
        """The arrows from what stands before the columns to something that does too."""
        for r in self.reads[unit]:
            name = f"{self.id[r.source]}.w"
            if name in self.place and name != id:
                ports = self._around(self.place[name]), self._around(self.place[id])[1:]
                self._wire((name, id), "flow", name, ports, r)

    def _around(self, p: Place) -> list[Port]:
        """Where arrows leave a box: on the right, the left, above, below."""
        return [*self._sides(p), Port((p.x, p.high), (0, 1)), Port((p.x, p.low), (0, -1))]

    def _state_kind(self, unit: Unit, k: int) -> str:
        return self._kind(unit, unit.scan.body.carries[k]) or "state"

    def _is_start(self, r: Reading) -> bool:
        """Is a loop's first state a box beside its first step? Else it is drawn elsewhere."""
        return r.source not in self.above and r.source.kind != "loop"
