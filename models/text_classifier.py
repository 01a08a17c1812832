"""Is a sentence praise or blame? A bidirectional LSTM reads it, and what it saw is pooled into one vector.

    e_t = E[w_t]                               each word's embedding
    →h_t, ←h_t = LSTM from the left, from the right
    h_t = (→h_t, ←h_t)                         each word in the light of all others
    v   = max over t of h_t                    for each unit the place where it is largest; or the two last states
    p   = softmax(v W + b)                     a probability for each class
    L   = −log p[class]

The order counts: "not good" blames, though "good" praises. Words are dropped out, numbers of e_t and of v, so that no
answer hangs on a few of them. Sentences of like lengths make a batch; what is beyond a sentence's end is not looked at.

    graphc train models/text_classifier.py
    python models/text_classifier.py build/text_classifier "this film is not really good"

The sentences are made here, of good and bad words and negations. Real ones, a file of each class with one a line
(such as sentence polarity v1.0 of Pang and Lee 2005), of which a tenth is held back for validation and one for the test:

    graphc train models/text_classifier.py --set praise=POS --set blame=NEG --set encoding=latin-1 --lr 1e-3

A vocabulary are the words that are in the training sentences at least `least` times, after the one for all others.
"""

import sys
from collections import Counter

import numpy as np

import graphc as gc

training = dict(epochs=8, optimizer="adam", lr=2e-3, clip=1.0)

UNKNOWN = "<unknown>"


@gc.model
def text_classifier(
    words: gc.i64["B", "T"],
    lengths: gc.i64["B"],
    label: gc.i64["B"],
    *,
    vocabulary: int = 12000,
    embedding: int = 100,
    hidden: int = 128,
    dropout: float = 0.5,
    pool: str = "max",
):
    e = gc.dropout(gc.take(gc.param("E", (vocabulary, embedding), init=gc.init.normal(0, 0.1)), words), dropout)
    hs, ((ahead, _), (back, _)) = gc.nn.lstm(e, hidden, bidirectional=True, lengths=lengths)
    if pool == "max":
        inside = gc.expand_dims(gc.arange(words.shape[1]), 0) < gc.expand_dims(lengths, 1)
        v = gc.max(gc.where(gc.expand_dims(inside, 2), hs, -1.0), axis=1)  # outputs of an LSTM are above −1
    else:
        v = gc.concat([ahead, back], axis=1)
    logits = gc.nn.linear(gc.dropout(v, dropout), 2, name="out")
    return gc.outputs(
        p=gc.softmax(logits),
        loss=gc.nn.cross_entropy(logits, label),
        accuracy=gc.mean(gc.equal(gc.argmax(logits, axis=-1), label)),
    )


def data(
    praise: str = "", blame: str = "", encoding: str = "utf-8", vocabulary: int = 12000, least: int = 1, batch: int = 32
):
    """Sentences of both classes in eight tenths, one and one, drawn the same way each time."""
    if praise and blame:
        classes = [gc.train.read_text(path, encoding).splitlines() for path in (blame, praise)]
        examples = [(line.split(), label) for label, lines in enumerate(classes) for line in lines if line.split()]
    else:
        examples = made()
    order = np.random.default_rng(0).permutation(len(examples))
    parts = np.split(order, [len(order) * 8 // 10, len(order) * 9 // 10])
    counts = Counter(w for i in parts[0] for w in examples[i][0])
    known = [w for w, n in counts.most_common(vocabulary - 1) if n >= least]
    vocab = gc.Vocabulary([UNKNOWN, *known], "word", UNKNOWN)

    def part(chosen):
        words = [vocab.encode(examples[i][0]) for i in chosen]
        return gc.train.Padded(dict(words=words, label=[examples[i][1] for i in chosen]), batch)

    return gc.Dataset(*map(part, parts), vocab=vocab)


def made(count: int = 1200):
    """Sentences with their class; "not" turns a word round, wherever it stands."""
    rng = np.random.default_rng(0)
    sides = [["bad", "dull", "weak", "awful"], ["good", "fine", "fresh", "moving"]]
    things = ["the plot", "the music", "this film", "its hero", "the end of it all"]
    examples = []
    for _ in range(count):
        label, turned = int(rng.integers(2)), rng.random() < 0.4
        said = ["is", *["not"] * turned, *["really"] * int(rng.integers(2)), str(rng.choice(sides[label ^ turned]))]
        examples.append((str(rng.choice(things)).split() + said, label))
    return examples


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(f'usage: python {sys.argv[0]} build/text_classifier "a sentence"')
    m = gc.load(sys.argv[1])
    numbers = m.vocab.encode(sys.argv[2])
    p = m.forward(words=[numbers], lengths=[len(numbers)], outputs=["p"])["p"][0]
    print(f"praise {p[1]:.1%}, blame {p[0]:.1%}")
