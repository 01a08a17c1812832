"""`graphc predict`: run a compiled model forward on a data file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import ArtifactError, DataError, InputError
from . import options, screen

if TYPE_CHECKING:
    import numpy as np

    from ..runtime.model import CompiledModel, Entry

NAME = "predict"
MOST_ROWS = 10
MOST_NUMBERS = 6


def run(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="The compiled model, such as build/digits.", show_default=False)
    ],
    data: Annotated[
        Path,
        typer.Option("--data", metavar="FILE", help="The inputs: an .npz, .csv or .json file.", show_default=False),
    ],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="FILE.npz", help="Write the outputs to this file too.")
    ] = None,
    model: options.EntryName = None,
    as_json: options.Json = False,
) -> None:
    """Run a compiled model on a data file and print its outputs.

    The file holds an array for each input by name: an .npz, or an object of lists as .json. A .csv has one example a row;
    its header names the inputs: y for one number a row, x[0], x[1], … for a vector.

    All outputs that the given inputs suffice for are computed: without labels there is no loss.

    \b
    Examples:
      graphc predict build/xor --data points.csv
      graphc predict build/digits --data pixels.npz --json
      graphc predict build/digits --data pixels.npz -o outputs.npz
    """
    from ..runtime.artifact import load
    from ..train.dataset import conform
    from ..train.files import read_arrays

    if output is not None and output.suffix != ".npz":
        raise DataError(f"outputs cannot be written to {output}", how="give a name that ends in .npz")
    with screen.KernelProgress() as progress:
        entry = choose(load(folder, progress), model)
        given: dict[str, Any] = conform(read_arrays(data, entry.signature.inputs), entry.signature, (), "given")
        outputs = entry.forward(**given)
    if output is not None:
        write(output, outputs)
    if as_json:
        screen.print_json({"model": entry.name, "outputs": {n: a.tolist() for n, a in outputs.items()}})
    else:
        show(outputs)
        if output is not None:
            screen.say(f"the outputs are in {output}")


def choose(compiled: CompiledModel, name: str | None) -> Entry:
    """The entry of a name, or the only one."""
    if name is None and len(compiled.entries) > 1:
        raise InputError(
            f"{compiled.name} holds several models: {', '.join(compiled.entries)}", how="choose one with --model NAME"
        )
    if name is not None and name not in compiled.entries:
        raise InputError(f"{compiled.name} holds no model {name!r}", how=f"it holds: {', '.join(compiled.entries)}")
    return compiled.entries[name or next(iter(compiled.entries))]


def show(outputs: Mapping[str, np.ndarray[Any, Any]]) -> None:
    """Scalars on lines of their own; the others as a table of their first rows."""
    from rich.table import Table

    for name, array in outputs.items():
        if array.ndim == 0:
            screen.say(f"{name} = {array:.6g}")
    arrays = {n: a for n, a in outputs.items() if a.ndim}
    if not arrays:
        return
    table = Table("row", *(f"{n} {list(a.shape)}" for n, a in arrays.items()))
    longest = max(len(a) for a in arrays.values())
    for row in range(min(longest, MOST_ROWS)):
        table.add_row(str(row), *(_cell(a[row]) if row < len(a) else "" for a in arrays.values()))
    screen.console().print(table)
    if longest > MOST_ROWS:
        screen.say(f"the first {MOST_ROWS} of {longest} rows; --json prints all, -o writes them to a file")


def _cell(values: np.ndarray[Any, Any]) -> str:
    numbers = [f"{v:.4g}" for v in values.reshape(-1)[:MOST_NUMBERS]]
    return "  ".join(numbers + ["…"] * (values.size > MOST_NUMBERS))


def write(path: Path, outputs: Mapping[str, np.ndarray[Any, Any]]) -> None:
    """Write arrays to an .npz file, whole or not at all."""
    import io

    import numpy as np

    from ..runtime.variables import write_atomically

    if not path.parent.is_dir():
        raise ArtifactError(
            f"there is no folder {path.parent} to write {path.name} into", how="make it, or choose another"
        )
    data = io.BytesIO()
    np.savez(data, **outputs)  # type: ignore[arg-type]  # its stub takes a keyword for allow_pickle
    write_atomically(path, data.getvalue())
