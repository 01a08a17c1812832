"""`graphc profile`: what the time of a model is spent on, kernel by kernel, and how fast that is for this machine."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import InputError
from . import options, screen
from .compile import ProgramName

if TYPE_CHECKING:
    from ..graph.graph import Graph
    from ..render.fused import Kernel
    from ..runtime.model import CompiledModel, Entry
    from ..runtime.profile import Profile, Timing
    from .source import Source

NAME = "profile"
WIDTH = 100
"""Characters of a line of the table."""
HEAD = ("#", "kernel", "time", "share", "FLOP", "GFLOP/s", "bytes", "GB/s", "of peak")
ROW = "{:>4}  {:<25}{:>10}{:>8}{:>9}{:>9}{:>9}{:>8}  {:>5} {}"


def run(
    model_file: options.ModelFile,
    program: Annotated[
        ProgramName | None,
        typer.Option("--program", help="What to time.  [default: gradient, or forward without a loss]"),
    ] = None,
    sizes: Annotated[
        list[str] | None,
        typer.Option("--size", metavar="NAME=NUMBER", help="A symbolic size of the inputs; may be given several times."),
    ] = None,
    merge: Annotated[
        bool, typer.Option("--merge", help="Add up equal kernels, × n, and show first what takes longest.")
    ] = False,
    repeat: Annotated[
        int | None,
        typer.Option("--repeat", metavar="NUMBER", min=1, help="Runs to time.  [default: half a second of them]"),
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option("--threads", metavar="NUMBER", min=1, help="Threads that take part.  [default: one a processor]"),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="FILE", help="Draw the kernels with their times: .svg, .pdf, .png, .dot."),
    ] = None,
    model: options.ModelName = None,
    settings: options.Settings = None,
    dtype: Annotated[
        options.DTypeName | None,
        typer.Option("--dtype", help="The type of the parameters.  [default: as it is trained, else float32]"),
    ] = None,
    target: Annotated[
        options.Target, typer.Option("--target", help="Only kernels of cpu can be timed.")
    ] = options.Target.cpu,
    seed: options.Seed = 0,
    as_json: options.Json = False,
) -> None:
    """Show what the time of a model is spent on, kernel by kernel.

    For each kernel: its time, the arithmetic (FLOP) and the bytes of the arrays that it reads and writes, and the part of
    this machine's peak that it reaches. The peak is what would bound it at best: arithmetic (compute), or moving its bytes
    (cache, or memory where they fit in no cache); both are measured on the spot. The inputs are a batch of the model
    file's data(); with --size, or without data(), they are drawn at random. Sizes default to the training's batch size.
    The program step includes the optimiser that the model file trains with.

    \b
    Examples:
      graphc profile models/digits.py
      graphc profile models/digits.py --size B=256 --threads 2 --merge
      graphc profile models/mlp.py --program step -o mlp.svg
    """
    from ..pipeline import Options
    from ..runtime.profile import profile
    from ..train.settings import of_model
    from .predict import choose
    from .render import format_of
    from .source import read

    if target is not options.Target.cpu:
        raise InputError(f"kernels of the target {target.value} cannot be timed", how="leave --target out: it is cpu")
    picture = format_of(None, output)
    if output is not None and not output.parent.is_dir():
        raise InputError(f"there is no folder {output.parent} to write {output.name} into", how="make it, or choose another")
    source = read(model_file, model, settings)
    given = {"seed": seed} | ({"dtype": dtype.value} if dtype else {})
    chosen = of_model(given, source.file.training, str(source.file.path))
    with screen.KernelProgress() as progress:
        compiling = Options(dtype=chosen.dtype, seed=seed, progress=progress, threads=threads)
        steps = program is ProgramName.step
        compilation = source.compilation(compiling, chosen.optimiser() if steps else None)
        compiled = compilation.model()
        entry = choose(compiled, model)
        kind = program.value if program else _kind(entry)
        graph = compilation.module.entries[entry.name]
        found = profile(entry, kind, _inputs(source, graph, entry, kind, sizes, chosen.batch_size), repeat)
    if output is not None:
        _draw(compiled, entry, found, output, picture)
    if as_json:
        screen.print_json(_facts(compiled, entry, found, merge))
        return
    screen.say("\n".join(_table(compiled, entry, found, merge)))
    if output is not None:
        screen.say(f"the picture is {output}")


def _kind(entry: Entry) -> str:
    """The program that is timed where none is named."""
    trains = "loss" in entry.signature.needs and bool(entry.signature.trainable)
    return ProgramName.gradient.value if trains else ProgramName.forward.value


def _inputs(
    source: Source, graph: Graph, entry: Entry, kind: str, given: Sequence[str] | None, rows: int
) -> dict[str, Any]:
    """A batch of the model file's data, unless it has none or sizes are given."""
    from . import sample

    signature = entry.signature
    sizes = sample.read_sizes(given, signature.inputs)
    if not sizes and source.file.data is not None:
        wanted = signature.needs if kind == ProgramName.forward.value else ("loss",)
        return sample.batch_of(source, signature, wanted, rows)
    known = sample.completed(sizes, signature.inputs, entry.program(kind), rows)
    return sample.drawn(signature.inputs, graph, known)


