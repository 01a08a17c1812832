"""Array contraction, and what is computed twice instead of stored: by hand, and in models."""
from __future__ import annotations

import pytest

import graphc as gc
from graphc.graph import scalar as sc
from graphc.graph.dtype import f32
from graphc.graph.formula import affine, var
from graphc.graph.scalar import Scalar
from graphc.graph.size import size
from graphc.lowering.cost import CHEAP, price
from graphc.lowering.ir import Array, Kernel, Load, Loop, Position, Store, loads, walk
from graphc.lowering.rows import contracted
from tests.lowering.structure import lowered

B, C, T = size("B"), size("C"), size("T")
ONE = sc.const(1.0, f32)


def load(position, strides=(), lookups=()):
    return Scalar("load", lookups, f32, Load(0, Position(position, strides)))


def rows(store, read, inner=C):
    """for 0 in B: for 1 in C: a[store] = 1; for 2 in inner: b[…] = a[read]"""
    first = Loop(1, C, body=[Store(0, Position(store), ONE)])
    second = Loop(2, inner, body=[Store(1, Position(var(0) * inner + var(2)), read)])
    return Kernel("hand", [], [Array("a", f32, True), Array("b", f32, True)], [Loop(0, B, body=[first, second])])


def positions(kernel):
    items = list(walk(kernel.body))
    return [i.position for i in items if isinstance(i, Store) and i.array == 0], [x.position for i in items for x in loads(i) if x.array == 0]


def test_a_row_that_one_iteration_writes_and_reads_is_a_buffer():
    kernel, lengths = contracted(rows(var(0) * C + var(1), load(var(0) * C + var(2))), [0])
    assert lengths == {0: C} and kernel.private == {0: "scratch"}
    assert positions(kernel) == ([Position(var(1))], [Position(var(2))])


def test_an_element_of_the_row_may_be_looked_up():
    index = Scalar("load", (), gc.i64, Load(1, Position(var(0))))
    kernel, lengths = contracted(rows(var(0) * C + var(1), load(var(0) * C, (size(1),), (index,))), [0])
    assert lengths == {0: C} and positions(kernel)[1][0] == Position(affine(0), (size(1),))


@pytest.mark.parametrize("store, read", [
    (var(0) * C + var(1), (var(0) + affine(1)) * C + var(2)),     # the next row
    (var(0) + var(1) * B, var(0) * C + var(2)),                   # stored by columns
    (var(0) + var(1), var(0) + var(2)),                           # rows that overlap
    (var(0) * C + var(1), var(2)),                                # the first row
    (var(0) * C * T + var(1) * T, var(0) * C * T + var(2) * C * T),  # a cell of another row
])  # fmt: skip
def test_what_iterations_share_keeps_its_memory(store, read):
    kernel = rows(store, load(read))
    assert contracted(kernel, [0]) == (kernel, {})


def test_an_array_that_others_read_keeps_its_memory():
    kernel = rows(var(0) * C + var(1), load(var(0) * C + var(2)))
    assert contracted(kernel, []) == (kernel, {})


def test_two_outer_loops_leave_the_last_axis():
    inner = rows(var(3) * B * C + var(0) * C + var(1), load(var(3) * B * C + var(0) * C + var(2)))
    inner.body = [Loop(3, T, body=inner.body)]
    kernel, lengths = contracted(inner, [0])
    assert lengths == {0: C} and positions(kernel) == ([Position(var(1))], [Position(var(2))])


def test_what_all_positions_have_in_common_goes():
    kernel, lengths = contracted(rows(var(0) * C + var(1) + affine(5), load(var(0) * C + var(2) + affine(5))), [0])
    assert lengths == {0: C} and positions(kernel) == ([Position(var(1))], [Position(var(2))])


# -- twice or stored -------------------------------------------------------------------------------------------------
def test_prices():
    x = sc.arg(0, f32)
    access = Scalar("access", (), f32, "x")
    assert price(Scalar("sub", (access, ONE), f32), lambda e: 1) == 2
    assert price(Scalar("exp", (access,), f32), lambda e: 1) > CHEAP > price(Scalar("mul", (access, access), f32), lambda e: 1)
    assert price(Scalar("tanh", (x,), f32), lambda e: 0) > price(Scalar("exp", (x,), f32), lambda e: 0)


def test_a_shift_is_computed_again_and_an_exponential_is_kept():
    @gc.model
    def net(x: gc.f32["B", "C"]):
        return gc.outputs(y=gc.softmax(x))

    low = lowered(net, dtype=f32)
    (text,) = low.book.texts.values()
    assert sum(" = exp(" in line for line in text.splitlines() if "#" not in line) == 1
    assert [b.name for b in low.program.buffers if b.kind == "temp" and not b.name.startswith("row_")] == ["exp_1"]


def test_what_the_caller_wants_is_stored_and_read():
    @gc.model
    def net(x: gc.f32["B", "C"]):
        shifted = x - gc.max(x, axis=1, keepdims=True)
        return gc.outputs(shifted=shifted, total=gc.sum(shifted, axis=1), share=shifted / gc.sum(shifted, axis=1, keepdims=True))

    low = lowered(net, dtype=f32)
    assert not low.kinds("temp") or all("C" not in map(str, b.shape) for b in low.program.buffers if b.kind == "temp")


def test_an_element_looked_up_in_a_row_is_computed_alone():
    """log softmax of the labels: one logarithm and one subtraction a row, no row of them."""
    @gc.model
    def net(x: gc.f32["B", "C"], i: gc.i64["B"]):
        return gc.outputs(losses=gc.nn.cross_entropy(x, i, reduction="none"))

    low = lowered(net, dtype=f32)
    (kernel,) = low.kernels
    assert all(b.name.startswith("row_") for b in low.program.buffers if b.kind == "temp")
    along = [x for x in walk(kernel.body) if isinstance(x, Loop) and x.extent == C and x.within is None]
    assert len(along) == 2, "the maximum; the sum of exponentials"
