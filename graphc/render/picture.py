"""What a picture shows, for any view: boxes with lines of text, edges, nested clusters, a title and a legend."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Place:
    """A rectangle in points, by its middle; y grows upwards."""

    x: float
    y: float
    width: float
    height: float

    @property
    def left(self) -> float:
        return self.x - self.width / 2

    @property
    def right(self) -> float:
        return self.x + self.width / 2

    @property
    def low(self) -> float:
        return self.y - self.height / 2

    @property
    def high(self) -> float:
        return self.y + self.height / 2


Point = tuple[float, float]


@dataclass(frozen=True)
class Line:
    """A line of text and the style that it is written in (see style.TEXT). What stands in _{…} is a subscript."""

    text: str
    style: str = "plain"


@dataclass(frozen=True)
class Box:
    """A thing in the picture. kind: see style.BOX; cluster: the id of the cluster around it; tooltip: shown on pointing;
    fill: a colour in place of the kind's. place: where it stands, in a picture that is not laid out by Graphviz."""

    id: str
    kind: str
    lines: tuple[Line, ...]
    cluster: str = ""
    tooltip: str = ""
    place: Place | None = None
    fill: str = ""


@dataclass(frozen=True)
class Edge:
    """An arrow from one box to another, by their ids. kind: see style.EDGE; route: the corners of its way, both ends
    included, where boxes have places."""

    tail: str
    head: str
    kind: str = "flow"
    lines: tuple[Line, ...] = ()
    route: tuple[Point, ...] = ()


@dataclass(frozen=True)
class Cluster:
    """A frame around boxes and other clusters. title: lines, the first in bold; parent: the id of the cluster that it lies
    in; kind: see style.CLUSTER."""

    id: str
    title: str
    parent: str = ""
    kind: str = "scope"
    place: Place | None = None


@dataclass
class Picture:
    """A whole picture. legend: (kind of box or edge, what it means); direction: "LR" or "TB"."""

    title: str
    subtitle: str = ""
    direction: str = "TB"
    boxes: list[Box] = field(default_factory=list)
    edges: list[Edge] = field(default_factory=list)
    clusters: list[Cluster] = field(default_factory=list)
    legend: list[tuple[str, str]] = field(default_factory=list)

    @property
    def placed(self) -> bool:
        """Do its boxes have places already?"""
        return any(b.place is not None for b in self.boxes)

    def depth(self) -> int:
        """The number of boxes on the longest path."""
        longest = dict.fromkeys((b.id for b in self.boxes), 1)
        after: dict[str, list[str]] = {b.id: [] for b in self.boxes}
        waiting = dict.fromkeys(after, 0)
        for edge in self.edges:
            after[edge.tail].append(edge.head)
            waiting[edge.head] += 1
        ready = [b for b, n in waiting.items() if not n]
        while ready:
            box = ready.pop()
            for head in after[box]:
                longest[head] = max(longest[head], longest[box] + 1)
                waiting[head] -= 1
                if not waiting[head]:
                    ready.append(head)
        return max(longest.values(), default=0)
