"""Errors are part of the interface: what went wrong, where in the user's model, why, and how to mend it.

Every error that a user can cause is a `GraphcError`; the subclass names the stage that found it. The command
line prints the text and exits with `exit_code`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass


def short_path(path: str) -> str:
    """A path as people read it: relative where it is below the current folder."""
    try:
        below = os.path.join(os.getcwd(), "")
    except OSError:  # the current folder is gone
        return path
    return path.removeprefix(below)


@dataclass(frozen=True, order=True)
class SourceLine:
    """A line of the user's model: the file's path and the line's number, counted from one."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{short_path(self.file)}:{self.line}"


class GraphcError(Exception):
    """An error of the user's model, data or command.

    what: one sentence on what is wrong; where: the line of the model; why: the rule that was broken; how: the mend.
    """

    exit_code = 2

    def __init__(
        self, what: str, *, where: SourceLine | str | None = None, why: str | None = None, how: str | None = None
    ):
        self.what, self.where, self.why, self.how = what, where, why, how
        super().__init__(what)

    def __str__(self) -> str:
        lines = [f"{self.where}: {self.what}" if self.where else self.what]
        if self.why:
            lines.append(f"  why: {self.why}")
        if self.how:
            lines.append(f"  how: {self.how}")
        return "\n".join(lines)


def extra(name: str) -> str:
    """How an optional part of graphc is installed: from a clone, since `graphc` on the package index is another project.

    name: one of the extras of pyproject.toml.
    """
    return f"pip install -e '.[{name}]' in graphc's folder"


class ModelError(GraphcError):
    """The model file or function cannot be used: it raises, defines no model, has a wrong signature."""


class TraceError(GraphcError):
    """An operation of the model does not fit its operands."""


class GraphError(GraphcError):
    """A graph breaks an invariant, or its text form does not parse."""


class DerivativeError(GraphcError):
    """A derivative was asked for where there is none."""


class InputError(GraphcError):
    """A call of a compiled model with arguments that do not fit its signature."""


class DataError(GraphcError):
    """Data for training or prediction that does not fit the model."""


class ArtifactError(GraphcError):
    """A compiled folder that is truncated, edited, of another format, or cannot be written."""


class RuntimeFault(GraphcError):
    """A fault that only the values show: an index out of range, a size that does not divide."""


class Errors(GraphcError):
    """Several errors of one stage, reported together."""

    def __init__(self, errors: Sequence[GraphcError]):
        self.errors = tuple(errors)
        super().__init__("; ".join(e.what for e in self.errors))

    def __str__(self) -> str:
        count = f"{len(self.errors)} errors:\n\n"
        return count + "\n\n".join(str(e) for e in self.errors)


def raise_all(errors: Sequence[GraphcError]) -> None:
    """Raise what was collected: nothing, the one error as it is, or all of them together."""
    distinct = list({str(e): e for e in errors}.values())
    if len(distinct) == 1:
        raise distinct[0]
    if distinct:
        raise Errors(distinct)
