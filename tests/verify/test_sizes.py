"""Sizes for checks: those that guards tie, bound or leave free, and models whose operations fit only such sizes."""

import random
import re

import pytest

import graphc as gc
from graphc.frontend.model import trace_models
from graphc.graph.dtype import f64
from graphc.graph.graph import Guard
from graphc.graph.node import Node, TensorType
from graphc.graph.size import parse, size
from graphc.ops import build
from graphc.verify import rewrites
from graphc.verify.certificate import FAILED
from graphc.verify.model import verify
from graphc.verify.sizes import fitting, guards_of


def guard(text):
    left, relation, right = re.split("(==|>=)", text)
    return Guard(parse(left), parse(right), "", None, relation)


@pytest.mark.parametrize(
    "texts",
    [
        [],
        ["B == H"],
        ["H == 4"],
        ["H == 100"],  # beyond what is drawn
        ["B*H == 4*B"],  # a reshape
        ["B*H == 3*T", "T == 2*H"],
        ["T >= 50", "H >= T"],
        ["(T-1)//2+1 == H", "H >= 5"],  # not linear in T
        ["B*T == H", "H == 12"],
    ],
)
@pytest.mark.parametrize("seed", range(5))
def test_sizes_fulfil_the_guards(texts, seed):
    guards = [guard(t) for t in texts]
    proposed = {"B": 2, "H": 3, "T": 4}
    sizes = fitting(proposed, guards, random.Random(seed))
    assert sizes is not None and sizes.keys() == proposed.keys() and min(sizes.values()) >= 1
    assert all(g.left.evaluate(sizes) - g.right.evaluate(sizes) >= 0 for g in guards)
    assert all(g.left.evaluate(sizes) == g.right.evaluate(sizes) for g in guards if g.relation == "==")


def test_sizes_that_fit_are_left_alone():
    proposed = {"B": 2, "H": 4}
    assert fitting(proposed, [guard("H == 2*B")], random.Random(0)) == proposed


def test_there_may_be_no_sizes():
    assert fitting({"B": 2}, [guard("B == 3"), guard("B == 4")], random.Random(0)) is None
    assert fitting({"B": 2}, [guard("B == 0")], random.Random(0)) is None


def test_what_ties_the_sizes_of_a_loop_stands_in_its_step():
    @gc.model
    def m(h: gc.f64["C"], x: gc.f64["T", "B"]):
        last, _ = gc.scan(lambda h, x_t: (gc.tanh(h + x_t), None), init=h, xs=x)
        return gc.outputs(y=last)

    (graph,) = trace_models([m], m.name, f64, {}).entries.values()
    (loop,) = [n for n in graph.nodes if n.op == "scan"]
    ties = {frozenset((str(g.left), str(g.right))) for g in guards_of([loop]) if g.relation == "=="}
    assert frozenset("BC") in ties


# -- models whose operations fit only some sizes -----------------------------------------------------------------------
@gc.model
def reshaped(x: gc.f32["B", "H"]):
    h = gc.reshape(x, (gc.dim("B"), 4))
    return gc.outputs(loss=gc.sum(gc.tanh(h @ gc.param("w", (4, 4)))))


@gc.model
def stretched(x: gc.f32["B", "H"]):
    h = gc.broadcast_to(x, (gc.dim("B"), 6))
    return gc.outputs(loss=gc.sum(gc.tanh(h * gc.param("w", (6,)))))


@gc.model
def met(x: gc.f32["B", "H"], y: gc.f32["C", "G"]):
    return gc.outputs(loss=gc.sum(gc.maximum(x * gc.param("w", (5,)), y)))


@gc.model
def looped(x: gc.f32["T", "B", 3]):
    w = gc.param("w", (3,))
    last, _ = gc.scan(lambda h, x_t: (gc.tanh(h * w + x_t), None), init=gc.zeros((5, 3)), xs=x)
    return gc.outputs(loss=gc.sum(last))


@pytest.mark.parametrize("model", [reshaped, stretched, met, looped], ids=lambda m: m.name)
def test_a_model_of_tied_sizes_verifies(model):
    certificate = verify(trace_models([model], model.name, f64, {}))
    assert certificate.strict, str(certificate)


def test_an_adjoint_of_tied_sizes_is_still_tested(monkeypatch):
    from graphc.ops.table import ROWS

    monkeypatch.setitem(ROWS["reshape"].__dict__, "vjp", lambda node, k, c: build.reshape(build.make("neg", c), node.operands[0].shape))
    certificate = verify(trace_models([reshaped], "reshaped", f64, {}))
    assert [f.subject for f in certificate.findings if f.standing == FAILED and f.kind == "operation"] == ["reshape(f64[B, H]; shape=(B, 4))"]


def test_a_rewrite_must_fit_wherever_what_it_replaces_does():
    x = Node("input", (), TensorType(f64, (size("B"), size("H"))), name="x")
    before = build.make("neg", x)
    turned = build.make("broadcast_to", build.transpose(x, (1, 0)), shape=x.shape)  # fits where B is H
    assert rewrites._verdict(before, build.make("neg", turned)) is False
