"""Figures as text: for the terminal, and as the page docs/benchmarks.md."""
from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from .case import Case, FirstCall, Memory, Speed
from .cases import CASES, GROUPS
from .peers import PEERS
from .results import Figures, Record, Result
from .targets import OURS, Target, Verdict, duration
from .workload import Yardstick

PAGE, PICTURES = "benchmarks.md", "pictures"

_HOW = """\
The competitors of a case run in one process, in turns: in each round everyone has a block of calls, after one call that
is not timed, and the next round begins with another. With several threads a block begins when the pools of the others
have come to rest. So what else happens on the machine hits all alike. Before that their outputs are compared, the loss
and every gradient, or the parameters after several steps; a case whose competitors disagree has no figures. A time is
the median over the rounds, with the quartiles in brackets. A ratio is the peer's time divided by graphc's, the median
over the rounds of the ratio within a round: above 1, graphc is faster.

The process is kept to as many cores as it may use threads, since XLA knows no other limit. All numbers are float32.
Every library is called from Python as its users call it; graphc, NumPy and PyTorch's products write into an array that
is there (`out=`). OpenBLAS is called directly, with the kernels that suit the processor. `torch` is PyTorch's eager mode.

The *peak* is the speed of a loop of multiply-adds that wait for nothing and touch no memory, on one core, times the
number of threads; *copying* is `np.copyto` through memory, as much of it as the case must read and write, a part on every
core in use: the arrays are four times the last-level cache, as STREAM has it, and what stays in a cache is copied up to
twice as fast. Both are timed in turn with the competitors, and a share is the median over the rounds like a ratio.

A virtual machine may find two of its cores on one that is real, for a moment or for seconds: whatever takes several then
gets what one gives. So with several threads multiply-adds run on all cores before and after each block, and where they
take longer than on one core, by more than 15 %, the block does not count, whosever it is; others are tried instead.

Compile times are medians of fresh processes with caches of their own, which are empty at first. Memory is the most that
a process needs for five steps, beyond what it had after steps with a single row of data: libraries, compiled code and
one set of parameters are not counted. Both are measured with the largest number of threads."""


def stated(target: Target) -> str:
    """A target in words."""
    where = {None: "", 1: " on 1 core", -1: " on several cores"}.get(target.threads, f" on {target.threads} cores")
    return target.text + where


def size(count: float) -> str:
    """Bytes as megabytes."""
    return f"{count / 1e6:.0f} MB"


def quantity(case: Case) -> Callable[[float], str]:
    """How a case's figures are written."""
    return size if isinstance(case.measure, Memory) else duration


def spread(figures: Figures, show: Callable[[float], str]) -> str:
    """The quartiles, the unit written once where it is one."""
    (low, unit), (high, other) = (show(v).rsplit(" ", 1) for v in (figures.low, figures.high))
    return f"{low}–{high} {unit}" if unit == other else f"{low} {unit} – {high} {other}"


def verdicts(record: Record, cases: Iterable[Case]) -> list[tuple[Case, Result, Target, Verdict]]:
    """Every target that applies to a result, and what became of it."""
    return [(case, result, target, target.verdict(record, result))
            for case in cases for result in record.results if result.case == case.name
            for target in case.targets if target.applies(result.threads) or not isinstance(case.measure, Speed)]


def yardstick_of(case: Case) -> Yardstick | None:
    return case.workload.yardstick if isinstance(case.measure, Speed) else None


# ------------------------------------------------------------------------------------------------------- the terminal

def plain(record: Record, cases: Sequence[Case]) -> str:
    """All figures as text."""
    lines = [f"{key}: {value}" for key, value in record.machine.items()]
    found = verdicts(record, cases)
    for case in cases:
        show = quantity(case)
        for result in (r for r in record.results if r.case == case.name):
            lines += ["", f"{case.name}, {_threads(result.threads)}: {case.what}"]
            if result.error:
                lines.append(f"  FAILED: {result.error}")
            for name, figures in result.figures.items():
                lines.append("  " + "  ".join(_line(case, name, figures, show)).rstrip())
            lines += [f"  {name:<14} left out: {why}" for name, why in result.skipped.items()]
            for _, _, target, verdict in (f for f in found if f[1] is result):
                lines.append(f"  must reach: {stated(target)}; reached: {verdict.reached}  {_word(verdict)}")
    met = sum(v.met is True for *_, v in found)
    return "\n".join([*lines, "", f"{met} of {len(found)} targets met"])


def _line(case: Case, name: str, figures: Figures, show: Callable[[float], str]) -> list[str]:
    cells = [f"{name:<14}", f"{show(figures.median):>9}", f"[{spread(figures, show)}]".ljust(20)]
    if figures.ratio is not None:
        cells.append(f"{figures.ratio:5.2f}×")
    elif name == OURS:
        cells.append(" " * 6)
    if case.flops:
        cells.append(f"{case.flops / figures.median / 1e9:6.1f} GFLOP/s")
    yardstick = yardstick_of(case)
    if figures.share is not None and yardstick is not None:
        cells.append(f"{100 * figures.share:3.0f} % of {yardstick.name}")
    cells += [f"{key} {_extra(key, value)}" for key, value in figures.extra.items()]
    if figures.left_out:
        cells.append(f"{100 * figures.left_out:.0f} % of the rounds disturbed")
    return cells


