"""How wide a text is, for pictures whose boxes are placed here and not by Graphviz.

The widths are those of Helvetica and Arial, with a little to spare; Graphviz makes a box wider where its text needs it.
"""

from __future__ import annotations

from collections.abc import Sequence

from .dot import SUBSCRIPT, air_of, pieces
from .picture import Line
from .style import TEXT

SMALL = 0.75
"""A subscript's size by that of its text."""
SPARE = 1.06
BOLD = 1.08
PITCH = 1.25
"""From one line of text to the next, by its size."""
_WIDTHS = {
    0.23: "ijl'|",
    0.28: "!,./:;I[]\\ft \N{NO-BREAK SPACE}·",
    0.34: '()-`r"*₀₁₂₃₄₅₆₇₈₉⁰¹²³⁻′',
    0.44: "⁴⁵⁶⁷⁸⁹⁽⁾",
    0.5: "cksvxyzJ",
    0.56: "0123456789abdeghnopquLΣ_#$?",
    0.6: "+<=>~−≤≥≠^∂δασ",
    0.62: "FTZᵀ",
    0.67: "ABEKPSVXY&∞",
    0.73: "CDHNRUw",
    0.79: "GOQ",
    0.84: "Mm",
    1.0: "%W@…→←↑↓×",
}
_WIDTH = {c: width for width, characters in _WIDTHS.items() for c in characters}
_OTHER = 0.7


def width_of(text: str, points: float, bold: bool = False) -> float:
    """The width of a text in points; what stands in _{…} is a subscript."""
    total, at = 0.0, 0
    for found in SUBSCRIPT.finditer(text):
        total += _plain(text[at : found.start()]) + SMALL * _plain(found[1])
        at = found.end()
    return (total + _plain(text[at:])) * points * SPARE * (BOLD if bold else 1.0)


def _plain(text: str) -> float:
    return sum(_WIDTH.get(c, _OTHER) for c in text)


def extent_of(lines: Sequence[Line]) -> tuple[float, float]:
    """(width, height) of lines as they are written in a box, without its margins."""
    width = height = 0.0
    for line in lines:
        style = TEXT[line.style]
        for part in pieces(line):
            air = air_of(part, style)
            space = 0.28 * (style.points + air) if air else 0.0
            width = max(width, width_of(part, style.points, style.bold) + space)
            height += PITCH * (style.points + air)
    return width, height
