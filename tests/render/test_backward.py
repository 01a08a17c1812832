"""The view `backward`: its formulas, computed with NumPy from what the picture shows alone, give the gradients."""
from __future__ import annotations

import re

import numpy as np
import pytest

import graphc as gc
from graphc.render.numbers import evaluate
from graphc.render.unit_axes import with_unit_axes
from graphc.render.views import picture
from graphc.render.walk import reached
from tests.render import loops, models
from tests.render.drawings import box, texts

FUNCTIONS = {"ReLU": lambda x: np.maximum(x, 0), "exp": np.exp, "log": np.log, "tanh": np.tanh, "where": np.where, "stop": lambda x: x,
             "σ": lambda x: 1 / (1 + np.exp(-x))}
RAISED = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "0123456789-")


# -- a picture as a program --------------------------------------------------------------------------------------------
def transposed(x):
    """Of a vector a row, as in x yᵀ; the column is `column`."""
    return x[None, :] if x.ndim == 1 else np.swapaxes(x, -1, -2)


def product(x, y):
    """A vector before a row is a column."""
    return x[:, None] @ y if x.ndim == 1 and y.ndim == 2 and y.shape[0] == 1 and x.size != 1 else x @ y


def split(text, sign):
    """Parts of a text between signs that stand in no brackets."""
    parts, depth, start = [], 0, 0
    for at, c in enumerate(text):
        depth += (c in "([") - (c in ")]")
        if depth == 0 and text.startswith(sign, at) and at >= start:
            parts.append(text[start:at])
            start = at + len(sign)
    return [*parts, text[start:]]


def expression(text):
    """A formula as Python: `hᵀ δ₂` multiplies matrices, `a · b` elements."""
    chosen = re.fullmatch(r"(.*) if (.*) else (.*)", text)
    if chosen:
        then, condition, other = map(expression, chosen.groups())
        return f"where({condition}, {then}, {other})"
    for sign, python in ((" > ", ">"), (" < ", "<"), (" + ", "+"), (" − ", "-"), (" · ", "*"), (" / ", "/")):
        parts = split(text, sign)
        if len(parts) > 1:
            return "(" + f" {python} ".join(map(expression, parts)) + ")"
    if text.startswith("−"):
        return f"(-{expression(text[1:])})"
    parts = split(text, " ")
    if len(parts) > 1:
        first, *rest = map(expression, parts)
        for part in rest:
            first = f"product({first}, {part})"
        return first
    if text.startswith("|") and text.endswith("|"):
        return f"abs({expression(text[1:-1])})"
    if text == "∞":
        return "float('inf')"
    if text.endswith("ᵀ"):
        return f"transposed({expression(text[:-1])})"
    if text.endswith("²"):
        return f"({expression(text[:-1])})**2"
    part = re.fullmatch(r"(.*)\[([-−:, \d]*)\]", text)
    if part:  # the axis of what one is taken of stays, as its shape says
        taken = [t if ":" in t else f"{t}:{int(t) + 1}" for t in part[2].split(", ")]
        return f"{expression(part[1])}[{', '.join(taken)}]"
    called = re.fullmatch(r"(\w+)\((.*)\)", text)
    if called and called[1] in FUNCTIONS:
        return f"{called[1]}({expression(called[2])})"
    if text.startswith("(") and text.endswith(")"):
        return expression(text[1:-1])
    if "/" in text and re.fullmatch(r"[\d.]+/.*", text):
        above, below = text.split("/", 1)
        return f"({expression(above)} / {expression(below)})"
    if "·" in text and not text.startswith("(") and all(p for p in text.split("·")):
        return "(" + " * ".join(map(expression, text.split("·"))) + ")"
    if re.fullmatch(r"10[⁰¹²³⁴⁵⁶⁷⁸⁹⁻]+", text):
        return f"10.0 ** {text[2:].translate(RAISED)}"
    return text if re.fullmatch(r"[\d.]+", text) else f"v[{text!r}]"


