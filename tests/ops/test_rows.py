"""Every row of the table against its oracle: values compiled and interpreted, derivatives by differences, the text it prints."""
from __future__ import annotations

import mpmath
import numpy as np
import pytest
import sympy as sp

import graphc as gc
from graphc.errors import SourceLine
from graphc.frontend.model import Model
from graphc.frontend.tensor import Tensor, record
from graphc.graph.dtype import f32, f64
from graphc.graph.graph import Graph
from graphc.graph.node import Node, TensorType
from graphc.graph.size import size
from graphc.ops import build
from graphc.ops.elementwise import ROWS as ELEMENTWISE
from graphc.ops.leaves import ROWS as LEAVES
from graphc.ops.table import ROWS
from graphc.pipeline import STAGES, lower
from tests.fuzz.evaluate import evaluate, node_value

# `formula` is what adjoints are written in; loops have tests of their own
COMPUTED = {name: row for name, row in ROWS.items() if name not in (*LEAVES, "formula", "scan", "item")}
CASES = [(name, k) for name, row in COMPUTED.items() for k in range(len(row.samples))]


def operands(name, k):
    """The arrays of a sample, drawn from its ranges."""
    row, sample = ROWS[name], ROWS[name].samples[k]
    rng = np.random.default_rng([k, *name.encode()])
    arrays = []
    for position, (shape, (low, high)) in enumerate(zip(sample.shapes, sample.ranges, strict=True)):
        if getattr(row, "bools", False) or (getattr(row, "condition", False) and position == 0):
            arrays.append(rng.random(shape) < 0.5)
        elif getattr(row, "integers_only", False) or name in ("within", "random") or (name in ("take", "take_along") and position == 1):
            arrays.append(rng.integers(low, high + 1 if low == high else high, shape))
        else:
            arrays.append(rng.uniform(low, high, shape))
    return arrays


def leaf(name, array, dtype=f64):
    kind = gc.bool_ if array.dtype == bool else gc.i64 if array.dtype.kind == "i" else dtype
    return Node("input", (), TensorType(kind, tuple(map(size, array.shape))), name=name)


def node_of(name, k, dtype=f64):
    """(the row's node over inputs x0, x1, …, their arrays)"""
    arrays = operands(name, k)
    leaves = [leaf(f"x{i}", a, dtype) for i, a in enumerate(arrays)]
    return build.make(name, *leaves, **ROWS[name].samples[k].attrs), arrays


# -- what a row states -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", COMPUTED)
def test_a_row_is_complete(name):
    row = COMPUTED[name]
    assert row.name == name
    assert row.oracle is not None, "an oracle, for tests"
    assert row.samples, "samples, for tests"
    assert row.latex, "its printed form"
    count = len(row.samples[0].shapes)
    shown = row.latex.format(*(f"OPERAND{i}" for i in range(max(count, 2))), name="NAME", value="VALUE")
    assert all(f"OPERAND{i}" in shown for i in range(count)) or name in ("concat", "einsum"), shown
    assert shown.count("{") == shown.count("}")


def test_leaves_and_gradients_print():
    for name, row in LEAVES.items():
        assert row.latex.format(name="NAME", value="VALUE"), name


@pytest.mark.parametrize("name, k", CASES)
def test_types_are_those_of_the_oracle(name, k):
    node, arrays = node_of(name, k)
    value = np.asarray(node_value(node, arrays, {}, {}))
    assert value.shape == tuple(map(int, node.shape))
    assert value.dtype.kind == node.dtype.kind or name == "cast"


@pytest.mark.parametrize("name, k", [c for c in CASES if c[0] in COMPUTED])
def test_the_formula_is_the_operation(name, k):
    """The formula, run point by point, gives what the oracle gives."""
    from tests.fuzz.evaluate import formula_value
    node, arrays = node_of(name, k)
    formula = ROWS[name].formula(node)
    if formula is None or formula.reduce == "argmax":
        assert name in ("reshape", "argmax"), "only these have none"
        return
    want = np.asarray(node_value(node, arrays, {}, {}), node.dtype.numpy)
    np.testing.assert_allclose(formula_value(formula, arrays, node, {}), want, rtol=1e-12, atol=1e-12)


