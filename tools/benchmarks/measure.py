"""Measuring: first that all competitors compute the same, then their times in turns."""
from __future__ import annotations

import gc
import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .workload import Run

BLOCK_SECONDS = 4e-3
"""Calls are timed in blocks of about so long, or one by one where one takes longer."""
MOST_ROUNDS, FEWEST_ROUNDS = 41, 7
REST_LOOK, REST_LIMIT = 1e-3, 0.5
"""Seconds: see `rest`."""
TASKS = Path("/proc/self/task")
PATIENCE = 2
"""So many times as many rounds are tried where some are disturbed."""
AGREEMENT_CALLS = 3
"""Calls before the outputs are compared: a training step's parameters then hold several updates."""


class Disagreement(Exception):
    """Two competitors do not compute the same."""


def difference(value: np.ndarray[Any, Any], reference: np.ndarray[Any, Any]) -> float:
    """‖value − reference‖ / ‖reference‖; infinite where a shape differs or a number is not finite."""
    if value.shape != reference.shape:
        return np.inf
    value, reference = value.astype(np.float64), reference.astype(np.float64)
    if not (np.isfinite(value).all() and np.isfinite(reference).all()):
        return np.inf
    size = float(np.linalg.norm(reference))
    return float(np.linalg.norm(value - reference)) / (size or 1.0)


def agree(name: str, value: Mapping[str, Any], reference: Mapping[str, Any], tolerance: float) -> None:
    """Raise Disagreement unless a competitor's outputs are those of graphc within the tolerance."""
    if value.keys() != reference.keys():
        raise Disagreement(f"{name} gives {', '.join(sorted(value))}, and graphc {', '.join(sorted(reference))}")
    for output, expected in reference.items():
        found = difference(np.asarray(value[output]), np.asarray(expected))
        if not found <= tolerance:
            raise Disagreement(f"{name} and graphc disagree on {output}: ‖difference‖/‖value‖ is {found:.2e}, and "
                               f"{tolerance:.0e} is allowed")


def outputs(run: Run) -> Mapping[str, Any]:
    """A run's outputs after some calls."""
    result = None
    for _ in range(AGREEMENT_CALLS):
        result = run.call()
    return {name: np.array(value) for name, value in run.read(result).items()}


def rest() -> None:
    """Wait until no other thread of the process runs.

    Pools of threads spin for a while after their last work, OpenBLAS's for a tenth of a second, and would take a core
    from whoever is next. They are asked for their state: the time that they have used is known too late, at the clock
    ticks of their cores, which may be four milliseconds apart.
    """
    end = time.perf_counter() + REST_LIMIT
    quiet = 0
    while quiet < 2 and time.perf_counter() < end:
        time.sleep(REST_LOOK)
        quiet = 0 if _others_run() else quiet + 1


def _others_run() -> bool:
    """Is any other thread of the process running, or would it if a core were free? Only Linux tells."""
    me = str(threading.get_native_id())
    for task in TASKS.glob("*/stat"):
        try:
            state = task.read_text().rpartition(")")[2].split()[0]
        except OSError:  # it has ended
            continue
        if state == "R" and task.parent.name != me:
            return True
    return False


def in_turns(calls: Mapping[str, Callable[[], Any]], seconds: float, resting: bool = False,
             rounds: Sequence[int] = (FEWEST_ROUNDS, MOST_ROUNDS),
             undisturbed: Callable[[], bool] = lambda: True) -> dict[str, list[float]]:
    """Seconds a call, for each competitor one value a round, over about `seconds` in all.

    In a round everyone has a block, and the next round begins with another, so that what else happens on the machine
    hits all alike. Each block follows a call that is not timed, since the others have emptied the caches. `resting`:
    each begins when the threads of the others are idle. `undisturbed` is asked before and after a block: does the
    machine do what it can? Where it did not, the value is NaN, and a block more is tried in another round; but where it
    hardly ever does, all values count.
    """
    counts: dict[str, int] = {}
    total = 0.0
    for name, call in calls.items():
        call()
        single = min(_timed(call, 1) for _ in range(3))
        counts[name] = max(1, round(BLOCK_SECONDS / max(single, 1e-9)))
        total += single * (counts[name] + 1)
        if resting:
            begin = time.perf_counter()
            rest()
            total += time.perf_counter() - begin
    fewest, most = rounds
    wanted = max(fewest, min(most, int(seconds / total)))
    order = list(calls)
    times: dict[str, list[float]] = {name: [] for name in order}
    clean: dict[str, list[bool]] = {name: [] for name in order}
    for turn in range(PATIENCE * wanted):
        if turn >= wanted and min(map(sum, clean.values())) >= wanted:
            break
        for place in range(len(order)):
            name = order[(place + turn) % len(order)]
            if resting:
                rest()
            before = undisturbed()
            calls[name]()
            times[name].append(_timed(calls[name], counts[name]))
            if resting:
                rest()  # the competitor's own threads are no disturbance
            clean[name].append(before and undisturbed())
    if min(map(sum, clean.values())) < fewest:
        return times
    return {name: [t if c else math.nan for t, c in zip(times[name], clean[name], strict=True)] for name in order}


def _timed(call: Callable[[], Any], count: int) -> float:
    collecting = gc.isenabled()
    gc.disable()
    try:
        begin = time.perf_counter()
        for _ in range(count):
            call()
        return (time.perf_counter() - begin) / count
    finally:
        if collecting:
            gc.enable()
