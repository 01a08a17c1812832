"""From one sequence to another: how a word is spoken, letters to phonemes (Sutskever et al. 2014; Luong et al. 2015).

    →h_s, ←h_s = GRU over the letters from both sides      the encoder; H_s = (→h_s, ←h_s) for each letter
    d_0 = tanh((→h_S, ←h_1) W_0 + b_0)                     what the decoder begins with: all that was read
    d_t = GRU(d_{t−1}, E[y_{t−1}])                         the decoder, from the phoneme before, at first <s>
    a_t = softmax over s of (d_t A)·H_s                    where it looks
    c_t = Σ_s a_ts H_s                                     what it sees there
    p_t = softmax(tanh((d_t, c_t) C) V + b)                a probability for each phoneme, or the end </s>
    L   = the mean of −log p_t[y_t]

In training the decoder is given the right phoneme before each step (teacher forcing), so all steps of L are known at
once. `speak` decodes greedily: it is given what it said itself, the likeliest phoneme of each step. Both are models of
this file and share their parameters. With attention=false the decoder looks nowhere, and has d_0 alone to go by.

    graphc train models/seq2seq.py
    python models/seq2seq.py build/seq2seq banana

The words are made here, with rules like those of a language: "ch" is one sound, "c" is soft before "e" and "i", an "e"
at the end is silent. Real ones, the CMU pronouncing dictionary, without the numbers that mark stress:

    graphc train models/seq2seq.py --set path=CMUDICT --set hidden=256 --epochs 5 --lr 1e-3
    python models/seq2seq.py build/seq2seq --errors --set path=CMUDICT     the phoneme error rate on words held back

The phoneme error rate is the number of phonemes to insert, delete or exchange, by the number of phonemes.
"""

import re
import sys

import numpy as np

import graphc as gc

training = dict(epochs=8, optimizer="adam", lr=3e-3, clip=1.0)

BEGIN, END = "<s>", "</s>"
LETTERS = gc.Vocabulary("'-.abcdefghijklmnopqrstuvwxyz")
SOUNDS = """AA AE AH AO AW AY B CH D DH EH ER EY F G HH IH IY JH K L M N NG OW OY P R S SH T TH UH UW V W Y Z ZH"""
PHONEMES = gc.Vocabulary([END, BEGIN, *SOUNDS.split()], "word")


def encoder(letters, lengths, embedding, hidden):
    """(H of all letters, where there are letters, the decoder's first state)"""
    e = gc.take(gc.param("letters", (len(LETTERS), embedding), init=gc.init.normal(0, 0.3)), letters)
    H, (ahead, back) = gc.nn.gru(e, hidden, bidirectional=True, lengths=lengths, name="encoder")
    inside = gc.expand_dims(gc.arange(letters.shape[1]), 0) < gc.expand_dims(lengths, 1)
    return H, inside, gc.tanh(gc.nn.linear(gc.concat([ahead, back], axis=1), hidden, name="bridge"))


