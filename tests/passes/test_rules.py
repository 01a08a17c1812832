"""Every rule fires on its pattern, gives the same values there, and leaves alone what only looks like it."""
from __future__ import annotations

import numpy as np
import pytest

from graphc.graph import scalar as sc
from graphc.graph.dtype import bool_, f32, f64, i64
from graphc.graph.formula import Clause, Formula, Read, affine, identity, var
from graphc.graph.graph import Graph
from graphc.graph.node import Node, TensorType
from graphc.graph.scalar import Scalar
from graphc.graph.size import size
from graphc.ops.build import const, make
from graphc.ops.verify import verify
from graphc.passes import default, loops
from graphc.passes.rewrite import EXACT, VALUE_CHANGING, Firings, rewrite
from tests.fuzz.evaluate import evaluate


def leaf(name, *shape, dtype=f64):
    return Node("input", (), TensorType(dtype, tuple(map(size, shape))), name=name)


A, B, R = leaf("a", 3, 4), leaf("b", 3, 4), leaf("r", 4)
C, D = leaf("c", 3, 4, dtype=bool_), leaf("d", 3, 4, dtype=bool_)
I = leaf("i", 3, dtype=i64)  # noqa: E741
N = leaf("n", "T", 4)
SCALAR = leaf("s")
INPUTS = (A, B, R, C, D, I, N, SCALAR)
RNG = np.random.default_rng(0)
VALUES = {"a": RNG.uniform(0.2, 2, (3, 4)), "b": RNG.uniform(-2, 2, (3, 4)), "r": RNG.uniform(-2, 2, 4), "c": RNG.random((3, 4)) < 0.5, "d": RNG.random((3, 4)) < 0.5,
          "i": np.array([2, 0, 3]), "n": RNG.uniform(-1, 1, (5, 4)), "s": np.array(0.7)}
SIZES = {"T": 5}

ONE = const(1, f64)


def num(value):
    return const(value, f64)


def exp(x):
    return make("exp", x)


def total(x, *axes):
    return make("sum", x, axes=axes or tuple(range(x.type.rank)))


def kept(x, axis):
    """Σ over an axis, kept with length 1 and stretched."""
    shape = tuple(size(1) if d == axis else e for d, e in enumerate(x.shape))
    return make("reshape", total(x, axis), shape=shape)


def part(x, start, length, axis=1):
    """x from `start` on along an axis of this length, zeros elsewhere: what the adjoint of a slice is."""
    shape = tuple(size(length) if d == axis else e for d, e in enumerate(x.shape))
    write = tuple(affine(start if d == axis else 0, {d: 1}) for d in range(x.type.rank))
    formula = Formula((Clause(x.shape, (Read(0, identity(x.type.rank)),), sc.arg(0, f64), write),), "assign", sc.const(0, f64))
    return make("formula", x, formula=formula, shape=shape)


def middle(x):
    """Two of the columns of x, backwards."""
    return make("slice", x, start=(size(0), size(2)), step=(size(1), size(-1)), shape=(x.shape[0], size(2)))


def chosen_by_index():
    """Σ_j (I[i] = j ? B[i, 2] : 0)"""
    same = Scalar("equal", (sc.arg(0, i64), Scalar("index", (), i64, var(1))), bool_)
    body = Scalar("where", (same, sc.arg(1, f64), sc.const(0, f64)), f64)
    reads = (Read(0, (var(0),)), Read(1, (var(0),)))
    formula = Formula((Clause((size(3), size(4)), reads, body, identity(2)),))
    first = make("slice", B, start=(size(0), size(2)), step=(size(1), size(1)), shape=(size(3), size(1)))
    node = Node("formula", (I, make("reshape", first, shape=(size(3),))), TensorType(f64, (size(3), size(4))), formula=formula, shape=(size(3), size(4)))
    return total(node, 1)


