"""Rewrites of loops: each fires on its pattern, keeps the values, and takes out of the loop what it says."""

import numpy as np
import pytest

import graphc as gc
from graphc.frontend.model import trace_models
from graphc.graph.dtype import f64
from graphc.graph.text import parse_graph, print_graph
from graphc.ops.scan import Scan
from graphc.ops.verify import verify
from graphc.passes import default, loops
from graphc.passes.rewrite import Firings
from graphc.pipeline import derive, lower, program_graph
from tests.fuzz.evaluate import evaluate


def graph_of(function, kind="gradient"):
    """The graph of a model's program, before any rewrite."""
    model = gc.model(function)
    module = trace_models([model], model.name, f64, {})
    if kind == "gradient":
        return derive(program_graph(module, model.name, kind))
    return module.entries[model.name]


def scans(graph):
    return [Scan.of(n) for n in graph.nodes if n.op == "scan"]


def values_of(graph):
    rng = np.random.default_rng(0)
    sizes = {"T": 5, "B": 2}
    leaves = [n for n in graph.nodes if n.op in ("input", "param")]
    arrays = {}
    for n in leaves:
        shape = tuple(e.evaluate(sizes) for e in n.shape)
        arrays[n.attr("name")] = rng.integers(0, 2, shape) if n.dtype.kind == "i" else rng.standard_normal(shape) / 2
    return arrays, sizes


def simplified(graph, *names):
    """The graph after all rules for loops, which were fired; its values are what they were."""
    fired = Firings()
    verify(graph)
    after = loops.simplify_loops(graph, fired)
    verify(after)
    assert set(names) <= set(fired.counts), f"fired: {dict(fired.counts)}"
    values, sizes = values_of(graph)
    want, got = (evaluate(g, values, sizes)[0] for g in (graph, after))
    for name in want:
        np.testing.assert_allclose(got[name], want[name], rtol=1e-12, atol=1e-13)
    optimised = default.optimise(graph)
    verify(optimised)
    assert print_graph(parse_graph(print_graph(optimised))) == print_graph(optimised)
    return after


def ops(body):
    return [n.op for n in body.nodes]


def test_dead_carries_and_results_go():
    def f(x: gc.f64["T", "B", 3], unused: gc.f64["T", "B", 3]):
        def step(s, e):
            a, b, c = s
            return (gc.sin(a + e[0]), gc.tanh(b) * gc.sum(e[1]), c * a), (gc.exp(a), b)

        (a, _, _), (_, _) = gc.scan(step, init=(gc.ones((gc.dim("B"), 3)),) * 3, xs=(x, unused))
        return gc.outputs(a=gc.tanh(a))

    (loop,) = scans(simplified(graph_of(f, "forward"), "dead carry"))
    assert (len(loop.init), len(loop.xs), len(loop.body.gives)) == (1, 1, 0)


def test_a_carry_that_stays_is_shared():
    def f(x: gc.f64["T", "B", 3], w: gc.f64["B", 3]):
        (h, w), _ = gc.scan(lambda s, e: ((gc.tanh(s[0] * s[1] + e), s[1]), None), init=(w * 2, gc.sin(w)), xs=x)
        return gc.outputs(h=h, w=w)

    (loop,) = scans(simplified(graph_of(f, "forward"), "carry that stays"))
    assert (len(loop.init), len(loop.given)) == (1, 1)


def test_equal_rows_and_numbers_are_no_elements():
    def f(x: gc.f64["T", "B", 3], w: gc.f64["B", 3]):
        rows = gc.broadcast_to(w, (gc.dim("T"), gc.dim("B"), 3))
        ones = gc.ones((gc.dim("T"), gc.dim("B"), 3))
        h, hs = gc.scan(lambda h, e: (gc.tanh(h * e[0] + e[1] * e[2]),) * 2, init=w, xs=(x, rows, ones))
        return gc.outputs(h=h, hs=hs)

    (loop,) = scans(simplified(graph_of(f, "forward"), "element of equal rows"))
    assert (len(loop.xs), len(loop.given)) == (1, 1)


def test_equal_operands_are_taken_once():
    def f(x: gc.f64["T", "B", 3]):
        def step(h, e):
            h = gc.tanh(h * e[0] + e[1])
            return h, (h, h)

        _, (a, b) = gc.scan(step, init=gc.ones((gc.dim("B"), 3)), xs=(x, x))
        return gc.outputs(a=a, b=b * 2)

    (loop,) = scans(simplified(graph_of(f, "forward"), "equal operands"))
    assert (len(loop.xs), len(loop.body.gives)) == (1, 1)