def _extra(key: str, value: float) -> str:
    return {"kernels": f"{value:.0f}", "whole": size(value)}.get(key) or duration(value)


def _threads(count: int) -> str:
    return f"{count} thread{'s' * (count > 1)}"


def _word(verdict: Verdict) -> str:
    return {True: "met", False: "NOT MET", None: "—"}[verdict.met]


# ----------------------------------------------------------------------------------------------------------- the page

def page(record: Record, pictures: Sequence[tuple[str, str]] = ()) -> str:
    """docs/benchmarks.md. `pictures` are (file below docs, what it shows)."""
    found = verdicts(record, CASES)
    met = sum(v.met is True for *_, v in found)
    parts = ["# Benchmarks", "This page is written by `tools/bench`; `tools/bench --help` says more.",
             _machine(record), f"{met} of {len(found)} targets are met."]
    parts += [f"![{text}]({path})" for path, text in pictures]
    parts += ["## How it is measured", _HOW, "## What must be reached", _targets(found)]
    for title, cases in GROUPS.items():
        results = [(c, r) for c in cases for r in record.results if r.case == c.name]
        if results:
            parts += [f"## {title}", _figures(results)]
            left_out = sorted({(n, why) for _, r in results for n, why in r.skipped.items()})
            parts += ["\n".join(f"- `{name}` took no part everywhere: {why}" for name, why in left_out)] * bool(left_out)
    return "\n\n".join(parts) + "\n"


def _machine(record: Record) -> str:
    m = record.machine
    libraries = ", ".join(f"{name} {version}" for name, version in record.versions.items() if name != "torch.compile")
    text = (f"Measured on {m['date']}: {m['processor']}, {m['cores']} cores, {m['system']}, Python {m['Python']}; "
            f"{libraries}. The multiply-adds of the peak reach {m['peak']}, copying {m['copy']}.")
    if "note" in m:
        text += f" **The load was {m['load before']} before the run: {m['note']}.**"
    if record.missing:
        text += " Not there: " + "; ".join(f"{name} ({why})" for name, why in record.missing.items()) + "."
    return text


def table(heads: Sequence[str], rows: Iterable[Sequence[str]], right: int = 0) -> str:
    """A Markdown table, its last `right` columns set to the right."""
    rule = ["---"] * (len(heads) - right) + ["---:"] * right
    return "\n".join(f"| {' | '.join(row)} |" for row in [heads, rule, *rows])


def _targets(found: Sequence[tuple[Case, Result, Target, Verdict]]) -> str:
    rows = [(f"`{case.name}`", str(result.threads), stated(target), verdict.reached,
             {True: "met", False: "**not met**", None: "—"}[verdict.met])
            for case, result, target, verdict in found]
    return table(("case", "threads", "must reach", "reached", ""), rows)


def _figures(results: Sequence[tuple[Case, Result]]) -> str:
    peers = [n for n in PEERS if n != OURS and any(n in r.figures for _, r in results)]
    products = any(case.flops for case, _ in results)
    share = next((y.name for case, _ in results if (y := yardstick_of(case))), None)
    alone = any(isinstance(case.measure, FirstCall) for case, _ in results)
    whole = any(isinstance(case.measure, Memory) for case, _ in results)
    heads = ["case", "threads", OURS, *(["GFLOP/s"] if products else []), *([f"of the {share}"] if share else []),
             *(["imports", "kernels"] if alone else []), *(["whole process"] if whole else []), *peers]
    rows = []
    for case, result in results:
        show = quantity(case)
        row = [f"`{case.name}`<br>{case.what}", str(result.threads)]
        ours = result.figures.get(OURS)
        if result.error or ours is None:
            rows.append([*row, f"failed: {result.error}".replace("|", "\\|"), *[""] * (len(heads) - 3)])
            continue
        row.append(f"{show(ours.median)}<br>[{spread(ours, show)}]")
        if products:
            row.append(f"{case.flops / ours.median / 1e9:.1f}" if case.flops else "")
        if share:
            row.append(f"{100 * ours.share:.0f} %" if ours.share is not None else "")
        if alone:
            row += [duration(ours.extra["imports"]), f"{ours.extra['kernels']:.0f}"]
        if whole:
            row.append(size(ours.extra["whole"]))
        for name in peers:
            figures = result.figures.get(name)
            ratio = f", **{figures.ratio:.2f}×**" if figures and figures.ratio is not None else ""
            row.append(f"{show(figures.median)}{ratio}<br>[{spread(figures, show)}]" if figures else "—")
        rows.append(row)
    return table(heads, rows, right=len(heads) - 1)


def write(record: Record, docs: Path) -> list[Path]:
    """Write the page, and its pictures where matplotlib is installed; gives the files."""
    pictures: list[tuple[str, str]] = []
    written = []
    if importlib.util.find_spec("matplotlib") is not None:
        from . import plot

        for name, (text, draw) in plot.PICTURES.items():
            path = docs / PICTURES / name
            if draw(record, path):
                pictures.append((f"{PICTURES}/{name}", text))
                written.append(path)
    target = docs / PAGE
    target.write_text(page(record, pictures), "utf-8")
    return [target, *written]
