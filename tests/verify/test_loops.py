"""Verification of models with loops: the adjoint of each loop, its step's operations, and faults planted in it."""

import pytest

import graphc as gc
from graphc.derivatives import scan as adjoint
from graphc.frontend.model import trace_models
from graphc.graph.dtype import f64
from graphc.ops.scan import Scan
from graphc.verify.adjoints import check_loop
from graphc.verify.certificate import EXACT, FAILED
from graphc.verify.model import verify


@gc.model
def tagger(x: gc.f64["T", "B", 2], n: gc.i32["B"]):
    W, U = gc.param("W", (2, 3)), gc.param("U", (3, 3))

    def step(s, x_t):
        h, total = s
        h = gc.tanh(x_t @ W + h @ U)
        return (h, total + h * h), (h, gc.sigmoid(h))

    zero = gc.zeros((gc.dim("B"), 3))
    (last, total), (hs, ys) = gc.scan(step, init=(zero, zero), xs=x, lengths=n)
    return gc.outputs(loss=gc.sum(hs * ys) + gc.sum(last) + gc.sum(total))


@gc.model
def plain(x: gc.f64["T", "B", 3]):
    def step(h, x_t):
        h = gc.tanh(x_t + h)
        return h, h

    last, hs = gc.scan(step, init=gc.zeros((gc.dim("B"), 3)), xs=x)
    return gc.outputs(loss=gc.sum(hs * hs) + gc.sum(last))


def module_of(model):
    return trace_models([model], model.name, f64, {})


def loop_of(module):
    (graph,) = module.entries.values()
    return next(n for n in graph.nodes if n.op == "scan")


def test_nothing_of_a_model_with_a_ragged_loop_fails():
    found = verify(module_of(tagger)).findings
    assert all(f.standing != FAILED for f in found), [str(f) for f in found]
    assert any(f.subject.startswith("scan of") and f.standing == EXACT for f in found)
    assert any(f.subject.startswith("tanh(") for f in found), "the step's operations are checked too"


@pytest.mark.parametrize("fault", ["last seed wins", "same direction", "no sum over the steps"])
def test_a_fault_in_the_adjoint_is_found(monkeypatch, fault):
    loop = loop_of(module_of(plain if fault == "last seed wins" else tagger))
    assert check_loop(loop).standing == EXACT
    if fault == "last seed wins":
        monkeypatch.setattr(adjoint, "_seeds", lambda body, found: {body.results[k]: c for k, c in found.items()})
    elif fault == "same direction":
        monkeypatch.setattr(adjoint, "Scan", _Forward)
    else:
        monkeypatch.setattr(adjoint.build, "make", lambda op, *o, **a: o[1] if op == "add" and o[0].op == "input" else make(op, *o, **a))
    assert check_loop(loop).standing == FAILED


make = adjoint.build.make


class _Forward(Scan):
    """A loop that runs forward whatever it is told."""

    def node(self):
        object.__setattr__(self, "reverse", False)
        return super().node()
