"""textgenrnn (Woolf 2018): a pretrained character model, two LSTMs of 128 and attention, that goes on with a text.

    e_t = E[x_t]                                 the last 40 characters; 0 where the text is shorter, at its beginning
    a_t = LSTM₁(e)_t,    b_t = LSTM₂(a)_t
    v_t = [e_t, a_t, b_t]                        whatever is known of character t, 356 numbers
    α   = softmax over t of  v_t · w             how much each counts for the next one
    p   = softmax((Σ_t α_t v_t) V + c)           a probability for each of 464 characters; number 0 is none
    L   = −log p[next character]

The weights, learned from hundreds of thousands of titles of posts, are in the package textgenrnn as an HDF5 file, which
h5py reads:

    pip install --no-deps textgenrnn h5py        (the package itself would need TensorFlow; its file does not)

They were trained by cuDNN, and lie in the file as cuDNN has them: each gate's block of the input's kernel is a matrix
(units, features) whose rows follow each other, though the array says (features, units); the recurrent blocks are
transposed; there are two biases, to be added; and the gates are in the order i, f, g, o. Here they are f, i, g, o.

    python models/textgenrnn.py "I just found"
    graphc render models/textgenrnn.py
    graphc explain models/textgenrnn.py --set characters=3 --set embedding=2 --set hidden=2
"""

import json
import sys
from importlib import metadata
from pathlib import Path

import numpy as np

import graphc as gc

WINDOW = 40
BEGIN = "<s>"  # before each text, and after it


@gc.model
def textgenrnn(
    x: gc.i64["B", "T"], character: gc.i64["B"], *, characters: int = 465, embedding: int = 100, hidden: int = 128
):
    e = gc.take(gc.param("embedding", (characters, embedding)), x)
    a, _ = gc.nn.lstm(e, hidden, name="rnn_1")
    b, _ = gc.nn.lstm(a, hidden, name="rnn_2")
    v = gc.concat([e, a, b], axis=-1)
    alpha = gc.softmax(gc.nn.linear(v, 1, name="attention", bias=False), axis=1)
    logits = gc.nn.linear(gc.sum(alpha * v, axis=1), characters, name="output")
    return gc.outputs(p=gc.softmax(logits), alpha=alpha[:, :, 0], loss=gc.nn.cross_entropy(logits, character))


def package():
    """The folder of the installed package."""
    try:
        return Path(metadata.distribution("textgenrnn").locate_file("textgenrnn"))
    except metadata.PackageNotFoundError as error:
        raise gc.GraphcError(
            "the package textgenrnn is not installed", how="pip install --no-deps textgenrnn h5py"
        ) from error


def weights(file):
    """The parameters by name, from an HDF5 file of the package."""
    try:
        import h5py
    except ImportError as error:
        raise gc.GraphcError("h5py, which reads the weights, is not installed", how="pip install h5py") from error
    found = {}
    with h5py.File(file) as stored:
        stored.visititems(lambda name, item: found.update({name: item[()]} if isinstance(item, h5py.Dataset) else {}))
    named = {name.split("/", 1)[1].removesuffix(":0"): array for name, array in found.items()}
    result = {
        "embedding": named["embedding/embeddings"],
        "attention/W": named["attention/attention_W"],
        "output/W": named["output/kernel"],
        "output/b": named["output/bias"],
    }
    for layer in ("rnn_1", "rnn_2"):
        own = (named[f"{layer}/{part}"] for part in ("kernel", "recurrent_kernel", "bias"))
        result |= {f"{layer}/{name}": array for name, array in zip("WUb", of_cudnn(*own), strict=True)}
    return result


def of_cudnn(kernel, recurrent, bias):
    """W, U and b of an LSTM from cuDNN's form, as the first lines tell it."""
    W = [block.reshape(block.shape[::-1]).T for block in np.split(kernel, 4, axis=1)]
    U = [block.T for block in np.split(recurrent, 4, axis=1)]
    b = np.split(bias[: len(bias) // 2] + bias[len(bias) // 2 :], 4)
    return tuple(np.concatenate([part[k] for k in (1, 0, 2, 3)], axis=-1) for part in (W, U, b))


def pretrained(folder=None):
    """The compiled model with the package's weights, and the number of each character."""
    place = Path(folder) if folder else package()
    stored = weights(place / "textgenrnn_weights.hdf5")
    characters, embedding = stored["embedding"].shape
    sizes = dict(characters=characters, embedding=embedding, hidden=len(stored["rnn_1/U"]))
    m = gc.compile(textgenrnn, **sizes)
    for name, parameter in m.params.items():
        parameter[...] = stored[name]
    return m, json.loads((place / "textgenrnn_vocab.json").read_text("utf-8"))


def window(text, vocabulary):
    """The last characters as numbers (1, 40); what is not known is 0, as is what stands before the text."""
    numbers = [vocabulary.get(character, 0) for character in text[-WINDOW:]]
    return np.array([[0] * (WINDOW - len(numbers)) + numbers])


def go_on(model, vocabulary, text, length=200):
    """The text and so many characters more, fewer where it ends before; always the most probable one."""
    characters = {number: character for character, number in vocabulary.items()}
    said = [BEGIN, *text]
    for _ in range(length):
        p = model.forward(x=window(said, vocabulary), outputs=["p"])["p"][0]
        following = characters[int(p[1:].argmax()) + 1]
        if following == BEGIN:
            break
        said.append(following)
    return "".join(said[1:])


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(f'usage: python {sys.argv[0]} "I just found" [FOLDER of the package]')
    print(go_on(*pretrained(*sys.argv[2:]), sys.argv[1]))
