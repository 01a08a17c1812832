"""Recurrent models to draw, written with gc.scan alone: one for each form that a picture of a loop has."""

import graphc as gc


def rnn_layer(name, x, hidden, reverse=False, init=None, axis=1):
    """h = tanh(x W + h U + b); (the last h, the hs)"""
    with gc.scope(name):
        W = gc.param("W", (x.shape[-1], hidden))
        U = gc.param("U", (hidden, hidden))
        b = gc.param("b", (hidden,))

        def step(h_old, x_t):
            h = gc.tanh(x_t @ W + h_old @ U + b)
            return h, h

        start = gc.zeros((gc.dim("B"), hidden)) if init is None else init
        return gc.scan(step, init=start, xs=x, axis=axis, reverse=reverse)


def lstm_layer(name, x, hidden, lengths=None):
    with gc.scope(name):
        W = gc.param("W", (x.shape[-1], 4 * hidden))
        U = gc.param("U", (hidden, 4 * hidden))
        b = gc.param("b", (4 * hidden,))

        def step(carry, x_t):
            h_old, c_old = carry
            z = x_t @ W + h_old @ U + b
            f = gc.sigmoid(z[:, :hidden])
            i = gc.sigmoid(z[:, hidden : 2 * hidden])
            g = gc.tanh(z[:, 2 * hidden : 3 * hidden])
            o = gc.sigmoid(z[:, 3 * hidden :])
            c = f * c_old + i * g
            h = o * gc.tanh(c)
            return (h, c), h

        zero = gc.zeros((gc.dim("B"), hidden))
        return gc.scan(step, init=(zero, zero), xs=x, axis=1, lengths=lengths)


@gc.model
def rnn(x: gc.f32["B", "T", 8], y: gc.f32["B", "T", 3]):
    _, h = rnn_layer("rnn", x, 4)
    y_hat = gc.nn.linear(h, 3, name="out")
    return gc.outputs(y_hat=y_hat, loss=gc.nn.mse(y_hat, y))


@gc.model
def lstm_lm(words: gc.i64["B", "T"], following: gc.i64["B", "T"], *, hidden: int = 16, vocabulary: int = 96):
    """A language model: look-up, LSTM, distribution."""
    E = gc.param("E", (vocabulary, 12))
    e = gc.take(E, words)
    _, h = lstm_layer("lstm", e, hidden)
    logits = gc.nn.linear(h, vocabulary, name="out")
    return gc.outputs(logits=logits, loss=gc.nn.cross_entropy(logits, following))


@gc.model
def stacked(x: gc.f32["B", "T", 8], y: gc.i64["B"]):
    """Two layers, the last state of the second classified."""
    _, h1 = rnn_layer("layer1", x, 6)
    last, _ = rnn_layer("layer2", h1, 6)
    logits = gc.nn.linear(last, 3, name="out")
    return gc.outputs(logits=logits, loss=gc.nn.cross_entropy(logits, y))


@gc.model
def tagger(words: gc.i64["B", "T"], tags: gc.i64["B", "T"]):
    """Both directions, put beside each other."""
    e = gc.take(gc.param("E", (50, 8)), words)
    _, h = rnn_layer("forwards", e, 5)
    _, k = rnn_layer("backwards", e, 5, reverse=True)
    both = gc.concat([h, k], axis=-1)
    logits = gc.nn.linear(both, 17, name="out")
    return gc.outputs(logits=logits, loss=gc.nn.cross_entropy(logits, tags))


@gc.model
def seq2seq(letters: gc.i64["B", "S"], phones: gc.i64["B", "T"], following: gc.i64["B", "T"]):
    """An encoder whose last state is the decoder's first."""
    d = gc.take(gc.param("D", (30, 8)), letters)
    last, _ = rnn_layer("encoder", d, 6)
    e = gc.take(gc.param("E", (40, 8)), phones)
    _, h = rnn_layer("decoder", e, 6, init=last)
    logits = gc.nn.linear(h, 40, name="out")
    return gc.outputs(logits=logits, loss=gc.nn.cross_entropy(logits, following))


