"""Checks of models for people's own test suites.

    import graphc as gc

    def test_my_model():
        gc.testing.check("models/mymodel.py")

`pytest --graphc models/` checks every model file of a folder; see `graphc.testing.plugin`.
"""

from .check import check

__all__ = ["check"]
