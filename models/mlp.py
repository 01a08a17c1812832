"""A network of any depth: the same two lines, once for each layer.

    a[0] = x
    z[i] = W[i] a[i−1] + b[i]
    a[i] = g(z[i])               for the hidden layers i = 1, …, k − 1
    ŷ    = softmax(z[k])

Backwards it is two lines again. With δ[i] = ∂L/∂z[i], and L the cross-entropy of the true class,

    δ[k]   = ŷ − y                                y being 1 for the true class, else 0
    δ[i]   = (W[i+1]ᵀ δ[i+1]) ⊙ g′(z[i])
    ∂L/∂W[i] = δ[i] a[i−1]ᵀ        ∂L/∂b[i] = δ[i]

In the program an example is a row of a batch, not a column, so `linear` computes a W + b with W of the shape
(inputs, outputs).

The data are the handwritten digits of models/digits.py: 64 pixels, ten classes.

    graphc train models/mlp.py
    graphc train models/mlp.py --set 'widths=(32, 32, 32, 32)'
    graphc train models/mlp.py --set 'widths=(32, 32, 32, 32)' --set activation=sigmoid     the gradients vanish
    graphc render models/mlp.py --set 'widths=(32, 32, 32, 32)'
"""

import graphc as gc

training = dict(epochs=30, batch_size=32, optimizer="adam", lr=1e-3)


@gc.model
def mlp(x: gc.f32["B", 64], y: gc.i64["B"], *, widths: tuple = (64, 32), activation: str = "relu"):
    g = getattr(gc, activation)
    a = x
    for i, width in enumerate(widths, start=1):
        z = gc.nn.linear(a, width, name=f"layer{i}")
        a = g(z)
    z = gc.nn.linear(a, 10, name=f"layer{len(widths) + 1}")
    accuracy = gc.mean(gc.argmax(z, axis=-1) == y)
    return gc.outputs(z=z, y_hat=gc.softmax(z), loss=gc.nn.cross_entropy(z, y), accuracy=accuracy)


def data():
    """Scikit-learn's digits; a fifth, with every class in its proportion, is held back."""
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
    return gc.Dataset(train=dict(x=x, y=y), valid=dict(x=x_test, y=y_test))
