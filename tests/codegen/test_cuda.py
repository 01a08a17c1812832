"""Which iterations may run at once, and what the launches of a kernel look like. Nothing is compiled here."""
from __future__ import annotations

import ast
import itertools
import random

import pytest

import graphc as gc
from graphc.codegen.cuda import print_launches
from graphc.codegen.launch import Grid, One
from graphc.codegen.launches import launches_of
from graphc.frontend.model import trace_models
from graphc.graph import scalar as sc
from graphc.graph.dtype import f32
from graphc.graph.formula import affine, var
from graphc.graph.scalar import Scalar
from graphc.graph.size import parse, size
from graphc.lowering.cells import apart, at_least
from graphc.lowering.ir import Accumulate, Arg, Array, Assign, Kernel, Load, Loop, Position, Store
from graphc.lowering.schedule import Launch
from graphc.pipeline import lower, program_graph

B, C, T = size("B"), size("C"), size("T")


# -- cells -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("a, b, expected", [
    ("B*C", "C", True), ("C", "B*C", False), ("B", "1", True), ("B", "2", False), ("B - 1", "0", True),
    ("2*B + C", "B + C", True), ("B", "C", False), ("(B - 1)//2", "0", True), ("B - 2", "0", False),
])  # fmt: skip
def test_which_size_is_larger_for_all_dimensions(a, b, expected):
    assert at_least(parse(a), parse(b)) is expected


@pytest.mark.parametrize("terms, strides, constants, v, expected", [
    ({0: C, 1: 1}, (), [0], 0, True),              # a row
    ({0: C, 1: 1}, (), [0], 1, True),              # a column, all rows
    ({1: 1}, (), [0], 0, False),                   # a sum over rows
    ({1: 1}, (), [0], 1, True),                    # seen from its columns
    ({0: 1, 1: B}, (), [0], 0, True),              # transposed
    ({0: 1, 1: 1}, (), [0], 0, False),             # windows that overlap
    ({0: 1}, (), [0, 1], 0, False),                # a cell and the next one
    ({0: 1}, (), [5, 5], 0, True),                 # all shifted alike
    ({0: 2 * C, 1: 1}, (), [0, C], 0, True),       # the halves of a concatenation
    ({0: C, 1: 1}, (), [0, C], 0, False),          # the next row
    ({1: 1}, (C,), [0], 1, True),                  # a scatter of rows, from its columns
    ({1: 1}, (C,), [0], 0, False),                 # and from its rows
    ({0: C}, (1,), [0], 0, True),                  # one element of each row, looked up
    ({0: 1}, (1,), [0], 0, False),                 # a window at a looked-up place
    ({0: -1}, (), [0], 0, False),                  # backwards: not shown
])  # fmt: skip
def test_which_iterations_touch_cells_of_their_own(terms, strides, constants, v, expected):
    positions = [Position(affine(c, terms), tuple(map(size, strides))) for c in constants]
    assert apart(positions, v, {0: B, 1: C}) is expected


def test_what_is_called_apart_is_apart():
    """Thousands of random positions: wherever `apart` says so, counting the cells agrees."""
    rng, claimed = random.Random(0), 0
    for _ in range(4000):
        extents = {v: rng.choice((1, 2, 3, 4)) for v in range(3)}
        coefficients = [{v: rng.choice((0, 1, 2, 3, 4, 6, 8, 12, -1)) for v in range(3)} for _ in range(2)]
        same = rng.random() < 0.5
        positions = [
            Position(affine(rng.choice((0, 0, 1, 2, 4)), coefficients[0 if same else k])) for k in range(rng.choice((1, 2)))
        ]
        if not apart(positions, 0, {v: size(n) for v, n in extents.items()}):
            continue
        claimed += 1
        owner: dict[int, int] = {}
        for p in positions:
            for point in itertools.product(*(range(extents[v]) for v in range(3))):
                cell = int(p.affine.constant) + sum(int(c) * point[v] for v, c in p.affine.terms)
                assert owner.setdefault(cell, point[0]) == point[0], (p, extents)
    assert claimed > 300


# -- launches --------------------------------------------------------------------------------------------------------
def launches(model, kind="gradient"):
    """(the launches of each kernel of a model's program, their sources)"""
    module = trace_models([model], "net", f32, {}, gc.train.Adam(0.1))
    _, steps = lower(program_graph(module, model.name, kind), target="cuda")
    kernels = [s.kernel for s in steps.steps if isinstance(s, Launch)]
    texts = [part.source.text for kernel in kernels for part in print_launches(kernel).parts]
    for text in texts:
        ast.parse(text)
        assert "atomic" not in text
    return [launches_of(kernel)[0] for kernel in kernels], texts


@gc.model
def chain(x: gc.f32["B", "C"], y: gc.f32["C"]):
    return gc.outputs(z=gc.exp(x * y) + 1.0)


@gc.model
def network(x: gc.f32["B", 4], label: gc.i64["B"]):
    h = gc.relu(gc.nn.linear(x, 6, name="hidden"))
    return gc.outputs(loss=gc.nn.cross_entropy(gc.nn.linear(h, 3, name="out"), label))


