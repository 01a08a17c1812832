"""Ways for lines between boxes that have places: along a grid, around the boxes, beside the lines of others.

A way is the cheapest by its length, its corners and the lines that it crosses, found by A* (Hart, Nilsson and Raphael
1968). Lines of one net, which carry the same value, run together where they can, so that they form a tree; lines of
different nets never lie on each other unless there is no other way.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import pairwise
from math import ceil, floor

from .picture import Place, Point

PITCH = 9.0
"""Between lines beside each other."""
CLEAR = 4.0
"""Between a line and a box."""
STUB = 8.0
"""How far a line leaves a box straight."""
EDGE = 72.0
"""How far beyond the boxes lines may run."""
CORNER, CROSSING, CONFLICT, SHARED = 15.0, 6.0, 400.0, 0.25
"""What a corner costs and what crossing a line, in points of length; what lying on a line of another net costs; the share
of its length that a line costs which runs on one of its own net."""


@dataclass(frozen=True)
class Port:
    """Where a line may leave or enter a box, and the direction away from the box: (±1, 0) or (0, ±1). cost: what it costs
    beside the line, in points of length, so that better places are taken first."""

    point: Point
    away: tuple[int, int]
    cost: float = 0.0

    @property
    def stub(self) -> Point:
        """The end of the straight piece at the box."""
        return self.point[0] + STUB * self.away[0], self.point[1] + STUB * self.away[1]

    def before(self, point: Point) -> Point:
        """The place at the box that is straight before a point of the grid."""
        return (self.point[0], point[1]) if self.away[0] else (point[0], self.point[1])


@dataclass(frozen=True)
class Wire:
    """A line that is wanted: from one of some ports to one of others. net: what lines of one value have in common."""

    net: Hashable
    starts: tuple[Port, ...]
    ends: tuple[Port, ...]

    @property
    def length(self) -> float:
        """The least that it can be long."""
        return min(_distance(s.stub, e.stub) for s in self.starts for e in self.ends)


@dataclass(frozen=True)
class Way:
    """The corners of a line, both ends among them. joins: the corner number at which it leaves a line of its own net that
    it begins on, 0 if there is none."""

    route: tuple[Point, ...]
    joins: int


class Router:
    """Boxes and lines, and the grid between them.

    left: no line runs further left. lines: what is drawn already, with nets.
    """

    def __init__(
        self,
        boxes: Sequence[Place],
        lines: Iterable[tuple[Sequence[Point], Hashable]],
        wires: Sequence[Wire],
        left: float,
    ):
        self.wires = wires
        ports = [p.stub for w in wires for p in (*w.starts, *w.ends)]
        right, low, high = (
            max(p.right for p in boxes) + EDGE,
            min(p.low for p in boxes) - PITCH,
            max(p.high for p in boxes) + EDGE,
        )
        self.xs = _lanes(left, right, [x for x, _ in ports])
        self.ys = _lanes(low, high, [y for _, y in ports])
        self.width = len(self.xs)
        cells = self.width * len(self.ys)
        self.blocked = bytearray(cells)
        for p in boxes:
            first, count = self._span(self.xs, p.left - CLEAR, p.right + CLEAR)
            for row in range(*self._range(self.ys, p.low - CLEAR, p.high + CLEAR)):
                at = row * self.width + first
                self.blocked[at : at + count] = b"\1" * count
        self.nets: dict[Hashable, int] = {}
        self.drawn: set[int] = set()  # nets that have lines
        self.used = [[0] * cells, [0] * cells]  # by lines that run across, upwards: 0 none, else the number of a net
        for route, net in lines:
            self._note(route, net)

    def ways(self) -> list[Way]:
        """The way of each wire, in the wires' order; short ones have the first choice."""
        found: dict[int, Way] = {}
        for number in sorted(range(len(self.wires)), key=lambda n: self.wires[n].length):
            wire = self.wires[number]
            way = found[number] = self._search(wire)
            self._note(way.route, wire.net)
        return [found[n] for n in range(len(self.wires))]

    # -- the grid ---------------------------------------------------------------------------------------------------
    @staticmethod
    def _range(values: Sequence[float], low: float, high: float) -> tuple[int, int]:
        """The positions strictly between two values."""
        return bisect_right(values, low), bisect_left(values, high)

    def _span(self, values: Sequence[float], low: float, high: float) -> tuple[int, int]:
        begin, end = self._range(values, low, high)
        return begin, max(end - begin, 0)

    def _note(self, route: Sequence[Point], net: Hashable) -> None:
        """Cells beside and on the pieces of a line are taken."""
        number = self.nets.setdefault(net, len(self.nets) + 1)
        self.drawn.add(number)
        near = PITCH - 1
        for (x, y), (u, v) in pairwise(route):
            level = abs(y - v) < 0.05
            wide, tall = (0.0, near) if level else (near, 0.0)
            columns = range(*self._range(self.xs, min(x, u) - wide - 0.1, max(x, u) + wide + 0.1))
            used = self.used[0 if level else 1]
            for row in range(*self._range(self.ys, min(y, v) - tall - 0.1, max(y, v) + tall + 0.1)):
                for column in columns:
                    exact = abs((self.ys[row] - y) if level else (self.xs[column] - x)) < 0.05
                    at = row * self.width + column
                    # a line itself counts more than one beside it; the lane beside a line of the same net is free
                    if exact or not used[at]:
                        used[at] = number if exact else -number

    # -- the search ---------------------------------------------------------------------------------------------------
    def _search(self, wire: Wire) -> Way:
        net = self.nets.setdefault(wire.net, len(self.nets) + 1)
        width, xs, ys, used = self.width, self.xs, self.ys, self.used
        ends: dict[tuple[int, int], Port] = {}
        for port in wire.ends:
            cell = self._cell(port.stub)
            if not self.blocked[cell]:
                ends.setdefault((cell, 1 if port.away[0] == 0 else 0), port)
        goals = [p.stub for p in ends.values()] or [p.stub for p in wire.ends]
        box = min(x for x, _ in goals), max(x for x, _ in goals), min(y for _, y in goals), max(y for _, y in goals)

        share = SHARED if net in self.drawn else 1.0  # of the length that is left, at least

        def left_over(x: float, y: float) -> float:
            return share * (max(box[0] - x, 0, x - box[1]) + max(box[2] - y, 0, y - box[3]))

        def turning(cell: int, way: int) -> float:
            """What it costs to begin to run across (0) or upwards (1) at a cell."""
            other = used[way][cell]
            return CONFLICT if other and abs(other) != net else 0.0

        cost: dict[tuple[int, int], float] = {}
        came: dict[tuple[int, int], tuple[int, int]] = {}
        begins: dict[tuple[int, int], Port] = {}
        heap: list[tuple[float, float, tuple[int, int]]] = []
        for port in wire.starts:
            cell = self._cell(port.stub)
            state = cell, 1 if port.away[0] == 0 else 0
            if not self.blocked[cell] and state not in cost:
                begins[state], cost[state] = port, port.cost + turning(cell, state[1])
                heappush(heap, (cost[state] + left_over(*port.stub), cost[state], state))
        closed: set[tuple[int, int]] = set()
        arrived: tuple[float, tuple[int, int]] | None = None
        while heap:
            estimate, spent, state = heappop(heap)
            if arrived is not None and arrived[0] <= estimate:
                break
            if state in closed:
                continue
            closed.add(state)
            if state in ends and (arrived is None or spent + ends[state].cost < arrived[0]):
                arrived = spent + ends[state].cost, state
            cell, way = state
            row, column = divmod(cell, width)
            turned = (cell, 1 - way)
            price = spent + CORNER + turning(cell, 1 - way)
            if price < cost.get(turned, 1e18):
                cost[turned], came[turned] = price, state
                heappush(heap, (price + left_over(xs[column], ys[row]), price, turned))
            for by in (-1, 1):
                u, v = (column + by, row) if way == 0 else (column, row + by)
                if not (0 <= u < width and 0 <= v < len(ys)):
                    continue
                after = v * width + u
                if self.blocked[after]:
                    continue
                length = abs(xs[u] - xs[column]) + abs(ys[v] - ys[row])
                along, across = used[way][after], used[1 - way][after]
                if along and abs(along) != net:
                    length += CONFLICT
                elif along == net and used[way][cell] == net:
                    length *= SHARED
                if across > 0 and across != net:
                    length += CROSSING
                price, following = spent + length, (after, way)
                if price < cost.get(following, 1e18):
                    cost[following], came[following] = price, state
                    heappush(heap, (price + left_over(xs[u], ys[v]), price, following))
        if arrived is not None:
            return self._way(arrived[1], came, begins, ends[arrived[1]], net)
        return self._direct(wire)

    def _cell(self, point: Point) -> int:
        return bisect_left(self.ys, round(point[1], 1)) * self.width + bisect_left(self.xs, round(point[0], 1))

    def _way(
        self,
        state: tuple[int, int],
        came: dict[tuple[int, int], tuple[int, int]],
        begins: dict[tuple[int, int], Port],
        end: Port,
        net: int,
    ) -> Way:
        states = [state]
        while state in came:
            state = came[state]
            states.append(state)
        states.reverse()
        cells = [c for k, (c, _) in enumerate(states) if k == 0 or c != states[k - 1][0]]
        points = [(self.xs[c % self.width], self.ys[c // self.width]) for c in cells]
        shared = 0  # so many of the first pieces lie on a line of the net
        for a, b in pairwise(cells):
            used = self.used[0 if a // self.width == b // self.width else 1]
            if used[a] != net or used[b] != net:
                break
            shared += 1
        route = begins[states[0]].before(points[0]), *points, end.before(points[-1])
        return Way(route, shared + 1 if shared else 0)

    @staticmethod
    def _direct(wire: Wire) -> Way:
        """Where boxes shut all ways: one with a corner, over what stands there."""
        start, end = wire.starts[0], wire.ends[0]
        (x, y), (u, v) = start.stub, end.stub
        return Way((start.point, (x, y), (u, y) if start.away[0] else (x, v), (u, v), end.point), 0)


def _lanes(low: float, high: float, others: Iterable[float]) -> list[float]:
    """Lanes at equal distances, and others, to a tenth of a point, as they are drawn."""
    return sorted({round(v, 1) for v in (*lanes_between(low, high), *others)})


def lanes_between(low: float, high: float) -> list[float]:
    """The lanes of all grids between two places."""
    return [PITCH * k for k in range(ceil(low / PITCH), floor(high / PITCH) + 1)]


def _distance(a: Point, b: Point) -> float:
    return abs(a[0] - b[0]) + abs(a[1] - b[1])
