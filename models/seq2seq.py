"""Sequence to sequence: an encoder reads letters, a decoder says their phonemes, and attention tells it where to look.

The encoder (two GRUs, one from each end) turns the letters x_1 … x_S into one vector m_s for each letter:

    m_s = [h→_s, h←_s]                     what stands before and after letter s
    d_0 = tanh(W [h→_S, h←_1])             the decoder begins with what both have read

The decoder (Sutskever, Vinyals and Le 2014; Cho et al. 2014) says one symbol after the other, given those before:

    d_t = GRU(y_{t−1}, d_{t−1})            y_0 is a sign for the beginning, and the last y one for the end
    p_t = softmax(V d_t)
    L   = −log p_t[y_t]                    the mean over all symbols; padding does not count

Here all that the decoder knows of a word is d_0, one vector for words of any length. With attention (Bahdanau, Cho and
Bengio 2015; this form: Luong, Pham and Manning 2015) it looks back at the letters, at each step where it needs to:

    a_ts = softmax over s of  d_t · A m_s      how much it looks at letter s; nothing beyond the word's end
    c_t  = Σ_s a_ts m_s                        what it sees
    d′_t = tanh(C [d_t, c_t])                  stands for d_t in p_t

Teacher forcing: in training y_{t−1} is the right symbol, whatever the decoder would have said; so all steps of the loop
over t are known beforehand. To use it, y_{t−1} is what it said itself: the most probable symbol (`greedy`), or the best
few beginnings are followed at once, and the one of the highest probability in all is taken (`beam`). Both run the models
`encode` and `decode`, which share the parameters, and the folder, of `seq2seq`, the one that is trained. The rate of
errors is the edit distance (insertions, deletions, substitutions) in proportion to the number of right symbols.

    graphc train models/seq2seq.py
    python models/seq2seq.py build/seq2seq

learns to say made-up words backwards, which shows that it works: try `--set attention=False`. A dictionary of
pronunciations, lines as `cough  K AO1 F` in the form of cmudict (the stress, a digit, is left away), a twentieth of it
held back:

    graphc train models/seq2seq.py --set path=DICT --set hidden=128 --epochs 6 --batch-size 128
    python models/seq2seq.py build/seq2seq DICT wrought phonograph

After six passes over 120,000 words of cmudict 8.8% of the phonemes of words that it has not seen are wrong (beam; greedy
8.9%); without attention 10.8% (11.4%).
"""

import random
import re
import sys

import numpy as np

import graphc as gc

training = dict(epochs=6, batch_size=64, optimizer="adam", lr=3e-3)

END, START = 0, 1  # the first two numbers of the decoder's symbols; the encoder's begin with padding


# -- the model -------------------------------------------------------------------------------------------------------
def encoder(x, length, symbols, embedding, hidden):
    """(m, d_0) of words x (B, S)."""
    e = gc.take(gc.param("letters", (symbols, embedding)), x)
    m, (ahead, back) = gc.nn.gru(e, hidden, name="encoder", bidirectional=True, lengths=length)
    return m, gc.tanh(gc.nn.linear(gc.concat([ahead, back], axis=-1), hidden, name="bridge"))


def speech(d, m, length, symbols, attention):
    """The logits of decoder states d (B, T, H), and where each looks, (B, T, S)."""
    asked = gc.nn.linear(d, m.shape[-1], name="attention", bias=False)  # d A: in use, m is the same at every step
    scores = gc.einsum("btm,bsm->bts", asked, m)
    inside = gc.arange(m.shape[1]) < length[:, None]
    a = gc.softmax(gc.where(inside[:, None], scores, -1e9))
    if attention:
        seen = gc.einsum("bts,bsm->btm", a, m)
        d = gc.tanh(gc.nn.linear(gc.concat([d, seen], axis=-1), d.shape[-1], name="combine"))
    return gc.nn.linear(d, symbols, name="out"), a


