"""The command: what is chosen is measured, compared with its targets, and written down."""
from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from . import children, report
from .case import Case, Speed, chosen
from .cases import CASES, GROUPS
from .peers import PEERS
from .results import Record, Result, to_json
from .targets import OURS

BUSY = 0.25
"""A load before the run, as a share of the cores, that is worth a note."""

HELP = """Measure graphc against PyTorch (eager and compiled), JAX, and, for matrix products, OpenBLAS and NumPy.

  tools/bench                          everything, about twenty minutes; writes docs/benchmarks.md and its pictures
  tools/bench mlp chain                some cases, by name, group or pattern ('product/*/nt'); writes nothing
  tools/bench --quick --threads 1      a first impression
  tools/bench --list                   the cases and their targets

All competitors of a case run in turns in one process that is kept to as many cores as it may use threads, after their
losses and gradients have been compared. Compile times and memory are measured in a process each. Peers that are not
installed are left out: pip install -e '.[bench]' gets them.
Exit code 1 where competitors disagree or a case fails, 2 for a mistake in the command; a target missed is no failure.
"""


def parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(prog="tools/bench", description=HELP,
                                    formatter_class=argparse.RawDescriptionHelpFormatter)
    found.add_argument("names", nargs="*", metavar="NAMES", help="cases (default: all)")
    found.add_argument("--threads", metavar="N,…", help="numbers of threads (default: 1 and the number of cores)")
    found.add_argument("--peers", metavar="NAME,…",
                       help=f"competitors beside graphc (default: all of {', '.join(n for n in PEERS if n != OURS)})")
    found.add_argument("--quick", action="store_true", help="fewer rounds, one process where there are several; no page")
    found.add_argument("--list", action="store_true", help="show the cases and measure nothing")
    found.add_argument("--no-write", action="store_true", help="print the figures, and leave the page as it is")
    found.add_argument("--json", type=Path, metavar="FILE", help="also write all figures as JSON")
    return found


def listing(cases: Sequence[Case]) -> str:
    """The cases with their targets, for --list."""
    lines = []
    for title, group in GROUPS.items():
        lines += [title] if any(c in cases for c in group) else []
        for case in (c for c in group if c in cases):
            lines.append(f"  {case.name:<28} {case.what}")
            lines += [f"  {'':<28}   {report.stated(target)}" for target in case.targets]
    return "\n".join(lines)


def threads_of(text: str | None) -> list[int]:
    """The numbers of threads asked for. ValueError where one is none, or more than there are cores."""
    available = len(children.cores())
    if text is None:
        return sorted({1, available})
    found = []
    for part in text.split(","):
        if not part.strip().isdecimal() or not 1 <= int(part) <= available:
            raise ValueError(f"--threads {text}: a number of threads is 1 to {available}, the cores of this process")
        found.append(int(part))
    return list(dict.fromkeys(found))


def peers_of(text: str | None) -> tuple[list[str], dict[str, str]]:
    """(competitors that take part, why others do not). ValueError for an unknown one."""
    asked = [n for n in PEERS if n != OURS] if text is None else [n.strip() for n in text.split(",") if n.strip()]
    for name in asked:
        if name not in PEERS:
            raise ValueError(f"--peers {text}: there is no peer {name!r}: one of {', '.join(PEERS)}")
    missing = {name: why for name in asked if (why := PEERS[name].missing())}
    return [name for name in PEERS if name == OURS or (name in asked and name not in missing)], missing


def measure(cases: Sequence[Case], threads: Sequence[int], peers: Sequence[str], missing: dict[str, str], quick: bool,
            say: children.Say) -> Record:
    """Measure the cases. Those in processes of their own use the largest number of threads."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    say("the machine")
    found = children.machine(peers)
    results: list[Result] = []
    for count in threads:
        results += children.speeds(cases, count, peers, quick, say)
    for case in cases:
        if not isinstance(case.measure, Speed):
            results.append(children.alone(case, max(threads), peers, quick, say))
    place = {case.name: n for n, case in enumerate(cases)}
    results.sort(key=lambda r: (place[r.case], r.threads))
    machine = {
        "processor": processor(), "cores": str(len(children.cores())), "system": platform.system(),
        "Python": platform.python_version(), "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "peak": f"{found['peak'] / 1e9:.0f} GFLOP/s a core", "copy": f"{found['copy'] / 1e9:.1f} GB/s on one core",
        "load before": f"{load:.1f}",
    }
    if load > BUSY * len(children.cores()):
        machine["note"] = ("other programs were at work: what waits for all its threads, as products on several cores "
                           "do, is then slowed down many times")
    return Record(machine, found["versions"], missing, tuple(results), quick)


def processor() -> str:
    """The name of the processor, as the system tells it."""
    try:
        for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def main(arguments: Sequence[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    try:
        cases = chosen(CASES, options.names)
        threads = threads_of(options.threads)
        peers, missing = peers_of(options.peers)
    except (LookupError, ValueError) as error:
        print(f"tools/bench: {error.args[0]}", file=sys.stderr)
        return 2
    if options.list:
        print(listing(cases))
        return 0
    for name, why in missing.items():
        print(f"without {name}: {why}")

    terminal = sys.stderr.isatty() and "NO_COLOR" not in os.environ

    def say(text: str) -> None:
        print(f"\r\033[K{text}" if terminal else text, end="" if terminal else "\n", file=sys.stderr, flush=True)

    try:
        record = measure(cases, threads, peers, missing, options.quick, say)
    except children.ChildError as error:
        print(f"tools/bench: {error}", file=sys.stderr)
        return 1
    if terminal:
        say("")
    print(report.plain(record, cases))
    if options.json:
        options.json.write_text(json.dumps(to_json(record), indent=1, ensure_ascii=False) + "\n", "utf-8")
    whole = not options.names and options.peers is None and set(threads) == set(threads_of(None)) and not options.quick
    if whole and not options.no_write:
        for path in report.write(record, children.ROOT / "docs"):
            print(f"wrote {path.relative_to(children.ROOT)}")
    return int(any(result.error for result in record.results))
