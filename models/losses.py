"""Losses: how wrong an answer is, as one number; and what each sends back.

For numbers, with the error r = ŷ − y:

    mean squared error     r²                                    2r: twice as wrong, twice the push
    mean absolute error    |r|                                   sign r: outliers push no harder than others (0 at 0)
    Huber                  ½r² if |r| ≤ δ, else δ(|r| − ½δ)      r, cut off at ±δ: both of the above

For yes and no, from a score z:

    binary cross-entropy   −y log σ(z) − (1 − y) log(1 − σ(z))   σ(z) − y,      y being 0 or 1
    hinge                  max(0, 1 − s z)                       −s if s z < 1, else 0,   s = 2y − 1 being −1 or 1

For one of several classes, from scores z with q = softmax(z):

    cross-entropy          −log q_y                              q − e_y, where e_y is 1 for the class y, else 0
    KL divergence          Σ p log(p/q)                          q − p: cross-entropy less the entropy of p

Each is the mean over the examples, so the gradients are those above divided by the number of examples. The gradients
below are derived, and the tests compare them with the right column.

    graphc explain models/losses.py --model yes_or_no
    graphc verify models/losses.py
"""

import graphc as gc


@gc.model
def numbers(y_hat: gc.f32["B"], y: gc.f32["B"], *, delta: float = 1.0):
    losses = dict(
        mse=gc.nn.mse(y_hat, y),
        mae=gc.nn.mae(y_hat, y),
        huber=gc.nn.huber(y_hat, y, delta=delta),
    )
    return with_slopes(losses, y_hat)


@gc.model
def yes_or_no(z: gc.f32["B"], y: gc.f32["B"]):
    losses = dict(
        binary_cross_entropy=gc.nn.binary_cross_entropy(z, y),
        hinge=gc.nn.hinge(z, 2 * y - 1),
    )
    return with_slopes(losses, z)


@gc.model
def one_of_several(z: gc.f32["B", "C"], y: gc.i64["B"], p: gc.f32["B", "C"]):
    losses = dict(
        cross_entropy=gc.nn.cross_entropy(z, y),
        kl_divergence=gc.nn.kl_divergence(z, p),
    )
    return with_slopes(losses, z)


def with_slopes(losses, z):
    """The losses by name, and the gradient of each by z."""
    return gc.outputs(**losses, **{f"{name}_slope": gc.grad(loss, z) for name, loss in losses.items()})
