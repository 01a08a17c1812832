"""A picture as DOT, the text that Graphviz reads. Equal pictures give equal bytes."""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Iterator, Sequence
from textwrap import wrap

from .picture import Box, Cluster, Edge, Line, Picture, Point
from .style import BOX, CLUSTER, EDGE, FONT, GREY, INK, TEXT, TextStyle

WIDEST = {
    "code": 78,
    "formula": 66,
    "gradient formula": 84,
    "arrow": 80,
    "title": 40,
    "head": 60,
    "scope": 40,
    "place": 44,
}
"""Characters of a line, by its style, before it is wrapped."""
NARROW = 34
HEADING = 96
WIRE = "wire"
SUBSCRIPT = re.compile(r"_\{([^{}]*)\}")
"""What is written smaller and lower."""
DEEPER = 6
"""How much higher a line with subscripts is, in points."""


def to_dot(picture: Picture, dpi: int | None = None) -> str:
    """The picture as DOT. dpi: dots per inch, for pixel formats."""
    if picture.placed:
        return _placed(picture, dpi)
    across = picture.direction == "LR"
    lines = [
        f"digraph {_quote(picture.title)} {{",
        f"  graph [rankdir={picture.direction}, bgcolor=white, pad=0.25, nodesep={0.3 if across else 0.4}, "
        f'ranksep={0.35 if across else 0.4}, labelloc=t, fontname="{FONT}", fontcolor="{INK}", '
        f"label={_heading(picture)}{f', dpi={dpi}' if dpi else ''}];",
        f'  node [fontname="{FONT}", fontsize=11, fontcolor="{INK}", margin="0.14,0.08", height=0.3, width=0.3];',
        f'  edge [fontname="{FONT}", fontsize=10, fontcolor="{GREY}", arrowsize=0.7];',
    ]
    lines += _cluster_lines(picture, "", "  ")
    wires = {b.id for b in picture.boxes if b.kind == WIRE}
    lines += [_edge(e, wires, across) for e in picture.edges]
    return "\n".join([*lines, "}"]) + "\n"


# -- text ------------------------------------------------------------------------------------------------------------
def _quote(text: str) -> str:
    return '"' + _clean(text).replace("\\", "\\\\").replace('"', '\\"') + '"'


def _clean(text: str) -> str:
    """Without control characters, which neither DOT nor SVG can hold."""
    return "".join(
        c if c.isprintable() or unicodedata.category(c) == "Zs" else "�"
        for c in text.replace("\n", " ").replace("\t", " ")
    )


def _escape(text: str, points: int = 11) -> str:
    """Text in HTML-like markup; what stands in _{…} is smaller and lower."""
    # Graphviz takes a "]" before a tag for what stands behind the tag
    escaped = html.escape(_clean(text), quote=False).replace("]", "&#93;") or "\N{NO-BREAK SPACE}"
    small = f'<SUB><FONT POINT-SIZE="{round(0.75 * points)}">\\1</FONT></SUB>'
    return SUBSCRIPT.sub(small, escaped)


def wrapped(text: str, width: int) -> list[str]:
    """Lines no longer than `width`: broken at spaces, behind a slash or an underscore, or where nothing else helps."""
    if len(text) <= width:
        return [text]
    pieces = wrap(text, width, break_long_words=False, break_on_hyphens=False)
    return [part for piece in pieces for part in (_broken(piece, width) if len(piece) > width else [piece])] or [""]


