"""The pytest plugin: `pytest --graphc models/` verifies every model file below the folders given."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("graphc")
    group.addoption(
        "--graphc", action="store_true", help="Verify every file of the folders given that defines a model (@gc.model)."
    )


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """A model file is one that uses the decorator; other files are left to pytest."""
    if not parent.config.getoption("--graphc") or file_path.suffix != ".py":
        return None
    text = file_path.read_text(encoding="utf-8", errors="replace")
    return ModelFile.from_parent(parent, path=file_path) if "@gc.model" in text or "@graphc.model" in text else None


class ModelFile(pytest.File):
    """A model file: one item."""

    def collect(self) -> Iterator[pytest.Item]:
        yield ModelItem.from_parent(self, name="verify")


class ModelItem(pytest.Item):
    """The verification of a file's models."""

    def runtest(self) -> None:
        from .check import check  # the compiler is loaded only where a model is checked

        check(self.path)

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> str:
        return str(excinfo.value)

    def reportinfo(self) -> tuple[Path, int, str]:
        return self.path, 0, f"graphc: {self.path.name}"
