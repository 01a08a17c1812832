"""Small sizes for a check: those proposed, or others where guards tie sizes to each other or bound them."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence

from ..graph.graph import Guard
from ..graph.node import Node, size_names
from ..ops.leaves import LEAVES
from ..ops.row import Fit
from ..ops.table import ROWS

ROUNDS = ((2, 4), (2, 4), (1, 16), (1, 64))
"""Between what the sizes of each round of trials are drawn."""
TRIALS = 100  # of a round


def guards_of(nodes: Iterable[Node]) -> list[Guard]:
    """What sizes must fulfil for the operands of nodes to fit, those of the steps of loops too."""
    fit = Fit()
    for node in nodes:
        if node.op not in LEAVES:
            ROWS[node.op].infer([o.type for o in node.operands], dict(node.attrs), fit)
        if node.op == "scan":
            fit.guards += guards_of(node.attr("body").nodes)
    return fit.guards


def drawn(
    nodes: Iterable[Node], guards: Sequence[Guard], count: int
) -> Iterator[tuple[int, random.Random, dict[str, int]]]:
    """(seed, its random numbers, sizes for nodes) for so many seeds, without those for which the guards allow no sizes.

    Where no guard ties them, neighbouring sizes differ, so that one axis is not taken for another.
    """
    names = sorted({name for node in nodes for name in size_names(node)})
    for seed in range(count):
        rng = random.Random(seed)
        sizes = fitting({name: 2 + (k + seed) % 3 for k, name in enumerate(names)}, guards, rng)
        if sizes is not None:
            yield seed, rng, sizes


def fitting(proposed: Mapping[str, int], guards: Sequence[Guard], rng: random.Random) -> dict[str, int] | None:
    """The sizes proposed where all guards allow them, else random ones that they do; None where none are found.

    Of the others each is drawn in its turn, unless a guard and those before leave it one value.
    """
    sizes = dict(proposed)
    if all(g.holds(sizes) for g in guards):
        return sizes
    for low, high in ROUNDS:
        for _ in range(TRIALS):
            names = sorted(proposed)
            rng.shuffle(names)
            sizes = {}
            for name in names:
                sizes[name] = _chosen(name, sizes, guards, rng.randint(low, high))
                if sizes[name] < 1:
                    break
            else:
                if all(g.holds(sizes) for g in guards):
                    return sizes
    return None


def _chosen(name: str, known: Mapping[str, int], guards: Sequence[Guard], drawn: int) -> int:
    """The value that an equation with no other unknown gives a name, or the one drawn, made what a bound demands."""
    least = drawn
    for guard in guards:
        if name not in guard.left.names | guard.right.names:
            continue
        terms = dict((guard.left - guard.right).substitute(known).terms)
        slope, rest = terms.pop(((name, 1),), 0), terms.pop((), 0)
        if terms or not slope:
            continue  # others are unknown yet, or it is not linear in the name: trials must do
        if guard.relation == "==":
            return -rest // slope
        if slope > 0:
            least = max(least, -(rest // slope))
    return least
