"""Generation: sampling, priming, stopping, and what does not generate."""

import itertools

import numpy as np
import pytest

import graphc as gc
from graphc.generation import Sampling, stream

V = gc.Vocabulary.of("abc d\n", "<s>", "</s>")


@gc.model
def bigram(x: gc.i64["B", "T"], y: gc.i64["B", "T"]):
    logits = gc.take(gc.param("E", (len(V) + 2, len(V) + 2)), x)  # room for two more tokens than there are
    return gc.outputs(logits=logits, loss=gc.nn.cross_entropy(logits, y))


@gc.model
def recurrent(x: gc.i64["B", "T"], *, dropout: float = 0.0):
    h0 = gc.state("h", ("B", 8))
    hs, h = gc.nn.gru(gc.take(gc.param("E", (len(V), 4)), x), 8, initial=h0)
    gc.update(h0, h)
    return gc.outputs(logits=gc.nn.linear(gc.dropout(hs, dropout), len(V)) * 5)


@gc.model
def stateless(x: gc.i64["B", "T"]):
    hs, _ = gc.nn.gru(gc.take(gc.param("E", (len(V), 4)), x), 8)
    return gc.outputs(logits=gc.nn.linear(hs, len(V)) * 5)


def compiled(model=bigram, vocab=V, **options):
    m = gc.compile(model, **options)
    m.vocab = vocab
    return m


def chain(**arrows):
    """A bigram model in which each token is followed by one other; tokens by name."""
    m = compiled()
    m.params["E"][...] = 0
    names = {"begin": "<s>", "end": "</s>", "space": " "}
    for a, b in arrows.items():
        m.params["E"][V.index[names.get(a, a)], V.index[names.get(b, b)]] = 100
    return m


# -- sampling ----------------------------------------------------------------------------------------------------------
LOGITS = np.log(np.array([0.1, 0.4, 0.05, 0.25, 0.2]))


@pytest.mark.parametrize(
    "options, wanted",
    [
        ({}, [0.1, 0.4, 0.05, 0.25, 0.2]),
        (dict(temperature=0), [0, 1, 0, 0, 0]),
        (dict(temperature=0.5), np.array([0.01, 0.16, 0.0025, 0.0625, 0.04]) / 0.275),
        (dict(top_k=2), np.array([0, 0.4, 0, 0.25, 0]) / 0.65),
        (dict(top_k=99), [0.1, 0.4, 0.05, 0.25, 0.2]),
        (dict(top_p=0.6), np.array([0, 0.4, 0, 0.25, 0]) / 0.65),
        (dict(top_p=0.66), np.array([0, 0.4, 0, 0.25, 0.2]) / 0.85),
        (dict(top_p=1e-9), [0, 1, 0, 0, 0]),
        (dict(top_k=3, top_p=0.5), np.array([0, 0.4, 0, 0.25, 0]) / 0.65),
    ],
)
def test_probabilities(options, wanted):
    np.testing.assert_allclose(Sampling(**options).probabilities(LOGITS), wanted, rtol=1e-12)


def test_of_equal_logits_the_first_is_taken():
    np.testing.assert_array_equal(Sampling(top_k=1).probabilities(np.zeros(4)), [1, 0, 0, 0])
    np.testing.assert_array_equal(Sampling(temperature=0).probabilities(np.zeros(4)), [1, 0, 0, 0])


def test_impossible_tokens_and_large_logits():
    p = Sampling(temperature=1e-3).probabilities(np.array([-np.inf, 1e4, 1e4, -1e4]))
    np.testing.assert_array_equal(p, [0, 0.5, 0.5, 0])