def _broken(word: str, width: int) -> Iterator[str]:
    while len(word) > width:
        at = max(word.rfind(c, width // 3, width) for c in "/_.,")
        at = at + 1 if at > 0 else width
        yield word[:at]
        word = word[at:]
    if word:
        yield word


def pieces(line: Line) -> list[str]:
    """The text of a line as it is broken."""
    return wrapped(line.text, WIDEST.get(line.style, NARROW))


def _styled(line: Line) -> str:
    """A line as HTML-like text, wrapped, with its breaks."""
    style = TEXT[line.style]
    parts = pieces(line)
    end = '<BR ALIGN="LEFT"/>' if style.left else "<BR/>"
    indented = [part if i == 0 or not style.left else f"    {part}" for i, part in enumerate(parts)]
    escaped = [_escape(part, style.points) for part in indented]
    text = end.join(
        _aired(part, style) + (f"<B>{e}</B>" if style.bold else e) for part, e in zip(parts, escaped, strict=True)
    )
    return f'<FONT POINT-SIZE="{style.points}" COLOR="{style.colour}">{text}{end if style.left else ""}</FONT>'


def air_of(part: str, style: TextStyle) -> int:
    """How much higher than its letters a line is; one with subscripts at least by their depth."""
    return max(style.air, DEEPER if SUBSCRIPT.search(part) else 0)


def _aired(part: str, style: TextStyle) -> str:
    """A space that makes a line higher."""
    air = air_of(part, style)
    return f'<FONT POINT-SIZE="{style.points + air}">\N{NO-BREAK SPACE}</FONT>' if air else ""


def _lines(lines: Sequence[Line]) -> str:
    result = ""
    for i, line in enumerate(lines):
        before = i > 0 and not TEXT[lines[i - 1].style].left
        result += ("<BR/>" if before else "") + _styled(line)
    return result


# -- the parts -------------------------------------------------------------------------------------------------------
def _heading(picture: Picture) -> str:
    """Title, signature, and the legend as a row of samples."""
    rows = [f'<TR><TD><FONT POINT-SIZE="16"><B>{_escape(picture.title)}</B></FONT></TD></TR>']
    if picture.subtitle:
        text = "<BR/>".join(map(_escape, wrapped(picture.subtitle, HEADING)))
        rows.append(f'<TR><TD><FONT POINT-SIZE="11" COLOR="{GREY}">{text}</FONT></TD></TR>')
    if picture.legend:
        cells = "".join(f"<TD>{_sample(kind, text)}</TD>" for kind, text in picture.legend)
        rows.append(f'<TR><TD><TABLE BORDER="0" CELLSPACING="6" CELLPADDING="0"><TR>{cells}</TR></TABLE></TD></TR>')
    rows.append('<TR><TD HEIGHT="8"></TD></TR>')
    return f'<<TABLE BORDER="0" CELLSPACING="2" CELLPADDING="1">{"".join(rows)}</TABLE>>'


def _sample(kind: str, text: str) -> str:
    """An entry of the legend."""
    if kind in TEXT:
        style = TEXT[kind]
        return f'<FONT POINT-SIZE="10" COLOR="{style.colour}">{_escape(text)}</FONT>'
    box = BOX[kind]
    inner = f'<TR><TD><FONT POINT-SIZE="10">{_escape(text)}</FONT></TD></TR>'
    shape = ' STYLE="ROUNDED"' if box.shape != "box" or "rounded" in box.style else ""
    if "dashed" in box.style:
        shape = ' STYLE="DASHED"'
    table = (
        f'<TABLE BORDER="{2 if box.width >= 1.5 else 1}" CELLBORDER="0" CELLSPACING="0" CELLPADDING="3" '
        f'COLOR="{box.border}" BGCOLOR="{box.fill}"{shape}>{inner}</TABLE>'
    )
    if box.borders == 1:
        return table
    return (
        f'<TABLE BORDER="1" CELLBORDER="0" CELLSPACING="0" CELLPADDING="2" COLOR="{box.border}" STYLE="ROUNDED">'
        f"<TR><TD>{table}</TD></TR></TABLE>"
    )


def _cluster_lines(picture: Picture, parent: str, indent: str) -> Iterator[str]:
    for box in picture.boxes:
        if box.cluster == parent:
            yield indent + _box(box, picture.direction)
    for cluster in picture.clusters:
        if cluster.parent == parent:
            yield from _cluster(cluster, picture, indent)


def _cluster(cluster: Cluster, picture: Picture, indent: str) -> Iterator[str]:
    fill, border = CLUSTER[cluster.kind]
    number = picture.clusters.index(cluster)  # an id may hold the path of a file of this machine
    first, *rest = cluster.title.split("\n")
    title = [Line(first, "scope"), *(Line(text, "place") for text in rest)]
    yield f"{indent}subgraph cluster_{number} {{"
    yield f'{indent}  graph [label="", style="rounded,filled", color="{border}", fillcolor="{fill}", margin=10];'
    # the title is a node, so that edges keep clear of it; it stands first among the cluster's first boxes
    yield f"{indent}  title_{number} [shape=plain, label=<{_lines(title)}>];"
    yield from _cluster_lines(picture, cluster.id, indent + "  ")
    yield indent + "}"


def _box(box: Box, direction: str) -> str:
    tooltip = _quote(SUBSCRIPT.sub(r"_\1", box.tooltip or box.id))
    if box.kind == WIRE:
        return f"{_quote(box.id)} [shape=plain, margin=0, label=<{_wire(box, direction)}>, tooltip={tooltip}];"
    style = BOX[box.kind]
    if box.place is not None:
        p, outer = box.place, RING * (style.borders - 1)
        tooltip += (
            f', pos="{_point((p.x, p.y))}", width={(p.width - outer) / 72:.3f}, height={(p.height - outer) / 72:.3f}'
        )
    return (
        f'{_quote(box.id)} [shape={style.shape}, style="{style.style}", fillcolor="{box.fill or style.fill}", '
        f'color="{style.border}", penwidth={style.width}, peripheries={style.borders}, label=<{_lines(box.lines)}>, '
        f"tooltip={tooltip}];"
    )


def _wire(box: Box, direction: str) -> str:
    """What lies on an edge: the value on one side of the line, the gradient on the other, the line drawn on between."""
    above = [line for line in box.lines if line.style in ("value", "mark")]
    below = [line for line in box.lines if line not in above]
    colours = [TEXT["value"].colour] + ([TEXT["gradient"].colour] if below else [])
    sides = _lines(above), _lines(below) if below else "\N{NO-BREAK SPACE}"
    if direction == "LR":
        bars = [
            f'<TR><TD HEIGHT="1" BGCOLOR="{c}"></TD></TR>' for c in reversed(colours)
        ]  # as dot orders parallel lines
        line = f'<TR><TD PORT="line" CELLPADDING="0">{_table("".join(bars))}</TD></TR>'
        body = f"<TR><TD>{sides[0]}</TD></TR>{line}<TR><TD>{sides[1]}</TD></TR>"
    else:
        bars = [f'<TD WIDTH="1" BGCOLOR="{c}"></TD>' for c in colours]
        line = f'<TD PORT="line" CELLPADDING="0">{_table("<TR>" + "".join(bars) + "</TR>")}</TD>'
        body = f"<TR><TD>{sides[0]}</TD>{line}<TD>{sides[1]}</TD></TR>"
    return _table(body, padding=5)


def _table(rows: str, padding: int = 0) -> str:
    return f'<TABLE BORDER="0" CELLBORDER="0" CELLSPACING="0" CELLPADDING="{padding}">{rows}</TABLE>'


def _edge(edge: Edge, wires: set[str], across: bool) -> str:
    style = EDGE[edge.kind]
    arrow = {(True, False): "forward", (False, True): "back", (True, True): "both", (False, False): "none"}
    attributes = [
        f'color="{":".join(style.colours)}"',
        f"dir={arrow[style.forward, style.back]}",
        f"style={style.style}",
    ]
    if edge.lines:
        label = f'<TABLE BORDER="0" CELLPADDING="3"><TR><TD>{_lines(edge.lines)}</TD></TR></TABLE>'
        attributes.append(f"label=<{label}>")
    inwards, outwards = ("w", "e") if across else ("n", "s")
    tail = _quote(edge.tail) + (f":line:{outwards}" if edge.tail in wires else "")
    head = _quote(edge.head) + (f":line:{inwards}" if edge.head in wires else "")
    return f"  {tail} -> {head} [{', '.join(attributes)}];"


# -- pictures whose boxes have places ----------------------------------------------------------------------------------
HEAD = 7.0
"""The length of an arrow's head."""
RING = 8.0
"""How much wider a second border makes a box."""
CORNER = 5.0
"""How far before a corner a line begins to turn."""


def _placed(picture: Picture, dpi: int | None) -> str:
    """DOT with every place in it: Graphviz's `nop2` draws, and lays nothing out."""
    places = [b.place for b in picture.boxes if b.place is not None]
    places += [c.place for c in picture.clusters if c.place is not None]
    top, middle = max(p.high for p in places), (min(p.left for p in places) + max(p.right for p in places)) / 2
    rows = 24 + 17 * len(wrapped(picture.subtitle, HEADING) if picture.subtitle else ()) + (34 if picture.legend else 0)
    lines = [
        f"digraph {_quote(picture.title)} {{",
        f"  graph [layout=nop2, bgcolor=white, pad=0.25, outputorder=nodesfirst{f', dpi={dpi}' if dpi else ''}];",
        f'  node [fontname="{FONT}", fontsize=11, fontcolor="{INK}", margin="0.1,0.05", height=0.2, width=0.2];',
        "  edge [arrowsize=0.7];",
        f'  heading [shape=plain, fontname="{FONT}", pos="{_point((middle, top + 14 + rows / 2))}", '
        f"label={_heading(picture)}];",
    ]
    for number, cluster in enumerate(picture.clusters):
        assert cluster.place is not None
        fill, border = CLUSTER[cluster.kind]
        p = cluster.place
        lines.append(f"  subgraph cluster_{number} {{")
        lines.append(
            f'    graph [label="", style="rounded,filled", color="{border}", fillcolor="{fill}", '
            f'bb="{_point((p.left, p.low))},{_point((p.right, p.high))}"];'
        )
        lines += [f"    {_box(b, picture.direction)}" for b in picture.boxes if b.cluster == cluster.id]
        lines.append("  }")
    lines += [f"  {_box(b, picture.direction)}" for b in picture.boxes if not b.cluster]
    lines += [_routed(e) for e in picture.edges]
    return "\n".join([*lines, "}"]) + "\n"


def _point(p: Point) -> str:
    return f"{p[0]:.1f},{p[1]:.1f}"


def _routed(edge: Edge) -> str:
    style = EDGE[edge.kind]
    arrow = "forward" if style.forward else "none"
    attributes = [f'color="{style.colours[0]}"', f"dir={arrow}", f"style={style.style}", f"penwidth={style.width}"]
    return (
        f"  {_quote(edge.tail)} -> {_quote(edge.head)} "
        f'[{", ".join(attributes)}, pos="{_spline(edge.route, style.forward)}"];'
    )


def _towards(a: Point, b: Point, length: float) -> Point:
    """The point at a distance from a on the way to b, at most half of it."""
    whole = abs(b[0] - a[0]) + abs(b[1] - a[1]) or 1.0
    share = min(length / whole, 0.5)
    return a[0] + (b[0] - a[0]) * share, a[1] + (b[1] - a[1]) * share


def _spline(route: Sequence[Point], head: bool) -> str:
    """A way along corners, which are rounded, as a Bézier curve; the head of an arrow stands at its end."""
    *before, last, end = route
    stop = _towards(end, last, HEAD) if head else end
    corners = [*before, last, stop]
    points = [corners[0]]
    for a, b, c in zip(corners, corners[1:], corners[2:], strict=False):
        enter, leave = _towards(b, a, CORNER), _towards(b, c, CORNER)
        points += [points[-1], enter, enter, b, b, leave]
    points += [points[-1], stop, stop]
    return (f"e,{_point(end)} " if head else "") + " ".join(map(_point, points))
