"""Sequence to sequence: the formulas, padding, decoding against searches that look at everything, errors, the data."""
from __future__ import annotations

import itertools
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import graphc as gc

ROOT = Path(__file__).resolve().parents[2]
DICT = Path(os.environ.get("GRAPHC_DICT", ROOT.parent / "shared" / "data" / "cmudict.dict"))
TINY = dict(letters=5, phonemes=4, embedding=3, hidden=4)
X, X_LENGTH = np.array([[1, 2, 3, 4], [4, 2, 0, 0], [3, 0, 0, 0]]), np.array([4, 2, 1], np.int32)
Y, Y_LENGTH = np.array([[2, 3, 0], [3, 0, 0], [2, 0, 0]]), np.array([3, 2, 2], np.int32)


@pytest.fixture(scope="module")
def s2s(page):
    return page("seq2seq")


def models(s2s, seed=0, **options):
    """All three, with random parameters that make decisions."""
    m = gc.compile(s2s.__file__, **{**TINY, "dtype": "float64", **options})
    rng = np.random.default_rng(seed)
    for p in m.params.values():
        p[...] = rng.normal(0, 1.2, p.shape)
    return m


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def gru(P, name, x, h):
    W, U, b = (P[f"{name}/{n}"] for n in "WUb")
    H, a = len(h), x @ W + b
    r, z = sigmoid(a[:H] + h @ U[:, :H]), sigmoid(a[H : 2 * H] + h @ U[:, H : 2 * H])
    return (1 - z) * h + z * np.tanh(a[2 * H :] + (r * h) @ U[:, 2 * H :])


def one_word(P, x, y, attention):
    """log p of each symbol of y after the ones before it, for one word without padding."""
    e, H = P["letters"][x], P["decoder/U"].shape[0]
    ahead, back = [np.zeros(H)], [np.zeros(H)]
    for s in range(len(x)):
        ahead.append(gru(P, "encoder/forward", e[s], ahead[-1]))
        back.append(gru(P, "encoder/backward", e[-1 - s], back[-1]))
    m = np.stack([np.concatenate(both) for both in zip(ahead[1:], back[:0:-1])])
    d = np.tanh(np.concatenate([ahead[-1], back[-1]]) @ P["bridge/W"] + P["bridge/b"])
    found = []
    for before, now in zip([1, *y], y):
        d = gru(P, "decoder", P["phonemes"][before], d)
        shown = d
        if attention:
            a = np.exp(m @ (d @ P["attention/W"]))
            shown = np.tanh(np.concatenate([d, a / a.sum() @ m]) @ P["combine/W"] + P["combine/b"])
        logits = shown @ P["out/W"] + P["out/b"]
        found.append(logits[now] - np.log(np.exp(logits).sum()))
    return found


@pytest.mark.parametrize("attention", [True, False])
def test_the_formulas(s2s, attention):
    """The loss of a padded batch is that of its words one by one, without any padding."""
    m = models(s2s, attention=attention)
    wanted = [one_word(m.params, x[:n], y[:k], attention) for x, n, y, k in zip(X, X_LENGTH, Y, Y_LENGTH)]
    outputs = m.seq2seq.forward(X, X_LENGTH, Y, Y_LENGTH)
    assert outputs["loss"] == pytest.approx(-np.concatenate(wanted).mean(), rel=1e-12)
    assert 0 <= outputs["accuracy"] <= 1


def test_padding_does_not_count(s2s):
    """More padding, and other numbers in it, change neither the loss nor a gradient."""
    m = models(s2s)
    x, y = (np.concatenate([a, np.zeros((3, 2), int)], axis=1) for a in (X, Y))
    junk = lambda a, length: np.where(np.arange(a.shape[1]) < length[:, None], a, 3)
    a, b = m.seq2seq.value_and_grad(X, X_LENGTH, Y, Y_LENGTH), m.seq2seq.value_and_grad(junk(x, X_LENGTH), X_LENGTH, junk(y, Y_LENGTH), Y_LENGTH)
    for mine, other in zip(a, b):
        for name in mine:
            np.testing.assert_allclose(mine[name], other[name], rtol=1e-9, atol=1e-12, err_msg=name)


