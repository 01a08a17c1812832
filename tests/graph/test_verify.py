"""verify reports each broken invariant, where it is, and after which stage."""
from __future__ import annotations

import networkx as nx
import pytest

import graphc as gc
from graphc.errors import GraphError, SourceLine
from graphc.frontend.model import trace_models
from graphc.graph import scalar as sc
from graphc.graph.dtype import bool_, f32, f64
from graphc.graph.formula import Clause, Formula, Read, identity, var
from graphc.graph.graph import Graph, Origin, SideTables
from graphc.graph.node import Node, TensorType
from graphc.graph.size import size
from graphc.ops import build
from graphc.ops.verify import verify

B2 = (size("B"), size(2))


def leaf(name="x", shape=B2, dtype=f64):
    return Node("input", (), TensorType(dtype, shape), name=name)


X = leaf()


def node(op, *operands, type=None, **attrs):
    return Node(op, operands, type or TensorType(f64, B2), **attrs)


def formula(clause, reduce="assign", init=None, operands=(X,)):
    return node("formula", *operands, formula=Formula((clause,), reduce, init), shape=B2)


BODY = sc.arg(0, f64)
READ = Read(0, identity(2))

BROKEN = {
    "no operation 'exq'": node("exq", X),
    "the type is": node("exp", X, type=TensorType(f64, (size("B"), size(3)))),
    "the type is f32": node("exp", X, type=TensorType(f32, B2)),
    "takes 2 operands": node("add", X),
    "do not fit: add": node("add", X, leaf("y", (size(3), size(3)))),
    "have the types f64, f32": node("add", X, leaf("z", B2, f32)),
    "do not fit: transpose": node("transpose", X, perm=(0, 0)),
    "axis 5 is out of range": node("sum", X, axes=(5,)),
    "an attribute is missing": node("sum", X),
    "do not fit: einsum": node("einsum", X, spec="ab,bc->ac"),
    "do not fit: reshape": node("reshape", leaf("w", (size(2),)), shape=(size(7),)),
    "takes floating-point arrays": node("exp", leaf("b", B2, bool_)),
    "a leaf has operands": Node("input", (X,), TensorType(f64, B2), name="bad"),
    "writes another number of axes": formula(Clause(B2, (READ,), BODY, (var(0),))),
    "does not fit its operand": formula(Clause(B2, (Read(0, (var(0),)),), BODY, identity(2))),
    "@3": formula(Clause(B2, (Read(3, identity(2)),), BODY, identity(2))),
    "is not a size of any input": node("broadcast_to", build.const(1.0, f64), shape=(size("Q"),), type=TensorType(f64, (size("Q"),))),
}


@pytest.mark.parametrize("message", BROKEN)
def test_a_broken_node_is_reported(message):
    bad = BROKEN[message]
    tables = SideTables()
    tables.add_origin(bad, Origin(SourceLine("model.py", 12), "layer"))
    inputs = tuple(leaf(n, s, d) for n, s, d in (("x", B2, f64), ("y", (size(3), size(3)), f64), ("z", B2, f32), ("w", (size(2),), f64), ("b", B2, bool_)))
    graph = Graph("g", inputs, {"y": bad}, tables=tables)
    with pytest.raises(GraphError) as error:
        verify(graph, stage="a stage")
    assert message in error.value.what and "after a stage" in error.value.what
    assert str(error.value.where) == "model.py:12", "it says the line of the model"


def test_an_undeclared_input_is_reported():
    with pytest.raises(GraphError, match="'x' is used but not declared"):
        verify(Graph("g", (leaf("other"),), {"y": build.make("exp", X)}))


def test_an_unexpanded_gradient_is_reported_only_when_it_should_be_gone():
    y = build.make("sum", X, axes=(0, 1))
    graph = Graph("g", (X,), {"d": build.make("grad", y, X)})
    verify(graph)
    with pytest.raises(GraphError, match="left unexpanded"):
        verify(graph, expanded=True)


def test_a_cycle_is_reported(monkeypatch):
    graph = Graph("g", (X,), {"y": build.make("exp", X)})
    cyclic = nx.MultiDiGraph([(1, 2), (2, 1)])
    monkeypatch.setitem(graph.__dict__, "nx", cyclic)
    with pytest.raises(GraphError, match="cycle"):
        verify(graph)


def test_a_broken_update_is_reported():
    s = Node("state", (), TensorType(f64, B2), name="s")
    with pytest.raises(GraphError, match="no operation"):
        verify(Graph("g", (X,), {"y": X}, {s: node("exq", X)}))


def test_a_whole_graph_passes():
    @gc.model
    def net(x: gc.f64["B", 3], i: gc.i64["B"]):
        w = gc.param("w", (3, 4))
        return gc.outputs(loss=gc.nn.cross_entropy(x @ w, i), d=gc.grad(gc.sum(x @ w), x))

    verify(trace_models([net], "net", f64, {}).entries["net"])
