"""The command line: `graphc compile | train | predict | info | new`."""

from .app import main

__all__ = ["main"]
