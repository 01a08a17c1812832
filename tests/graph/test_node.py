"""Nodes: frozen, interned, and told apart by exactly what matters."""
from __future__ import annotations

import gc as garbage
import pickle
import weakref

import numpy as np
import pytest

from graphc.graph import scalar as sc
from graphc.graph.dtype import f32, f64, i64
from graphc.graph.node import Constant, Node, TensorType, postorder
from graphc.graph.size import size
from graphc.ops import build


def leaf(name="x", shape=("B", 2), dtype=f64):
    return Node("input", (), TensorType(dtype, tuple(map(size, shape))), name=name)


def test_equal_nodes_are_one_object():
    x = leaf()
    assert leaf() is x
    assert build.make("add", x, x) is build.make("add", x, x)
    assert build.make("sum", x, axes=(0,)) is build.make("sum", x, axes=(0,))
    assert Node("f", (), x.type, a=1, b=2) is Node("f", (), x.type, b=2, a=1), "the order of attributes does not count"


def test_what_differs_is_another_node():
    x, y = leaf(), leaf("y")
    different = [x, y, leaf(dtype=f32), leaf(shape=("T", 2)), build.make("sub", x, y), build.make("sub", y, x), build.make("sum", x, axes=(0,)), build.make("sum", x, axes=(1,)),
                 Node("f", (), x.type, seed=1), Node("f", (), x.type, seed=2), build.make("add", x, y), build.make("add", y, x)]
    assert len(set(map(id, different))) == len(different) == len(set(different))


def test_sizes_in_normal_form_make_one_node():
    assert leaf(shape=("B", 2)) is Node("input", (), TensorType(f64, ((size("B") * 2 - size("B")), size(2))), name="x")


def test_zeros_and_nans_as_constants():
    assert build.const(0.0, f64) is build.const(0.0, f64)
    assert build.const(0.0, f64) is not build.const(-0.0, f64)
    assert build.const(float("nan"), f64) is build.const(float("nan"), f64)
    assert build.const(1, f64) is not build.const(1, f32)
    assert build.const(1, f64) is not build.const(1, i64)
    assert build.const([1.0, 2.0], f64) is not build.const([[1.0, 2.0]], f64)
    assert np.signbit(build.const(-0.0, f64).attr("value").array)


def test_zeros_and_nans_as_scalars():
    assert sc.const(0.0, f64) is sc.const(0.0, f64)
    assert sc.const(0.0, f64) is not sc.const(-0.0, f64)
    assert sc.const(float("nan"), f64) is sc.const(float("nan"), f64)
    assert sc.const(1, f64) is sc.const(1.0, f64) and sc.const(1, i64) is not sc.const(1, f64)
    assert sc.is_const(sc.const(-0.0, f64), 0)


def test_a_constant_keeps_its_own_array():
    array = np.array([1.0, 2.0])
    constant = Constant(array)
    array[0] = 5
    assert constant.array[0] == 1
    with pytest.raises(ValueError, match="read-only"):
        constant.array[0] = 7
    assert Constant(np.ones((2, 3)).T) == Constant(np.ones((3, 2))), "the layout in memory does not count"


def test_nodes_and_scalars_are_frozen():
    x = leaf()
    with pytest.raises(AttributeError, match="frozen"):
        x.op = "other"
    with pytest.raises(AttributeError, match="frozen"):
        sc.const(1, f64).value = 2
    with pytest.raises(TypeError, match="not pickled"):
        pickle.dumps(x)
    with pytest.raises(KeyError, match="no attribute 'axis'"):
        x.attr("axis")


def test_what_nobody_holds_is_forgotten():
    node = Node("input", (), TensorType(f64, ()), name="forgotten")
    seen = weakref.ref(node)
    del node
    garbage.collect()
    assert seen() is None


def test_order_has_operands_first_and_each_once():
    x = leaf()
    y = build.make("exp", x)
    z = build.make("add", y, build.make("mul", y, x))
    order = postorder([z, y])
    assert len(order) == len(set(order)) == 4
    assert all(order.index(o) < order.index(n) for n in order for o in n.operands)


def test_a_long_chain_needs_no_stack():
    x = leaf()
    for _ in range(20_000):
        x = Node("neg", (x,), x.type)
    assert len(postorder([x])) == 20_001