def test_it_looks_at_letters_alone(s2s):
    m = models(s2s)
    state = m.encode.forward(X, X_LENGTH)
    a = m.decode.forward([1, 1, 1], state["d"], state["m"], X_LENGTH)["a"]
    np.testing.assert_allclose(a.sum(axis=1), 1)
    assert (a[np.arange(4) >= X_LENGTH[:, None]] == 0).all() and (a[0] > 0).all()


@pytest.mark.parametrize("attention", [True, False])
def test_greedy_says_the_most_probable(s2s, attention):
    m = models(s2s, seed=1, attention=attention)
    for x, n, said in zip(X, X_LENGTH, s2s.greedy(m, X, X_LENGTH, longest=5)):
        wanted = []
        while len(wanted) < 5:
            best = max(range(4), key=lambda k: one_word(m.params, x[:n], [*wanted, k], attention)[-1])
            if best == s2s.END:
                break
            wanted.append(best)
        assert said == wanted


def test_a_beam_of_one_is_greedy(s2s):
    m = models(s2s, seed=2)
    assert s2s.beam(m, X, X_LENGTH, width=1, longest=6) == s2s.greedy(m, X, X_LENGTH, longest=6)


@pytest.mark.parametrize("seed", range(4))
def test_a_wide_beam_finds_the_best_of_all(s2s, seed):
    """With room for every beginning, it is the search through all sequences that end, or are as long as may be."""
    m, longest = models(s2s, seed), 3
    found = s2s.beam(m, X, X_LENGTH, width=4**longest, longest=longest)
    for x, n, said in zip(X, X_LENGTH, found):
        ended = [(*w, 0) for k in range(longest) for w in itertools.product((1, 2, 3), repeat=k)]
        whole = [*ended, *itertools.product((1, 2, 3), repeat=longest)]
        best = max(whole, key=lambda w: sum(one_word(m.params, x[:n], list(w), True)))
        assert said == s2s.until_end(best)


def test_edit_distance(s2s):
    assert s2s.distance("kitten", "sitting") == 3 and s2s.distance("", "abc") == 3 and s2s.distance("ab", "ba") == 2
    assert s2s.error_rate(["abc", "x"], ["abd", "xy"]) == pytest.approx(2 / 5)
    rng = np.random.default_rng(0)
    for _ in range(30):
        a, b, c = (rng.integers(0, 3, rng.integers(0, 6)).tolist() for _ in range(3))
        assert s2s.distance(a, b) == s2s.distance(b, a) <= s2s.distance(a, c) + s2s.distance(c, b)
        assert s2s.distance(a, a) == 0 and abs(len(a) - len(b)) <= s2s.distance(a, b) <= max(len(a), len(b))


def test_a_dictionary(s2s, tmp_path):
    """Stress, comments and second pronunciations are left away."""
    (tmp_path / "dict").write_text("cough K AO1 F\ncough(2) K AA1 F\nthe DH AH0 # weak\n")
    assert s2s.pairs(tmp_path / "dict") == [("cough", ["K", "AO", "F"]), ("the", ["DH", "AH"])]
    with pytest.raises(gc.GraphcError, match="a dictionary of 2 words is too short"):
        s2s.data(path=tmp_path / "dict")
    with pytest.raises(gc.GraphcError, match=r"no/dict cannot be read"):
        s2s.pairs("no/dict")


