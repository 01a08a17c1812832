"""`graphc new`: a commented model to start from."""

from __future__ import annotations

import os
from importlib.resources import files
from pathlib import Path
from typing import Annotated

import typer

from ..errors import ModelError
from . import screen
from .place import check_name

NAME = "new"


def run(
    path: Annotated[
        Path, typer.Argument(metavar="MODEL.py", help="The file to write; it must not exist yet.", show_default=False)
    ],
) -> None:
    """Write a commented starter model: a small classifier with data of its own.

    \b
    Example:
      graphc new mymodel.py
      graphc train mymodel.py
    """
    check_name(path)
    text = files("graphc.cli").joinpath("starter.txt").read_text("utf-8").replace("NAME", path.stem)
    try:
        # "x": the file is made here or not at all, also where another process makes it at the same time
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise ModelError(f"{path} exists already; graphc new never overwrites", how="choose another name") from None
    except OSError as error:
        raise ModelError(
            f"{path} cannot be written: {error.strerror or error}", how="choose a folder that exists and can be written"
        ) from error
    screen.say(f"wrote {path}; to train it: graphc train {os.fspath(path)}")
