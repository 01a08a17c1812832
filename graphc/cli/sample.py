"""Inputs for a run that only has to be timed: a batch of the model file's data, or numbers drawn at random."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

import numpy as np

from ..errors import GraphcError, InputError, raise_all
from ..graph.dtype import DType
from ..graph.graph import Graph
from ..runtime.program import Program
from ..runtime.signature import Declared, Signature
from ..train.dataset import Batches
from ..verify.integers import allowed
from .source import Source
from .train import dataset_of

Array = np.ndarray[Any, Any]


def read_sizes(given: Sequence[str] | None, inputs: Sequence[Declared]) -> dict[str, int]:
    """`NAME=VALUE` texts as sizes of some inputs. All errors at once."""
    known = names_of(inputs)
    sizes: dict[str, int] = {}
    errors: list[GraphcError] = []
    for text in given or ():
        name, _, value = text.partition("=")
        if name not in known:
            near = get_close_matches(name, known, 1)
            listed = f"there are: {', '.join(known)}" if known else "no input has a symbolic size"
            how = f"did you mean {near[0]!r}? {listed}" if near else listed
            errors.append(InputError(f"--size {text}: the model has no size {name!r}", how=how))
        elif not value.isdecimal() or int(value) < 1:
            errors.append(InputError(f"--size {text}: {value!r} is no size", how=f"write --size {name}=NUMBER, 1 or more"))
        else:
            sizes[name] = int(value)
    raise_all(errors)
    return sizes


def names_of(inputs: Sequence[Declared]) -> list[str]:
    """The names of the symbolic sizes of some inputs, in the order in which they are first met."""
    return list(dict.fromkeys(name for d in inputs for extent in d.shape for name in sorted(extent.names)))


def batch_of(source: Source, signature: Signature, wanted: Collection[str], rows: int) -> dict[str, Any]:
    """The first batch of the training data of a model file, at most so many rows, with what some outputs need."""
    data = dataset_of(source, None, signature.inputs)
    batches = Batches(data.train, signature, rows, wanted=wanted)
    return next(batches.epoch())[0]


def completed(sizes: Mapping[str, int], inputs: Sequence[Declared], program: Program, rows: int) -> dict[str, int]:
    """Sizes for all names: those given, what the program's guards say of others, and so many rows of a batch.

    A batch is the first axis of the first input that has a symbolic one. InputError says which sizes are missing.
    """
    found = dict(sizes)
    names = names_of(inputs)
    firsts = [d.shape[0] for d in inputs if d.shape and d.shape[0].constant is None]
    batch = next((str(extent) for extent in firsts if str(extent) in names), None)
    if batch is not None:
        found.setdefault(batch, rows)
    for _ in names:  # each round knows one more, or none any more
        for guard in program.guards:
            for side, other in ((guard.left, guard.right), (guard.right, guard.left)):
                if guard.relation == "==" and str(side) in names and other.names <= found.keys():
                    found.setdefault(str(side), other.evaluate(found))
    missing = [name for name in names if name not in found]
    if missing:
        having = [str(d) for d in inputs if any(set(missing) & e.names for e in d.shape)]
        raise InputError(
            f"the size{'s' if len(missing) > 1 else ''} {', '.join(missing)} of {', '.join(having)} must be given",
            how=f"add {' '.join(f'--size {name}=NUMBER' for name in missing)}",
        )
    return found


def drawn(inputs: Sequence[Declared], graph: Graph, sizes: Mapping[str, int], seed: int = 0) -> dict[str, Array]:
    """An array for each input: floats between 0 and 1, truth values, and integers that the graph's look-ups allow."""
    rng = np.random.default_rng(seed)
    ranges = {node.attr("name"): span for node, span in allowed(graph, sizes).items()}
    # what is known of no integer: it may come to a look-up by way of a computation, or count something, so not none
    most = max(1, min((high for _, high in ranges.values()), default=1))
    arrays = {}
    for d in inputs:
        shape = tuple(extent.evaluate(sizes) for extent in d.shape)
        arrays[d.name] = _drawn(d.dtype, shape, ranges.get(d.name, (1, most)), rng)
    return arrays


def _drawn(dtype: DType, shape: tuple[int, ...], span: tuple[int, int], rng: np.random.Generator) -> Array:
    if dtype.kind == "f":
        return rng.random(shape).astype(dtype.numpy)
    if dtype.kind == "b":
        return rng.integers(0, 2, shape).astype(dtype.numpy)
    low, high = span
    return rng.integers(low, max(low, high), shape, endpoint=True).astype(dtype.numpy)
