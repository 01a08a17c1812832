"""A time series: the next value from the values before it, and the days after that from its own forecasts.

    h_t = GRU(h_{t−1}, x_t)          what the past says, after each value
    ŷ_t = x_t + h_t W + b            the next value: the last one, and what the network thinks will be added
    L   = mean of (ŷ_t − x_{t+1})²   over all steps, beginning with the step `warm`: before it little is known

The series is made here, a day a value: a week's rhythm, a year's, a slow trend and noise of standard deviation 0.1,
whose square, 0.01, no forecast can get below. It is learned from windows of 120 days; the last year is held back. Beside
the `loss` stands `naive`, the same of the forecast that it will be as it was a `season`, a week, ago.

    graphc train models/forecasting.py
    python models/forecasting.py build/forecasting        draw four weeks of forecasts into forecasting.png

A series of your own, a number a line, is scaled to mean 0 and standard deviation 1:

    graphc train models/forecasting.py --set path=FILE
"""

import sys

import numpy as np

import graphc as gc

training = dict(epochs=15, batch_size=32, optimizer="adam", lr=5e-3, clip=1.0)

@gc.model
def forecasting(x: gc.f32["B", "T"], y: gc.f32["B", "T"], *, hidden: int = 32, warm: int = 30, season: int = 7):
    hs, _ = gc.nn.gru(gc.expand_dims(x, 2), hidden)
    y_hat = x + gc.squeeze(gc.nn.linear(hs, 1, name="out"), 2)
    return gc.outputs(
        y_hat=y_hat,
        loss=gc.nn.mse(y_hat[:, warm:], y[:, warm:]),
        naive=gc.nn.mse(y[:, warm - season : -season], y[:, warm:]),
    )


def series(path=""):
    """The values of a file, scaled; or six years of days."""
    if path:
        try:
            values = np.loadtxt(path)
        except (OSError, ValueError) as error:
            raise gc.GraphcError(f"the series {path} cannot be read: {error}", how="a file with a number a line") from error
        return (values - values.mean()) / values.std()
    days = np.arange(6 * 365)
    rng = np.random.default_rng(0)
    week = 0.5 * np.sin(2 * np.pi * days / 7) + 0.3 * (days % 7 == 5)
    return week + np.sin(2 * np.pi * days / 365.25) + days / 3650 + 0.1 * rng.standard_normal(len(days))


def data(path: str = "", window: int = 120, held_back: int = 365):
    """Windows of the series, each with the values one day later; those that reach into the last year validate."""
    values = series(path)
    if len(values) < 2 * window + held_back + 2:
        raise gc.GraphcError(f"a series of {len(values)} values is too short", how="--set window=… and held_back=…")
    windows = np.lib.stride_tricks.sliding_window_view(values, window + 1)
    cut = len(windows) - held_back
    # the first window that validates begins where the last one learned from ends
    parts = windows[: cut - window : 3], windows[cut::7]
    train, valid = (dict(x=part[:, :-1], y=part[:, 1:]) for part in parts)
    return gc.Dataset(train=train, valid=valid)


def forecast(model, past, days):
    """The days after a past, each from the forecasts of those before it."""
    known = list(past)
    for _ in range(days):
        known.append(float(model.forward(x=np.array([known], np.float32), outputs=["y_hat"])["y_hat"][0, -1]))
    return np.array(known[len(past) :])


def plot(folder, file="forecasting.png", days=28, before=56):
    """Draw forecasts beside what came."""
    from matplotlib.figure import Figure

    values = series()
    past, coming = values[-120 - days : -days], values[-days:]
    found = forecast(gc.load(folder), past, days)
    figure = Figure(figsize=(7, 3.6), layout="constrained")
    axes = figure.subplots()
    axes.plot(range(-before, 0), past[-before:], color="#555555", label="past")
    axes.plot(range(days), coming, color="#0072B2", label="what came")
    axes.plot(range(days), found, "--", color="#D55E00", label="forecast")
    axes.set(xlabel="day", ylabel="value")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    figure.savefig(file, dpi=150)
    print(f"root mean square error over {days} days: {np.sqrt(np.mean((found - coming) ** 2)):.3f}; drawn in {file}")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(f"usage: python {sys.argv[0]} build/forecasting")
    plot(sys.argv[1])
