"""`graphc render`: a model as a picture."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import GraphcError, InputError, ModelError, raise_all
from . import options, screen

if TYPE_CHECKING:
    from ..runtime.model import CompiledModel, Entry

NAME = "render"


class View(str, Enum):
    """What of a model is drawn."""

    forward = "forward"
    backward = "backward"
    joint = "joint"
    fused = "fused"
    unrolled = "unrolled"


class Format(str, Enum):
    """Formats of pictures."""

    svg = "svg"
    pdf = "pdf"
    png = "png"
    dot = "dot"
    html = "html"


class ProgramName(str, Enum):
    """The programs that the view `fused` draws."""

    forward = "forward"
    gradient = "gradient"


def run(
    model_or_folder: Annotated[
        Path,
        typer.Argument(
            metavar="MODEL.py|FOLDER", help="A model file, or a compiled model such as build/xor.", show_default=False
        ),
    ],
    view: Annotated[
        View,
        typer.Option(
            "--view",
            help="forward: the computation as it is written; backward: the gradients' graph; joint: values forward and "
            "gradients backward on the same edges; fused: the kernels that run; unrolled: loops along time.",
        ),
    ] = View.forward,
    format: Annotated[
        Format | None, typer.Option("--format", help="The format.  [default: by the name of -o, else svg]")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="FILE", help="The picture.  [default: NAME.VIEW.FORMAT]")
    ] = None,
    model: options.ModelName = None,
    settings: options.Settings = None,
    data: Annotated[
        Path | None,
        typer.Option("--data", metavar="FILE", help="Inputs for the numbers of joint: an .npz, .csv or .json file."),
    ] = None,
    given: Annotated[
        list[str] | None,
        typer.Option(
            "--input",
            metavar="NAME=VALUE",
            help="A number or list of numbers for an input, or in place of a parameter's; may be given several times.",
        ),
    ] = None,
    program: Annotated[
        ProgramName | None,
        typer.Option("--program", help="The program that fused shows.  [default: gradient, or forward without a loss]"),
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option("--steps", help="How many steps unrolled draws, the last among them.  [default: 3]", show_default=False),
    ] = None,
    detail: Annotated[
        int | None,
        typer.Option(
            "--detail",
            help="What unrolled writes: 0 names, 1 formulas of one step, 2 formulas in every step.  [default: 1]",
            show_default=False,
        ),
    ] = None,
    backward: Annotated[
        bool, typer.Option("--backward", help="In unrolled, how the gradient goes back through time.")
    ] = False,
    seed: options.Seed = 0,
) -> None:
    """Draw a model.

    Scopes are frames, and equal repeats are drawn once, × n. With --data or --input the view joint shows numbers; small
    arrays are written out. --set and --seed are for model files. Graphviz's program `dot` makes the picture; where it is
    missing, its DOT text is written instead.

    \b
    Examples:
      graphc render models/xor.py
      graphc render models/xor.py --view joint --set hidden=2 --input "x=[[0, 1]]" --input "y=[[1]]" -o xor.png
      graphc render build/digits --view fused --format pdf
      graphc render models/lstm_lm.py --view unrolled --steps 4 --backward
    """
    from ..render.draw import write
    from ..render.unrolled import Unroll
    from ..render.views import picture
    from .predict import choose

    if (data or given) and view is not View.joint:
        raise InputError(
            "--data and --input give the numbers of --view joint", how="add --view joint, or leave them out"
        )
    if program is not None and view is not View.fused:
        raise InputError("--program chooses what --view fused shows", how="add --view fused, or leave it out")
    if (steps is not None or detail is not None or backward) and view is not View.unrolled:
        raise InputError(
            "--steps, --detail and --backward are for --view unrolled", how="add --view unrolled, or leave them out"
        )
    chosen = format_of(format, output)
    compiled = _compiled(model_or_folder, model, settings, seed)
    entry = choose(compiled, model)
    numbers = _numbers(entry, data, given) if data or given else None
    plain = Unroll()
    how = Unroll(plain.steps if steps is None else steps, plain.detail if detail is None else detail, backward)
    drawing = picture(compiled, view.value, entry.name, numbers, program.value if program else None, how)
    file = output or Path(f"{entry.name}.{view.value}.{chosen}")
    write(drawing, file, chosen)
    screen.say(f"the picture is {file}")


def format_of(format: Format | None, output: Path | None) -> str:
    """The format asked for, or that of the file's name."""
    ending = output.suffix.lower().removeprefix(".") if output else ""
    known = [f.value for f in Format]
    if format is not None:
        if ending in known and ending != format.value:
            raise InputError(f"--format {format.value} and the name {output} do not agree", how="leave one of them out")
        return format.value
    if output is not None and ending not in known:
        raise InputError(f"the name {output} says no format", how=f"end it with .{', .'.join(known)}, or give --format")
    return ending or Format.svg.value


def _compiled(path: Path, model: str | None, settings: Sequence[str] | None, seed: int) -> CompiledModel:
    """The model of a file, not yet compiled to kernels, or of a folder."""
    if path.suffix != ".py":
        from ..runtime.artifact import load

        if settings:
            raise ModelError("--set is for model files; a compiled folder has its hyperparameters", how="leave it out")
        return load(path)
    from ..pipeline import Options
    from .source import read

    return read(path, model, settings).compilation(Options(seed=seed)).model()


def _numbers(entry: Entry, data: Path | None, given: Sequence[str] | None) -> dict[str, Any]:
    """Values by name, of a data file and of --input; those of --input come first."""
    numbers: dict[str, Any] = {}
    if data is not None:
        from ..train.files import read_arrays

        numbers |= read_arrays(data, entry.signature.inputs)
    errors: list[GraphcError] = []
    for text in given or ():
        name, equals, value = text.partition("=")
        try:
            if not equals:
                raise ValueError("there is no =")
            numbers[name.strip()] = ast.literal_eval(value.strip())
        except (ValueError, SyntaxError):
            errors.append(
                InputError(f"--input {text} is no value", how='write --input x=3 or --input "x=[[0, 1], [1, 0]]"')
            )
    raise_all(errors)
    return numbers