def looked_up(d, H, inside, attention):
    """The logits of the next phonemes of decoder states d (B, T, H)."""
    if attention:
        scores = gc.matmul(gc.nn.linear(d, H.shape[2], name="attention", bias=False), gc.transpose(H, (0, 2, 1)))
        a = gc.softmax(gc.where(gc.expand_dims(inside, 1), scores, -1e9), axis=-1)
        d = gc.concat([d, gc.matmul(a, H)], axis=2)
    seen = gc.tanh(gc.nn.linear(d, d.shape[2] // (3 if attention else 1), name="combined"))
    return gc.nn.linear(seen, len(PHONEMES), name="out")


def sounds(embedding):
    return gc.param("sounds", (len(PHONEMES), embedding), init=gc.init.normal(0, 0.3))


@gc.model
def seq2seq(
    letters: gc.i64["B", "S"],
    lengths: gc.i64["B"],
    before: gc.i64["B", "T"],
    spoken: gc.i64["B", "T"],
    count: gc.i64["B"],
    *,
    embedding: int = 32,
    hidden: int = 64,
    attention: bool = True,
):
    H, inside, d0 = encoder(letters, lengths, embedding, hidden)
    d, _ = gc.nn.gru(gc.take(sounds(embedding), before), hidden, initial=d0, name="decoder")
    logits = looked_up(d, H, inside, attention)
    weight = gc.where(gc.expand_dims(gc.arange(spoken.shape[1]), 0) < gc.expand_dims(count, 1), 1.0, 0.0)
    each = gc.nn.cross_entropy(logits, spoken, reduction="none")
    return gc.outputs(loss=gc.sum(weight * each) / gc.sum(weight))


@gc.model
def speak(
    letters: gc.i64["B", "S"],
    lengths: gc.i64["B"],
    *,
    embedding: int = 32,
    hidden: int = 64,
    attention: bool = True,
    longest: int = 40,
):
    H, inside, d0 = encoder(letters, lengths, embedding, hidden)
    E = sounds(embedding)

    def step(carry, _):
        d, said = carry
        d = gc.nn.gru_cell(gc.take(E, said), d, name="decoder")
        said = gc.argmax(looked_up(gc.expand_dims(d, 1), H, inside, attention)[:, 0], axis=-1)
        return (d, said), said

    first = gc.full((gc.dim("B"),), PHONEMES.index[BEGIN], gc.i64)
    _, said = gc.scan(step, (d0, first), length=longest)
    return gc.outputs(said=gc.transpose(said))


def words_of(path):
    """(word, phonemes) of each line of a pronouncing dictionary: `banana B AH0 N AE1 N AH0`, with comments after #."""
    pairs = []
    for line in gc.train.read_text(path).splitlines():
        word, *phonemes = line.partition("#")[0].split() or [""]
        if phonemes and re.fullmatch(r"[a-z'.-]+", word):  # other ways to say a word, as banana(2), are left out
            pairs.append((word, [p.rstrip("012") for p in phonemes]))
    return pairs


def made(count=1500):
    """Words and how they are spoken, by the rules above."""
    rng = np.random.default_rng(0)
    begins = {"b": "B", "d": "D", "f": "F", "k": "K", "l": "L", "m": "M", "n": "N", "p": "P", "s": "S", "t": "T",
              "ch": "CH", "sh": "SH", "th": "TH", "c": None}
    vowels = {"a": "AE", "e": "EH", "i": "IH", "o": "AA", "u": "AH", "ee": "IY", "oo": "UW"}
    words = {}
    while len(words) < count:
        word, said = "", []
        for _ in range(rng.integers(1, 4)):
            c, v = str(rng.choice([*begins])), str(rng.choice([*vowels]))
            word, said = word + c + v, [*said, begins[c] or ("S" if v[0] in "ei" else "K"), vowels[v]]
        if rng.random() < 0.5:
            word, said = word + "te", [*said, "T"]
        words[word] = said
    return list(words.items())


def split(path=""):
    """(words to learn, words held back): every twentieth, in an order that is the same each time."""
    pairs = words_of(path) if path else made()
    order = np.random.default_rng(0).permutation(len(pairs))
    return [pairs[i] for i in order[len(pairs) // 20 :]], [pairs[i] for i in order[: len(pairs) // 20]]


def data(path: str = "", batch: int = 32):
    """Words as letters and phonemes."""

    def part(pairs):
        spoken = [PHONEMES.encode([*said, END]) for _, said in pairs]
        examples = dict(
            letters=[LETTERS.encode(word) for word, _ in pairs],
            before=[np.array([PHONEMES.index[BEGIN], *s[:-1]]) for s in spoken],
            spoken=spoken,
            count=[len(s) for s in spoken],
        )
        return gc.train.Padded(examples, batch)

    learned, held_back = split(path)
    return gc.Dataset(train=part(learned), valid=part(held_back), vocab=dict(letters=LETTERS, phonemes=PHONEMES))


def spoken_by(model, words):
    """The phonemes of each word, decoded greedily."""
    letters = [LETTERS.encode(word) for word in words]
    result = {}
    for batch in gc.train.Padded(dict(letters=letters, number=np.arange(len(words))), 256).epoch():
        said = model.speak.forward(letters=batch["letters"], lengths=batch["lengths"])["said"]
        for number, row in zip(batch["number"], said):
            end = [*row, PHONEMES.index[END]].index(PHONEMES.index[END])
            result[number] = PHONEMES.decode(row[:end]).split()
    return [result[i] for i in range(len(words))]


def distance(a, b):
    """How many insertions, deletions and exchanges take one sequence to another (Levenshtein 1966)."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        diagonal, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            diagonal, row[j] = row[j], min(diagonal + (x != y), row[j] + 1, row[j - 1] + 1)
    return row[-1]


def error_rate(model, pairs):
    """The phoneme error rate of a model on words."""
    said = spoken_by(model, [word for word, _ in pairs])
    return sum(distance(s, wanted) for s, (_, wanted) in zip(said, pairs)) / sum(len(wanted) for _, wanted in pairs)


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(f"usage: python {sys.argv[0]} build/seq2seq WORD… | --errors [--set path=CMUDICT]")
    trained = gc.load(sys.argv[1])
    if sys.argv[2] == "--errors":
        path = sys.argv[-1].partition("path=")[2]
        print(f"phoneme error rate {error_rate(trained, split(path)[1]):.2%}")
    else:
        for given, phonemes in zip(sys.argv[2:], spoken_by(trained, sys.argv[2:])):
            print(given, *phonemes)
