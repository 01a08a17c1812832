"""The perceptron: one unit that says yes or no, and Rosenblatt's rule by which it learns (1958).

    ŷ = 1 if w·x + b > 0, else 0
    w ← w + η (y − ŷ) x
    b ← b + η (y − ŷ)

No gradient is used: that of a step is 0 wherever it has one. The rule is part of the model, as two `gc.update`s, so
every call that knows the answer y is a step of learning. Where a line separates the two answers the rule finds one
after finitely many mistakes (Novikoff 1962); for AND and OR it needs a few rounds. The answers of XOR are separated by
no line: w comes back to what it was before, and the rule goes on for ever. Two layers are needed: models/xor.py.

`loss` is the share of wrong answers. It is there to be looked at; nothing makes it smaller but the rule.

    graphc train models/perceptron.py                     AND
    graphc train models/perceptron.py --set task=or
    graphc train models/perceptron.py --set task=xor      it never comes to 0
"""

import numpy as np

import graphc as gc

training = dict(epochs=10, batch_size=1)  # one example at a time, as the rule has it

TASKS = {"and": [0, 0, 0, 1], "or": [0, 1, 1, 1], "xor": [0, 1, 1, 0]}


@gc.model
def perceptron(x: gc.f32["B", 2], y: gc.f32["B"], *, eta: float = 1.0):
    w, b = gc.param("w", (2,)), gc.param("b")
    y_hat = gc.step(x @ w + b)
    error = y - y_hat
    gc.update(w, w + eta * (error @ x))  # summed over the batch
    gc.update(b, b + eta * gc.sum(error))
    return gc.outputs(y_hat=y_hat, loss=gc.mean(gc.abs(error)))


def data(task: str = "and"):
    """The four rows of a truth table."""
    if task not in TASKS:
        raise gc.GraphcError(f"there is no task {task!r}", how=f"one of {', '.join(TASKS)}")
    x = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.float32)
    table = dict(x=x, y=np.array(TASKS[task], np.float32))
    return gc.Dataset(train=table, valid=table)
