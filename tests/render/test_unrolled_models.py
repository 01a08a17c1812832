"""Whole models unrolled in time: what is drawn of them, by which names, and that nothing lies on anything else."""
from __future__ import annotations

import re
from pathlib import Path

import pytest

import graphc as gc
from graphc.render.dot import to_dot
from graphc.render.unrolled import Unroll, unrolled
from tests.render import loops
from tests.render.drawings import box, needs_dot, texts
from tests.render.layout import faults, layout

RECURRENT = [("rnn_lm", {}), ("lstm_lm", {}), ("gru_lm", {}), ("stacked_birnn", {}), ("stacked_birnn", {"cell": "lstm"}),
             ("seq2seq", {}), ("seq2seq", {"attention": False}), ("text_classifier", {}), ("forecasting", {}), ("pos_tagger", {}),
             ("textgenrnn", {}), ("vanishing:rnn", {}), ("vanishing:gru", {}), ("vanishing:lstm", {})]


@needs_dot
@pytest.mark.parametrize("back", [False, True], ids=["forward", "backward"])
@pytest.mark.parametrize("name, set", RECURRENT, ids=str)
def test_nothing_overlaps_in_models_that_come_with_graphc(name, set, back):
    """Several sums over all steps stand above one another: what a later one reads goes around the others."""
    file, _, model = name.partition(":")
    compiled = gc.compile(Path(__file__).parents[2] / "models" / f"{file}.py", model=model or file, **set)
    assert faults(layout(to_dot(unrolled(compiled.graph, Unroll(backward=back))))) == []


@pytest.fixture(scope="module")
def told_before():
    return gc.compile(loops.told_before).graph


# -- names and formulas ------------------------------------------------------------------------------------------------
def test_gates_have_the_names_of_the_literature():
    @gc.model
    def several(x: gc.f32["B", "T", 3]):
        a, _ = gc.nn.lstm(x, 2, name="a")
        b, _ = gc.nn.gru(x, 2, name="b")
        c, _ = gc.nn.gru(x, 2, name="c", reset="after", update="old")
        d, _ = gc.nn.rnn(x, 2, name="d", skip=2)
        return gc.outputs(loss=gc.sum(a) + gc.sum(b) + gc.sum(c) + gc.sum(d))

    lines = texts(unrolled(gc.compile(several).graph, Unroll()), "loop")
    gates = ["a_{t} = x_{t} W + b + h⁽¹⁾_{t−1} U", "f_{t} = σ(a_{t}[:, :2])", "i_{t} = σ(a_{t}[:, 2:4])", "g_{t} = tanh(a_{t}[:, 4:6])",
             "c⁽¹⁾_{t} = f_{t} · c⁽¹⁾_{t−1} + i_{t} · g_{t}", "o_{t} = σ(a_{t}[:, 6:8])", "h⁽¹⁾_{t} = o_{t} · tanh(c⁽¹⁾_{t})"]
    assert lines[:7] == gates
    assert {"h⁽²⁾_{t} = (1 − z_{t}) · h⁽²⁾_{t−1} + z_{t} · h̃_{t}", "h⁽³⁾_{t} = z_{t} · h⁽³⁾_{t−1} + (1 − z_{t}) · h̃_{t}"} <= set(lines)
    assert any(t.startswith("h⁽⁴⁾_{t} = tanh(x_{t} W + b + h⁽⁴⁾_{t−1} U + ") for t in lines)


def test_a_name_of_the_model_comes_before_that_of_the_literature():
    @gc.model
    def own(x: gc.f32["B", "T", 3]):
        def step(old, x_t):
            mine = gc.nn.rnn_cell(x_t, old)
            return mine, mine

        _, ys = gc.scan(step, init=gc.zeros((gc.dim("B"), 2)), xs=x, axis=1)
        return gc.outputs(loss=gc.sum(ys))

    assert "mine_{t} = tanh(x_{t} W + b + mine_{t−1} U)" in texts(unrolled(gc.compile(own).graph, Unroll()), "loop")


def test_what_needs_no_box_is_written_into_formulas(told_before):
    drawing = unrolled(told_before, Unroll())
    lines = set(texts(drawing))
    assert {"before_{t} = y_{t−1}", "at first 7", "inside_{t} = t ≤ n", "logits_{t} = [e_{t}; h_{t}] W + b"} <= lines
    assert "p_{t} = softmax logits_{t}" in lines and any(t.startswith("e_{t} = dropout(") for t in lines)
    assert not any("random" in t or "exp" in t and "softmax" in t for t in lines)
    assert texts(drawing, "input").count("before_{t} = y_{t−1}") == 1 and {"before_{1}", "before_{T}"} <= set(texts(drawing, "input"))


def test_a_softmax_over_the_steps_is_no_value_of_one(told_before):
    lines = texts(unrolled(told_before, Unroll()))
    (line,) = [t for t in lines if t.startswith("over_time_{t} = ")]
    assert "softmax" not in line and "/" in line
    total = re.search(r"/ (\S+)$", line)[1]
    assert any(t.startswith(f"{total} = Σ ") and "_{1…T}" in t for t in lines)


def test_the_last_step_of_an_input_is_read_from_the_last_column(told_before):
    drawing = unrolled(told_before, Unroll())
    (box_of_last,) = box(drawing, "e_last = e_{T}")
    (tail,) = {e.tail for e in drawing.edges if e.head == box_of_last.id}
    assert {line.text for b in drawing.boxes if b.id == tail for line in b.lines} == {"e_{T}"}


def test_a_scope_that_is_entered_twice_is_two_boxes(told_before):
    lines = texts(unrolled(told_before, Unroll()), "output")
    assert any(t.startswith("one = ") for t in lines) and any(t.startswith("two = ") for t in lines)