def test_samples_follow_the_probabilities():
    rng = np.random.default_rng(0)
    counts = np.bincount([Sampling().sample(LOGITS, rng) for _ in range(20_000)], minlength=5)
    np.testing.assert_allclose(counts / 20_000, np.exp(LOGITS), atol=0.015)
    assert {Sampling(top_k=2).sample(LOGITS, rng) for _ in range(200)} == {1, 3}


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(temperature=-1), "the temperature is -1"),
        (dict(temperature=float("nan")), "the temperature is nan"),
        (dict(top_k=0), "top_k is 0"),
        (dict(top_p=0.0), "top_p is 0"),
        (dict(top_p=1.5), "top_p is 1.5"),
        (dict(max_tokens=-1), "max_tokens is -1"),
        (dict(stop=["a", ""]), "an empty text to stop at"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(gc.GraphcError, match=message):
        gc.generate(compiled(), "a", **options)


# -- text --------------------------------------------------------------------------------------------------------------
def test_it_begins_and_ends():
    m = chain(begin="a", a="b", b="c", c="end")
    assert gc.generate(m) == "abc"
    assert gc.generate(m, "dab") == "c"
    assert gc.generate(m, "dab", max_tokens=0) == ""
    assert gc.generate(chain(a="b", b="a"), "a", max_tokens=5) == "babab"


def test_begin_and_room_without_a_token_are_never_chosen():
    m = compiled()
    m.params["E"][...] = 0
    m.params["E"][:, V.index["<s>"]] = m.params["E"][:, len(V):] = 100
    text = gc.generate(m, "a", max_tokens=300, seed=1)
    assert set(text) <= set("abc d\n")


def test_without_a_beginning_a_prompt_is_needed():
    m = compiled(vocab=gc.Vocabulary.of("abcdefgh"))
    with pytest.raises(gc.GraphcError, match="nothing to begin with"):
        gc.generate(m)
    assert len(gc.generate(m, "a", max_tokens=7)) == 7


@pytest.mark.parametrize("stop, wanted", [("c", "b"), ("ca", "b"), ("cab", "b"), (["cb", "abd"], "bcabcabc"), (["bc", "c"], ""), ("zz", "bcabcabc")])
def test_it_stops_before_a_text(stop, wanted):
    m = chain(a="b", b="c", c="a")
    assert gc.generate(m, "a", max_tokens=8, stop=stop) == wanted


def test_pieces_come_as_soon_as_they_cannot_become_a_stop():
    m = chain(a="b", b="c", c="a")
    assert list(stream(m, "a", max_tokens=5, stop="cad")) == ["b", "cab", "c"]
    assert list(itertools.islice(stream(m, "a", max_tokens=10**9), 3)) == ["b", "c", "a"]  # made as they are asked for


def test_the_seed_decides():
    m = compiled(recurrent)
    texts = [gc.generate(m, "a", max_tokens=40, seed=seed) for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]


def test_an_unknown_character_of_the_prompt_is_named():
    with pytest.raises(gc.GraphcError, match="does not have the characters 'é', 'z'"):
        gc.generate(compiled(), "aéz")


# -- states ------------------------------------------------------------------------------------------------------------
def test_a_carried_state_reads_the_prompt_and_then_token_by_token():
    """Greedily, against the stateless model of the same parameters, which reads the whole text for each token."""
    one, other = compiled(recurrent, seed=3), compiled(stateless, seed=3)
    for name, value in one.params.items():
        other.params[name][...] = value
    for prompt in ("", "a", "abba c\nd"):
        assert gc.generate(one, prompt, temperature=0, max_tokens=60) == gc.generate(other, prompt, temperature=0, max_tokens=60)


def test_the_models_own_state_is_left_alone():
    m = compiled(recurrent)
    m.forward(x=np.ones((3, 5), int))
    before = m.states["h"].copy()
    assert gc.generate(m, "ab", seed=1) == gc.generate(m, "ab", seed=1)
    np.testing.assert_array_equal(m.states["h"], before)


def test_dropout_is_off():
    m = compiled(recurrent, dropout=0.9)
    texts = {gc.generate(m, "ab", temperature=0, max_tokens=50) for _ in range(3)}
    assert len(texts) == 1


def test_a_saved_model_says_the_same(tmp_path):
    m = compiled(recurrent)
    loaded = gc.load(m.save(tmp_path))
    assert gc.generate(loaded, "abc", seed=4) == gc.generate(m, "abc", seed=4)


# -- words and tokenizers ------------------------------------------------------------------------------------------------
def test_words():
    m = compiled(vocab=gc.Vocabulary(["to", "be", "or"], "word"))
    m.params["E"][...] = 0
    m.params["E"][[0, 1, 2], [1, 2, 0]] = 100
    assert gc.generate(m, "to be", max_tokens=4) == "or to be or"
    assert list(stream(m, "to", max_tokens=2)) == ["be", " or"]


def test_a_tokenizers_bytes_are_text_once_they_are_complete():
    tokenizers = pytest.importorskip("tokenizers", reason="tokenizers is not installed: pip install -e '.[text]'")
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    of = tokenizers.Tokenizer(tokenizers.models.BPE({c: i for i, c in enumerate(alphabet)}, []))
    of.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    of.decoder = tokenizers.decoders.ByteLevel()
    vocab = gc.Tokenizer(of.to_str())
    text = "né né"
    follow = vocab.encode(text)

    @gc.model
    def bytewise(x: gc.i64["B", "T"]):
        return gc.outputs(logits=gc.take(gc.param("E", (256, 256)), x))

    m = compiled(bytewise, vocab)
    m.params["E"][...] = 0
    m.params["E"][follow[:-1], follow[1:]] = 100
    pieces = list(stream(m, "n", max_tokens=6))
    assert "".join(pieces) == "é né" and all("\ufffd" not in p for p in pieces)


# -- what does not generate ----------------------------------------------------------------------------------------------
def test_what_does_not_generate_is_explained():
    @gc.model
    def regression(x: gc.f32["B", 2]):
        return gc.outputs(y=gc.nn.linear(x, 1))

    @gc.model
    def needs_more(x: gc.i64["B", "T"], scale: gc.f32):
        return gc.outputs(logits=gc.take(gc.param("E", (8, 8)), x) * scale)

    for model in (regression, needs_more):
        with pytest.raises(gc.GraphcError, match=rf"{model.name} has no model that generates\n  why: a model generates if"):
            gc.generate(compiled(model), "a")
    with pytest.raises(gc.GraphcError, match="bigram has no vocabulary"):
        gc.generate(gc.compile(bigram), "a")
    with pytest.raises(gc.GraphcError, match="several vocabularies: letters, words"):
        gc.generate(compiled(vocab={"letters": V, "words": V}), "a")


def test_of_several_models_the_one_that_generates_is_taken():
    @gc.model
    def other(x: gc.i64["B", "T"]):
        return gc.outputs(y=gc.take(gc.param("F", (8,)), x))

    @gc.model
    def second(x: gc.i64["B", "T"]):
        return gc.outputs(logits=gc.take(gc.param("G", (8, 8)), x))

    m = gc.compile(other, bigram)
    m.vocab = V
    assert len(gc.generate(m, "a", max_tokens=3, seed=5)) <= 3
    m = gc.compile(bigram, second)
    m.vocab = V
    with pytest.raises(gc.GraphcError, match="several models that generate: bigram, second"):
        gc.generate(m, "a")
    assert isinstance(gc.generate(m, "a", entry="second"), str)
    with pytest.raises(gc.GraphcError, match="holds no model 'third'"):
        gc.generate(m, "a", entry="third")
