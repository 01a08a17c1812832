"""What must agree for a program: NumPy, each stage's graph by oracles, the generated source, and differences."""
from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

import graphc as gc
from graphc.frontend.model import Module, trace_models
from graphc.graph.dtype import f64
from graphc.graph.graph import Graph
from graphc.graph.text import parse_graph, print_graph
from graphc.lowering.contractions import canonical_contractions
from graphc.lowering.schedule import _with_copies
from graphc.pipeline import lower, program_graph

from .evaluate import evaluate
from .generate import Mismatch, Program

STAGES = ("trace", "canonicalise", "stabilise", "differentiate", "optimise", "lowered")


def close(name: str, got: Any, want: Any, rtol: float = 1e-8, atol: float = 1e-9) -> None:
    """Mismatch unless two arrays agree, to rounding, in shape and values."""
    got, want = np.asarray(got), np.asarray(want)
    if got.shape != want.shape:
        raise Mismatch(f"{name}: the shape is {got.shape}, not {want.shape}")
    if not got.size:
        return
    scale = max(1.0, float(np.abs(want[np.isfinite(want)]).max(initial=0.0))) if want.dtype.kind == "f" else 1.0
    if not np.allclose(got, want, rtol=rtol, atol=atol * scale, equal_nan=True):
        raise Mismatch(f"{name}: got\n{got}\nnot\n{want}")


def traced(program: Program) -> tuple[Module, Graph]:
    """The traced module of a program, and the graph of all its outputs and updates."""
    module = trace_models([program.model()], "net", f64, {})
    graph = module.entries["net"]
    return module, program_graph(module, "net", f"forward:{','.join(graph.outputs)}")


def stages(graph: Graph) -> dict[str, Graph]:
    """The graph after each stage, verified."""
    found = {}
    for stage in STAGES[:-1]:
        found[stage], _ = lower(graph, check=True, stop_after=stage)
    found["lowered"] = canonical_contractions(_with_copies(found["optimise"])).graph
    return found


def derivatives(outputs: Iterable[str]) -> list[str]:
    return [n for n in outputs if n.startswith(("d_", "h_")) or n == "second"]


def check_graphs(program: Program) -> dict[str, np.ndarray]:
    """Every stage against NumPy and the stage before; gradients against differences. The outputs, by the last stage."""
    _, graph = traced(program)
    values = program.values()
    reference = program.run(values)
    wanted: dict[str, Any] = {f"o{i}": reference[n] for i, n in enumerate(program.outputs)}
    if program.loss:
        wanted["loss"] = reference["loss"]
    wanted_updates = {n: reference[v] for n, v in program.updates.items()}
    found = stages(graph)
    last: dict[str, np.ndarray] = {}
    for stage, g in found.items():
        expanded = stage in STAGES[3:]
        if not expanded:
            g = g.select([n for n in g.outputs if n not in derivatives(g.outputs)])
        outputs, updates = evaluate(g, values, program.sizes)
        for name, value in outputs.items():
            want = wanted.get(name, last.get(name))
            if want is None:
                if not np.isfinite(value).all():
                    raise Mismatch(f"stage {stage}, {name} is not finite: {value}")
                continue
            close(f"stage {stage}, {name}", value, want)
        for name, value in updates.items():
            close(f"stage {stage}, update {name}", value, wanted_updates[name])
        last = outputs
        text = print_graph(found[stage])
        again = parse_graph(text)
        if print_graph(again) != text or again.outputs != dict(found[stage].outputs) or again.updates != dict(found[stage].updates):
            raise Mismatch(f"stage {stage}: the graph's text does not parse back to it:\n{text}")
    if program.loss and program.smooth:
        check_differences(program, found["differentiate"], last)
    return last


