"""Activations, each with its derivative.

A network of linear layers alone is one linear layer. What stands between them bends the line, and its derivative is
what the gradient is multiplied by on its way back: where it is 0 nothing is learned.

                f(z)                        f′(z)
    heaviside   1 if z > 0, else 0          0: a step; no gradient can train a perceptron
    sigmoid     1/(1 + e^−z)                y(1 − y), at most ¼, and near 0 far out: it saturates
    tanh                                    1 − y², which is 1 at 0; it saturates too
    relu        max(z, 0)                   1 if z > 0, else 0, also at 0
    leaky_relu  z if z > 0, else 0.01 z     1 or 0.01: never quite dead
    elu         z if z > 0, else e^z − 1    1 or e^z
    softplus    log(1 + e^z)                σ(z): a smooth ReLU
    gelu        z Φ(z)                      Φ(z) + z φ(z), Φ and φ being those of the normal distribution
    softmax     pᵢ = e^zᵢ / Σⱼ e^zⱼ         ∂pᵢ/∂zⱼ = pᵢ([i = j] − pⱼ), a matrix

None of these derivatives is written in this file; they are derived. But for softmax each output depends on its own
input alone, so the gradient of their sum, which is called `loss` here, is the derivative at each of them. Softmax has
a matrix of derivatives; its loss is p₀, and so its slope the first row.

    python models/activations.py                          draw them all into activations.png
    graphc explain models/activations.py --model gelu
    graphc verify models/activations.py
    python -c "import graphc as gc; print(gc.op('gelu').partials)"
"""

import graphc as gc


def with_slope(y, loss, z):
    return gc.outputs(y=y, slope=gc.grad(loss, z), loss=loss)


@gc.model
def heaviside(z: gc.f32["N"]):
    y = gc.step(z)
    return with_slope(y, gc.sum(y), z)


@gc.model
def sigmoid(z: gc.f32["N"]):
    y = gc.sigmoid(z)
    return with_slope(y, gc.sum(y), z)


@gc.model
def tanh(z: gc.f32["N"]):
    y = gc.tanh(z)
    return with_slope(y, gc.sum(y), z)


@gc.model
def relu(z: gc.f32["N"]):
    y = gc.relu(z)
    return with_slope(y, gc.sum(y), z)


@gc.model
def leaky_relu(z: gc.f32["N"], *, leak: float = 0.01):
    y = gc.leaky_relu(z, leak)
    return with_slope(y, gc.sum(y), z)


@gc.model
def elu(z: gc.f32["N"], *, alpha: float = 1.0):
    y = gc.elu(z, alpha)
    return with_slope(y, gc.sum(y), z)


@gc.model
def softplus(z: gc.f32["N"]):
    y = gc.softplus(z)
    return with_slope(y, gc.sum(y), z)


@gc.model
def gelu(z: gc.f32["N"]):
    y = gc.gelu(z)
    return with_slope(y, gc.sum(y), z)


@gc.model
def softmax(z: gc.f32["N"]):
    p = gc.softmax(z)
    return with_slope(p, p[0], z)


ACTIVATIONS = (heaviside, sigmoid, tanh, relu, leaky_relu, elu, softplus, gelu, softmax)


def plot(path="activations.png"):
    """Draw every activation and its derivative; softmax as p₀ of three classes, over z₀, with z₁ = z₂ = 0."""
    import numpy as np
    from matplotlib.figure import Figure

    m = gc.compile(*ACTIVATIONS)
    z = np.linspace(-4, 4, 401, dtype=np.float32)
    figure = Figure(figsize=(9, 8), layout="constrained")
    for axes, activation in zip(figure.subplots(3, 3).flat, ACTIVATIONS, strict=True):
        name = activation.name
        if name == "softmax":
            each = [m.softmax.forward([float(z0), 0.0, 0.0]) for z0 in z]
            y, slope = ([found[part][0] for found in each] for part in ("y", "slope"))
        else:
            found = m.entries[name].forward(z)
            y, slope = found["y"], found["slope"]
        axes.plot(z, y, color="#0072B2", label="f(z)")
        axes.plot(z, slope, "--", color="#D55E00", label="f′(z)")
        axes.set(title=name, ylim=(-1.3, 2.3), xlabel="z₀" if name == "softmax" else "z")
        axes.grid(alpha=0.3)
    figure.axes[0].legend(frameon=False)
    figure.savefig(path, dpi=150)
    print(f"the activations are drawn in {path}")


if __name__ == "__main__":
    plot()