@gc.model
def seq2seq(
    x: gc.i64["B", "S"],
    x_length: gc.i32["B"],
    y: gc.i64["B", "T"],
    y_length: gc.i32["B"],
    *,
    letters: int = 32,
    phonemes: int = 48,
    embedding: int = 32,
    hidden: int = 64,
    attention: bool = True,
):
    m, d0 = encoder(x, x_length, letters, embedding, hidden)
    before = gc.concat([gc.full((gc.dim("B"), 1), START, gc.i64), y[:, :-1]], axis=1)
    e = gc.take(gc.param("phonemes", (phonemes, embedding)), before)
    d, _ = gc.nn.gru(e, hidden, name="decoder", initial=d0)  # the padding is at the end: no symbol comes after it
    logits, _ = speech(d, m, x_length, phonemes, attention)
    counts = gc.cast(gc.arange(gc.dim("T")) < y_length[:, None], logits.dtype)
    return gc.outputs(
        loss=gc.sum(counts * gc.nn.cross_entropy(logits, y, reduction="none")) / gc.sum(counts),
        accuracy=gc.sum(counts * gc.equal(gc.argmax(logits, axis=-1), y)) / gc.sum(counts),
    )


@gc.model
def encode(x: gc.i64["B", "S"], x_length: gc.i32["B"], *, letters: int = 32, embedding: int = 32, hidden: int = 64):
    m, d = encoder(x, x_length, letters, embedding, hidden)
    return gc.outputs(m=m, d=d)


@gc.model
def decode(
    y: gc.i64["B"],
    d: gc.f32["B", "H"],
    m: gc.f32["B", "S", "M"],
    x_length: gc.i32["B"],
    *,
    phonemes: int = 48,
    embedding: int = 32,
    hidden: int = 64,
    attention: bool = True,
):
    """One step: from the symbol before and the state to the next symbol's log p, the next state, and where it looked."""
    d = gc.broadcast_to(d, (gc.dim("B"), hidden))  # H and M, which depend on a hyperparameter
    m = gc.broadcast_to(m, (gc.dim("B"), gc.dim("S"), 2 * hidden))
    d = gc.nn.gru_cell(gc.take(gc.param("phonemes", (phonemes, embedding)), y), d, name="decoder")
    logits, a = speech(d[:, None], m, x_length, phonemes, attention)
    return gc.outputs(log_p=gc.log_softmax(logits[:, 0]), d=d, a=a[:, 0])


# -- decoding --------------------------------------------------------------------------------------------------------
def greedy(model, x, x_length, longest=30):
    """For each word the most probable symbol after each other, without the end."""
    state = model.encode.forward(x, x_length)
    m, d = state["m"], state["d"]
    y, said = np.full(len(x), START), []
    for _ in range(longest):
        step = model.decode.forward(y, d, m, x_length, outputs=["log_p", "d"])
        d, y = step["d"], step["log_p"].argmax(axis=1)
        said.append(y)
        if all((np.array(said) == END).any(axis=0)):
            break
    return [until_end(word) for word in np.array(said).T]


def beam(model, x, x_length, width=4, longest=30):
    """For each word what has the highest probability in all, of the `width` best beginnings of each length."""
    words, rows = len(x), np.arange(len(x))[:, None]
    state = model.encode.forward(x, x_length)
    # each word has `width` rows; at first they are equal, so but one of them counts
    m, d, length = (np.repeat(a, width, axis=0) for a in (state["m"], state["d"], np.asarray(x_length)))
    total = np.where(np.arange(width) > 0, -np.inf, np.zeros((words, 1)))
    said = np.full((words, width, 1), START)
    for _ in range(longest):
        step = model.decode.forward(said[:, :, -1].ravel(), d, m, length, outputs=["log_p", "d"])
        log_p = step["log_p"].reshape(words, width, -1).astype(float)
        ended = (said == END).any(axis=2)
        log_p[ended] = np.where(np.arange(log_p.shape[2]) == END, 0.0, -np.inf)  # goes on with the end, at no cost
        sums = (total[:, :, None] + log_p).reshape(words, -1)
        best = np.argsort(-sums, axis=1, kind="stable")[:, :width]
        total, (parent, symbol) = sums[rows, best], np.divmod(best, log_p.shape[2])
        said = np.concatenate([said[rows, parent], symbol[:, :, None]], axis=2)
        d = step["d"].reshape(words, width, -1)[rows, parent].reshape(d.shape)
        if (said == END).any(axis=2).all():
            break
    return [until_end(word[0, 1:]) for word in said]


def until_end(symbols):
    """The numbers before the first END."""
    symbols = [int(s) for s in symbols]
    return symbols[: symbols.index(END)] if END in symbols else symbols


def distance(a, b):
    """The edit distance of two sequences (Levenshtein): the fewest insertions, deletions and substitutions."""
    row = list(range(len(b) + 1))
    for i, left in enumerate(a, 1):
        before, row = row, [i]
        for j, right in enumerate(b, 1):
            row.append(min(before[j] + 1, row[-1] + 1, before[j - 1] + (left != right)))
    return row[-1]


