"""Which iteration of a loop touches which cells of an array: what makes iterations independent.

A cell's flat position is split as  high + c·v + low  for a loop variable v of n iterations, where 0 ≤ low < c and high is
a multiple of c·n. Then v = ⌊cell/c⌋ mod n: the cell tells its iteration, and no two iterations touch one cell. Where that
cannot be shown, nothing is claimed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..graph.size import Quotient, Root, Size, size
from .ir import Loop, Position, Store, loads, walk, written


def step(
    position: Position, variable: int, extents: Mapping[int, Size], fixed: frozenset[int], shift: Size
) -> Size | None:
    """c of the split above; None where there is none that can be shown.

    fixed: variables of loops around, which are the same in the iterations that are compared. shift: what all positions
    that are compared have in common, to be left out.
    """
    c = position.affine.coefficient(variable)
    if c == 0 or not at_least(c, 1):
        return None
    whole = c * extents[variable]
    low: list[tuple[Size, Size | None]] = []  # (coefficient, extent), the extent of a look-up unknown
    for axis, coefficient in position.affine.terms:
        if axis != variable and axis not in fixed and not divides(whole, coefficient):
            low.append((coefficient, extents[axis]))
    for stride in position.strides:
        if not divides(whole, stride):
            # A look-up is checked to lie inside its axis, so that with all axes after it, it stays below the stride of
            # the axis before it. Where v belongs to an axis before it, c is a multiple of its stride, and not the same.
            if c == stride or not divides(stride, c):
                return None
            low.append((stride, None))
    constant = position.affine.constant - shift
    below = size(1) if divides(whole, constant) else constant + 1
    reach = _reach(low, c, below)
    return c if reach is not None and at_least(c, reach) else None


def _reach(terms: list[tuple[Size, Size | None]], c: Size, reach: Size) -> Size | None:
    """A bound of a sum of terms, each of which steps over the reach of those before it; `reach` to begin with."""
    if not at_least(reach, 1):
        return None
    waiting = list(terms)
    while waiting:
        least = [t for t in waiting if all(at_least(other, t[0]) for other, _ in waiting)]
        if not least or not at_least(least[0][0], 1):
            return None
        coefficient, extent = least[0]
        waiting.remove(least[0])
        if extent is not None:
            reach = reach + coefficient * (extent - 1)
        elif at_least(coefficient, reach):
            following = [t[0] for t in waiting if all(at_least(other, t[0]) for other, _ in waiting)]
            reach = following[0] if following else c
        else:
            return None
    return reach


def divides(divisor: Size, value: Size) -> bool:
    """Is a value a multiple of another for certain?"""
    return divisor != 0 and value // divisor * divisor == value


def at_least(a: Size, b: Size | int) -> bool:
    """Is a ≥ b for all dimensions of at least 1? (Of a dimension 0 there is no iteration to speak of.)"""
    difference = a - b
    shifted = difference.substitute({name: size(name) + 1 for name in difference.names})
    return all(
        factor >= 0 and all(isinstance(atom, str) or _not_negative(atom) for atom, _ in monomial)
        for monomial, factor in shifted.terms
    )


def _not_negative(quotient: Quotient | Root) -> bool:
    if isinstance(quotient, Root):
        return True
    number = quotient.divisor.constant
    return (
        number is not None
        and number > 0
        and all(
            factor >= 0 and all(isinstance(atom, str) for atom, _ in monomial)
            for monomial, factor in quotient.numerator.terms
        )
    )


# -- what statements touch -------------------------------------------------------------------------------------------
def independent(loop: Loop, extents: Mapping[int, Size], fixed: frozenset[int] = frozenset()) -> bool:
    """Does no iteration touch a cell of a written array that another touches? (Registers are another matter.)"""
    positions: dict[int, list[Position]] = {array: [] for array in written(loop.body)}
    for item in walk(loop.body):
        for load in loads(item):
            if load.array in positions:
                positions[load.array].append(load.position)
        if isinstance(item, Store):
            positions[item.array].append(item.position)
    return all(apart(found, loop.variable, extents, fixed) for found in positions.values())


def apart(
    positions: Sequence[Position], variable: int, extents: Mapping[int, Size], fixed: frozenset[int] = frozenset()
) -> bool:
    """Do different iterations of a loop touch different cells through all these positions?"""
    constants = {p.affine.constant for p in positions}
    shift = constants.pop() if len(constants) == 1 else size(0)
    steps = {step(p, variable, extents, fixed, shift) for p in positions}
    return len(steps) == 1 and None not in steps
