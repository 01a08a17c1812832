"""Memory: the arena, updates in place, outputs that share a value, variables that change places."""
from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import graphc as gc
from graphc.graph.dtype import BY_NAME
from graphc.graph.size import size
from graphc.runtime.program import ALIGNMENT, Buffer, Instruction, Program, plan_arena
from tests.lowering.structure import lowered

TARGETS = ["numpy", "cpu"]


# -- the arena -------------------------------------------------------------------------------------------------------
@st.composite
def programs(draw):
    """A program of temporaries of any sizes and lifetimes, some symbolic, among arrays of other kinds."""
    count = draw(st.integers(1, 12))
    buffers = []
    for i in range(count):
        kind = draw(st.sampled_from(["temp", "temp", "temp", "input", "output"]))
        dtype = BY_NAME[draw(st.sampled_from(["f32", "f64", "i32", "bool_"]))]
        shape = tuple(size(e) for e in draw(st.lists(st.sampled_from([0, 1, 2, 3, 7, 16, 100, "B"]), max_size=3)))
        buffers.append(Buffer(kind, f"b{i}", dtype, shape))
    steps = draw(st.lists(st.lists(st.integers(0, count - 1), min_size=1, max_size=4), min_size=1, max_size=15))
    return Program("p", tuple(buffers), tuple(Instruction("k", tuple((b, size(0)) for b in s), ()) for s in steps), ())