PATTERNS = {
    # folding
    "fold": [make("mul", num(3), num(0.5)), make("exp", const([0.5, 1.5], f64)), make("less", num(1), num(2))],
    "constant condition": [make("where", const(True, bool_), A, B), make("where", make("broadcast_to", const(False, bool_), shape=A.shape), A, B)],
    "constant size": [Node("size", (), TensorType(f64, ()), value=size(4))],
    # algebra
    "neutral element": [make("mul", A, ONE), make("mul", ONE, A), make("div", A, ONE), make("add", A, num(0)), make("add", num(0), A), make("sub", A, num(0)),
                        make("pow", A, ONE), make("mul", R, ONE)],
    "negation": [make("neg", make("neg", A)), make("mul", A, num(-1)), make("mul", num(-1), A), make("add", A, make("neg", B)), make("add", make("neg", A), B),
                 make("sub", A, make("neg", R)), make("sub", make("neg", A), B), make("sub", num(0), A)],
    "power of two": [make("div", A, num(4)), make("div", A, num(-0.5)), make("div", A, num(2.0**-40))],
    "square": [make("pow", B, num(2))],
    "small power": [make("pow", B, num(3)), make("pow", B, num(4)), make("pow", B, num(-1)), make("pow", A, num(0.5))],
    "same choice": [make("where", C, A, A), make("where", make("logical_not", C), A, B), make("where", C, make("where", C, A, R), B), make("where", C, A, make("where", C, R, B))],
    "double negation": [make("logical_not", make("logical_not", C))],
    "identity": [make("stop_gradient", A), make("watched", A)],
    "movement of a movement": [make("transpose", make("transpose", A, perm=(1, 0)), perm=(1, 0)), make("reshape", make("reshape", A, shape=(size(12),)), shape=(size(2), size(6))),
                               make("broadcast_to", make("broadcast_to", R, shape=(size(3), size(4))), shape=(size(2), size(3), size(4))), make("reshape", A, shape=A.shape),
                               make("transpose", A, perm=(0, 1))],
    "late broadcast": [make("add", make("broadcast_to", R, shape=A.shape), A), make("exp", make("broadcast_to", R, shape=A.shape)),
                       make("cast", make("broadcast_to", R, shape=A.shape), dtype=f32)],
    "sum over one": [total(make("reshape", A, shape=(size(3), size(1), size(4))), 1), make("max", make("reshape", A, shape=(size(3), size(1), size(4))), axes=(1, 2)),
                     make("sum", A, axes=())],
    "sum of a negation": [total(make("neg", A), 0)],
    "sum of a choice by index": [chosen_by_index()],
    "same operands": [make("logical_and", C, C), make("logical_or", C, C)],
    "sum of equal terms": [total(make("broadcast_to", R, shape=A.shape), 0), total(make("broadcast_to", R, shape=A.shape), 0, 1),
                           total(make("broadcast_to", make("reshape", R, shape=(size(1), size(4))), shape=(size("T"), size(4))), 0)],
    "transposed operand": [make("einsum", make("transpose", A, perm=(1, 0)), B, spec="ab,bc->ac"), make("einsum", A, make("transpose", B, perm=(1, 0)), spec="ab,bc->ac")],
    "common subexpression": [make("sub", make("add", A, B), make("exp", make("add", B, A)))],
    # numbers
    "sign of a product": [make("mul", make("neg", A), B), make("mul", A, make("neg", B)), make("div", make("neg", B), A), make("div", B, make("neg", A)),
                          make("mul", make("neg", A), make("neg", B))],
    "negated number": [make("neg", make("mul", num(3), A)), make("neg", make("mul", make("mul", num(3), SCALAR), A)), make("add", A, make("mul", B, num(-3))),
                       make("add", make("mul", num(-3), A), B), make("sub", A, make("mul", make("mul", num(-3), R), B))],
    "numbers of a product": [make("mul", num(3), make("mul", A, num(5))), make("mul", num(3), make("mul", R, B)), make("mul", make("neg", A), num(3))],
    "number of a product": [make("mul", make("mul", num(3), A), B), make("mul", A, make("mul", B, num(3))), make("div", make("mul", num(3), B), A),
                            make("div", B, make("mul", num(4), A)), make("mul", make("mul", num(3), A), make("mul", num(3), A))],
    "number of a movement": [make("add", make("transpose", make("mul", num(3), A), perm=(1, 0)), make("exp", make("transpose", B, perm=(1, 0)))),
                             make("neg", make("reshape", make("neg", A), shape=(size(12),))), make("mul", make("reshape", make("mul", B, num(3)), shape=(size(12),)), SCALAR)],
    "like terms": [make("add", A, A), make("sub", make("sub", A, B), B), make("add", make("mul", num(3), A), make("sub", B, make("mul", A, num(-5)))),
                   make("add", make("add", R, A), R)],
    "number of a sum": [make("mul", make("add", make("mul", num(3), A), make("mul", num(3), B)), B),
                        make("mul", make("div", make("sub", make("mul", num(3), A), num(6)), B), num(2.5))],
    # stability
    "softmax": [make("div", exp(B), kept(exp(B), 1)), make("div", exp(B), make("broadcast_to", kept(exp(B), 0), shape=A.shape)), make("div", exp(total(B)), total(exp(B)))],
    "quotient": [make("mul", exp(B), make("div", ONE, kept(exp(B), 1))), make("mul", make("div", ONE, kept(exp(B), 1)), exp(B))],
    "reciprocal": [make("pow", kept(exp(B), 1), num(-1))],
    "log of a mean": [make("log", make("div", total(exp(B), 1), num(4))), make("log", make("div", kept(exp(B), 0), Node("size", (), TensorType(f64, ()), value=size("T"))))],
    "logsumexp": [make("log", total(exp(B), 1)), make("log", kept(exp(B), 1))],
    "log of a quotient": [make("log", make("div", exp(B), kept(exp(B), 1)))],
    "log of an exponential": [make("log", exp(B)), make("log", make("transpose", exp(B), perm=(1, 0)))],
    "shift before the sum": [make("sub", B, make("add", make("stop_gradient", R), make("log", A)))],
    "sigmoid": [make("div", ONE, make("add", ONE, exp(make("neg", B)))), make("div", ONE, make("add", exp(make("neg", B)), ONE)), make("div", ONE, make("add", ONE, exp(B))),
                make("div", exp(B), make("add", ONE, exp(B))), make("div", ONE, make("add", ONE, exp(make("mul", B, num(-1)))))],
    "1 - sigmoid": [make("sub", ONE, make("sigmoid", B))],
    "log sigmoid": [make("log", make("sigmoid", B)), make("log", make("sigmoid", make("neg", B)))],
    "softplus": [make("log", make("add", ONE, exp(B))), make("log1p", exp(B))],
    "log1p": [make("log", make("add", ONE, A))],
    "expm1": [make("sub", exp(B), ONE)],
    "sum of parts": [make("add", part(A, 0, 9), part(B, 4, 9)), make("add", make("add", part(A, 0, 12), part(B, 8, 12)), part(A, 4, 12)),
                     make("add", make("concat", A, make("broadcast_to", num(0), shape=A.shape), axis=0), part(B, 3, 6, axis=0))],
    "slice of a sum": [middle(make("add", A, R)), middle(make("mul", A, SCALAR)), middle(make("neg", B))],
    "tanh": [make("div", make("sub", exp(B), exp(make("neg", B))), make("add", exp(B), exp(make("neg", B))))],
}

