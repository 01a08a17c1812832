"""Pictures of models: what they show, and that nothing in them overlaps or is clipped."""
from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest

import graphc as gc
from graphc.errors import InputError
from graphc.graph import scalar as sc
from graphc.graph.dtype import f32
from graphc.graph.formula import Clause, Formula, Read, affine
from graphc.graph.graph import Graph
from graphc.graph.node import Node, TensorType
from graphc.graph.size import size
from graphc.render.dot import to_dot, wrapped
from graphc.render.draw import drawn
from graphc.render.numbers import evaluate
from graphc.render.picture import Box, Edge, Line, Picture
from graphc.render.views import VIEWS, picture
from tests.render import models
from tests.render.layout import faults, layout

needs_dot = pytest.mark.skipif(not shutil.which("dot"), reason="Graphviz's program dot is not installed")
FILES = {"xor": "models/xor.py", "digits": "models/digits.py"}
EXAMPLE = dict(a=3, b=1, c=-2)
PLAIN = [v for v in VIEWS if v != "unrolled"]  # the views of a model without loops
XOR = {"x": [[0, 0], [0, 1], [1, 0], [1, 1]], "y": [[0], [1], [1], [0]], "hidden/W": [[1, 1], [1, 1]],
       "hidden/b": [0, -1], "out/W": [[1], [-1]], "out/b": [0]}


@pytest.fixture(scope="module")
def compiled():
    """Models by name, each compiled once."""
    made = {}

    def get(name, **hyperparameters):
        key = name, tuple(hyperparameters.items())
        if key not in made:
            made[key] = gc.compile(FILES.get(name) or getattr(models, name), **hyperparameters)
        return made[key]

    return get


def texts(drawing, kind=None):
    """All lines of the boxes of a picture, of those of a kind."""
    return [line.text for box in drawing.boxes if kind in (None, box.kind) for line in box.lines]


def box_of(drawing, text):
    """The box whose first line is a text."""
    (found,) = [b for b in drawing.boxes if b.lines[0].text == text]
    return found


# -- layout ----------------------------------------------------------------------------------------------------------
@needs_dot
@pytest.mark.parametrize("view", PLAIN)
@pytest.mark.parametrize("name", ["computation_graph", "attention", "deep", "mixed", "xor", "digits"])
def test_nothing_overlaps_and_text_fits(compiled, name, view):
    assert faults(layout(to_dot(picture(compiled(name), view)))) == []


@needs_dot
@pytest.mark.parametrize("name, numbers, hyper", [("computation_graph", EXAMPLE, {}), ("xor", XOR, {"hidden": 2})])
def test_nothing_overlaps_with_numbers(compiled, name, numbers, hyper):
    assert faults(layout(to_dot(picture(compiled(name, **hyper), "joint", numbers=numbers)))) == []


@needs_dot
def test_the_check_of_the_layout_sees_faults(compiled):
    """Boxes pushed onto each other, text wider than its box, a line through a box: each is named."""
    dot = to_dot(picture(compiled("computation_graph"), "forward"))
    drawing = layout(dot)
    assert faults(drawing) == []
    a, b, *_ = [o for o in drawing["objects"] if "pos" in o]
    right, b["pos"] = b["pos"], a["pos"]
    assert any(f"{a['name']} and {b['name']} overlap" in f for f in faults(drawing))
    b["pos"] = right
    width, b["width"] = b["width"], "0.1"
    assert any("does not fit" in f for f in faults(drawing))
    b["width"] = width
    assert faults(drawing) == []
    line = next(op for op in drawing["edges"][0]["_draw_"] if op["op"] == "b")
    away = next(o for i, o in enumerate(drawing["objects"]) if i not in (drawing["edges"][0]["tail"], drawing["edges"][0]["head"]))
    line["points"] = [[float(c) for c in away["pos"].split(",")]] * 4
    assert any("runs through" in f for f in faults(drawing))
    fixed = dot.replace("label=<", "fixedsize=true, label=<")
    assert any("does not fit" in f for f in faults(layout(fixed)))


