"""All rows by name."""

from __future__ import annotations

from . import contract, elementwise, index, leaves, reduce, shape
from .row import Row

ROWS: dict[str, Row] = {**leaves.ROWS, **elementwise.ROWS, **reduce.ROWS, **contract.ROWS, **shape.ROWS, **index.ROWS}


def row_of(name: str) -> Row:
    """The row of an operation; KeyError for a name that is none."""
    return ROWS[name]