def computed(drawing, given, sizes):
    """The values of the boxes by their titles: each from its own formula, and what its arrows bring, as they say it."""
    def extents(text):
        return tuple(int(eval(e.replace("·", "*"), {}, sizes)) for e in re.findall(r"[^(), ]+", text.split(")")[0]))

    boxes, values, names = {b.id: b for b in drawing.boxes}, {}, {}
    waiting = list(drawing.boxes)
    while waiting:
        ready = [b for b in waiting if all(e.tail in values for e in drawing.edges if e.head == b.id)]
        assert ready, [b.lines[0].text for b in waiting]
        for b in ready:
            waiting.remove(b)
            title, shape = b.lines[0].text, next(t for t in reversed([line.text for line in b.lines]))
            scope = b.cluster + "/" if b.cluster else ""
            if b.kind in ("input", "param"):
                name = scope + title if scope + title in given else title
                values[b.id], names[b.id] = np.asarray(given[name]), (title, name)
                continue
            name, formula = title.split(" = ", 1)
            names[b.id] = name, name
            own = {}
            for e in (e for e in drawing.edges if e.head == b.id):
                value = values[e.tail]
                said = re.compile(rf"(?:{'|'.join(map(re.escape, names[e.tail]))}) as (\(.*\)|scalar)")
                notes = [n for line in b.lines if (match := said.fullmatch(line.text)) for n in match[1].split(", then ")]
                for note in notes or [line.text[3:] for line in e.lines if line.text.startswith("as (")]:
                    wanted = () if note == "scalar" else extents(note)
                    value = value.reshape(wanted) if value.size == np.prod(wanted) else np.broadcast_to(value, wanted)
                own |= dict.fromkeys(names[e.tail], value)
            detail = next((line.text for line in b.lines if line.text.startswith("over ax")), "")
            reduced = re.match(r"(Σ|mean|max) (.*)", formula)
            source = expression(reduced[2] if reduced else formula)
            written = re.fullmatch(r"(?:\[(.*)\] = )?(\w+)\[(i[^\]]*)\]", formula)
            if written:
                value = scattered(written[1] or written[3], own[written[2]], written[3], extents(shape))
            else:
                value = np.asarray(eval(source, {**FUNCTIONS, "v": sizes | own, "transposed": transposed, "product": product}))
            if reduced:
                wanted = () if shape == "scalar" else extents(shape)
                axes = tuple(map(int, re.findall(r"\d+", detail))) or tuple(range(value.ndim - len(wanted)))
                value = {"Σ": np.sum, "mean": np.mean, "max": np.max}[reduced[1]](value, axis=axes)
            wanted = () if shape.startswith("scalar") else extents(shape)
            assert value.shape == wanted or (value.size == 1 == int(np.prod(wanted))), (title, shape, value.shape)
            values[b.id] = value.reshape(wanted)
    return {boxes[i].lines[0].text.split(" = ")[0]: v for i, v in values.items()}


def scattered(written, source, read, shape):
    """What `[i, j + 2] = x[i, j]` says: 0 elsewhere."""
    found = np.zeros(shape)
    for at in np.ndindex(source.shape):
        names = dict(zip(read.split(", "), at, strict=True))
        found[tuple(eval(index, {}, names) for index in written.split(", "))] = source[at]
    return found


# -- models whose values have axes of length 1 -------------------------------------------------------------------------
@gc.model
def column(x: gc.f32["B", 3], y: gc.f32["B", 1]):
    """A layer with one unit, after one of several."""
    h = gc.tanh(gc.nn.linear(x, 4, name="hidden"))
    y_hat = gc.nn.linear(h, 1, name="out")
    return gc.outputs(y_hat=y_hat, loss=gc.nn.mse(y_hat, y))


@gc.model
def narrow(x: gc.f32["B", 1], y: gc.f32["B", 3]):
    """One number in, one in the middle."""
    h = gc.tanh(gc.nn.linear(x, 1, name="first"))
    z = gc.nn.linear(h, 3, name="second")
    return gc.outputs(z=z, loss=gc.nn.mse(z, y))


@gc.model
def row(x: gc.f32[1, 4], y: gc.f32[1, 3]):
    """A batch of one."""
    z = gc.tanh(x @ gc.param("W", (4, 3))) @ gc.param("V", (3, 3))
    return gc.outputs(z=z, loss=gc.nn.mse(z, y))


@gc.model
def outer(x: gc.f32["B", 1]):
    """A column times a row, by matrices, and both learned."""
    z = gc.param("u", (5, 1)) @ gc.param("w", (1, 2))
    s = x @ gc.param("q", (1, 5))
    return gc.outputs(loss=gc.mean(gc.tanh(s @ z)))


@gc.model
def scalar_chain(x: gc.f32["B", 1], y: gc.f32["B", 1]):
    """Matrices of one element."""
    z = gc.tanh(x @ gc.param("a", (1, 1))) @ gc.param("b", (1, 1))
    return gc.outputs(z=z, loss=gc.nn.mse(z, y))


@gc.model
def turned(x: gc.f32["B", 3]):
    """A learned transpose."""
    z = x @ gc.transpose(gc.param("W", (1, 3)))
    return gc.outputs(loss=gc.mean(gc.tanh(z)))


@gc.model
def gated(x: gc.f32["B", "T", 3], y: gc.f32["B", "T", 1]):
    """Three axes, the last of length 1, broadcast over the features."""
    g = gc.sigmoid(gc.nn.linear(x, 1, name="gate"))
    z = gc.nn.linear(g * x, 1, name="out")
    return gc.outputs(z=z, loss=gc.nn.mse(z, y))


