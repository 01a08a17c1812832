"""The part of speech of each word of a sentence: a bidirectional LSTM over words that are read letter by letter too.

    s_t = (→, ← last states of an LSTM over the letters of word t)     its form: capitals, -ing, -ly
    e_t = (E[w_t], s_t)                                               the word itself, in lower case, and its form
    h_t = (→h_t, ←h_t), an LSTM over e_1, …, e_T from both sides       its place among the others
    p_t = softmax(h_t W + b)                                          a probability for each tag
    L   = the mean of −log p_t[tag of t] over all words

"I book a flight" and "the book": the neighbours decide. "The" and "the" are one word, which is seen the more often;
their letters tell them apart. A word that was seen but once, or never, is known by its form alone: it has the number 0.

    graphc train models/pos_tagger.py
    python models/pos_tagger.py build/pos_tagger "they fish for a fish"

The sentences are made here, of words that may be several parts of speech. Real ones, as CoNLL-U files such as UD
English EWT with the universal tags (train on one, test on the other):

    graphc train models/pos_tagger.py --set train=DEV.conllu --set test=TEST.conllu --set batch=8 --epochs 8

That learns from nine tenths of the first file and validates with the last tenth; --set held_back=0 learns from all of it.
"""

import sys
from collections import Counter

import numpy as np

import graphc as gc

training = dict(epochs=6, optimizer="adam", lr=2e-3, clip=1.0)

UNKNOWN = "<unknown>"
ENDS = 8  # so many letters at each end of a long word tell its form
TAGS = ["ADJ", "ADP", "ADV", "AUX", "CCONJ", "DET", "INTJ", "NOUN", "NUM", "PART", "PRON", "PROPN", "PUNCT", "SCONJ", "SYM", "VERB", "X"]


@gc.model
def pos_tagger(
    words: gc.i64["B", "T"],
    lengths: gc.i64["B"],
    letters: gc.i64["B", "T", "N"],
    counts: gc.i64["B", "T"],
    tags: gc.i64["B", "T"],
    *,
    vocabulary: int = 4000,
    alphabet: int = 128,
    embedding: int = 100,
    letter: int = 32,
    form: int = 50,
    hidden: int = 128,
    dropout: float = 0.4,
):
    B, T, N = letters.shape
    spelt = gc.take(gc.param("letters", (alphabet, letter), init=gc.init.normal(0, 1)), gc.reshape(letters, (B * T, N)))
    _, ((ahead, _), (back, _)) = gc.nn.lstm(
        spelt, form, bidirectional=True, lengths=gc.reshape(counts, (B * T,)), name="form"
    )
    s = gc.reshape(gc.concat([ahead, back], axis=1), (B, T, 2 * form))
    known = gc.take(gc.param("words", (vocabulary, embedding), init=gc.init.normal(0, 0.3)), words)
    e = gc.dropout(gc.concat([known, s], axis=2), dropout)
    hs, _ = gc.nn.lstm(e, hidden, bidirectional=True, lengths=lengths, name="sentence")
    logits = gc.nn.linear(gc.dropout(hs, dropout), len(TAGS), name="out")

    inside = gc.expand_dims(gc.arange(T), 0) < gc.expand_dims(lengths, 1)
    weight = gc.where(inside, 1.0, 0.0)
    total = gc.sum(weight)
    found = gc.argmax(logits, axis=-1)
    return gc.outputs(
        found=found,
        loss=gc.sum(weight * gc.nn.cross_entropy(logits, tags, reduction="none")) / total,
        accuracy=gc.sum(gc.where(gc.equal(found, tags), weight, 0.0)) / total,
    )


def read_conllu(path):
    """The sentences of a CoNLL-U file, each a list of (word, universal tag)."""
    sentences = []
    for block in gc.train.read_text(path).split("\n\n"):
        rows = [line.split("\t") for line in block.splitlines() if not line.startswith("#")]
        pairs = [(row[1], row[3]) for row in rows if row[0].isdecimal()]  # neither ranges (3-4) nor empty words (3.1)
        sentences += [pairs] if pairs else []
    return sentences


