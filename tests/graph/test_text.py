"""The text form: it parses back to the same graph, at every stage; what does not parse is told with its line."""
from __future__ import annotations

import numpy as np
import pytest

import graphc as gc
from graphc.errors import GraphError, SourceLine
from graphc.frontend.model import trace_models
from graphc.graph import scalar as sc
from graphc.graph.dtype import bool_, f64, i64
from graphc.graph.formula import Clause, Formula, Lookup, Read, affine
from graphc.graph.graph import Graph, Guard, Origin, SideTables
from graphc.graph.node import Node, TensorType
from graphc.graph.scalar import Scalar
from graphc.graph.size import size
from graphc.graph.text import parse_graph, print_graph
from graphc.ops import build
from graphc.pipeline import STAGES, lower, program_graph


def nested(x: gc.f64["T", "S", "B", 3], n: gc.i32["B"]):
    """Loops inside loops, with results of several kinds."""
    u = gc.param("U", (3, 3))

    def sentence(h, words):
        def word(s, w):
            return (gc.tanh(s[0] @ u + w), s[1] + 1), {"h": s[0], "k": s[1]}

        (h, k), seen = gc.scan(word, init=(h, 0), xs=words, lengths=None)
        return h, (seen["h"], k)

    last, (hs, _) = gc.scan(sentence, init=gc.zeros((gc.dim("B"), 3)), xs=x, reverse=True)
    again, _ = gc.scan(lambda h, e: (gc.sin(h + e), None), init=last, xs=x[:, 0], lengths=n, checkpoint="sqrt")
    return gc.outputs(hs=hs, loss=gc.sum(hs * hs) + gc.sum(again))


@gc.model
def everything(x: gc.f64["B", 4], i: gc.i64["B"], t: gc.f64["T", 3], unused: gc.bool_["B"]):
    with gc.scope("layer"):
        w, b = gc.param("W", (4, 3)), gc.param("b", (3,))
    s = gc.state("s", (3,))
    h = gc.softmax(x @ w + b)
    gc.update(s, gc.mean(h, axis=0))
    picked = gc.take_along_axis(h, i[:, None], axis=1)
    moved = gc.concat([t[::-2], t[1:], gc.const(np.array([[np.nan, np.inf, -0.0]]))])
    rows = gc.take(t, i, axis=0)
    loss = gc.mean(gc.log(picked)) + gc.sum(gc.max(rows, axis=1)) + gc.sum(moved[0] * s) + gc.sum(gc.where(x > 0.5, gc.sqrt(x), 0))
    return gc.outputs(h=h, loss=loss, dx=gc.grad(loss, x), dt=gc.grad(loss, t), shifted=gc.reshape(t, (gc.dim("T") * 3,))[3:] * 0.1, big=gc.const(np.arange(40.0)))


def graphs():
    module = trace_models([everything], "everything", f64, {})
    traced = module.entries["everything"]
    return {**{stage: lower(traced, stop_after=stage)[0] for stage in STAGES[:5]},
            "gradient": lower(program_graph(module, "everything", "gradient"), stop_after=STAGES[4])[0]}


def loops():
    model = gc.model(nested)
    graph = trace_models([model], "nested", f64, {})
    staged = {f"loops after {stage}": stage for stage in STAGES[:5]}
    return {name: lower(program_graph(graph, "nested", "gradient"), stop_after=stage)[0] for name, stage in staged.items()}


GRAPHS = {**graphs(), **loops()}


@pytest.mark.parametrize("stage", GRAPHS)
def test_it_parses_back_to_the_same_graph(stage):
    graph = GRAPHS[stage]
    text = print_graph(graph)
    again = parse_graph(text)
    assert print_graph(again) == text
    assert again.outputs == dict(graph.outputs), "nodes are interned, so equal graphs have the very same nodes"
    assert again.updates == dict(graph.updates) and again.inputs == graph.inputs and again.guards == graph.guards and again.name == graph.name
    for node in graph.nodes:
        assert again.tables.origins.get(node, []) == graph.tables.origins.get(node, []) or list(again.tables.origins[node]) == list(graph.tables.origins[node])
        assert again.tables.names.get(node) == graph.tables.names.get(node)


def test_the_graphs_hold_what_is_hard_to_print():
    text = "\n".join(print_graph(g) for g in GRAPHS.values())
    for part in ("formula(", "{|", "index<", "nan", "inf", "-0.0", "base64", "@1[", "guard ", ">=", "update ", '"layer"', "//"):
        assert part in text, part


