"""Where a command writes: the names that a model file may have, and what is never overwritten."""

from __future__ import annotations

import keyword
import re
import sys
from importlib.metadata import requires
from pathlib import Path

from ..errors import ArtifactError, ModelError

PACKAGE = __name__.partition(".")[0]


def check_name(path: Path, folder: Path = Path("build")) -> None:
    """ModelError unless a model file's name can be that of a module, and of none that graphc or Python needs.

    folder: where its compiled folder is to be.
    """
    name = path.stem
    if path.suffix != ".py" or not name.isidentifier() or keyword.iskeyword(name):
        raise ModelError(
            f"{path} is no name for a model file",
            why="the compiled folder is named after it, and is imported by that name",
            how="choose letters, digits and _, but no keyword, and end it with .py, such as mymodel.py",
        )
    if name in sys.stdlib_module_names or name in (PACKAGE, *_needed()):
        raise ModelError(
            f"{path} is no name for a model file",
            why=f"{folder / name} would be imported in place of the module {name}",
            how=f"rename the file, such as my_{name}.py",
        )


def _needed() -> list[str]:
    """The modules that graphc and its extras need, by the names of their distributions."""
    names = (re.match(r"[\w.-]+", text) for text in requires(PACKAGE) or ())
    return [re.sub(r"[-.]", "_", n[0]) for n in names if n]


def check_untrained(target: Path) -> None:
    """ArtifactError where a compiled folder holds what was learnt."""
    from ..runtime.artifact import checkpoint_of

    checkpoint = checkpoint_of(target)
    if target.exists() and checkpoint.exists():
        raise ArtifactError(
            f"{target} is a trained model, and compiling would replace its parameters",
            how=f"give another folder with -o, or remove {checkpoint}",
        )
