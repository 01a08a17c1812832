"""Training: data sets, optimisers written in the DSL, and the loop that the command line runs.

    m = gc.compile(model, optimiser=gc.train.Adam(1e-3))
    history = gc.train.fit(m, gc.Dataset(train=dict(x=x, y=y)), epochs=10)

Names are loaded when they are first used: reading a data file needs no compiler.
"""

from importlib import import_module as _import_module

_HOMES = {
    ".dataset": ("Batches", "Dataset"),
    ".files": ("read_arrays",),
    ".padded": ("Padded",),
    ".streams": ("Streams", "read_text"),
    ".optimisers": ("SGD", "Adam", "AdamW"),
    ".loop": ("Result", "evaluate", "fit"),
    ".checkpoint": ("Checkpoint", "Epoch"),
    ".curve": ("draw_curve",),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [*_HOME]


def __getattr__(name: str) -> object:
    if name in _HOME:
        return getattr(_import_module(_HOME[name], __name__), name)
    raise AttributeError(f"module 'graphc.train' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
