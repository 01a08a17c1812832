"""SymPy under its usual name, imported when something of it is first used.

It takes longer to load than a model to compile, and a compilation whose partials are all in the store uses none of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__all__ = ["sp"]

if TYPE_CHECKING:
    import sympy as sp
else:

    class _SymPy:
        def __getattr__(self, name: str) -> Any:
            import sympy

            return getattr(sympy, name)

    sp = _SymPy()