def test_loops_that_give_different_things_are_one():
    def f(x: gc.f64["T", "B", 3]):
        def both(second):
            def step(h, e):
                h = gc.tanh(h + e)
                return h, second(h)

            return gc.scan(step, init=gc.ones((gc.dim("B"), 3)), xs=x)

        (a, ys), (b, zs) = both(gc.exp), both(gc.sin)
        return gc.outputs(a=a, ys=ys, b=b * 2, zs=zs)

    assert len(scans(simplified(graph_of(f, "forward"), "one loop", "after the loop"))) == 1


def test_products_of_the_inputs_come_before_the_loop():
    def f(x: gc.f64["T", "B", 3], k: gc.i64["T", "B"], w: gc.f64[3, 3], table: gc.f64[2, 3]):
        def step(h, e):
            x_t, k_t = e
            return gc.tanh(h + x_t @ w + gc.take(table, k_t) @ (w * 2)) * gc.max(gc.sin(x_t), axis=0), None

        h, _ = gc.scan(step, init=gc.ones((gc.dim("B"), 3)), xs=(x, k))
        return gc.outputs(h=h)

    (loop,) = scans(simplified(graph_of(f, "forward"), "before the loop"))
    assert not {"einsum", "take", "max", "sin"} & set(ops(loop.body))
    assert not loop.given


# per step: what comes of a[k] (B, 4), f64, beside the carry h; and the bytes of an element that are kept for all steps
KEPT = {
    "comparison": (lambda a, h: gc.where(a > 0, h, -h), 1),
    "chain": (lambda a, h: gc.where(2 * a + 1 > 0, h, -h), 1),
    "two comparisons": (lambda a, h: gc.where(a > 0, h, gc.where(a < -0.3, -h, h * h)), 2),
    "also itself": (lambda a, h: gc.where(a > 0, h, -h) + a, 8),
    "no smaller": (lambda a, h: h + (a + 1), 8),
    "more in all": (lambda a, h: h + gc.sum(a[:, :, None] * h[:, None], axis=1) + gc.cast(a > 0, a.dtype), 8),
    "heavy": (lambda a, h: h * gc.cast(gc.sin(a) > 0, h.dtype), 1),
}


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("case", KEPT)
def test_of_what_comes_before_the_loop_the_least_is_kept(case, recompute):
    function, size = KEPT[case]

    def f(k: gc.i64["T", "B"], a: gc.f64[2, 4], h: gc.f64["B", 4]):
        def step(h, k_t):
            h = gc.tanh(function(gc.take(a, k_t), h))
            return h, h

        _, hs = gc.scan(step, init=h, xs=k, checkpoint=2 if recompute else None)
        return gc.outputs(hs=hs)

    found = scans(simplified(graph_of(f, "forward"), "before the loop"))
    if not recompute:
        (loop,) = found
        assert sum(v.dtype.itemsize for v in loop.body.elements if v.shape[1:]) == size
        assert "take" not in ops(loop.body)


def test_dropout_in_a_step_keeps_a_byte_an_element():
    def f(x: gc.f64["T", "B", 3]):
        def step(h, x_t):
            h = gc.dropout(gc.tanh(h @ gc.param("w", (3, 3)) + x_t), 0.5)
            return h, h

        _, hs = gc.scan(step, init=gc.zeros((gc.dim("B"), 3)), xs=x)
        return gc.outputs(loss=gc.sum(hs * hs))

    model = gc.model(f)
    graph, _ = lower(program_graph(trace_models([model], "f", f64, {}), "f", "gradient"), stop_after="optimise", check=True)
    loops_found = scans(graph)
    assert len(loops_found) == 2
    for loop in loops_found:
        assert all(v.dtype.kind != "i" for v in loop.body.elements if v.shape[1:])
        assert [v.dtype.name for v in loop.body.elements if v.shape[1:]].count("bool_") == 1


def test_what_another_loop_keeps_anyway_is_not_kept_in_another_form():
    """The mask of a relu is known from its output, which the derivative reads as it is."""

    def f(x: gc.f64["T", "B", 3]):
        w = gc.param("w", (3, 3))
        _, hs = gc.scan(lambda h, x_t: (gc.relu(h @ w + x_t),) * 2, init=gc.ones((gc.dim("B"), 3)), xs=x)
        return gc.outputs(loss=gc.sum(hs))

    _, backward = scans(simplified(graph_of(f)))
    assert all(v.dtype is f64 for v in backward.body.elements)