def test_numbers_keep_every_bit():
    values = [0.1, 1 / 3, 1e-300, 5e-324, 1.7976931348623157e308, -0.0, np.nan, np.inf, -np.inf, 2.0**53 + 1]
    graph = Graph("g", (), {"y": build.const(values, f64)})
    (back,) = parse_graph(print_graph(graph)).outputs.values()
    np.testing.assert_array_equal(back.attr("value").array.view(np.int64), np.asarray(values).view(np.int64))
    (flags,) = parse_graph(print_graph(Graph("g", (), {"y": build.const([True, False], bool_)}))).outputs.values()
    assert flags.attr("value").array.tolist() == [True, False]


def test_strange_names_and_messages():
    x = Node("input", (), TensorType(f64, (size("B"),)), name="x")
    tables = SideTables()
    tables.add_origin(x, Origin(SourceLine('a "b"\\c.py', 3), "über/scope"), Origin(None, "only a scope"))
    tables.names[x] = 'na"me'
    guard = Guard(size("B") * 2, size("B") + 3, 'say "B"\nagain \\ because', SourceLine("m.py", 7), ">=")
    graph = Graph("g", (x,), {"y": x}, guards=(guard,), tables=tables)
    again = parse_graph(print_graph(graph))
    assert again.guards == (guard,) and list(again.tables.origins[x]) == list(tables.origins[x]) and again.tables.names[x] == 'na"me'


def test_formulas_with_guards_and_look_ups():
    """Every part of a formula: two clauses, guards, strides, quotients, look-ups read and written, sizes and indices in the body."""
    x, i = (Node("input", (), TensorType(d, (size("T"),)), name=n) for n, d in (("x", f64), ("i", i64)))
    half = (size("T") + 1) // 2
    index, extent = Scalar("index", (), i64, affine(-1, {0: 2})), Scalar("size", (), i64, half * 2 - size("T"))
    value = Scalar("cast", (Scalar("add", (index, extent), i64),), f64)
    first = Clause((half,), (Read(0, (affine(half * -1 + size("T"), {0: 1}),)),), Scalar("mul", (sc.arg(0, f64), value), f64), (affine(0, {0: 2}),),
                   (affine(-1, {0: size("T")}), affine(size("T") - half, {0: -1})))
    second = Clause((size("T"),), (Read(0, (Lookup(1, (affine(0, {0: 1}),)),)),), sc.arg(0, f64), (Lookup(1, (affine(size("T") - 1, {0: -1}),)),))
    node = Node("formula", (x, i), TensorType(f64, (size("T"),)), formula=Formula((first, second), "sum", sc.const(-0.5, f64)), shape=(size("T"),))
    graph = Graph("g", (x, i), {"y": node})
    text = print_graph(graph)
    assert text.count(" when ") == 2 and "@1[" in text and " ; " in text
    assert parse_graph(text).outputs["y"] is node


def test_equal_nodes_of_two_texts_are_one():
    text = print_graph(GRAPHS[STAGES[0]])
    assert parse_graph(text).outputs["loss"] is GRAPHS[STAGES[0]].outputs["loss"]


GOOD = 'graph g\n%0 = input {name="x"} : f64[B, 2]\n%1 = exp(%0) : f64[B, 2]\ninput %0\noutput y = %1\n'


@pytest.mark.parametrize("old, new, line", [
    ("exp(%0)", "exp(%7)", 3), ("f64[B, 2]\n%1", "f65[B, 2]\n%1", 2), ("input %0", "inputs %0", 4), ("output y = %1", "output y %1", 5),
    ("exp(%0) :", "exp(%0", 3), ('{name="x"}', '{name="x}', 2), ("[B, 2]\ninput", "[B, 2$]\ninput", 3), ("%1 = exp", "%1 exp", 3), ("[B, 2]\ninput", "[B, ]]\ninput", 3)])
def test_an_error_names_the_line(old, new, line):
    assert GOOD.count(old) == 1
    parse_graph(GOOD)
    with pytest.raises(GraphError, match=rf"line {line} of the graph text|cannot read the size"):
        parse_graph(GOOD.replace(old, new))


@pytest.mark.parametrize("text", ["", "graph g\n", GOOD.replace("graph g\n", "")])
def test_an_incomplete_text_is_an_error(text):
    with pytest.raises(GraphError, match="incomplete"):
        parse_graph(text)


def test_comments_and_empty_lines_are_skipped():
    assert print_graph(parse_graph(f"# a comment\n\n{GOOD}\n   # another\n")) == GOOD
