"""Numbers move out of products, and like terms meet: to which form, with which values, and that it ends."""
from __future__ import annotations

import itertools
from math import frexp

import numpy as np
import pytest

from graphc.graph.dtype import f32, f64, i64
from graphc.graph.graph import Graph
from graphc.graph.node import Node, TensorType
from graphc.graph.size import size
from graphc.ops.build import const, const_value, make, size_value
from graphc.ops.verify import verify
from graphc.passes import default, linear
from graphc.passes.rewrite import EXACT, Firings, rewrite
from graphc.verify.rewrites import rewrites
from tests.fuzz.evaluate import evaluate


class V:
    """A node with operators."""

    def __init__(self, node):
        self.node = node

    def _two(op, swap=False):
        def method(self, other):
            pair = [self, other][:: -1 if swap else 1]
            return V(make(op, *(o.node if isinstance(o, V) else const(o, self.node.dtype) for o in pair)))
        return method

    __add__, __radd__, __sub__, __rsub__ = _two("add"), _two("add", True), _two("sub"), _two("sub", True)
    __mul__, __rmul__, __truediv__, __rtruediv__ = _two("mul"), _two("mul", True), _two("div"), _two("div", True)

    def __neg__(self):
        return V(make("neg", self.node))


def leaf(name, *shape, dtype=f64):
    return V(Node("input", (), TensorType(dtype, tuple(map(size, shape))), name=name))


def exp(v):
    return V(make("exp", v.node))


SHAPES = {"x": (3, 4), "y": (3, 4), "z": (3, 4), "row": (4,), "col": (3, 1), "s": ()}
X, Y, Z, ROW, COL, S = (leaf(n, *shape) for n, shape in SHAPES.items())
MEAN = V(make("div", const(1, f64), size_value("B", f64)))
BIG = leaf("big", "B", 4)
SIGNS = {"add": "+", "sub": "-", "mul": "*", "div": "/"}


def text(node):
    """A node as an expression."""
    if node.op in SIGNS:
        return f"({text(node.operands[0])} {SIGNS[node.op]} {text(node.operands[1])})"
    if node.op == "neg":
        return f"-{text(node.operands[0])}"
    if node.op == "const":
        return f"{const_value(node):g}"
    if node.op == "size":
        return str(node.attr("value"))
    return node.attr("name") if node.op == "input" else f"{node.op}({', '.join(map(text, node.operands))})"


def graph_of(*roots):
    inputs = [v.node for v in (X, Y, Z, ROW, COL, S, BIG)]
    return Graph("g", tuple(inputs), {f"y{k}": v.node for k, v in enumerate(roots)})


def optimised(*roots, rules=default.OPTIMISE):
    graph = rewrite(graph_of(*roots), rules)
    verify(graph)
    assert [new.type for new in graph.roots] == [v.node.type for v in roots]
    assert rewrite(graph, rules).roots == graph.roots, "another time changes nothing"
    return [text(root) for root in graph.roots]


