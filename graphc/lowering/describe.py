"""What a statement computes, as a line that a reader of the generated code understands: `h[i, j] = relu(z[i, j])`."""

from __future__ import annotations

from ..graph import scalar as sc
from ..graph.formula import Affine, Index
from ..graph.graph import Graph
from ..graph.node import Node
from ..graph.scalar import Scalar
from .statements import Access, Statement

_VARIABLES = "ijklmnpqrs"
_INFIX = {
    "add": "+",
    "sub": "-",
    "mul": "*",
    "div": "/",
    "less": "<",
    "less_equal": "<=",
    "greater": ">",
    "greater_equal": ">=",
    "equal": "==",
    "not_equal": "!=",
    "logical_and": "and",
    "logical_or": "or",
    "pow": "**",
}
_SYMBOL = {"sum": "Σ", "prod": "Π", "max": "max", "min": "min", "argmax": "argmax"}
LONGEST = 160  # characters of a formula; a longer one is cut


def readable_names(graph: Graph) -> dict[Node, str]:
    """A short name, unique in the graph, for each node: the model's own where it has one."""
    names: dict[Node, str] = {}
    used: set[str] = set()
    counts: dict[str, int] = {}
    for node in dict.fromkeys((*graph.nodes, *graph.updates)):
        own = graph.tables.names.get(node) or (node.attr("name") if node.op in ("param", "state") else None)
        base = "".join(c if c.isalnum() else "_" for c in own) if own else node.op
        name = base if own else ""
        while not name or name in used:
            counts[base] = counts.get(base, 0) + 1
            name = f"{base}_{counts[base]}"
        used.add(name)
        names[node] = name
    return names


def variable(axis: int) -> str:
    return _VARIABLES[axis] if axis < len(_VARIABLES) else f"i{axis}"


def index_text(index: Index | None, lookups: list[str]) -> str:
    """An index in the loop variables i, j, k, …; a look-up takes the next of `lookups`."""
    if not isinstance(index, Affine):
        return lookups.pop(0)
    parts = [variable(a) if c == 1 else f"{c}*{variable(a)}" for a, c in index.terms]
    if index.constant != 0 or not parts:
        parts.append(str(index.constant))
    return " + ".join(parts).replace("+ -", "- ")


def describe(statement: Statement, names: dict[Node, str], graph: Graph) -> str:
    """The statement as a formula, with the value's type and the model's line."""

    def visit(e: Scalar, args: tuple[str, ...]) -> str:
        if e.op == "access":
            access: Access = e.value
            lookups = list(args)
            inside = ", ".join(index_text(i, lookups) for i in access.map)
            return f"{names[access.array]}[{inside}]"
        if e.op == "const":
            return f"{e.value:g}" if isinstance(e.value, float) else str(e.value)
        if e.op == "index":
            return index_text(e.value, [])
        if e.op == "size":
            return str(e.value)
        if e.op in _INFIX:
            return f"({args[0]} {_INFIX[e.op]} {args[1]})"
        if e.op in ("cast", "stop_gradient"):
            return args[0]
        return f"-{args[0]}" if e.op == "neg" else f"{e.op}({', '.join(args)})"

    node = statement.node
    body = sc.fold(statement.body, visit)
    body = body[1:-1] if body.startswith("(") and statement.body.op in _INFIX else body
    lookups = [sc.fold(e, visit) for e in statement.write_lookups]
    kept = {a for i in statement.write if isinstance(i, Affine) for a in i.axes}
    left = (
        f"{names[node]}[{', '.join(index_text(i, lookups) for i in statement.write)}]"
        if statement.write
        else names[node]
    )
    reduced = "".join(variable(a) for a in range(len(statement.box)) if a not in kept)
    if statement.reduce != "assign" and statement.plain and reduced:
        body = f"{_SYMBOL[statement.reduce]}_{reduced} {body}"
    sign = "=" if statement.plain or statement.reduce == "assign" else "+="
    text = f"{left} {sign} {body}"
    text = text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"
    return f"{text}    {node.type}{where(node, graph)}"


def where(node: Node, graph: Graph) -> str:
    """The model's lines and the scope of a node: `   xor.py:7 hidden`. Files by name only, so that folders can move."""
    lines: dict[str, None] = {}
    for origin in graph.tables.origins.get(node, ()):
        if origin.source:
            file = origin.source.file.replace("\\", "/").rsplit("/", 1)[-1]
            lines[f"{file}:{origin.source.line}" + (f" {origin.scope}" if origin.scope else "")] = None
    return "".join(f"   {line}" for line in list(lines)[:3])
