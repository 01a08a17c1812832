"""PyTorch's state dicts: arrays taken into a compiled model by their names.

A name of PyTorch's is a path with dots where graphc has slashes: `encoder.lstm.weight_ih_l0` is the parameter
`encoder/lstm/weight_ih_l0`, which a recurrent layer with layout="torch" has. Of a linear layer `out.weight` is `out/W`,
transposed, and `out.bias` is `out/b`.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ArtifactError, InputError
from ..runtime import variables
from ..runtime.model import CompiledModel

Array = np.ndarray[Any, Any]


def load_torch_state_dict(
    model: CompiledModel,
    source: Mapping[str, Any] | str | Path,
    *,
    scope: str = "",
    names: Mapping[str, str] | None = None,
    strict: bool = True,
) -> None:
    """Set the model's parameters from a state dict: all, or none and an error that lists what does not fit.

    source: a mapping from PyTorch's names to tensors or arrays, or the path of a .safetensors file, or of one that
    torch.save wrote, which needs PyTorch. scope: where in the model the names begin: "lstm" for the state dict of one
    torch.nn.LSTM. names: a parameter's name → PyTorch's, where they do not follow from each other.
    strict: every parameter under the scope and every name must find its partner. Numbers are converted to the
    parameters' type. InputError where names or shapes do not fit, ArtifactError where a file cannot be read.
    """
    given = _read(source) if isinstance(source, (str, Path)) else source
    begin = f"{scope}/" if scope else ""
    chosen: dict[str, Array] = {}
    problems: list[str] = []
    used: set[str] = set()
    for name, target in model.params.items():
        if not name.startswith(begin):
            continue
        own, turned = _partner(name.removeprefix(begin), given, (names or {}).get(name))
        if own not in given:
            problems += [f"{name!r} has no {own!r}"] if strict or name in (names or {}) else []
            continue
        used.add(own)
        value = _array(given[own])
        value = value.T if turned else value
        if value.shape != target.shape:
            problems.append(f"{name!r} has the shape {target.shape}, {own!r} {_array(given[own]).shape}")
        elif value.dtype.kind != target.dtype.kind:
            problems.append(f"{name!r} is {target.dtype}, {own!r} {value.dtype}")
        chosen[name] = value
    if strict:
        problems += [f"{n!r} is no parameter of the model" for n in given if n not in used]
    if problems:
        raise InputError(
            f"the state dict does not fit: {'; '.join(problems)}",
            how="say which is which with names=, where the names begin with scope=, or leave some out with strict=False",
        )
    for name, value in chosen.items():
        model.params[name] = value


def _partner(name: str, given: Mapping[str, Any], wanted: str | None) -> tuple[str, bool]:
    """(PyTorch's name of a parameter, whether the array is the transposed one)"""
    own = name.replace("/", ".")
    place, _, last = own.rpartition(".")
    renamed = {"W": "weight", "b": "bias"}.get(last)
    linear = None if renamed is None else f"{place}.{renamed}" if place else renamed
    if wanted is not None:
        return wanted, last == "W" and wanted.endswith("weight")
    return (linear, last == "W") if linear is not None and own not in given else (own, False)


def _array(value: Any) -> Array:
    """A tensor or array as NumPy has it; numbers that NumPy does not know become float32."""
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        value = value.float() if str(value.dtype) == "torch.bfloat16" else value
    return np.asarray(value)


def _read(path: str | Path) -> Mapping[str, Any]:
    if Path(path).suffix == ".safetensors":
        return variables.load(path)[0]
    if importlib.util.find_spec("torch") is None:
        raise ArtifactError(f"{path} needs PyTorch to be read", how="install torch, or convert it to safetensors")
    import torch

    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever PyTorch raises for a file that it cannot read
        raise ArtifactError(f"{path} cannot be read as a state dict: {error}") from error
    if not isinstance(found, Mapping):
        raise ArtifactError(f"{path} holds {type(found).__name__}, not a state dict", how="save module.state_dict()")
    return found
