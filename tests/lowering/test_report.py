"""A schedule in words: what `graphc compile --explain-schedule` prints, and the counts in it."""
from __future__ import annotations

import numpy as np
import pytest

import graphc as gc
from graphc.frontend.model import trace_models
from graphc.graph.dtype import f32
from graphc.graph.size import parse
from graphc.lowering.cost import operations
from graphc.pipeline import schedule_text
from tests.lowering.structure import lowered


def text(model, kind=None, target="cpu"):
    module = trace_models([model], model.name, f32, {}, None)
    return schedule_text(module, model.name, kind or f"forward:{','.join(module.entries[model.name].outputs)}", target)


@gc.model
def classifier(x: gc.f32["B", "C"], label: gc.i64["B"]):
    loss = gc.nn.cross_entropy(x, label)
    return gc.outputs(loss=loss, d=gc.grad(loss, x))


@gc.model
def layers(x: gc.f32["B", 3], i: gc.i64["N"], table: gc.f32["V", 2]):
    h = gc.tanh(gc.tanh(x @ gc.param("w", (3, 5))) * 2)
    loss = gc.sum(gc.take(table, i, axis=0))
    return gc.outputs(h=h, again=gc.concat([x, x], axis=0), d=gc.grad(loss * loss, table), loss=loss)


def test_every_step_says_what_it_does_and_why():
    told = text(classifier)
    for line in (
        "# classifier, forward:loss,d program, 3 steps",
        "1. check of label: every element of label must be an index below C, before it is looked up",
        "     max_1[i] = max_j x[i, j]    f32[B]   test_report.py:",
        "       own kernel: nothing that it reads is made or read by a kernel that it could join",
        "       joined: reads sub_1 in the same iteration",
        "   sub_1 is computed again where it is read: that costs 2 additions, and the storing of B*C values is saved",
        "   exp_1 is C values that stay in cache: each iteration reads only what it stored itself",
        "   divisible: iterations of range(B) touch cells of their own; parts have copies of their totals, combined: sum_2 by sum",
        "   long sums of float32 go in blocks, whose totals are added in float64",
        "   reads 4*B*C + 8*B bytes, writes 4*B*C + 4 bytes, does ",
        "       own kernel: sum_2 is complete only after the loop",
        "   reads 4 bytes, writes 4 bytes, does 2 operations",
    ):  # fmt: skip
        assert line in told, line


def test_products_scatters_pieces_and_tiles():
    told = text(layers)
    for line in (
        "product: einsum_1[i, j] = Σ_k x[i, k] * w[k, j]    f32[B, 5]",
        "matrix product: its strides merge into rows, columns and an inner axis",
        "reads 12*B + 60 bytes, writes 20*B bytes, does 30*B operations",
        "own kernel: einsum_1 comes from a matrix product",
        "own kernel: the pieces of again share no loop",
        "own kernel: what d begins with, before others are stored there",
        "own kernel: it scatters",
        "runs as a whole: iterations meet in cells of d",
        "loops over tiles of 1024 elements",
    ):
        assert line in told, line


def test_each_statement_has_a_reason():
    for model in (classifier, layers):
        for kernel in lowered(model).kernels:
            assert len(kernel.notes) == len(kernel.reasons) > 0
            assert all(r.startswith(("joined: ", "own kernel: ")) for r in kernel.reasons)


def test_for_a_gpu_nothing_is_said_of_caches():
    told = text(classifier, target="cuda")
    assert "joined: reads" in told and "cache" not in told and "divisible" not in told


@pytest.mark.parametrize("b, c", [(1, 1), (3, 4), (100, 3000)])
def test_blocks_do_not_change_the_count_of_operations(b, c):
    """A sum of squares is two operations an element, in blocks or not, and one more for each block."""
    @gc.model
    def squares(x: gc.f32["B", "C"]):
        return gc.outputs(y=gc.sum(x * x, axis=1))

    (kernel,) = lowered(squares, dtype=f32).kernels
    count = operations(kernel.body).evaluate({"B": b, "C": c})
    assert count == 2 * b * c + b * int(np.ceil(c / 1024))
    assert operations(kernel.body) == parse("2*B*C") + parse("(C + 1023)//1024") * parse("B")
