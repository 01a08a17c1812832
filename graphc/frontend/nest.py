"""Nests of values: tuples, lists and dicts, taken apart into their leaves and put together again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Nest:
    """The shape of a nest. kind: "leaf", "none", "tuple", "list" or "dict"; `keys` are a dict's, in its order."""

    kind: str
    parts: tuple[Nest, ...] = ()
    keys: tuple[Any, ...] = ()

    def build(self, leaves: Iterator[Any]) -> Any:
        """A nest of this shape over leaves, taken in order."""
        if self.kind == "leaf":
            return next(leaves)
        if self.kind == "none":
            return None
        parts = [p.build(leaves) for p in self.parts]
        if self.kind == "dict":
            return dict(zip(self.keys, parts, strict=True))
        return tuple(parts) if self.kind == "tuple" else parts

    def names(self, name: str) -> list[str]:
        """How each leaf is written, where the whole is called `name`: `carry["h"]`."""
        if self.kind == "leaf":
            return [name]
        keys = [repr(k) for k in self.keys] or [str(k) for k in range(len(self.parts))]
        return [n for key, part in zip(keys, self.parts, strict=True) for n in part.names(f"{name}[{key}]")]

    def __str__(self) -> str:
        if self.kind in ("leaf", "none"):
            return "*" if self.kind == "leaf" else "None"
        if self.kind == "dict":
            return f"{{{', '.join(f'{k!r}: {p}' for k, p in zip(self.keys, self.parts, strict=True))}}}"
        inside = ", ".join(map(str, self.parts))
        return f"[{inside}]" if self.kind == "list" else f"({inside}{',' * (len(self.parts) == 1)})"


def flatten(value: Any) -> tuple[Nest, list[Any]]:
    """(the shape of a nest, its leaves in order). A dict's leaves are in the order of its keys as text."""
    if value is None:
        return Nest("none"), []
    if isinstance(value, dict):
        keys = tuple(sorted(value, key=str))
        parts = [flatten(value[k]) for k in keys]
        kind = "dict"
    elif isinstance(value, (tuple, list)):
        keys, parts = (), [flatten(v) for v in value]
        kind = "tuple" if isinstance(value, tuple) else "list"
    else:
        return Nest("leaf"), [value]
    return Nest(kind, tuple(n for n, _ in parts), keys), [leaf for _, leaves in parts for leaf in leaves]
