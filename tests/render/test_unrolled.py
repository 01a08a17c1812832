"""Loops unrolled in time: what the grid shows, that it is one, and the gradient's way back through it."""
from __future__ import annotations

import itertools
import re
from pathlib import Path

import numpy as np
import pytest

import graphc as gc
from graphc.cli import main
from graphc.errors import InputError
from graphc.ops.scan import Scan
from graphc.render.cell import Cell
from graphc.render.dot import to_dot
from graphc.render.draw import drawn
from graphc.render.inlined import inlined
from graphc.render.jacobian import Jacobians
from graphc.render.metrics import extent_of
from graphc.render.names import names_of
from graphc.render.notation import Printer
from graphc.render.numbers import evaluate
from graphc.render.outline import base
from graphc.render.picture import Line
from graphc.render.style import TEXT, WEIGHTS
from graphc.render.timeline import Timeline, along
from graphc.render.unrolled import Unroll, unrolled
from graphc.render.views import VIEWS, picture
from tests.render import loops, models
from tests.render.drawings import box, needs_dot, texts
from tests.render.layout import faults, layout

NAMES = ["rnn", "lstm_lm", "stacked", "tagger", "seq2seq", "attentive", "ragged", "words_in_sentences", "powers", "shifted",
         "joined", "told_before"]
WAYS = [Unroll(), Unroll(2, 0), Unroll(5, 2), Unroll(backward=True), Unroll(4, 2, True)]


@pytest.fixture(scope="module")
def graph():
    """Traced graphs of the models in `loops`, by name."""
    made = {}

    def get(name):
        if name not in made:
            made[name] = gc.compile(getattr(loops, name)).graph
        return made[name]

    return get


def steps_of(drawing, way="unrolled"):
    """unit → column → box, of the boxes on the grid."""
    found = {}
    for b in drawing.boxes:
        if (match := re.fullmatch(r"(u\d+)\.(\d+)", b.id)) and b.cluster == way:
            found.setdefault(match[1], {})[match[2]] = b
    return found


