"""Activations, each with its derivative.

A network of linear layers alone is one linear layer. What stands between them bends the line, and its derivative is
what the gradient is multiplied by on its way back: where it is 0 nothing is learned.

    step(z)        1 if z > 0, else 0         derivative 0: a perceptron, which no gradient can train
    sigmoid(z)     1/(1 + e^−z)               y(1 − y), at most ¼, and near 0 far out: it saturates
    tanh(z)                                   1 − y², 1 at 0; saturates too
    relu(z)        max(z, 0)                  1 if z > 0, else 0, also at 0
    leaky_relu(z)  z if z > 0, else 0.01 z    1 or 0.01: never quite dead
    elu(z)         z if z > 0, else e^z − 1   1 or e^z
    softplus(z)    log(1 + e^z)               σ(z): a smooth ReLU
    gelu(z)        z Φ(z)                     Φ(z) + z φ(z), Φ and φ being the normal distribution's
    softmax        e^zᵢ / Σⱼ e^zⱼ             ∂pᵢ/∂zⱼ = pᵢ([i = j] − pⱼ)

Softmax takes several numbers. Here it is the probability of the first of three classes whose logits are z, 0, 0, so its
derivative is p(1 − p).

None of the derivatives is written in this file: `gc.grad` of the sum over all elements is the derivative at each
element, since each output depends on its own input alone.

    python models/activations.py             draw them all into activations.png
    graphc verify models/activations.py      prove the derivatives
    python -c 'import graphc as gc; print(gc.op("gelu").partials)'
"""

import graphc as gc


def softmax_of_three(z):
    """softmax(z, 0, 0)₁"""
    logits = gc.stack([z, gc.zeros(z.shape), gc.zeros(z.shape)], axis=1)
    return gc.softmax(logits, axis=1)[:, 0]


ACTIVATIONS = {
    "step": gc.step,
    "sigmoid": gc.sigmoid,
    "tanh": gc.tanh,
    "relu": gc.relu,
    "leaky_relu": gc.leaky_relu,
    "elu": gc.elu,
    "softplus": gc.softplus,
    "gelu": gc.gelu,
    "softmax": softmax_of_three,
}


@gc.model
def activations(z: gc.f32["N"]):
    values = {name: f(z) for name, f in ACTIVATIONS.items()}
    slopes = {f"{name}_slope": gc.grad(gc.sum(y), z) for name, y in values.items()}
    return gc.outputs(**values, **slopes)


def plot(path="activations.png"):
    """Draw every activation and its derivative."""
    import numpy as np
    from matplotlib.figure import Figure

    z = np.linspace(-4, 4, 801, dtype=np.float32)
    found = gc.compile(activations).forward(z)
    figure = Figure(figsize=(9, 8), layout="constrained")
    for axes, name in zip(figure.subplots(3, 3).flat, ACTIVATIONS, strict=True):
        axes.plot(z, found[name], color="#0072B2", label="f(z)")
        axes.plot(z, found[f"{name}_slope"], "--", color="#D55E00", label="f′(z)")
        axes.set(title=name, ylim=(-1.3, 2.3), xlabel="z")
        axes.grid(alpha=0.3)
    figure.axes[0].legend(frameon=False)
    figure.savefig(path, dpi=150)
    print(f"the activations are drawn in {path}")


if __name__ == "__main__":
    plot()
