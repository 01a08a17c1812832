"""The loss curve of a training, drawn with matplotlib where it is installed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..errors import ArtifactError
from .checkpoint import Epoch

# two colours that colour-blind people tell apart (Okabe and Ito), and two dashes
_STYLES = {"train": ("#0072B2", "-"), "valid": ("#D55E00", "--")}


def draw_curve(history: Sequence[Epoch], path: str | Path, title: str = "") -> Path | None:
    """Draw the mean loss of each epoch into a PNG file. None where matplotlib is not installed."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return None
    # a Figure of its own, without pyplot: no window system is asked for, no global state is touched
    figure = Figure(figsize=(6.4, 4.0), dpi=150, layout="constrained")
    axes = figure.subplots()
    for part, (colour, dash) in _STYLES.items():
        points = [(n, getattr(e, part)["loss"]) for n, e in enumerate(history, 1) if "loss" in getattr(e, part)]
        if points:
            axes.plot(
                *zip(*points, strict=True), dash, color=colour, label=part, marker="o" if len(points) < 3 else None
            )
    losses = [e.train["loss"] for e in history]
    if losses and min(losses) > 0 and max(losses) > 20 * min(losses):
        axes.set_yscale("log")
    axes.set(xlabel="epoch", ylabel="mean loss", title=title)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    target = Path(path)
    temporary = target.with_name(f".{target.name}.part.png")
    try:
        figure.savefig(temporary)
        temporary.replace(target)
    except OSError as error:
        raise ArtifactError(f"the curve {target} cannot be written: {error.strerror or error}") from error
    return target