RULES = {r.name: r for r in (*default.CANONICAL, *default.STABILISE, *default.OPTIMISE)}


def test_every_rule_has_a_pattern():
    of_loops = {r.name for r in (*loops.RULES, loops.MERGE)}  # these are in test_loops.py
    assert set(PATTERNS) == set(RULES) | set(default.ALL_RULES) - of_loops


@pytest.mark.parametrize("name", RULES)
def test_a_rule_says_what_it_is(name):
    rule = RULES[name]
    assert rule.kind in (EXACT, VALUE_CHANGING) and rule.reason


@pytest.mark.parametrize("name, k", [(n, k) for n, patterns in PATTERNS.items() for k in range(len(patterns))])
def test_a_rule_fires_and_keeps_the_value(name, k):
    node = PATTERNS[name][k]
    graph = Graph("g", INPUTS, {"y": node})
    verify(graph)
    fired = Firings()
    new = rewrite(graph, [RULES[name]], fired)
    assert fired.counts[name] >= 1, f"{name} does not fire"
    verify(new)
    assert new.outputs["y"].type == node.type
    (before,), (after,) = (evaluate(g, VALUES, SIZES)[0].values() for g in (graph, new))
    if RULES[name].kind == EXACT and name != "sum over one":
        np.testing.assert_array_equal(after, before)
    np.testing.assert_allclose(after, before, rtol=1e-13, atol=1e-14)
    assert new.outputs["y"] is not node or name == "common subexpression"


def test_the_pattern_of_a_rule_keeps_its_value_in_the_whole_pipeline():
    graph = Graph("g", INPUTS, {f"{n}_{k}": node for n, nodes in PATTERNS.items() for k, node in enumerate(nodes)})
    before = evaluate(graph, VALUES, SIZES)[0]
    for one in (default.canonicalise, default.stabilise, default.optimise):
        graph = one(graph)
        verify(graph)
        after = evaluate(graph, VALUES, SIZES)[0]
        for n in before:
            np.testing.assert_allclose(after[n], before[n], rtol=1e-12, atol=1e-13, err_msg=n)


