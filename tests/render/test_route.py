"""Ways of lines: straight, around boxes, beside each other, together in one net."""
from __future__ import annotations

import random
from itertools import pairwise

import pytest

from graphc.render.picture import Place
from graphc.render.route import CLEAR, PITCH, Port, Router, Wire

UP, DOWN, RIGHT, LEFT = (0, 1), (0, -1), (1, 0), (-1, 0)


def ways(boxes, wires, lines=(), left=-200.0):
    return [w.route for w in Router(boxes, lines, wires, left).ways()]


def above(a, b, net="a"):
    """A wire from the top of a box to the bottom of another."""
    return Wire(net, (Port((a.x, a.high), UP),), (Port((b.x, b.low), DOWN),))


def pieces(route):
    return [(a, b) for a, b in pairwise(route) if a != b]


def meets(piece, p, slack):
    (x, y), (u, v) = piece
    return min(x, u) < p.right + slack and p.left - slack < max(x, u) and min(y, v) < p.high + slack and p.low - slack < max(y, v)


def test_straight_where_nothing_is_between():
    a, b = Place(0, 0, 40, 20), Place(0, 100, 40, 20)
    (route,) = ways([a, b], [above(a, b)])
    assert {x for x, _ in route} == {0} and (route[0][1], route[-1][1]) == (10, 90)


def test_around_a_box():
    a, b, between = Place(0, 0, 40, 20), Place(0, 200, 40, 20), Place(0, 100, 90, 30)
    (route,) = ways([a, b, between], [above(a, b)])
    assert not any(meets(p, between, CLEAR - 0.1) for p in pieces(route))
    assert all(p[0] == q[0] or p[1] == q[1] for p, q in pieces(route))


def test_the_better_port_is_taken():
    a, b = Place(0, 0, 40, 20), Place(0, 100, 40, 20)
    ends = [Port((b.right, b.y), RIGHT), Port((b.left, b.y), LEFT), Port((b.x, b.low), DOWN)]
    (route,) = ways([a, b], [Wire("a", (Port((a.x, a.high), UP),), tuple(ends))])
    assert route[-1] == (0, 90)
    ends[2] = Port((b.x, b.low), DOWN, 1000.0)
    (route,) = ways([a, b], [Wire("a", (Port((a.x, a.high), UP),), tuple(ends))])
    assert route[-1] in ((20, 100), (-20, 100))


def overlap(p, q, near):
    """Do two pieces run side by side, nearer than that?"""
    for d in (0, 1):
        if p[0][d] == p[1][d] and q[0][d] == q[1][d] and abs(p[0][d] - q[0][d]) < near:
            e = 1 - d
            low, high = max(min(p[0][e], p[1][e]), min(q[0][e], q[1][e])), min(max(p[0][e], p[1][e]), max(q[0][e], q[1][e]))
            if high - low > 1:
                return True
    return False


def test_lines_of_different_nets_keep_apart_and_those_of_one_run_together():
    a, b, c = Place(0, 0, 40, 20), Place(200, 300, 40, 20), Place(300, 300, 40, 20)
    start = Port((a.right, a.y), RIGHT)
    wires = [Wire(net, (start,), (Port((p.x, p.low), DOWN),)) for net, p in (("a", b), ("a", c))]
    first, second = ways([a, b, c], wires)
    assert any(overlap(p, q, 0.1) for p in pieces(first) for q in pieces(second))
    other = Port((a.x, a.high), UP)
    first, second = ways([a, b, c], [wires[0], Wire("b", (other,), wires[1].ends)])
    assert not any(overlap(p, q, PITCH - 1.1) for p in pieces(first) for q in pieces(second))


def test_what_is_drawn_is_kept_clear_of():
    a, b = Place(0, 0, 40, 20), Place(0, 200, 40, 20)
    drawn = [(0.0, 60.0), (0.0, 140.0)]
    (route,) = ways([a, b], [above(a, b)], [(drawn, "other")])
    assert not any(overlap(p, (drawn[0], drawn[1]), PITCH - 1.1) for p in pieces(route))


def test_where_a_line_leaves_its_net():
    a, b, c = Place(0, 0, 40, 20), Place(200, 100, 40, 20), Place(200, 300, 40, 20)
    start = Port((a.right, a.y), RIGHT)
    wires = [Wire("n", (start,), (Port((p.left, p.y), LEFT),)) for p in (b, c)]
    near, far = Router([a, b, c], [], wires, -50).ways()
    assert near.joins == 0 and far.joins > 0
    assert all(any(meets(p, Place(*far.route[far.joins], 0, 0), 0.1) for p in pieces(near.route)) for _ in (0,))


def test_shut_in_a_line_is_drawn_all_the_same():
    walls = [Place(0, 40, 120, 10), Place(0, -40, 120, 10), Place(60, 0, 10, 90), Place(-60, 0, 10, 90)]
    a, b = Place(0, 0, 20, 20), Place(0, 200, 40, 20)
    (route,) = ways([a, b, *walls], [above(a, b)])
    assert (route[0], route[-1]) == ((0, 10), (0, 190))


@pytest.mark.parametrize("seed", range(20))
def test_no_line_runs_through_a_box(seed):
    """Boxes anywhere, with room between them."""
    rng = random.Random(seed)
    boxes = []
    while len(boxes) < 12:
        p = Place(rng.uniform(0, 600), rng.uniform(0, 600), rng.uniform(12, 120), rng.uniform(12, 60))
        if not any(abs(p.x - q.x) < (p.width + q.width) / 2 + 40 and abs(p.y - q.y) < (p.height + q.height) / 2 + 40 for q in boxes):
            boxes.append(p)

    def ports(p):
        return (Port((p.right, p.y), RIGHT), Port((p.left, p.y), LEFT), Port((p.x, p.high), UP), Port((p.x, p.low), DOWN))

    pairs = [rng.sample(boxes, 2) for _ in range(8)]
    found = ways(boxes, [Wire(n, ports(a), ports(b)) for n, (a, b) in enumerate(pairs)])
    for (a, b), route in zip(pairs, found):
        for piece in pieces(route):
            assert (piece[0][0] == piece[1][0]) or (piece[0][1] == piece[1][1])
            assert not any(meets(piece, p, CLEAR - 0.2) for p in boxes if p not in (a, b))
        for piece in pieces(route)[1:-1]:
            assert not any(meets(piece, p, -0.1) for p in (a, b))
