"""What an entry takes and gives, and how the shapes of arguments fix its sizes."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from ..errors import GraphcError, InputError, raise_all
from ..graph.dtype import DType
from ..graph.size import Size


@dataclass(frozen=True)
class Declared:
    """An input or output as declared: its name, element type and symbolic shape."""

    name: str
    dtype: DType
    shape: tuple[Size, ...]

    def __str__(self) -> str:
        return f"{self.name}: {self.dtype}[{', '.join(map(str, self.shape)) or '()'}]"


@dataclass(frozen=True)
class Signature:
    """What an entry takes and gives. `needs` says for each output which inputs it depends on, `update_needs` for each
    variable that a call updates. trains: does a forward call that trains compute anything else?"""

    inputs: tuple[Declared, ...]
    outputs: tuple[Declared, ...]
    needs: Mapping[str, frozenset[str]]
    update_needs: Mapping[str, frozenset[str]]
    trainable: tuple[str, ...]
    trains: bool = False

    def __str__(self) -> str:
        return f"({', '.join(map(str, self.inputs))}) -> {', '.join(map(str, self.outputs))}"


def forward_kind(signature: Signature, outputs: Iterable[str], given: Collection[str], train: bool = False) -> str:
    """The kind of program that computes some outputs, and every update that the given inputs suffice for."""
    updates = [str(i) for i, needs in enumerate(signature.update_needs.values()) if needs <= set(given)]
    return f"forward:{','.join(outputs)}:{','.join(updates)}{':train' if train and signature.trains else ''}"


def bind_sizes(inputs: list[tuple[Declared, tuple[int, ...]]]) -> dict[str, int]:
    """The values of the dimension names, from the shapes of the inputs. InputError where shapes contradict."""
    sizes: dict[str, int] = {}
    origin: dict[str, str] = {}
    errors: list[GraphcError] = []
    for declared, shape in inputs:
        if len(shape) != len(declared.shape):
            errors.append(
                InputError(f"the input {declared.name!r} has {len(shape)} axes {shape}, but {declared} is declared")
            )
            continue
        for extent, actual in zip(declared.shape, shape, strict=True):
            name = next(iter(extent.names)) if len(extent.names) == 1 and str(extent).isidentifier() else None
            if name is not None and name not in sizes:
                sizes[name], origin[name] = actual, declared.name
    raise_all(errors)
    for declared, shape in inputs:
        for axis, (extent, actual) in enumerate(zip(declared.shape, shape, strict=True)):
            unknown_names = extent.names - sizes.keys()
            if unknown_names:
                errors.append(
                    InputError(
                        f"the size {min(unknown_names)!r} of the input {declared.name!r} is not known from the inputs given",
                        how=f"pass an input that has the size {min(unknown_names)!r} alone",
                    )
                )
                continue
            expected = extent.evaluate(sizes)
            if expected != actual:
                first = next((origin[n] for n in extent.names if n in origin), None)
                why = (
                    f"{extent} is {expected} by the input {first!r}"
                    if first and first != declared.name
                    else f"{declared} is declared"
                )
                errors.append(
                    InputError(
                        f"the input {declared.name!r} has the shape {shape}: axis {axis} is {actual}, not {expected}",
                        why=why,
                    )
                )
    raise_all(errors)
    return sizes
