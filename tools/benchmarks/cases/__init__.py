"""All cases, in the order of the report. A new group is a module with CASES, and its name here."""
from __future__ import annotations

from ..case import Case
from . import attention, compiling, elementwise, losses, networks, products, recurrent

#: title → its cases
GROUPS: dict[str, tuple[Case, ...]] = {
    "Matrix products": products.CASES,
    "Networks": networks.CASES,
    "Recurrent networks": recurrent.CASES,
    "Attention": attention.CASES,
    "Losses and normalisation": losses.CASES,
    "Elementwise chains": elementwise.CASES,
    "Compile time": compiling.CASES,
    "Memory": networks.MEMORY,
}
CASES: tuple[Case, ...] = tuple(case for cases in GROUPS.values() for case in cases)

if len({case.name for case in CASES}) != len(CASES):
    raise ValueError("two cases of one name")
