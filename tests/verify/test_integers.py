"""The integers that look-ups allow, found through movements, shifts, choices and loops; and points with them."""

import pytest

import graphc as gc
from graphc.frontend.model import trace_models
from graphc.graph.dtype import f64
from graphc.verify.integers import allowed
from graphc.verify.model import point, verify


def graph_of(model):
    (graph,) = trace_models([model], model.name, f64, {}).entries.values()
    return graph


def ranges_of(model, sizes):
    return {node.attr("name"): span for node, span in allowed(graph_of(model), sizes).items()}


@gc.model
def several(i: gc.i64["N"], j: gc.i64["N"], k: gc.i64["N"], free: gc.i64["N"], many: gc.i64["N"]):
    E, F = gc.param("E", (7,)), gc.param("F", (4,))
    a = gc.take(E, i) + gc.take(F, i[::-1])
    b = gc.take(E, 2 + gc.where(free > 0, j, k)) + gc.take(E, gc.dim("N") - 1 - k)
    return gc.outputs(y=a + b + gc.take(E, gc.minimum(many * many, 6)))


def test_ranges():
    found = ranges_of(several, {"N": 5})
    assert found == {"i": (0, 3), "j": (-2, 4), "k": (-2, 4)}
    assert ranges_of(several, {"N": 3})["k"] == (-2, 2)


@gc.model
def nested(i: gc.i64["T", "S", "B"], start: gc.i64["B"], n: gc.i32["B"]):
    E = gc.param("E", (6, 2))

    def outer(carry, rows):
        def inner(h, row):
            return h + gc.take(E, row - 1), None

        h, at = carry
        h, _ = gc.scan(inner, init=h + gc.take(E, at), xs=rows)
        return (h, at), None

    (h, _), _ = gc.scan(outer, init=(gc.zeros(("B", 2)), start), xs=i, lengths=n)
    return gc.outputs(loss=gc.sum(h * h))


def test_ranges_of_loops_inside_loops():
    assert ranges_of(nested, {"T": 3, "S": 2, "B": 4}) == {"i": (1, 6), "start": (0, 5), "n": (1, 3)}


@pytest.mark.parametrize("seed", range(8))
def test_points_hold_integers_that_are_allowed(seed):
    graph = graph_of(nested)
    at = point(graph, [], seed)
    for node, (low, high) in allowed(graph, at.sizes).items():
        assert all(low <= int(v) <= high for v in at.leaves[node].ravel())


def test_models_whose_indices_are_shifted_verify():
    certificate = verify(trace_models([nested], "nested", f64, {}))
    assert certificate.passed, str(certificate)
