"""Sums of products by letters; `tensor.matmul` is the one that has an operator."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..errors import TraceError
from ..ops.contract import LETTERS, normal_spec
from .tensor import Tensor, Value, cast, common_type, fail, lift, record


def einsum(spec: str, *operands: Value) -> Tensor:
    """A sum of products by NumPy's notation, `...` and the implicit output included."""
    dtype = common_type(operands)
    tensors = [cast(lift(o, dtype), dtype) for o in operands]
    if any(t.broken for t in tensors):
        return Tensor(None)
    compact = spec.replace(" ", "")
    inputs = compact.split("->")[0].split(",")
    if len(inputs) != len(tensors):
        return fail(TraceError(f"einsum {spec!r} names {len(inputs)} operands, but {len(tensors)} are given"))
    free = [c for c in LETTERS if c not in compact]
    widest = ""
    for i, (letters, tensor) in enumerate(zip(inputs, tensors, strict=True)):
        if "..." in letters:
            count = tensor.ndim - len(letters) + 3
            names = "".join(free[: _most_axes(tensors)])[_most_axes(tensors) - count :] if count > 0 else ""
            inputs[i] = letters.replace("...", names)
            widest = names if len(names) > len(widest) else widest
    if "->" in compact:
        output = compact.split("->")[1].replace("...", widest)
    else:
        joined = "".join(inputs)
        output = widest + "".join(sorted(c for c in set(joined) if joined.count(c) == 1 and c not in widest))
    return record("einsum", *tensors, spec=normal_spec(f"{','.join(inputs)}->{output}"))


def _most_axes(tensors: Sequence[Tensor]) -> int:
    """The most axes any operand has: enough letters for every `...`."""
    return np.max([t.ndim for t in tensors], initial=0)
