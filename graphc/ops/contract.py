"""The row of contractions: einsum, a sum of products over shared indices. Matrix products are einsums."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import TraceError
from ..graph import scalar as sc
from ..graph.dtype import bool_
from ..graph.formula import Clause, Formula, Read, identity, var
from ..graph.node import Node, TensorType
from ..graph.scalar import Scalar
from ..graph.size import Size
from .row import Fit, Row, Sample, same_dtype

LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"


def split_spec(spec: str) -> tuple[list[str], str]:
    """ "ab,bc->ac" as (["ab", "bc"], "ac")."""
    inputs, output = spec.split("->")
    return inputs.split(","), output


def normal_spec(spec: str) -> str:
    """The same contraction with its letters renamed in the order of their appearance: equal ones look equal."""
    names: dict[str, str] = {}
    for letter in spec:
        if letter.isalpha():
            names.setdefault(letter, LETTERS[len(names)])
    return "".join(names.get(c, c) for c in spec)


@dataclass(frozen=True, kw_only=True)
class Einsum(Row):
    """out[output letters] += Π operands[their letters], by the attribute `spec`, as in NumPy."""

    def infer(self, types: Sequence[TensorType], attrs: Mapping[str, Any], fit: Fit) -> TensorType:
        spec = attrs["spec"]
        dtype = same_dtype("einsum", types)
        if dtype is bool_:
            raise TraceError("einsum takes numbers, not bool", how="convert it with gc.cast")
        extents = self.extents(spec, types, fit)
        return TensorType(dtype, tuple(extents[letter] for letter in split_spec(spec)[1]))

    @staticmethod
    def extents(spec: str, types: Sequence[TensorType], fit: Fit) -> dict[str, Size]:
        inputs, output = split_spec(spec)
        if len(inputs) != len(types):
            raise TraceError(f"einsum {spec!r} names {len(inputs)} operands, but {len(types)} are given")
        extents: dict[str, Size] = {}
        for letters, kind in zip(inputs, types, strict=True):
            if len(letters) != kind.rank:
                raise TraceError(
                    f"einsum {spec!r}: {letters!r} names {len(letters)} axes, but the operand {kind} has {kind.rank}"
                )
            for letter, extent in zip(letters, kind.shape, strict=True):
                known = extents.setdefault(letter, extent)
                if known != extent:  # the message is long, and wanted only here
                    operands = " and ".join(map(str, types))
                    sizes = f"the index {letter!r} is {known} in one and {extent} in another"
                    extents[letter] = fit.same(
                        known,
                        extent,
                        f"einsum {spec!r} of {operands}: {sizes}",
                        how=f"both must have the same size, {known} or {extent}",
                    )
        for letter in output:
            if letter not in extents or output.count(letter) > 1:
                raise TraceError(
                    f"einsum {spec!r}: {letter!r} of the output is not an index of one operand, or stands twice"
                )
        return extents

    def formula(self, node: Node) -> Formula:
        spec = node.attr("spec")
        inputs, output = split_spec(spec)
        extents = self.extents(spec, [o.type for o in node.operands], Fit())
        order = [*output, *(letter for letter in extents if letter not in output)]
        place = {letter: i for i, letter in enumerate(order)}
        reads = tuple(Read(k, tuple(var(place[letter]) for letter in letters)) for k, letters in enumerate(inputs))
        body: Scalar = sc.arg(0, node.dtype)
        for k in range(1, len(reads)):
            body = Scalar("mul", (body, sc.arg(k, node.dtype)), node.dtype)
        clause = Clause(tuple(extents[letter] for letter in order), reads, body, identity(len(output)))
        return Formula((clause,), "sum", sc.const(0, node.dtype))


def _sample(spec: str, *shapes: tuple[int, ...]) -> Sample:
    return Sample(shapes, ((-2.0, 2.0),) * len(shapes), {"spec": spec})


ROWS: dict[str, Row] = {
    "einsum": Einsum(
        name="einsum",
        latex="{0} {1}",
        oracle=lambda *arrays, spec: np.einsum(spec, *arrays),
        samples=(
            _sample("ab,bc->ac", (3, 4), (4, 5)),
            _sample("ab,cb->ac", (3, 4), (5, 4)),
            _sample("ba,bc->ac", (4, 3), (4, 5)),
            _sample("abc,acd->abd", (2, 3, 4), (2, 4, 5)),
            _sample("a,a->", (4,), (4,)),
            _sample("a,b->ab", (3,), (4,)),
            _sample("ab,b->a", (3, 4), (4,)),
            _sample("abc,cd->abd", (2, 3, 4), (4, 5)),
            _sample("ab->ba", (3, 4)),
            _sample("ab->a", (3, 4)),
            _sample("ab,bc,cd->ad", (2, 3), (3, 4), (4, 2)),
            _sample("aa->a", (3, 3)),
            _sample("abcd,aecd->abe", (2, 3, 4, 5), (2, 3, 4, 5)),
        ),
    )
}