def check_differences(program: Program, graph: Graph, gradients: Mapping[str, np.ndarray]) -> None:
    """Directional derivatives of NumPy's loss (for second derivatives: of the gradient graph) against the gradients."""
    values, rng = program.values(), np.random.default_rng(0)
    stopped = program.run(values)["stopped"]
    for name in program.wrt:
        direction = rng.standard_normal(gradients[f"d_{name}"].shape)

        def loss(h: float, name: str = name, direction: np.ndarray = direction) -> float:
            if name in values:
                return float(program.run({**values, name: values[name] + h * direction}, stopped=stopped)["loss"])
            return float(program.run(values, {name: h * direction}, stopped)["loss"])

        _compare(f"gradient of loss by {name}", loss, float(np.sum(gradients[f"d_{name}"] * direction)))
        if program.second and name in values:
            part = graph.select(["second"], updates=False)

            def second(h: float, name: str = name, direction: np.ndarray = direction, part: Graph = part) -> float:
                return float(evaluate(part, {**values, name: values[name] + h * direction}, program.sizes)[0]["second"])

            _compare(f"gradient of second by {name}", second, float(np.sum(gradients[f"h_{name}"] * direction)))


def _compare(what: str, f: Any, slope: float) -> None:
    h = 1e-4
    with np.errstate(all="ignore"):
        f1, f2, f3 = ((f(k * h) - f(-k * h)) / (2 * k * h) for k in (1, 2, 3))
    best = (15 * f1 - 6 * f2 + f3) / 10
    if abs(best - (4 * f1 - f2) / 3) > 1e-6 * max(1.0, abs(best)) or not np.isfinite(best):
        return  # a kink, or a curvature, that differences do not resolve
    if not abs(best - slope) <= 2e-5 * max(1.0, abs(best), abs(slope)):
        raise Mismatch(f"{what}: the gradient says {slope}, differences say {best}")


def check_compiled(program: Program, target: str, expected: Mapping[str, np.ndarray] | None = None, calls: int = 2, dtype: str = "float64") -> None:
    """Outputs and updates of the compiled model, call after call, against each call's NumPy and the oracles' gradients."""
    _, graph = traced(program)
    expanded, _ = lower(graph, stop_after="differentiate")
    m = gc.compile(program.model(), target=target, dtype=dtype, check=True)
    loose = {} if dtype == "float64" else dict(rtol=2e-3, atol=2e-4)
    values = dict(program.values())
    for name, given in program.given.items():
        if given.kind == "param":
            m.params[name] = given.array
    inputs = {n: values[n] for n, g in program.given.items() if g.kind == "input"}
    if dtype != "float64":
        inputs = {n: a.astype(np.float32) if a.dtype.kind == "f" and program.given[n].annotation.startswith("gc.f32") else a for n, a in inputs.items()}
    with np.errstate(all="ignore"):
        for call in range(calls):
            want, updates = evaluate(expanded, values, program.sizes)
            if not all(np.isfinite(a).all() for a in [*want.values(), *updates.values()]):
                break
            kept = {n: a.copy() for n, a in inputs.items()}
            got = m.forward(**inputs, outputs=list(want))
            for name, value in want.items():
                close(f"target {target} {dtype}, call {call}, {name}", got[name], value, **loose)
            for name, array in inputs.items():
                if not np.array_equal(array, kept[name]):
                    raise Mismatch(f"target {target}, call {call}: the input {name} was written to")
            values |= updates
            for name in program.updates:
                if name in m.params or name in m.states:
                    close(f"target {target} {dtype}, call {call}, {name} afterwards", (m.params if name in m.params else m.states)[name], values[name], **loose)
            for name, given in program.given.items():
                if given.kind == "param" and name not in program.updates:
                    close(f"target {target}, call {call}, {name}, which is not updated", m.params[name], given.array, **loose)


def check_all(program: Program, rng: random.Random, cpu: float = 0.0) -> None:
    """All of it; compiled for the CPU with a probability."""
    check_graphs(program)
    check_compiled(program, "numpy")
    if rng.random() < cpu:
        check_compiled(program, "cpu")
