"""Why a simple recurrent network forgets: the size of ∂h_T/∂h_t for t = 1, …, T, beside that of an LSTM and a GRU.

    RNN     ∂h_t/∂h_{t−1} = diag(1 − h_t²) Uᵀ         so ∂h_T/∂h_t is a product of T − t such matrices
    LSTM    ∂c_t/∂c_{t−1} = diag(f_t) + …             the forget gate f decides; near 1 the gradient goes through
    GRU     ∂h_t/∂h_{t−1} = diag(1 − z_t) + …         the update gate z decides; near 0 the gradient goes through

The size is the length of vᵀ ∂h_T/∂h_t for a direction v, which is the gradient of v·h_T by h_t: to each step's state a 0
is added, and the gradient by these zeros is taken.

    python models/vanishing.py                 draws vanishing.png, and prints the numbers

It shows 100 steps with random inputs: of the RNN with a matrix U that is 0.7, 1 and 1.3 times an orthogonal one; of an
LSTM whose forget gate is half open (bias 0) and open (bias 4); of a GRU of which half of the state is new at each step
(bias 0) and little (bias −4). Trained models learn their gates.

    graphc render models/vanishing.py --model rnn_path -o rnn_path.svg
"""

import numpy as np

import graphc as gc


def sizes(cell, state, x, v, hidden):
    """The lengths of vᵀ ∂h_T/∂h_t for each step, the mean over the batch; `state` is the first one, h first."""

    def step(state, inputs):
        x_t, nudge_t = inputs
        new = cell(x_t, state if len(state) > 1 else state[0])
        h, *others = new if isinstance(new, tuple) else (new,)
        h = h + nudge_t
        return (h, *others), h

    nudge = gc.zeros((*x.shape[:2], hidden))
    (h, *_), _ = gc.scan(step, state, (x, nudge))
    path = gc.grad(gc.sum(h * v), nudge)
    return gc.outputs(size=gc.mean(gc.sqrt(gc.sum(gc.square(path), axis=2)), axis=1))


@gc.model
def rnn_path(x: gc.f32["T", "B", 1], *, hidden: int = 32):
    v, zero = direction(hidden), gc.zeros((gc.dim("B"), hidden))
    return sizes(gc.nn.rnn_cell, (zero,), x, v, hidden)


@gc.model
def lstm_path(x: gc.f32["T", "B", 1], *, hidden: int = 32):
    v, zero = direction(hidden), gc.zeros((gc.dim("B"), hidden))
    return sizes(gc.nn.lstm_cell, (zero, zero), x, v, hidden)


@gc.model
def gru_path(x: gc.f32["T", "B", 1], *, hidden: int = 32):
    v, zero = direction(hidden), gc.zeros((gc.dim("B"), hidden))
    return sizes(gc.nn.gru_cell, (zero,), x, v, hidden)


def direction(hidden):
    """v, of length 1; all models of this file have the same."""
    v = gc.param("v", (hidden,), init=gc.init.normal(0, 1))
    return v / gc.sqrt(gc.sum(gc.square(v)))


def measured(steps=100, hidden=32, batch=16, seed=0):
    """The sizes (steps,) by what is shown, all from the same inputs."""
    m = gc.compile(rnn_path, lstm_path, gru_path, hidden=hidden, dtype="float64")
    rng = np.random.default_rng(seed)
    x = 0.5 * rng.standard_normal((steps, batch, 1))
    orthogonal, _ = np.linalg.qr(rng.standard_normal((hidden, hidden)))
    found = {}
    for scale in (0.7, 1.0, 1.3):
        m.params["rnn/U"] = scale * orthogonal
        found[f"RNN, U of norm {scale}"] = m.rnn_path.forward(x)["size"]
    for bias in (0, 4):
        m.params["lstm/b"][:hidden] = bias
        found[f"LSTM, forget bias {bias}"] = m.lstm_path.forward(x)["size"]
    for bias in (0, -4):
        m.params["gru/b"][hidden : 2 * hidden] = bias
        found[f"GRU, update bias {bias}"] = m.gru_path.forward(x)["size"]
    return found


def plot(file="vanishing.png"):
    """Draw the sizes by t, and print some."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.subplots()
    colours, dashes = {"RNN": "#D55E00", "LSTM": "#0072B2", "GRU": "#009E73"}, ("-", "--", ":")
    found = measured()
    seen = dict.fromkeys(colours, 0)
    for label, size in found.items():
        kind = label.partition(",")[0]
        axes.semilogy(np.arange(1, len(size) + 1), size, dashes[seen[kind]], color=colours[kind], label=label)
        seen[kind] += 1
        back = ", ".join(f"{size[-1 - k]:9.2e} {k:2} steps" for k in (1, 10, 50, 99))
        print(f"{label:24} {back} back")
    axes.set(xlabel="t", ylabel="|vᵀ ∂h_T/∂h_t|")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, fontsize="small")
    figure.savefig(file, dpi=150)
    print(f"they are drawn in {file}")


if __name__ == "__main__":
    plot()