def _draw(compiled: CompiledModel, entry: Entry, found: Profile, file: Path, format: str) -> None:
    """Draw the kernels, each with its time and the darker the longer it takes."""
    from ..render.draw import write
    from ..render.fused import fused
    from ..runtime.profile import time_text

    subtitle = f"{_conditions(found)}; {time_text(found.whole)} in all"
    title = f"{entry.name}: the {found.kind} program"
    write(fused(found.program, compiled.source, title, subtitle, found), file, format)


# -- what is shown ---------------------------------------------------------------------------------------------------
def _rows(found: Profile, merge: bool) -> Sequence[Timing]:
    from ..runtime.profile import merged

    return merged(found) if merge else found.timings


def _table(compiled: CompiledModel, entry: Entry, found: Profile, merge: bool) -> Iterator[str]:
    """The lines of the table: two a kernel, its numbers and what it computes."""
    from ..render.fused import read_kernels
    from ..runtime.profile import time_text

    kernels = read_kernels(compiled.source)
    yield f"{entry.name}: the {found.kind} program; {_conditions(found)}"
    yield ""
    yield ROW.format(*HEAD, "").rstrip()
    for timing in _rows(found, merge):
        count = len(timing.steps)
        name = timing.instruction.kernel + (f" × {count}" if count > 1 else "")
        yield ROW.format(timing.steps[0], _cut(name, 25), *_numbers(timing, found), timing.bound)
        yield from _computes(timing, found, kernels)
    if any(t.fraction > 1 for t in found.timings):
        yield "Over 100% of peak: less than whole arrays was touched, as of a look-up's table, or the runs are few."
    yield ""
    parameters = [compiled.params[b.name] for b in found.program.buffers if b.kind == "param"]
    operations, touched = (sum(getattr(t, what) for t in found.timings) for what in ("operations", "bytes"))
    outside = max(found.call - found.whole, 0.0)
    peaks = ", ".join(f"{_count(rate)}FLOP/s in {dtype}" for dtype, rate in found.peaks.flops.items())
    yield from _listed(
        {
            "all kernels": f"{time_text(found.seconds)}, {_count(operations)}FLOP, {_count(touched)}B",
            "the program": f"{time_text(found.whole)} as it runs natively, its kernels not timed apart",
            "a call": f"{time_text(found.call)} from Python, {time_text(outside)} of it outside of the program",
            **({"in blocks": _blocks(found)} if found.strips else {}),
            "memory": f"{_count(found.arena)}B of temporaries; {_count(sum(a.nbytes for a in parameters))}B of parameters "
            f"({sum(a.size for a in parameters):,} numbers)",
            "peaks here": f"{peaks}; {_count(found.peaks.bandwidth[0][1])}B/s in the nearest cache, "
            f"{_count(found.peaks.bandwidth[-1][1])}B/s from memory",
        }
    )


def _blocks(found: Profile) -> str:
    """Which kernels run block by block."""
    strips = "; ".join(", ".join(map(str, strip)) for strip in found.strips)
    return f"{strips}: these run together on a part of their data, then on the next, so that it stays in cache"


