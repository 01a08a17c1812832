"""Kernels that run over parts of their main loop: any division gives what the whole run gives."""
from __future__ import annotations

import numpy as np
import pytest

import graphc as gc
from graphc.graph.dtype import f32
from graphc.runtime.jit import interpreted_words, run_python
from graphc.runtime.library import LIBRARY
from graphc.runtime.program import Instruction
from tests.lowering.structure import loops, lowered

COMBINE = {"sum": np.add, "prod": np.multiply, "max": np.maximum, "min": np.minimum}


def normalised(x, w, b):
    centred = x - gc.mean(x, axis=-1, keepdims=True)
    scale = 1 / gc.sqrt(gc.mean(centred * centred, axis=-1, keepdims=True) + 1e-5)
    return centred * scale * w + b


@gc.model
def entropy(x: gc.f64["B", "C"], label: gc.i64["B"]):
    loss = gc.nn.cross_entropy(x, label)
    return gc.outputs(loss=loss, d=gc.grad(loss, x))


@gc.model
def layer_norm(x: gc.f64["B", 5], g: gc.f64["B", 5], w: gc.f64[5], b: gc.f64[5]):
    y = normalised(x, w, b)
    dx, dw, db = gc.grad(gc.sum(y * g), [x, w, b])
    return gc.outputs(y=y, dx=dx, dw=dw, db=db)


@gc.model
def totals(x: gc.f64["B", "C"], y: gc.f64["B", "C"]):
    return gc.outputs(
        sum=gc.sum(x), high=gc.max(x), low=gc.min(y), columns=gc.sum(x * y, axis=0),
        highest=gc.max(x, axis=0), lowest=gc.min(x, axis=0), rows=gc.sum(y, axis=1),
        mean=gc.mean(x * x) + 1, shifted=x - gc.max(x),
    )  # fmt: skip


@gc.model
def integers(n: gc.i64["B", 3]):
    return gc.outputs(sum=gc.sum(n), high=gc.max(n), lowest=gc.min(n, axis=0))


@gc.model
def pieces(x: gc.f64["B", "C"], z: gc.f64["B", 3]):
    both = gc.concat([x, z], axis=1)
    part = gc.sum(gc.sin(x[1:, 1:]))
    return gc.outputs(both=both, long=gc.concat([x, x * 2], axis=0), d=gc.grad(part, x), turned=gc.transpose(gc.exp(x)))


@gc.model
def looked_up(table: gc.f64["V", 2], i: gc.i64["B"]):
    rows = gc.take(table, i, axis=0)
    return gc.outputs(rows=rows, d=gc.grad(gc.sum(rows * rows), table), best=gc.argmax(table[:, 0]), each=gc.argmax(table, axis=1))


RNG = np.random.default_rng(0)
CASES = {
    "entropy": (entropy, dict(x=RNG.normal(size=(7, 4)), label=RNG.integers(0, 4, 7))),
    "layer_norm": (layer_norm, {n: RNG.normal(size=s) for n, s in dict(x=(7, 5), g=(7, 5), w=5, b=5).items()}),
    "many tiles": (entropy, dict(x=RNG.normal(size=(9, 900)), label=RNG.integers(0, 900, 9))),
    "totals": (totals, dict(x=RNG.normal(size=(7, 3)), y=RNG.normal(size=(7, 3)))),
    "integers": (integers, dict(n=RNG.integers(-9, 9, (7, 3)))),
    "pieces": (pieces, dict(x=RNG.normal(size=(7, 4)), z=RNG.normal(size=(7, 3)))),
    "looked_up": (looked_up, dict(table=RNG.normal(size=(7, 2)), i=RNG.integers(0, 7, 5))),
}


