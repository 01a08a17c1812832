"""The view `backward`: the graph after differentiation, the forward part pale, the adjoints in colour.

Adjoints stand in frames, one for each line of the model whose derivative they are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import PurePosixPath

from ..errors import InputError
from ..graph.graph import Graph, Origin
from ..graph.node import Node
from ..pipeline import lower
from .forward import LEGEND, Names, add_roots, cluster_id, clusters, describe, framed, outputs_of, signature, tooltip
from .inlined import Inlined, inlined
from .names import distinct, given_names, lines_of, names_of
from .notation import Printer, size_text
from .outline import LOOP_RESULTS, Outline, affine, base, condition, mark_texts, mean, unit_shapes
from .picture import Box, Cluster, Edge, Line, Picture
from .repeats import Scopes, scope_of
from .unit_axes import with_unit_axes
from .walk import reached

GRADIENT = "grad:"


def backward(graph: Graph, wrt: Sequence[str]) -> Picture:
    """The picture of the gradients of `loss` by parameters (or, in a model without any, by its inputs)."""
    derived = differentiated(graph, wrt)
    loops = inlined(derived, given_names(derived))
    forward_part = loops.through(reached(loops.graph.outputs["loss"]))
    loops = loops.rebuilt(*with_unit_axes(loops.graph, forward_part))
    derived = loops.graph
    titles = _titles(derived)
    known = {n: name for n, name in loops.known.items() if n in forward_part or n in derived.inputs}
    known |= {n: titles[name] for name, n in derived.outputs.items() if name in titles and n not in forward_part}
    outline = Outline(derived, (mean, affine, condition), set(known))
    where = Scopes({})
    frames: dict[str, Cluster] = {}
    for box in outline.boxes:
        where.of[box] = scope_of(derived, box)
    where = framed(where, loops)
    adjoints = [b for b in outline.boxes if b not in forward_part and b not in derived.inputs]
    own = [b for b in outline.boxes if b in forward_part or b in derived.inputs]
    names = Names(loops.named(distinct(own, known) | distinct(adjoints, known, "δ")), where)
    printer = Printer(outline, names)
    picture = Picture(f"{graph.name}: gradients of the loss L", signature(graph))
    picture.clusters = clusters(own, where)
    ids = {box: f"n{i}" for i, box in enumerate(outline.boxes)}
    outputs = outputs_of(derived)
    for box in outline.boxes:
        lines = describe(box, printer, names)
        lines[-1:-1] = _unit_shapes(box, outline, printer)
        if box in forward_part or box in derived.inputs:
            kind = "pale" if box.op not in ("input", "param", "state", "const") else box.op
            picture.boxes.append(Box(ids[box], kind, tuple(lines), cluster_id(where.of[box]), tooltip(derived, box)))
            continue
        frame = _frame(derived, box, forward_part, outline, names)
        for loop in _loops_around(loops, box):
            frames.setdefault(loop.id, loop)
            frame = replace(frame, id=f"{loop.id} {frame.id}", parent=loop.id)
        frames.setdefault(frame.id, frame)
        wanted = [o.removeprefix(GRADIENT) for o in outputs.get(box, ()) if o.startswith(GRADIENT)]
        lines[1:1] = [Line(f"gradient with respect to {', '.join(wanted)}", "gradient")] if wanted else []
        picture.boxes.append(
            Box(ids[box], "result" if wanted else "adjoint", tuple(lines), frame.id, tooltip(derived, box))
        )
    picture.clusters += frames.values()
    for box in outline.boxes:
        for value, operand in outline.reads(box):
            kind = "adjoint" if value not in forward_part else "pale"
            notes = tuple(Line(t, "small") for t in mark_texts(operand) if t not in LOOP_RESULTS.values())
            picture.edges.append(Edge(ids[value], ids[box], kind, notes))
    picture.edges += [replace(e, lines=()) for e in loops.edges(ids)]
    _add_others(picture, derived, printer, ids, outputs)
    kinds = {b.kind for b in picture.boxes}
    picture.legend = [(k, t) for k, t in LEGEND if k in kinds and k != "op"]
    if loops.again:
        picture.legend.append(("again", "⇢ the next step"))
    picture.legend += [("pale", "forward"), ("adjoint", "adjoint"), ("result", "gradient that is wanted")]
    return picture


def differentiated(graph: Graph, wrt: Sequence[str]) -> Graph:
    """The graph of the loss and its gradients after the stage that takes derivatives, with the model's names."""
    if "loss" not in graph.outputs:
        raise InputError(
            f"model {graph.name} has no output named 'loss', so there is nothing to differentiate",
            how="return gc.outputs(loss=…), a scalar, or draw it with --view forward",
        )
    loss = graph.outputs["loss"]
    leaves = {n.attr("name"): n for n in graph.nodes if n.op in ("param", "input") and n.dtype.is_float}
    chosen = [n for n in wrt if n in leaves] or [n for n, leaf in leaves.items() if leaf.op == "input"]
    gradients = {GRADIENT + n: Node("grad", (loss, leaves[n]), leaves[n].type) for n in chosen}
    tables = graph.tables.copy()
    tables.names |= {n: name for n, name in names_of(graph).items() if n.op not in ("const", "size")}
    wanted = replace(graph, outputs={"loss": loss, **gradients}, updates={}, tables=tables)
    return lower(wanted, stop_after="differentiate")[0]


