"""Parameters and states: the arrays that live between calls."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ArtifactError, GraphcError, InputError
from ..graph.dtype import DType
from ..graph.size import Size
from .memory import side_by_side
from .packing import Packed

Array = np.ndarray[Any, Any]


class Arrays(Mapping[str, Array]):
    """name → writable array. Setting copies into the array, so that its memory stays where it is."""

    kind = "state"

    def __init__(self, arrays: dict[str, Array]):
        self._arrays = arrays

    def __getitem__(self, name: str) -> Array:
        try:
            return self._arrays[name]
        except KeyError:
            raise unknown(self.kind, name, self._arrays) from None

    def __setitem__(self, name: str, value: Any) -> None:
        target = self[name]
        try:
            if np.asarray(value).dtype.kind == "c":
                raise TypeError("it is complex")
            new = np.asarray(value, target.dtype)
        except (TypeError, ValueError) as error:
            raise InputError(f"the {self.kind} {name!r} cannot be set: {error}") from error
        if new.shape != target.shape:
            raise InputError(f"the {self.kind} {name!r} has the shape {target.shape}, not {new.shape}")
        if not target.flags.writeable:
            raise InputError(f"the {self.kind} {name!r} is frozen", how="call thaw() on the model first")
        target[...] = new

    def __contains__(self, name: object) -> bool:
        return name in self._arrays

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)

    def __repr__(self) -> str:
        return "\n".join(f"{n}: {a.dtype}{list(a.shape)}" for n, a in self._arrays.items())


class Parameters(Arrays):
    """The parameters of a model, which of them are trained, and what a target made of them while they are frozen."""

    kind = "parameter"

    def __init__(self, arrays: dict[str, Array], trainable: Mapping[str, bool]):
        super().__init__(arrays)
        self.trainable = dict(trainable)
        self.packed: Packed | None = None

    def freeze(self) -> None:
        """Make them read-only, and let matrix products pack them once for all calls, until `thaw`."""
        for array in self._arrays.values():
            array.flags.writeable = False
        self.packed = Packed(self._arrays)

    def thaw(self) -> None:
        """Make them writable again; what was packed is forgotten."""
        for array in self._arrays.values():
            array.flags.writeable = True
        self.packed = None


def unknown(kind: str, name: str, known: Mapping[str, Any] | list[str] | tuple[str, ...]) -> GraphcError:
    """The error for a name that is none, with the nearest one."""
    near = get_close_matches(str(name), list(known), 1)
    return InputError(
        f"there is no {kind} {name!r}",
        how=f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(known) or 'none'}",
    )


def allocate(shapes: Mapping[str, tuple[DType, tuple[int, ...]]]) -> dict[str, Array]:
    """Zeroed arrays, those of one type side by side, each at a multiple of 64 bytes."""
    names = sorted(shapes, key=lambda n: shapes[n][0].name)
    _, arrays = side_by_side([(shapes[n][0].numpy, shapes[n][1]) for n in names])
    made = dict(zip(names, arrays, strict=True))
    return {name: made[name] for name in shapes}


class States:
    """States by name. One with a symbolic shape is made when the sizes are first known."""

    def __init__(self, declared: Mapping[str, tuple[DType, tuple[Size, ...]]], initial: Mapping[str, Array]):
        self.declared = dict(declared)
        self.initial = dict(initial)
        known = {n: (t, tuple(map(int, s))) for n, (t, s) in self.declared.items() if _known(s)}
        self.arrays = allocate(known)
        self.reset()

    @property
    def carried(self) -> tuple[str, ...]:
        """The names of those with a symbolic shape: they follow the sequences of a batch, and end where those end."""
        return tuple(n for n, (_, shape) in self.declared.items() if not _known(shape))

    def reset(self, names: Iterable[str] | None = None) -> None:
        """Back to the beginning, all or some: arrays of known shape keep their memory, others are made at the next call."""
        for name in self.declared if names is None else tuple(names):
            if name not in self.declared:
                raise unknown("state", name, list(self.declared))
            if name in self.carried:
                self.arrays.pop(name, None)
            else:
                self.arrays[name][...] = self.initial.get(name, 0)

    def set(self, values: Mapping[str, Any]) -> None:
        """Give states values; one of symbolic shape takes the shape of its value. InputError, and none is set, at a misfit."""
        arrays = {n: np.asarray(v) for n, v in values.items()}
        for name, value in arrays.items():
            if name not in self.declared:
                raise unknown("state", name, list(self.declared))
            dtype, shape = self.declared[name]
            fits = len(shape) == value.ndim and all(e.constant in (None, n) for e, n in zip(shape, value.shape))
            if not fits or value.dtype.kind != dtype.numpy.kind:
                declared = f"{dtype}[{', '.join(map(str, shape))}]"
                raise InputError(f"the state {name!r} is {declared}, the value is {value.dtype}{list(value.shape)}")
        made = allocate({n: (self.declared[n][0], arrays[n].shape) for n in self.carried if n in arrays})
        self.arrays |= made
        for name, value in arrays.items():
            self.arrays[name][...] = value

    def get(self, name: str, sizes: Mapping[str, int]) -> Array:
        """The array of a state for given sizes; InputError where it was made for others."""
        dtype, symbolic = self.declared[name]
        shape = tuple(e.evaluate(sizes) for e in symbolic)
        if name not in self.arrays:
            self.arrays |= allocate({name: (dtype, shape)})
            self.arrays[name][...] = self.initial.get(name, 0)
        if self.arrays[name].shape != shape:
            raise InputError(
                f"the state {name!r} has the shape {self.arrays[name].shape}, these inputs need {shape}",
                how="call with the same sizes as before, or reset() the model first",
                why="it is carried from call to call, a row for each sequence of the batch",
            )
        return self.arrays[name]


def _known(shape: tuple[Size, ...]) -> bool:
    return all(e.constant is not None for e in shape)


def save(path: str | Path, arrays: Mapping[str, Array], metadata: Mapping[str, str] | None = None) -> None:
    """Write arrays to a safetensors file, atomically."""
    from safetensors.numpy import save as encode

    target = Path(path)
    data = encode({n: np.asarray(a, order="C") for n, a in arrays.items()}, dict(metadata) if metadata else None)
    write_atomically(target, data)


def write_atomically(target: Path, data: bytes) -> None:
    """Write beside the target and move there: nobody ever sees half a file. ArtifactError where that fails."""
    try:
        handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(temporary, 0o644)
            os.replace(temporary, target)
        except BaseException:
            os.unlink(temporary)
            raise
    except OSError as error:
        raise ArtifactError(
            f"{target} cannot be written: {error.strerror or error}", how="choose a folder that can be written"
        ) from error


def load(path: str | Path) -> tuple[dict[str, Array], dict[str, str]]:
    """The arrays and the metadata of a safetensors file. ArtifactError where it cannot be read."""
    try:
        data = Path(path).read_bytes()
    except FileNotFoundError as error:
        raise ArtifactError(f"there is no parameter file {path}") from error
    except OSError as error:
        raise ArtifactError(f"the parameter file {path} cannot be read: {error.strerror}") from error
    arrays = decode(data, path)
    # the header is a length of 8 bytes and JSON; decoding has checked it
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    return arrays, header.get("__metadata__", {})


def decode(data: bytes, path: str | Path) -> dict[str, Array]:
    """The arrays in the bytes of a safetensors file; `path` is for the message of the ArtifactError."""
    from safetensors import SafetensorError
    from safetensors.numpy import load as arrays_of

    try:
        return arrays_of(data)
    except (SafetensorError, ValueError, KeyError) as error:
        raise ArtifactError(
            f"the parameter file {path} cannot be read: {error}",
            how="it is truncated or no safetensors file; save it again",
        ) from error


def assign(targets: Mapping[str, Array], loaded: Mapping[str, Array], path: str | Path) -> None:
    """Copy loaded arrays into parameters: all of them, or none and an error that lists every misfit."""
    problems = [f"{n!r} is missing" for n in targets if n not in loaded]
    problems += [f"{n!r} is not a parameter of this model" for n in loaded if n not in targets]
    problems += [
        f"{n!r} has the shape {loaded[n].shape}, the model's is {a.shape}"
        for n, a in targets.items()
        if n in loaded and loaded[n].shape != a.shape
    ]
    if problems:
        raise ArtifactError(
            f"the parameters in {path} do not fit: {'; '.join(problems)}",
            how="load parameters saved from the same model and hyperparameters",
        )
    frozen = [n for n, a in targets.items() if not a.flags.writeable]
    if frozen:
        raise InputError(f"the parameter {frozen[0]!r} is frozen", how="call thaw() on the model first")
    for name, array in targets.items():
        array[...] = loaded[name]
