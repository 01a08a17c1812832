"""Data files: `.npz` archives of arrays by input name, CSV tables with a header of input names, JSON objects."""

from __future__ import annotations

import csv
import json
import re
import zipfile
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError, GraphcError, raise_all
from ..runtime.signature import Declared

Array = np.ndarray[Any, Any]
MOST_ERRORS = 10
"""Cells of a table that are reported; a column of the wrong kind would fill the screen."""


def read_arrays(path: str | Path, inputs: Sequence[Declared], needed: Collection[str] = ()) -> dict[str, Array]:
    """The arrays of a data file by name, for the inputs that it has. DataError where it cannot be read.

    needed: the inputs that a table must have.
    CSV: a row an example. A column `x` is the scalar input x, columns `x[0], x[1], …` or `x.0, x.1, …` are the vector x.
    """
    file = Path(path)
    readers: dict[str, Callable[[Path], dict[str, Array]]] = {
        ".npz": _read_npz,
        ".csv": lambda table: _read_csv(table, inputs, needed),
        ".json": _read_json,
    }
    if file.suffix.lower() not in readers:
        raise DataError(f"{file} is no data file that graphc reads", how=f"give one that ends in {', '.join(readers)}")
    try:
        return readers[file.suffix.lower()](file)
    except OSError as error:
        raise DataError(
            f"the data file {file} cannot be read: {error.strerror or error}", how="check the path"
        ) from error


def _read_npz(file: Path) -> dict[str, Array]:
    try:
        archive = np.load(file, allow_pickle=False)
        if isinstance(archive, np.ndarray):
            raise DataError(f"{file} holds one array without a name", how="write it with np.savez(path, x=…, y=…)")
        with archive:
            return {name: archive[name] for name in archive}
    except (ValueError, zipfile.BadZipFile, EOFError) as error:
        raise DataError(
            f"the data file {file} cannot be read: {error}",
            how="write it with np.savez(path, x=…, y=…), without objects",
        ) from error


def _read_json(file: Path) -> dict[str, Array]:
    try:
        data = json.loads(file.read_bytes())
        if not isinstance(data, dict):
            raise ValueError("it is no object of arrays by input name")
        return {name: np.asarray(value) for name, value in data.items()}
    except (ValueError, TypeError) as error:
        raise DataError(f"the data file {file} cannot be read: {error}", how='write {"x": [[0, 1], [1, 0]]}') from error


# -- CSV -------------------------------------------------------------------------------------------------------------
def _read_csv(file: Path, inputs: Sequence[Declared], needed: Collection[str]) -> dict[str, Array]:
    try:
        with file.open(newline="", encoding="utf-8-sig") as stream:
            rows = csv.reader(stream, strict=True)
            header = [name.strip() for name in next(rows, [])]
            table = [(rows.line_num, row) for row in rows if row]
    except (csv.Error, UnicodeDecodeError) as error:
        raise DataError(
            f"the data file {file} is no CSV table: {error}", how="write text in UTF-8 with commas between cells"
        ) from error
    if not header:
        raise DataError(f"the data file {file} is empty", how="its first line names the inputs")
    double = [n for n in header if header.count(n) > 1]
    if double:
        raise DataError(f"two columns of the table are named {double[0]!r}", where=f"{file}:1")
    for line, row in table:
        if len(row) != len(header):
            raise DataError(f"the row has {len(row)} cells, the header {len(header)}", where=f"{file}:{line}")
    errors: list[GraphcError] = []
    result: dict[str, Array] = {}
    unread = set(header)
    for declared in inputs:
        columns = _columns(file, header, declared)
        unread -= {header[i] for i in columns}
        if columns:
            result[declared.name] = _array(file, header, table, declared, columns, errors)
    raise_all(errors[:MOST_ERRORS])
    lacking = [d for d in inputs if d.name not in result]
    missing = [d for d in lacking if not result or d.name in needed or any(_resembles(n, d.name) for n in unread)]
    if missing:
        what = f"the input {missing[0]}" if result else f"an input of the model: {', '.join(map(str, inputs))}"
        raise DataError(
            f"no column of {file} is {what}",
            where=f"{file}:1",
            how=f"name its columns {', '.join(map(_names, missing))}; the file has {', '.join(header)}",
        )
    return result


