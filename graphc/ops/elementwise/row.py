"""What a row of an elementwise operation is: mathematics in SymPy, and where floating point needs one an `eval` form.

`math` is the definition. Kinks are Piecewise, so that a derivative is taken branch by branch and the value at the
kink is ours: ReLU'(0) = 0, a tie of maximum(a, b) goes to b, abs'(0) = 0. `eval` is the same function (a test
proves it) written so that it neither overflows nor loses digits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from inspect import signature
from typing import Any

from ...errors import TraceError
from ...graph import scalar as sc
from ...graph.dtype import DType, bool_, i64
from ...graph.formula import Clause, Formula, gather, identity
from ...graph.node import Node, TensorType
from ...graph.scalar import Scalar
from ...symbolic.lazy import sp
from ..row import Fit, Row, Sample, broadcast, check_count, same_dtype


@dataclass(frozen=True, kw_only=True)
class Elementwise(Row):
    """out[p] = f(operands[p]), operands broadcast.

    math: f over SymPy symbols named as its parameters. eval: f over scalar expressions; without it the code
    generator has a primitive of this name, or prints `math`. stable: partials that replace derived ones which
    overflow or cancel, by operand position; proved equal to the derived ones. reuse: may partials be rewritten
    through the output y. result: "same" as the operands, or "bool". integers_only: of i64.
    """

    math: Callable[..., sp.Basic]
    eval: Callable[..., Scalar] | None = None
    stable: Mapping[int, Callable[..., sp.Basic]] | None = None
    reuse: bool = True
    result: str = "same"
    floats_only: bool = False
    integers_only: bool = False
    bools: bool = False
    commutative: bool = False
    primitive: bool = False
    condition: bool = False  # the first operand is a condition, of type bool

    @cached_property
    def arity(self) -> int:
        """How many operands it takes."""
        return len(signature(self.math).parameters)

    @cached_property
    def symbols(self) -> tuple[sp.Symbol, ...]:
        """The inputs as SymPy symbols, named as in `math`."""
        names = list(signature(self.math).parameters)
        return tuple(
            sp.Symbol(n) if self.bools or (self.condition and i == 0) else sp.Symbol(n, real=True)
            for i, n in enumerate(names)
        )

    @cached_property
    def expression(self) -> sp.Basic:
        """The operation over its symbols."""
        return self.math(*self.symbols)

    def infer(self, types: Sequence[TensorType], attrs: Mapping[str, Any], fit: Fit) -> TensorType:
        check_count(self.name, types, self.arity)
        values = types[1:] if self.condition else types
        if self.condition and types[0].dtype is not bool_:
            raise TraceError(
                f"{self.name}: the condition has the type {types[0].dtype}, not bool",
                how="compare it, for example x != 0",
            )
        dtype = same_dtype(self.name, values)
        if self.floats_only and not dtype.is_float:
            raise TraceError(f"{self.name} takes floating-point arrays, not {dtype}", how="convert it with gc.cast")
        if self.integers_only and dtype is not i64:
            raise TraceError(f"{self.name} takes arrays of i64, not {dtype}", how="convert it with gc.cast")
        if self.bools and dtype is not bool_:
            raise TraceError(f"{self.name} takes arrays of bool, not {dtype}", how="compare it, for example x != 0")
        shape = broadcast(self.name, [t.shape for t in types], fit)
        return TensorType(self.result_dtype(dtype, attrs), shape)

    def result_dtype(self, dtype: DType, attrs: Mapping[str, Any]) -> DType:
        return bool_ if self.result == "bool" else dtype

    def formula(self, node: Node) -> Formula:
        reads = tuple(gather(k, o.shape, node.shape) for k, o in enumerate(node.operands))
        body = Scalar(self.name, tuple(sc.arg(k, o.dtype) for k, o in enumerate(node.operands)), node.dtype)
        return Formula((Clause(node.shape, reads, body, identity(node.type.rank)),))


# -- what rows are written with --------------------------------------------------------------------------------------
def by_name(*rows: Elementwise) -> dict[str, Elementwise]:
    """The rows of a family."""
    return {row.name: row for row in rows}


def apply(op: str, *args: Scalar) -> Scalar:
    """An operation of an `eval` form, whose result is of the type of its operands."""
    return Scalar(op, args, args[-1].dtype)


def compare(op: str, a: Scalar, b: Scalar) -> Scalar:
    """A comparison of an `eval` form."""
    return Scalar(op, (a, b), bool_)


def number(value: float, like: Scalar) -> Scalar:
    """A number of an `eval` form, in the type of an operand."""
    return sc.const(value, like.dtype)


def sample(*shapes: tuple[int, ...], low: float = -2.0, high: float = 2.0) -> Sample:
    """Operands of these shapes, all from one range."""
    return Sample(shapes, ((low, high),) * len(shapes))


# what most rows are tested on: one operand, one that is positive, two
ONE = (sample((3, 4)), sample((1,)), sample(()))
POSITIVE = (sample((3, 4), low=0.1), sample((), low=0.1))
TWO = (sample((3, 4), (3, 4)), sample((2, 3), (3,)), sample((2, 1), (1, 3)), sample((), (3,)))
