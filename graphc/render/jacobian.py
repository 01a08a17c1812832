"""∂h_t/∂h_{t−1} and the like as products of matrices, from the partial derivatives that the compiler takes.

A Jacobian ∂y[i]/∂x[j] of a step is a sum over the ways from x to y; along a way an elementwise operation is a diagonal
matrix, a product with a weight is the weight (transposed where y = x W), a slice is some rows of what is sliced, and a
part of a concatenation some columns of the identity.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace

import sympy as sp

from ..graph.node import Node
from ..graph.size import size
from ..ops.build import is_elementwise
from ..ops.contract import split_spec
from ..ops.elementwise.row import Elementwise
from ..ops.table import row_of
from ..pipeline import local_derivative
from .local import plain_text
from .notation import ATOM, Printer, size_text


@dataclass(frozen=True)
class Factor:
    """A matrix. name: of a weight, "" for a diagonal; diagonal: what stands on it, factors; rows, columns: those that are
    taken, of the matrix as it stands in the product."""

    name: str = ""
    transposed: bool = False
    rows: str = ""
    columns: str = ""
    diagonal: tuple[str, ...] = ()

    def __str__(self) -> str:
        if self.diagonal:
            several = len(self.diagonal) > 1
            inside = " · ".join(_bracketed(d) if several else _bare(d) for d in self.diagonal)
            return f"diag({inside})"
        taken = [self.rows or ":", self.columns or ":"]
        part = f"[{', '.join(taken[::-1] if self.transposed else taken)}]" if self.rows or self.columns else ""
        return f"{self.name}{part}{'ᵀ' if self.transposed else ''}"


Way = tuple[Factor, ...]


class Unknown(Exception):
    """A Jacobian that is no such product."""


class Jacobians:
    """Jacobians inside one step. printer: formulas of its values; held: values that keep what was before where a
    sequence has ended; same: does an operation only move the axis of the steps?"""

    def __init__(
        self, printer: Printer, held: Collection[Node] = (), same: Callable[[Node], bool] = lambda node: False
    ):
        self.printer, self.held, self.same = printer, held, same

    def text(self, y: Node, x: Node, fixed: Collection[Node] = ()) -> str | None:
        """∂y/∂x as a line; None where it cannot be written as a sum of products of matrices; "0" where it is zero.

        fixed: values that are taken for constant, so that only ways around them count.
        """
        try:
            ways = Counter(self._ways(y, x, {n: [] for n in fixed if n is not y}))
        except Unknown:
            return None
        texts = {" ".join(map(str, way)) or "I": count for way, count in ways.items()}
        return " + ".join(text if count == 1 else f"{count} {text}" for text, count in texts.items()) or "0"

    def _ways(self, y: Node, x: Node, known: dict[Node, list[Way]]) -> list[Way]:
        if y is x:
            return [()]
        if y not in known:
            known[y] = self._through(y, x, known)
        return known[y]

    def _through(self, y: Node, x: Node, known: dict[Node, list[Way]]) -> list[Way]:
        if y in self.held:  # where the sequence goes on
            return self._ways(y.operands[1], x, known)
        found: list[Way] = []
        for k, operand in enumerate(y.operands):
            for way in self._ways(operand, x, known):
                found += self._step(y, k, way)
        return found

    def _step(self, y: Node, k: int, way: Way) -> list[Way]:
        """The way to an operand, one operation longer."""
        operand = y.operands[k]
        if y.op in ("stop_gradient",) or not row_of(y.op).differentiable:
            return []
        if (
            y.op in ("cast", "watched")
            or self.same(y)
            or (
                y.op in ("reshape", "broadcast_to", "transpose")
                and [e for e in y.shape if e != 1] == [e for e in operand.shape if e != 1]
            )
        ):
            return [way]
        if y.op == "slice":
            return [self._sliced(y, way)]
        if y.op == "concat":
            return [(self._part(y, k), *way)]
        if y.op == "einsum":
            weight = self._weight(y, k)
            if way and way[0].name == "I" and not way[0].rows:  # some columns of I: those of the weight
                return [(replace(weight, columns=way[0].columns), *way[1:])]
            return [(weight, *way)]
        if is_elementwise(y) and operand.shape == y.shape:
            partial = self._partial(y, k)
            return [way] if partial == "1" else [] if partial == "0" else [_joined(Factor(diagonal=(partial,)), way)]
        raise Unknown

    def _partial(self, y: Node, k: int) -> str:
        row = row_of(y.op)
        assert isinstance(row, Elementwise)
        names: dict[sp.Basic, sp.Basic] = {sp.Symbol("y", real=True): sp.Symbol(self._operand(y, y), real=True)}
        for symbol, operand in zip(row.symbols, y.operands, strict=True):
            names[symbol] = sp.Symbol(self._operand(operand, y), real=True)
        text = plain_text(local_derivative(y.op, k).xreplace(names))
        if text is None:
            raise Unknown
        return text

    def _operand(self, operand: Node, box: Node) -> str:
        """The name of a value, or its formula."""
        return self.printer.operand(operand, box, ATOM)

    def _weight(self, y: Node, k: int) -> Factor:
        """Of y = x W the matrix ∂y/∂x = Wᵀ."""
        inputs, output = split_spec(y.attr("spec"))
        if len(inputs) != 2:
            raise Unknown
        mine, other = inputs[k], inputs[1 - k]
        summed = [c for c in mine if c in other and c not in output]
        new = [c for c in output if c not in mine]
        if len(summed) != 1 or len(new) != 1 or set(other) != {*summed, *new} or mine[-1] != summed[0]:
            raise Unknown
        name = self._operand(y.operands[1 - k], y)
        turned = name.endswith("ᵀ")
        return Factor(name.removesuffix("ᵀ"), (other[0] == summed[0]) != turned)

    @staticmethod
    def _part(y: Node, k: int) -> Factor:
        """Of y = [a; b] the matrix ∂y/∂a: some columns of the identity."""
        if y.attr("axis") != y.type.rank - 1:
            raise Unknown
        start = sum((o.shape[-1] for o in y.operands[:k]), size(0))
        stop = start + y.operands[k].shape[-1]
        texts = ["" if start == 0 else size_text(start), "" if stop == y.shape[-1] else size_text(stop)]
        return Factor("I", columns=":".join(texts))

    def _sliced(self, y: Node, way: Way) -> Way:
        (x,) = y.operands
        changed = [d for d, e in enumerate(y.shape) if e != x.shape[d]]
        if not changed:
            return way
        start, step = y.attr("start")[changed[0]], y.attr("step")[changed[0]]
        if changed != [y.type.rank - 1] or step != 1:
            raise Unknown
        rows = f"{'' if start == 0 else size_text(start)}:{size_text(start + y.shape[-1])}"
        first = way[0] if way else Factor("I")
        if first.diagonal or first.rows:
            raise Unknown
        return (replace(first, rows=rows), *way[1:])


def _joined(first: Factor, way: Way) -> Way:
    """Two diagonals are one."""
    if way and way[0].diagonal:
        return (Factor(diagonal=(*first.diagonal, *way[0].diagonal)), *way[1:])
    return (first, *way)


def _bare(text: str) -> str:
    """Without brackets around the whole."""
    return text[1:-1] if text.startswith("(") and text.endswith(")") and _bracketed(text[1:-1]) != text[1:-1] else text


def _bracketed(text: str) -> str:
    depth = 0
    for c in text:
        depth += c in "([{"
        depth -= c in ")]}"
        if depth == 0 and c in "+−" and not text.startswith(c):
            return f"({text})"
    return text
