"""A document: sections of paragraphs, lists and displayed equations. Four writers turn it into text."""

from __future__ import annotations

from dataclasses import dataclass

from .box import Box


@dataclass(frozen=True)
class Code:
    text: str


@dataclass(frozen=True)
class Strong:
    text: str


@dataclass(frozen=True)
class Math:
    box: Box


Inline = str | Code | Strong | Math
Line = tuple[Inline, ...]


@dataclass(frozen=True)
class Paragraph:
    line: Line


@dataclass(frozen=True)
class Bullets:
    lines: tuple[Line, ...]


@dataclass(frozen=True)
class Display:
    """A chain of equations, one to a row: left = right, = right, …; the first left side alone is written."""

    left: Box
    right: tuple[Box, ...]
    number: str = ""


Block = Paragraph | Bullets | Display


@dataclass(frozen=True)
class Section:
    title: Line
    blocks: tuple[Block, ...]
    level: int = 2


@dataclass(frozen=True)
class Document:
    title: str
    sections: tuple[Section, ...]
