"""What a notebook shows of a graph or a compiled model: its picture, or its text where `dot` is not installed."""

from __future__ import annotations

import html
from typing import Any

from ..errors import GraphcError
from ..graph.graph import Graph
from ..graph.text import print_graph
from ..runtime.model import CompiledModel
from .draw import drawn
from .forward import forward
from .picture import Picture
from .views import graph_of


def svg(shown: Any) -> str | None:
    """The SVG of a graph, or of a compiled model with one entry; None where it cannot be drawn."""
    graphs = _graphs(shown)
    return _svg(forward(graphs[0])) if len(graphs) == 1 else None


def page(shown: Any) -> str:
    """The pictures as HTML, one below the other; text for those that cannot be drawn."""
    return "\n".join(_block(g) for g in _graphs(shown))


def _graphs(shown: Any) -> list[Graph]:
    if isinstance(shown, CompiledModel):
        return [graph_of(shown, name) for name in shown.entries]
    assert isinstance(shown, Graph)
    return [shown]


def _block(graph: Graph) -> str:
    image = _svg(forward(graph))
    if image is None:
        return f"<pre>{html.escape(print_graph(graph))}</pre>"
    return f'<div style="overflow-x: auto; background: white">{image}</div>'


def _svg(picture: Picture) -> str | None:
    """The picture as an `<svg>` element, without the head of a file of its own."""
    try:
        text = drawn(picture, "svg").decode()
    except GraphcError:
        return None
    return text[text.index("<svg") :]
