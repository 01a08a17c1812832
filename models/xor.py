"""XOR: the smallest network that a single perceptron cannot replace.

The answer is 1 where exactly one of two bits is 1. No line separates the two answers, so one linear unit cannot learn
it; one hidden layer of two rectified units can. These weights are exact:

    hidden/W = [[1, 1], [1, 1]]     h₁ = relu(x₁ + x₂)
    hidden/b = [0, −1]              h₂ = relu(x₁ + x₂ − 1), which is 1 for (1, 1) alone
    out/W    = [[1], [−2]]          y  = h₁ − 2 h₂
    out/b    = 0

    x₁ x₂ │ h₁ h₂ │ y
     0  0 │  0  0 │ 0
     0  1 │  1  0 │ 1
     1  0 │  1  0 │ 1
     1  1 │  2  1 │ 0

With two hidden units many beginnings lead nowhere: a unit that is 0 for all four inputs has a gradient of 0, and stays.
So `hidden` is 16 when it is not set, enough that some units live; `--set hidden=2` with one --seed and another shows the
difference.

    graphc train models/xor.py
    graphc compile models/xor.py --set hidden=2 --stop-after differentiate
"""

import numpy as np

import graphc as gc

training = dict(epochs=20, optimizer="adam", lr=0.05)


@gc.model
def xor(x: gc.f32["B", 2], y: gc.f32["B", 1], *, hidden: int = 16):
    h = gc.relu(gc.nn.linear(x, hidden, name="hidden", init="he_uniform"))
    y_hat = gc.nn.linear(h, 1, name="out")
    return gc.outputs(y_hat=y_hat, loss=gc.nn.mse(y_hat, y))


def data():
    """All there is, the four rows of the table, as one batch; an epoch is 25 steps with it."""
    x = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.float32)
    return gc.Dataset(train=[dict(x=x, y=x.sum(axis=1, keepdims=True) % 2)] * 25)
