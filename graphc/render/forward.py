"""The view `forward`: the computation as the model's author wrote it, from inputs and parameters to outputs."""

from __future__ import annotations

from collections.abc import Mapping

from ..graph.graph import Graph
from ..graph.node import Node
from .dot import SUBSCRIPT
from .inlined import LOOP, Inlined, inlined
from .names import distinct, names_of
from .notation import Printer, shape_text
from .outline import Outline, affine, base, condition, mark_texts, mean
from .picture import Box, Cluster, Edge, Line, Picture
from .repeats import Path, Scopes, scopes

FLATTEST = 7
"""The longest path, in boxes, that is drawn from left to right."""


MOST_REPEATED = 64
"""How far back an equal edge is looked for."""


def forward(graph: Graph) -> Picture:
    """The picture of a traced graph."""
    title = signature(graph)
    loops = inlined(graph, names_of(graph))
    graph, known = loops.graph, loops.known
    named = {n for n in known if n.op not in ("input", "param", "state")}
    outline = Outline(graph, (mean, affine, condition), named)
    where = framed(scopes(graph), loops)
    drawn = [b for b in outline.boxes if b not in where.hidden]
    for hidden, shown in where.hidden.items():  # the last of a chain may have a name: that of the whole
        if hidden in known:
            known.setdefault(shown, known[hidden])
    picture = Picture(graph.name, title)
    names = Names(loops.named(distinct(drawn, known)), where)
    printer = Printer(outline, names)
    ids = {box: f"n{i}" for i, box in enumerate(drawn)}
    outputs = outputs_of(graph)
    picture.clusters = clusters(drawn, where)
    for box in drawn:
        kind = kind_of(box, outputs)
        lines = describe(box, printer, names, outputs.get(box, ()))
        picture.boxes.append(Box(ids[box], kind, tuple(lines), cluster_id(where.of[box]), tooltip(graph, box)))
    for box in drawn:
        for value, operand in outline.reads(box):
            value = where.hidden.get(value, value)
            notes = tuple(Line(t, "small") for t in mark_texts(operand))
            edge = Edge(ids[value], ids[box], "flow", notes)
            if edge not in picture.edges[-MOST_REPEATED:]:  # equal repeats that are drawn once give equal edges
                picture.edges.append(edge)
    picture.edges += loops.edges(ids)
    add_roots(picture, graph, outline, {**ids, **{h: ids[n] for h, n in where.hidden.items() if n in ids}}, printer)
    picture.legend = legend(picture)
    picture.direction = "LR" if picture.depth() <= FLATTEST else "TB"
    return picture


class Names:
    """The name of a value as another writes it: a parameter of the same scope by its last part alone."""

    def __init__(self, names: Mapping[Node, str], where: Scopes):
        self.names, self.where = names, where

    def __call__(self, node: Node, reader: Node) -> str:
        node = self.where.hidden.get(node, node)
        name = self.names[node]
        own, other = self.where.of.get(node, ()), self.where.of.get(reader, ())
        if other[: len(own)] != own and any(part.startswith(LOOP) for part in own):
            return SUBSCRIPT.sub("", name)  # outside of its loop
        return self.short(node) if own == tuple(part for part in other if not part.startswith(LOOP)) else name

    def short(self, node: Node) -> str:
        """The name within the node's own scope."""
        prefix = "/".join(self.where.of.get(node, ())) + "/"
        return self.names[node].removeprefix(prefix) if node.op in ("param", "state") else self.names[node]


def framed(where: Scopes, loops: Inlined) -> Scopes:
    """Scopes with the frames of loops in them: a frame lies in the scope of the loop."""
    frames: dict[tuple[str, ...], Path] = {}
    for node, inside in loops.inside.items():
        if node in where.of:
            frames.setdefault(inside, where.of[node])
            where.of[node] = (*frames[inside], *inside)
    for path in {p[:d] for p in where.of.values() for d in range(1, len(p) + 1)}:
        if path[-1] in loops.titles:
            where.titles[path] = loops.titles[path[-1]]
    return where


def signature(graph: Graph) -> str:
    """`x (B, 2), y (B, 1) → y_hat (B, 1), loss`"""

    def shown(name: str, node: Node) -> str:
        return f"{name}\N{NO-BREAK SPACE}{shape_text(node.type)}" if node.shape else name

    inputs = ", ".join(shown(i.attr("name"), i) for i in graph.inputs)
    outputs = ", ".join(shown(n, v) for n, v in graph.outputs.items())
    return f"{inputs} → {outputs}"


