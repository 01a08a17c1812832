"""Gradient descent on the simplest valley, f(x) = ½x².

    x ← x − η f′(x) = x − η x = (1 − η) x        so after k steps  xₖ = (1 − η)ᵏ x₀

The learning rate η decides everything:

    0 < η < 1    x creeps to the minimum at 0 from one side
    η = 1        it is there after one step
    1 < η < 2    it overshoots to the other side each time, but comes closer
    η = 2        it jumps between x₀ and −x₀ for ever
    η > 2        it flies away

The parameter x is updated by each call of the model. `gc.grad` derives f′; write another f, and the rest holds.

    python models/gradient_descent.py        draw the paths of four learning rates into gradient_descent.png
    graphc compile models/gradient_descent.py --set eta=0.5 --stop-after codegen
"""

import graphc as gc


@gc.model
def gradient_descent(*, eta: float = 0.3, start: float = 4.0):
    x = gc.param("x", init=start)
    loss = 0.5 * gc.square(x)
    slope = gc.grad(loss, x)
    gc.update(x, x - eta * slope)
    return gc.outputs(x=x, slope=slope, loss=loss)  # as they are before the step


def path(eta, steps=12, start=4.0):
    """(x, f(x)) before each step."""
    m = gc.compile(gradient_descent, eta=eta, start=start)
    calls = [m.forward() for _ in range(steps)]
    return [(float(now["x"]), float(now["loss"])) for now in calls]


def plot(file="gradient_descent.png", rates=(0.1, 0.6, 1.8, 2.1)):
    """Draw the valley, and a path in it for each learning rate."""
    import numpy as np
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 3), layout="constrained")
    for axes, eta in zip(figure.subplots(1, len(rates)), rates, strict=True):
        points = np.array(path(eta))
        reach = np.abs(points[:, 0]).max() * 1.1
        valley = np.linspace(-reach, reach, 200)
        axes.plot(valley, valley**2 / 2, color="#999999")
        axes.plot(*points.T, "o-", color="#D55E00", markersize=4, linewidth=1)
        axes.set(title=f"η = {eta}", xlabel="x")
    figure.axes[0].set_ylabel("½x²")
    figure.savefig(file, dpi=150)
    print(f"the paths are drawn in {file}")


if __name__ == "__main__":
    plot()
