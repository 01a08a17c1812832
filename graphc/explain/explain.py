"""A traced module explained: the gradients of each model's loss, as one document."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from ..errors import InputError
from ..frontend.model import Module
from ..graph.graph import Graph
from ..graph.node import Node, TensorType
from ..ops.leaves import LEAVES
from ..passes.rewrite import Firings
from ..pipeline import lower, program_graph, trainable
from .derivation import derive
from .document import Document, Section
from .page import Page


@dataclass(frozen=True)
class Question:
    """What is derived: a scalar, by the name of the output that it is or that asks for it, and with respect to what."""

    entry: str
    output: str
    program: str
    y: Node
    wrt: tuple[Node, ...]


def explain(module: Module, wrt: Sequence[str] = ()) -> Document:
    """The derivation of each model's loss with respect to parameters or inputs by name; all trainable ones unless given.

    Of models without a loss, the gradients that their outputs are.
    """
    with_loss = [n for n, g in module.entries.items() if "loss" in g.outputs]
    entries = with_loss or list(module.entries)
    asked = [q for n in entries for q in questions(module, n, wrt)]
    sections: list[Section] = []
    for q in asked:
        fired = Firings()
        program = program_graph(module, q.entry, q.program)
        kept = [n for n in program.outputs if n == q.output or n.startswith("grad:")]
        lower(program.select(kept, updates=False), fired=fired, stop_after="optimise")
        part = Page(derive(module.entries[q.entry], q.y, q.wrt), q.wrt, q.output).sections(fired)
        if len(asked) > 1:
            title = q.entry if q.output == "loss" else f"{q.entry}.{q.output}"
            part = [Section((f"{title}: ", *s.title), s.blocks, s.level) if s.level == 2 else s for s in part]
        sections += part
    return Document("The gradient of " + ", ".join(entries), tuple(sections))


def questions(module: Module, entry: str, wrt: Sequence[str] = ()) -> list[Question]:
    """The gradient of a model's loss; without a loss, those of its outputs that are gradients. InputError if none is."""
    graph = module.entries[entry]
    nodes = targets(module, entry, wrt)
    if "loss" in graph.outputs:
        return [Question(entry, "loss", "gradient", graph.outputs["loss"], tuple(nodes))]
    found = [
        Question(entry, name, f"forward:{name}", node.operands[0], (node.operands[1],))
        for name, node in graph.outputs.items()
        if node.op == "grad" and node.operands[1].op in LEAVES and (not wrt or node.operands[1] in nodes)
    ]
    if not found:
        raise InputError(
            f"model {entry} has no output named 'loss', and none that is a gradient, so there is nothing to derive",
            how="return gc.outputs(loss=…), a scalar",
        )
    return found


def targets(module: Module, entry: str, wrt: Sequence[str]) -> list[Node]:
    """The nodes of names. InputError names the nearest where there is none."""
    graph = module.entries[entry]
    known = {n: _variable(module, n) for n in module.variables_of[entry]}
    known |= {i.attr("name"): i for i in graph.inputs if i.dtype.is_float and i.attr("name") not in known}
    names = list(wrt) or list(trainable(module, entry)) or _inputs(graph)
    for name in names:
        if name not in known:
            near = get_close_matches(name, known, 1, 0.4)
            listed = f"there are: {', '.join(known) or 'none'}"
            raise InputError(
                f"model {entry} has no parameter or floating-point input {name!r}",
                how=f"did you mean {near[0]!r}? {listed}" if near else listed,
            )
    return [known[n] for n in names]


def _inputs(graph: Graph) -> list[str]:
    return [i.attr("name") for i in graph.inputs if i.dtype.is_float]


def _variable(module: Module, name: str) -> Node:
    variable = module.declarations[name].variable
    return Node(variable.kind, (), TensorType(variable.dtype, variable.shape), name=name)