def random_model(seed):
    """A chain of layers, products with broadcasting, sums, and axes of length 1 that come, go and change places."""
    rng = np.random.default_rng(seed)
    kinds = ["layer", "scale", "norm", "turn", "tanh", "sum", "product", "outer"]
    steps = [(str(rng.choice(kinds)), int(rng.choice([1, 1, 2, 3]))) for _ in range(6)]

    @gc.model
    def chain(x: gc.f32["B", 3]):
        h, turned = x, False
        for k, (kind, n) in enumerate(steps):
            if kind in ("turn", "tanh"):
                h, turned = (gc.transpose(h), not turned) if kind == "turn" else (gc.tanh(h), turned)
                continue
            h, turned = gc.transpose(h) if turned else h, False
            if kind == "layer":
                h = gc.tanh(gc.nn.linear(h, n, name=f"layer{k}"))
            elif kind == "scale":
                h = h * gc.param(f"s{k}", (1,) if n == 1 else (h.shape[1],))
            elif kind == "norm":
                h = h - gc.sum(h * h, axis=1, keepdims=True)
            elif kind == "sum":
                h = gc.expand_dims(gc.sum(h, axis=1), 1) @ gc.param(f"r{k}", (1, n))
            elif kind == "product":
                h = h @ gc.transpose(gc.param(f"P{k}", (n, h.shape[1])))
            else:
                h = gc.expand_dims(h[:, 0], 1) * gc.param(f"o{k}", (n,))
        h = gc.transpose(h) if turned else h
        return gc.outputs(loss=gc.mean(gc.tanh(h @ gc.param("last", (h.shape[1], 1)))))

    return chain


SIZES = {"B": 5, "T": 4}
EXACT = [column, narrow, row, outer, scalar_chain, turned, gated, models.attention]


def random_values(m, rng):
    """Inputs and parameters by name."""
    found = {}
    for node in m.graph.nodes:
        if node.op in ("input", "param"):
            shape = tuple(e.evaluate(SIZES) for e in node.shape)
            if node.dtype.is_float:
                found[node.attr("name")] = rng.standard_normal(shape)
            else:  # the first of each is there, so that nothing is masked as a whole
                found[node.attr("name")] = (rng.random(shape) < 0.6) | (np.indices(shape)[-1] == 0)
    return found


@pytest.mark.parametrize("model", EXACT, ids=lambda m: m.name)
@pytest.mark.parametrize("seed", [0, 1])
def test_the_formulas_of_a_picture_give_the_gradients(model, seed):
    gives_the_gradients(model, seed)


@pytest.mark.parametrize("seed", range(40))
def test_the_formulas_of_random_models_give_the_gradients(seed):
    gives_the_gradients(random_model(seed), seed)


def gives_the_gradients(model, seed):
    """The reference is the slope of the loss between two points, in float64, without any derivative."""
    m = gc.compile(model)
    given = random_values(m, np.random.default_rng(seed))
    drawing = picture(m, "backward")
    found = computed(drawing, given, SIZES)
    loss = m.graph.select(["loss"], updates=False)

    def loss_of(values):
        return evaluate(double(loss), values, SIZES)[double(loss).outputs["loss"]].item()

    params = [n.attr("name") for n in loss.nodes if n.op == "param"]
    assert params
    for name in params:
        short = name.rsplit("/", 1)[-1]
        shown = found.get(f"∂L/∂({name})", found.get(f"∂L/∂{short}"))
        expected = np.zeros(given[name].shape)
        for at in np.ndindex(expected.shape):
            values = []
            for h in (1e-5, -1e-5):
                moved = given[name].copy()
                moved[at] += h
                values.append(loss_of({**given, name: moved}))
            expected[at] = (values[0] - values[1]) / 2e-5
        np.testing.assert_allclose(shown, expected, rtol=1e-3, atol=1e-6, err_msg=name)  # numbers have four digits


def double(graph):
    """The same graph over float64, so that differences are exact enough."""
    from graphc.graph.dtype import f64
    from graphc.graph.node import Constant, Node, TensorType

    def change(node, operands):
        kind = TensorType(f64 if node.dtype.is_float else node.dtype, node.shape)
        attrs = dict(node.attrs)
        if node.op == "const":
            attrs["value"] = Constant(node.attr("value").array.astype(kind.dtype.numpy))
        return Node(node.op, operands, kind, **attrs)

    return graph.rewrite(change)