@needs_dot
@pytest.mark.parametrize("format, head", [("svg", b"<?xml"), ("png", b"\x89PNG"), ("pdf", b"%PDF"), ("dot", b"digraph"), ("html", b"<!DOCTYPE html>")])
def test_formats(compiled, format, head):
    assert drawn(picture(compiled("computation_graph"), "joint"), format).startswith(head)


def test_dot_is_the_same_every_time(compiled):
    for view in PLAIN:
        first, again = (to_dot(picture(gc.compile(models.attention), view)) for _ in range(2))
        assert first == again


@needs_dot
def test_texts_are_escaped():
    evil = ['<b>&amp;"\\', "a\nb\t\0c", "ünïcode ∂ ✓", "]]>", "{|}", "\\N", "%s", "--", "x" * 300, "'", " "]
    boxes = [Box(f"n{i} \"'<&", kind, tuple(Line(t, s) for s in ("title", "small", "code"))) for i, (t, kind) in
             enumerate(zip(evil, ["op", "input", "param", "state", "const", "kernel", "output", "adjoint", "check", "pale", "result"]))]
    drawing = Picture("t <&\"\\>", "s <&\"\\>", boxes=boxes, edges=[Edge(boxes[0].id, boxes[1].id, "flow", (Line(evil[0]),))])
    assert faults(layout(to_dot(drawing))) == []
    assert not set(to_dot(drawing)) & {chr(i) for i in range(32) if chr(i) != "\n"}
    svg = drawn(drawing, "svg").decode()
    assert "&lt;b&gt;&amp;amp;" in svg and "ünïcode" in svg


def test_long_names_are_broken():
    parts = wrapped("encoder/layer_number_one/self_attention/projection/W", 20)
    assert "".join(parts) == "encoder/layer_number_one/self_attention/projection/W"
    assert max(map(len, parts)) <= 20 and all(p[-1] in "/_" for p in parts[:-1])


# -- forward ---------------------------------------------------------------------------------------------------------
def test_forward_writes_formulas_with_the_models_names(compiled):
    drawing = picture(compiled("xor"), "forward")
    assert texts(drawing, "output")[0::2] == ["y_hat = h W + b", "loss = mean v₃"]
    assert {"v₁ = x W + b", "h = ReLU(v₁)", "v₃ = v₂²", "(B, 16)"} <= set(texts(drawing))
    assert {c.title for c in drawing.clusters} == {"hidden", "out", "mse"}
    assert box_of(drawing, "h = ReLU(v₁)").cluster == "" and box_of(drawing, "y_hat = h W + b").cluster == "out"


def test_marks_are_on_edges_and_numbers_in_formulas(compiled):
    drawing = picture(compiled("mixed"), "forward")
    lines = set(texts(drawing))
    assert {"gate = v₂ if v₁ > 0 else v₄", "both = [e; gate]", "z = v₈ if flag else v₉", "v₂ = x[:, 7::−2]", "v₈ = both³",
            "v₉ = max(both, 0.5)", "one = 1.5"} <= lines
    assert {"as (B, 20)", "transposed", "becomes"} == {n.text for e in drawing.edges for n in e.lines}
    assert not any(b.kind == "const" for b in drawing.boxes)


def test_a_value_used_twice_by_one_operation_has_one_edge(compiled):
    drawing = picture(compiled("xor"), "forward")
    square = box_of(drawing, "v₃ = v₂²").id
    assert sum(e.head == square for e in drawing.edges) == 1


def test_equal_layers_are_drawn_once(compiled):
    drawing = picture(compiled("deep"), "forward")
    assert [c.title for c in drawing.clusters if c.kind == "repeat"] == ["layer0 … layer11   × 12, each fed by the one before"]
    assert sum(b.kind == "param" for b in drawing.boxes) == 2
    assert box_of(drawing, "h = tanh(v₁)").cluster == "layer0"  # it is part of what repeats, though in no scope
    assert "v₂ = h − y" in texts(drawing)


