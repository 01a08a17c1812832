"""Vocabularies and tokenizers: texts to numbers and back, unknown characters, files, folders."""

import json

import numpy as np
import pytest

import graphc as gc
from graphc.vocabulary import as_vocabulary, decoded, encoded


def test_characters():
    vocab = gc.Vocabulary.of("to be or not to be", "<s>")
    assert vocab.tokens == ("<s>", " ", "b", "e", "n", "o", "r", "t") and len(vocab) == 8
    np.testing.assert_array_equal(vocab.encode("bet"), [2, 3, 7])
    assert vocab.encode("").shape == (0,) and vocab.encode("").dtype == np.int64
    assert vocab.decode(vocab.encode("not to be")) == "not to be"
    np.testing.assert_array_equal(vocab.encode(["<s>", "b"]), [0, 2])


def test_characters_beyond_the_basic_plane():
    vocab = gc.Vocabulary.of("ß😀é")
    assert vocab.decode(vocab.encode("😀ßé😀")) == "😀ßé😀"


def test_words():
    vocab = gc.Vocabulary(["<unknown>", "to", "be"], "word", "<unknown>")
    np.testing.assert_array_equal(vocab.encode("to  be\nor"), [1, 2, 0])
    assert vocab.decode([1, 2, 0]) == "to be <unknown>"


def test_unknown_characters_are_named():
    vocab = gc.Vocabulary.of("abc")
    with pytest.raises(gc.GraphcError, match="does not have the character 'é'\n"):
        vocab.encode("abéé")
    with pytest.raises(gc.GraphcError, match=r"does not have the characters 'x', '\\n', '1'\n"):
        vocab.encode("axb\nc1x")
    with pytest.raises(gc.GraphcError, match="and 16 more"):
        vocab.encode("".join(map(chr, range(200, 226))))
    with pytest.raises(gc.GraphcError, match="does not have the word 'c'"):
        gc.Vocabulary(["a", "b"], "word").encode("a c")


@pytest.mark.parametrize(
    "arguments, message",
    [
        ((["a", "a"],), "has the token 'a' twice"),
        ((["a", ""],), "texts of a character or more"),
        ((["a", 3],), "texts of a character or more"),
        ((["a"], "letter"), "unit 'letter'"),
        ((["a"], "word", "?"), r"does not have its token for unknown ones, '\?'"),
    ],
)
def test_what_is_no_vocabulary(arguments, message):
    with pytest.raises(gc.GraphcError, match=message):
        gc.Vocabulary(*arguments)


def test_what_a_data_set_may_give():
    one = gc.Vocabulary.of("ab")
    assert as_vocabulary(one) is one
    assert as_vocabulary(["x", "y"]) == gc.Vocabulary(["x", "y"], "word")
    assert as_vocabulary({"words": ["x"], "letters": one}) == {"words": gc.Vocabulary(["x"], "word"), "letters": one}
    with pytest.raises(gc.GraphcError, match="the vocabulary 'tags' of the data is int"):
        as_vocabulary({"tags": 3})
    with pytest.raises(gc.GraphcError, match="the vocabulary of the data is str"):
        as_vocabulary("abc")


@pytest.mark.parametrize(
    "vocab",
    [
        gc.Vocabulary.of("ab\"\\\n😀", "<s>", "</s>"),
        gc.Vocabulary(["?", "b"], "word", "?"),
        {"words": gc.Vocabulary(["x"], "word"), "letters": gc.Vocabulary.of("ab")},
        {},
    ],
)
def test_the_file_says_the_same(vocab):
    assert decoded(encoded(vocab), "vocab.json") == vocab


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"one": {"tokens": ["a", "a"], "unit": "word", "unknown": null}}', b'{"one": 3}'])
def test_a_damaged_file_is_explained(content):
    with pytest.raises(gc.GraphcError, match=r"the vocabulary here/vocab\.json cannot be read"):
        decoded(content, "here/vocab.json")


# -- folders -----------------------------------------------------------------------------------------------------------
@gc.model
def tiny(x: gc.i64["B"]):
    return gc.outputs(y=gc.take(gc.param("E", (3,)), x))


@pytest.mark.parametrize("vocab", [gc.Vocabulary.of("abc"), {"in": gc.Vocabulary.of("abc"), "out": gc.Vocabulary(["x"], "word")}])
def test_it_goes_along_with_the_folder(tmp_path, vocab):
    m = gc.compile(tiny)
    assert m.vocab is None and gc.load(m.save(tmp_path / "without")).vocab is None
    m.vocab = vocab
    assert m.clone().vocab is vocab
    folder = m.save(tmp_path / "first")
    loaded = gc.load(folder)
    assert loaded.vocab == vocab
    again = gc.load(loaded.save(tmp_path / "second"))
    assert again.vocab == vocab
    again.vocab = gc.Vocabulary.of("xyz")
    assert gc.load(again.save(tmp_path / "third")).vocab == gc.Vocabulary.of("xyz")
    (folder / "vocab.json").write_text(json.dumps({"one": gc.Vocabulary.of("abd").to_json()}))
    with pytest.raises(gc.GraphcError, match=r"vocab\.json is not what was compiled"):
        gc.load(folder)


# -- tokenizers ----------------------------------------------------------------------------------------------------------
@pytest.fixture
def tokenizer_file(tmp_path):
    tokenizers = pytest.importorskip("tokenizers", reason="tokenizers is not installed: pip install -e '.[text]'")
    of = tokenizers.Tokenizer(tokenizers.models.BPE())
    of.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    of.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=300, special_tokens=["<s>", "</s>"], initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet()
    )
    of.train_from_iterator(["to be or not to be, that is the question"] * 3, trainer)
    path = tmp_path / "tokenizer.json"
    of.save(str(path))
    return path


def test_a_tokenizer(tokenizer_file, tmp_path):
    vocab = gc.Tokenizer(tokenizer_file)
    numbers = vocab.encode("to be, né")
    assert numbers.dtype == np.int64 and vocab.decode(numbers) == "to be, né"
    assert len(vocab.index) == len(vocab) == max(vocab.index.values()) + 1 and {"<s>", "</s>"} <= set(vocab.index)
    m = gc.compile(tiny)
    m.vocab = vocab
    loaded = gc.load(m.save(tmp_path))
    assert loaded.vocab == vocab
    np.testing.assert_array_equal(loaded.vocab.encode("question"), vocab.encode("question"))


def test_a_damaged_tokenizer_is_explained(tokenizer_file):
    tokenizer_file.write_text("{}")
    with pytest.raises(gc.GraphcError, match=r"tokenizer\.json cannot be read"):
        gc.Tokenizer(tokenizer_file)