# -- what stands in it ---------------------------------------------------------------------------------------------------
def test_products_are_written_as_they_can_be_multiplied():
    assert {"∂L/∂a = xᵀ δ₆", "∂L/∂b = v₂ᵀ δ₂"} <= set(texts(picture(gc.compile(scalar_chain), "backward")))
    lines = texts(picture(gc.compile("models/xor.py"), "backward"))
    assert {"∂L/∂(out/W) = hᵀ δ₂", "δ₃ = δ₂ Wᵀ", "∂L/∂(hidden/W) = xᵀ δ₄", "∂L/∂(out/b) = Σ δ₂"} <= set(lines)
    for file, products in (
        ("digits", {"∂L/∂(first/W) = pixelsᵀ δ₁₀", "∂L/∂(out/W) = h₂ᵀ δ₆", "δ₇ = δ₆ Wᵀ"}),
        ("mlp", {"∂L/∂(layer1/W) = xᵀ δ₁₀", "∂L/∂(layer3/W) = a₂ᵀ δ₆", "δ₇ = δ₆ Wᵀ"}),
    ):
        assert products <= set(texts(picture(gc.compile(f"models/{file}.py"), "backward")))


def test_the_step_of_a_loop():
    drawing = picture(gc.compile(loops.lstm_lm), "backward")
    lines = texts(drawing)
    assert sum(bool(re.fullmatch(r"δ\w+_\{t\} = h_\{t−1\}ᵀ δ\w+_\{t\}", t)) for t in lines) == 1
    assert sum(bool(re.fullmatch(r"δ\w+_\{t\} = δ\w+_\{t\} Uᵀ", t)) for t in lines) == 1
    # what a loop has summed up is told where it is wanted
    (result,) = [b for b in drawing.boxes if b.lines[0].text.startswith("∂L/∂(lstm/W) = δ")]
    assert result.kind == "result" and "_{t}" not in result.lines[0].text


def test_a_product_for_each_of_a_batch_is_no_product_of_matrices():
    @gc.model
    def rowwise(x: gc.f32["B", 4], y: gc.f32["B", 4]):
        return gc.outputs(s=gc.einsum("bi,bi->b", x, y), t=gc.einsum("bij,bi->bj", gc.reshape(x, (gc.dim("B"), 2, 2)), y[:, :2]))

    lines = texts(picture(gc.compile(rowwise), "forward"))
    assert "s = einsum(ab,ab → a; x, y)" in lines and "x y" not in " ".join(lines)
    assert any(t.startswith("t = einsum(abc,ab → ac;") for t in lines)

    @gc.model
    def diagonal(x: gc.f32[4, 4], y: gc.f32[4, 3]):
        return gc.outputs(d=gc.einsum("ii,ij->j", x, y))

    assert "d = einsum(aa,ab → b; x, y)" in texts(picture(gc.compile(diagonal), "forward"))


def test_axes_of_length_1_are_said_where_they_matter():
    drawing = picture(gc.compile(models.attention), "backward")
    (divided,), (forward,) = box(drawing, "δ₄ = δ₃ / v₉"), box(drawing, "weights = v₈ / v₉")
    assert [line.text for line in divided.lines[1:]] == ["v₉ as (B, T, 1)", "(B, T, T)"] == [line.text for line in forward.lines[1:]]
    (label,) = [b for b in picture(gc.compile("models/mlp.py"), "backward").boxes if "y[i, 0]" in b.lines[0].text]
    assert label.lines[1].text == "y as (B, 1)"


def test_a_loss_that_is_a_movement():
    @gc.model
    def moved(x: gc.f32["B", 3]):
        return gc.outputs(loss=gc.reshape(gc.param("w", (1, 3)) @ gc.transpose(gc.sum(x, axis=0, keepdims=True)), ()))

    results = texts(picture(gc.compile(moved), "backward"), "result")
    assert [t for t in results if t.startswith(("∂L/∂w", "gradient"))][1:] == ["gradient with respect to w"]
    assert not any("loss" in t for t in results)
    gives_the_gradients(moved, 0)


@pytest.mark.parametrize("view, word", [("backward", "gradient with respect to hidden/W"), ("fused", "gradient with respect to hidden/W")])
def test_gradients_are_with_respect_to(view, word):
    lines = texts(picture(gc.compile("models/xor.py"), view))
    assert word in lines and not any("gradient by" in t for t in lines)


# -- the rewriting -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("model", EXACT, ids=lambda m: m.name)
def test_the_rewritten_graph_has_the_same_values(model):
    from graphc.render.backward import differentiated

    m = gc.compile(model)
    graph = differentiated(m.graph, [n.attr("name") for n in m.graph.nodes if n.op == "param"])
    kept = reached(graph.outputs["loss"])
    rewritten, new = with_unit_axes(graph, kept)
    assert all(new[n] is n for n in kept)
    values = random_values(m, np.random.default_rng(3))
    before, after = evaluate(graph, values, SIZES), evaluate(rewritten, values, SIZES)
    for name, node in graph.outputs.items():
        assert after[rewritten.outputs[name]].shape == before[node].shape
        np.testing.assert_allclose(after[rewritten.outputs[name]], before[node], rtol=2e-5, atol=1e-6, err_msg=name)