FORMS = [
    # numbers and signs of products
    ((3 * X) * Y, "(3 * (x * y))"),
    (X * (Y * 3), "(3 * (x * y))"),
    ((3 * X) * (5 * Y), "(15 * (x * y))"),
    ((3 * X) / Y, "(3 * (x / y))"),
    (X / (4 * Y), "(0.25 * (x / y))"),
    (X / (3 * Y), "(x / (3 * y))"),  # a third is no float
    (-X * Y, "-(x * y)"),
    (-X * -Y, "(x * y)"),
    (-X / Y, "-(x / y)"),
    (X / -Y, "-(x / y)"),
    (-(3 * X), "(-3 * x)"),
    (3 * (-X), "(-3 * x)"),
    (-(3 * X) * Y, "(-3 * (x * y))"),
    (3 * (5 * X), "(15 * x)"),
    (((3 * X) * Y) * Z, "(3 * ((x * y) * z))"),
    (((0.75 * X) * exp(Y)) * 0.5, "(0.375 * (x * exp(y)))"),
    (2 * (0.25 * X), "(0.5 * x)"),
    ((MEAN * BIG) * exp(BIG), "((1 / B) * (big * exp(big)))"),
    (((MEAN * 0.5) * BIG) * exp(BIG) * 3, "((1.5 * (1 / B)) * (big * exp(big)))"),
    # numbers stand at what is smaller
    ((3 * S) * Y, "((3 * s) * y)"),
    (3 * (S * Y), "((3 * s) * y)"),
    (3 * (COL * Y), "((3 * col) * y)"),
    (COL * (3 * Y), "((3 * col) * y)"),
    ((3 * COL) * (5 * Y), "((15 * col) * y)"),
    ((3 * COL) * ROW, "((3 * col) * row)"),
    (3 * (COL * ROW), "((3 * col) * row)"),
    (3 * (COL / Y), "((3 * col) / y)"),
    ((3 * Y) / COL, "(3 * (y / col))"),
    (-(3 * (COL * Y)), "((-3 * col) * y)"),
    (-((MEAN * 3) * BIG), "((-3 * (1 / B)) * big)"),
    (-(-MEAN / BIG), "((1 / B) / big)"),
    (Y + (-COL) * X, "(y - (col * x))"),
    ((3 / V(size_value("B", f64))) * BIG + MEAN * BIG, "((4 * (1 / B)) * big)"),
    (Y + (COL * -3) * X, "(y - ((col * 3) * x))"),
    # signs in sums
    (Y + (-3.0 * X), "(y - (3 * x))"),
    ((-3.0 * X) + Y, "(y - (3 * x))"),
    (Y - (-3.0 * X), "(y + (3 * x))"),
    (Y + (-X) * Z, "(y - (x * z))"),
    # like terms
    (X + X, "(2 * x)"),
    ((Y + X) + X, "(y + (2 * x))"),
    (((X + Y) + X) + Y, "((2 * x) + (2 * y))"),
    ((Y - X) - X, "(y - (2 * x))"),
    (3 * X + 5 * X, "(8 * x)"),
    ((3 * X + Y) + X * 0.5, "((3.5 * x) + y)"),
    (Y - (X + (Z + X)), "(y - (z + (2 * x)))"),
    ((Y + X * Z) - (-X) * Z, "(y + (2 * (x * z)))"),
    ((-X - X) - X, "(-3 * x)"),
    ((X + 1) + 2, "(x + 3)"),
    ((COL + Y) + COL, "((2 * col) + y)"),
    ((3 * COL) * Y + COL * Y, "((4 * col) * y)"),
    (MEAN * BIG + MEAN * BIG, "((2 * (1 / B)) * big)"),
    (exp(X) + exp(X), "(2 * exp(x))"),
    # a number of a sum
    ((3 * X + 3 * Y) * Z, "(3 * ((x + y) * z))"),
    ((3 * X - 6 * Y) * Z, "(3 * ((x - (2 * y)) * z))"),
    (((3 * X - 6) * Z) * 5, "(15 * ((x - 2) * z))"),
    (((3 * X - 6) * Z) * exp(Z) * 5, "(15 * (((x - 2) * z) * exp(z)))"),
    (((6 - 3 * X) / Z) * 5, "(15 * ((2 - x) / z))"),
    (((0.75 * X - 6) * Z) * 0.5, "(0.375 * ((x - 8) * z))"),
    ((3 * X - 6) * Z, "(((3 * x) - 6) * z)"),  # the sum takes its number for nothing
    (((3 * X - 1) * Z) * 0.5, "((((3 * x) - 1) * z) * 0.5)"),  # a third is no float
    (((MEAN * BIG - MEAN) * exp(BIG)) * 0.5, "((0.5 * (1 / B)) * ((big - 1) * exp(big)))"),
]


@pytest.mark.parametrize("value, form", FORMS, ids=[f"{text(v.node)}" for v, _ in FORMS])
def test_forms(value, form):
    assert optimised(value) == [form]


STAY = [
    X - X,  # NaN at infinity
    3 * X - X,
    (X - Y) + (X - Z),  # differences that may be small
    (X + 1) - 1,
    (X * 3) * 0.5,  # infinite where x·3 is
    ((3 * X - 6) * Z) * 0.5,
    X / 3.0,
    3.0 / X,
    0.0 * X * Y,  # x·y may be infinite where 0·x is 0
    X * 1e30 * Y,
    X * 1e-30 * Y,
    float("inf") * X * Y,
    exp(3 * X) * Y,
]


@pytest.mark.parametrize("value", STAY, ids=[f"{text(v.node)}" for v in STAY])
def test_what_stays(value):
    assert optimised(value) == [text(value.node)]


def test_numbers_that_would_leave_the_range_do_not_meet():
    small = 2.0**-40
    assert optimised(small * (small * X))[0].count("*") == 2
    assert optimised((2.0**60 * X) + (2.0**60 * X))[0].count("*") == 2
    assert optimised(small * ((small * S) * Y))[0].count("*") == 3


