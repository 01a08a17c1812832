"""Every file of models/: it compiles, verifies, is explained by its own first lines, and trains where it has data."""
from __future__ import annotations

import ast
import re
import shlex
from pathlib import Path

import pytest
import typer

import graphc as gc
from graphc.cli.app import app
from graphc.frontend.load import call_data, load_file

FILES = sorted((Path(__file__).resolve().parents[2] / "models").glob("*.py"))
SMALL = {  # the same model of a size that 60-digit arithmetic is quick with
    "digits": dict(first=3, second=2),
    "xor": dict(hidden=3),
    "mlp": dict(widths=(3, 2)),
    "eigen": dict(steps=3),
    "vanishing": dict(hidden=2),
    "forecasting": dict(season=2, hidden=2),
    "seq2seq": dict(letters=3, phonemes=4, embedding=2, hidden=2),
    "textgenrnn": dict(characters=3, embedding=2, hidden=2),
    "feedforward_lm": dict(n=2, vocabulary=4, embedding=2, hidden=3),
    **{name: dict(vocabulary=4, embedding=2, hidden=2) for name in ("rnn_lm", "lstm_lm", "gru_lm")},
    "text_classifier": dict(vocabulary=4, embedding=2, hidden=2),
    "pos_tagger": dict(vocabulary=4, alphabet=4, embedding=2, letter=2, form=2, hidden=2),
    "stacked_birnn": dict(hidden=2),
}
every_file = pytest.mark.parametrize("file", FILES, ids=lambda f: f.stem)


SLOW = ("pos_tagger", "seq2seq")  # two networks each, and many classes
VERIFIED = [pytest.param(f, marks=pytest.mark.slow) if f.stem in SLOW else f for f in FILES]


@pytest.mark.parametrize("file", VERIFIED, ids=lambda f: f.stem)
def test_it_verifies(file):
    certificate = gc.testing.check(file, **SMALL.get(file.stem, {}))
    assert certificate.strict


@every_file
def test_it_compiles_and_its_folder_runs(file, tmp_path):
    m = gc.compile(file)
    loaded = gc.load(m.save(tmp_path))
    assert set(loaded.params) == set(m.params)
    assert [str(e.signature) for e in loaded.entries.values()] == [str(e.signature) for e in m.entries.values()]


WITH_DATA = [f for f in FILES if load_file(f).data is not None]


@pytest.mark.parametrize("file", WITH_DATA, ids=lambda f: f.stem)
def test_it_trains(file):
    """Two epochs run, and what learns by gradients is better after the second."""
    page = load_file(file)
    if file.stem in ("digits", "mlp", "logistic_regression"):
        pytest.importorskip("sklearn", reason="the data come with scikit-learn")
    model = gc.compile(file, optimiser=gc.train.Adam(page.training.get("lr", 1e-2)))
    entry = file.stem if len(page.models) > 1 else None
    batch_size = page.training.get("batch_size", 32)
    history = gc.train.fit(model, call_data(page), epochs=2, batch_size=batch_size, entry=entry).history
    assert file.stem == "perceptron" or history[1].train["loss"] < history[0].train["loss"]


@every_file
def test_its_first_lines_are_true(file):
    """The commands that a page shows can be given: each is parsed, and names this file or another of the project."""
    doc = ast.get_docstring(ast.parse(file.read_text("utf-8")))
    commands = re.findall(r"^ {4}((?:graphc|python) .*?)(?: {3,}.*)?$", doc, re.MULTILINE)
    assert commands, "what to try"
    group = typer.main.get_command(app)
    for command in commands:
        program, *words = shlex.split(command)
        named = [w for w in words if w.startswith("models/")]
        assert all((file.parents[1] / w).exists() for w in named), command
        if program == "graphc" and words[0] in group.commands:
            group.commands[words[0]].make_context(words[0], words[1:])  # raises where an option is unknown