def test_rewriting_ends_and_another_time_changes_nothing():
    graph = Graph("g", INPUTS, {f"{n}_{k}": node for n, nodes in PATTERNS.items() for k, node in enumerate(nodes)})
    for one in (default.canonicalise, default.stabilise, default.optimise):
        graph = one(graph)
        assert one(graph).outputs == graph.outputs


LOOKALIKES = {
    # floating point forbids these, or they are other functions
    "x/x": (make("div", A, A), default.OPTIMISE),
    "0*x": (make("mul", A, num(0)), default.OPTIMISE),
    "(x + 1) - 1": (make("sub", make("add", A, ONE), ONE), default.OPTIMISE),
    "exp(log x)": (exp(make("log", A)), (*default.STABILISE, *default.OPTIMISE)),
    "x - x": (make("sub", A, A), default.OPTIMISE),
    "x/3": (make("div", A, num(3)), default.OPTIMISE),
    "x/0": (make("div", A, num(0)), default.OPTIMISE),
    "x^0": (make("pow", A, num(0)), default.OPTIMISE),
    "x^2.5": (make("pow", A, num(2.5)), default.OPTIMISE),
    "2 + e^x": (make("log", make("add", num(2), exp(B))), default.STABILISE),
    "1/(2 + e^-x)": (make("div", ONE, make("add", num(2), exp(make("neg", B)))), default.STABILISE),
    "2/(1 + e^-x)": (make("div", num(2), make("add", ONE, exp(make("neg", B)))), default.STABILISE),
    "e^x - 2": (make("sub", exp(B), num(2)), default.STABILISE),
    "(e^x + e^-x)/(e^x - e^-x)": (make("div", make("add", exp(B), exp(make("neg", B))), make("sub", exp(B), exp(make("neg", B)))), default.STABILISE),
    "(e^x - e^-y)/(e^x + e^-y)": (make("div", make("sub", exp(B), exp(make("neg", A))), make("add", exp(B), exp(make("neg", A)))), default.STABILISE),
    "log of a sum": (make("log", total(A, 1)), default.STABILISE),
    "where of other branches": (make("where", C, A, make("where", D, A, B)), default.OPTIMISE),
    "sum of a broadcast's own axis": (total(make("broadcast_to", R, shape=A.shape), 1), default.OPTIMISE),
}


@pytest.mark.parametrize("name", LOOKALIKES)
def test_what_only_looks_alike_keeps_its_value(name):
    node, rules = LOOKALIKES[name]
    graph = Graph("g", INPUTS, {"y": node})
    hard = {**VALUES, "a": np.array([[0.0, np.inf, 1e300, 1e-300], [np.nan, 1.0, 2.0, 1e17], [-0.0, 5.0, -1.0, 0.5]])}
    for values in (VALUES, hard):
        with np.errstate(all="ignore"):
            before, after = (evaluate(g, values, SIZES)[0]["y"] for g in (graph, rewrite(graph, rules)))
            same_bits = evaluate(rewrite(graph, [r for r in rules if r.kind == EXACT]), values, SIZES)[0]["y"]
        np.testing.assert_allclose(after, before, rtol=1e-12, atol=1e-14)
        np.testing.assert_array_equal(same_bits, before)


def test_exact_rules_at_the_edge():
    """x·1, x/2ⁿ, −(−x), where(c, x, x), …: also for infinities and NaN (the sign of a zero aside)."""
    hard = {**VALUES, "a": np.array([[0.0, np.inf, 1e308, 5e-324], [np.nan, 1.0, -np.inf, 1e17], [-0.0, 5.0, -1.0, 1e-310]])}
    hard["b"] = hard["a"][::-1].copy()
    for name, nodes in PATTERNS.items():
        if RULES[name].kind != EXACT:
            continue
        for k, node in enumerate(nodes):
            graph = Graph("g", INPUTS, {"y": node})
            with np.errstate(all="ignore"):
                before, after = (evaluate(g, hard, SIZES)[0]["y"] for g in (graph, rewrite(graph, [RULES[name]])))
            np.testing.assert_array_equal(after, before, err_msg=f"{name}, pattern {k}")