@gc.model
def attentive(x: gc.f32["B", "S", 4], y: gc.f32["B", "T", 6]):
    """A decoder every step of which reads all states of the encoder."""
    last, memory = rnn_layer("encoder", x, 6)
    A = gc.param("A", (6, 6))
    V = gc.param("V", (6, 6))

    def step(s_old, y_t):
        scores = gc.einsum("bi,ij,bsj->bs", s_old, A, memory)
        a = gc.softmax(scores, axis=-1)
        context = gc.einsum("bs,bsj->bj", a, memory)
        s = gc.tanh(y_t @ V + context)
        return s, s

    _, s = gc.scan(step, init=last, xs=y, axis=1)
    return gc.outputs(s=s, loss=gc.mean(s * s))


@gc.model
def ragged(x: gc.f32["B", "T", 4], n: gc.i64["B"]):
    last, h = lstm_layer("lstm", x, 3, lengths=n)
    pooled = gc.max(h, axis=1)
    return gc.outputs(last=last[0], pooled=pooled, loss=gc.mean(pooled))


@gc.model
def words_in_sentences(x: gc.f32["S", "T", 3]):
    """A loop over sentences, each step a loop over words."""
    v = gc.param("v", (3,))

    def sentence(s_old, sentence_x):
        def word(w_old, x_t):
            w = gc.tanh(w_old * v + x_t)
            return w, None

        w_last, _ = gc.scan(word, init=gc.zeros((3,)), xs=sentence_x)
        s = gc.tanh(s_old + w_last)
        return s, s

    s, _ = gc.scan(sentence, init=gc.zeros((3,)), xs=x)
    return gc.outputs(s=s, loss=gc.sum(s))


@gc.model
def powers(h0: gc.f32[3], *, steps: int = 3):
    """No input at all: a matrix applied again and again."""
    W = gc.param("W", (3, 3))

    def step(h_old, _):
        h = h_old @ W
        return h, h

    h, hs = gc.scan(step, init=h0, length=steps)
    return gc.outputs(h=h, hs=hs, loss=gc.sum(h * h))


@gc.model
def shifted(text: gc.i64["B", "L"]):
    """Each letter from those before it: two parts of one input."""
    E = gc.param("E", (9, 4))
    before, after = text[:, :-1], text[:, 1:]
    last, h = rnn_layer("rnn", gc.take(E, before), 5)
    logits = gc.nn.linear(h, 9, name="out")
    return gc.outputs(last=last, loss=gc.nn.cross_entropy(logits, after))


@gc.model
def joined(x: gc.f32["B", "T", 5]):
    """One weight for what a step takes and what it has, put beside each other."""
    W = gc.param("W", (8, 3))

    def step(h_old, x_t):
        h = gc.tanh(gc.concat([x_t, h_old], axis=-1) @ W)
        return h, h

    h, _ = gc.scan(step, init=gc.zeros((gc.dim("B"), 3)), xs=x, axis=1)
    return gc.outputs(h=h, loss=gc.mean(h * h))


@gc.model
def told_before(y: gc.i64["B", "T"], n: gc.i64["B"]):
    """A decoder that is told the symbol before, with dropout; its loss counts what is inside the sequence."""
    before = gc.concat([gc.full((gc.dim("B"), 1), 7, gc.i64), y[:, :-1]], axis=1)
    e = gc.dropout(gc.take(gc.param("E", (9, 4)), before), 0.25)
    hs, last = gc.nn.lstm(e, 5)
    logits = gc.nn.linear(gc.concat([e, hs], axis=-1), 9, name="out")
    inside = gc.arange(y.shape[1]) < gc.expand_dims(n, 1)
    right = gc.where(inside, gc.equal(gc.argmax(logits, axis=-1), y), False)
    e_last = e[:, -1]
    mse = [gc.nn.mse(v, last[0][:, :4]) for v in (e_last, 2 * e_last)]
    p = gc.softmax(logits, axis=-1)
    return gc.outputs(
        p=p,
        over_time=gc.softmax(hs, axis=1),
        right=gc.sum(right),
        loss=gc.sum(gc.where(inside, gc.nn.cross_entropy(logits, y, reduction="none"), 0.0)) / gc.sum(n),
        one=mse[0],
        two=mse[1],
    )