def test_data(s2s):
    """Padded arrays that say their lengths; no word is on both sides; a size too small is explained."""
    data = s2s.data()
    for part in (data.train, data.valid):
        for name, end in (("x", 0), ("y", 1)):
            counts = np.arange(part[name].shape[1]) < part[f"{name}_length"][:, None]
            assert (part[name][~counts] == 0).all() and ((part[name] > 0).sum(1) == part[f"{name}_length"] - end).all()
    assert not {tuple(x) for x in data.train["x"]} & {tuple(x) for x in data.valid["x"]}
    assert data.vocab["phonemes"][:2] == ["</s>", "<s>"]
    with pytest.raises(gc.GraphcError, match="there are 11 letters"):
        s2s.data(letters=10)
    with pytest.raises(gc.GraphcError, match="unknown symbols: é"):
        s2s.padded(["née"], ["<pad>", "n", "e"])


def test_a_length_out_of_range_is_explained(s2s):
    with pytest.raises(gc.GraphcError, match="the length 0 of sequence 1 is not between 1 and 4"):
        models(s2s).encode.forward(X, np.array([4, 0, 1], np.int32))


def test_it_learns_to_reverse_and_its_script_measures(s2s, tmp_path):
    data = s2s.data()
    m = gc.compile(s2s.__file__, optimiser=gc.train.Adam(s2s.training["lr"]))
    history = gc.train.fit(m, data, epochs=4, batch_size=64).history
    assert history[-1].valid["accuracy"] > 0.98
    x, length = s2s.padded(["abc", "jihgf"], data.vocab["letters"])
    for decoder in (s2s.greedy, s2s.beam):
        said = decoder(m, x, length)
        assert ["".join(data.vocab["phonemes"][k] for k in word) for word in said] == ["cba", "fghij"]
    r = subprocess.run([sys.executable, s2s.__file__, m.save(tmp_path)], capture_output=True, text=True)
    assert r.returncode == 0, r.stderr
    assert r.stdout.startswith("greedy") and "% of the symbols are wrong" in r.stdout
    r = subprocess.run([sys.executable, s2s.__file__], capture_output=True, text=True)
    assert r.returncode == 1 and "usage" in r.stderr


def test_its_commands_are_those_of_its_docstring(s2s, tmp_path):
    """What `graphc train` writes holds the models that the script runs."""
    commands = [line.split() for line in s2s.__doc__.splitlines() if line.startswith("    ") and line.split()[0] in ("graphc", "python")]
    train, say = commands[:2]
    assert train[:2] == ["graphc", "train"] and say == ["python", "models/seq2seq.py", "build/seq2seq"]
    (tmp_path / "dict").write_text("\n".join(f"{a}{b}  {b} {a}" for a in "abcdefg" for b in "abcdefg"))
    short = [*train[1:], "--set", f"path={tmp_path / 'dict'}", "--epochs", "1", "-o", str(tmp_path), "--no-plot"]
    r = subprocess.run([sys.executable, "-m", "graphc", *short], capture_output=True, text=True, cwd=ROOT)
    assert r.returncode == 0, r.stderr
    arguments = [say[1], str(tmp_path / "seq2seq"), str(tmp_path / "dict"), "ab", "gg"]
    r = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, cwd=ROOT)
    assert r.returncode == 0, r.stderr
    assert [line.split()[0] for line in r.stdout.splitlines()] == ["ab", "gg"]


@pytest.mark.slow
@pytest.mark.skipif(not DICT.exists(), reason="GRAPHC_DICT names no dictionary of pronunciations in the form of cmudict")
def test_it_learns_pronunciations(s2s):
    """From a tenth of the words, one epoch: the loss of what is held back is far below that of guessing."""
    data = s2s.data(path=str(DICT))
    tenth = {n: a[::10] for n, a in data.train.items()}
    m = gc.compile(s2s.seq2seq, optimiser=gc.train.Adam(3e-3))
    (epoch,) = gc.train.fit(m, gc.Dataset(train=tenth, valid=data.valid), epochs=1, batch_size=64).history
    assert epoch.valid["loss"] < 1.2 < np.log(39)