# -- layout ----------------------------------------------------------------------------------------------------------
@needs_dot
@pytest.mark.parametrize("how", WAYS, ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_nothing_overlaps_and_text_fits(graph, name, how):
    assert faults(layout(to_dot(unrolled(graph(name), how)))) == []


@needs_dot
@pytest.mark.parametrize("view", [v for v in VIEWS if v not in ("unrolled", "fused")])
@pytest.mark.parametrize("name", NAMES)
def test_nothing_overlaps_in_the_other_views(name, view):
    assert faults(layout(to_dot(picture(gc.compile(getattr(loops, name)), view)))) == []


@pytest.mark.parametrize("how", WAYS, ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_it_is_a_grid(graph, name, how):
    """The same step has the same x in every row of a block, a unit the same y at every step; arrows are straight."""
    drawing = unrolled(graph(name), how)
    x = {}
    block = {f"u{n}": u.block for n, u in enumerate(Timeline(graph(name), names_of(graph(name))).units)}
    for unit, boxes in steps_of(drawing).items():
        assert len({b.place.y for b in boxes.values()}) == 1
        for column, b in boxes.items():
            assert x.setdefault((block[unit], column), b.place.x) == b.place.x
    for edge in drawing.edges:
        assert all(a[0] == b[0] or a[1] == b[1] for a, b in zip(edge.route, edge.route[1:]))


@needs_dot
def test_boxes_are_as_wide_as_graphviz_makes_them(graph):
    """Graphviz widens a box whose text is wider than was thought; then arrows would end inside of it."""
    drawing = unrolled(graph("lstm_lm"), Unroll(4, 2))
    width = {b.id: b.place.width for b in drawing.boxes if b.place and b.kind != "note"}
    for o in layout(to_dot(drawing))["objects"]:
        if o["name"] in width:
            assert float(o["width"]) * 72 <= width[o["name"]] + 1.5, o["name"]


def test_widths_are_measured_with_their_subscripts():
    plain, lowered = (extent_of([Line(t)])[0] for t in ("h_{t−1}", "h"))
    assert lowered < plain < extent_of([Line("ht−1 ")])[0] * 1.3
    assert extent_of([Line("x", "title"), Line("y", "small")])[1] == 1.25 * (TEXT["title"].points + TEXT["small"].points)


@needs_dot
@pytest.mark.parametrize("format, head", [("svg", b"<?xml"), ("png", b"\x89PNG"), ("pdf", b"%PDF"), ("html", b"<!DOCTYPE")])
def test_formats(graph, format, head):
    assert drawn(unrolled(graph("rnn"), Unroll()), format).startswith(head)


def test_dot_is_the_same_every_time():
    first, again = (to_dot(unrolled(gc.compile(loops.tagger).graph, Unroll(backward=True))) for _ in range(2))
    assert first == again


# -- what is shown ---------------------------------------------------------------------------------------------------
def test_steps_with_the_middle_left_out(graph):
    drawing = unrolled(graph("rnn"), Unroll(4))
    assert [t for t in texts(drawing, "note") if t.startswith("t = ")] == ["t = 1", "t = 2", "t = 3", "t = T"]
    assert texts(drawing, "loop") == ["h_{t} = tanh(x_{t} W + h_{t−1} U + b)", "h_{1}", "h_{2}", "h_{3}", "h_{T}"]
    assert texts(drawing, "note").count("…") == 2  # in the row of the steps, and below
    assert "h_{0} = 0" in texts(drawing, "const")
    assert "loss = mean mse_{1…T}" in texts(drawing, "output")


def test_a_short_loop_is_drawn_whole(graph):
    drawing = unrolled(graph("powers"), Unroll(5))
    assert [t for t in texts(drawing, "note") if t.startswith("t = ")] == ["t = 1", "t = 2", "t = 3"]
    assert "…" not in texts(drawing, "note") and "h_{0} = h0" in texts(drawing, "input")


def test_dot_of_a_small_model(graph):
    text = to_dot(unrolled(graph("powers"), Unroll()))
    assert text.startswith('digraph "powers, unrolled in time" {\n  graph [layout=nop2')
    small = '<SUB><FONT POINT-SIZE="9">{}</FONT></SUB>'
    for step in "123":
        assert f"<B>h{small.format(step)}</B>" in text
    assert '"u2.0" -> "u2.1" [color="#0072B2", dir=forward, style=solid, penwidth=1.8, pos="e,' in text or re.search(
        r'"(u\d)\.0" -> "\1\.1" \[color="#0072B2", dir=forward, style=solid, penwidth=1\.8, pos="e,', text
    )


def test_one_colour_is_one_weight(graph):
    drawing = unrolled(graph("tagger"), Unroll())
    kinds = {e.kind for e in drawing.edges if e.kind.startswith("weight")}
    assert kinds == {"weight0", "weight1", "weight2", "weight3"}  # W and U of two directions
    listed = {line.style: line.text for line in box(drawing, "W (10, 17)")[0].lines if line.style != "weight"}
    assert listed["weight0"] == "W (8, 5)" and listed["weight3"] == "U (5, 5)"
    # named once, beside the general step
    assert [t for t in texts(drawing, "note") if t in ("W", "U")] == ["W", "W", "U", "U"]


def linear_light(colour):
    c = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)


# who lacks the cones for long or for middle waves, after Machado, Oliveira and Fernandes 2009
SIGHT = {"all": np.eye(3),
         "no long": np.array([[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]),
         "no middle": np.array([[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]])}


@pytest.mark.parametrize("sight, least", [("all", 0.15), ("no long", 0.08), ("no middle", 0.08)])
def test_colours_of_weights_are_far_from_each_other(sight, least):
    """Distances in OKLab (Ottosson 2020), where 0.02 is just seen; text on white needs a contrast of 4.5."""
    cones = np.array([[0.4122214708, 0.5363325363, 0.0514459929], [0.2119034982, 0.6806995451, 0.1073969566], [0.0883024619, 0.2817188376, 0.6299787005]])
    lab = np.array([[0.2104542553, 0.793617785, -0.0040720468], [1.9779984951, -2.428592205, 0.4505937099], [0.0259040371, 0.7827717662, -0.808675766]])

    def seen(colour):
        return lab @ np.cbrt(cones @ np.clip(SIGHT[sight] @ linear_light(colour), 0, 1))

    for a, b in itertools.combinations(WEIGHTS, 2):
        assert np.linalg.norm(seen(a) - seen(b)) >= least, (a, b)
    assert all(1.05 / (linear_light(c) @ [0.2126, 0.7152, 0.0722] + 0.05) >= 4.5 for c in WEIGHTS)
    assert np.linalg.norm(seen("#0072B2") - seen("#1F7FB5")) < 0.05  # two blues: what this is to find


def test_no_two_weights_share_a_colour():
    @gc.model
    def many(x: gc.f32["B", "T", 3]):
        h = x
        for i in range(6):
            h = gc.nn.rnn(h, 3, name=f"layer{i}")[0]
        return gc.outputs(h=h)

    drawing = unrolled(gc.compile(many).graph, Unroll())
    (weights,) = [b for b in drawing.boxes if b.kind == "param"]
    styles = [line.style for line in weights.lines if line.style.startswith("weight")]
    coloured = [s for s in styles if s != "weight"]
    assert len(styles) > len(WEIGHTS) == len(coloured) == len(set(coloured))


def test_an_arrow_into_the_same_step_goes_from_the_step_before(graph):
    lines = set(texts(unrolled(graph("tagger"), Unroll()), "note"))
    assert {"h⁽¹⁾_{t−1} → h⁽¹⁾_{t}", "h⁽²⁾_{t+1} → h⁽²⁾_{t}"} <= lines
    back = set(texts(unrolled(graph("tagger"), Unroll(backward=True)), "note"))
    assert {"∂L/∂h⁽¹⁾_{t} → ∂L/∂h⁽¹⁾_{t−1}", "∂L/∂h⁽²⁾_{t} → ∂L/∂h⁽²⁾_{t+1}"} <= back


def test_two_directions_run_against_each_other(graph):
    drawing = unrolled(graph("tagger"), Unroll())
    start = box(drawing, "h⁽²⁾_{T+1} = 0")[0]
    assert start.place.x > max(b.place.x for b in box(drawing, "h⁽²⁾_{T}"))
    right, left = (
        {(e.route[0][0] < e.route[-1][0]) for e in drawing.edges if e.kind == kind and len(e.route) == 2 and e.route[0][1] == e.route[1][1]}
        for kind in ("weight1", "weight3")
    )
    assert (right, left) == ({True}, {False})
    assert "both_{t} = [h⁽¹⁾_{t}; h⁽²⁾_{t}]" in texts(drawing)


def test_the_decoder_begins_with_what_the_encoder_ends_with(graph):
    drawing = unrolled(graph("seq2seq"), Unroll())
    (last,), (first,) = box(drawing, "h⁽¹⁾_{S}"), box(drawing, "h⁽²⁾_{1}")
    assert any((e.tail, e.head) == (last.id, first.id) for e in drawing.edges) and last.place.x < first.place.x
    assert last.place.y == first.place.y


def test_a_decoder_that_reads_all_states(graph):
    drawing = unrolled(graph("attentive"), Unroll())
    (memory,) = box(drawing, "h_{1…S}")
    assert len([e for e in drawing.edges if e.tail == memory.id and e.kind == "given"]) == 3
    assert len([e for e in drawing.edges if e.head == memory.id]) == 3


def test_the_last_state_is_read_from_the_last_column(graph):
    drawing = unrolled(graph("stacked"), Unroll())
    (logits,), (last,) = box(drawing, "logits = h⁽²⁾_{T} W + b"), box(drawing, "h⁽²⁾_{T}")
    assert any((e.tail, e.head) == (last.id, logits.id) for e in drawing.edges) and logits.place.x == last.place.x


def test_lengths_of_sequences(graph):
    lines = texts(unrolled(graph("ragged"), Unroll()))
    assert {"active_{t} = t ≤ n", "beyond its end: as before", "pooled = max h_{1…T}", "last = h_{T}"} <= set(lines)


def test_a_loop_inside_a_step_is_told_in_it(graph):
    (cell,) = box(unrolled(graph("words_in_sentences"), Unroll()), "s_{t} = tanh(s_{t−1} + w_{T})")
    assert [line.text for line in cell.lines][:2] == ["for u = 1, …, T, from w_{0} = 0:", "    w_{u} = tanh(w_{u−1} · v + x_{u})"]


def test_parts_of_one_input_keep_their_places(graph):
    lines = set(texts(unrolled(graph("shifted"), Unroll()), "input"))
    assert {"text_{1}", "text_{2}", "text_{3}", "text_{L−1}", "text_{L}", "text_{t}", "text_{t+1}"} == {t for t in lines if "_" in t}


def test_detail(graph):
    gates = {"f_{2} = σ(z_{2}[:, :16])", "c_{2} = f_{2} · c_{1} + i_{2} · g_{2}", "h_{2} = o_{2} · tanh(c_{2})"}
    none, some, all = (set(texts(unrolled(graph("lstm_lm"), Unroll(3, d)))) for d in (0, 1, 2))
    assert gates <= all and not gates & some
    assert "c_{t} = f_{t} · c_{t−1} + i_{t} · g_{t}" in some and not any("tanh" in t for t in none)


def test_what_is_step_by_step_is_read_from_formulas():
    @gc.model
    def several(x: gc.f32["B", "T", 4]):
        flat = gc.reshape(x, (gc.dim("B"), gc.dim("T"), 2, 2))
        turned = gc.transpose(flat, (1, 0, 3, 2))
        return gc.outputs(turned=turned, run=x[:, ::-1], total=gc.sum(x, axis=1), each=gc.sum(x, axis=2))

    g = gc.compile(several).graph
    node = g.outputs
    assert along(node["turned"], 0) == {0: 1} and along(node["turned"].operands[0], 1) == {0: 1}
    assert along(node["run"], 1) is None and along(node["total"], 1) == {0: 2} and along(node["each"], 1) == {0: 1}


# -- the gradient ----------------------------------------------------------------------------------------------------
def test_the_gradient_goes_back_through_time(graph):
    drawing = unrolled(graph("rnn"), Unroll(backward=True))
    lines = set(texts(drawing))
    assert {"∂h_{2}/∂h_{1}", "= diag(1 − h_{2}²) Uᵀ", "= diag(1 − h_{T}²) Uᵀ", "∂L/∂h_{2}", "∂y_hat_{t}/∂h_{t} = Wᵀ",
            "∂L/∂h_{t} = ∂L/∂y_hat_{t} ∂y_hat_{t}/∂h_{t} + ∂L/∂h_{t+1} ∂h_{t+1}/∂h_{t}",
            "∂mse_{t}/∂y_hat_{t} = 2 diag(y_hat_{t} − y_{t})"} <= lines
    (first,), (second,) = box(drawing, "h_{1}"), box(drawing, "h_{2}")
    assert [e.kind for e in drawing.edges if (e.tail, e.head) == (second.id, first.id)] == ["gradient"]
    # no gradient is wanted of an input, nor of what begins as a number
    assert {e.kind for e in drawing.edges if e.tail in {b.id for b in drawing.boxes if b.kind in ("input", "const")}} == {"pale"}


def test_the_gradient_of_a_memory_and_of_a_last_state(graph):
    lines = texts(unrolled(graph("attentive"), Unroll(backward=True)))
    assert "∂L/∂h_{t} = Σ_{u} ∂L/∂s_{u} ∂s_{u}/∂h_{t} + ∂L/∂h_{t+1} ∂h_{t+1}/∂h_{t}" in lines
    assert "∂L/∂h_{S} = ∂L/∂s_{1} ∂s_{1}/∂h_{S}" in lines
    assert "∂L/∂h⁽²⁾_{T} = ∂L/∂logits ∂logits/∂h⁽²⁾_{T}" in texts(unrolled(graph("stacked"), Unroll(backward=True)))
    back = texts(unrolled(graph("tagger"), Unroll(backward=True)))
    assert any(t.endswith("∂L/∂h⁽²⁾_{t−1} ∂h⁽²⁾_{t−1}/∂h⁽²⁾_{t}") for t in back)


def number(text, values):
    """A Jacobian as it is written, as a matrix."""
    def split(whole, sign):
        parts, depth, start = [], 0, 0
        for at, c in enumerate(whole):
            depth += (c in "([{") - (c in ")]}")
            if depth == 0 and whole.startswith(sign, at):
                parts.append(whole[start:at])
                start = at + len(sign)
        return [*parts, whole[start:]]

    def factor(f):
        f = re.sub(r"\w+_\{[^}]*\}", lambda m: f"v[{m[0]!r}]", f)
        f = f.replace(" · ", " * ").replace("−", "-").replace("²", "**2").replace("ᵀ", ".T")
        return eval(f, {"v": values, "diag": np.diag, "tanh": np.tanh, **{k: v for k, v in values.items() if k.isalpha()}})

    total = 0
    for term in split(text, " + "):
        matrices = [factor(f) for f in split(term, " ")]
        total = total + (np.linalg.multi_dot(matrices) if len(matrices) > 1 else matrices[0])
    return total


@pytest.mark.parametrize("name", ["rnn", "lstm_lm", "powers", "ragged", "joined"])
def test_jacobians_equal_differences(graph, name):
    g = graph(name)
    (loop,) = [n for n in g.nodes if n.op == "scan"]
    scan, known = Scan.of(loop), names_of(g)
    names = {o: known.get(base(o), "x").rsplit("/", 1)[-1] for o in scan.operands}
    cell = Cell(g, loop, known, [names[x] for x in scan.xs], names)
    body, rng = scan.body, np.random.default_rng(0)
    sizes = {"B": 1, "T": 1}
    inputs = {n.attr("name"): (rng.standard_normal([e.evaluate(sizes) for e in n.shape]) / 2 if n.dtype.is_float
                               else np.ones([e.evaluate(sizes) for e in n.shape], bool)) for n in body.inputs}
    step = body.graph("step")

    def run(changed):
        found = evaluate(step, {**inputs, **changed}, sizes)
        return {n: np.asarray(v, np.float64) for n, v in found.items()}

    values = {}
    for node, text in cell.names_at("t").items():
        found = run({})
        if node in found and node.dtype.is_float:
            values[text.replace("−", "-")] = found[node] if text.isalpha() else found[node].reshape(-1)
    printed = Jacobians(Printer(cell.outline, lambda n, r: cell.names_at("t")[n]), cell.held)
    for y in body.new_carries:
        for x in (*body.carries, *(e for e in body.elements if e.dtype.is_float)):
            flat = inputs[x.attr("name")]
            columns, h = [], 1e-2
            for j in range(flat.size):
                shift = np.zeros(flat.size)
                shift[j] = h
                up, down = (run({x.attr("name"): flat + s * shift.reshape(flat.shape)})[y].reshape(-1) for s in (1, -1))
                columns.append((up - down) / (2 * h))
            np.testing.assert_allclose(number(printed.text(y, x), values), np.array(columns).T, rtol=0, atol=2e-4)


# -- the other views -------------------------------------------------------------------------------------------------
def test_forward_draws_a_step_once_in_a_frame():
    drawing = picture(gc.compile(loops.lstm_lm), "forward")
    assert [c.title for c in drawing.clusters if c.kind == "repeat"] == ["a loop: once for each t = 1, …, T"]
    lines = texts(drawing)
    assert {"h_{t−1}", "c_{t−1}", "e_{t}", "at first 0", "logits = h W + b"} <= set(lines)
    assert sum(t.startswith("h_{t} = o_{t} · ") for t in lines) == 1
    assert [e.lines[0].text for e in drawing.edges if e.kind == "again"] == ["next step"] * 2
    assert "of all steps" in {n.text for e in drawing.edges for n in e.lines}


def test_a_state_that_a_loop_begins_with_is_its_0th():
    """models/lstm_lm.py calls its states h and c, as the layer calls what its steps make of them."""
    lines = texts(picture(gc.compile("models/lstm_lm.py"), "forward"))
    assert {"h₀", "c₀", "h_{t−1}", "c_{t−1}", "at first h₀", "at first c₀"} <= set(lines)
    assert not any("h₁" in t or "c₁" in t for t in lines)

    @gc.model
    def other(x: gc.f32["B", 4]):
        """A state of the same name as a value that no loop makes stays as it is."""
        h = gc.tanh(gc.state("h", (4,)) + x)
        return gc.outputs(y=h)

    assert "h" in texts(picture(gc.compile(other), "forward"), "state")


def test_frames_of_nested_loops():
    drawing = picture(gc.compile(loops.words_in_sentences), "forward")
    outer, inner = [c for c in drawing.clusters if c.kind == "repeat"]
    assert (outer.title, inner.title) == ("a loop: once for each t = 1, …, S", "a loop: once for each u = 1, …, T")
    assert inner.parent == outer.id and "x_{u}" in texts(drawing) and "w_{u−1}" in texts(drawing)


def test_backward_draws_the_loop_back_through_time():
    drawing = picture(gc.compile(loops.rnn), "backward")
    titles = [c.title for c in drawing.clusters if c.kind == "repeat"]
    assert titles == ["a loop: once for each t = 1, …, T", "a loop: once for each t = T, …, 1"]
    assert sum(t.startswith("h_{t} = tanh(") for t in texts(drawing)) == 1  # the loop and its residuals are one


def test_joint_shows_numbers_of_loops():
    drawing = picture(gc.compile(loops.powers), "joint", numbers={"h0": [1, 2, 3], "W": np.eye(3) * 2})
    lines = texts(drawing)
    assert {"h = [8, 16, 24]", "∂L/∂h = [16, 32, 48]", "∂L/∂h0 = [128, 256, 384]", "L = 896"} <= set(lines)
    assert "a loop: once for each t = 1, …, 3" in lines and "h_{t} = h_{t−1} W" in lines


@pytest.mark.parametrize("reverse", [False, True])
def test_loops_are_evaluated_as_they_run(reverse):
    @gc.model
    def run(x: gc.f32["T"]):
        last, ys = gc.scan(lambda c, v: (c * 2 + v, c - v), init=1.0, xs=x, reverse=reverse)
        return gc.outputs(last=last, ys=ys)

    m = gc.compile(run)
    x = np.array([1, -2, 5, 0.5], np.float32)
    expected, found = m.forward(x=x), evaluate(m.graph, {"x": x}, {"T": 4})
    for name in ("last", "ys"):
        np.testing.assert_allclose(found[m.graph.outputs[name]], expected[name])


def test_a_graph_without_loops_is_left_alone():
    g = gc.compile(models.attention).graph
    assert inlined(g, {}).graph is g


# -- what is wrong ---------------------------------------------------------------------------------------------------
def test_a_model_without_a_loop():
    with pytest.raises(InputError, match=r"model deep has no gc\.scan, so there is nothing to unroll") as caught:
        unrolled(gc.compile(models.deep).graph, Unroll())
    assert caught.value.how == "use --view forward"


def test_too_few_steps(graph):
    for steps in (1, 0, -3):
        with pytest.raises(InputError, match=f"--steps {steps} is too few: the first step and the last are always drawn"):
            unrolled(graph("rnn"), Unroll(steps))


def test_an_unknown_detail(graph):
    with pytest.raises(InputError, match="--detail 3 is none of 0, 1, 2"):
        unrolled(graph("rnn"), Unroll(3, 3))


def test_no_gradient_without_a_loss():
    @gc.model
    def plain(x: gc.f32["T"]):
        _, s = gc.scan(lambda c, v: (c + v, c), init=0.0, xs=x)
        return gc.outputs(s=s)

    g = gc.compile(plain).graph
    assert unrolled(g, Unroll()).boxes
    with pytest.raises(InputError, match="no output named 'loss', so no gradient goes back through time"):
        unrolled(g, Unroll(backward=True))


def test_the_command(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "loops.py").write_text(Path(loops.__file__).read_text())
    command = ["render", "loops.py", "--model", "rnn"]
    assert main([*command, "--view", "unrolled", "--steps", "4", "--detail", "2", "--backward", "-o", "r.dot"]) == 0
    assert "the gradient back through time" in (tmp_path / "r.dot").read_text()
    assert main([*command, "--steps", "4"]) == 2
    assert "--steps, --detail and --backward are for --view unrolled" in capsys.readouterr().err
    assert main([*command, "--view", "unrolled", "--steps", "1"]) == 2
    assert "--steps 1 is too few" in capsys.readouterr().err
