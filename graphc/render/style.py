"""How things look: a palette that colour-blind people can tell apart (Okabe and Ito's), dark text, and for every kind of
box a border of its own beside the colour, so that a picture survives a grey printer."""

from __future__ import annotations

from dataclasses import dataclass

FONT = "Helvetica,Arial,sans-serif"
INK = "#1A1A1A"
GREY = "#595959"
BLUE, SKY, GREEN, ORANGE = "#0072B2", "#56B4E9", "#009E73", "#E69F00"
VERMILLION, PURPLE = "#C04F00", "#CC79A7"  # the vermillion a little darker than the palette's, to be read as text
WEIGHTS = (BLUE, VERMILLION, "#005500", "#CC0088", "#6600CC", "#660055", "#002288", "#BB11FF")
"""For weights and the arrows that they act on: dark enough for text, and as far from each other as so many can be, for
eyes that lack a kind of cone too."""


@dataclass(frozen=True)
class BoxStyle:
    """A kind of box: Graphviz's shape and style, its colours and the number of its borders."""

    fill: str
    border: str
    shape: str = "box"
    style: str = "rounded,filled"
    borders: int = 1
    width: float = 1.2


@dataclass(frozen=True)
class TextStyle:
    """A way of writing: colour, points, weight; `left` lines begin at the left edge of their box, `air` is how much
    higher than its letters a line is, in points."""

    colour: str = INK
    points: int = 11
    bold: bool = False
    left: bool = False
    mono: bool = False
    air: int = 0


@dataclass(frozen=True)
class EdgeStyle:
    """A kind of edge; `colours` beside each other, `back` puts an arrow at its tail, `forward` one at its head."""

    colours: tuple[str, ...] = (GREY,)
    style: str = "solid"
    forward: bool = True
    back: bool = False
    width: float = 1.0


BOX = {
    "input": BoxStyle("#DCEFFB", BLUE, shape="ellipse", style="filled", width=1.5),
    "param": BoxStyle("#FCEBC8", ORANGE, style="filled", width=2),
    "state": BoxStyle("#F6E3EC", PURPLE, shape="cylinder", style="filled", width=1.5),
    "const": BoxStyle("#FFFFFF", GREY, style="filled,dashed"),
    "op": BoxStyle("#FFFFFF", "#4D4D4D"),
    "output": BoxStyle("#D3EEE4", GREEN, borders=2, width=1.4),
    "pale": BoxStyle("#F4F4F4", "#B0B0B0"),
    "adjoint": BoxStyle("#FBE3D3", VERMILLION, width=1.5),
    "result": BoxStyle("#FBE3D3", VERMILLION, borders=2, width=1.5),
    "kernel": BoxStyle("#FFFFFF", "#4D4D4D"),
    "product": BoxStyle("#DCEFFB", SKY, style="filled", width=2),
    "buffer": BoxStyle("#FFFFFF", "#FFFFFF", style="filled", width=0),
    "check": BoxStyle("#FFFFFF", GREY, shape="hexagon", style="filled,dashed"),
    "timed product": BoxStyle("#FFFFFF", SKY, style="filled", width=2),
    "hot": BoxStyle("#F2A95C", "#4D4D4D"),
    "carry": BoxStyle("#F6E3EC", PURPLE, style="rounded,filled,dashed", width=1.5),
    "element": BoxStyle("#EEF6FC", BLUE, style="rounded,filled"),
    "loop": BoxStyle("#FFFFFF", INK, width=1.8),
    "loop output": BoxStyle("#FFFFFF", GREEN, borders=2, width=1.8),
    "note": BoxStyle("#FFFFFF", "#FFFFFF", shape="plain", style="", width=0),
}

TEXT = {
    "plain": TextStyle(),
    "title": TextStyle(points=12, bold=True),
    "small": TextStyle(colour=GREY, points=10),
    "value": TextStyle(colour=BLUE, points=11),
    "gradient": TextStyle(colour=VERMILLION, points=11),
    "arrow": TextStyle(colour=VERMILLION, points=11),
    "mark": TextStyle(colour=GREY, points=10),
    "local": TextStyle(colour=GREY, points=10),
    "code": TextStyle(points=10, left=True),
    "scope": TextStyle(colour=GREY, bold=True, left=True),
    "place": TextStyle(colour=GREY, points=10, left=True),
    "note": TextStyle(colour=GREY, points=10, left=True),
    "time": TextStyle(points=10, bold=True, left=True),
    "head": TextStyle(points=12, bold=True, left=True),
    "formula": TextStyle(points=11, air=4),
    "gradient formula": TextStyle(colour=VERMILLION, points=11, air=6),
    "again": TextStyle(colour="#9C4A78", points=10),
    "weight": TextStyle(points=11, air=4),
    "step": TextStyle(colour=GREY, points=12, bold=True, air=6),
    **{f"weight{n}": TextStyle(colour=c, points=11, bold=True, air=4) for n, c in enumerate(WEIGHTS)},
}

EDGE = {
    "flow": EdgeStyle(),
    "pale": EdgeStyle(("#B0B0B0",)),
    "update": EdgeStyle((PURPLE,), style="dashed"),
    "adjoint": EdgeStyle((VERMILLION,)),
    "buffer": EdgeStyle(("#4D4D4D",)),
    "line": EdgeStyle(("#4D4D4D",), forward=False),
    "value in": EdgeStyle((BLUE,)),
    "value out": EdgeStyle((BLUE,), forward=False),
    "both in": EdgeStyle((BLUE, VERMILLION)),
    "both out": EdgeStyle((BLUE, VERMILLION), forward=False, back=True),
    "again": EdgeStyle((PURPLE,), style="dashed", forward=False, back=True),
    "state": EdgeStyle((INK,), width=1.6),
    "given": EdgeStyle((GREY,), style="dashed"),
    "bus": EdgeStyle((GREY,), style="dashed", forward=False),
    "gradient": EdgeStyle((VERMILLION,), width=1.4),
    **{f"weight{n}": EdgeStyle((c,), width=1.8) for n, c in enumerate(WEIGHTS)},
}

CLUSTER = {"scope": ("#F7F7F2", "#8C8C8C"), "repeat": ("#EEF3F7", BLUE), "adjoint": ("#FDF4EE", VERMILLION)}
"""Fill and border of a kind of cluster."""


def heat(part: float) -> str:
    """White for 0, and darker up to the fill of the box `hot` for 1: equal steps of the part's square root, so that
    a tenth can be told from nothing."""
    end = (int(BOX["hot"].fill[i : i + 2], 16) for i in (1, 3, 5))
    return "#" + "".join(f"{round(255 + (channel - 255) * min(part, 1.0) ** 0.5):02X}" for channel in end)
