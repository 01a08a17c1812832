"""A feed-forward language model (Bengio, Ducharme, Vincent and Jauvin 2003): the next word from the n words before it.

    eᵢ = E[wᵢ]                         each word's embedding, a row of the matrix E that is learned too
    a  = (e₁, e₂, …, eₙ)               concatenated: the order of the words is kept
    h  = tanh(a W + b)
    p  = softmax(h U + c)              a probability for every word of the vocabulary
    L  = −log p[next word]             the mean over all places in the text

Its perplexity is e^L: as unsure as if it chose among so many words that are equally likely. (The perplexity of a text is
e to the mean of L. What is printed beside `loss` is the mean of e^L over batches, which is a little more.)

    graphc train models/feedforward_lm.py
    python models/feedforward_lm.py build/feedforward_lm "to be"

This learns a page of Hamlet by heart, which shows that it works and how a model without enough text overfits: the
perplexity of the last tenth, which is held back, gets worse and worse. Another text, such as a whole author:

    graphc train models/feedforward_lm.py --set path=TEXT --set vocabulary=5000 --set hidden=128 --lr 1e-3 --epochs 3
    python models/feedforward_lm.py build/feedforward_lm "to be or" TEXT

Words are letters and apostrophes between other signs; each other sign that is no space is a word of its own. Upper case
is read as lower case. The vocabulary are the most frequent words; word 0 stands for every other one.
"""

import re
import sys
from collections import Counter

import numpy as np

import graphc as gc

training = dict(epochs=60, batch_size=32, optimizer="adam", lr=3e-3)

UNKNOWN = "<unknown>"


@gc.model
def feedforward_lm(
    context: gc.i64["B", "N"],
    word: gc.i64["B"],
    *,
    n: int = 3,
    vocabulary: int = 200,
    embedding: int = 32,
    hidden: int = 64,
):
    E = gc.param("E", (vocabulary, embedding), init=gc.init.normal(0, 0.1))
    a = gc.concat([gc.take(E, context[:, i]) for i in range(n)], axis=1)
    h = gc.tanh(gc.nn.linear(a, hidden, name="hidden"))
    logits = gc.nn.linear(h, vocabulary, name="out")
    loss = gc.nn.cross_entropy(logits, word)
    return gc.outputs(p=gc.softmax(logits), loss=loss, perplexity=gc.exp(loss))


def words_of(text):
    """A text as its words."""
    return re.findall(r"[a-z']+|[^a-z'\s]", text.lower())


def vocabulary_of(words, size):
    """The most frequent words, after UNKNOWN; of equally frequent ones the first in the alphabet."""
    ranked = sorted(Counter(words).items(), key=lambda item: (-item[1], item[0]))
    return [UNKNOWN, *(word for word, _ in ranked[: size - 1])]


def read(path=""):
    """The text of a file, or Hamlet's soliloquy."""
    if not path:
        return HAMLET
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except OSError as error:
        raise gc.GraphcError(
            f"the text {path} cannot be read: {error.strerror}", how="give another with --set path=FILE"
        ) from error


def data(path: str = "", n: int = 3, vocabulary: int = 200):
    """Every word of a text after its n predecessors; the last tenth is held back."""
    words = words_of(read(path))
    vocab = vocabulary_of(words, vocabulary)
    index = {word: i for i, word in enumerate(vocab)}
    if len(words) < 10:
        raise gc.GraphcError(f"a text of {len(words)} words is too short", how="give a longer one")
    word = np.array([index.get(w, 0) for w in words])
    padded = np.concatenate([np.zeros(n, int), word[:-1]])  # before its beginning a text has unknown words
    context = np.lib.stride_tricks.sliding_window_view(padded, n)
    cut = len(word) * 9 // 10
    return gc.Dataset(
        train=dict(context=context[:cut], word=word[:cut]),
        valid=dict(context=context[cut:], word=word[cut:]),
        vocab=vocab,
    )


def next_words(model, vocab, text, count=5):
    """The likeliest next words after a text, each with its probability."""
    index = {word: i for i, word in enumerate(vocab)}
    n = model.params["hidden/W"].shape[0] // model.params["E"].shape[1]
    numbers = [index.get(word, 0) for word in words_of(text)]
    context = ([0] * n + numbers)[-n:]
    p = model.forward(context=[context], outputs=["p"])["p"][0]
    return [(vocab[i], float(p[i])) for i in np.argsort(-p)[:count] if i < len(vocab)]


HAMLET = """
To be, or not to be, that is the question:
Whether 'tis nobler in the mind to suffer
The slings and arrows of outrageous fortune,
Or to take arms against a sea of troubles
And by opposing end them. To die, to sleep,
No more; and by a sleep to say we end
The heart-ache and the thousand natural shocks
That flesh is heir to: 'tis a consummation
Devoutly to be wish'd. To die, to sleep;
To sleep, perchance to dream. Ay, there's the rub,
For in that sleep of death what dreams may come,
When we have shuffled off this mortal coil,
Must give us pause. There's the respect
That makes calamity of so long life.
For who would bear the whips and scorns of time,
The oppressor's wrong, the proud man's contumely,
The pangs of despised love, the law's delay,
The insolence of office, and the spurns
That patient merit of the unworthy takes,
When he himself might his quietus make
With a bare bodkin? Who would fardels bear,
To grunt and sweat under a weary life,
But that the dread of something after death,
The undiscover'd country, from whose bourn
No traveller returns, puzzles the will,
And makes us rather bear those ills we have
Than fly to others that we know not of?
Thus conscience does make cowards of us all,
And thus the native hue of resolution
Is sicklied o'er with the pale cast of thought,
And enterprises of great pitch and moment
With this regard their currents turn awry
And lose the name of action. Soft you now,
The fair Ophelia! Nymph, in thy orisons
Be all my sins remember'd.
"""


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4):
        sys.exit(f'usage: python {sys.argv[0]} build/feedforward_lm "to be" [TEXT that it was trained on]')
    trained = gc.load(sys.argv[1])
    known = vocabulary_of(words_of(read(*sys.argv[3:])), len(trained.params["E"]))
    for next_word, probability in next_words(trained, known, sys.argv[2]):
        print(f"{probability:6.1%}  {next_word}")
