"""Losses: how wrong an answer is, as one number; and what each sends back.

For numbers, with the error r = ŷ − y:             loss                                  slope ∂loss/∂ŷ

    mse                    squared error           r²                                    2r: twice as wrong, twice the push
    mae                    absolute error          |r|                                   sign r, 0 at 0: an outlier
                                                                                         pushes no harder than others
    huber                  of both                 ½r² if |r| ≤ δ, else δ(|r| − ½δ)      r, cut off at ±δ

For yes or no, y being 1 or 0, from a score z:                                           slope ∂loss/∂z

    binary_cross_entropy   −log p of the truth     −y log σ(z) − (1 − y) log(1 − σ(z))   σ(z) − y
    hinge                  a margin, s = 2y − 1    max(0, 1 − s z)                       −s if s z < 1, else 0

For one of several classes, from scores z with q = softmax(z):

    cross_entropy          −log p of the truth     −log q_y                              q − e_y, where e_y is 1 at y
    kl_divergence          distance from p         Σ p log(p/q)                          q − p

Each is a model of this file, and the mean over the examples, so its slopes are those above divided by their number. The
slopes are derived; the tests compare them with the right column.

    graphc explain models/losses.py --model huber --wrt y_hat
    graphc explain models/losses.py --model cross_entropy
    graphc verify models/losses.py
"""

import graphc as gc


@gc.model
def mse(y_hat: gc.f32["B"], y: gc.f32["B"]):
    return with_slope(gc.nn.mse(y_hat, y), y_hat)


@gc.model
def mae(y_hat: gc.f32["B"], y: gc.f32["B"]):
    return with_slope(gc.nn.mae(y_hat, y), y_hat)


@gc.model
def huber(y_hat: gc.f32["B"], y: gc.f32["B"], *, delta: float = 1.0):
    return with_slope(gc.nn.huber(y_hat, y, delta=delta), y_hat)


@gc.model
def binary_cross_entropy(z: gc.f32["B"], y: gc.f32["B"]):
    return with_slope(gc.nn.binary_cross_entropy(z, y), z)


@gc.model
def hinge(z: gc.f32["B"], y: gc.f32["B"]):
    return with_slope(gc.nn.hinge(z, 2 * y - 1), z)


@gc.model
def cross_entropy(z: gc.f32["B", "C"], y: gc.i64["B"]):
    return with_slope(gc.nn.cross_entropy(z, y), z)


@gc.model
def kl_divergence(z: gc.f32["B", "C"], p: gc.f32["B", "C"]):
    return with_slope(gc.nn.kl_divergence(z, p), z)


def with_slope(loss, prediction):
    return gc.outputs(loss=loss, slope=gc.grad(loss, prediction))
