"""`graphc explain`: what is written, in four formats, and what is refused."""
import re
import subprocess
import sys
import xml.etree.ElementTree as ET

import pytest

LOGISTIC = '''
import graphc as gc

@gc.model
def logistic(x: gc.f32["B", 3], y: gc.f32["B"]):
    w, b = gc.param("w", (3,)), gc.param("b", ())
    p = gc.sigmoid(x @ w + b)
    return gc.outputs(p=p, loss=-gc.mean(y * gc.log(p) + (1 - y) * gc.log(1 - p)))
'''
NETWORK = '''
import graphc as gc

@gc.model
def network(ids: gc.i64["B", 2], labels: gc.i64["B"], *, hidden: int = 4):
    E, spare = gc.param("E", (7, 3)), gc.param("my_spare#1", (2,))
    e = gc.reshape(gc.take(E, ids, axis=0), (gc.dim("B"), 6))
    h = gc.relu(gc.nn.linear(e, hidden, name="hidden"))
    return gc.outputs(loss=gc.nn.cross_entropy(gc.nn.linear(h, 7, name="out"), labels), unused=gc.sum(spare))
'''


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("explain")
    (folder / "logistic.py").write_text(LOGISTIC)
    (folder / "network.py").write_text(NETWORK)
    return folder


def explain(folder, *arguments):
    command = [sys.executable, "-m", "graphc", "explain", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=120)