def test_equal_blocks_and_heads(compiled):
    drawing = picture(compiled("residual"), "forward")
    titles = [c.title for c in drawing.clusters if c.kind == "repeat"]
    assert titles == ["block0 … block4   × 5, each fed by the one before", "head0 … head3   × 4, side by side"]
    assert "v₇ = [v₆; … × 4]" in texts(drawing)
    (m,) = [b.id for b in drawing.boxes if b.lines[0].text == "m"]
    assert sum(e.tail == m for e in drawing.edges) == 1
    (joined,) = [b.id for b in drawing.boxes if b.lines[0].text == "v₇ = [v₆; … × 4]"]
    assert sum(e.head == joined for e in drawing.edges) == 1


def layers(changed, names="01234"):
    @gc.model
    def chain(x: gc.f32["B", 8], y: gc.f32["B", 8]):
        h = x
        for i, name in enumerate(names):
            h = changed(i, gc.nn.linear(h, 8, name=f"layer{name}"), x, h)
        return gc.outputs(h=h)

    return [c for c in picture(gc.compile(chain), "forward").clusters if c.kind == "repeat"]


def test_what_only_looks_equal_is_not_collapsed():
    assert len(layers(lambda i, h, x, old: gc.tanh(h))) == 1
    assert layers(lambda i, h, x, old: gc.tanh(h) if i % 2 else gc.relu(h)) == []
    assert layers(lambda i, h, x, old: h * (i + 1)) == []
    assert layers(lambda i, h, x, old: gc.tanh(h), "ABCDE") == []  # names of their own are not numbers
    # the fifth takes from the one before what the others take from x
    first, second = layers(lambda i, h, x, old: h + x if i < 4 else h + old, "0123456")
    assert (first.title[:15], second.title[:15]) == ("layer1 … layer3", "layer4 … layer6")
    (four,) = layers(lambda i, h, x, old: gc.tanh(h) if i < 4 else gc.relu(h))
    assert "× 4" in four.title


def test_scopes_with_other_names_and_readers_stay(compiled):
    assert [c.kind for c in picture(compiled("attention"), "forward").clusters] == ["scope"] * 4

    @gc.model
    def unequal(x: gc.f32["B", 8]):
        heads = [gc.nn.linear(x, 8, name=f"head{i}") for i in range(3)]
        return gc.outputs(y=heads[0] - heads[1] * heads[2])

    assert [c.kind for c in picture(gc.compile(unequal), "forward").clusters] == ["scope"] * 3


# -- joint -----------------------------------------------------------------------------------------------------------
def test_the_lecture_example(compiled):
    """L = c(a + 2b) at a=3, b=1, c=−2."""
    lines = texts(picture(compiled("computation_graph"), "joint", numbers=EXAMPLE), "wire")
    assert {"e = 5", "L = −10", "∂L/∂a = −2", "∂L/∂b = −4", "∂L/∂c = 5", "∂L/∂d = −2", "∂L/∂e = −2", "∂L/∂L = 1"} <= set(lines)
    assert {"∂d/∂b = 2", "∂e/∂a = 1", "∂L/∂c = e = 5", "∂L/∂e = c = −2"} <= set(lines)


def test_a_model_without_inputs_has_its_numbers():
    @gc.model
    def alone():
        return gc.outputs(loss=gc.param("a", (), 3.0) * gc.param("b", (), 2.0))

    assert {"L = 6", "∂L/∂a = 2", "∂L/∂b = 3"} <= set(texts(picture(gc.compile(alone), "joint"), "wire"))


