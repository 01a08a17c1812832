"""Logistic regression: the probability of a yes, from a weighted sum; its gradient fits on a line.

    z = w·x + b
    p = σ(z) = 1/(1 + e^−z)
    L = −y log p − (1 − y) log(1 − p)          the mean of it over the batch

By the chain rule, with ∂L/∂p = −y/p + (1 − y)/(1 − p) = (p − y) / p(1 − p) and ∂p/∂z = p(1 − p),

    ∂L/∂z = p − y        ∂L/∂w = (σ(w·x + b) − y) x        ∂L/∂b = σ(w·x + b) − y

The formula of L is written below as it stands above. Computed so it would be log 0 = −∞ where p is rounded to 0 or 1;
graphc sees what is meant, and puts −softplus(−z) for log σ(z) and −softplus(z) for log(1 − σ(z)), which are the same.

    graphc explain models/logistic_regression.py --wrt w
    graphc compile models/logistic_regression.py --stop-after stabilise
    graphc train models/logistic_regression.py

The data are scikit-learn's breast cancer measurements: 30 numbers for each of 569 tumours, benign (1) or not. A fifth
is held back; about 98 of 100 of those are told correctly. For data of your own change the 30, and give --data FILE.
"""

import graphc as gc

training = dict(epochs=60, batch_size=32, optimizer="sgd", lr=0.1)


@gc.model
def logistic_regression(x: gc.f32["B", 30], y: gc.f32["B"]):
    w, b = gc.param("w", (30,)), gc.param("b")
    p = gc.sigmoid(x @ w + b)
    loss = -gc.mean(y * gc.log(p) + (1 - y) * gc.log(1 - p))
    return gc.outputs(p=p, loss=loss, accuracy=gc.mean((p > 0.5) == (y > 0.5)))


def data():
    """The measurements, each brought to a mean of 0 and a spread of 1 over the training part."""
    try:
        from sklearn.datasets import load_breast_cancer
        from sklearn.model_selection import train_test_split
    except ImportError as error:
        raise gc.GraphcError(
            "the measurements come with scikit-learn, which is not installed",
            how="pip install -e '.[data]' in graphc's folder",
        ) from error
    x, y = load_breast_cancer(return_X_y=True)
    x, x_test, y, y_test = train_test_split(x, y, test_size=0.2, random_state=0, stratify=y)
    mean, spread = x.mean(axis=0), x.std(axis=0)
    held_back = dict(x=(x_test - mean) / spread, y=y_test)
    return gc.Dataset(train=dict(x=(x - mean) / spread, y=y), valid=held_back)
