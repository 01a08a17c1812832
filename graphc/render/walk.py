"""What a value is computed from."""

from __future__ import annotations

from ..graph.node import Node, postorder


def reached(root: Node) -> set[Node]:
    """The node and everything that it is computed from."""
    return set(postorder([root]))