def test_integers_are_left_alone():
    i = leaf("i", 3, dtype=i64)
    for value in (i + i, (i * 3) * i, -i * i, -(i * 3), i + i * -3):
        graph = Graph("g", (i.node,), {"y": value.node})
        assert rewrite(graph, linear.RULES).roots == graph.roots


def test_a_multiple_that_something_else_reads_keeps_its_number():
    """Otherwise it would be multiplied once more."""
    c = 3 * X
    assert optimised(c * Y, exp(c)) == ["((3 * x) * y)", "exp((3 * x))"]
    assert optimised(c * Y, c * Z) == ["((3 * x) * y)", "((3 * x) * z)"]
    assert optimised(c * Y, c) == ["((3 * x) * y)", "(3 * x)"]


def test_a_product_that_is_there_is_used():
    c = 3 * X
    assert optimised(c * Y, exp(c), exp(X * Y)) == ["(3 * (x * y))", "exp((3 * x))", "exp((x * y))"]
    assert optimised(c * Y, exp(c), exp(Y * X)) == ["(3 * (x * y))", "exp((3 * x))", "exp((x * y))"]
    assert optimised(-X * Y, exp(-X), exp(X * Y)) == ["-(x * y)", "exp(-x)", "exp((x * y))"]
    assert optimised(-X * Y, exp(-X)) == ["(-x * y)", "exp(-x)"]


def test_a_sum_that_something_else_reads_is_one_term():
    s = X + Y
    assert optimised(s + X, exp(s)) == ["((x + y) + x)", "exp((x + y))"]
    assert optimised(s + s) == ["(2 * (x + y))"]


def test_a_gradient():
    """c + m + m and its factors, as the adjoint of mean((t·e + x)/4 − t) has them; t·e is there."""
    c, t, e = 2.0**-12, Y, exp(X)
    w = ((c * 0.25) * t) * e
    grad = (0.25 * c + w * -X) + (-(w * X)) + ((-c + (0.25 * c) * e) * (1 - t * t)) * 0.5
    form, _ = optimised(grad, t * e)
    a, b, d = (f"{c * k:g}" for k in (0.25, 0.5, 0.125))
    assert form == f"(({a} - ({b} * ((y * exp(x)) * x))) + ({d} * ((exp(x) - 4) * (1 - (y * y)))))"


def test_numbers_pass_movements_to_arithmetic():
    def flat(v):
        return V(make("reshape", v.node, shape=(size(12),)))

    def turned(v):
        return V(make("transpose", v.node, perm=(1, 0)))

    assert optimised(flat(0.5 * X) + flat(0.25 * X)) == ["(0.75 * reshape(x))"]
    assert optimised(2 * flat(MEAN * X)) == ["((2 * (1 / B)) * reshape(x))"]
    assert optimised(exp(Y) - turned(turned(-X) * 3)) == ["(exp(y) + (3 * x))"]
    assert optimised(flat(3 * X)) == ["reshape((3 * x))"]
    product = V(make("einsum", turned(3 * X).node, Y.node, spec="ab,bc->ac"))
    assert optimised(product) == ["einsum((3 * x), y)"], "a product reads it transposed"


# -- values ----------------------------------------------------------------------------------------------------------
ALL = [v for v, _ in FORMS] + STAY
RNG = np.random.default_rng(0)
SIZES = {"B": 3}
RANDOM = [{**{n: RNG.normal(0, 2, shape) for n, shape in SHAPES.items()}, "big": RNG.normal(0, 2, (3, 4))} for _ in range(3)]
ODD = np.array([0.0, -0.0, 1.0, -1.5, np.inf, -np.inf, np.nan, 3.0, -1e-100, 1e17, 1e200, -1e200])
SUBNORMAL = np.where(np.abs(ODD) == 1e200, np.copysign([5e-324] * 12, ODD), ODD)


def odd_values(numbers):
    """Arrays of odd numbers, every pair of them at some place of x and y."""
    for k in range(len(numbers)):
        x = numbers.reshape(3, 4)
        yield {"x": x, "y": np.roll(numbers, k).reshape(3, 4), "z": np.roll(numbers, 2 * k + 1).reshape(3, 4), "big": x,
               "row": np.roll(numbers, 3 * k)[:4], "col": np.roll(numbers, k)[:3, None], "s": np.array(numbers[k])}


