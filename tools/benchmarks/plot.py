"""Figures as pictures: how much longer the peers take, and the products as shares of the peak."""
from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from .case import Case, Speed
from .cases import CASES
from .cases.products import Product
from .peers import PEERS
from .results import Record, Result
from .targets import OURS

# Okabe and Ito's colours, which colour-blind readers tell apart
_COLOURS = {OURS: "#0072B2", "openblas": "#009E73", "numpy": "#56B4E9", "torch": "#D55E00",
            "torch.compile": "#E69F00", "jax": "#CC79A7"}
_INK = "#222222"


def _rows(record: Record, wanted: Callable[[Case], bool]) -> list[tuple[str, Result]]:
    return [(f"{case.name}, {result.threads}", result) for case in CASES if wanted(case)
            for result in record.results if result.case == case.name and OURS in result.figures]


def _draw(path: Path, rows: list[tuple[str, Result]], names: list[str], value: Callable[[Result, str], float | None],
          label: str, log: bool, line: float) -> bool:
    """Horizontal bars, a group for each row; False where there is nothing to draw."""
    if not rows:
        return False
    with mpl.rc_context({"svg.hashsalt": "graphc", "svg.fonttype": "none", "font.family": "sans-serif",
                         "text.color": _INK, "axes.labelcolor": _INK, "xtick.color": _INK, "ytick.color": _INK}):
        figure = Figure(figsize=(9, 1.4 + 0.16 * len(rows) * (len(names) + 1)), layout="constrained")
        axes = figure.add_subplot()
        step = 1 / (len(names) + 1)
        for n, name in enumerate(names):
            bars = [(i + (n + 0.5) * step, v) for i, (_, r) in enumerate(rows) if (v := value(r, name)) is not None]
            axes.barh([at for at, _ in bars], [v for _, v in bars], height=step * 0.9, label=name,
                      color=_COLOURS.get(name, "#999999"))
        axes.axvline(line, color=_INK, linewidth=0.8)
        axes.set_yticks([i + len(names) * step / 2 for i in range(len(rows))], [text for text, _ in rows])
        axes.invert_yaxis()
        axes.margins(y=0.01)
        if log:
            axes.set_xscale("log")
            axes.xaxis.set_major_formatter(lambda v, _: f"{v:g}")
        axes.set_xlabel(label)
        axes.grid(axis="x", color="#dddddd", linewidth=0.6)
        axes.set_axisbelow(True)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
        figure.legend(loc="outside upper center", ncols=len(names), frameon=False)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, metadata={"Date": None})
    return True


def _present(rows: list[tuple[str, Result]], ours: bool) -> list[str]:
    return [n for n in PEERS if (ours or n != OURS) and any(n in r.figures for _, r in rows)]


def draw_ratios(record: Record, path: Path) -> bool:
    """Peers' times divided by graphc's, but for products."""
    rows = _rows(record, lambda case: isinstance(case.measure, Speed) and not isinstance(case.workload, Product))
    return _draw(path, rows, _present(rows, False), lambda r, n: r.figures[n].ratio if n in r.figures else None,
                 "time : graphc's time (case, threads); right of the line graphc is faster", True, 1.0)


def draw_products(record: Record, path: Path) -> bool:
    """Products as shares of the peak; of the forms with equal sizes, the plain one and the prepacked."""
    rows = _rows(record, lambda case: isinstance(case.workload, Product) and case.name.endswith(("/nn", "/packed")))
    return _draw(path, rows, _present(rows, True), lambda r, n: _percent(r, n), "% of the peak (case, threads)", False, 100)


def _percent(result: Result, name: str) -> float | None:
    figures = result.figures.get(name)
    return 100 * figures.share if figures and figures.share is not None else None


#: file → (what it shows, how it is drawn)
PICTURES: dict[str, tuple[str, Callable[[Record, Path], Any]]] = {
    "benchmarks.svg": ("The peers' times divided by graphc's", draw_ratios),
    "benchmarks-products.svg": ("Matrix products, in percent of the peak", draw_products),
}