@settings(max_examples=80, derandomize=True, deadline=None)
@given(programs(), st.integers(0, 20))
def test_live_buffers_never_overlap(program, b):
    offsets, total = plan_arena(program, {"B": b})
    alive = {}
    for at, instruction in enumerate(program.instructions):
        for number, _ in instruction.arrays:
            if program.buffers[number].kind == "temp":
                alive.setdefault(number, set()).add(at)
    assert set(offsets) == set(alive), "each temporary that is touched has a place, and nothing else has"
    spans = {}
    for number in alive:
        buffer = program.buffers[number]
        length = buffer.numel.evaluate({"B": b}) * buffer.dtype.itemsize
        spans[number] = (offsets[number], offsets[number] + length, min(alive[number]), max(alive[number]))
        assert offsets[number] % ALIGNMENT == 0 and offsets[number] + length <= total
    for m, (start, end, first, last) in spans.items():
        for n, (start2, end2, first2, last2) in spans.items():
            if m < n and first <= last2 and first2 <= last:
                assert end <= start2 or end2 <= start, f"{m} and {n} live at once"
    rounded = [-(-max(e - s, 1) // ALIGNMENT) * ALIGNMENT for s, e, _, _ in spans.values()]
    assert total <= sum(rounded)
    if rounded:
        assert total >= max(rounded)


def test_memory_is_used_again():
    """A chain of matrix products of one size needs two buffers' memory, however long it is."""
    @gc.model
    def net(x: gc.f32["B", 32]):
        h = x
        for i in range(10):
            h = h @ gc.param(f"w{i}", (32, 32))
        return gc.outputs(y=h)

    low = lowered(net)
    offsets, total = plan_arena(low.program, {"B": 8})
    assert len(offsets) >= 8 and total <= 3 * 8 * 32 * 8


def test_lifetimes_run_from_the_first_touch_to_the_last():
    temp = Buffer("temp", "t", BY_NAME["f32"], (size(4),))
    touch = lambda *b: Instruction("k", tuple((i, size(0)) for i in b), ())
    program = Program("p", (temp, temp, Buffer("input", "x", BY_NAME["f32"], ())), (touch(2), touch(0), touch(1, 2), touch(0), touch(2)), ())
    assert program.lifetimes == {0: (1, 3), 1: (2, 2)}


@settings(max_examples=60, derandomize=True, deadline=None)
@given(programs(), st.integers(0, 20), st.data())
def test_what_runs_together_shares_no_memory(program, b, data):
    """All temporaries of instructions that take turns live at once; some lie elsewhere."""
    start = data.draw(st.integers(0, len(program.instructions) - 1))
    group = range(start, data.draw(st.integers(start + 1, len(program.instructions))))
    elsewhere = data.draw(st.sets(st.sampled_from(sorted(program.lifetimes) or [0])))
    offsets, total = plan_arena(program, {"B": b}, [group], elsewhere)
    assert set(offsets) == set(program.lifetimes) - elsewhere
    spans = []
    for number, (first, last) in program.lifetimes.items():
        if number in offsets and first < group.stop and last >= group.start:
            buffer = program.buffers[number]
            length = buffer.numel.evaluate({"B": b}) * buffer.dtype.itemsize
            spans.append((offsets[number], offsets[number] + max(length, 1)))
    assert all(end <= start for (_, end), (start, _) in pairwise(sorted(spans))), spans
    assert all(end <= total for _, end in spans)


# -- updates ---------------------------------------------------------------------------------------------------------
def run(model, *calls, target="numpy", **params):
    """(outputs of each call, the model)"""
    m = gc.compile(model, target=target, dtype="float64")
    for name, value in params.items():
        m.params[name] = value
    return [m.forward(*c) for c in calls], m


@pytest.mark.parametrize("target", TARGETS)
def test_two_states_change_places(target):
    @gc.model
    def net(x: gc.f64[3]):
        a, b = gc.state("a", (3,), init=1.0), gc.state("b", (3,), init=2.0)
        gc.update(a, b)
        gc.update(b, a)
        return gc.outputs(y=a * 10 + b + x)

    outs, m = run(net, [np.zeros(3)], [np.zeros(3)], [np.zeros(3)], target=target)
    assert [o["y"][0] for o in outs] == [12, 21, 12]
    assert m.states["a"][0] == 2 and m.states["b"][0] == 1


@pytest.mark.parametrize("target", TARGETS)
def test_three_states_in_a_ring_with_arithmetic(target):
    @gc.model
    def net(x: gc.f64[2]):
        a, b, c = (gc.state(n, (2,), init=i + 1.0) for i, n in enumerate("abc"))
        gc.update(a, b + x)
        gc.update(b, c * 2)
        gc.update(c, a)
        return gc.outputs(y=a + b * 10 + c * 100)

    a, b, c = 1.0, 2.0, 3.0
    outs, m = run(net, *[[np.full(2, float(i))] for i in range(4)], target=target)
    for i, out in enumerate(outs):
        assert out["y"][1] == a + b * 10 + c * 100
        a, b, c = b + i, c * 2, a
    assert [m.states[n][0] for n in "abc"] == [a, b, c]


@pytest.mark.parametrize("target", TARGETS)
def test_everyone_reads_the_old_value(target):
    """The value before the call, wherever it is read: before, after and inside the kernel that updates it."""
    @gc.model
    def net(x: gc.f64[4]):
        p = gc.param("p", (4,))
        new = p * 0.5 + x
        gc.update(p, new)
        return gc.outputs(before=gc.exp(p), total=gc.sum(p), moved=p[::-1], product=x @ gc.reshape(p, (4, 1)), new=new, old=p, shifted=new - p)

    x, p = np.arange(4.0), np.array([1.0, -1.0, 0.5, 2.0])
    (out,), m = run(net, [x], target=target, p=p)
    want = dict(before=np.exp(p), total=p.sum(), moved=p[::-1], product=x @ p.reshape(4, 1), new=p * 0.5 + x, old=p, shifted=p * 0.5 + x - p)
    for name, value in want.items():
        np.testing.assert_allclose(out[name], value, err_msg=name)
    np.testing.assert_allclose(m.params["p"], p * 0.5 + x)


UPDATES = {
    "reversed": lambda s, x: s[::-1],
    "transposed": lambda s, x: s.T,
    "rolled": lambda s, x: gc.concat([s[1:], s[:1]]),
    "a product with itself": lambda s, x: s @ s,
    "a broadcast row": lambda s, x: gc.broadcast_to(s[:1], (3, 3)) + 0 * x,
    "a sum of all": lambda s, x: s * 0 + gc.sum(s),
    "a reduced axis": lambda s, x: s - gc.max(s, axis=1, keepdims=True),
    "softmax of itself": lambda s, x: gc.softmax(s),
    "a column gathered": lambda s, x: gc.take(s, gc.argmax(s, axis=1)),
    "itself": lambda s, x: s,
    "the input": lambda s, x: x,
    "a constant": lambda s, x: gc.const(np.arange(9.0).reshape(3, 3)),
    "a number": lambda s, x: gc.full((3, 3), 7.0),
    "reshaped": lambda s, x: gc.reshape(gc.reshape(s, (9,))[::-1], (3, 3)),
    "where of neighbours": lambda s, x: gc.where(s > 0.5, s.T, s),
}
REFERENCE = {
    "reversed": lambda s, x: s[::-1], "transposed": lambda s, x: s.T, "rolled": lambda s, x: np.concatenate([s[1:], s[:1]]), "a product with itself": lambda s, x: s @ s,
    "a broadcast row": lambda s, x: np.broadcast_to(s[:1], (3, 3)), "a sum of all": lambda s, x: s * 0 + s.sum(), "a reduced axis": lambda s, x: s - s.max(1, keepdims=True),
    "softmax of itself": lambda s, x: np.exp(s) / np.exp(s).sum(1, keepdims=True), "a column gathered": lambda s, x: s[np.argmax(s, 1)], "itself": lambda s, x: s,
    "the input": lambda s, x: x, "a constant": lambda s, x: np.arange(9.0).reshape(3, 3), "a number": lambda s, x: np.full((3, 3), 7.0),
    "reshaped": lambda s, x: s.reshape(-1)[::-1].reshape(3, 3), "where of neighbours": lambda s, x: np.where(s > 0.5, s.T, s),
}


@pytest.mark.parametrize("target", TARGETS)
def test_updates_that_read_other_elements(target):
    """An element of the new value may need any element of the old one: none is overwritten too early."""
    @gc.model
    def net(x: gc.f64[3, 3]):
        found = {}
        for i, f in enumerate(UPDATES.values()):
            s = gc.state(f"s{i}", (3, 3), init=np.random.default_rng(i).uniform(-1, 1, (3, 3)))
            gc.update(s, f(s, x))
            found[f"y{i}"] = gc.sum(s)
        return gc.outputs(**found)

    x = np.random.default_rng(99).uniform(-1, 1, (3, 3))
    states = [np.random.default_rng(i).uniform(-1, 1, (3, 3)) for i in range(len(UPDATES))]
    m = gc.compile(net, target=target, dtype="float64")
    for _ in range(3):
        out = m.forward(x)
        for i, name in enumerate(UPDATES):
            np.testing.assert_allclose(out[f"y{i}"], states[i].sum(), rtol=1e-12, atol=1e-12, err_msg=name)
            states[i] = np.array(REFERENCE[name](states[i], x))
            np.testing.assert_allclose(m.states[f"s{i}"], states[i], rtol=1e-12, atol=1e-12, err_msg=name)


@pytest.mark.parametrize("target", TARGETS)
def test_one_value_for_two_variables_and_an_output(target):
    @gc.model
    def net(x: gc.f64[3]):
        p, q, s = gc.param("p", (3,)), gc.param("q", (3,)), gc.state("s", (3,))
        new = gc.maximum(p, q) + x
        for v in (p, q, s):
            gc.update(v, new)
        return gc.outputs(new=new, again=new, total=gc.sum(p) + gc.sum(s))

    p, q, s = np.array([1.0, -2.0, 3.0]), np.array([0.5, 4.0, -1.0]), np.zeros(3)
    (out, second), m = run(net, [np.ones(3)], [np.zeros(3)], target=target, p=p, q=q)
    new = np.maximum(p, q) + 1
    np.testing.assert_allclose(out["new"], new)
    np.testing.assert_allclose(out["again"], new)
    np.testing.assert_allclose(out["total"], p.sum() + s.sum())
    np.testing.assert_allclose(second["total"], 2 * new.sum())
    for array in (m.params["p"], m.params["q"], m.states["s"]):
        np.testing.assert_allclose(array, new)


# -- outputs ---------------------------------------------------------------------------------------------------------
@gc.model
def aliases(x: gc.f64["B", 4], i: gc.i64["B"], flag: gc.bool_["B"]):
    p, s = gc.param("p", (2, 3)), gc.state("s", (2,), init=5.0)
    h = gc.exp(x)
    return gc.outputs(
        x=x, x_again=x, i=i, flag=flag, p=p, p_flat=gc.reshape(p, (6,)), s=s, h=h, h_again=h, h_flat=gc.reshape(h, (gc.dim("B") * 4,)), h_pairs=gc.reshape(h, (gc.dim("B"), 2, 2)),
        x_flat=gc.reshape(x, (gc.dim("B") * 4,)), const=gc.const(np.array([1.5, 2.5])), number=gc.const(3), ones=gc.ones((2, 2)), size=gc.cast(gc.dim("B") * 2, gc.f64),
        row=x[0], same=x[:], moved=gc.transpose(gc.transpose(x)), loss=gc.sum(h))


def expected(x, i, flag, p):
    h = np.exp(x)
    return dict(x=x, x_again=x, i=i, flag=flag, p=p, p_flat=p.ravel(), s=np.full(2, 5.0), h=h, h_again=h, h_flat=h.ravel(), h_pairs=h.reshape(-1, 2, 2), x_flat=x.ravel(),
                const=[1.5, 2.5], number=3, ones=np.ones((2, 2)), size=2.0 * len(x), row=x[0], same=x, moved=x, loss=h.sum())


@pytest.mark.parametrize("target", TARGETS)
def test_outputs_that_are_inputs_variables_constants_or_each_other(target):
    m = gc.compile(aliases, target=target, dtype="float64")
    p = np.arange(6.0).reshape(2, 3)
    m.params["p"] = p
    x, i, flag = np.random.default_rng(0).standard_normal((3, 4)), np.array([2, 0, 1]), np.array([True, False, True])
    out = m.forward(x, i, flag)
    for name, value in expected(x, i, flag, p).items():
        np.testing.assert_allclose(out[name], value, err_msg=name)
        assert out[name].dtype.kind == np.asarray(value).dtype.kind, name


def test_each_output_is_an_array_of_its_own():
    """The caller may write into what it was given: nothing else changes."""
    m = gc.compile(aliases, target="cpu", dtype="float64")
    m.params["p"] = p = np.arange(6.0).reshape(2, 3)
    x, i, flag = np.ones((3, 4)), np.array([0, 1, 2]), np.array([True, False, True])
    kept = x.copy()
    out = m.forward(x, i, flag)
    arrays = [*out.values(), x, i, flag, *m.params.values(), *m.states.values()]
    for j, a in enumerate(arrays):
        for b in arrays[j + 1:]:
            assert not np.may_share_memory(a, b)
    for value in out.values():
        value[...] = 0
    np.testing.assert_array_equal(x, kept)
    again = m.forward(x, i, flag)
    for name, value in expected(x, i, flag, p).items():
        np.testing.assert_allclose(again[name], value, err_msg=name)


def test_each_output_alone():
    m = gc.compile(aliases, target="numpy", dtype="float64")
    m.params["p"] = p = np.arange(6.0).reshape(2, 3)
    x, i, flag = np.random.default_rng(0).standard_normal((3, 4)), np.array([2, 0, 1]), np.array([True, False, True])
    for name, value in expected(x, i, flag, p).items():
        out = m.forward(x, i, flag, outputs=[name])
        assert list(out) == [name]
        np.testing.assert_allclose(out[name], value, err_msg=name)