def in_parts(low, inputs, rng):
    """The outputs of a program whose kernels run in random parts, in any order, each with private arrays of its own."""
    sizes = {str(e): n for b in low.program.buffers if b.kind == "input" for e, n in zip(b.shape, inputs[b.name].shape) if str(e).isidentifier()}
    arrays = []
    for b in low.program.buffers:
        shape = [e.evaluate(sizes) for e in b.shape]
        wild = np.full(int(np.prod(shape)), 77, b.dtype.numpy)
        arrays.append(np.array(inputs[b.name], b.dtype.numpy).reshape(-1) if b.kind == "input" else wild)
    for i in low.program.instructions:
        given = [arrays[n] for n, _ in i.arrays]
        values = [s.evaluate(sizes) for s in i.sizes]
        if i.fixed:
            if i.kernel == "copy":
                given[0][:] = given[1]
            elif i.kernel.startswith("check_index"):
                LIBRARY[i.kernel](*given, np.zeros(4, np.int64), *values, 1)
            else:
                LIBRARY[i.kernel](*given, *values)
            continue
        source = low.book.kernels[i.kernel]
        function = run_python(source.source, source.name, interpreted_words(source.source))
        if i.extent is None:
            function(*given, *values)
            continue
        extent = i.extent.evaluate(sizes)
        cuts = sorted(rng.integers(0, extent + 1, rng.integers(0, 4)))
        parts = list(zip([0, *cuts], [*cuts, extent]))
        rng.shuffle(parts)
        copies = []
        for begin, end in parts:
            own = {p.array: np.full_like(given[p.array], 55) for p in i.private}
            function(*(own.get(k, a) for k, a in enumerate(given)), *values, begin, end)
            copies.append(own)
        for p in i.private:
            if p.reduce != "scratch":
                given[p.array][:] = COMBINE[p.reduce].reduce([c[p.array] for c in copies])
    return {b.name: arrays[n].reshape([e.evaluate(sizes) for e in b.shape]) for n, b in enumerate(low.program.buffers) if b.kind == "output"}


@pytest.mark.parametrize("name", CASES)
def test_parts_give_what_the_whole_gives(name):
    model, inputs = CASES[name]
    low = lowered(model)
    whole = gc.compile(model, target="numpy", dtype="float64").forward(**inputs)
    for seed in range(4):
        with np.errstate(all="ignore"):
            got = in_parts(low, inputs, np.random.default_rng(seed))
        for key, value in whole.items():
            np.testing.assert_allclose(got[key], value, rtol=1e-12, atol=1e-12, err_msg=f"{key}, seed {seed}")


def private(instruction: Instruction, low) -> dict[str, str]:
    return {low.program.buffers[instruction.arrays[p.array][0]].name: p.reduce for p in instruction.private}


def test_a_softmax_entropy_divides_by_rows_and_its_loss_waits_for_the_total():
    low = lowered(entropy, dtype=f32)
    rows, loss = [i for i in low.program.instructions if not i.fixed]
    assert str(rows.extent) == "B" and loss.extent is None and not loss.private
    assert {n: r for n, r in private(rows, low).items() if r != "scratch"} == {"sum_2": "sum"}
    assert low.book.signatures[rows.kernel][-2:] == ("i64", "i64")
    assert "begin, end: the part to do of range(B)" in low.book.texts[rows.kernel]


def test_column_sums_are_private():
    low = lowered(layer_norm)
    (kernel,) = low.program.instructions
    assert private(kernel, low) == {"dw": "sum", "db": "sum", **dict.fromkeys(set(low.kinds("temp")), "scratch")}


def test_every_reduction_has_its_own_way_to_combine():
    low = lowered(totals)
    found = {}
    for i in low.program.instructions:
        assert i.extent is not None or low.program.buffers[i.arrays[-1][0]].name == "mean", i.kernel
        found |= private(i, low)
    wanted = dict(sum="sum", high="max", low="min", columns="sum", highest="max", lowest="min")
    assert wanted.items() <= found.items() and "rows" not in found and "shifted" not in found


