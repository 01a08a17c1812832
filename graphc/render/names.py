"""Names of values: the model's own where it gives one, a short one elsewhere.

Inputs, parameters and outputs have names. For what lies between, the model's text is read: where a line says
`h = gc.relu(…)`, the last value made by that line is called h. What a layer computes has the names that its formulas in
the literature have: f, i, g, o, c, h of an LSTM.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterable, Mapping
from functools import lru_cache
from itertools import groupby
from pathlib import Path

from ..graph.graph import Graph
from ..graph.node import Node
from .notation import subscript
from .outline import LEAVES, base

SEVERAL = ("split", "grad", "hvp", "jvp", "scan")
"""Functions whose result is not one value."""


@lru_cache(maxsize=16)
def lines_of(file: str) -> tuple[str, ...]:
    """The lines of a model file; none where it cannot be read any more."""
    try:
        return tuple(Path(file).read_text("utf-8").splitlines())
    except (OSError, UnicodeDecodeError):
        return ()


@lru_cache(maxsize=16)
def assignments(file: str) -> Mapping[int, tuple[int, str]]:
    """line → (the statement's first line, the name): for every line of `name = …` that makes one value."""
    try:
        tree = ast.parse("\n".join(lines_of(file)))
    except SyntaxError:
        return {}
    found: dict[int, tuple[int, str]] = {}
    for statement in ast.walk(tree):
        if isinstance(statement, ast.Assign) and len(statement.targets) == 1:
            target = statement.targets[0]
            if isinstance(target, ast.Name) and _one_value(statement.value):
                for line in range(statement.lineno, (statement.end_lineno or statement.lineno) + 1):
                    found[line] = statement.lineno, target.id
    return found


def _one_value(value: ast.expr) -> bool:
    if isinstance(value, ast.Call):
        function = value.func
        name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
        return name not in SEVERAL
    return isinstance(value, (ast.BinOp, ast.UnaryOp, ast.Compare, ast.Subscript))


def names_of(graph: Graph) -> dict[Node, str]:
    """The names that a model gives to the values of its traced graph, as far as they are known."""
    names = graph.tables.terms | _assigned(graph) | given_names(graph)
    for name, node in graph.outputs.items():
        value = base(node)  # an output that is a slice without an axis of length 1, say
        if value is not node and value not in names and value.op not in ("const", "item", "size"):
            names[value] = name
    return names


def given_names(graph: Graph) -> dict[Node, str]:
    """The names that a graph itself knows."""
    names = {n: name for n, name in graph.tables.names.items() if not name.startswith("grad:")}
    for name, node in graph.outputs.items():
        if not name.startswith("grad:"):
            names[node] = name
    return names | {n: n.attr("name") for n in (*graph.nodes, *graph.inputs) if n.op in LEAVES}


def _assigned(graph: Graph) -> dict[Node, str]:
    """The names that lines `name = …` of the model give."""
    names: dict[Node, str] = {}
    made = []  # in the order in which the trace made them
    for node, origins in graph.tables.origins.items():
        source = origins[0].source if origins else None
        made.append((node, assignments(source.file).get(source.line) if source else None, source and source.file))
    for (statement, _), run in groupby(made, key=lambda m: (m[1], m[2])):
        if statement is not None:
            values = [node for node, _, _ in run if node.op not in ("const", "size", *LEAVES)]
            if values:
                names[values[-1]] = statement[1]
                if (value := base(values[-1])) in values:  # `x[:, -1]` is a slice without an axis of length 1
                    names[value] = statement[1]
    return names


def distinct(boxes: Iterable[Node], known: Mapping[Node, str], letter: str = "v") -> dict[Node, str]:
    """A name for each box: known ones, numbered where several computed values share one; v₁, v₂, … for the others."""
    boxes = list(boxes)
    names = {b: known[b] for b in boxes if b.op in LEAVES}
    computed = [b for b in boxes if b not in names]
    shared = Counter(known[b] for b in computed if b in known)
    leaves = set(names.values())
    given = leaves | set(shared)
    count: Counter[str] = Counter()
    for box in computed:
        name = known.get(box)
        if name is not None and shared[name] == 1 and name not in leaves:
            names[box] = name
            continue
        stem = name or letter
        while True:
            count[stem] += 1
            if (numbered := stem + subscript(count[stem])) not in given:
                break
        names[box] = numbered
    return names
