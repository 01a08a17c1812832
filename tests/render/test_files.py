"""Pictures as files, from the command line, and in notebooks; with Graphviz's program and without it."""
from __future__ import annotations

import shutil

import graphviz
import pytest

import graphc as gc
from graphc.cli import main
from tests.render import models

needs_dot = pytest.mark.skipif(not shutil.which("dot"), reason="Graphviz's program dot is not installed")
MODEL = '''import graphc as gc

@gc.model
def example(a: gc.f32[()], b: gc.f32[()]):
    return gc.outputs(loss=a * gc.param("w", (), 2.0) + b)

@gc.model
def other(a: gc.f32["B"]):
    return gc.outputs(y=a + 1)
'''


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "example.py").write_text(MODEL)
    return "example.py"


@pytest.fixture
def without_dot(monkeypatch):
    def missing(*args, **kwargs):
        raise graphviz.ExecutableNotFound(["dot"])

    monkeypatch.setattr(graphviz, "pipe", missing)


def render(*arguments):
    return main(["render", *map(str, arguments)])


@needs_dot
@pytest.mark.parametrize("view", ["forward", "backward", "joint", "fused"])
def test_a_view_of_a_file(file, tmp_path, view, capsys):
    assert render(file, "--model", "example", "--view", view) == 0
    assert "<svg" in (tmp_path / f"example.{view}.svg").read_text()
    assert capsys.readouterr().out == f"the picture is example.{view}.svg\n"


@needs_dot
def test_a_compiled_folder(file, tmp_path):
    gc.compile(models.computation_graph).save(tmp_path / "build")
    folder = tmp_path / "build" / "computation_graph"
    for view in ("forward", "backward", "fused"):
        assert render(folder, "--view", view, "-o", tmp_path / f"{view}.svg") == 0
    assert render(folder, "--view", "joint", "--input", "a=3", "--input", "b=1", "--input", "c=-2", "-o", tmp_path / "j.svg") == 0
    assert "∂L/∂b = −4" in (tmp_path / "j.svg").read_text()


def test_pictures_hold_no_path_of_this_machine(file, tmp_path):
    for view in ("forward", "backward", "joint", "fused"):
        assert render(file, "--model", "example", "--view", view, "-o", "g.dot") == 0
        assert str(tmp_path) not in (tmp_path / "g.dot").read_text()


def test_dot_text_needs_no_program(file, tmp_path, without_dot):
    assert render(file, "--model", "example", "--view", "joint", "-o", "g.dot", "--input", "a=3", "--input", "b=1", "--input", "w=5") == 0
    text = (tmp_path / "g.dot").read_text()
    assert text.startswith('digraph "example"') and "∂L/∂w = 3" in text and "w = 5" in text


def test_without_dot_the_text_is_written_and_the_message_says_how_to_get_it(file, tmp_path, without_dot, capsys):
    assert render(file, "--model", "example", "-o", "g.svg") == 2
    assert not (tmp_path / "g.svg").exists()
    assert (tmp_path / "g.svg.dot").read_text().startswith("digraph")
    message = capsys.readouterr().err
    assert "g.svg.dot" in message and "apt-get install graphviz" in message


@pytest.mark.parametrize("arguments, message", [
    ([], "choose one with --model"),
    (["--model", "none"], "no model 'none'"),
    (["--model", "other", "--view", "joint"], "no output named 'loss'"),
    (["--model", "example", "--input", "a=1"], "--view joint"),
    (["--model", "example", "--program", "forward"], "--view fused"),
    (["--model", "example", "--view", "joint", "--input", "a"], "is no value"),
    (["--model", "example", "--view", "joint", "--input", "a=1"], "no value is given for b"),
    (["--model", "example", "-o", "g.jpeg"], "says no format"),
    (["--model", "example", "-o", "g.png", "--format", "svg"], "do not agree"),
    (["--model", "example", "-o", "nowhere/g.dot"], "no folder nowhere"),
])
def test_wrong_commands_say_what_is_wrong(file, arguments, message, capsys):
    assert render(file, *arguments) == 2
    assert message in capsys.readouterr().err


@needs_dot
def test_notebooks_show_pictures():
    m = gc.compile(models.computation_graph)
    assert m._repr_svg_() == m.graph._repr_svg_()
    assert m._repr_svg_().startswith("<svg") and "e = a + d" in m._repr_svg_()
    assert "<svg" in m._repr_html_() and "<?xml" not in m._repr_html_()


def test_notebooks_show_text_without_dot(without_dot):
    m = gc.compile(models.computation_graph, models.deep)
    assert m._repr_svg_() is None
    assert m._repr_html_().count("<pre>graph ") == 2
    assert m.computation_graph is not None and m.graph["deep"]._repr_html_().startswith("<pre>graph deep")
