"""A model file as the commands use it: read once, its models chosen, `--set` read, traced and compiled."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..frontend.load import ModelFile, choose, load_file
from ..frontend.model import Model, Module, Optimiser, trace_models
from ..pipeline import Compilation, Options
from .options import read_settings


@dataclass(frozen=True)
class Source:
    """A model file, the models chosen of it, and the values given with --set: for the models, and for `data()`."""

    file: ModelFile
    models: list[Model]
    given: Mapping[str, Any]

    @property
    def hyperparameters(self) -> dict[str, Any]:
        """The values given for the models."""
        return {n: v for n, v in self.given.items() if any(n in m.hyperparameters for m in self.models)}

    @property
    def data_options(self) -> dict[str, Any]:
        """The arguments of `data()`: what it and the model both name, such as a vocabulary's size, is one thing."""
        values = self.settings
        return {n: values[n] for n in _options_of_data(self.file)}

    @property
    def settings(self) -> dict[str, Any]:
        """All that --set could set, by name: the values given, else the defaults."""
        return {**_defaults(self.file, self.models), **self.given}

    def trace(self, options: Options, optimiser: Optimiser | None = None) -> Module:
        """The models' graphs."""
        return trace_models(self.models, self.file.name, options.float_type, self.hyperparameters, optimiser)

    def compilation(self, options: Options, optimiser: Optimiser | None = None) -> Compilation:
        """The models, ready to be compiled."""
        return Compilation(self.trace(options, optimiser), options, self.file.digest)


def read(path: Path, model: str | None = None, settings: Sequence[str] | None = None) -> Source:
    """Execute a model file and choose its models. ModelError says what is wrong with the file or with a setting."""
    file = load_file(path)
    models = choose(file, model)
    return Source(file, models, read_settings(settings, _defaults(file, models)))


def _defaults(file: ModelFile, models: Sequence[Model]) -> dict[str, Any]:
    return {**_options_of_data(file), **{n: v for m in models for n, v in m.hyperparameters.items()}}


def _options_of_data(file: ModelFile) -> dict[str, Any]:
    parameters = inspect.signature(file.data).parameters.values() if file.data else ()
    return {p.name: p.default for p in parameters if p.default is not p.empty}
