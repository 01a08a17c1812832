"""The process that measures: `python -m tools.benchmarks.worker REQUEST ANSWERS`, both files of JSON.

It keeps to its cores from the start. NumPy and everything else is imported inside the tasks, because imports are part
of what the task `first` times.
"""
from __future__ import annotations

import importlib
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Answer = Callable[[Any], None]


def speed(request: dict[str, Any], answer: Answer) -> None:
    """A Result for each of the cases."""
    from .cases import CASES
    from .peers import PEERS

    for name in request["peers"]:
        PEERS[name].start(request["threads"])
    for case in CASES:
        if case.name in request["cases"]:
            answer({"case": case.name})  # so that the one that ends the process is known
            answer(one_speed(case, request["threads"], request["peers"], request["seconds"], request["rounds"]))


def one_speed(case: Any, threads: int, peers: list[str], seconds: float, rounds: tuple[int, int]) -> dict[str, Any]:
    """The Result of a case that is timed in turns."""
    from . import measure, yardsticks
    from .results import Figures, Result, to_json

    workload = case.workload
    ours, *others = [name for name in workload.competitors if name in peers]
    calls, skipped = {}, {}
    try:
        run = workload.prepare(ours, threads)
        reference = measure.outputs(run)
        calls[ours] = run.call
    except Exception as error:
        return dict(to_json(Result(case.name, threads, error=f"{ours}: {said(error)}")))
    for name in others:
        try:
            run = workload.prepare(name, threads)
            value = measure.outputs(run)
        except Exception as error:  # a library may not be able to: it is left out, and the report says why
            skipped[name] = said(error)
            continue
        try:
            measure.agree(name, value, reference, workload.tolerance)
        except measure.Disagreement as error:
            return dict(to_json(Result(case.name, threads, error=str(error))))
        calls[name] = run.call
    del reference
    scale, yardstick = 0.0, workload.yardstick
    if yardstick is not None:
        calls[yardstick.name], scale = yardstick.prepare(threads)
    undisturbed = yardsticks.Cores(threads).all_there if threads > 1 else lambda: True
    times = measure.in_turns(calls, seconds, threads > 1, rounds, undisturbed)
    ideal = [t * scale for t in times.pop(yardstick.name)] if yardstick is not None else None
    figures = {name: Figures.of(values, None if name == ours else times[ours], ideal)
               for name, values in times.items()}
    if "torch.compile" in calls:
        import torch

        torch._dynamo.reset()
    return dict(to_json(Result(case.name, threads, figures, skipped)))


def first(request: dict[str, Any], answer: Answer) -> None:
    """Seconds of the imports, and from a model's definition to its first result.

    With a `folder`, the model is saved there afterwards; where one is there already, that is what is imported and run.
    """
    begin = time.perf_counter()
    for name in request["imports"]:
        importlib.import_module(name)
    imported = time.perf_counter() - begin
    from .case import FirstCall
    from .cases import CASES
    from .peers import PEERS, Graphc

    (case,) = (c for c in CASES if c.name == request["case"])
    model = case.model
    if request["other"]:
        assert isinstance(case.measure, FirstCall) and case.measure.other is not None
        model = case.measure.other
    params, data = model.arrays()
    peer = PEERS[request["peer"]]
    peer.start(request["threads"])
    folder = Path(request["folder"]) if request["folder"] else None
    saved = next(iter(folder.iterdir()), None) if folder is not None and folder.exists() else None
    begin = time.perf_counter()
    if saved is not None:
        assert isinstance(peer, Graphc)
        run = peer.imported(saved, model, data)
    else:
        run = peer.prepare(model, params, data)
    run.call()
    taken = time.perf_counter() - begin
    if folder is not None and saved is None:
        assert isinstance(peer, Graphc)
        peer.compiled(model, params).save(folder)
    answer({"imports": imported, "first": taken})


def memory(request: dict[str, Any], answer: Answer) -> None:
    """Bytes: the most that the process ever had, and the most beyond what it had after a call with one row."""
    from .cases import CASES
    from .peers import PEERS

    (case,) = (c for c in CASES if c.name == request["case"])
    peer = PEERS[request["peer"]]
    peer.start(request["threads"])
    params, data = case.model.arrays(rows=1)
    warm = peer.prepare(case.model, params, data)
    for _ in range(3):
        warm.call()
    params, data = case.model.arrays()
    before, earlier = resident("VmRSS"), resident("VmHWM")
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark begins anew
    run = peer.prepare(case.model, params, data)
    for _ in range(5):
        run.call()
    most = resident("VmHWM")
    answer({"growth": most - before, "whole": max(most, earlier)})


def resident(field: str) -> int:
    """Bytes of a line of /proc/self/status: VmRSS is the memory in use, VmHWM the most so far."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/self/status has no {field}")


def machine(request: dict[str, Any], answer: Answer) -> None:
    """What one core can do, at its best of some rounds, and the versions of the competitors."""
    from .peers import PEERS
    from .yardsticks import Copy, peak_call

    call, operations = peak_call()
    values = 1 << 22
    copy, share = Copy(values).prepare(1)
    best: dict[str, float] = {}
    for _ in range(20):
        for name, run in (("peak", call), ("copy", copy)):
            begin = time.perf_counter()
            run()
            taken = time.perf_counter() - begin
            best[name] = min(best.get(name, taken), taken)
    answer({"peak": operations / best["peak"], "copy": 8 * values / (share * best["copy"]),
            "versions": {name: PEERS[name].version() for name in request["peers"]}})


def said(error: Exception) -> str:
    """An error in one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = f"{type(error).__name__}: {lines[0] if lines else ''}"
    return text if len(text) <= 300 else text[:299] + "…"


TASKS = {"speed": speed, "first": first, "memory": memory, "machine": machine}


def main() -> None:
    request = json.loads(Path(sys.argv[1]).read_text("utf-8"))
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, request["cores"])
    with open(sys.argv[2], "a", encoding="utf-8") as answers:
        def answer(value: Any) -> None:
            answers.write(json.dumps(value) + "\n")
            answers.flush()
        TASKS[request["task"]](request, answer)


if __name__ == "__main__":
    main()