def test_without_numbers_the_edges_carry_symbols(compiled):
    lines = set(texts(picture(compiled("xor"), "joint"), "wire"))
    assert {"∂L/∂W", "∂L/∂L = 1", "xᵀ δ, δ = ∂L/∂v₁", "∂h/∂v₂ = [h > 0]", "∂L/∂v₅ = 1/B", "(B, 16)"} <= lines


def test_outputs_on_the_way_to_the_loss_look_like_outputs(compiled):
    drawing = picture(compiled("xor"), "joint")
    assert [b.lines[0].text for b in drawing.boxes if b.kind == "output"] == ["y_hat = v₃ + b", "loss L"]
    assert ("output", "output") in drawing.legend

    @gc.model
    def unnamed(x: gc.f32["B"]):
        return gc.outputs(p=gc.tanh(x), aside=x + 1, loss=gc.mean(gc.tanh(x) ** 2))

    lines = texts(picture(gc.compile(unnamed), "joint"), "output")
    assert "p = tanh(x)" in lines and not any("aside" in t for t in lines)


def test_edges_of_a_value_with_several_readers_carry_parts_that_add_up():
    @gc.model
    def shared(x: gc.f32[()]):
        return gc.outputs(loss=x * x + 3 * x + x)

    drawing = picture(gc.compile(shared), "joint", numbers={"x": 2})
    assert "∂L/∂x = the sum of 3 edges" in texts(drawing, "input") and "8" in texts(drawing, "input")
    parts = [t for t in texts(drawing, "wire") if t.startswith("∂L/∂x (part)")]
    assert sorted(parts) == ["∂L/∂x (part) = 1", "∂L/∂x (part) = 3", "∂L/∂x (part) = 4"]
    assert "∂v₁/∂x = 2 · x = 4" in texts(drawing, "wire")


def test_gradients_equal_those_of_the_compiled_model(compiled):
    m = compiled("xor", hidden=2)
    rng = np.random.default_rng(0)
    given = {"x": rng.standard_normal((3, 2)), "y": rng.standard_normal((3, 1))}
    _, gradients = m.value_and_grad(**{k: v.astype(np.float32) for k, v in given.items()})
    drawing = picture(m, "joint", numbers=given)
    for wire in (b for b in drawing.boxes if b.kind == "wire"):
        first = wire.lines[0].text.split(" =")[0]
        at = [i for i, line in enumerate(wire.lines) if line.text.startswith("∂L/∂W")]
        if first == "W" and at:
            shown = [[float(v.replace("−", "-")) for v in line.text.strip("[]").split(", ")]
                     for line in wire.lines[at[0] + 1 :] if line.style == "gradient"]
            expected = gradients["hidden/W" if len(shown[0]) == 2 else "out/W"]
            np.testing.assert_allclose(shown, expected, rtol=1e-3)


def test_every_kind_of_operation_is_evaluated(compiled):
    """The values in a picture are those that the compiled model gives."""
    m = compiled("mixed")
    m.reset()
    rng = np.random.default_rng(1)
    given = {"words": rng.integers(0, 100, (2, 5)), "x": rng.standard_normal((2, 8)).astype(np.float32), "flag": np.array([True, False])}
    loss = m.forward(**given)["loss"]
    lines = texts(picture(m, "joint", numbers=given), "wire")
    assert f"L = {loss:.4g}".replace("-", "−") in lines
    assert any("…" in t for t in lines) and any(t.startswith("mean ") for t in lines)  # larger arrays: their range


@pytest.mark.parametrize("numbers, message", [
    ({"a": 1, "b": 2}, "no value is given for c"),
    ({"a": 1, "b": 2, "c": 3, "d": 4}, "no input, parameter or state 'd'"),
    ({"a": "x", "b": 2, "c": 3}, "is no array"),
    ({"a": [1, 2], "b": 2, "c": 3}, "has 1 axes"),
])
def test_wrong_numbers_are_named(compiled, numbers, message):
    with pytest.raises(InputError, match=message):
        picture(compiled("computation_graph"), "joint", numbers=numbers)


