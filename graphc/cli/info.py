"""`graphc info`: what a model takes, gives and holds."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import options, screen

if TYPE_CHECKING:
    from ..runtime.model import CompiledModel
    from ..runtime.signature import Declared

NAME = "info"


def run(
    model_or_folder: Annotated[
        Path,
        typer.Argument(
            metavar="FOLDER|MODEL.py", help="A compiled model, such as build/xor, or a model file.", show_default=False
        ),
    ],
    model: options.ModelName = None,
    settings: options.Settings = None,
    as_json: options.Json = False,
) -> None:
    """Show what a model takes and gives, its parameters, and its kernels.

    A compiled folder also tells how it was compiled. A model file is traced and lowered, but nothing is written;
    --model and --set are for model files.

    \b
    Examples:
      graphc info build/xor
      graphc info models/digits.py --set first=256
      graphc info build/digits --json
    """
    facts = (
        _of_file(model_or_folder, model, settings) if model_or_folder.suffix == ".py" else _of_folder(model_or_folder)
    )
    if as_json:
        screen.print_json(facts)
    else:
        show(facts)


def _of_folder(folder: Path) -> dict[str, Any]:
    from ..runtime.artifact import load

    compiled = load(folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    settings = manifest["options"]
    return {
        **_facts(compiled, settings.get("hyperparameters", {})),
        "folder": str(folder),
        "target": settings["target"],
        "seed": settings["seed"],
        "versions": manifest["versions"],
        "format_version": manifest["format_version"],
        "certificate": _certificate(folder),
    }


def _certificate(folder: Path) -> str | None:
    """How many findings of each standing, where the model was compiled with --strict."""
    from ..verify.certificate import Certificate

    path = folder / "certificate.json"
    return Certificate.from_json(json.loads(path.read_text())).summary() if path.exists() else None


def _of_file(path: Path, model: str | None, settings: list[str] | None) -> dict[str, Any]:
    from ..pipeline import Options
    from .source import read

    compilation = read(path, model, settings).compilation(Options())
    return _facts(compilation.model(), compilation.module.hyperparameters)


def _facts(compiled: CompiledModel, hyperparameters: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "name": compiled.name,
        "models": {
            n: {
                "inputs": list(map(_declared, e.signature.inputs)),
                "outputs": [{**_declared(d), "needs": sorted(e.signature.needs[d.name])} for d in e.signature.outputs],
                "hyperparameters": hyperparameters.get(n, {}),
            }
            for n, e in compiled.entries.items()
        },
        "parameters": [
            {
                "name": n,
                "dtype": a.dtype.name,
                "shape": list(a.shape),
                "count": a.size,
                "trainable": compiled.params.trainable[n],
            }
            for n, a in compiled.params.items()
        ],
        "parameter_count": sum(a.size for a in compiled.params.values()),
        "states": list(compiled.states),
        "kernels": _kernels(compiled.source),
    }


def _declared(declared: Declared) -> dict[str, Any]:
    shape = [str(e) if e.constant is None else e.constant for e in declared.shape]
    return {"name": declared.name, "dtype": declared.dtype.numpy.name, "shape": shape}


def _kernels(source: str) -> list[dict[str, str]]:
    """The generated kernels: the name of each, and the first line of what is said of it."""
    import ast

    functions = [f for f in ast.parse(source).body if isinstance(f, ast.FunctionDef)]
    return [{"name": f.name, "formula": (ast.get_docstring(f) or "").partition("\n")[0]} for f in functions]


def show(facts: Mapping[str, Any]) -> None:
    """The facts as text and tables."""
    from rich.table import Table

    console = screen.console()
    for name, model in facts["models"].items():
        screen.say(name)
        for d in model["inputs"]:
            screen.say(f"  in   {d['name']}: {_type(d)}")
        for d in model["outputs"]:
            screen.say(f"  out  {d['name']}: {_type(d)}" + (f"    from {', '.join(d['needs'])}" if d["needs"] else ""))
        for key, value in model["hyperparameters"].items():
            screen.say(f"  set  {key} = {value!r}")
    title = f"{facts['parameter_count']:,} numbers in {len(facts['parameters'])} parameters"
    parameters = Table("parameter", "type", "numbers", title=title, title_justify="left")
    parameters.columns[2].justify = "right"
    for p in facts["parameters"]:
        parameters.add_row(p["name"] + ("" if p["trainable"] else " (not trained)"), _type(p), f"{p['count']:,}")
    console.print(parameters)
    if facts["states"]:
        screen.say(f"states: {', '.join(facts['states'])}")
    kernels = Table("kernel", "what it computes", title=f"{len(facts['kernels'])} kernels", title_justify="left")
    for k in facts["kernels"]:
        kernels.add_row(k["name"], k["formula"])
    console.print(kernels)
    if "versions" in facts:
        versions = ", ".join(f"{n} {v}" for n, v in facts["versions"].items())
        screen.say(
            f"compiled for {facts['target']} with seed {facts['seed']} by {versions} (format {facts['format_version']})"
        )
        screen.say(f"verified: {facts['certificate']}" if facts["certificate"] else "not verified (compile --strict)")


def _type(d: Mapping[str, Any]) -> str:
    return f"{d['dtype']}[{', '.join(map(str, d['shape']))}]"
