"""The view `joint`: on every edge the value that goes forward and the gradient that comes back, as in backpropagation
worked by hand: the gradient of a value is the gradient of what reads it times the local derivative.

Where a value has several readers, each edge carries its own part of the gradient, and the box their sum.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..errors import InputError
from ..graph.graph import Graph, with_operands
from ..graph.node import Node
from ..ops.scan import Scan
from ..pipeline import derive
from .cell import Cell
from .forward import FLATTEST, LEGEND, Names, cluster_id, clusters, kind_of, outputs_of, signature, tooltip
from .local import local
from .names import distinct, names_of
from .notation import Printer, shape_text, size_text
from .numbers import Sizes, array_text, evaluate
from .outline import Outline, base, mark_texts, marks, mean
from .picture import Box, Edge, Line, Picture
from .repeats import scopes
from .walk import reached

Array = np.ndarray[Any, Any]


@dataclass
class Flow:
    """What flows in a graph. Numbers are None where no inputs are given.

    edges: those that a gradient comes back on, with the part of the gradient; total: the gradient of a value.
    """

    values: dict[Node, Array] | None
    edges: dict[tuple[Node, Node], Array | None]
    total: dict[Node, Array | None]


def joint(graph: Graph, values: Mapping[str, Array] | None = None, sizes: Sizes | None = None) -> Picture:
    """The picture of a traced graph with an output `loss`. values: inputs, parameters and states by name, for numbers."""
    if "loss" not in graph.outputs:
        raise InputError(
            f"model {graph.name} has no output named 'loss', so no gradient flows back through it",
            how="return gc.outputs(loss=…), a scalar, or draw it with --view forward",
        )
    known = names_of(graph)
    outputs = {n: names for n, names in outputs_of(graph).items() if "loss" not in names}  # L has a box of its own
    graph = graph.select(["loss"], updates=False)
    outline = Outline(graph, (mean,))
    where = scopes(graph, collapse=False)
    picture = Picture(graph.name, signature(graph))
    loops = {n: _loop(graph, n, known) for n in graph.nodes if n.op == "scan"}
    results = {n: loops[n.operands[0]].result_name(n.attr("index")) for n in graph.nodes if n.op == "item"}
    names = Names(distinct(outline.boxes, results | known) | {graph.outputs["loss"]: "L"}, where)
    printer = Printer(outline, names)
    flow = flows(graph, outline, values, sizes or {})
    ids = {box: f"n{i}" for i, box in enumerate(outline.boxes)}
    picture.clusters = clusters(outline.boxes, where)
    readers: dict[Node, int] = {}
    for box in outline.boxes:
        for value, _ in outline.reads(box):
            readers[value] = readers.get(value, 0) + 1
    for box in outline.boxes:
        lines = _describe_loop(loops[box]) if box in loops else _describe(box, printer, names)
        if readers.get(box, 0) > 1 and box in flow.total:
            lines.append(Line(f"{partial_of(names(box, box))} = the sum of {readers[box]} edges", "gradient"))
            lines += _numbers(flow.total[box], "gradient")
        picture.boxes.append(
            Box(ids[box], kind_of(box, outputs), tuple(lines), cluster_id(where.of[box]), tooltip(graph, box))
        )
    number = 0
    for box in outline.boxes:
        for value, operand in outline.reads(box):
            several = readers[value] > 1
            lines = _wire(value, box, names(value, box), flow, outline, printer, several)
            lines += [Line(t, "mark") for t in mark_texts(operand)]
            _add_wire(
                picture,
                f"w{number}",
                ids[value],
                ids[box],
                lines,
                (value, box) in flow.edges,
                cluster_id(where.of[box]),
            )
            number += 1
    _add_loss(picture, graph, ids, flow, names, number)
    kinds = {b.kind for b in picture.boxes}
    picture.legend = [(k, t) for k, t in LEGEND if k in kinds and k != "op"] + [
        ("value", "→ value, forward"),
        ("gradient", "← gradient ∂L/∂ of the loss L, backward"),
        ("local", "local derivative"),
    ]
    picture.direction = "LR" if picture.depth() <= FLATTEST + 4 else "TB"
    return picture


def partial_of(name: str) -> str:
    return f"∂L/∂{name}" if name.replace("_", "").isalnum() else f"∂L/∂({name})"


def _describe(box: Node, printer: Printer, names: Names) -> list[Line]:
    if box.op in ("input", "param", "state"):
        return [Line(names.short(box), "title"), *([Line(shape_text(box.type), "small")] if box.shape else [])]
    if box.op == "item":
        last = box.attr("index") < len(box.operands[0].attr("body").carries)
        return [Line(f"{names.short(box)}: {'after the last step' if last else 'of all steps'}", "title")]
    detail = printer.detail(box)
    return [Line(f"{names.short(box)} = {printer.formula(box)}", "title"), *([Line(detail, "small")] if detail else [])]


def _loop(graph: Graph, node: Node, known: Mapping[Node, str]) -> Cell:
    """The step of a loop as it is written."""
    scan = Scan.of(node)
    plain = {o: known.get(base(o), "x" if o in scan.xs else "w").rsplit("/", 1)[-1] for o in scan.operands}
    return Cell(graph, node, known, [plain[x] for x in scan.xs], plain)


def _describe_loop(cell: Cell) -> list[Line]:
    steps = size_text(cell.scan.length)
    way = f"{steps}, …, 1" if cell.scan.reverse else f"1, …, {steps}"
    return [Line(f"a loop: once for each t = {way}", "title"), *(Line(t, "formula") for t in cell.formulas())]


def _numbers(array: Array | None, style: str) -> list[Line]:
    return [] if array is None else [Line(t, style) for t in array_text(array)]


def _equation(name: str, array: Array | None, style: str) -> list[Line]:
    """`a = 3`; of an array the name and `=`, then its lines."""
    texts = [] if array is None else array_text(array)
    if not texts:
        return [Line(name, style)]
    if len(texts) == 1:
        return [Line(f"{name} = {texts[0]}", style)]
    return [Line(f"{name} =", style), *(Line(t, style) for t in texts)]


def _wire(
    value: Node, box: Node, name: str, flow: Flow, outline: Outline, printer: Printer, several: bool
) -> list[Line]:
    """The lines on an edge: the value; then the gradient, and the local derivative."""
    if value.op == "scan":  # its results have a wire each
        return []
    lines = _equation(name, flow.values[value] if flow.values else None, "value")
    if not flow.values and value.shape:
        lines.append(Line(shape_text(value.type), "value"))
    if (value, box) in flow.edges:
        part = flow.edges[value, box]
        lines += _equation(partial_of(name) + (" (part)" if several else ""), part, "gradient")
        text = local(value, box, outline, printer, flow.values)
        if text:
            lines.append(Line(text, "local"))
    return lines


def _add_wire(picture: Picture, wire: str, tail: str, head: str, lines: list[Line], back: bool, cluster: str) -> None:
    picture.boxes.append(Box(wire, "wire", tuple(lines), cluster))
    kind = "both" if back else "value"
    picture.edges += [Edge(tail, wire, f"{kind} out"), Edge(wire, head, f"{kind} in")]


def _add_loss(picture: Picture, graph: Graph, ids: Mapping[Node, str], flow: Flow, names: Names, number: int) -> None:
    """The end: the loss, whose gradient is 1."""
    loss = graph.outputs["loss"]
    value = base(loss)
    if value not in ids:
        return
    picture.boxes.append(Box("loss", "output", (Line("loss L", "title"),)))
    one = np.ones(()) if flow.values is not None else None
    lines = _equation("L", flow.values[value] if flow.values else None, "value")
    lines += _equation("∂L/∂L", one, "gradient") if one is not None else [Line("∂L/∂L = 1", "gradient")]
    _add_wire(picture, f"w{number}", ids[value], "loss", lines, True, "")


# -- the numbers -----------------------------------------------------------------------------------------------------
def flows(graph: Graph, outline: Outline, values: Mapping[str, Array] | None, sizes: Sizes) -> Flow:
    """Values and gradients. On each edge stands a copy of the value of its own, so that it has a gradient of its own."""
    new: dict[Node, Node] = {}
    copies: dict[tuple[Node, Node], Node] = {}
    number = {box: i for i, box in enumerate(outline.boxes)}

    def copied(operand: Node, box: Node) -> Node:
        """The operand as the box reads it: marks over a copy of the value."""
        value = base(operand)
        if value in outline.inside or value in outline.numbers or value not in number:
            return new[operand]
        copy = new[value]
        if value.dtype.is_float:
            copy = Node("watched", (copy,), value.type, edge=f"{number[value]}:{number[box]}")
            copies[value, box] = copy
        for mark in marks(operand):
            copy = with_operands(mark, (copy,))
        return copy

    for node in graph.nodes:
        box = outline.inside.get(node, node)
        plain = box not in number or node.op == "grad"
        new[node] = with_operands(node, tuple(new[o] if plain else copied(o, box) for o in node.operands))
    loss = new[graph.outputs["loss"]]
    outputs = {"loss": loss, **{f"value{i}": new[b] for b, i in number.items() if b.op != "scan"}}
    before = set(outputs)
    read = reached(loss)
    edges = {key: copy for key, copy in copies.items() if copy in read}
    outputs |= {f"edge{number[v]}:{number[b]}": Node("grad", (loss, c), c.type) for (v, b), c in edges.items()}
    totals = {b: new[b] for b in number if b.dtype.is_float and new[b] in read and new[b] is not loss}
    outputs |= {f"total{number[b]}": Node("grad", (loss, n), n.type) for b, n in totals.items()}
    derived = derive(replace(graph, outputs=outputs))
    # a gradient that is zero everywhere because nothing depends on the value is none that flows
    flowing = {n for n in outputs if n not in before and not _is_zero(derived.outputs[n])}
    found = evaluate(derived, values, sizes) if values is not None else None

    def value_of(name: str) -> Array | None:
        return found[derived.outputs[name]] if found is not None else None

    return Flow(
        None
        if found is None
        else {b: found[derived.outputs[f"value{i}"]] for b, i in number.items() if b.op != "scan"},
        {(v, b): value_of(name) for v, b in edges if (name := f"edge{number[v]}:{number[b]}") in flowing},
        {b: value_of(name) for b in totals if (name := f"total{number[b]}") in flowing},
    )


def _is_zero(node: Node) -> bool:
    node = base(node)
    return node.op == "const" and not node.attr("value").array.any()
