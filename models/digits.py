"""Handwritten digits: 64 pixels → 128 → 64 → 10 classes.

    graphc train models/digits.py

The data are scikit-learn's bundled digits: 1,797 pictures of 8 × 8 pixels with values 0 to 16, in ten classes. A
fifth is held back, the same fifth each time, with every class in its proportion. After 40 epochs about 96 of 100 of
those held back are read correctly.
"""

import graphc as gc

# what `graphc train` takes where the command line says nothing else
training = dict(epochs=40, batch_size=32, optimizer="adam", lr=1e-3)


@gc.model
def digits(pixels: gc.f32["B", 64], label: gc.i64["B"], *, first: int = 128, second: int = 64):
    # ReLU layers begin with He's initialisation: it keeps the variance of what passes through them
    h = gc.relu(gc.nn.linear(pixels, first, name="first", init="he_normal"))
    h = gc.relu(gc.nn.linear(h, second, name="second", init="he_normal"))
    logits = gc.nn.linear(h, 10, name="out")
    return gc.outputs(
        logits=logits,
        label_hat=gc.argmax(logits, axis=-1),
        loss=gc.nn.cross_entropy(logits, label),
        accuracy=gc.mean(gc.equal(gc.argmax(logits, axis=-1), label)),
    )


def data():
    """The bundled digits; the held-back fifth serves to watch the training, and as the test."""
    try:
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split
    except ImportError as error:
        raise gc.GraphcError(
            "the digits come with scikit-learn, which is not installed",
            how="pip install -e '.[data]' in graphc's folder",
        ) from error
    pixels, labels = load_digits(return_X_y=True)
    x, x_test, y, y_test = train_test_split(pixels / 16, labels, test_size=0.2, random_state=0, stratify=labels)
    held_back = dict(pixels=x_test, label=y_test)
    return gc.Dataset(train=dict(pixels=x, label=y), valid=held_back)
