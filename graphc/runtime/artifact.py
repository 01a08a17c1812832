"""The compiled folder: written atomically, movable, importable as a plain package, never a pickle.

NAME/__init__.py         forward, value_and_grad, params, … at its top
NAME/manifest.json       format version, signature, sizes, versions, digests of the other files
NAME/kernels.py          the generated source: what runs
NAME/programs.json       buffers and instructions of each entry
NAME/graph.txt           the graph in text form (NAME.graph.txt for each of several)
NAME/params.safetensors  parameters
NAME/constants.safetensors
NAME/states.safetensors  how states begin
NAME/vocab.json          the vocabulary, tokenizer or several by name, of a model that was trained on data that have one
NAME/certificate.json    what verification showed, where the model was compiled with --strict
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import platform
import shutil
import tempfile
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .. import vocabulary
from ..errors import ArtifactError
from ..graph import dtype as dtypes
from ..graph.size import parse
from . import variables
from .cache import Progress
from .execute import EXECUTORS
from .kernels import split
from .memory import Arena
from .model import CompiledModel, Entry, Info
from .program import Program
from .signature import Declared, Signature
from .variables import Parameters, States

FORMAT_VERSION = 2
ATTEMPTS = 10  # to read a folder that is replaced while it is read

_PACKAGE = '''"""{name}, compiled by graphc {version}: `import {name}` from the folder above, then {name}.forward(…)."""
from pathlib import Path as _Path

from graphc.runtime.artifact import load as _load

_model = _load(_Path(__file__).parent)


def __getattr__(name):
    return getattr(_model, name)


def __dir__():
    return [n for n in dir(_model) if not n.startswith("_")]
'''


@dataclass(frozen=True)
class Contents:
    """What a folder holds."""

    name: str
    source: str
    signatures: Mapping[str, tuple[str, ...]]
    entries: Mapping[str, tuple[Signature, Mapping[str, Program]]]
    graphs: Mapping[str, str]
    constants: Mapping[str, np.ndarray[Any, Any]]
    params: Parameters
    states: States
    options: Mapping[str, Any]
    rules: Mapping[str, int]
    certificate: Mapping[str, Any] | None = None
    vocab: Any = None


def save(contents: Contents, folder: Path, progress: Progress | None = None) -> Path:
    """Write `folder`/NAME and compile its kernels into the cache. The folder appears whole, or not at all."""
    target = folder / contents.name
    files = _files(contents)
    _compile(contents, progress)
    _replace(target, files)
    return target


def _files(contents: Contents) -> dict[str, bytes]:
    from safetensors.numpy import save as encode

    files = {
        "__init__.py": _PACKAGE.format(name=contents.name, version=importlib.metadata.version("graphc")).encode(),
        "kernels.py": contents.source.encode(),
        "programs.json": _json(
            {
                "signatures": contents.signatures,
                "entries": {
                    n: {k: p.to_json() for k, p in programs.items()} for n, (_, programs) in contents.entries.items()
                },
            }
        ),
        "params.safetensors": encode({n: np.asarray(a, order="C") for n, a in contents.params.items()}),
    }
    for name, text in contents.graphs.items():
        files["graph.txt" if len(contents.graphs) == 1 else f"{name}.graph.txt"] = text.encode()
    if contents.certificate is not None:
        files["certificate.json"] = _json(contents.certificate, indent=2)
    if contents.constants:
        files["constants.safetensors"] = encode({n: np.asarray(a, order="C") for n, a in contents.constants.items()})
    own = {name for signature, _ in contents.entries.values() for name in signature.update_needs}
    files |= _possessions(contents.states, own, contents.vocab)
    manifest = {
        "format_version": FORMAT_VERSION,
        "name": contents.name,
        "options": contents.options,
        "rules": contents.rules,
        "entries": {n: _signature_json(s) for n, (s, _) in contents.entries.items()},
        "params": {n: [a.dtype.name, list(a.shape), contents.params.trainable[n]] for n, a in contents.params.items()},
        "states": {n: [d.name, [str(e) for e in shape]] for n, (d, shape) in contents.states.declared.items()},
        "versions": {
            "graphc": importlib.metadata.version("graphc"),
            "numpy": np.__version__,
            "numba": importlib.metadata.version("numba"),
            "python": platform.python_version(),
        },
    }
    return _sealed(manifest, files)


def _possessions(states: States, own: Collection[str], vocab: Any) -> dict[str, bytes]:
    """What a model has beside its parameters: how its states begin, and its vocabulary, where there are any.

    States of known shape that the model itself updates, such as running statistics, begin as they are now. Those that are
    carried along sequences, and an optimiser's memory, begin as they are declared.
    """
    from safetensors.numpy import save as encode

    files = {}
    kept = {n: states.arrays[n] for n in states.declared if n in own and n not in states.carried}
    begin = {**states.initial, **kept}
    if begin:
        files["states.safetensors"] = encode({n: np.asarray(a, order="C") for n, a in begin.items()})
    if vocab is not None:
        files["vocab.json"] = vocabulary.encoded(vocab)
    return files


def _sealed(manifest: dict[str, Any], files: Mapping[str, bytes]) -> dict[str, bytes]:
    """The files with their manifest, which holds their digests and its own."""
    # parameters may be saved again after training: their shapes are checked when they are loaded, not their digest
    digests = {n: hashlib.sha256(data).hexdigest() for n, data in files.items() if n != "params.safetensors"}
    manifest = {**manifest, "sha256": digests}
    manifest["digest"] = _digest(manifest)
    return {**files, "manifest.json": _json(manifest, indent=2)}


def _digest(manifest: Mapping[str, Any]) -> str:
    """The digest of a manifest's content."""
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def _json(data: Any, indent: int | None = None) -> bytes:
    return (json.dumps(data, indent=indent, separators=None if indent else (",", ":")) + "\n").encode()