def _listed(facts: Mapping[str, str]) -> Iterator[str]:
    """Facts one below the other, with their names before them."""
    for name, text in facts.items():
        yield from wrap(f"{name:<12}{text}", WIDTH, subsequent_indent=" " * 12, break_long_words=False)


def _conditions(found: Profile) -> str:
    """What the times hold for."""
    sizes = ", ".join(f"{name} = {value}" for name, value in found.sizes.items())
    threads = f"{found.threads} thread{'' if found.threads == 1 else 's'}"
    return ", ".join(filter(None, [sizes, threads, f"{found.runs} run{'' if found.runs == 1 else 's'}"]))


def _numbers(timing: Timing, found: Profile) -> list[str]:
    """The numbers of a row, as text."""
    from ..runtime.profile import time_text

    operations, touched = timing.operations, timing.bytes
    return [
        time_text(timing.seconds),
        f"{found.share(timing):.1%}",
        _count(operations),
        f"{operations / timing.seconds / 1e9:.1f}",
        _count(touched),
        f"{touched / timing.seconds / 1e9:.1f}",
        f"{timing.fraction:.0%}",
    ]


def _computes(timing: Timing, found: Profile, kernels: Mapping[str, Kernel]) -> Iterator[str]:
    """The line that says what a kernel computes and where the model has it."""
    from ..render.fused import told

    formulas, places = told(timing.instruction, found.program, kernels)
    if formulas:
        more = f"  (and {len(formulas) - 1} more)" if len(formulas) > 1 else ""
        where = _cut(_lines(places), 36)
        room = WIDTH - 6 - len(more) - len(where) - 2
        yield f"      {_cut(formulas[0], room)}{more}  {where}".rstrip()


def _lines(places: Sequence[str]) -> str:
    """Lines of a model, `FILE:LINE SCOPE` each; the file is named where it is another than before."""
    told: list[str] = []
    before = ""
    for place in places:
        file, _, line = place.partition(":")
        told.append(line if file == before else place)
        before = file
    return ", ".join(told)


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"


def _count(number: float) -> str:
    """Three digits and the prefix of a unit: `524 k`."""
    for prefix, scale in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= scale:
            digits = number / scale
            return f"{digits:.{2 if digits < 10 else 1 if digits < 100 else 0}f} {prefix}"
    return f"{number:.0f} "


# -- for programs to read --------------------------------------------------------------------------------------------
def _facts(compiled: CompiledModel, entry: Entry, found: Profile, merge: bool) -> dict[str, Any]:
    """The profile as JSON: seconds, bytes, operations, and parts of 1."""
    from ..render.fused import read_kernels, told

    kernels = read_kernels(compiled.source)
    rows = []
    for timing in _rows(found, merge):
        formulas, places = told(timing.instruction, found.program, kernels)
        rows.append(
            {
                "kernel": timing.instruction.kernel,
                "steps": timing.steps,
                "calls": len(timing.steps),
                "parts": timing.parts,
                "formulas": formulas,
                "lines": places,
                "seconds": timing.seconds,
                "share": found.share(timing),
                "operations": timing.operations,
                "operations_per_second": timing.operations / timing.seconds,
                "bytes": timing.bytes,
                "bytes_per_second": timing.bytes / timing.seconds,
                "peak": timing.fraction,
                "bound": timing.bound,
            }
        )
    parameters = [compiled.params[b.name] for b in found.program.buffers if b.kind == "param"]
    return {
        "model": entry.name,
        "program": found.kind,
        "sizes": dict(found.sizes),
        "threads": found.threads,
        "runs": found.runs,
        "kernels": rows,
        "in_blocks": [list(strip) for strip in found.strips],
        "seconds": {"kernels": found.seconds, "program": found.whole, "call": found.call},
        "bytes": {"temporaries": found.arena, "parameters": sum(a.nbytes for a in parameters)},
        "parameters": sum(a.size for a in parameters),
        "peaks": {
            "operations_per_second": dict(found.peaks.flops),
            "bytes_per_second": [{"bytes": count, "rate": rate} for count, rate in found.peaks.bandwidth],
        },
    }
