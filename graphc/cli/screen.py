"""What people see: errors, a progress bar for what takes time, tables. JSON goes to stdout alone."""
from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any

import typer

from ..errors import GraphcError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

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
    """A progress bar over the kernels being compiled, from the second on that it takes. Call it (done, total, name)."""

    def __init__(self) -> None:
        self._begun = time.monotonic()
        self._bar: Progress | None = None

    def __enter__(self) -> KernelProgress:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, done: int, total: int, name: str) -> None:
        if self._bar is None:
            if time.monotonic() - self._begun < PATIENCE or not sys.stderr.isatty():
                return
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
            self._bar = Progress(TextColumn("compiling kernels"), BarColumn(), MofNCompleteColumn(),
                                 console=console(stderr=True), transient=True)
            self._bar.add_task("kernels", total=total)
            self._bar.start()
        self._bar.update(self._bar.task_ids[0], completed=done, total=total)


@contextmanager
def timed() -> Iterator[list[float]]:
    """A list that holds the seconds taken once the block is left."""
    taken: list[float] = []
    begun = time.perf_counter()
    yield taken
    taken.append(time.perf_counter() - begun)