def _resembles(column: str, name: str) -> bool:
    """Is a column named as one of a vector, but not in the way that is read? x1, x_1, x(1)."""
    return re.fullmatch(rf"{re.escape(name)}\W?_?\d+\W?", column) is not None


def _names(declared: Declared) -> str:
    """The columns of an input as a header names them."""
    name = declared.name
    width = declared.shape[1].constant if len(declared.shape) == 2 else 1
    if width == 1:
        return name
    if width is None or width > 3:
        return f"{name}[0], {name}[1], …{'' if width is None else f', {name}[{width - 1}]'}"
    return ", ".join(f"{name}[{i}]" for i in range(width))


def _columns(file: Path, header: Sequence[str], declared: Declared) -> list[int]:
    """The positions of an input's columns, in order; none where the table does not have it."""
    if declared.name in header:
        width = 1 if len(declared.shape) < 2 else declared.shape[1].constant
        if len(declared.shape) == 1 or (len(declared.shape) == 2 and width == 1):
            return [header.index(declared.name)]
        raise DataError(
            f"the column {declared.name!r} is one number a row, but {declared} is declared",
            where=f"{file}:1",
            how=f"name them {declared.name}[0], …" if len(declared.shape) == 2 else "use an .npz file",
        )
    pattern = re.compile(rf"{re.escape(declared.name)}(?:\[(\d+)\]|\.(\d+))")
    found = {int(m[1] or m[2]): at for at, name in enumerate(header) if (m := pattern.fullmatch(name))}
    if not found:
        return []
    width = declared.shape[1].constant if len(declared.shape) == 2 else None
    if len(declared.shape) != 2:
        raise DataError(
            f"the columns {declared.name}[0], … are a vector a row, but {declared} is declared",
            where=f"{file}:1",
            how="use an .npz file",
        )
    missing = sorted(set(range(width if width is not None else max(found) + 1)) - found.keys())
    if missing or (width is not None and len(found) != width):
        what = (
            f"has no column {declared.name}[{missing[0]}]"
            if missing
            else f"has {len(found)} columns {declared.name}[…], not {width}"
        )
        raise DataError(f"the table {what}: {declared} is declared", where=f"{file}:1")
    return [found[i] for i in range(len(found))]


def _array(
    file: Path,
    header: Sequence[str],
    table: Sequence[tuple[int, Sequence[str]]],
    declared: Declared,
    columns: Sequence[int],
    errors: list[GraphcError],
) -> Array:
    kind = declared.dtype.numpy.kind
    readers: Mapping[str, tuple[Callable[[str], Any], str]] = {
        "f": (float, "f8"),
        "i": (_integer, "i8"),
        "b": (_truth, "?"),
    }
    read, widest = readers[kind]
    values: Array = np.zeros((len(table), len(columns)), widest)
    for number, (line, row) in enumerate(table):
        for j, column in enumerate(columns):
            try:
                values[number, j] = read(row[column])
            except (ValueError, OverflowError):
                errors.append(
                    DataError(
                        f"{row[column]!r} is no {_KINDS[kind]}",
                        where=f"{file}:{line}:{column + 1}",
                        why=f"the column {header[column]!r} is read as {declared}",
                    )
                )
    return values[:, 0] if len(declared.shape) == 1 else values


_KINDS = {"f": "number", "i": "whole number", "b": "truth (0 or 1, false or true)"}


def _integer(text: str) -> int:
    """A whole number, also where it is written 3.0 as spreadsheets do."""
    try:
        return int(text)
    except ValueError:
        value = float(text)
        if not value.is_integer():
            raise
        return int(value)


def _truth(text: str) -> bool:
    return {"0": False, "1": True, "false": False, "true": True}[text.strip().lower()]