def _unit_shapes(box: Node, outline: Outline, printer: Printer) -> list[Line]:
    """`v₉ as (B, T, 1)`: what a box reads in another shape than it is drawn with, so that the shapes of a formula fit."""
    if box.op in ("carry", "element"):
        return []
    return [line for value, operand in outline.reads(box) for line in _unit_text(printer, value, operand, box)]


def _unit_text(printer: Printer, value: Node, operand: Node, box: Node) -> list[Line]:
    shapes = unit_shapes(operand)
    if not shapes or (not shapes[-1] and value.type.rank <= box.type.rank):  # a number is read as one in any case
        return []
    text = ", then ".join(f"({', '.join(map(size_text, s))})" if s else "scalar" for s in shapes)
    return [Line(f"{printer.name(value, box)} as {text}", "small")]


def _loops_around(loops: Inlined, box: Node) -> list[Cluster]:
    """The frames of the loops that an adjoint lies in, outermost first."""
    found: list[Cluster] = []
    for part in loops.inside.get(box, ()):
        found.append(Cluster(f"adjoint {part}", loops.titles[part], found[-1].id if found else "", "repeat"))
    return found


def _titles(graph: Graph) -> dict[str, str]:
    """`∂L/∂W` by the names of the gradients; with the whole name where several end alike."""
    names = [n.removeprefix(GRADIENT) for n in graph.outputs if n.startswith(GRADIENT)]
    last = Counter(n.rsplit("/", 1)[-1] for n in names)
    short = {n: n.rsplit("/", 1)[-1] for n in names}
    return {GRADIENT + n: f"∂L/∂{short[n]}" if last[short[n]] == 1 else f"∂L/∂({n})" for n in names}


def _frame(graph: Graph, box: Node, forward_part: set[Node], outline: Outline, names: Names) -> Cluster:
    """The frame of an adjoint: the model's line, and the values that it computes."""
    origins = graph.tables.origins.get(box, ())
    origin = origins[0] if origins else Origin()
    of = [
        names.short(b)
        for b in outline.boxes
        if b in forward_part and b.op not in ("input", "param", "state") and origin in graph.tables.origins.get(b, ())
    ]
    text = f"adjoint of {', '.join(of[:4]) + (' …' if len(of) > 4 else '')}" if of else "adjoint"
    if origin.source is not None:
        file = origin.source.file.replace("\\", "/")
        text += f"\n{PurePosixPath(file).name}:{origin.source.line}"
        lines = lines_of(origin.source.file)
        if 0 < origin.source.line <= len(lines):
            text += f"\n{lines[origin.source.line - 1].strip()}"
    key = f"{origin.source}:{origin.scope}" if origins else ""
    return Cluster(f"adjoint {key}", text, "", "adjoint")


def _add_others(
    picture: Picture, graph: Graph, printer: Printer, ids: dict[Node, str], outputs: dict[Node, tuple[str, ...]]
) -> None:
    """Gradients that no box stands for: a reshaped adjoint, what a loop has summed up, a constant."""
    shown = {name for names in outputs.values() for name in names}
    rest = {n: v for n, v in graph.outputs.items() if n not in shown and n.startswith(GRADIENT)}
    before = len(picture.boxes)
    add_roots(picture, replace(graph, outputs=rest, updates={}), printer.outline, ids, printer)
    for i, (name, node) in zip(range(before, len(picture.boxes)), rest.items(), strict=True):
        box = picture.boxes[i]
        title = Line(f"{_titles(graph)[name]} = {printer.operand(node, node)}", "title")
        reshaped = _unit_text(printer, base(node), node, node)
        wanted = Line(f"gradient with respect to {name.removeprefix(GRADIENT)}", "gradient")
        picture.boxes[i] = replace(box, kind="result", lines=(title, wanted, *reshaped, *box.lines[1:]))
