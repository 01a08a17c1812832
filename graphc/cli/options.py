"""Options that several commands share, and how `--set NAME=VALUE` is read."""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import GraphcError, ModelError, raise_all


class DTypeName(str, Enum):
    """Types of parameters and fresh arrays."""

    float32 = "float32"
    float64 = "float64"


class Target(str, Enum):
    """Where kernels run."""

    cpu = "cpu"
    numpy = "numpy"
    cuda = "cuda"


ModelFile = Annotated[Path, typer.Argument(metavar="MODEL.py", help="The model file.", show_default=False)]
Output = Annotated[Path, typer.Option("-o", "--output", metavar="FOLDER", help="The folder to write into.")]
ModelName = Annotated[
    str | None, typer.Option("--model", metavar="NAME", help="The model to take, of a file with several.")
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="Set a hyperparameter of the model; may be given several times."),
]
DType = Annotated[DTypeName, typer.Option("--dtype", help="The type of the parameters.")]
EntryName = Annotated[
    str | None, typer.Option("--model", metavar="NAME", help="The model to run, of a folder with several.")
]
Seed = Annotated[int, typer.Option("--seed", metavar="NUMBER", min=0, help="The seed of the initial parameters.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document, for programs to read.")]


def read_settings(given: Sequence[str] | None, defaults: Mapping[str, Any]) -> dict[str, Any]:
    """`NAME=VALUE` texts as hyperparameters, each read by the type of its default. All errors at once."""
    result: dict[str, Any] = {}
    errors: list[GraphcError] = []
    for text in given or ():
        name, equals, value = text.partition("=")
        if not equals or not name:
            errors.append(ModelError(f"--set {text} is no setting", how=f"write --set {name or 'NAME'}=VALUE"))
        elif name not in defaults:
            near = get_close_matches(name, defaults, 1)
            known = f"there are: {', '.join(sorted(defaults)) or 'none'}"
            errors.append(
                ModelError(
                    f"--set {text}: the model has no hyperparameter {name!r}",
                    how=f"did you mean {near[0]!r}? {known}" if near else known,
                )
            )
        else:
            try:
                result[name] = _read(value, defaults[name])
            except ValueError:
                kind = type(defaults[name]).__name__
                errors.append(
                    ModelError(
                        f"--set {text}: {value!r} is no {kind}",
                        why=f"{name} has the default {defaults[name]!r}, so its values are read as {kind}",
                    )
                )
    raise_all(errors)
    return result


_TRUTH = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}


def _read(text: str, default: Any) -> Any:
    """A value of the type of a default; of a default that is no plain value, a Python literal, or else the text."""
    if isinstance(default, bool):
        if text.lower() not in _TRUTH:
            raise ValueError(text)
        return _TRUTH[text.lower()]
    if isinstance(default, (int, float, str)):
        return type(default)(text)
    try:
        return ast.literal_eval(text)
    except (SyntaxError, ValueError):
        return text
