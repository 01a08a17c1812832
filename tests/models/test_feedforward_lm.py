"""The feed-forward language model: words, vocabulary, data, what it learns, and its script."""
from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import graphc as gc

ROOT = Path(__file__).resolve().parents[2]
TEXT = Path(os.environ.get("GRAPHC_TEXT", ROOT.parent / "shared" / "data" / "tinyshakespeare.txt"))


@pytest.fixture(scope="module")
def lm(page):
    return page("feedforward_lm")


@pytest.fixture(scope="module")
def trained(lm):
    """Hamlet's soliloquy by heart."""
    m = gc.compile(lm.feedforward_lm, optimiser=gc.train.Adam(lm.training["lr"]))
    data = lm.data()
    return m, data, gc.train.fit(m, data, epochs=lm.training["epochs"], batch_size=lm.training["batch_size"]).history


def test_words(lm):
    assert lm.words_of("To be, or\nnot — 'tis!") == ["to", "be", ",", "or", "not", "—", "'tis", "!"]


def test_the_vocabulary_is_the_most_frequent_words(lm):
    assert lm.vocabulary_of(list("bacabd"), 4) == [lm.UNKNOWN, "a", "b", "c"]


def test_data(lm, tmp_path):
    """Each word stands beside its predecessors; what is not in the vocabulary is word 0, and so is what was before."""
    (tmp_path / "text").write_text("a b c a b a " * 5)
    data = lm.data(path=str(tmp_path / "text"), n=2, vocabulary=3)
    assert data.vocab == [lm.UNKNOWN, "a", "b"]
    np.testing.assert_array_equal(data.train["word"][:7], [1, 2, 0, 1, 2, 1, 1])
    np.testing.assert_array_equal(data.train["context"][:4], [[0, 0], [0, 1], [1, 2], [2, 0]])
    assert len(data.train["word"]) == 27 and len(data.valid["word"]) == 3
    np.testing.assert_array_equal(data.valid["context"][0], data.train["word"][-2:])


def test_a_missing_text_is_explained(lm):
    with pytest.raises(gc.GraphcError, match=r"no/such\.txt cannot be read"):
        lm.data(path="no/such.txt")
    with pytest.raises(gc.GraphcError, match="index 2 is out of range"):
        gc.compile(lm.feedforward_lm, n=3).forward(context=[[1, 2]])  # two words of context, three are wanted


def test_the_formula(lm):
    """The model's probabilities against its docstring in NumPy."""
    m = gc.compile(lm.feedforward_lm, n=2, vocabulary=7, embedding=3, hidden=5, dtype="float64")
    P = m.params
    context = np.array([[1, 2], [6, 0], [3, 3]])
    a = np.concatenate([P["E"][context[:, 0]], P["E"][context[:, 1]]], axis=1)
    logits = np.tanh(a @ P["hidden/W"] + P["hidden/b"]) @ P["out/W"] + P["out/b"]
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    outputs = m.forward(context=context, word=[0, 1, 2])
    np.testing.assert_allclose(outputs["p"], p, rtol=1e-12)
    assert outputs["loss"] == pytest.approx(-np.log(p[[0, 1, 2], [0, 1, 2]]).mean())
    assert outputs["perplexity"] == pytest.approx(math.exp(outputs["loss"]))


def test_it_knows_hamlet_by_heart(lm, trained):
    m, data, history = trained
    assert history[-1].train["perplexity"] < 1.2
    for text, word in (("to be", ","), ("to sleep, perchance to", "dream"), ("slings and arrows of", "outrageous")):
        (first, probability), *others = lm.next_words(m, data.vocab, text)
        assert first == word and probability > 0.5 and len(others) == 4


def test_it_overfits(trained):
    """A page is too little to learn a language from: what was held back gets less likely, not more."""
    _, _, history = trained
    assert history[-1].valid["loss"] > history[0].valid["loss"]


def test_the_script_lists_the_next_words(trained, tmp_path):
    m, *_ = trained
    m.save(tmp_path)
    script = ROOT / "models" / "feedforward_lm.py"
    r = subprocess.run([sys.executable, script, *tmp_path.iterdir(), "to be"], capture_output=True, text=True)
    assert r.returncode == 0, r.stderr
    lines = r.stdout.splitlines()
    assert len(lines) == 5 and lines[0].endswith("%  ,")
    r = subprocess.run([sys.executable, script], capture_output=True, text=True)
    assert r.returncode == 1 and "usage" in r.stderr


@pytest.mark.slow
@pytest.mark.skipif(not TEXT.exists(), reason="GRAPHC_TEXT names no text of a million letters")
def test_it_learns_a_large_text(lm):
    """One epoch comes below a perplexity of 260 on what was held back: words by their frequency alone have 405."""
    settings = dict(n=3, vocabulary=5000)
    data = lm.data(path=str(TEXT), **settings)
    m = gc.compile(lm.feedforward_lm, hidden=128, optimiser=gc.train.Adam(1e-3), **settings)
    (epoch,) = gc.train.fit(m, data, epochs=1, batch_size=128).history
    assert math.exp(epoch.valid["loss"]) < 260