@gc.model
def embedding(tokens: gc.i64["B", "T"]):
    return gc.outputs(loss=gc.sum(gc.square(gc.take(gc.param("table", (7, 5)), tokens, axis=0))))


@gc.model
def shared(x: gc.f32["N"]):
    return gc.outputs(y=x / gc.sum(x))


def test_nested_loops_over_elements_are_one():
    ((launch,),), (text,) = launches(chain, "forward:z")
    assert isinstance(launch, Grid) and launch.depth == 2 and launch.threads == B * C
    assert "for thread in range(cuda.grid(1), threads, cuda.gridsize(1)):" in text
    assert "i0 = thread // C" in text and "i1 = thread % C" in text
    assert "# z[i, j] = exp((x[i, j] * y[j])) + 1" in text and "test_cuda.py:" in text


def test_rows_of_a_softmax_with_its_loss_and_its_column_sums_run_at_once():
    found, texts = launches(network)
    (cluster,) = (kernel for kernel in found if any(launch.folds for launch in kernel))
    begin, rows, columns, end = cluster
    assert isinstance(rows, Grid) and rows.threads == B and len(rows.folds) == 1
    assert isinstance(columns, Grid) and columns.threads == 3 and isinstance(begin, Grid)
    assert isinstance(end, One) and len(end.folds) == 1
    for kernel in found:
        for launch in kernel:
            assert isinstance(launch, Grid) or not any(isinstance(x, Loop) for x in launch.body)
    assert any("part = block_sum_f32(v0)" in text for text in texts)


def test_a_scatter_gives_a_thread_each_column():
    found, texts = launches(embedding)
    scatter = [launch for kernel in found for launch in kernel if isinstance(launch, Grid) and launch.threads == 5]
    assert len(scatter) == 1
    assert any("table" in text and "[tokens[" in text and "threads = 5" in text for text in texts)


def test_a_sum_that_a_later_loop_reads_is_kept():
    _, texts = launches(shared, "forward:y")
    assert any("part = block_sum_f32" in text for text in texts) and any("cuda.grid(1), threads" in t for t in texts)


# -- by hand ---------------------------------------------------------------------------------------------------------
def load(array, position):
    return Scalar("load", (), f32, Load(array, Position(position)))


def local(name):
    return Scalar("local", (), f32, name)


def kernel(*body, arrays=2):
    return Kernel("hand", [], [Array(name, f32, True) for name in "abcd"[:arrays]], list(body))


def test_a_recurrence_is_left_to_one_thread():
    body = Store(0, Position(var(0) + affine(1)), Scalar("add", (load(0, var(0)), load(1, var(0))), f32))
    ((launch,), _) = launches_of(kernel(Loop(0, B, body=[body])))
    assert isinstance(launch, One)
    (part,) = print_launches(kernel(Loop(0, B, body=[body]))).parts
    assert "if cuda.grid(1) == 0:\n        for i0 in range(B):" in part.source.text and part.source.sizes[0] == 1


def test_a_register_that_a_later_launch_reads_goes_through_memory():
    begin = Assign("v", load(1, affine(0)))
    use = Loop(0, B, body=[Store(0, Position(var(0)), Scalar("mul", (local("v"), load(0, var(0))), f32))])
    printed = print_launches(kernel(begin, use))
    assert [(name, dtype, length) for name, dtype, length in printed.made] == [("kept_1", f32, size(1))]
    first, second = (part.source.text for part in printed.parts)
    assert "kept_1[0] = v0" in first and "v0 = kept_1[0]" in second


def test_a_column_sum_of_what_is_nowhere_stored_gets_memory_for_its_terms():
    """The row's total is known only after the row's own loop: the terms are stored and summed by column afterwards."""
    row = Assign("total", sc.const(0.0, f32))
    inner = Loop(1, C, body=[Accumulate("total", load(1, var(0) * C + var(1)), "sum")])
    term = Scalar("mul", (local("total"), load(1, var(0) * C + var(2))), f32)
    columns = Loop(2, C, body=[Store(0, Position(var(2)), term, "sum")])
    printed = print_launches(kernel(Loop(0, B, body=[row, inner, columns])))
    assert printed.made == (("terms_1", f32, B * C),)
    rows, sums = printed.parts
    assert rows.source.sizes[0] == B and sums.source.sizes[0] == C
    assert "terms_1[i0*C + i2] = v0 * b[i0*C + i2]" in rows.source.text and "terms_1" in sums.source.text


def test_the_first_maximum_of_everything_is_found_in_order():
    best = [Assign("best", sc.const(float("-inf"), f32)), Assign("place", sc.const(0, gc.i64))]
    store = Store(0, Position(affine(0)), Scalar("cast", (Scalar("local", (), gc.i64, "place"),), f32))
    found, _ = launches_of(kernel(Loop(0, B, best, [Arg("best", "place", load(1, var(0)), var(0))], [store])))
    assert [type(launch) for launch in found] == [One]
