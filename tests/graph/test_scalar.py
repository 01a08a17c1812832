"""Walking scalar expressions: each once, arguments first, however deep."""
from __future__ import annotations

import random

import pytest

from graphc.graph import scalar as sc
from graphc.graph.dtype import f32
from graphc.graph.scalar import Scalar


def expressions(seed, count=40):
    """Random expressions over each other: shared, and some the same."""
    rng = random.Random(seed)
    made = [sc.arg(k, f32) for k in range(3)] + [sc.const(2.0, f32)]
    for _ in range(count):
        made.append(Scalar(rng.choice(("add", "mul")), (rng.choice(made), rng.choice(made)), f32))
    return made


def by_recursion(expression, found):
    """Every expression inside one, found the other way: by asking for arguments and not by a stack."""
    if expression not in found:
        for a in expression.args:
            by_recursion(a, found)
        found.append(expression)
    return found


@pytest.mark.parametrize("seed", range(20))
def test_distinct_expressions(seed):
    made = expressions(seed)
    chosen = random.Random(seed).choices(made, k=5)
    found = list(sc.distinct(chosen))
    assert len(set(found)) == len(found)
    assert set(found) == {e for c in chosen for e in by_recursion(c, [])}
    place = {e: i for i, e in enumerate(found)}
    assert all(place[a] < place[e] for e in found for a in e.args)
    first = set(sc.distinct(chosen[:1]))
    assert set(found[:len(first)]) == first  # one expression after the other


@pytest.mark.parametrize("seed", range(20))
def test_fold_visits_each_once_after_its_arguments(seed):
    expression = expressions(seed)[-1]
    visits = []

    def visit(e, args):
        visits.append(e)
        assert len(args) == len(e.args)
        return 1 + sum(args)

    def paths(e):
        return 1 + sum(map(paths, e.args))

    assert sc.fold(expression, visit) == paths(expression)
    assert visits == list(sc.distinct([expression]))
    known = {a: paths(a) for a in expression.args}
    visits.clear()
    assert sc.fold(expression, visit, known) == paths(expression) and visits == [expression]


def test_a_chain_longer_than_the_stack():
    e = sc.arg(0, f32)
    for _ in range(20000):
        e = Scalar("neg", (e,), f32)
    assert len(list(sc.distinct([e]))) == 20001
    assert sc.fold(e, lambda _, args: 1 + max(args, default=0)) == 20001
    assert sc.args_of(e) == [0]


def test_nothing_is_found_in_nothing():
    assert not list(sc.distinct([]))
