"""A character language model of a simple recurrent network (Elman 1990; Mikolov et al. 2010).

    e_t = E[x_t]                                the character's embedding, a row of the matrix E
    h_t = tanh(e_t W + h_{t−1} U + b)           what the network remembers of all characters so far
    p_t = softmax(h_t V + d)                    a probability for each character to come next
    L   = −log p_t[x_{t+1}]                     the mean over all characters, in nats

Its perplexity is e^L: as unsure as if it chose among so many characters that are equally likely.

A text is long, so the gradient goes back no further than the steps of a batch: truncated backpropagation through time.
The state does go on: each row of a batch continues where the same row of the batch before it ended, and begins with
h = 0 where an epoch begins. `h` is a state of the model, set when a call ends.

The gradient through T steps is a product of T Jacobians, diag(1 − h²) Uᵀ. It vanishes or grows with T. Against growth
helps clipping: gradients whose norm is above 1 are scaled down to it. Against vanishing help gates: see lstm_lm.py.

    graphc train models/rnn_lm.py
    graphc generate build/rnn_lm --prompt "12 green bottles"

The text that it learns is made here: the song of 99 green bottles, of which the last tenth is held back. Another text:

    graphc train models/rnn_lm.py --set path=TEXT --set batch=32 --set steps=64 --set hidden=256 --epochs 9

A text may have up to `vocabulary` different characters.
"""

import graphc as gc

training = dict(epochs=15, optimizer="adam", lr=5e-3, clip=1.0)


@gc.model
def rnn_lm(
    x: gc.i64["B", "T"], y: gc.i64["B", "T"], *, vocabulary: int = 96, embedding: int = 64, hidden: int = 128
):
    h0 = gc.state("h", ("B", hidden))
    e = gc.take(gc.param("E", (vocabulary, embedding)), x)
    hs, h = gc.nn.rnn(e, hidden, initial=h0)
    gc.update(h0, h)
    logits = gc.nn.linear(hs, vocabulary, name="out")
    loss = gc.nn.cross_entropy(logits, y)
    return gc.outputs(logits=logits, loss=loss, perplexity=gc.exp(loss))


def data(path: str = "", batch: int = 16, steps: int = 32, vocabulary: int = 96):
    """A text in `batch` streams that are read side by side, `steps` characters at a time; the last tenth is held back."""
    text = gc.train.read_text(path) if path else song()
    vocab = gc.Vocabulary.of(text)
    if len(vocab) > vocabulary:
        raise gc.GraphcError(f"the text has {len(vocab)} different characters", how=f"--set vocabulary={len(vocab)}")
    numbers = vocab.encode(text)
    cut = len(numbers) * 9 // 10
    return gc.Dataset(
        train=gc.train.Streams(numbers[:cut], batch, steps),
        valid=gc.train.Streams(numbers[cut:], batch, steps),
        vocab=vocab,
    )


def song():
    """A text that cannot be sung without remembering a number."""
    lines = ("{} green bottle{} hanging on the wall,\n" * 2 + "And if one green bottle should accidentally fall,\n"
             "There'll be {} green bottle{} hanging on the wall.\n\n")
    counts = [(n, "s" * (n != 1)) for n in range(99, -1, -1)]
    return "".join(lines.format(*counts[i], *counts[i], *counts[i + 1]) for i in range(99))