def outputs_of(graph: Graph) -> dict[Node, tuple[str, ...]]:
    """The names of the outputs that are operations of their own."""
    found: dict[Node, tuple[str, ...]] = {}
    for name, node in graph.outputs.items():
        if node is base(node) and node.op not in ("input", "param", "state", "const", "size"):
            found[node] = (*found.get(node, ()), name)
    return found


def kind_of(box: Node, outputs: Mapping[Node, tuple[str, ...]]) -> str:
    """The kind of a node's box."""
    if box.op in ("input", "param", "state", "const", "carry", "element"):
        return box.op
    return "output" if box in outputs else "op"


def describe(box: Node, printer: Printer, names: Names, outputs: tuple[str, ...] = ()) -> list[Line]:
    """The lines in a box: name and formula, what the formula leaves out, the shape."""
    if box.op in ("input", "param", "state"):
        return [Line(names.short(box), "title"), Line(shape_text(box.type), "small")]
    name = names.short(box)
    if box.op == "carry":
        begin = printer.operand(box.operands[0], box)
        return [Line(name, "title"), Line(f"at first {begin}", "small"), Line(shape_text(box.type), "small")]
    if box.op == "element":
        return [Line(name, "title"), Line(shape_text(box.type), "small")]
    lines = [Line(f"{name} = {printer.formula(box)}", "title")]
    others = [o for o in outputs if o != name]
    if others:
        lines.append(Line(f"output {', '.join(others)}", "plain"))
    if detail := printer.detail(box):
        lines.append(Line(detail, "small"))
    return [*lines, Line(shape_text(box.type), "small")]


def tooltip(graph: Graph, node: Node) -> str:
    """The operation and the model's lines: `einsum  xor.py:35 hidden`."""
    places = [
        f"{o.source.file.replace(chr(92), '/').rsplit('/', 1)[-1]}:{o.source.line} {o.scope}".strip()
        for o in graph.tables.origins.get(node, ())
        if o.source
    ]
    return "  ".join([node.op, *places[:3]])


def cluster_id(path: Path) -> str:
    return "/".join(path)


def clusters(boxes: list[Node], where: Scopes) -> list[Cluster]:
    """The clusters around boxes, outer ones first."""
    paths = dict.fromkeys(where.of[b][:d] for b in boxes for d in range(1, len(where.of[b]) + 1))
    return [
        Cluster(
            cluster_id(p), where.titles.get(p, p[-1]), cluster_id(p[:-1]), "repeat" if p in where.titles else "scope"
        )
        for p in paths
    ]


def add_roots(picture: Picture, graph: Graph, outline: Outline, ids: Mapping[Node, str], printer: Printer) -> None:
    """Boxes for outputs that no box stands for, and edges back to what is updated."""
    for i, (name, node) in enumerate(graph.outputs.items()):
        value = base(node)
        drawn = value in ids and node is value and value.op not in ("input", "param", "state", "const")
        if drawn and any(b.id == ids[value] and b.kind == "output" for b in picture.boxes):
            continue
        text = name if value in ids else f"{name} = {printer.operand(node, node)}"
        box = Box(f"output{i}", "output", (Line(text, "title"), Line(shape_text(node.type), "small")))
        picture.boxes.append(box)
        if value in ids:
            notes = tuple(Line(t, "small") for t in mark_texts(node, formula=False))
            picture.edges.append(Edge(ids[value], box.id, "flow", notes))
    for target, node in graph.updates.items():
        value = base(node)
        if value in ids and target in ids and target.op != "carry":
            picture.edges.append(Edge(ids[value], ids[target], "update", (Line("becomes", "small"),)))


LEGEND = (
    ("input", "input"),
    ("param", "parameter"),
    ("state", "state"),
    ("const", "constant"),
    ("carry", "what the step before left"),
    ("element", "this step's element"),
    ("op", "operation, its formula and shape"),
    ("output", "output"),
)


def legend(picture: Picture) -> list[tuple[str, str]]:
    """What the kinds of boxes in the picture mean."""
    kinds = {b.kind for b in picture.boxes}
    return [(kind, text) for kind, text in LEGEND if kind in kinds]