def test_sizes_that_must_agree_are_checked():
    @gc.model
    def two(x: gc.f32["A"], y: gc.f32["B"]):
        return gc.outputs(loss=gc.sum(x + y))

    with pytest.raises(InputError, match="do not broadcast"):
        picture(gc.compile(two), "joint", numbers={"x": [1, 2, 3], "y": [1, 2]})


def test_formulas_are_evaluated_within_their_guards():
    """out[p] += x[p - 1] where p - 1 ≥ 0, and 5 elsewhere."""
    x = Node("input", (), TensorType(f32, (size(4),)), name="x")
    shifted = affine(-1, {0: 1})
    clause = Clause((size(4),), (Read(0, (shifted,)),), sc.arg(0, f32), (affine(0, {0: 1}),), (shifted,))
    node = Node("formula", (x,), x.type, formula=Formula((clause,), "sum", sc.const(5, f32)), shape=x.shape)
    found = evaluate(Graph("g", (x,), {"y": node}), {"x": np.array([1, 2, 3, 4], np.float32)}, {})
    assert found[node].tolist() == [5, 6, 7, 8]


@pytest.mark.parametrize("view", ["joint", "backward"])
def test_without_a_loss_there_is_nothing_to_draw(view):
    @gc.model
    def plain(x: gc.f32["B"]):
        return gc.outputs(y=x + 1)

    with pytest.raises(InputError, match="no output named 'loss'"):
        picture(gc.compile(plain), view)


# -- backward and fused ----------------------------------------------------------------------------------------------
def test_backward_ties_adjoints_to_lines(compiled):
    drawing = picture(compiled("xor"), "backward")
    assert {"∂L/∂(hidden/W) = xᵀ δ₄", "gradient with respect to hidden/W", "δ₄ = δ₃ if h > 0 else 0"} <= set(texts(drawing))
    frames = {c.id: c.title for c in drawing.clusters if c.kind == "adjoint"}
    relu = next(b for b in drawing.boxes if b.lines[0].text == "δ₄ = δ₃ if h > 0 else 0")
    assert frames[relu.cluster].startswith("adjoint of h\nxor.py:") and "gc.relu(" in frames[relu.cluster]
    assert all(b.cluster in frames for b in drawing.boxes if b.kind == "adjoint")
    assert sum(t.startswith("gradient with respect to ") for t in texts(drawing, "result")) == 4


def test_fused_shows_what_runs(compiled):
    m = compiled("digits")
    drawing = picture(m, "fused")
    program = m.entries["digits"].program("gradient")
    steps = [b for b in drawing.boxes if b.kind in ("kernel", "product", "check")]
    assert len(steps) == len(program.instructions)
    assert {"(B × 64) · (64 × 128)", "einsum_1[i, j] = Σ_k pixels[i, k] · first_W[k, j]", "0 ≤ label < 10"} <= set(texts(drawing))
    shown = set(texts(drawing, "buffer"))
    assert {"einsum_1 (B, 128)", "einsum_1, written over (B, 128)", "512·B bytes"} <= shown
    assert len(picture(m, "fused", program="forward").boxes) < len(drawing.boxes)


def test_fused_names_the_buffers_of_each_step(compiled):
    """Equal layers share a kernel; each of its launches is written with names of its own."""
    drawing = picture(compiled("deep"), "fused", program="forward")
    lines = [" ".join(t for t in texts(drawing, "kernel") if f"layer{i}_b" in t) for i in range(12)]
    assert all(lines) and len(set(lines)) == 12


def test_direction_follows_the_length():
    line = Picture("t", boxes=[Box(str(i), "op", (Line("x"),)) for i in range(5)], edges=[Edge(str(i), str(i + 1)) for i in range(4)])
    assert line.depth() == 5
    assert replace(line, edges=line.edges[:2]).depth() == 3
