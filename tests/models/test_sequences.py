"""The models of sequences: their formulas in NumPy, their data, and what they do with a sentence's end."""

import numpy as np
import pytest

import graphc as gc

RNG = np.random.default_rng(0)


def filled(m, scale=0.5):
    """A model with random parameters, biases too."""
    rng = np.random.default_rng(1)
    for p in m.params.values():
        p[...] = scale * rng.standard_normal(p.shape)
    return m


def sigma(a):
    return 1 / (1 + np.exp(-a))


# -- language models ---------------------------------------------------------------------------------------------------
def rnn(e, s, P):
    h = np.tanh(e @ P["rnn/W"] + s["h"] @ P["rnn/U"] + P["rnn/b"])
    return dict(h=h)


def lstm(e, s, P):
    f, i, g, o = np.split(e @ P["lstm/W"] + s["h"] @ P["lstm/U"] + P["lstm/b"], 4, axis=-1)
    c = sigma(f) * s["c"] + sigma(i) * np.tanh(g)
    return dict(h=sigma(o) * np.tanh(c), c=c)


def gru(e, s, P):
    n = P["gru/U"].shape[0]
    a, h, U = e @ P["gru/W"] + P["gru/b"], s["h"], P["gru/U"]
    r, z = sigma(a[:, :n] + h @ U[:, :n]), sigma(a[:, n : 2 * n] + h @ U[:, n : 2 * n])
    return dict(h=(1 - z) * h + z * np.tanh(a[:, 2 * n :] + (r * h) @ U[:, 2 * n :]))


