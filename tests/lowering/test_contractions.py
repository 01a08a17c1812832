"""Contractions as matrix products: what is transposed into an array of its own, and what is not."""
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import graphc as gc

from .structure import lowered

LENGTHS = {"a": 3, "b": 4, "c": 5, "d": 2, "e": 6}


def contraction(spec):
    """A model that contracts two inputs of fixed sizes."""
    left, right = (tuple(LENGTHS[c] for c in letters) for letters in spec.split("->")[0].split(","))

    @gc.model
    def net(x: gc.f64[left], y: gc.f64[right]):
        return gc.outputs(out=gc.einsum(spec, x, y))

    return net, left, right


def copies(low):
    """The elements that kernels beside the products store."""
    return sum(int(low.program.buffers[b].numel.evaluate({})) for s in low.schedule.steps if hasattr(s, "kernel")
               for b in low.schedule.writes(s))


def test_the_smaller_operand_is_transposed_and_the_result_is_not():
    @gc.model
    def net(x: gc.f64["B", "T", 8], y: gc.f64["T", "B", 96]):
        return gc.outputs(out=gc.einsum("abc,bad->cd", x, y), turned=gc.einsum("abc,bad->dc", x, y))

    low = lowered(net)
    assert low.kinds("temp") == ["transpose_1"]
    (copied,) = (b for b in low.program.buffers if b.kind == "temp")
    assert list(map(str, copied.shape)) == ["T", "B", "8"], "whole rows are copied"
    assert len(low.products) == 2 and len(low.kernels) == 1


def test_a_transpose_that_is_stored_anyway_serves():
    """The gradient of weights over a batch-first input that a loop takes time first."""
    @gc.model
    def net(x: gc.f64["B", "T", 3]):
        p, u = gc.param("p", (3, 8)), gc.param("u", (8, 8))

        def step(h, x):
            h = gc.tanh(x @ p + h @ u)
            return h, h

        _, hs = gc.scan(step, init=gc.zeros((gc.dim("B"), 8)), xs=gc.transpose(x, (1, 0, 2)))
        return gc.outputs(loss=gc.sum(hs * hs))

    low = lowered(net, "gradient")
    assert [b for b in low.kinds("temp") if b.startswith("transpose")] == ["transpose_1"]


@pytest.mark.parametrize("spec", ["abc,cd->abd", "abc,acd->abd", "ab,ac->bc", "abc,abd->cd", "ba,bc->ac", "ab,cb->ca"])
def test_what_merges_is_not_copied(spec):
    low = lowered(contraction(spec)[0])
    assert copies(low) == 0 and len(low.products) == 1


def test_at_most_one_copy_where_one_serves():
    """Of every order of the letters of a product over two axes, none needs more than the smallest array."""
    for a, b in itertools.product(itertools.permutations("abc"), itertools.permutations("abe")):
        low = lowered(contraction(f"{''.join(a)},{''.join(b)}->ce")[0])
        smallest = LENGTHS["a"] * LENGTHS["b"] * LENGTHS["c"]
        assert copies(low) <= smallest + LENGTHS["a"] * LENGTHS["b"] * LENGTHS["e"]
        assert len(low.products) == 1, (a, b)


def test_one_element_to_sum_over_is_left_to_a_loop():
    @gc.model
    def net(x: gc.f64["B", 1], y: gc.f64[1, 5]):
        return gc.outputs(out=x @ y)

    x, y = np.ones((3, 1)) * 2, np.arange(5.0)[None]
    np.testing.assert_allclose(gc.compile(net, dtype="float64").forward(x, y)["out"], x @ y)


@st.composite
def specs(draw):
    letters = draw(st.permutations("abcde"))
    left = letters[: draw(st.integers(1, 4))]
    right = draw(st.lists(st.sampled_from("abcde"), min_size=1, max_size=4, unique=True))
    both = sorted({*left, *right})
    output = draw(st.lists(st.sampled_from(both), max_size=4, unique=True))
    return f"{''.join(left)},{''.join(right)}->{''.join(output)}"


@settings(max_examples=60, deadline=None)
@given(specs())
def test_random_contractions(spec):
    net, left, right = contraction(spec)
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal(left), rng.standard_normal(right)
    m = gc.compile(net, target="numpy", dtype="float64")
    np.testing.assert_allclose(m.forward(x, y)["out"], np.einsum(spec, x, y), rtol=1e-10, atol=1e-10, err_msg=spec)
