"""All rows by name."""

from __future__ import annotations

from . import contract, elementwise, index, leaves, random, reduce, scan, shape
from .row import Row

ROWS: dict[str, Row] = {
    name: row
    for family in (leaves, elementwise, reduce, contract, shape, index, random, scan)
    for name, row in family.ROWS.items()
}


def row_of(name: str) -> Row:
    """The row of an operation; KeyError for a name that is none."""
    return ROWS[name]