def written(folder, *arguments):
    done = explain(folder, *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_logistic_regression_comes_to_what_every_book_has(folder):
    text = written(folder, "logistic.py", "--wrt", "w")
    assert "∂L/∂wⱼ = (1/B) Σᵢ (pᵢ − yᵢ) xᵢⱼ" in text
    assert "∂L/∂w = xᵀ δ^z = (1/B) xᵀ (p − y)" in text
    assert "∂L/∂w = (1/B) Σᵢ (σ(xᵢ·w + b) − yᵢ) xᵢ" in text
    # simplified, and from what
    assert "δᵢ^p pᵢ (1 − pᵢ)" in text and "which simplifies to" in text and "δᵢ^z = (pᵢ − yᵢ)/B" in text
    assert "r = σ(t) has dr/dt = r (1 − r)" in text
    assert "∂L/∂b" not in text
    # what the compiler does instead
    assert "log σ(x) = -softplus(-x)" in text and "1 - σ(x) cancels" in text


def test_every_step_names_its_line_and_every_symbol_its_shape(folder):
    text = written(folder, "logistic.py")
    steps = re.split(r"\n(?=Step \d+: |\(\d+\) |w: |b: )", text)[1:]
    assert len(steps) > 15
    for step in steps[:-1]:
        assert "logistic.py:" in step or step.startswith("Step 11")
    display = [p for p in text.split("\n\n") if p.startswith("with ") or "In matrix form" in p]
    assert all("∈ ℝ" in p for p in display)
    for shape in ("x ∈ ℝ^(B×3)", "w ∈ ℝ³", "b ∈ ℝ", "z ∈ ℝ^B", "δ^z ∈ ℝ^B", "∂L/∂w ∈ ℝ³"):
        assert shape in text


def test_conventions_look_ups_and_the_softmax(folder):
    text = written(folder, "network.py")
    assert "ReLU′(0) = 0" in text
    assert "look-up → scatter" in text and "[idsⱼₗ = i]" in text
    assert re.search(r"\(pᵢ(\w) − \[labelsᵢ = \w\]\)/B", text) and "is the softmax" in text and "onehot(labels)" in text
    assert "broadcasting → sum" in text and "reshape → the same elements" in text
    assert "my_spare#1" in text and "so its gradient is 0" in text
    assert "ids ∈ ℤ^(B×2)" in text


def test_hyperparameters_are_set(folder):
    assert "W^hidden ∈ ℝ^(6×9)" in written(folder, "network.py", "--set", "hidden=9", "--wrt", "hidden/W")


def test_markdown(folder):
    text = written(folder, "network.py", "--format", "md")
    assert text.startswith("# ") and r"\frac{\partial L}{\partial W_{" in text and "`network.py:" in text
    assert text.count("$$") % 2 == 0
    outside = re.sub(r"\$\$.*?\$\$|\$[^$\n]*\$|`[^`]*`", "", text, flags=re.S)
    assert "$" not in outside.replace("\\$", "") and "\\frac" not in outside
    balanced(text)


def balanced(text):
    depth = 0
    for brace in re.findall(r"(?<!\\)[{}]", text):
        depth += 1 if brace == "{" else -1
        assert depth >= 0
    assert depth == 0
    stack = []
    for kind, name in re.findall(r"\\(begin|end)\{(\w+\*?)\}", text):
        if kind == "begin":
            stack.append(name)
        else:
            assert stack.pop() == name
    assert not stack
    assert len(re.findall(r"\\left(?![a-z])", text)) == len(re.findall(r"\\right(?![a-z])", text))


def test_tex_stands_alone(folder):
    text = written(folder, "network.py", "--format", "tex")
    assert text.startswith(r"\documentclass") and r"\usepackage{amsmath" in text and r"\end{document}" in text
    balanced(text)
    assert text.count(r"\[") == text.count(r"\]") and text.count(r"\(") == text.count(r"\)")
    assert not [c for c in text if ord(c) > 0xFF], "signs that pdflatex does not know"
    assert r"my\_spare\#1" in text


@pytest.mark.parametrize("model", ["logistic.py", "network.py"])
def test_html_is_well_formed_and_needs_no_network(folder, model):
    written(folder, model, "-o", "page.html")
    text = (folder / "page.html").read_text()
    assert not re.search(r"https?:|src=|href=|@import|url\(", text)
    page = ET.fromstring(text.replace("<!DOCTYPE html>\n", ""))
    maths = list(page.iter("math"))
    assert len(maths) > 50 and all(len(m) for m in maths)
    count = {"msub": 2, "msup": 2, "mfrac": 2, "munder": 2, "mover": 2, "msubsup": 3}
    for tag, children in count.items():
        assert all(len(e) == children for e in page.iter(tag))


def test_the_format_follows_the_name(folder):
    for ending, sign in (("md", "$$"), ("html", "<math"), ("tex", r"\documentclass"), ("txt", "∂L/∂w")):
        written(folder, "logistic.py", "-o", f"out.{ending}")
        assert sign in (folder / f"out.{ending}").read_text()
    done = explain(folder, "logistic.py", "-o", "out.doc")
    assert done.returncode == 2 and ".html" in done.stderr


def test_an_unknown_name_is_an_error_that_names_the_near_one(folder):
    done = explain(folder, "network.py", "--wrt", "hiden/W")
    assert done.returncode == 2 and "'hidden/W'" in done.stderr and "Traceback" not in done.stderr


def test_a_model_without_a_loss(folder):
    head = 'import graphc as gc\n\n@gc.model\ndef f(x: gc.f32["N"]):\n    y = gc.tanh(x)\n'
    (folder / "slopes.py").write_text(head + "    return gc.outputs(y=y, slope=gc.grad(gc.sum(y), x))\n")
    text = written(folder, "slopes.py")
    assert "slope is a derivative of" in text and "∂L/∂xᵢ" in text and "1 − yᵢ²" in text
    (folder / "nothing.py").write_text(head + "    return gc.outputs(y=y)\n")
    done = explain(folder, "nothing.py")
    assert done.returncode == 2 and "loss" in done.stderr


def test_a_deep_model_with_values_that_are_used_twice_in_every_layer_is_quick(folder):
    (folder / "deep.py").write_text(
        'import graphc as gc\n\n@gc.model\ndef deep(x: gc.f32["B", 4]):\n    h = x * gc.param("w", (4,))\n'
        "    for _ in range(12):\n        h = (h + h * h) / (1 + h * h)\n    return gc.outputs(loss=gc.sum(h))\n"
    )
    assert "∂L/∂w" in written(folder, "deep.py")
