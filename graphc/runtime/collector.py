"""Python's garbage collector, kept from what makes many objects and leaves few in circles."""
from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def no_collection() -> Iterator[None]:
    """Without the collector, which would look through all objects of the process again and again while new ones are
    made: a fifth of the time that a deep model takes to lower. Serves as a decorator too."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()
