"""What is wrong with a laid-out picture: boxes that overlap, text that does not fit, lines through what they do not join.

It reads what `dot -Tjson` says of a drawing; the width of a text is estimated here too, character by character.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import graphviz

WIDE, NARROW = set("mwMW@%—…→←"), set("iljtfrI.,:;'|!()[] -·₀₁₂₃₄₅₆₇₈₉⁰¹²³⁴⁵⁶⁷⁸⁹⁽⁾′ᵀ")


@dataclass(frozen=True)
class Rectangle:
    left: float
    low: float
    right: float
    high: float

    def overlaps(self, other: Rectangle, slack: float = 0.0) -> bool:
        return (
            self.left < other.right - slack
            and other.left < self.right - slack
            and self.low < other.high - slack
            and other.low < self.high - slack
        )

    def holds(self, other: Rectangle, slack: float = 0.0) -> bool:
        return (
            self.left - slack <= other.left
            and other.right <= self.right + slack
            and self.low - slack <= other.low
            and other.high <= self.high + slack
        )

    def has(self, x: float, y: float, slack: float = 0.0) -> bool:
        return self.left + slack < x < self.right - slack and self.low + slack < y < self.high - slack


def layout(dot: str) -> dict[str, Any]:
    """The drawing as `dot -Tjson` describes it."""
    found: dict[str, Any] = json.loads(graphviz.pipe("dot", "json", dot.encode(), quiet=True))
    return found


def width_of(text: str, size: float) -> float:
    """An estimate, on the low side, of a text's width in points."""
    return sum(0.8 if c in WIDE else 0.22 if c in NARROW else 0.48 for c in text) * size


def faults(drawing: dict[str, Any]) -> list[str]:
    """Everything that is wrong, as sentences."""
    whole = _box(drawing["bb"])
    objects = drawing.get("objects", [])
    nodes = {o["name"]: _node(o) for o in objects if "pos" in o}
    clusters = {o["name"]: (_box(o["bb"]), {objects[i]["name"] for i in o.get("nodes", ())}) for o in objects if "bb" in o}
    found = [f"{a} and {b} overlap" for (a, r), (b, s) in combinations(nodes.items(), 2) if r.overlaps(s, 0.5)]
    found += [f"{name} is clipped" for name, r in nodes.items() if not whole.holds(r, 1)]
    for name, (frame, inside) in clusters.items():
        found += [f"{n} leaves {name}" for n in inside if n in nodes and not frame.holds(nodes[n], 1)]
        found += [f"{n} lies in {name} by chance" for n in nodes.keys() - inside if frame.overlaps(nodes[n], 0.5)]
    for o in objects:
        if "pos" in o:
            for text, place in _texts(o.get("_ldraw_", ())):
                if not nodes[o["name"]].holds(place, 1.5):
                    found.append(f"the text {text!r} does not fit {o['name']}")
    for text, place in _texts(drawing.get("_ldraw_", ())):
        if not whole.holds(place, 1.5):
            found.append(f"the heading {text!r} is clipped")
    labels = []
    for edge in drawing.get("edges", ()):
        ends = {objects[edge["tail"]]["name"], objects[edge["head"]]["name"]}
        name = " → ".join(sorted(ends))
        for x, y in _points(edge.get("_draw_", ())):
            found += [f"the line {name} runs through {n}" for n, r in nodes.items() if n not in ends and r.has(x, y, 2)]
        labels += [(name, text, place) for text, place in _texts(edge.get("_ldraw_", ()))]
    for edge in drawing.get("edges", ()):
        name = " → ".join(sorted({objects[edge["tail"]]["name"], objects[edge["head"]]["name"]}))
        for x, y in _points(edge.get("_draw_", ())):
            found += [f"the line {name} crosses the label {t!r} of {n}" for n, t, r in labels if r.has(x, y, 1.5)]
    for name, text, place in labels:
        found += [f"the label {text!r} of {name} lies on {n}" for n, r in nodes.items() if r.overlaps(place, 0.5)]
        if not whole.holds(place, 1):
            found.append(f"the label {text!r} of {name} is clipped")
    found += [
        f"the labels {a!r} and {b!r} overlap" for (_, a, r), (_, b, s) in combinations(labels, 2) if r.overlaps(s, 3)
    ]
    return sorted(set(found))


def _box(text: str) -> Rectangle:
    return Rectangle(*map(float, text.split(",")))


def _node(o: dict[str, Any]) -> Rectangle:
    x, y = map(float, o["pos"].split(","))
    w, h = 36 * float(o["width"]), 36 * float(o["height"])
    return Rectangle(x - w, y - h, x + w, y + h)


def _texts(operations: Any) -> list[tuple[str, Rectangle]]:
    """The texts of a drawing's operations, with where they stand: by dot's measure or by the estimate, whichever is wider."""
    found, size = [], 11.0
    for operation in operations:
        if operation["op"] == "F":
            size = operation["size"]
        elif operation["op"] == "T" and operation["text"].strip():
            x, y = operation["pt"]
            width = max(operation["width"], width_of(operation["text"], size))
            start = {"l": x, "c": x - width / 2, "r": x - width}[operation["align"]]
            found.append((operation["text"], Rectangle(start, y - 0.2 * size, start + width, y + 0.7 * size)))
    return found


def _points(operations: Any) -> list[tuple[float, float]]:
    """Points along the curves of an edge."""
    found = []
    for operation in operations:
        if operation["op"] == "b":
            points = operation["points"]
            for i in range(0, len(points) - 3, 3):
                found += [_bezier(points[i : i + 4], t / 12) for t in range(13)]
    return found


def _bezier(p: list[list[float]], t: float) -> tuple[float, float]:
    weights = [math.comb(3, k) * (1 - t) ** (3 - k) * t**k for k in range(4)]
    return sum(w * q[0] for w, q in zip(weights, p)), sum(w * q[1] for w, q in zip(weights, p))
