"""What tests ask of a drawing."""

import shutil

import pytest

needs_dot = pytest.mark.skipif(not shutil.which("dot"), reason="Graphviz's program dot is not installed")


def texts(drawing, kind=None):
    return [line.text for box in drawing.boxes if kind in (None, box.kind) for line in box.lines]


def box(drawing, text, kind=None):
    """The boxes with a text among their lines."""
    return [b for b in drawing.boxes if any(line.text == text for line in b.lines) and kind in (None, b.kind)]
