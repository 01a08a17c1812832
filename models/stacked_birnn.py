"""Stacked bidirectional networks: which brackets of a text have a partner?

    →h¹_t = tanh(→W¹ x_t + →U¹ →h¹_{t−1} + →b¹)        the first layer, from the left,
    ←h¹_t = tanh(←W¹ x_t + ←U¹ ←h¹_{t+1} + ←b¹)        and from the right
    x²_t  = (→h¹_t, ←h¹_t)                            what the second layer reads: every place knows both sides
    p_t   = softmax over classes of (→h²_t, ←h²_t) V + c

In `a ( b ) )` the last bracket is alone; in `( ( a )` the first one is. From the left alone it cannot be known whether
a "(" will be closed, from the right alone not whether a ")" was opened. The second layer sees what both directions of
the first have counted.

    graphc train models/stacked_birnn.py
    graphc train models/stacked_birnn.py --set bidirectional=false       at most nine of ten
    graphc train models/stacked_birnn.py --set layers=1
    graphc train models/stacked_birnn.py --set cell=gru --set merge=sum

`accuracy` counts the brackets alone.
"""

import numpy as np

import graphc as gc

training = dict(epochs=12, batch_size=32, optimizer="adam", lr=3e-3, clip=1.0)

SIGNS = gc.Vocabulary.of("()abc")


@gc.model
def stacked_birnn(
    x: gc.i64["B", "T"],
    y: gc.i64["B", "T"],
    *,
    cell: str = "rnn",
    hidden: int = 32,
    layers: int = 2,
    dropout: float = 0.0,
    bidirectional: bool = True,
    merge: str = "concat",
):
    cells = dict(rnn=gc.nn.rnn, lstm=gc.nn.lstm, gru=gc.nn.gru)
    if cell not in cells:
        raise gc.GraphcError(f"there is no cell {cell!r}", how=f"one of {', '.join(cells)}")
    e = gc.take(gc.param("E", (len(SIGNS), 8)), x)
    h, _ = cells[cell](
        e, hidden, layers=layers, dropout=dropout, bidirectional=bidirectional, merge=merge, name="stack"
    )
    logits = gc.nn.linear(h, 2, name="out")
    bracket = gc.where(x < 2, 1.0, 0.0)  # the first two signs are the brackets
    right = gc.where(gc.equal(gc.argmax(logits, axis=-1), y), bracket, 0.0)
    total = gc.maximum(gc.sum(bracket), 1.0)
    loss = gc.sum(bracket * gc.nn.cross_entropy(logits, y, reduction="none")) / total
    return gc.outputs(logits=logits, loss=loss, accuracy=gc.sum(right) / total)


def partners(text):
    """1 for each bracket that has a partner, 0 for every other sign."""
    found, open_at = [0] * len(text), []
    for at, sign in enumerate(text):
        if sign == "(":
            open_at.append(at)
        elif sign == ")" and open_at:
            found[at] = found[open_at.pop()] = 1
    return found


def data(count: int = 2000, length: int = 16):
    """Random texts; a tenth is held back."""
    rng = np.random.default_rng(0)
    texts = ["".join(rng.choice([*"()()abc"], size=length)) for _ in range(count)]
    x, y = np.stack([SIGNS.encode(t) for t in texts]), np.array([partners(t) for t in texts])
    cut = count * 9 // 10
    return gc.Dataset(train=dict(x=x[:cut], y=y[:cut]), valid=dict(x=x[cut:], y=y[cut:]), vocab=SIGNS)