def _signature_json(signature: Signature) -> dict[str, Any]:
    def declared(d: Declared) -> list[Any]:
        return [d.name, d.dtype.name, [str(e) for e in d.shape]]

    return {
        "inputs": [declared(d) for d in signature.inputs],
        "outputs": [declared(d) for d in signature.outputs],
        "needs": {n: sorted(inputs) for n, inputs in signature.needs.items()},
        "update_needs": {n: sorted(inputs) for n, inputs in signature.update_needs.items()},
        "trainable": list(signature.trainable),
        "trains": signature.trains,
    }


def _compile(contents: Contents, progress: Progress | None) -> None:
    kernels = split(contents.source, contents.signatures)
    executor = EXECUTORS[contents.options["target"]](kernels, progress)
    executor.prepare([p for _, programs in contents.entries.values() for p in programs.values()])


def _replace(target: Path, files: Mapping[str, bytes]) -> None:
    """Write the files beside the target and move the whole folder there."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
        try:
            for name, data in files.items():
                (temporary / name).write_bytes(data)
            os.chmod(temporary, 0o755)
            _swap(temporary, target)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except OSError as error:
        raise ArtifactError(
            f"the folder {target} cannot be written: {error.strerror or error}",
            how="choose another with -o, or make it writable",
        ) from error


def checkpoint_of(target: Path) -> Path:
    """Where the checkpoint of a training lies that makes the folder `target`."""
    return target.parent / f"{target.name}.checkpoint.safetensors"


def check_place(target: Path) -> None:
    """ArtifactError where something other than a compiled model stands in the place of one."""
    if target.exists() and not (target / "manifest.json").exists() and (not target.is_dir() or any(target.iterdir())):
        raise ArtifactError(
            f"{target} exists and is no compiled model", how="choose another folder with -o, or remove it"
        )


def _swap(new: Path, target: Path) -> None:
    """Put a folder in place of another; of several processes doing so at once, the last wins."""
    check_place(target)
    for attempt in range(10):
        old = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}.old."))
        try:
            if target.exists():
                os.rename(target, old / "was")
            os.rename(new, target)
            return
        except OSError:
            if (old / "was").exists() and not target.exists():
                os.rename(old / "was", target)
            if attempt == 9:
                raise
        finally:
            shutil.rmtree(old, ignore_errors=True)


# -- loading ---------------------------------------------------------------------------------------------------------
def load(folder: str | Path, progress: Progress | None = None, threads: int | None = None) -> CompiledModel:
    """A compiled model from its folder. ArtifactError where it is truncated, edited, or of another format."""
    place = Path(folder)
    manifest, data = _contents(place)
    programs = json.loads(data["programs.json"])
    kernels = split(data["kernels.py"].decode(), {n: tuple(s) for n, s in programs["signatures"].items()})
    params = variables.allocate(
        {n: (dtypes.BY_NAME[_SHORT[d]], tuple(shape)) for n, (d, shape, _) in manifest["params"].items()}
    )
    variables.assign(params, _decoded(data, "params.safetensors", place), place / "params.safetensors")
    parameters = Parameters(params, {n: t for n, (_, _, t) in manifest["params"].items()})
    constants = _decoded(data, "constants.safetensors", place)
    initial = _decoded(data, "states.safetensors", place)
    states = States(
        {n: (dtypes.BY_NAME[d], tuple(map(parse, shape))) for n, (d, shape) in manifest["states"].items()}, initial
    )
    executor = EXECUTORS[manifest["options"]["target"]](kernels, progress, threads)
    arena = Arena()
    entries = {}
    for name, described in manifest["entries"].items():
        stored = programs["entries"][name]
        entries[name] = Entry(
            name, _signature(described), _Stored(name, stored), executor, constants, parameters, states, arena
        )
    info = Info(
        lambda: data["kernels.py"].decode(),
        lambda: _graphs(data, manifest),
        lambda model, to, _: _copy(place, model, to),
    )
    model = CompiledModel(manifest["name"], entries, parameters, states, info)
    if "vocab.json" in data:
        model.vocab = vocabulary.decoded(data["vocab.json"], place / "vocab.json")
    return model


def _contents(place: Path) -> tuple[dict[str, Any], dict[str, bytes]]:
    """The manifest and every file, of one and the same compilation though another may be moved there meanwhile."""
    for _ in range(ATTEMPTS):
        manifest = _manifest(place)
        try:
            data = {name: _read(place, name) for name in [*manifest["sha256"], "params.safetensors"]}
            wrong = [n for n, digest in manifest["sha256"].items() if hashlib.sha256(data[n]).hexdigest() != digest]
            if wrong:
                what = f"{place / wrong[0]} is not what was compiled: it was edited or truncated"
                raise ArtifactError(what, how="compile the model again")
        except ArtifactError:
            if _manifest(place) == manifest:
                raise
            continue
        if _manifest(place) == manifest:
            return manifest, data
    raise ArtifactError(f"{place} is being written all the time", how="load it when its compilation is done")


def _decoded(data: Mapping[str, bytes], name: str, place: Path) -> dict[str, np.ndarray[Any, Any]]:
    """The arrays of a safetensors file that was read; none where there is no such file."""
    return variables.decode(data[name], place / name) if name in data else {}


class _Stored:
    """The programs of an entry as the folder has them, read when they are first used."""

    def __init__(self, entry: str, data: Mapping[str, Any]):
        self.entry, self.data = entry, data

    def __call__(self, kind: str, given: Collection[str]) -> Program:
        if kind in self.data:
            return Program.from_json(self.data[kind])
        if kind.startswith("forward:"):  # a choice of outputs without a program of its own: one that gives more
            _, wanted, *rest = kind.split(":")
            fitting = [k for k in self.data if k.startswith("forward:") and k.split(":")[2:] == rest]
            for k in sorted(fitting, key=len):
                program = Program.from_json(self.data[k])
                if set(program.inputs) <= set(given) and set(wanted.split(",")) <= set(k.split(":")[1].split(",")):
                    return program
        raise ArtifactError(
            f"the compiled model {self.entry} has no {kind.split(':')[0]} program",
            how="value_and_grad needs an output named loss, step an optimiser"
            if kind in ("gradient", "step")
            else None,
        )


_SHORT = {"float32": "f32", "float64": "f64", "int32": "i32", "int64": "i64", "bool": "bool_"}


def _read(place: Path, name: str) -> bytes:
    try:
        return (place / name).read_bytes()
    except OSError as error:
        raise ArtifactError(
            f"the compiled model {place} is incomplete: {name} cannot be read ({error.strerror})",
            how="compile the model again",
        ) from error


def _manifest(place: Path) -> dict[str, Any]:
    if not place.is_dir():
        stopped = checkpoint_of(place).exists()
        raise ArtifactError(
            f"there is no compiled model at {place}",
            how="its training was stopped: graphc train … --resume finishes it"
            if stopped
            else "graphc compile model.py -o build makes build/model",
        )
    if not (place / "manifest.json").exists():
        models = sorted(f.parent for f in place.glob("*/manifest.json") if not f.parent.name.startswith("."))
        if models:
            raise ArtifactError(
                f"{place} is no compiled model, but holds some: {', '.join(m.name for m in models)}",
                how=f"give one of them, such as {models[-1]}",
            )
    text = _read(place, "manifest.json")
    try:
        manifest = json.loads(text)
        version = manifest["format_version"]
        _ = (
            manifest["sha256"],
            manifest["entries"],
            manifest["params"],
            manifest["states"],
            manifest["options"]["target"],
            manifest["name"],
        )
    except (ValueError, KeyError, TypeError) as error:
        raise ArtifactError(
            f"{place / 'manifest.json'} is truncated or edited: {error}", how="compile the model again"
        ) from error
    if version == FORMAT_VERSION and manifest.pop("digest", None) != _digest(manifest):
        raise ArtifactError(
            f"{place / 'manifest.json'} is not what was compiled: it was edited or truncated",
            how="compile the model again",
        )
    if version != FORMAT_VERSION:
        raise ArtifactError(
            f"{place / 'manifest.json'} has the format {version}, this graphc reads {FORMAT_VERSION}",
            how="compile the model again with this version",
        )
    return manifest


def _signature(data: Mapping[str, Any]) -> Signature:
    def declared(d: list[Any]) -> Declared:
        return Declared(d[0], dtypes.BY_NAME[d[1]], tuple(map(parse, d[2])))

    return Signature(
        tuple(map(declared, data["inputs"])),
        tuple(map(declared, data["outputs"])),
        {n: frozenset(inputs) for n, inputs in data["needs"].items()},
        {n: frozenset(inputs) for n, inputs in data["update_needs"].items()},
        tuple(data["trainable"]),
        data.get("trains", False),
    )


def _graphs(data: Mapping[str, bytes], manifest: Mapping[str, Any]) -> dict[str, Any]:
    from ..graph.text import parse_graph  # networkx is not loaded unless someone looks at the graph

    names = list(manifest["entries"])
    return {n: parse_graph(data["graph.txt" if len(names) == 1 else f"{n}.graph.txt"].decode()) for n in names}


def _copy(place: Path, model: CompiledModel, folder: Path) -> Path:
    """Write a loaded model elsewhere, with the parameters, states and vocabulary that it has now."""
    from safetensors.numpy import save as encode

    manifest, files = _contents(place)
    files["params.safetensors"] = encode({n: np.asarray(a, order="C") for n, a in model.params.items()})
    own = {name for entry in model.entries.values() for name in entry.signature.update_needs}
    files |= _possessions(model._states, own, model.vocab)
    _replace(folder / model.name, _sealed(manifest, files))
    return folder / model.name