@pytest.mark.parametrize("kind, step", [("rnn", rnn), ("lstm", lstm), ("gru", gru)])
def test_a_language_model_carries_its_state(page, kind, step):
    """Two batches that go on from each other are one text: loss and perplexity of both, by a plain loop."""
    m = filled(gc.compile(getattr(page(f"{kind}_lm"), f"{kind}_lm"), vocabulary=7, embedding=3, hidden=4, dtype="float64"))
    text = RNG.integers(0, 7, (2, 11))
    state = {n: np.zeros((2, 4)) for n in m.states or dict(lstm=("h", "c")).get(kind, ("h",))}
    for part in (slice(0, 6), slice(6, 10)):
        x, y = text[:, part], text[:, part.start + 1 : part.stop + 1]
        losses = []
        for t in range(x.shape[1]):
            state = step(m.params["E"][x[:, t]], state, m.params)
            logits = state["h"] @ m.params["out/W"] + m.params["out/b"]
            losses.append(np.log(np.exp(logits).sum(1)) - logits[[0, 1], y[:, t]])
        found = m.forward(x=x, y=y)
        assert found["loss"] == pytest.approx(np.mean(losses), rel=1e-12)
        assert found["perplexity"] == pytest.approx(np.exp(np.mean(losses)), rel=1e-12)
        for name, value in state.items():
            np.testing.assert_allclose(m.states[name], value, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("kind", ["rnn", "lstm", "gru"])
def test_the_song_is_learned_and_sung(page, kind):
    module = page(f"{kind}_lm")
    m = gc.compile(getattr(module, f"{kind}_lm"), optimiser=gc.train.Adam(5e-3, clip=1.0))
    data = module.data()
    history = gc.train.fit(m, data, epochs=6).history
    assert history[-1].valid["perplexity"] < 2
    text = gc.generate(m, "There'll be 12 green", temperature=0, max_tokens=40)
    assert text.startswith(" bottles hanging on the wall")


def test_another_text(page, tmp_path):
    (tmp_path / "text").write_text("näher, mein Gott, zu dir " * 50, encoding="utf-8")
    data = page("lstm_lm").data(path=str(tmp_path / "text"), batch=2, steps=8)
    assert "ä" in data.vocab.tokens and next(iter(data.train))["x"].shape == (2, 8)
    with pytest.raises(gc.GraphcError, match=r"(?s)the text has 15 different characters.*--set vocabulary=15"):
        page("lstm_lm").data(path=str(tmp_path / "text"), vocabulary=9)


# -- sentences ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("pool", ["max", "last"])
def test_a_class_does_not_depend_on_the_padding(page, pool):
    m = filled(gc.compile(page("text_classifier").text_classifier, vocabulary=9, embedding=3, hidden=4, pool=pool))
    words = RNG.integers(0, 9, (3, 6))
    lengths = np.array([4, 6, 1])
    p = m.forward(words=words, lengths=lengths)["p"]
    for k, n in enumerate(lengths):
        alone = m.forward(words=words[k : k + 1, :n], lengths=[n])["p"]
        np.testing.assert_allclose(p[k], alone[0], rtol=1e-5)
    assert np.abs(p[0] - p[1]).max() > 1e-3


def test_polarity_files_are_read(page, tmp_path):
    (tmp_path / "pos").write_bytes(("ça est bon\n" * 30).encode("latin-1"))
    (tmp_path / "neg").write_text("not so\n\n" * 30)
    module = page("text_classifier")
    data = module.data(praise=str(tmp_path / "pos"), blame=str(tmp_path / "neg"), encoding="latin-1", batch=5)
    assert set(data.vocab.tokens) == {module.UNKNOWN, "ça", "est", "bon", "not", "so"}
    parts = [[(w[:n].tolist(), k) for b in p for w, n, k in zip(b["words"], b["lengths"], b["label"])] for p in (data.train, data.valid, data.test)]
    assert [len(p) for p in parts] == [48, 6, 6]
    assert all(data.vocab.decode(w) == ("not so", "ça est bon")[k] for p in parts for w, k in p)


def test_tags_do_not_depend_on_the_padding(page):
    module = page("pos_tagger")
    m = filled(gc.compile(module.pos_tagger, vocabulary=9, alphabet=8, embedding=3, letter=2, form=3, hidden=4), 0.8)
    sentences = [dict(words=RNG.integers(0, 9, n), counts=(c := RNG.integers(1, 6, n)), letters=RNG.integers(0, 8, (n, c.max())), tags=RNG.integers(0, 17, n)) for n in (3, 7, 1)]
    fields = {name: [s[name] for s in sentences] for name in ("words", "letters", "counts", "tags")}
    (batch,) = gc.train.Padded(fields, 3, padding=dict(counts=1)).epoch()
    together = m.forward(**batch)
    weighted = 0
    for row, n in zip(range(3), batch["lengths"]):
        one = {k: a[row : row + 1, :n] for k, a in batch.items() if k != "lengths"}
        alone = m.forward(**one, lengths=[n])
        assert alone["found"][0].tolist() == together["found"][row, :n].tolist()
        weighted += n * alone["loss"]
    assert together["loss"] == pytest.approx(weighted / batch["lengths"].sum(), rel=1e-5)
    right = sum((together["found"][r, :n] == batch["tags"][r, :n]).sum() for r, n in enumerate(batch["lengths"]))
    assert together["accuracy"] == pytest.approx(right / batch["lengths"].sum())


CONLLU = """# sent_id = 1
1-2\tdon't\t_\t_\t_
1\tdo\tdo\tAUX\t_
2\tn't\tnot\tPART\t_
2.1\tgone\tgo\tVERB\t_
3\tgo\tgo\tVERB\t_

# only a comment

1\tYes\tyes\tINTJ\t_
"""


def test_conllu_is_read(page, tmp_path):
    (tmp_path / "a.conllu").write_text(CONLLU)
    module = page("pos_tagger")
    assert module.read_conllu(str(tmp_path / "a.conllu")) == [[("do", "AUX"), ("n't", "PART"), ("go", "VERB")], [("Yes", "INTJ")]]
    (tmp_path / "b.conllu").write_text(CONLLU * 20)
    data = module.data(train=str(tmp_path / "b.conllu"), test=str(tmp_path / "a.conllu"), batch=8)
    assert data.vocab["words"].tokens[0] == module.UNKNOWN and set(data.vocab["words"].tokens[1:]) == {"do", "n't", "go", "yes"}
    (batch,) = data.test
    assert batch["letters"].shape == (2, 3, 3) and sorted(batch["lengths"]) == [1, 3]
    row = int(np.argmax(batch["lengths"]))
    assert [module.TAGS[t] for t in batch["tags"][row]] == ["AUX", "PART", "VERB"] and batch["counts"][row].tolist() == [2, 3, 2]


def test_a_words_case_is_in_its_letters_alone(page, tmp_path):
    """A word is counted in any case: one that is seen twice, once with a capital, has a number of its own."""
    rows = [f"1\t{word}\t_\tNOUN\n" for word in ("Go", "GO", "Do", "gO")]
    (tmp_path / "a.conllu").write_text("\n".join(rows))
    module = page("pos_tagger")
    vocab = module.data(train=str(tmp_path / "a.conllu"), held_back=0).vocab
    assert vocab["words"].tokens == (module.UNKNOWN, "go")
    given = module.numbers_of(["go", "Go", "do", "unseen"], vocab)
    assert given["words"].tolist() == [1, 1, 0, 0]
    spelt = [[vocab["letters"].tokens[n] for n in row[:count]] for row, count in zip(given["letters"], given["counts"])]
    assert spelt[:3] == [["g", "o"], ["G", "o"], [module.UNKNOWN, "o"]]


@pytest.mark.parametrize("held_back, learned", [(0, 21), (0.04, 21), (0.1, 19), (0.5, 11)])
def test_a_share_of_the_sentences_validates(page, tmp_path, held_back, learned):
    """The last ones: their words are not in the vocabulary."""
    words = [f"w{n}" for n in range(21)]
    (tmp_path / "a.conllu").write_text("\n".join(f"1\t{w}\t_\tX\n2\t{w}\t_\tX\n" for w in words))
    data = page("pos_tagger").data(train=str(tmp_path / "a.conllu"), held_back=held_back, batch=100)
    assert set(data.vocab["words"].tokens[1:]) == set(words[:learned]) and data.test is None
    (train,) = data.train
    assert len(train["words"]) == learned
    if learned == 21:
        assert data.valid is None
    else:
        (valid,) = data.valid
        assert valid["words"].shape == (21 - learned, 2) and not valid["words"].any()


@pytest.mark.parametrize("held_back", [-0.1, 1])
def test_no_other_share_can_be_held_back(page, held_back):
    with pytest.raises(gc.GraphcError, match=rf"(?s)held_back is {held_back}.*from 0 to below 1"):
        page("pos_tagger").data(held_back=held_back)


# -- brackets ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("text, wanted", [("a(b))", "01010"), ("((a)", "0101"), (")(", "00"), ("(()())", "111111"), ("abc", "000")])
def test_partners(page, text, wanted):
    assert page("stacked_birnn").partners(text) == [int(c) for c in wanted]


@pytest.mark.parametrize("options", [dict(cell="gru", merge="sum"), dict(cell="lstm", layers=1), dict(bidirectional=False)])
def test_stacks_of_every_kind_compile(page, options):
    m = gc.compile(page("stacked_birnn").stacked_birnn, hidden=3, **options)
    assert np.isfinite(m.forward(x=np.full((2, 4), 3), y=np.zeros((2, 4), int))["loss"]), "a text without brackets"


def test_an_unknown_cell_is_explained(page):
    with pytest.raises(gc.GraphcError, match=r"(?s)no cell 'rnm'.*rnn, lstm, gru"):
        gc.compile(page("stacked_birnn").stacked_birnn, cell="rnm")
