"""Vanishing and exploding gradients: how much of h_t is left in h_T, for an RNN, a GRU and an LSTM.

What a network learns about step t from an error at step T has passed through a product of T − t Jacobians:

    ∂h_T/∂h_t = J_T J_{T−1} ⋯ J_{t+1}        of an RNN  J_k = diag(1 − h_k²) Uᵀ

so its size shrinks or grows by about the same factor each step: by at most γ = |U| (the largest singular value), as
tanh′ ≤ 1. With γ < 1 it vanishes at least as fast as γ^(T−t), and what happened early cannot be learnt. With γ > 1 it may
explode, where the units do not saturate, and one step of learning throws the parameters far away (clip the gradients).

Gates make the product one that may stay near 1. Along the LSTM's memory, and the GRU's state,

    c_k = f_k ⊙ c_{k−1} + …          ∂c_k/∂c_{k−1} = diag(f_k) + …
    h_k = (1 − z_k) ⊙ h_{k−1} + …    ∂h_k/∂h_{k−1} = diag(1 − z_k) + …

and the network itself decides, unit by unit, by f and z, what is kept. With all biases 0 a fresh gate is about ½, and ½ a
step vanishes quickly as well; so one begins with a forget bias of 1 or more (Jozefowicz et al. 2015): f = σ(b_f) is 0.5
with 0, 0.73 with 1, 0.95 with 3, and 0.95⁵⁰ = 0.08. `keeping` sets it. The size by t is

    size_t = |∂h_T/∂h_t| / √H        Frobenius' norm: the root mean square of the singular values, 1 at t = T

and of the LSTM `memory_t` is the same of ∂h_T/∂c_t. The Jacobians are found by `gc.grad` and two tricks. A number added
to a value has the gradient of that value: so a nudge of zero is added to every h_t. And row i of a Jacobian is the
gradient of h_T's element i: so the same sequence runs H times side by side, and the sum of the i-th run's element i is
differentiated once.

    python models/vanishing.py                                     draw the sizes into vanishing.png
    graphc render models/vanishing.py --model rnn
    graphc verify models/vanishing.py --set hidden=2
    graphc explain models/vanishing.py --model rnn --set hidden=2
"""

import numpy as np

import graphc as gc

FEATURES = 8


def sizes(cell, x, start, gain):
    """What is differentiated, and |∂h_T/∂s_t| / √H by t for each array s of the state: (h,), or (h, c) of an LSTM."""
    hidden = start[0].shape[1]
    nudges = gc.zeros((gc.dim("T"), len(start), hidden, hidden))

    def step(state, at):
        x_t, nudge = at
        x_t = gc.broadcast_to(x_t, (hidden, FEATURES))  # the runs side by side
        state = cell(x_t, state, recurrent_init=gc.init.orthogonal(gain))
        state = state if isinstance(state, tuple) else (state,)
        return tuple(s + nudge[k] for k, s in enumerate(state)), None

    (h, *_), _ = gc.scan(step, start, (x, nudges))
    chosen = gc.sum(gc.const(np.eye(hidden)) * h)  # of run i its element i
    J = gc.grad(chosen, nudges)
    size = gc.sqrt(gc.sum(gc.square(J), axis=(2, 3)) / hidden)
    return chosen, *(size[:, k] for k in range(len(start)))


@gc.model
def rnn(x: gc.f32["T", FEATURES], *, hidden: int = 32, gain: float = 1.0):
    chosen, size = sizes(gc.nn.rnn_cell, x, (gc.zeros((hidden, hidden)),), gain)
    return gc.outputs(loss=chosen, size=size)


@gc.model
def gru(x: gc.f32["T", FEATURES], *, hidden: int = 32, gain: float = 1.0):
    chosen, size = sizes(gc.nn.gru_cell, x, (gc.zeros((hidden, hidden)),), gain)
    return gc.outputs(loss=chosen, size=size)


@gc.model
def lstm(x: gc.f32["T", FEATURES], *, hidden: int = 32, gain: float = 1.0):
    chosen, size, memory = sizes(gc.nn.lstm_cell, x, (gc.zeros((hidden, hidden)),) * 2, gain)
    return gc.outputs(loss=chosen, size=size, memory=memory)


def keeping(model, name, bias, **hyperparameters):
    """A compiled gru or lstm whose gates begin biased towards keeping: f = 1 − z = σ(bias)."""
    m = gc.compile(model, **hyperparameters)
    b = m.params[f"{name}/b"]
    if name == "lstm":
        b[: len(b) // 4] = bias  # the block of f
    else:
        b[len(b) // 3 : 2 * len(b) // 3] = -bias  # of z
    return m


def plot(file="vanishing.png", steps=50, seed=0):
    """Draw the sizes of fresh networks over t, on a sequence of random numbers."""
    from matplotlib.figure import Figure

    x = np.random.default_rng(seed).normal(0, 0.3, (steps, FEATURES))
    curves = (
        ("RNN, γ = 0.9", gc.compile(rnn, gain=0.9), "size", dict(color="#D55E00")),
        ("RNN, γ = 1", gc.compile(rnn, gain=1.0), "size", dict(color="#D55E00", linestyle="--")),
        ("RNN, γ = 1.5", gc.compile(rnn, gain=1.5), "size", dict(color="#D55E00", linestyle=":")),
        ("GRU", gc.compile(gru), "size", dict(color="#009E73")),
        ("GRU, 1 − z ≈ 0.95", keeping(gru, "gru", 3.0), "size", dict(color="#009E73", linestyle="--")),
        ("LSTM, ∂h_T/∂c_t", gc.compile(lstm), "memory", dict(color="#0072B2")),
        ("LSTM, ∂h_T/∂c_t, f ≈ 0.95", keeping(lstm, "lstm", 3.0), "memory", dict(color="#0072B2", linestyle="--")),
    )
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for label, m, output, style in curves:
        size = m.forward(x.astype(np.float32), outputs=[output])[output]
        print(f"{label:28} size at t = 1: {size[0]:.1e}")
        size = np.where(size > 0, size, np.nan)  # h_T is made before the nudge of c_T
        axes.semilogy(np.arange(1, steps + 1), size, label=label, **style)
    axes.set(xlabel="t", ylabel="size of ∂h_T/∂h_t")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, fontsize="small")
    figure.savefig(file, dpi=150)
    print(f"the sizes are drawn in {file}")


if __name__ == "__main__":
    plot()