# -- compiled --------------------------------------------------------------------------------------------------------
def model_of(cases, dtype=f64):
    """One model with every case as an output."""
    arrays, inputs = {}, {}
    for i, (name, k) in enumerate(cases):
        for j, a in enumerate(operands(name, k)):
            arrays[f"a{i}_{j}"] = a.astype(dtype.numpy) if a.dtype.kind == "f" else a
            kind = gc.bool_ if a.dtype == bool else gc.i64 if a.dtype.kind == "i" else dtype
            inputs[f"a{i}_{j}"] = kind[a.shape]

    def function(*tensors):
        given = dict(zip(inputs, tensors, strict=True))
        values = {}
        for i, (name, k) in enumerate(cases):
            mine = [given[n] for n in inputs if n.startswith(f"a{i}_")]
            values[f"y{i}"] = record(name, *mine, **ROWS[name].samples[k].attrs)
            assert isinstance(values[f"y{i}"], Tensor)
        return gc.outputs(**values)

    return Model(function, "rows", inputs, {}, SourceLine(__file__, 1)), arrays


@pytest.mark.parametrize("target, dtype", [("cpu", "float64"), ("cpu", "float32"), ("numpy", "float64")])
def test_compiled_rows_have_the_oracles_values(target, dtype):
    float_type = f64 if dtype == "float64" else f32
    model, arrays = model_of(CASES, float_type)
    got = gc.compile(model, target=target, dtype=dtype, check=True).forward(**arrays)
    tolerance = dict(rtol=1e-12, atol=1e-13) if dtype == "float64" else dict(rtol=3e-6, atol=3e-6)
    wrong = []
    for i, (name, k) in enumerate(CASES):
        node, given = node_of(name, k, float_type)
        mine = [arrays[f"a{i}_{j}"] for j in range(len(given))]
        want = np.asarray(node_value(node, [a.astype(np.float64) if a.dtype.kind == "f" else a for a in mine], {}, {}), node.dtype.numpy)
        try:
            assert got[f"y{i}"].dtype == node.dtype.numpy
            np.testing.assert_allclose(got[f"y{i}"], want, **tolerance)
        except AssertionError as error:
            wrong.append(f"{name}, sample {k}: {error}")
    assert not wrong, "\n".join(wrong)


SPECIAL = [0.0, -0.0, 1.0, -1.0, 0.5, 2.0, -2.5, 1e-30, -1e-30, 87.0, -87.0, 700.0, -745.0, 1e300, np.inf, -np.inf, np.nan]


def test_floats_at_the_edge_are_those_of_numpy():
    """NaN, infinities, signed zeros: every elementwise row of one and two operands, as IEEE says and NumPy does."""
    pairs = np.array([(a, b) for a in SPECIAL for b in SPECIAL])
    names = [n for n, r in ELEMENTWISE.items() if len(r.symbols) <= 2 and not r.bools and not r.integers_only and n != "cast"]

    def function(a, b):
        return gc.outputs(**{n: record(n, *((a, b)[:len(ELEMENTWISE[n].symbols)])) for n in names})

    m = gc.compile(Model(function, "edges", {"a": gc.f64["N"], "b": gc.f64["N"]}, {}, SourceLine(__file__, 1)), dtype="float64")
    got, wrong = m.forward(pairs[:, 0], pairs[:, 1]), []
    for n in names:
        with np.errstate(all="ignore"):
            want = ELEMENTWISE[n].oracle(*(pairs[:, 0].copy(), pairs[:, 1].copy())[:len(ELEMENTWISE[n].symbols)])
        different = ~np.isclose(got[n], want, rtol=1e-13, atol=1e-15, equal_nan=True)
        wrong += [f"{n}{tuple(pairs[i])} is {got[n][i]}, NumPy {want[i]}" for i in np.flatnonzero(different)]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("name", ["expm1", "log1p", "tanh", "sigmoid", "softplus", "silu", "gelu"])
def test_oracles_keep_their_digits(name):
    """Far from zero too, against 400-digit arithmetic: operations on constants are done by them."""
    row = ELEMENTWISE[name]
    exactly = sp.lambdify(row.symbols, row.expression, "mpmath")
    x = np.array([-700, -300, -37, -20, -5, -1, -1e-3, -1e-9, 1e-9, 1e-3, 1, 5, 20, 37, 300, 700])
    x = x[(x > -1) | (name != "log1p")]
    x = x[(x > -37.5) | (name != "gelu")]  # below, the result is no normal number
    with mpmath.workdps(400):
        want = [float(exactly(mpmath.mpf(v))) for v in x]
    np.testing.assert_allclose(row.oracle(x), want, rtol=1e-13)