def test_a_flat_loop_is_divided_as_it_is():
    @gc.model
    def flat(x: gc.f64["B", "C"]):
        return gc.outputs(y=gc.exp(x) * 2)

    (kernel,) = lowered(flat).program.instructions
    assert str(kernel.extent) == "B*C" and not kernel.private and not kernel.sizes


def test_what_iterations_share_is_not_divided():
    """A scatter-add, and the first maximum of everything, run as a whole; the fill before the scatter does not."""
    low = lowered(looked_up)
    whole = {i.kernel for i in low.program.instructions if not i.fixed and i.extent is None}
    divided = {i.kernel for i in low.program.instructions if i.extent is not None}
    assert len(whole) == 2 and any("argmax" in k for k in whole) and len(divided) >= 3, (whole, divided)


def test_numbers_and_small_kernels_stay_one_function():
    @gc.model
    def numbers(a: gc.f64[()], b: gc.f64[()]):
        c = gc.sin(a) * b
        return gc.outputs(y=c, dy=gc.grad(c, a))

    @gc.model
    def small(x: gc.f64[3], w: gc.f64[3]):
        loss = gc.sum(gc.tanh(x * w))
        return gc.outputs(loss=loss * 2, d=gc.grad(loss, w))

    for model in (numbers, small):
        (kernel,) = lowered(model).program.instructions
        assert kernel.extent is None and not kernel.private


def test_an_update_in_place_divides():
    @gc.model
    def decay(x: gc.f64["B"]):
        s = gc.state("s", (5000,), init=1.0)
        gc.update(s, s * 0.5)
        return gc.outputs(y=x + gc.sum(s))

    low = lowered(decay, "forward:y:0")
    assert all(i.extent is not None for i in low.program.instructions if not i.fixed)


def test_no_private_array_grows_with_the_rows():
    low = lowered(entropy, dtype=f32)
    lengths = [b.shape[0] for b in low.program.buffers if b.kind == "temp" and b.shape]
    assert lengths and all("B" not in length.names for length in lengths)
    (kernel, _) = low.kernels
    assert kernel.main in {loop.variable for loop in loops(kernel.body)}


def slabs(model):
    """For each array of each kernel how many elements an iteration is from the next, where each has a slab of its own."""
    low = lowered(model)
    names = [b.name for b in low.program.buffers]
    kernels = [i for i in low.program.instructions if not i.fixed]
    return [{names[b]: str(s) for (b, _), s in zip(i.arrays, i.slabs, strict=True)} for i in kernels if i.slabs]


def test_slabs_of_rows():
    @gc.model
    def rows(x: gc.f64["B", "T"], w: gc.f64["T"]):
        return gc.outputs(y=gc.softmax(x + w), s=gc.sum(x, axis=1))

    (found,) = [s for s in slabs(rows) if "y" in s]
    assert found["x"] == found["y"] == "T" and found["w"] == "0" and found["s"] == "1"


def test_slabs_are_of_the_outermost_axis():
    """An iteration that touches cells here and there in an array has no slab of it, though no other touches them."""
    @gc.model
    def turned(x: gc.f64["B", "T"]):
        return gc.outputs(y=gc.transpose(x) * 2)

    (found,) = slabs(turned)
    assert sorted(found.items()) in ([("x", "0"), ("y", "B")], [("x", "T"), ("y", "0")])


@pytest.mark.parametrize("read", [
    lambda x: x[::-1], lambda x: gc.concat([x[1:], x[:1]]), lambda x: x[:1] + x, lambda x: gc.take(x, gc.minimum(gc.arange(5), 3)),
])  # fmt: skip
def test_other_rows_are_in_no_slab(read):
    @gc.model
    def moved(x: gc.f64[5, "T"], z: gc.f64[5, "T"]):
        return gc.outputs(y=gc.exp(read(x)) * z)

    assert slabs(moved) and all(s.get("x", "0") == "0" for s in slabs(moved))
