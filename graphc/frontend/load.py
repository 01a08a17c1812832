"""Model files: executed under a private module name; every model they define is collected."""

from __future__ import annotations

import hashlib
import sys
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from ..errors import GraphcError, ModelError, SourceLine
from .model import Model


@dataclass(frozen=True)
class ModelFile:
    """An executed model file: its models by name, its `data` function and `training` dict if it has them, and its text's digest."""

    path: Path
    models: dict[str, Model]
    data: Callable[..., Any] | None
    digest: str
    doc: str
    training: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.path.stem


def load_file(path: str | Path) -> ModelFile:
    """Execute a model file. ModelError says where it fails, or that it defines no model."""
    file = Path(path).resolve()
    if file.is_dir():
        compiled = (file / "manifest.json").exists()
        raise ModelError(
            f"{path} is a folder, not a model file", how=f"graphc info {path} shows a compiled one" if compiled else None
        )
    try:
        text = file.read_bytes()
    except OSError as error:
        raise ModelError(f"the model file {path} cannot be read: {error.strerror}", how="check the path") from error
    module = types.ModuleType(f"_graphc_model_{hashlib.sha256(str(file).encode()).hexdigest()[:12]}")
    module.__file__ = str(file)
    sys.modules[module.__name__] = module  # inspect and dataclasses look a module up by name
    sys.path.insert(0, str(file.parent))  # a model file may import its neighbours
    try:
        exec(compile(text, str(file), "exec"), module.__dict__)
    except GraphcError:
        raise
    except SyntaxError as error:
        raise ModelError(
            f"the model file cannot be read: {error.msg}",
            where=SourceLine(str(file), error.lineno or 1),
            why=f"the line is: {error.text.strip()}" if error.text and error.text.strip() else None,
        ) from error
    except Exception as error:
        raise ModelError(
            f"the model file raises {type(error).__name__}: {error}", where=_line(error, str(file))
        ) from error
    finally:
        sys.path.remove(str(file.parent))
    models = {m.name: m for m in vars(module).values() if isinstance(m, Model) and m.source.file == str(file)}
    if not models:
        raise ModelError(
            f"the model file {path} defines no model",
            where=SourceLine(str(file), 1),
            how="mark a function with @gc.model",
        )
    data = module.__dict__.get("data")
    training = module.__dict__.get("training")
    return ModelFile(
        file,
        models,
        data if callable(data) else None,
        hashlib.sha256(text).hexdigest(),
        module.__doc__ or "",
        training if isinstance(training, Mapping) else {},
    )


def call_data(file: ModelFile, **options: Any) -> Any:
    """What the file's `data` function gives. ModelError where it has none, or where that fails."""
    if file.data is None:
        raise ModelError(
            f"the model file {file.path.name} has no data()",
            where=SourceLine(str(file.path), 1),
            how="define data() returning gc.Dataset(train=…), or give --data FILE",
        )
    try:
        return file.data(**options)
    except GraphcError:
        raise
    except Exception as error:
        raise ModelError(
            f"data() raises {type(error).__name__}: {error}", where=_line(error, str(file.path))
        ) from error


def choose(file: ModelFile, name: str | None) -> list[Model]:
    """The models to compile: all of the file, or the one named."""
    if name is None:
        return list(file.models.values())
    if name not in file.models:
        near = get_close_matches(name, file.models, 1)
        raise ModelError(
            f"{file.path.name} defines no model {name!r}",
            where=SourceLine(str(file.path), 1),
            how=(f"did you mean {near[0]!r}? " if near else "") + f"it defines: {', '.join(file.models)}",
        )
    return [file.models[name]]


def _line(error: BaseException, file: str) -> SourceLine:
    found, traceback = SourceLine(file, 1), error.__traceback__
    while traceback is not None:
        if traceback.tb_frame.f_code.co_filename == file:
            found = SourceLine(file, traceback.tb_lineno)
        traceback = traceback.tb_next
    return found