def data(
    train: str = "", test: str = "", vocabulary: int = 4000, alphabet: int = 128, batch: int = 32, held_back: float = 0.1
):
    """Tagged sentences; of the first file the last share that is held back validates, the others are learned from."""
    if not 0 <= held_back < 1:
        raise gc.GraphcError(f"held_back is {held_back}", how="the share that validates, from 0 to below 1")
    if train:
        sentences, tested = read_conllu(train), read_conllu(test) if test else []
    else:
        sentences, tested = made(600), []
    cut = len(sentences) - int(len(sentences) * held_back)
    learned = [word for s in sentences[:cut] for word, _ in s]
    counted, letters = Counter(word.lower() for word in learned), Counter("".join(learned))
    vocab = dict(
        words=gc.Vocabulary([UNKNOWN, *[w for w, n in counted.most_common(vocabulary - 1) if n > 1]], "word", UNKNOWN),
        letters=gc.Vocabulary([UNKNOWN, *[c for c, _ in letters.most_common(alphabet - 1)]], "character", UNKNOWN),
        tags=gc.Vocabulary(TAGS, "word"),
    )

    def part(chosen):
        inputs = [numbers_of([word for word, _ in s], vocab) for s in chosen]
        examples = {n: [i[n] for i in inputs] for n in ("words", "letters", "counts")}
        tags = [vocab["tags"].encode([tag for _, tag in s]) for s in chosen]
        return gc.train.Padded(dict(examples, tags=tags), batch, padding=dict(counts=1))

    others = (part(chosen) if chosen else None for chosen in (sentences[cut:], tested))
    return gc.Dataset(part(sentences[:cut]), *others, vocab=vocab)


def numbers_of(words, vocab):
    """What the model takes of a sentence: its words, their letters and how many there are; of long words both ends.

    Case is left to the letters: a vector for "The" beside that for "the" would be learned from fewer examples.
    """
    words_read = [w if len(w) <= 2 * ENDS else w[:ENDS] + w[-ENDS:] for w in words]
    counts = np.array([len(w) for w in words_read])
    letters = np.zeros((len(words), counts.max()), int)
    for row, word in zip(letters, words_read):
        row[: len(word)] = vocab["letters"].encode(word)
    return dict(words=vocab["words"].encode([w.lower() for w in words]), letters=letters, counts=counts)


def made(count):
    """Sentences of a small grammar, in which a word's tag follows from its neighbours."""
    rng = np.random.default_rng(0)
    both = ["book", "fish", "play", "walk", "watch", "plan", "cook", "dream"]  # nouns and verbs

    def noun():
        adjective = rng.choice(["green", "little", "walking", "lonely"], size=rng.integers(2))
        return [("the", "DET"), *((str(a), "ADJ") for a in adjective), (str(rng.choice([*both, "house", "river"])), "NOUN")]

    def sentence():
        subject = [(str(rng.choice(["I", "they", "we"])), "PRON")] if rng.random() < 0.5 else noun()
        adverb = [(str(rng.choice(["slowly", "gladly", "often"])), "ADV")] if rng.random() < 0.5 else []
        end = [("for", "ADP"), *noun()] if rng.random() < 0.3 else []
        return [*subject, *adverb, (str(rng.choice(both)), "VERB"), *noun(), *end, (".", "PUNCT")]

    return [sentence() for _ in range(count)]


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(f'usage: python {sys.argv[0]} build/pos_tagger "a sentence"')
    m = gc.load(sys.argv[1])
    given = sys.argv[2].split()
    found = m.forward(
        **{n: a[None] for n, a in numbers_of(given, m.vocab).items()}, lengths=[len(given)], outputs=["found"]
    )["found"][0]
    print(" ".join(f"{word}/{TAGS[tag]}" for word, tag in zip(given, found)))
