"""The progress bar over kernels: what is compiled and how far it is, at a terminal and nowhere else."""
from __future__ import annotations

import io
import sys

import pytest

rich = pytest.importorskip("rich.console")

from graphc.cli import screen  # noqa: E402


class Stream(io.StringIO):
    """A stream that says whether it is a terminal."""

    def __init__(self, terminal):
        super().__init__()
        self.terminal = terminal

    def isatty(self):
        return self.terminal


@pytest.fixture
def seen(monkeypatch):
    """Make stderr a terminal, or not, and give the stream that holds what was drawn."""

    def make(terminal, patience=0.0):
        stream = Stream(terminal)
        monkeypatch.setenv("TERM", "xterm")  # on a dumb terminal there is no bar, wherever the tests run
        monkeypatch.setattr(sys, "stderr", stream)
        monkeypatch.setattr(screen, "PATIENCE", patience)
        monkeypatch.setattr(screen, "console",
                            lambda stderr=False: rich.Console(file=stream, force_terminal=terminal, width=100))
        return stream

    return make


def drive(progress, names):
    for done, name in enumerate(names, 1):
        progress(done, len(names), name)
        if progress._bar is not None:
            progress._bar.refresh()


def test_names_and_counts_at_a_terminal(seen):
    stream = seen(True)
    with screen.KernelProgress() as progress:
        drive(progress, ["fused_hidden", "softmax[0]", "run"])
    text = stream.getvalue()
    for part in ("compiling kernels", "1/3", "fused_hidden", "2/3", "softmax[0]"):
        assert part in text, part
    assert progress._bar is None  # the last kernel ends the bar


def test_second_round_has_a_bar_of_its_own(seen):
    stream = seen(True)
    with screen.KernelProgress() as progress:
        drive(progress, ["a", "b"])
        drive(progress, ["c", "d", "e"])
    assert "1/2" in stream.getvalue() and "2/3" in stream.getvalue()


def test_quiet_without_a_terminal(seen):
    stream = seen(False)
    with screen.KernelProgress() as progress:
        drive(progress, ["a", "b"])
    assert stream.getvalue() == ""


def test_quiet_while_it_is_quick(seen):
    stream = seen(True, patience=60.0)
    with screen.KernelProgress() as progress:
        drive(progress, ["a", "b"])
    assert stream.getvalue() == ""


def test_error_takes_the_bar_away(seen):
    stream, progress = seen(True), screen.KernelProgress()

    def fail():
        with progress:
            progress(1, 3, "a")
            assert progress._bar.live.is_started
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert not progress._bar.live.is_started
    assert "1/3" in stream.getvalue()


def test_training_names_the_kernel(seen):
    stream = seen(True)
    with screen.TrainingProgress(2) as progress:
        progress.batch(0, 1, 2, 0.5)
        progress.kernel(1, 4, "valid_pass")
        progress._bar.refresh()
    assert "compiling kernels 1/4  valid_pass" in stream.getvalue()
