"""Passes: rewrites of a graph by named rules. `default.py` holds their order."""
