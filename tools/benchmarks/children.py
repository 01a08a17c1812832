"""Starting the processes that measure, and turning what they answer into results."""
from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from .case import Case, FirstCall, Memory, Speed
from .peers import PEERS
from .results import Figures, Result, result_from
from .targets import OURS

ROOT = Path(__file__).resolve().parents[2]
CASE_SECONDS, QUICK_SECONDS = 3.0, 0.2
ROUNDS, QUICK_ROUNDS = (7, 41), (3, 5)
REPEATS = 5
"""Processes whose median says a compile time or a size in memory."""
SLOW_REPEATS, SLOW = 2, 10.0
"""Fewer of those that take longer than SLOW seconds."""
LIMIT = 1800.0
"""Seconds after which a process is given up."""

Say = Callable[[str], None]


class ChildError(Exception):
    """A process ended without its answer."""


def cores() -> list[int]:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def environment(threads: int, **extra: str) -> dict[str, str]:
    """The environment of a process that measures: as many threads everywhere, and nothing that ties a library's hands.

    OPENBLAS_CORETYPE and its like may have been set for another machine; every library chooses its kernels itself.
    """
    kept = {k: v for k, v in os.environ.items() if k not in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")}
    names = ("GRAPHC_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    return {**kept, **dict.fromkeys(names, str(threads)), "JAX_PLATFORMS": "cpu", **extra}


def child(task: str, threads: int, extra: dict[str, str] | None = None, **request: Any) -> Iterator[Any]:
    """The answers of a new process on `threads` cores. ChildError where it fails, after the answers it gave."""
    with tempfile.TemporaryDirectory(prefix="graphc-bench-") as folder:
        asked, answers = Path(folder, "request"), Path(folder, "answers")
        request |= {"task": task, "threads": threads, "cores": cores()[:threads]}
        asked.write_text(json.dumps(request), "utf-8")
        answers.touch()
        with Path(folder, "errors").open("w+b") as errors:
            process = subprocess.Popen([sys.executable, "-m", "tools.benchmarks.worker", asked, answers], cwd=ROOT,
                                       env=environment(threads, **(extra or {})), stdin=subprocess.DEVNULL,
                                       stdout=errors, stderr=errors)
            try:
                yield from _follow(process, answers)
            finally:
                process.kill()
                process.wait()
            if process.returncode:
                errors.seek(0)
                lines = errors.read().decode(errors="replace").strip().splitlines()
                ended = f"the process was ended by signal {-process.returncode}" if process.returncode < 0 else ""
                raise ChildError(ended or (lines[-1] if lines else f"the process ended with {process.returncode}"))


def _follow(process: subprocess.Popen[bytes], answers: Path) -> Iterator[Any]:
    """Each line of the file when it is there."""
    with answers.open(encoding="utf-8") as file:
        part, waited = "", 0.0
        while True:
            ended = process.poll() is not None  # before reading, so that nothing written before the end is missed
            part += file.read()
            *lines, part = part.split("\n")
            if lines:
                waited = 0.0
                yield from map(json.loads, lines)
            if ended:
                return
            try:
                process.wait(0.05)
            except subprocess.TimeoutExpired:
                waited += 0.05
            if waited > LIMIT:
                raise ChildError(f"no answer for {LIMIT:.0f} s")


def speeds(cases: Sequence[Case], threads: int, peers: Sequence[str], quick: bool, say: Say) -> list[Result]:
    """The cases that are timed in turns, in one process; one that a case ends is followed by another."""
    left = [case.name for case in cases if isinstance(case.measure, Speed)]
    results: list[Result] = []
    while left:
        current = left[0]
        try:
            for answer in child("speed", threads, cases=list(left), peers=list(peers),
                                seconds=QUICK_SECONDS if quick else CASE_SECONDS,
                                rounds=QUICK_ROUNDS if quick else ROUNDS):
                current = answer["case"]
                if "figures" in answer:
                    results.append(result_from(answer))
                    left.remove(current)
                else:
                    say(f"{current} on {threads} thread{'s' * (threads > 1)}")
        except ChildError as error:
            results.append(Result(current, threads, error=str(error)))
            left.remove(current)
    return results


def alone(case: Case, threads: int, peers: Sequence[str], quick: bool, say: Say) -> Result:
    """A case whose competitors each have processes of their own, which take turns."""
    present = [name for name in case.workload.competitors if name in peers]
    if isinstance(case.measure, FirstCall) and case.measure.ours_alone:
        present = [OURS]
    values: dict[str, list[float]] = {name: [] for name in present}
    extras: dict[str, dict[str, float]] = {}
    skipped: dict[str, str] = {}
    for repeat in range(1 if quick else REPEATS):
        for name in present:
            slow = bool(values[name]) and values[name][0] > SLOW and isinstance(case.measure, FirstCall)
            if name in skipped or (slow and repeat >= SLOW_REPEATS):
                continue
            say(f"{case.name}: {name}, {repeat + 1}")
            try:
                if isinstance(case.measure, Memory):
                    (answer,) = child("memory", threads, case=case.name, peer=name)
                    value, extra = float(answer["growth"]), {"whole": float(answer["whole"])}
                else:
                    value, extra = _first(case, name, threads)
            except ChildError as error:
                if name == OURS:
                    return Result(case.name, threads, error=f"{OURS}: {error}")
                skipped[name] = str(error)
                continue
            values[name].append(value)
            extras.setdefault(name, extra)
    figures: dict[str, Figures] = {}
    for name in present:
        if name not in skipped:
            found = Figures.of(values[name])
            ours = figures.get(OURS)
            # their rounds are far apart, so the ratio is that of the medians
            ratio = found.median / ours.median if ours and ours.median else None
            figures[name] = replace(found, ratio=ratio, extra=extras[name])
    return Result(case.name, threads, figures, skipped)


def _first(case: Case, name: str, threads: int) -> tuple[float, dict[str, float]]:
    """(seconds to the first result, more figures), with caches of its own that are thrown away."""
    measure = case.measure
    assert isinstance(measure, FirstCall)
    peer = PEERS[name]
    with tempfile.TemporaryDirectory(prefix="graphc-bench-") as folder:
        caches = {"GRAPHC_CACHE_DIR": f"{folder}/graphc", "TORCHINDUCTOR_CACHE_DIR": f"{folder}/torch",
                  "JAX_COMPILATION_CACHE_DIR": f"{folder}/jax", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
                  "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1"}
        saved = f"{folder}/saved" if measure.before == "saved" else None
        request = {"case": case.name, "peer": name, "imports": ["numpy", *peer.imports], "folder": saved,
                   "other": False}
        if measure.before != "nothing":
            list(child("first", threads, caches, **{**request, "other": measure.before == "other"}))
        if measure.counts_imports:
            # what a program imports by itself; the rest is loaded when it is needed, and counts
            request["imports"] = ["numpy", peer.package]
        (found,) = child("first", threads, caches, **request)
        kernels = [p for p in Path(folder, "graphc").rglob("*") if p.is_file()]
        extra = {"imports": found["imports"]} | ({"kernels": float(len(kernels))} if name == OURS else {})
        return found["first"] + (found["imports"] if measure.counts_imports else 0.0), extra


def machine(peers: Sequence[str]) -> dict[str, Any]:
    """What one core can do, and the versions."""
    (found,) = child("machine", 1, peers=list(peers))
    return dict(found)