def test_what_no_later_step_reads_comes_after_the_loop():
    def f(x: gc.f64["T", "B", 3], w: gc.f64[3, 4]):
        def step(h, x_t):
            h = gc.tanh(h + x_t)
            return h, (gc.softmax(h @ w), gc.concat([h * 2, x_t], axis=1), x_t)

        h, (p, both, xs) = gc.scan(step, init=gc.ones((gc.dim("B"), 3)), xs=x)
        return gc.outputs(h=h, p=p, both=both, xs=xs)

    (loop,) = scans(simplified(graph_of(f, "forward"), "after the loop"))
    assert set(ops(loop.body)) == {"input", "add", "tanh"}


def test_sums_over_the_steps_are_contractions():
    def f(x: gc.f64["T", "B", 3], k: gc.i64["T", "B"]):
        w, u, b, table = gc.param("w", (3, 4)), gc.param("u", (4, 4)), gc.param("b", (4,)), gc.param("table", (2, 3))

        def step(h, e):
            a = (e[0] + gc.take(table, e[1])) @ w + h @ u[:, ::-1] + b
            h = gc.concat([gc.tanh(a[:, :2]), gc.sigmoid(a[:, 2:])], axis=1)
            return h, h

        h, hs = gc.scan(step, init=gc.zeros((gc.dim("B"), 4)), xs=(x, k))
        return gc.outputs(loss=gc.sum(h) + gc.sum(hs * hs))

    forward, backward = scans(simplified(graph_of(f), "after the loop", "before the loop"))
    assert ops(forward.body).count("einsum") == 1
    assert ops(backward.body).count("einsum") == 1  # δ Uᵀ alone
    assert (len(backward.init), len(backward.body.gives)) == (1, 1)


def test_sums_without_products_stay_where_their_terms_are_not_kept():
    def f(x: gc.f64["T", "B", 3]):
        def step(s, e):
            h, total = s
            h = gc.tanh(h + e)
            return (h, total + h * e), None

        (h, total), _ = gc.scan(step, init=(gc.ones((gc.dim("B"), 3)),) * 2, xs=x)
        return gc.outputs(h=h, total=total)

    (loop,) = scans(simplified(graph_of(f, "forward")))
    assert len(loop.init) == 2


def test_a_sum_that_another_carry_takes_over_stays():
    def f(x: gc.f64["T", "B", 3], w: gc.f64[3, 3]):
        (a, b), _ = gc.scan(lambda s, e: ((s[0] + e @ w, s[0]), None), init=(x[0], x[0]), xs=x)
        return gc.outputs(a=a, b=b)

    (loop,) = scans(simplified(graph_of(f, "forward")))
    assert len(loop.init) == 2


def test_nested_loops_are_simplified_inside():
    def f(x: gc.f64["T", "B", 3], w: gc.f64[3, 3]):
        def step(h, x_t):
            inner, _ = gc.scan(lambda g, e: (gc.tanh(g + e @ gc.sin(w)), None), init=h[0], xs=x_t)
            return h * inner, None

        h, _ = gc.scan(step, init=gc.ones((gc.dim("B"), 3)), xs=x)
        return gc.outputs(h=h)

    (outer,) = scans(simplified(graph_of(f, "forward")))
    (inner,) = [Scan.of(n) for n in outer.body.nodes if n.op == "scan"]
    assert "einsum" not in ops(inner.body)


@pytest.mark.parametrize("cell", ["rnn", "lstm"])
def test_a_step_is_one_product_and_one_kernel(cell):
    n = 4 if cell == "lstm" else 1

    @gc.model
    def f(x: gc.f32["T", "B", 3]):
        w, u, b = gc.param("w", (3, n * 8)), gc.param("u", (8, n * 8)), gc.param("b", (n * 8,))

        def rnn(s, x_t):
            h = gc.tanh(x_t @ w + s[0] @ u + b)
            return (h, s[1]), h

        def lstm(s, x_t):
            f, i, g, o = gc.split(x_t @ w + s[0] @ u + b, 4, axis=1)
            c = gc.sigmoid(f) * s[1] + gc.sigmoid(i) * gc.tanh(g)
            h = gc.sigmoid(o) * gc.tanh(c)
            return (h, c), h

        zero = gc.zeros((gc.dim("B"), 8))
        _, hs = gc.scan(rnn if cell == "rnn" else lstm, init=(zero, zero), xs=x)
        return gc.outputs(loss=gc.sum(hs * hs))

    module = trace_models([f], "f", f64, {})
    _, steps = lower(program_graph(module, "f", "gradient"), check=True)
    repeats = [s for s in steps.steps if type(s).__name__ == "Repeat"]
    assert [[type(s).__name__ for s in r.steps] for r in repeats] == [["Multiply", "Launch"], ["Launch", "Multiply"]]