# -- derivatives -----------------------------------------------------------------------------------------------------
DIFFERENTIABLE = [(n, k) for n, k in CASES if COMPUTED[n].differentiable and n != "cast"]


@pytest.mark.parametrize("name, k", DIFFERENTIABLE)
def test_the_derivative_is_that_of_differences(name, k):
    """∂(Σ w·row)/∂operand, derived and evaluated by oracles, against differences of the row's oracle."""
    node, arrays = node_of(name, k)
    leaves = list(node.operands)
    weights = np.random.default_rng(1).standard_normal(tuple(map(int, node.shape)))
    product = build.make("mul", node, build.const(weights, f64))
    loss = build.reduce("sum", product, range(product.type.rank))
    floats = [i for i, x in enumerate(leaves) if x.dtype.is_float]
    graph = Graph("g", tuple(leaves), {f"d{i}": build.make("grad", loss, leaves[i]) for i in floats})
    expanded, _ = lower(graph, check=True, stop_after=STAGES[3])
    values = {f"x{i}": a for i, a in enumerate(arrays)}
    found, _ = evaluate(expanded, values, {})

    def f(i, change):
        return float(np.sum(weights * node_value(node, [a + change if j == i else a for j, a in enumerate(arrays)], {}, {})))

    h = 1e-4
    for i in floats:
        want = np.zeros(arrays[i].shape)
        for cell in np.ndindex(arrays[i].shape):
            e = np.zeros(arrays[i].shape)
            e[cell] = h
            want[cell] = (8 * (f(i, e) - f(i, -e)) - (f(i, 2 * e) - f(i, -2 * e))) / (12 * h)
        np.testing.assert_allclose(found[f"d{i}"], want, rtol=1e-7, atol=1e-7, err_msg=f"{name} by operand {i}")


def test_rows_without_derivative_give_zero():
    x = leaf("x0", np.zeros(3))
    for name in ("less", "equal", "stop_gradient"):
        y = build.make(name, x, *([x] if name != "stop_gradient" else []))
        loss = build.reduce("sum", build.cast(y, f64), [0])
        graph, _ = lower(Graph("g", (x,), {"d": build.make("grad", loss, x)}), stop_after=STAGES[4])
        np.testing.assert_array_equal(evaluate(graph, {"x0": np.ones(3)}, {})[0]["d"], np.zeros(3))


@pytest.mark.parametrize("target", ["cpu", "numpy"])
@pytest.mark.parametrize("kind", ["i32", "i64"])
def test_integers(kind, target):
    """Rows over integers, at both ends of their range; the neutral elements of max and min are the ends themselves."""
    dtype = getattr(gc, kind)
    info = np.iinfo(dtype.numpy)
    x = np.array([[info.min, info.min, info.min + 1], [info.max, info.max - 1, info.max], [-3, 0, 7]], dtype.numpy)
    y = np.array([[3, -2, 1], [0, 5, -5], [2, 2, 2]], dtype.numpy)
    names = ("add", "sub", "mul", "maximum", "minimum", "less", "less_equal", "greater", "greater_equal", "equal", "not_equal")

    def function(x, y):
        found = {n: record(n, x, y) for n in names} | {n: record(n, y) for n in ("neg", "abs", "relu")}
        found |= {f"{n}_{a}": getattr(gc, n)(x, axis=a) for n in ("max", "min", "argmax") for a in (0, 1)}
        return gc.outputs(**found, sum=gc.sum(y, axis=0), product=gc.einsum("ij,jk->ik", y, y), mean=gc.mean(y), wide=gc.cast(x, gc.i64) * 1, real=gc.cast(y, gc.f64) / 2)

    m = gc.compile(Model(function, "integers", {"x": dtype[3, 3], "y": dtype[3, 3]}, {}, SourceLine(__file__, 1)), target=target, dtype="float64")
    got = m.forward(x, y)
    with np.errstate(all="ignore"):
        want = {n: ELEMENTWISE[n].oracle(x, y) for n in names} | {"neg": -y, "abs": np.abs(y), "relu": np.maximum(y, 0)}
    want |= {f"{n}_{a}": getattr(np, n)(x, axis=a) for n in ("max", "min", "argmax") for a in (0, 1)}
    want |= dict(sum=y.sum(0), product=y @ y, mean=y.mean(), wide=x.astype(np.int64), real=y / 2)
    for name, value in want.items():
        np.testing.assert_array_equal(got[name], value, err_msg=name)
        assert got[name].dtype == value.dtype, name
