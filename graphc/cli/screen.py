"""What people see: errors, a progress bar for what takes time, tables. JSON goes to stdout alone."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any

import typer

from ..errors import GraphcError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

    from ..train.checkpoint import Epoch

PATIENCE = 1.0
"""Seconds that pass without a progress bar."""


def show_error(error: GraphcError) -> None:
    """An error on stderr, its word in red at a terminal."""
    typer.echo(typer.style("error: ", fg="red", bold=True) + str(error), err=True)


def say(text: str) -> None:
    """A line on stdout."""
    typer.echo(text)


def note(text: str) -> None:
    """A line on stderr, which leaves stdout to results."""
    typer.echo(text, err=True)


def print_json(data: Any) -> None:
    """One JSON document on stdout. JSON has no NaN and no infinity: they become null."""
    typer.echo(json.dumps(plain(data), indent=2, ensure_ascii=False))


def plain(value: Any) -> Any:
    """Nested data with NaN and infinities as None."""
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def console(stderr: bool = False) -> Console:
    """A rich console; loaded when it is first needed, to keep --help quick."""
    from rich.console import Console

    return Console(stderr=stderr, highlight=False)


class KernelProgress:
    """A progress bar over the kernels being compiled, with the name of the last, from the second on that it takes.

    Call it (done, total, name). Without a terminal it shows nothing.
    """

    def __init__(self) -> None:
        self._begun = time.monotonic()
        self._bar: Progress | None = None

    def __enter__(self) -> KernelProgress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, done: int, total: int, name: str) -> None:
        if self._bar is None:
            if time.monotonic() - self._begun < PATIENCE or not sys.stderr.isatty():
                return
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

            self._bar = Progress(
                TextColumn("compiling kernels"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[name]}", markup=False),
                console=console(stderr=True),
                transient=True,
            )
            self._bar.add_task("kernels", total=total, name=name)
            self._bar.start()
        self._bar.update(self._bar.task_ids[0], completed=done, total=total, name=name)
        if done == total:  # a terminal has one bar at a time, and another may follow
            self._bar.stop()
            self._bar = None


@contextmanager
def timed() -> Iterator[list[float]]:
    """A list that holds the seconds taken once the block is left."""
    taken: list[float] = []
    begun = time.perf_counter()
    yield taken
    taken.append(time.perf_counter() - begun)


def numbers(values: Mapping[str, float]) -> str:
    """Named numbers on a line: `loss 0.1234, accuracy 0.967`."""
    return ", ".join(f"{name} {value:.4g}" for name, value in values.items())


def epoch_numbers(epoch: Epoch) -> str:
    """What an epoch came to, on a line."""
    return numbers(epoch.train) + (f" | valid: {numbers(epoch.valid)}" if epoch.valid else "")


class TrainingProgress:
    """A progress bar with the loss at a terminal; elsewhere a line at times. Quiet prints no lines, for --json."""

    def __init__(self, epochs: int, quiet: bool = False) -> None:
        self.epochs, self.quiet = epochs, quiet
        self._bar: Progress | None = None
        self._kernels = KernelProgress()
        self._shown = -math.inf
        self._valid = ""

    def __enter__(self) -> TrainingProgress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._kernels.__exit__(kind, error, trace)
        if self._bar is not None:
            self._bar.stop()

    def kernel(self, done: int, total: int, name: str) -> None:
        """Called after each kernel: those of a step are compiled before the first batch, others when they are used."""
        if self._bar is None:
            self._kernels(done, total, name)
        else:
            self._bar.update(self._bar.task_ids[0], text=f"compiling kernels {done}/{total}  {name}")

    def batch(self, epoch: int, done: int, total: int, loss: float) -> None:
        """Called after each batch; drawn at most ten times a second."""
        if not sys.stderr.isatty() or time.monotonic() - self._shown < 0.1:
            return
        self._shown = time.monotonic()
        bar = self._bar or self._start()
        part = epoch + done / total if total else epoch
        bar.update(
            bar.task_ids[0], completed=part, text=f"epoch {epoch + 1}/{self.epochs}  loss {loss:.4g}{self._valid}"
        )

    def epoch(self, number: int, result: Epoch) -> None:
        """Called after each epoch."""
        last = number + 1 == self.epochs
        if result.valid:
            self._valid = f"  valid: {numbers(result.valid)}"
        if self._bar is not None and last:
            self._bar.update(
                self._bar.task_ids[0],
                completed=self.epochs,
                text=f"epoch {self.epochs}/{self.epochs}  {epoch_numbers(result)}",
            )
        elif not sys.stderr.isatty() and not self.quiet and (last or time.monotonic() - self._shown > PATIENCE):
            self._shown = time.monotonic()
            say(f"epoch {number + 1}/{self.epochs}: {epoch_numbers(result)}")

    def _start(self) -> Progress:
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        self._bar = Progress(
            TextColumn("{task.fields[text]}"),
            BarColumn(),
            TimeRemainingColumn(),
            console=console(stderr=True),
            transient=True,
        )
        self._bar.add_task("training", total=self.epochs, text="")
        self._bar.start()
        return self._bar
