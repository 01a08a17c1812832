"""The views by name, of a compiled model or of a graph alone."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

import numpy as np

from ..errors import GraphcError, InputError, raise_all
from ..graph.graph import Graph
from ..runtime.model import CompiledModel, Entry
from ..runtime.signature import bind_sizes
from .backward import backward
from .forward import forward, signature
from .fused import fused
from .joint import joint
from .picture import Picture
from .unrolled import Unroll, unrolled

VIEWS = ("forward", "backward", "joint", "fused", "unrolled")
Array = np.ndarray[Any, Any]


def picture(
    model: CompiledModel,
    view: str,
    name: str | None = None,
    numbers: Mapping[str, Any] | None = None,
    program: str | None = None,
    unroll: Unroll | None = None,
) -> Picture:
    """A view of a compiled model. name: which, where there are several. numbers: for the view `joint` the values of all
    inputs, and of parameters and states that are to differ from the model's. program: "forward" or "gradient", for the
    view `fused`. unroll: how the view `unrolled` draws loops."""
    entry = model.entries[name or next(iter(model.entries))]
    graph = graph_of(model, entry.name)
    if view == "forward":
        return forward(graph)
    if view == "backward":
        return backward(graph, entry.signature.trainable)
    if view == "joint":
        if numbers is None and not entry.signature.inputs:
            numbers = {}  # there is nothing to give: the parameters' values are all that is needed
        return joint(graph) if numbers is None else joint(graph, *_values(model, entry, graph, numbers))
    if view == "unrolled":
        return unrolled(graph, unroll or Unroll())
    if view == "fused":
        trains = "loss" in entry.signature.needs and bool(entry.signature.trainable)
        kind = program or ("gradient" if trains else "forward")
        made = entry.program(kind)  # before the source: it may hold kernels that no other program has
        return fused(made, model.source, f"{entry.name}: the {kind} program", signature(graph))
    raise InputError(f"there is no view {view!r}", how=f"one of {', '.join(VIEWS)}")


def graph_of(model: CompiledModel, name: str) -> Graph:
    """The traced graph of one of a model's entries."""
    graphs = model.graph
    graph = graphs[name] if isinstance(graphs, Mapping) else graphs
    assert isinstance(graph, Graph)
    return graph


def _values(
    model: CompiledModel, entry: Entry, graph: Graph, numbers: Mapping[str, Any]
) -> tuple[dict[str, Array], dict[str, int]]:
    """(inputs, parameters and states by name, sizes). All that is wrong is said at once."""
    declared = {d.name: d for d in entry.signature.inputs}
    variables = {n.attr("name"): n for n in graph.nodes if n.op in ("param", "state")}
    types = {n: d.dtype.numpy for n, d in declared.items()} | {n: v.dtype.numpy for n, v in variables.items()}
    values: dict[str, Array] = {
        n: np.asarray(a) for n, a in (*model.params.items(), *model.states.items()) if n in variables
    }
    errors: list[GraphcError] = []
    for name, value in numbers.items():
        if name not in types:
            near, listed = get_close_matches(name, types, 1), f"there are: {', '.join(types)}"
            how = f"did you mean {near[0]!r}? {listed}" if near else listed
            errors.append(InputError(f"{entry.name} has no input, parameter or state {name!r}", how=how))
            continue
        try:
            array = np.asarray(value)
            if array.dtype.kind not in "biuf" or (array.dtype.kind == "f" and types[name].kind != "f"):
                raise ValueError(f"it holds {array.dtype}")
        except ValueError as error:
            errors.append(InputError(f"the value of {name!r} is no array of {types[name]}: {error}"))
            continue
        if name in values and array.shape != values[name].shape:
            errors.append(InputError(f"{name!r} is declared of shape {values[name].shape}, and {array.shape} is given"))
        values[name] = array.astype(types[name])
    missing = [str(d) for n, d in declared.items() if n not in numbers]
    if missing:
        what = f"{entry.name}: no value is given for {', '.join(missing)}"
        errors.append(InputError(what, how="numbers in a picture need a value for every input"))
    raise_all(errors)
    sizes = bind_sizes([(d, values[n].shape) for n, d in declared.items()])
    for guard in graph.guards:
        if not guard.holds(sizes):
            raise InputError(guard.message, where=guard.source)
    for name, node in variables.items():  # a state whose size the inputs decide begins at zero
        values.setdefault(name, np.zeros([e.evaluate(sizes) for e in node.shape], types[name]))
    return values, sizes
