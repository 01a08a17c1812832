"""Forecasting a time series: its next value from a window of the last ones, by a recurrent network.

The series is made of a trend, a season of 24 steps, and noise, as a load or a temperature by the hour may be:

    y_t = a t + 3 sin(2πt/24) + sin(4πt/24 + 1) + ε_t        ε_t normal, with the deviation σ = 0.3

    x  = (y_{t−n}, …, y_{t−1})         a window
    u  = x − y_{t−1}                   seen from its last value: the trend may take the level anywhere
    h  = GRU(u), its last state        or an LSTM's: --set cell=lstm
    ŷ  = y_{t−1} + w·h + b             the last value, and a change that is learned
    L  = mean (ŷ − y_t)²

Two forecasts that know nothing but the window show what this is worth:

    naive      ŷ = y_{t−1}             right but for one step's change and noise: its error is 2σ² and more
    seasonal   ŷ = y_{t−24}            right but for a season's trend and noise: 2σ² and (24a)²

No forecast has a mean squared error below σ² = 0.09, the noise of the value itself. What is held back is the last fifth
of the time, whose level the training has never seen; there the naive forecast has 0.60, the seasonal one 0.22, and after
15 epochs the network has about 0.12.

    graphc train models/forecasting.py
    python models/forecasting.py build/forecasting          draw what it forecasts into forecasting.png
    graphc render models/forecasting.py --set cell=lstm
    graphc explain models/forecasting.py --set hidden=4
"""

import sys

import numpy as np

import graphc as gc

training = dict(epochs=15, batch_size=32, optimizer="adam", lr=3e-3)


@gc.model
def forecasting(x: gc.f32["B", "N"], y: gc.f32["B"], *, season: int = 24, hidden: int = 32, cell: str = "gru"):
    last = x[:, -1]
    u = gc.expand_dims(x - last[:, None], -1)
    if cell == "lstm":
        _, (h, _) = gc.nn.lstm(u, hidden)
    else:
        _, h = gc.nn.gru(u, hidden)
    y_hat = last + gc.nn.linear(h, 1, name="out")[:, 0]
    return gc.outputs(
        y_hat=y_hat,
        loss=gc.nn.mse(y_hat, y),
        naive=gc.nn.mse(last, y),
        seasonal=gc.nn.mse(x[:, -season], y),
    )


def series(length=3000, season=24, trend=0.01, noise=0.3, seed=0):
    """The series of the docstring."""
    t = np.arange(length)
    angle = 2 * np.pi * t / season
    return trend * t + 3 * np.sin(angle) + np.sin(2 * angle + 1) + np.random.default_rng(seed).normal(0, noise, length)


def data(window: int = 48, length: int = 3000, season: int = 24, trend: float = 0.01, noise: float = 0.3):
    """Every window with the value after it; those of the last fifth of the time are held back."""
    if window < season or length < 2 * window + 10:
        raise gc.GraphcError(
            f"a series of {length} values has no windows of {window}",
            how=f"a window holds a season of {season} values, and the series two windows and 10 values",
        )
    values = series(length, season, trend, noise)
    x, y = np.lib.stride_tricks.sliding_window_view(values[:-1], window), values[window:]
    cut = len(y) * 4 // 5
    return gc.Dataset(train=dict(x=x[:cut], y=y[:cut]), valid=dict(x=x[cut:], y=y[cut:]))


def ahead(model, window, steps):
    """The next values after a window, each forecast from those before it, forecasts among them: so errors add up."""
    values = [float(v) for v in window]
    for _ in range(steps):
        x = np.array([values[-len(window) :]], np.float32)
        values.append(float(model.forward(x=x, outputs=["y_hat"])["y_hat"][0]))
    return np.array(values[len(window) :])


def plot(model, file="forecasting.png", window=48, steps=72):
    """Draw the end of the series, its forecasts one step ahead, and one of many steps from where it ends."""
    from matplotlib.figure import Figure

    x, y = (np.asarray(v, np.float32) for v in data(window).valid.values())
    x, y = x[-2 * steps :], y[-2 * steps :]
    one = model.forward(x=x, outputs=["y_hat"])["y_hat"]
    figure = Figure(figsize=(9, 3.5), layout="constrained")
    axes = figure.subplots()
    axes.plot(y, color="#999999", label="the series")
    axes.plot(one, color="#0072B2", linewidth=1, label="one step ahead")
    later = np.arange(steps, 2 * steps)
    axes.plot(later, ahead(model, x[steps], steps), "--", color="#D55E00", label=f"{steps} steps ahead")
    axes.set(xlabel="t")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1))
    figure.savefig(file, dpi=150)
    print(f"the forecasts are drawn in {file}")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(f"usage: python {sys.argv[0]} build/forecasting")
    plot(gc.load(sys.argv[1]))
