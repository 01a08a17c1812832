"""From DOT to a file: Graphviz's program `dot` lays the picture out."""

from __future__ import annotations

import html
from pathlib import Path

from ..errors import ArtifactError, GraphcError
from ..runtime.variables import write_atomically
from .dot import to_dot
from .picture import Picture

FORMATS = ("svg", "pdf", "png", "dot", "html")
DPI = 144
HOW = "install Graphviz: apt-get install graphviz (Debian, Ubuntu), brew install graphviz (macOS), or graphviz.org/download"


class NoDot(GraphcError):
    """Graphviz's program `dot` is not installed."""


def drawn(picture: Picture, format: str) -> bytes:
    """The picture as bytes of a format. NoDot where the program `dot` is missing."""
    text = to_dot(picture, DPI if format == "png" else None)
    if format == "dot":
        return text.encode()
    import graphviz

    wanted = "svg" if format == "html" else format
    try:
        made = bytes(graphviz.pipe("dot", wanted, text.encode(), quiet=True))
        return _page(picture.title, made.decode()).encode() if format == "html" else made
    except graphviz.ExecutableNotFound as error:
        raise NoDot("the program 'dot', which lays pictures out, is not installed", how=HOW) from error
    except graphviz.CalledProcessError as error:
        said = (error.stderr or b"").decode(errors="replace").strip()
        raise GraphcError(f"the program 'dot' could not draw the picture: {said or error}") from error


def _page(title: str, svg: str) -> str:
    """A page that holds the picture, and needs no other file."""
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title></head>\n'
        f'<body style="margin: 1em; background: white; overflow-x: auto">\n{svg[svg.index("<svg") :]}</body></html>\n'
    )


def write(picture: Picture, file: Path, format: str) -> None:
    """Write the picture to a file. Where `dot` is missing, the DOT text is written beside it and the error says so."""
    if not file.parent.is_dir():
        raise ArtifactError(
            f"there is no folder {file.parent} to write {file.name} into", how="make it, or choose another"
        )
    try:
        data = drawn(picture, format)
    except NoDot as error:
        beside = file.with_name(file.name + ".dot")
        write_atomically(beside, drawn(picture, "dot"))
        raise NoDot(error.what, why=f"the picture's DOT text is in {beside}", how=error.how) from error
    write_atomically(file, data)
