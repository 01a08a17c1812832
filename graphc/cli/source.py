"""A model file as the commands use it: read once, its models chosen, `--set` read, traced and compiled."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
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
    hyperparameters: dict[str, Any]
    data_options: dict[str, Any]

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
    of_models = {k: v for m in models for k, v in m.hyperparameters.items()}
    parameters = inspect.signature(file.data).parameters.values() if file.data else ()
    of_data = {p.name: p.default for p in parameters if p.default is not p.empty}
    given = read_settings(settings, {**of_data, **of_models})
    # what the model and its data both name, such as a vocabulary's size, is one thing: data() gets the model's value
    shared = {**of_models, **given}
    return Source(
        file, models, {k: v for k, v in given.items() if k in of_models}, {k: shared[k] for k in of_data if k in shared}
    )
