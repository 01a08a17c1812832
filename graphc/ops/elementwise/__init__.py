"""Elementwise operations: out[p] = f(operands[p]), operands broadcast. All their rows by name."""

from __future__ import annotations

from . import activations, arithmetic, functions, identity, integers, logic
from .row import Elementwise

ROWS: dict[str, Elementwise] = {
    name: row
    for family in (arithmetic, logic, identity, integers, functions, activations)
    for name, row in family.ROWS.items()
}