def error_rate(said, right):
    """Edit distances in proportion to the symbols of what is right."""
    return sum(map(distance, said, right)) / sum(map(len, right))


# -- words -----------------------------------------------------------------------------------------------------------
def pairs(path=""):
    """(letters, phonemes) of a dictionary's words; or made-up words, to be said backwards."""
    if not path:
        rng = random.Random(0)
        made = ("".join(rng.choices("abcdefghij", k=rng.randint(2, 9))) for _ in range(5000))
        return [(word, list(reversed(word))) for word in dict.fromkeys(made)]
    try:
        with open(path, encoding="utf-8") as file:
            lines = [re.sub(r"#.*|\d", "", line).split() for line in file if "(" not in line.split(" ")[0]]
    except OSError as error:
        raise gc.GraphcError(
            f"the dictionary {path} cannot be read: {error.strerror}", how="give another with --set path=FILE"
        ) from error
    return [(word, said) for word, *said in lines if said]


def split(path="", longest=16):
    """The pairs to learn from, and a twentieth that is held back; no word is longer than `longest`."""
    short = [(word, said) for word, said in pairs(path) if max(len(word), len(said)) <= longest]
    random.Random(1).shuffle(short)
    cut = len(short) // 20
    if not cut:
        raise gc.GraphcError(f"a dictionary of {len(short)} words is too short", how="give one of 20 words or more")
    return short[cut:], short[:cut]


def alphabets(examples):
    """The letters after padding, and the phonemes after END and START."""
    letters, phonemes = (sorted({symbol for word in words for symbol in word}) for words in zip(*examples, strict=True))
    return ["<pad>", *letters], ["</s>", "<s>", *phonemes]


def padded(sequences, symbols, end=()):
    """Sequences of symbols as numbers (B, the longest), and their lengths; an unknown symbol is an error."""
    index = {symbol: k for k, symbol in enumerate(symbols)}
    unknown = sorted({symbol for word in sequences for symbol in word} - set(index))
    if unknown:
        raise gc.GraphcError(f"unknown symbols: {' '.join(unknown)}", how=f"there are: {' '.join(symbols)}")
    numbers = [[*(index[symbol] for symbol in word), *end] for word in sequences]
    array = np.zeros((len(numbers), max(map(len, numbers))), np.int64)
    for row, word in zip(array, numbers, strict=True):
        row[: len(word)] = word
    return array, np.array([len(word) for word in numbers], np.int32)


def data(path: str = "", longest: int = 16, letters: int = 32, phonemes: int = 48):
    """The words of a dictionary, a twentieth of them held back."""
    train, valid = split(path, longest)
    known = alphabets([*train, *valid])
    for name, symbols, size in zip(("letters", "phonemes"), known, (letters, phonemes), strict=True):
        if len(symbols) > size:
            raise gc.GraphcError(f"there are {len(symbols)} {name}", how=f"--set {name}={len(symbols)}")

    def arrays(examples):
        x, x_length = padded([word for word, _ in examples], known[0])
        y, y_length = padded([said for _, said in examples], known[1], end=[END])
        return dict(x=x, x_length=x_length, y=y, y_length=y_length)

    return gc.Dataset(train=arrays(train), valid=arrays(valid), vocab=dict(zip(("letters", "phonemes"), known)))


def main(folder, path="", *words):
    """Say words; or, of those held back, measure the rate of errors."""
    model, (train, valid) = gc.load(folder), split(path)
    letters, phonemes = alphabets([*train, *valid])
    if words:
        x, length = padded(words, letters)
        for word, said in zip(words, beam(model, x, length), strict=True):
            print(word, " ".join(phonemes[s] for s in said))
        return
    x, length = padded([word for word, _ in valid], letters)
    right = [[phonemes.index(s) for s in said] for _, said in valid]
    for name, decoder in (("greedy", greedy), ("beam", beam)):
        said = decoder(model, x, length)
        wrong = sum(a != b for a, b in zip(said, right, strict=True)) / len(right)
        print(f"{name:6}  {error_rate(said, right):.2%} of the symbols are wrong, {wrong:.1%} of the words")


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(f"usage: python {sys.argv[0]} build/seq2seq [DICT that it was trained on [WORD …]]")
    main(*sys.argv[1:])
