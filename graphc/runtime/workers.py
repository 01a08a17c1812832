"""Kernels compiled side by side.

Numba compiles one function at a time in a process, so side by side takes processes. Compiling has two halves
(`graphc.runtime.jit`): Numba's, from a text to LLVM IR, and LLVM's, from there to object code. This process does the
first half of one kernel after the other and leaves the second to a *finisher*, a process that loads LLVM alone, and so
is ready when the first long kernel comes to it. Further processes take whole kernels, where there is so much to do that
they have the time to load Numba.

Nothing waits for a process that has not started yet, or has died: this one does what is left.
"""
from __future__ import annotations

import contextlib
import os
import pickle
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from queue import Empty, SimpleQueue
from typing import Any

from graphc.runtime import jit
from graphc.runtime.collector import no_collection

Job = tuple[str, str, jit.Signature, str]
"""A kernel: the arguments of `jit.compile_source`, of which the last is its symbol."""

Half = tuple[jit.Modules, str]
"""A kernel of which the first half is done: the arguments of `jit.object_code`, of which the last is its symbol."""

Keep = Callable[[str, bytes], None]
"""Called as keep(symbol, object code)."""

TEXT_OF_A_FINISHER, TEXT_OF_A_WORKER = 1500, 10000
"""A finisher is started for so many characters of text; a process that takes whole kernels for so many each. Compiling
takes about 100 µs for each character; a finisher is ready after 85 ms, a process that loads Numba after 400."""


def compile_all(jobs: Iterable[Job], keep: Keep) -> None:
    """Compile kernels; each is kept when it is done, in this thread. RuntimeFault for one that does not compile."""
    waiting = deque(sorted(jobs, key=lambda job: -len(job[0])))  # the longest first: at the end all are done together
    left = {job[-1]: job for job in waiting}
    halves: SimpleQueue[Half | None] = SimpleQueue()
    done: deque[tuple[str, bytes]] = deque()

    def keep_done() -> None:
        while done:
            symbol, code = done.popleft()
            del left[symbol]
            keep(symbol, code)

    finishers, others = _processes([len(job[0]) for job in waiting])
    workers: list[_Worker] = []
    try:
        with contextlib.suppress(OSError):  # the system has no process to give: those that there are will do
            for _ in range(finishers):
                workers.append(_Worker(jit.object_code, halves.get, done))
            for _ in range(others):
                workers.append(_Worker(jit.compile_source, lambda: _first(waiting), done))
        with no_collection():
            while (job := _first(waiting)) is not None:
                source, name, signature, symbol = job
                half = jit.kernel_ir(source, name, signature, jit.compiled_words(source), symbol), symbol
                if finishers:
                    halves.put(half)
                else:
                    done.append((symbol, jit.object_code(*half)))
                keep_done()
            while (rest := _taken(halves)) is not None:
                done.append((rest[-1], jit.object_code(*rest)))
                keep_done()
    finally:
        waiting.clear()
        while _taken(halves) is not None:
            pass
        for _ in range(finishers):
            halves.put(None)
        for worker in workers:
            worker.finish()
        keep_done()
    for job in list(left.values()):  # a process could not: do it here, where an error has a reader
        done.append((job[-1], jit.compile_source(*job)))
        keep_done()


def _processes(lengths: Sequence[int]) -> tuple[int, int]:
    """(finishers, processes that take whole kernels) to start for kernels of so many characters."""
    free, text = min(_processors(), len(lengths)) - 1, sum(lengths)
    finishers = int(free > 0 and text >= TEXT_OF_A_FINISHER)
    return finishers, max(0, min(free - finishers, text // TEXT_OF_A_WORKER))


def _processors() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on every platform
        return os.cpu_count() or 1


def _first(queue: deque[Job]) -> Job | None:
    try:
        return queue.popleft()
    except IndexError:
        return None


def _taken(queue: SimpleQueue[Half | None]) -> Half | None:
    try:
        return queue.get_nowait()
    except Empty:
        return None


class _Worker(threading.Thread):
    """A process that answers `work(*arguments)`, and the thread that talks to it. It may die without harm.

    take: the next arguments, of which the last is a symbol, or None at the end. done: takes (symbol, object code).
    """

    def __init__(self, work: Callable[..., bytes], take: Callable[[], tuple[Any, ...] | None],
                 done: deque[tuple[str, bytes]]) -> None:
        super().__init__(daemon=True)
        self._take, self._done = take, done
        self._ready = False
        # A fresh interpreter rather than a fork or `multiprocessing`: it needs nothing of the caller's main module, and
        # the caller may have threads.
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)}
        body = f"from graphc.runtime import jit; jit.serve(jit.{work.__name__})"
        self._process = subprocess.Popen([sys.executable, "-P", "-c", body], env=environment, stdin=subprocess.PIPE,
                                         stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        self.start()

    def run(self) -> None:
        asked, answers = self._process.stdin, self._process.stdout
        assert asked is not None and answers is not None
        try:
            pickle.load(answers)  # it says when it is ready; until then no kernel waits for it
            self._ready = True
            while (arguments := self._take()) is not None:
                pickle.dump(arguments, asked)
                asked.flush()
                code = pickle.load(answers)
                if code is not None:
                    self._done.append((arguments[-1], code))
        except (OSError, EOFError, pickle.UnpicklingError):
            return  # the process is gone

    def finish(self) -> None:
        """Wait for the kernel in work, if any, and end the process."""
        if not self._ready:
            self._process.kill()
        self.join()
        self._process.kill()
        self._process.communicate()
