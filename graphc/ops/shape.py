"""Rows that move elements: reshape, transpose, broadcast_to, slice, concat. None of them computes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import TraceError
from ..graph import scalar as sc
from ..graph.formula import ZERO, Affine, Clause, Formula, Index, Read, affine, gather, identity, var
from ..graph.node import Node, TensorType
from ..graph.size import Size, SizeLike, product, size
from .row import Fit, Row, Sample, check_axis, check_count, same_dtype


def _one(name: str, types: Sequence[TensorType]) -> TensorType:
    check_count(name, types, 1)
    return types[0]


def _copy(
    node: Node, access: tuple[Index, ...], write: tuple[Index, ...] | None = None, box: tuple[Size, ...] | None = None
) -> Formula:
    clause = Clause(
        node.shape if box is None else box,
        (Read(0, access),),
        sc.arg(0, node.dtype),
        identity(node.type.rank) if write is None else write,
    )
    return Formula((clause,))


@dataclass(frozen=True, kw_only=True)
class Reshape(Row):
    """The same elements in row-major order under another shape, the attribute `shape`.

    A bijection on flat positions, not an affine map: it has a formula only where axes of length 1 come and go;
    elsewhere it is a view of the same memory, and its adjoint is the reshape back.
    """

    def infer(self, types: Sequence[TensorType], attrs: Mapping[str, Any], fit: Fit) -> TensorType:
        x = _one(self.name, types)
        shape = attrs["shape"]
        fit.same(
            x.numel,
            product(shape),
            f"reshape: {x} has {x.numel} elements, the shape ({', '.join(map(str, shape))}) has {product(shape)}",
            how="the numbers of elements must agree; one size may be -1, meaning the rest",
        )
        return TensorType(x.dtype, shape)

    def formula(self, node: Node) -> Formula | None:
        (x,) = node.operands
        old = [d for d, e in enumerate(x.shape) if e != 1]
        new = [d for d, e in enumerate(node.shape) if e != 1]
        if [x.shape[d] for d in old] != [node.shape[d] for d in new]:
            return None
        place = dict(zip(old, new, strict=True))
        return _copy(node, tuple(var(place[d]) if d in place else ZERO for d in range(x.type.rank)))


@dataclass(frozen=True, kw_only=True)
class Transpose(Row):
    """out[p] = x[p permuted]: axis d of the result is axis perm[d] of x."""

    def infer(self, types: Sequence[TensorType], attrs: Mapping[str, Any], fit: Fit) -> TensorType:
        x = _one(self.name, types)
        if sorted(attrs["perm"]) != list(range(x.rank)):
            raise TraceError(f"transpose: {attrs['perm']} is no order of the {x.rank} axes of {x}")
        return TensorType(x.dtype, tuple(x.shape[d] for d in attrs["perm"]))

    def formula(self, node: Node) -> Formula:
        place = {d: i for i, d in enumerate(node.attr("perm"))}
        return _copy(node, tuple(var(place[d]) for d in range(node.type.rank)))


@dataclass(frozen=True, kw_only=True)
class BroadcastTo(Row):
    """x stretched to the attribute `shape`: axes of length 1, and missing leading ones, repeat."""

    def infer(self, types: Sequence[TensorType], attrs: Mapping[str, Any], fit: Fit) -> TensorType:
        x, shape = _one(self.name, types), attrs["shape"]
        shift = len(shape) - x.rank
        for extent in shape:
            fit.at_least(extent, size(0), f"a shape of ({', '.join(map(str, shape))}): the size {extent} is below 0")
        if shift < 0:
            raise TraceError(f"broadcast_to: {x} has more axes than the shape ({', '.join(map(str, shape))})")
        for d, extent in enumerate(x.shape):
            if extent != 1:
                fit.same(
                    extent,
                    shape[d + shift],
                    f"broadcast_to: {x} does not stretch to ({', '.join(map(str, shape))}): axis {d} is {extent}, not {shape[d + shift]}",
                    how="only an axis of the literal size 1 stretches",
                )
        return TensorType(x.dtype, shape)

    def formula(self, node: Node) -> Formula:
        (x,) = node.operands
        read = gather(0, x.shape, node.shape)
        return _copy(node, read.map)


@dataclass(frozen=True, kw_only=True)
class Slice(Row):
    """out[p] = x[start + step·p] axis by axis; attributes `start`, `step` (not zero) and `shape`, of sizes."""

    def infer(self, types: Sequence[TensorType], attrs: Mapping[str, Any], fit: Fit) -> TensorType:
        x = _one(self.name, types)
        return TensorType(x.dtype, attrs["shape"])

    def formula(self, node: Node) -> Formula:
        starts, steps = node.attr("start"), node.attr("step")
        return _copy(node, tuple(affine(starts[d], {d: steps[d]}) for d in range(node.type.rank)))


@dataclass(frozen=True, kw_only=True)
class Concat(Row):
    """The operands one after another along the attribute `axis`: a clause for each."""

    def infer(self, types: Sequence[TensorType], attrs: Mapping[str, Any], fit: Fit) -> TensorType:
        if not types:
            raise TraceError("concat takes at least one array")
        dtype, axis, first = same_dtype(self.name, types), attrs["axis"], types[0]
        check_axis(self.name, axis, first.rank)
        shape = list(first.shape)
        for kind in types[1:]:
            if kind.rank != first.rank:
                raise TraceError(f"concat: {first} and {kind} have different numbers of axes")
            for d in range(first.rank):
                if d != axis:
                    shape[d] = fit.same(
                        shape[d],
                        kind.shape[d],
                        f"concat along axis {axis}: {first} and {kind} differ at axis {d}, {shape[d]} and {kind.shape[d]}",
                        how="all axes but the one of the concatenation must agree",
                    )
            shape[axis] = shape[axis] + kind.shape[axis]
        return TensorType(dtype, tuple(shape))

    def formula(self, node: Node) -> Formula:
        axis, offset = node.attr("axis"), size(0)
        clauses = []
        for k, operand in enumerate(node.operands):
            rank = operand.type.rank
            write: tuple[Affine, ...] = tuple(affine(offset, {d: 1}) if d == axis else var(d) for d in range(rank))
            clauses.append(Clause(operand.shape, (Read(k, identity(rank)),), sc.arg(k, node.dtype), write))
            offset = offset + operand.shape[axis]
        # each clause has one read, which its body calls a0
        return Formula(tuple(Clause(c.box, c.reads, sc.arg(0, node.dtype), c.write) for c in clauses))


def _sample(*shapes: tuple[int, ...], **attrs: Any) -> Sample:
    return Sample(shapes, ((-2.0, 2.0),) * len(shapes), attrs)


def _sizes(*values: SizeLike) -> tuple[Size, ...]:
    return tuple(map(size, values))


def _ints(values: Sequence[Size]) -> tuple[int, ...]:
    return tuple(map(int, values))


def _slice_np(x: np.ndarray, start: Any, step: Any, shape: Any) -> np.ndarray:
    return x[np.ix_(*(int(a) + int(s) * np.arange(int(n)) for a, s, n in zip(start, step, shape, strict=True)))]


ROWS: dict[str, Row] = {
    row.name: row
    for row in (
        Reshape(
            name="reshape",
            latex="{0}",
            oracle=lambda x, shape: np.reshape(x, _ints(shape)),
            samples=(
                _sample((2, 3, 4), shape=_sizes(6, 4)),
                _sample((2, 3), shape=_sizes(2, 1, 3)),
                _sample((1, 3), shape=_sizes(3)),
                _sample((4, 3), shape=_sizes(2, 6)),
            ),
            # not an affine map of indices, but a bijection: the cotangent goes back the same way
            vjp=lambda node, k, cotangent: Node(
                "reshape",
                (cotangent,),
                TensorType(cotangent.dtype, node.operands[0].shape),
                shape=node.operands[0].shape,
            ),
        ),
        Transpose(
            name="transpose",
            latex="{0}^{{\\top}}",
            oracle=lambda x, perm: np.transpose(x, perm),
            samples=(_sample((2, 3), perm=(1, 0)), _sample((2, 3, 4), perm=(2, 0, 1))),
        ),
        BroadcastTo(
            name="broadcast_to",
            latex="{0}",
            oracle=lambda x, shape: np.broadcast_to(x, _ints(shape)),
            samples=(
                _sample((3,), shape=_sizes(2, 3)),
                _sample((2, 1), shape=_sizes(2, 3)),
                _sample((), shape=_sizes(2, 2)),
            ),
        ),
        Slice(
            name="slice",
            latex="{0}",
            oracle=_slice_np,
            samples=(
                _sample((5, 4), start=_sizes(1, 0), step=_sizes(1, 2), shape=_sizes(3, 2)),
                _sample((5,), start=_sizes(4), step=_sizes(-2), shape=_sizes(3)),
            ),
        ),
        Concat(
            name="concat",
            latex="[{0}; {1}]",
            oracle=lambda *arrays, axis: np.concatenate(arrays, axis),
            samples=(_sample((2, 3), (4, 3), axis=0), _sample((2, 3), (2, 1), (2, 2), axis=1)),
        ),
    )
}