@pytest.mark.parametrize("value", ALL, ids=[f"{text(v.node)}" for v in ALL])
def test_values(value):
    """After all rules, and at odd numbers the same NaN and infinities; exact rules give the same bits."""
    graph = graph_of(value)
    new = rewrite(graph, default.OPTIMISE)
    exact = rewrite(graph, [r for r in linear.RULES if r.kind == EXACT])
    for values, tiny in ((v, t) for vs, t in ((RANDOM, 1e-13), (odd_values(ODD), 1e-300), (odd_values(SUBNORMAL), 1e-270)) for v in vs):
        before, after, same = (evaluate(g, values, SIZES)[0]["y0"] for g in (graph, new, exact))
        np.testing.assert_allclose(after, before, rtol=1e-13, atol=tiny)
        np.testing.assert_array_equal(same, before)


@pytest.mark.parametrize("value", ALL, ids=[f"{text(v.node)}" for v in ALL])
def test_float32_rounds_no_worse(value):
    """The rewritten formula in float32 against the original one in float64: a few roundings of its largest part."""
    def in_single(node):
        new = {}
        for n in graph_of(V(node)).nodes:
            kind = TensorType(f32, n.shape)
            new[n] = const(n.attr("value").array, f32) if n.op == "const" else Node(n.op, tuple(new[o] for o in n.operands), kind, **dict(n.attrs))
        return new[node]

    double = graph_of(value)
    single = Graph("g", tuple(in_single(v.node) for v in (X, Y, Z, ROW, COL, S, BIG)), {"y0": in_single(value.node)})
    new = rewrite(single, default.OPTIMISE)
    for values in RANDOM:
        values = {n: np.asarray(a, np.float32) for n, a in values.items()}
        truth = evaluate(double, {n: a.astype(float) for n, a in values.items()}, SIZES)[0]["y0"]
        got = evaluate(new, values, SIZES)[0]["y0"]
        assert got.dtype == np.float32
        np.testing.assert_allclose(got, truth, rtol=1e-5, atol=2e-6 * np.max(np.abs(truth), where=np.isfinite(truth), initial=0))


def test_powers_of_two_are_exact():
    for value in ((0.25 * X) * Y, (X / (8.0 * Y)), 0.5 * (4.0 * X), X + X, (Y + X) + X, 2.0 * X + 2.0 * X):
        assert all(abs(frexp(const_value(n))[0]) == 0.5 for n in graph_of(value).nodes if n.op == "const")
        graph = graph_of(value)
        for values in RANDOM:
            before, after = (evaluate(g, values, SIZES)[0]["y0"] for g in (graph, rewrite(graph, linear.RULES)))
            if "y" not in text(value.node) or value.node.op != "add":
                np.testing.assert_array_equal(after, before)


def test_every_rewrite_is_proved():
    fired = Firings()
    turned = V(make("transpose", (3 * X).node, perm=(1, 0)))
    for value in (*ALL, -turned):
        rewrite(graph_of(value), default.OPTIMISE, fired)
    findings = {f.subject.split(" (")[0]: f.standing for f in rewrites(fired)}
    assert {r.name for r in linear.RULES} <= set(findings)
    assert all(findings[r.name] == "EXACT" for r in linear.RULES), findings


# -- large sums and products -------------------------------------------------------------------------------------------
def chain(n, distinct=True):
    """((x·e₀ + 2·x·e₁) + x·e₀) − …: n terms, of which some are alike."""
    total = X
    for k in range(n):
        term = (1 + k % 3) * (X * leaf(f"x{k if distinct else k % 7}", 3, 4))
        total = total - term if k % 5 == 4 else total + term
    return total


def work(monkeypatch, value):
    """How many multiples are looked at while a graph is rewritten."""
    count = itertools.count()
    real = linear.multiple
    with monkeypatch.context() as patch:
        patch.setattr(linear, "multiple", lambda node: (next(count), real(node))[1])
        graph = rewrite(Graph("g", (), {"y": value.node}), linear.RULES)
    return next(count), graph.outputs["y"]


@pytest.mark.parametrize("distinct", [True, False])
def test_long_sums_take_linear_time(monkeypatch, distinct):
    (short, _), (long, root) = (work(monkeypatch, chain(n, distinct)) for n in (300, 1200))
    assert long < 5 * short
    terms = linear.terms_of(root, linear.Memo(Graph("g", (), {"y": root})))
    assert len(terms) == (1201 if distinct else 1 + 7 * 2)


def test_deep_sums_and_products_are_no_deep_recursion():
    total = product = other = X
    for _ in range(1500):
        total, product, other = X + total, (0.5 * product) * Y, -other * Y
    sums, products, signs = rewrite(graph_of(total, product, other), default.OPTIMISE).roots
    assert text(sums) == "(1501 * x)"
    assert products.op == "mul" and signs.op == "mul"
