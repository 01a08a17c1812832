"""Model files as modules, executed once a run."""
from __future__ import annotations

import importlib.util
from functools import cache
from pathlib import Path

import pytest

MODELS = Path(__file__).resolve().parents[2] / "models"


@cache
def load(name):
    spec = importlib.util.spec_from_file_location(f"lecture_{name}", MODELS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def page():
    """page("xor") is models/xor.py as a module."""
    return load
