"""`graphc explain`: the gradient of a model as a derivation, step by step."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from ..errors import InputError
from . import options, screen

NAME = "explain"


class Format(str, Enum):
    """What a derivation is written in."""

    md = "md"
    html = "html"
    tex = "tex"
    txt = "txt"


def run(
    model_file: options.ModelFile,
    wrt: Annotated[
        list[str] | None,
        typer.Option(
            "--wrt",
            metavar="NAME",
            help="The parameter, or input, to derive the gradient of; may be given several times.  [default: all parameters]",
            show_default=False,
        ),
    ] = None,
    model: options.ModelName = None,
    settings: options.Settings = None,
    format: Annotated[
        Format | None, typer.Option("--format", help="The format.  [default: by the name of -o, else txt]")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="FILE", help="The file to write.  [default: print]", show_default=False),
    ] = None,
) -> None:
    """Derive the gradient of a model's loss, step by step.

    First the computation as numbered equations, then the chain rule from the loss backward: each step names its rule and
    its line of the model, in index form and, where there is one, in matrix form, with the shape of every symbol. What
    can be simplified is. The HTML needs no network.

    \b
    Examples:
      graphc explain models/xor.py --set hidden=2
      graphc explain models/xor.py --wrt hidden/W --format md
      graphc explain models/xor.py -o xor.html
    """
    from ..explain.explain import explain
    from ..explain.writers import WRITERS
    from ..pipeline import Options
    from .source import read

    chosen = _format(format, output)
    document = explain(read(model_file, model, settings).trace(Options()), wrt or ())
    text = WRITERS[chosen](document)
    if output is None:
        screen.say(text.rstrip("\n"))
        return
    from ..runtime.variables import write_atomically

    write_atomically(output, text.encode())
    screen.say(f"the derivation is {output}")


def _format(format: Format | None, output: Path | None) -> str:
    """The format asked for, or that of the file's name."""
    ending = output.suffix.lower().removeprefix(".") if output else ""
    if format is not None:
        return format.value
    if output is not None and ending not in [f.value for f in Format]:
        known = ", ".join(f".{f.value}" for f in Format)
        raise InputError(f"the name {output} says no format", how=f"end it with one of {known}, or give --format")
    return ending or Format.txt.value
