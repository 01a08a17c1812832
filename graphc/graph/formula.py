"""Formulas: what an operation computes, as guarded statements over an index space.

    out[γ(p)] ⊕= f(A[α(p)], B[β(p)], …)      for p in a box, where every guard(p) ≥ 0

`f` is a scalar expression over the reads; α, β, γ are access maps whose entries are affine in the loop variables
p0, p1, … or a look-up in an integer array; ⊕ is assignment, sum, product, max, min or arg-max. Cells of `out`
that no clause writes hold `init`. The family is closed under differentiation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property

from .scalar import Scalar, rebuild
from .size import Size, SizeLike, size

REDUCTIONS = ("assign", "sum", "prod", "max", "min", "argmax")


@dataclass(frozen=True)
class Affine:
    """constant + Σ coefficient · p_axis, the terms sorted by axis and none of them zero."""

    constant: Size
    terms: tuple[tuple[int, Size], ...]

    @cached_property
    def variable(self) -> int | None:
        """The loop variable, if the form is just that variable."""
        if len(self.terms) == 1 and self.constant == 0 and self.terms[0][1] == 1:
            return self.terms[0][0]
        return None

    @cached_property
    def axes(self) -> tuple[int, ...]:
        return tuple(axis for axis, _ in self.terms)

    def coefficient(self, axis: int) -> Size:
        return dict(self.terms).get(axis, size(0))

    def substitute(self, values: Sequence[Affine] | Mapping[int, Affine]) -> Affine:
        """p_axis replaced by values[axis]."""
        if self.variable is not None:
            return values[self.variable]
        total = affine(self.constant)
        for axis, coefficient in self.terms:
            total = total + values[axis] * coefficient
        return total

    def __add__(self, other: Affine) -> Affine:
        terms = dict(self.terms)
        for axis, coefficient in other.terms:
            terms[axis] = terms.get(axis, size(0)) + coefficient
        return affine(self.constant + other.constant, terms)

    def __mul__(self, factor: SizeLike) -> Affine:
        return affine(self.constant * factor, {a: c * factor for a, c in self.terms})

    def __str__(self) -> str:
        parts = [f"p{a}" if c == 1 else f"({c})*p{a}" for a, c in self.terms]
        if self.constant != 0 or not parts:
            number = self.constant.constant
            parts.append(str(number) if number is not None and number >= 0 else f"({self.constant})")
        return " + ".join(parts)


def affine(constant: SizeLike, terms: Mapping[int, SizeLike] | None = None) -> Affine:
    kept = [(a, size(c)) for a, c in (terms or {}).items() if c != 0]
    return Affine(size(constant), tuple(sorted(kept, key=lambda t: t[0])))


@cache
def var(axis: int) -> Affine:
    return affine(0, {axis: 1})


ZERO = affine(0)


@dataclass(frozen=True)
class Lookup:
    """The index that the integer operand holds at `map`."""

    operand: int
    map: tuple[Affine, ...]

    def __str__(self) -> str:
        return f"@{self.operand}[{', '.join(map(str, self.map))}]"


Index = Affine | Lookup
AccessMap = tuple[Index, ...]


@dataclass(frozen=True)
class Read:
    """operand[map(p)]"""

    operand: int
    map: AccessMap

    def __str__(self) -> str:
        return f"@{self.operand}[{', '.join(map(str, self.map))}]"


@dataclass(frozen=True)
class Clause:
    """One statement: for p in box where guards hold, out[write(p)] ⊕= body(reads(p))."""

    box: tuple[Size, ...]
    reads: tuple[Read, ...]
    body: Scalar
    write: AccessMap
    guards: tuple[Affine, ...] = ()


@dataclass(frozen=True)
class Formula:
    """Clauses that write one array, how writes to the same cell combine, and what unwritten cells hold.

    checks: (operand, length) for integer operands whose every element must be an index below the length, though no
    clause looks anything up by them: what is left of a look-up that was turned into a comparison.
    """

    clauses: tuple[Clause, ...]
    reduce: str = "assign"
    init: Scalar | None = None
    checks: tuple[tuple[int, Size], ...] = ()

    def indices(self, operands: Sequence[Sequence[Size]], shape: Sequence[Size]) -> list[tuple[int, Size]]:
        """(operand, length) for each integer operand whose elements must be indices below the length.

        operands: their shapes; shape: that of the result.
        """
        found = dict.fromkeys(self.checks)
        for clause in self.clauses:
            accesses = [(r.map, operands[r.operand]) for r in clause.reads] + [(clause.write, shape)]
            for access, extents in accesses:
                for index, extent in zip(access, extents, strict=True):
                    if isinstance(index, Lookup):
                        found[index.operand, extent] = None
        return list(found)


def identity(rank: int) -> AccessMap:
    return tuple(var(d) for d in range(rank))


def is_plain(clause: Clause, shape: Sequence[Size]) -> bool:
    """Does each write index stand for one loop variable of its own over the whole axis (or index 0 of length 1)?"""
    seen: set[int] = set()
    for index, extent in zip(clause.write, shape, strict=True):
        if not isinstance(index, Affine):
            return False
        axis = index.variable
        if axis is None:
            if index != ZERO or extent != 1:
                return False
        elif axis in seen or clause.box[axis] != extent:
            return False
        else:
            seen.add(axis)
    return True


def gather(clause_operand: int, shape: Sequence[Size], box: Sequence[Size]) -> Read:
    """The read of an operand that broadcasts against a box: aligned at the last axis, length 1 read at 0."""
    shift = len(box) - len(shape)
    return Read(
        clause_operand,
        tuple(ZERO if extent == 1 and box[d + shift] != 1 else var(d + shift) for d, extent in enumerate(shape)),
    )


def renumber(clause: Clause, box: tuple[Size, ...], values: Mapping[int, Affine]) -> Clause:
    """The clause over another box, its loop variables replaced by affine forms of the new ones."""

    def new(index: Index) -> Index:
        if isinstance(index, Affine):
            return index.substitute(values)
        return Lookup(index.operand, tuple(m.substitute(values) for m in index.map))

    def leaf(e: Scalar) -> Scalar | None:
        return Scalar("index", (), e.dtype, e.value.substitute(values)) if e.op == "index" else None

    reads = tuple(Read(r.operand, tuple(map(new, r.map))) for r in clause.reads)
    guards = tuple(g.substitute(values) for g in clause.guards)
    return Clause(box, reads, rebuild(clause.body, leaf), tuple(map(new, clause.write)), guards)


def drop_units(clause: Clause) -> Clause:
    """The clause without loops of length 1: their variable is 0."""
    unit = {a for a, extent in enumerate(clause.box) if extent == 1}
    if not unit:
        return clause
    kept = [a for a in range(len(clause.box)) if a not in unit]
    values = dict.fromkeys(unit, ZERO) | {a: var(i) for i, a in enumerate(kept)}
    return renumber(clause, tuple(clause.box[a] for a in kept), values)
