"""`graphc verify`: what is proved of a model, and its compiled derivatives against 50-digit arithmetic."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from . import options, screen

NAME = "verify"


def run(
    model_or_folder: Annotated[
        Path,
        typer.Argument(
            metavar="MODEL.py|FOLDER", help="A model file, or a compiled model such as build/xor.", show_default=False
        ),
    ],
    model: options.ModelName = None,
    settings: options.Settings = None,
    dtype: options.DType = options.DTypeName.float64,
    strict: Annotated[
        bool, typer.Option("--strict", help="Fail too where something is neither proved nor exact.")
    ] = False,
    seed: Annotated[int, typer.Option("--seed", metavar="NUMBER", min=0, help="The seed of the random points.")] = 0,
    as_json: options.Json = False,
) -> None:
    """Verify a model: its derivatives, the rewrites of its graph, and its compiled code.

    PROVED is a symbolic identity for all sizes. EXACT is equality in 50-digit arithmetic at random points. The compiled
    values and first and second derivatives are compared with 50-digit arithmetic on small sizes. The exit code is 1
    where anything disagrees, and the culprit is named.

    \b
    Examples:
      graphc verify models/xor.py
      graphc verify models/digits.py --strict
      graphc verify build/xor
    """
    from ..pipeline import Options
    from ..verify.artifact import kernels_agree, module_of
    from ..verify.model import verify
    from .source import read

    with screen.console(stderr=True).status(f"verifying {model_or_folder.name}"):
        if model_or_folder.suffix == ".py":
            module = read(model_or_folder, model, settings).trace(Options(dtype=dtype.value))
        else:
            module = module_of(model_or_folder)
        certificate = verify(module, seed)
        if model_or_folder.suffix != ".py":
            certificate = replace(
                certificate, findings=(*certificate.findings, kernels_agree(model_or_folder, module))
            )
    if as_json:
        screen.print_json(certificate.to_json())
    else:
        screen.say(str(certificate))
    if not (certificate.strict if strict else certificate.passed):
        raise typer.Exit(1)
