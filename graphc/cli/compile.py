"""`graphc compile`: a model file becomes a folder that can be imported, or is shown at a stage on the way there."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import ArtifactError, ModelError
from . import options, screen
from .place import check_name, check_untrained

if TYPE_CHECKING:
    from ..frontend.model import Module
    from ..graph.graph import Graph
    from ..pipeline import Options
    from ..verify.certificate import Certificate
    from .source import Source

NAME = "compile"


class Emitted(str, Enum):
    """What can be written beside a compiled model."""

    ptx = "ptx"


class ProgramName(str, Enum):
    """The programs that a model is compiled to."""

    forward = "forward"
    gradient = "gradient"
    step = "step"


def run(
    model_file: options.ModelFile,
    output: options.Output = Path("build"),
    model: options.ModelName = None,
    settings: options.Settings = None,
    dtype: Annotated[
        options.DTypeName | None,
        typer.Option("--dtype", help="The type of the parameters.  [default: float32; float64 for --target numpy]"),
    ] = None,
    target: Annotated[
        options.Target,
        typer.Option(
            "--target",
            help="cpu compiles the kernels; numpy runs the same source as plain Python, slowly; cuda is for NVIDIA GPUs.",
        ),
    ] = options.Target.cpu,
    seed: options.Seed = 0,
    stop_after: Annotated[
        str | None,
        typer.Option(
            "--stop-after",
            metavar="STAGE",
            help="Print what the model looks like after a stage (trace, canonicalise, stabilise, differentiate, optimise, "
            "lower, codegen) and write nothing.",
        ),
    ] = None,
    explain_schedule: Annotated[
        bool,
        typer.Option(
            "--explain-schedule",
            help="Print the steps of each program: what is computed together and why, the bytes that it moves and the "
            "operations that it does; and write nothing.",
        ),
    ] = False,
    program: Annotated[
        ProgramName | None,
        typer.Option(
            "--program",
            help="The program that --stop-after and --explain-schedule show.  [default: gradient, or forward without a "
            "loss; for --explain-schedule each of them]",
        ),
    ] = None,
    emit: Annotated[
        Emitted | None,
        typer.Option("--emit", help="With --target cuda, write each kernel as PTX into the folder. Needs no GPU."),
    ] = None,
    cc: Annotated[
        int, typer.Option("--cc", metavar="NUMBER", min=75, help="The compute capability of the PTX: 80, 90, …")
    ] = 90,
    verify: Annotated[bool, typer.Option("--verify", help="Check every rule of the graph after every pass.")] = False,
    strict: Annotated[
        bool,
        typer.Option(
            "--strict",
            help="Verify the model first, as graphc verify does; write nothing unless all is PROVED or EXACT. "
            "The certificate goes into the folder.",
        ),
    ] = False,
    as_json: options.Json = False,
) -> None:
    """Compile a model file into a folder that can be imported, moved and read.

    The folder is named after the file: models/xor.py becomes build/xor. It holds the generated kernels as source, the
    parameters, the graph as text, and a manifest. One compilation serves every batch size.

    \b
    Examples:
      graphc compile models/xor.py
      graphc compile models/xor.py --set hidden=8 -o build
      graphc compile models/xor.py --stop-after differentiate
      graphc compile models/xor.py --explain-schedule
      graphc compile models/xor.py --strict
      graphc compile models/xor.py --target cuda --emit ptx --cc 80
    """
    from ..pipeline import STAGES, Options
    from .source import read

    if stop_after is not None and stop_after not in STAGES:
        raise ModelError(f"there is no stage {stop_after!r}", how=f"one of {', '.join(STAGES)}")
    if emit is Emitted.ptx and target is not options.Target.cuda:
        raise ModelError("--emit ptx is for the target cuda", how="add --target cuda")
    if stop_after is None and not explain_schedule and model_file.is_file():
        check_name(model_file, output)  # before it is executed, with its folder first among those imported from
        check_untrained(output / model_file.stem)
    source = read(model_file, model, settings)
    with screen.KernelProgress() as progress:
        chosen = Options(target.value, dtype.value if dtype else None, seed, verify, progress)
        if stop_after is not None:
            show_stage(source, chosen, stop_after, program)
            return
        if explain_schedule:
            show_schedule(source, chosen, program)
            return
        with screen.timed() as seconds:
            compilation = source.compilation(chosen)
            if strict:
                compilation.certificate = certified(source, chosen).to_json()
            compiled = compilation.model()
            folder = compiled.save(output, progress)
            if emit is Emitted.ptx:
                write_ptx(compilation.ptx(cc), folder / "ptx", cc)
    kernels = len(compilation.book.texts)
    if as_json:
        screen.print_json(
            {
                "folder": str(folder),
                "kernels": kernels,
                "seconds": round(seconds[0], 3),
                "models": {
                    n: {"inputs": list(map(str, e.signature.inputs)), "outputs": list(map(str, e.signature.outputs))}
                    for n, e in compiled.entries.items()
                },
            }
        )
        return
    screen.say(repr(compiled))
    screen.say(
        f"compiled to {folder} in {seconds[0]:.2f} s: {kernels} kernel{'' if kernels == 1 else 's'}, "
        f"{len(compiled.params)} parameter arrays"
    )
    if emit is Emitted.ptx:
        screen.say(f"PTX for sm_{cc} in {folder / 'ptx'}")


def certified(source: Source, chosen: Options) -> Certificate:
    """The certificate of a model of which everything is proved or exact.

    Exit code 1 where something is not: it is graphc that fails to show it, and no fault of the model is known.
    """
    from ..verify.model import verify

    certificate = verify(source.trace(chosen), chosen.seed)
    if not certificate.strict:
        for finding in certificate.open:
            screen.note(str(finding))
        screen.note(f"{certificate.model} is not compiled: of what is asked for with --strict, this does not hold")
        raise typer.Exit(1)
    return certificate


def write_ptx(texts: Mapping[str, str], folder: Path, cc: int) -> None:
    """One file a kernel. They are for reading and for other tools: a compiled model is loaded without them."""
    from ..runtime.variables import write_atomically

    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise ArtifactError(f"the folder {folder} cannot be made: {error.strerror or error}") from error
    for name, text in texts.items():
        write_atomically(folder / f"{name}.sm_{cc}.ptx", text.encode())


def show_stage(source: Source, chosen: Options, stage: str, program: ProgramName | None) -> None:
    """Print a program of each model after a stage."""
    from ..pipeline import stage_text

    module = traced(source, chosen, program)
    for name, graph in module.entries.items():
        kind = program or (ProgramName.gradient if "loss" in graph.outputs else ProgramName.forward)
        screen.say(stage_text(module, name, full_name(kind, graph), stage, chosen.target).rstrip("\n"))


def show_schedule(source: Source, chosen: Options, program: ProgramName | None) -> None:
    """Print the steps of the programs of each model, in words."""
    from ..pipeline import schedule_text

    module = traced(source, chosen, program)
    for name, graph in module.entries.items():
        both = [ProgramName.forward, ProgramName.gradient] if "loss" in graph.outputs else [ProgramName.forward]
        for kind in [program] if program else both:
            screen.say(schedule_text(module, name, full_name(kind, graph), chosen.target))


def traced(source: Source, chosen: Options, program: ProgramName | None) -> Module:
    """The models of a file; a step is shown with Adam, which most models are trained with."""
    from ..train.optimisers import Adam

    return source.trace(chosen, Adam() if program is ProgramName.step else None)


def full_name(kind: ProgramName, graph: Graph) -> str:
    """A program's kind as the pipeline names it."""
    return f"forward:{','.join(graph.outputs)}" if kind is ProgramName.forward else kind.value
