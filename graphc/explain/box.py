"""Written mathematics: boxes that three printers turn into LaTeX, MathML and Unicode text."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Atom:
    """One sign. kind: "var" (a letter, or a name), "bold" (a whole array), "fn" (a function's name), "num", "op" (a sign
    between two), "text"."""

    text: str
    kind: str = "var"


@dataclass(frozen=True)
class Row:
    """Boxes side by side."""

    items: tuple[Box, ...]


@dataclass(frozen=True)
class Script:
    """A base with what stands below and above at its right."""

    base: Box
    sub: Box | None = None
    sup: Box | None = None


@dataclass(frozen=True)
class Frac:
    top: Box
    bottom: Box


@dataclass(frozen=True)
class Root:
    body: Box


@dataclass(frozen=True)
class Hat:
    body: Box


@dataclass(frozen=True)
class Fence:
    """Something in brackets."""

    body: Box
    left: str = "("
    right: str = ")"


@dataclass(frozen=True)
class Big:
    """A sign such as Σ with what runs under it."""

    sign: str
    under: Box


@dataclass(frozen=True)
class Branches:
    """Values by cases: (value, condition); the last condition may be the word "otherwise"."""

    rows: tuple[tuple[Box, Box], ...]


Box = Atom | Row | Script | Frac | Root | Hat | Fence | Big | Branches


def var(text: str) -> Atom:
    return Atom(text, "var")


def op(text: str) -> Atom:
    return Atom(text, "op")


def word(text: str) -> Atom:
    return Atom(text, "text")


def row(*items: Box | str) -> Box:
    """Boxes side by side, rows in it joined; a string is a sign between two."""
    flat: list[Box] = []
    for item in items:
        box = op(item) if isinstance(item, str) else item
        flat.extend(box.items if isinstance(box, Row) else (box,))
    return flat[0] if len(flat) == 1 else Row(tuple(flat))


def joined(boxes: list[Box] | tuple[Box, ...], sign: str) -> Box:
    """Boxes with a sign between each two."""
    items: list[Box | str] = []
    for i, box in enumerate(boxes):
        items += [sign, box] if i else [box]
    return row(*items)
