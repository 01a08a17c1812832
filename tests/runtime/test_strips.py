"""Instructions that run block by block: the bits that they have one after the other, and which may not.

Blocks of the real sizes need large arrays. So here whatever may run block by block does.
"""
import inspect
import json
import random
import threading
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

import graphc as gc
from graphc.cli import main
from graphc.graph.dtype import f32
from graphc.graph.size import size
from graphc.runtime import strips
from graphc.runtime.profile import profile
from graphc.runtime.program import Buffer, Instruction, Loop, Private, Program, View
from tests.fuzz.check import check_compiled
from tests.fuzz.generate import Mismatch, generate


@pytest.fixture
def small(monkeypatch):
    """Everything is worth it. `found` collects the strips, `on` says whether there are any."""
    spy, real = SimpleNamespace(found=[], on=True), strips.chosen

    def chosen(*given):
        found = real(*given) if spy.on else []
        spy.found += [[m.instruction.kernel for m in strip.members.values()] for strip in found]
        spy.strips = getattr(spy, "strips", []) + found
        return found

    for name, value in dict(SECOND=5000, SAVED_NS=1e3, AGAIN_NS=0, ROWS=24, PART_NS=1, _nearer=lambda *_: True).items():
        monkeypatch.setattr(strips, name, value)
    monkeypatch.setattr(strips, "chosen", chosen)
    return spy


def both(spy, model, inputs, threads=1, kind="forward", freeze=False, **options):
    """(results block by block, those one after the other, the kernels of each strip)"""
    results = []
    for on in (True, False):
        spy.on, spy.found = on, spy.found if not on else []
        m = gc.compile(model, threads=threads, **options)
        if freeze:
            m.freeze()
        for _ in range(2):  # nothing is left over from the first call
            found = getattr(m, kind)(**inputs)
        outputs, gradients = found if kind == "value_and_grad" else (found, {})
        results.append({**outputs, **{f"grad:{n}": g for n, g in gradients.items()}})
    return *results, spy.found


def same_bits(spy, model, inputs, **options):
    """The strips, after their results were compared with those of instructions one after the other."""
    blocks, whole, found = both(spy, model, inputs, **options)
    assert blocks.keys() == whole.keys()
    for name in whole:
        np.testing.assert_array_equal(blocks[name], whole[name], err_msg=name)
    return found


def random_arrays(*shapes, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape).astype("f") for shape in shapes]


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


# ------------------------------------------------------------------------------------------------------------- models

@gc.model
def attention(q: gc.f32["B", "T", 24], k: gc.f32["B", "S", 24], v: gc.f32["B", "S", 24]):
    p = gc.softmax(gc.einsum("btd,bsd->bts", q, k) * 0.25, axis=-1)
    return gc.outputs(y=gc.einsum("bts,bsd->btd", p, v))


def attended(q, k, v):
    q, k, v = (a.astype("d") for a in (q, k, v))
    return softmax(np.einsum("btd,bsd->bts", q, k) * 0.25) @ v


@gc.model
def heads(x: gc.f32["B", "T", 48], t: gc.f32["B", "T", 48], *, causal: bool = False):
    """Several heads, with biases between their products and the scores."""
    size, steps, _ = x.shape
    q, k, v = (gc.reshape(gc.nn.linear(x, 48, name=n), (size, steps, 3, 16)) for n in "qkv")
    scores = gc.einsum("bthd,bshd->bhts", q, k) * 0.25
    if causal:
        scores = gc.where(gc.arange(steps)[:, None] >= gc.arange(steps)[None, :], scores, float("-inf"))
    y = gc.einsum("bhts,bshd->bthd", gc.softmax(scores, axis=-1), v)
    y = gc.nn.linear(gc.reshape(y, (size, steps, 48)), 48, name="o")
    return gc.outputs(y=y, loss=gc.nn.mse(y, t))


@gc.model
def masked(q: gc.f32["B", "T", 24], mask: gc.bool_["B", "T", "T"]):
    p = gc.softmax(gc.where(mask, gc.einsum("btd,bsd->bts", q, q), -1e9), axis=-1)
    return gc.outputs(y=gc.einsum("bts,bsd->btd", p, gc.tanh(q)))


@gc.model
def over(x: gc.f32["B", "M", "K"], w: gc.f32["B", "K", "N"], z: gc.f32["B", "N", 5]):
    """Kernels that write over what they read, between products of batches."""
    h = gc.relu(gc.einsum("bmk,bkn->bmn", x, w) + 1)
    y = gc.tanh(gc.einsum("bmn,bno->bmo", h, z))
    return gc.outputs(y=y)


@gc.model
def interleaved(x: gc.f32["I", 8], w: gc.f32["I", 8, "K"], s: gc.f32["K", "I", "J"]):
    """The right-hand matrices of the second product lie into each other: their rows are rows of s in turn."""
    t = gc.tanh(gc.einsum("in,ink->ik", x, w))
    return gc.outputs(y=gc.einsum("ik,kij->ij", t, s))


@gc.model
def steps(x: gc.f32["T", "B", "M", 16], h: gc.f32["B", "M", 16]):
    """A loop whose step is a strip of its own."""
    def step(h, x):
        p = gc.softmax(gc.einsum("bmd,bnd->bmn", h, x), axis=-1)
        h = gc.tanh(gc.einsum("bmn,bnd->bmd", p, x))
        return h, gc.sum(h, axis=-1)
    last, sums = gc.scan(step, init=h, xs=x)
    return gc.outputs(last=last, sums=sums, loss=gc.mean(last * last), slope=gc.grad(gc.mean(last * last), h))


@gc.model
def dropped(q: gc.f32["B", "T", 24]):
    p = gc.dropout(gc.softmax(gc.einsum("btd,bsd->bts", q, q), axis=-1), 0.3)
    return gc.outputs(y=gc.einsum("bts,bsd->btd", p, q))


# ------------------------------------------------------------------------------------------------------------- values

@pytest.mark.parametrize("threads", [1, 2, 3, 4])
@pytest.mark.parametrize("shape", [(2, 7, 9), (5, 33, 40), (1, 100, 70), (3, 131, 67), (2, 257, 17), (40, 12, 12), (4, 64, 64)])
def test_attention(small, shape, threads):
    """By matrices and by rows of one, over few and many."""
    B, T, S = shape
    q, k, v = random_arrays((B, T, 24), (B, S, 24), (B, S, 24))
    given = dict(q=q, k=k, v=v)
    found = same_bits(small, attention, given, threads=threads)
    assert found or B * T * S < 1000 or threads > B
    np.testing.assert_allclose(gc.compile(attention, threads=threads).forward(**given)["y"], attended(q, k, v), rtol=1e-4, atol=1e-5)


def test_one_matrix_is_cut_into_rows(small):
    """The blocks of a part are of about one length, and each is of rows enough."""
    q, k, v = random_arrays((1, 301, 24), (1, 50, 24), (1, 50, 24))
    assert same_bits(small, attention, dict(q=q, k=k, v=v), threads=2) == [["gemm_batch_f32", "exp_sum_div", "gemm_batch_f32"]]
    (strip,) = small.strips
    assert strip.group == strip.slabs == 301 and len(strip.parts) > 2
    lengths = [length for part in strip.parts for _, times, length in strip.blocks(part) for _ in range(times)]
    assert sum(lengths) == 301 and min(lengths) >= 9 and max(lengths) <= strip.block


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("kind", ["forward", "value_and_grad"])
def test_heads(small, kind, causal, threads):
    """What does not belong between the scores and what is done with them runs before."""
    x, t = random_arrays((4, 37, 48), (4, 37, 48))
    found = same_bits(small, heads, dict(x=x, t=t), kind=kind, threads=threads, causal=causal)
    assert any({"exp_sum_div", "gemm_batch_f32"} <= set(kernels) and kernels.count("gemm_batch_f32") > 1 for kernels in found)


@pytest.mark.parametrize("threads", [1, 2])
def test_masks(small, threads):
    (q,) = random_arrays((6, 41, 24))
    mask = np.random.default_rng(1).random((6, 41, 41)) < 0.5
    assert same_bits(small, masked, dict(q=q, mask=mask), threads=threads)


@pytest.mark.parametrize("threads", [1, 2])
def test_kernels_that_write_over_what_they_read(small, threads):
    x, w, z = random_arrays((6, 50, 7), (6, 7, 33), (6, 33, 5))
    given = dict(x=x, w=w, z=z)
    assert len(same_bits(small, over, given, threads=threads)[0]) >= 3
    y = np.tanh(np.maximum(x.astype("d") @ w + 1, 0) @ z)
    np.testing.assert_allclose(gc.compile(over, threads=threads).forward(**given)["y"], y, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("threads", [1, 2])
def test_matrices_that_lie_into_each_other(small, threads):
    x, w, s = random_arrays((60, 8), (60, 8, 30), (30, 60, 20))
    given = dict(x=x, w=w, s=s)
    assert same_bits(small, interleaved, given, threads=threads)[0].count("gemm_batch_f32") == 2
    y = np.einsum("ik,kij->ij", np.tanh(np.einsum("in,ink->ik", x.astype("d"), w)), s)
    np.testing.assert_allclose(gc.compile(interleaved, threads=threads).forward(**given)["y"], y, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("threads", [1, 2])
def test_in_a_loop(small, threads):
    x, h = random_arrays((5, 4, 36, 16), (4, 36, 16))
    found = same_bits(small, steps, dict(x=x, h=h), threads=threads)
    assert any(kernels.count("gemm_batch_f32") > 1 for kernels in found)
    last = h.astype("d")
    for row in x.astype("d"):
        last = np.tanh(softmax(np.einsum("bmd,bnd->bmn", last, row)) @ row)
    np.testing.assert_allclose(gc.compile(steps).forward(x=x, h=h)["last"], last, rtol=1e-3, atol=1e-5)


def test_random_numbers_know_their_place(small):
    """What is drawn depends on the position in the whole array, not in the block."""
    (q,) = random_arrays((5, 40, 24))
    found = same_bits(small, dropped, dict(q=q, train=True), threads=2)
    assert found and any("gemm_batch_f32" in kernels for kernels in found)


def test_frozen(small):
    x, t = random_arrays((4, 37, 48), (4, 37, 48))
    assert same_bits(small, heads, dict(x=x, t=t), freeze=True)


def test_one_model_for_many_sizes(small):
    """Bindings to several sizes share the arena."""
    m, expected = gc.compile(attention, threads=2), {}
    shapes = [(2, 40), (9, 33), (1, 90), (5, 12), (9, 33)]
    for on in (False, True):
        small.on = on
        m = gc.compile(attention, threads=2)
        for _ in range(2):
            for B, T in shapes:
                q, k, v = random_arrays(*[(B, T, 24)] * 3)
                y = m.forward(q=q, k=k, v=v)["y"]
                np.testing.assert_array_equal(y, expected.setdefault((B, T), y))
    assert small.found


def test_clones_in_two_threads(small):
    m, (q, k, v) = gc.compile(attention, threads=2), random_arrays(*[(6, 45, 24)] * 3)
    expected = m.forward(q=q, k=k, v=v)["y"]
    wrong = []

    def use(clone):
        for _ in range(20):
            wrong.extend([] if np.array_equal(clone.forward(q=q, k=k, v=v)["y"], expected) else [1])

    users = [threading.Thread(target=use, args=(m.clone(),)) for _ in range(3)]
    for user in users:
        user.start()
    for user in users:
        user.join()
    assert small.found and not wrong


def test_a_saved_model_has_the_same_strips(small, tmp_path):
    m = gc.compile(attention)
    m.save(tmp_path)
    q, k, v = random_arrays(*[(6, 45, 24)] * 3)
    y = m.forward(q=q, k=k, v=v)["y"]
    first, small.found = small.found, []
    np.testing.assert_array_equal(gc.load(tmp_path / "attention").forward(q=q, k=k, v=v)["y"], y)
    assert small.found == first != []


def test_memory_is_that_of_a_block(small):
    """What only a strip touches needs a block's memory; that of a loop over many matrices is that of one."""
    lengths = []
    for B in (8, 64):
        m, (q, k, v) = gc.compile(attention), random_arrays(*[(B, 45, 24)] * 3)
        m.forward(q=q, k=k, v=v)
        lengths.append(m._context.arena.block.size if hasattr(m, "_context") else m.attention._context.arena.block.size)
    assert lengths[0] == lengths[1]


# ----------------------------------------------------------------------------------------------------------- refusals

BETWEEN = {
    "rolled": lambda s: gc.concat([s[-1:], s[:-1]]),
    "turned": lambda s: s[::-1],
    "shifted": lambda s: gc.concat([s[1:], s[:1]]),
    "summed": lambda s: s - gc.sum(s, axis=0, keepdims=True),
    "largest": lambda s: s * gc.max(s, axis=0, keepdims=True),
    "cumulated": lambda s: gc.scan(lambda total, row: (total + row, total + row), init=gc.zeros(s.shape[1:]), xs=s)[1],
    "gathered": lambda s: gc.take(s, gc.minimum(gc.arange(s.shape[0]), 3), 0),
    "transposed": lambda s: gc.transpose(s, (1, 0, 2)),
    "one for all": lambda s: s + s[:1],
}


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("between", BETWEEN)
def test_what_needs_other_slabs_waits_for_them(small, between, threads):
    """The kernel that reads another matrix of a batch is in no strip with the product that computes it."""
    @gc.model
    def crossing(q: gc.f32["B", "B", 24], v: gc.f32["B", "B", 24]):
        s = gc.einsum("btd,bsd->bts", q, q)
        p = gc.tanh(BETWEEN[between](s))
        return gc.outputs(y=gc.einsum("bts,bsd->btd", p, v), s=s)

    q, v = random_arrays((37, 37, 24), (37, 37, 24))
    given = dict(q=q, v=v)
    same_bits(small, crossing, given, threads=threads)
    for strip in small.strips:
        writers = {b for m in strip.members.values() for b in m.instruction.writes}
        assert len([m for m in strip.members.values() if m.instruction.kernel.startswith("gemm")]) < 2, writers
    s = np.einsum("btd,bsd->bts", q.astype("d"), q)
    np.testing.assert_allclose(gc.compile(crossing).forward(**given)["s"], s, rtol=1e-4, atol=1e-4)


N = 24  # elements of each of the arrays below


def instruction(written, read, slab, extent, **options):
    """A kernel that writes one array and reads another; both in slabs of a length, or any cell if that is 0."""
    slabs = {"slabs": tuple(map(size, slab if isinstance(slab, tuple) else (slab, slab)))}
    arrays = tuple((number, size(0)) if isinstance(number, int) else (number[0], size(number[1])) for number in (written, read))
    return Instruction("kernel", arrays, (), extent=size(extent), written=(0,), **{**slabs, **options})


def together(monkeypatch, *instructions, arrays=6, views=()):
    """The numbers of the instructions of each strip."""
    for name, value in dict(SECOND=1, SAVED_NS=1e3, _nearer=lambda *_: True).items():
        monkeypatch.setattr(strips, name, value)
    buffers = [Buffer("temp", f"a{n}", f32, (size(N),)) for n in range(arrays)]
    buffers += [Buffer("view", f"v{n}", f32, (size(N // 2),), View(parent, size(start), size(0))) for n, (parent, start) in enumerate(views)]
    return [sorted(s.members) for s in strips.chosen(Program("p", tuple(buffers), instructions, ()), instructions, {}, 1)]


def test_instructions_that_cut_an_array_alike(monkeypatch):
    first = instruction(1, 0, 4, 6)
    assert together(monkeypatch, first, instruction(2, 1, 4, 6)) == [[0, 1]]
    assert together(monkeypatch, first, instruction(2, 1, 2, 12)) == [[0, 1]]  # two iterations a slab
    assert together(monkeypatch, first, instruction(1, 1, 4, 6), instruction(2, 1, 8, 3)) == [[0, 1, 2]]
    assert together(monkeypatch, first, instruction(2, 1, 4, 6), instruction(3, 0, (4, 0), 6)) == [[0, 1]]
    anywhere = instruction(1, 0, (4, 0), 6), instruction(1, 0, (4, 0), 6)  # in what none of them writes
    assert together(monkeypatch, *anywhere, instruction(2, 1, 4, 6)) == [[0, 1, 2]]


@pytest.mark.parametrize("other", [
    instruction(2, 1, (4, 0), 6),        # any cell of what is written
    instruction(2, 1, 8, 6),             # other slabs, of more elements in all
    instruction(2, (1, 4), (4, 4), 6),   # the same from another place on
    instruction(2, 1, 24, 1),            # all in one
    instruction(1, 0, (0, 4), 6),        # written once more, anywhere
    instruction(0, 2, (0, 4), 6),        # what the first reads is written anywhere
    instruction(2, 6, 2, 6),             # a part of it
    instruction(2, 1, 4, 6, private=(Private(0, "sum"),)),  # a total
    instruction(2, 1, 4, 6, slabs=()),   # it knows no slabs
    replace(instruction(2, 1, 8, 3), extent=None),
])  # fmt: skip
def test_instructions_that_do_not(monkeypatch, other):
    for between in (1, 2):  # what would be saved
        last = instruction(3, between, 4, 6)
        found = together(monkeypatch, instruction(1, 0, 4, 6), other, last, views=[(1, 0)])
        assert all(not {0, 1} <= set(numbers) for numbers in found)


def test_neither_slab_is_known(monkeypatch):
    def kernel(arrays, slabs, written):
        return replace(instruction(1, 0, slabs, 6), arrays=tuple((n, size(0)) for n in arrays), written=written)

    first, last = kernel((1, 4, 0), (0, 4, 4), (0, 1)), kernel((3, 2, 4), (4, 4, 4), (0,))
    assert together(monkeypatch, first, instruction(2, 1, (4, 0), 6), last) == [[1, 2]]


def test_what_is_passed_over_runs_before(monkeypatch):
    """It may neither read what one of the others writes nor write what one of them reads."""
    first, last = instruction(1, 0, 4, 6), instruction(2, 1, 4, 6)
    for passed in (instruction(4, 3, 5, 7), instruction(4, 0, 5, 7), instruction(4, 3, 4, 6, private=(Private(0, "sum"),))):
        assert together(monkeypatch, first, passed, last) == [[0, 2]]
    for passed in (instruction(4, 1, 5, 7), instruction(0, 3, 5, 7), instruction(1, 3, 5, 7)):
        assert not together(monkeypatch, first, passed, last)
    loop = Loop(size(3), (), (instruction(4, 3, 5, 7),))
    assert together(monkeypatch, first, loop, last) == [[0, 2]]
    assert not together(monkeypatch, first, Loop(size(3), (), (instruction(0, 3, 5, 7),)), last)


def test_an_operand_that_all_matrices_share_is_not_made_in_the_strip(small):
    """The second product reads all of what the first made, for each of its own."""
    @gc.model
    def shared(q: gc.f32["B", "T", 24], w: gc.f32["B", "T", 24]):
        s = gc.einsum("btd,bsd->bts", q, q)
        return gc.outputs(y=gc.einsum("ctd,bts->cbsd", w, gc.tanh(s)))

    q, w = random_arrays((9, 20, 24), (9, 20, 24))
    same_bits(small, shared, dict(q=q, w=w), threads=2)


def test_a_check_stops_what_comes_after_it(small):
    """An index that is out of range is told, and the model goes on working."""
    @gc.model
    def looked_up(q: gc.f32["B", 40, 24], i: gc.i64["B", 40, 40]):
        s = gc.einsum("btd,bsd->bts", q, q)
        p = gc.softmax(s, axis=-1) + gc.take(gc.param("table", (7,), init="ones"), gc.minimum(i, 100))
        return gc.outputs(y=gc.einsum("bts,bsd->btd", p, q))

    (q,) = random_arrays((6, 40, 24))
    i = np.random.default_rng(0).integers(0, 7, (6, 40, 40))
    same_bits(small, looked_up, dict(q=q, i=i), threads=2)
    small.on = True
    m = gc.compile(looked_up)
    y = m.forward(q=q, i=i)["y"]
    with pytest.raises(gc.errors.GraphcError, match="the index 7 is out of range"):
        m.forward(q=q, i=np.where(i == 3, 7, i))
    np.testing.assert_array_equal(m.forward(q=q, i=i)["y"], y)


def test_small_models_have_none(monkeypatch):
    """Where everything stays in cache there is nothing to gain."""
    found = []
    real = strips.chosen
    monkeypatch.setattr(strips, "chosen", lambda *given: found.extend(real(*given)) or real(*given))
    q, k, v = random_arrays(*[(2, 40, 24)] * 3)
    gc.compile(attention).forward(q=q, k=k, v=v)
    assert not found
    q, k, v = random_arrays(*[(40, 160, 24)] * 3)
    gc.compile(attention).forward(q=q, k=k, v=v)
    assert found


# -------------------------------------------------------------------------------------------------- models at random

ONE = {
    "tanh": gc.tanh,
    "softmax": gc.softmax,
    "turned": lambda a: gc.transpose(a, (0, 2, 1)),
    "rolled": lambda a: gc.concat([a[1:], a[:1]]),
    "centred": lambda a: a - gc.mean(a, axis=0, keepdims=True),
    "rows": lambda a: a * gc.max(a, axis=1, keepdims=True),
    "normed": gc.layer_norm,
    "causal": lambda a: gc.where(gc.arange(a.shape[1])[:, None] >= gc.arange(a.shape[2])[None, :], a, 0.0),
}
TWO = {
    "product": lambda a, b: gc.tanh(gc.einsum("bij,bjk->bik", a, b)),
    "plain": lambda a, b: gc.einsum("bij,bkj->bik", a, b) * 0.1,
    "turned product": lambda a, b: gc.einsum("bji,bjk->bik", a, b) * 0.1,
    "sum": lambda a, b: a + b,
    "gated": lambda a, b: gc.where(a > 0, b, -0.5 * a),
    "all": lambda a, b: gc.einsum("bij,cjk->bik", a, b) * 0.01,
}


@pytest.mark.parametrize("seed", range(24))
def test_random_chains(small, seed):
    """Products and kernels in any order, some of which need what lies in other slabs, and their derivatives."""
    choose = random.Random(seed)
    lines = []
    for number in range(2, 9):
        name = choose.choice([*ONE, *TWO, *TWO])
        lines.append((name, choose.randrange(max(0, number - 3), number), choose.randrange(number)))
    shown = choose.sample(range(2, 9), 2)

    @gc.model
    def chain(x: gc.f32["B", "M", "M"], y: gc.f32["B", "M", "M"]):
        values = [x, y]
        for name, i, j in lines:
            values.append(ONE[name](values[i]) if name in ONE else TWO[name](values[i], values[j]))
        loss = gc.mean(values[-1] * values[-1])
        return gc.outputs(**{f"v{n}": values[n] for n in shown}, loss=loss, slope=gc.grad(loss, x))

    size = choose.choice([16, 33, 50])
    x, y = random_arrays(*[(choose.choice([2, 5, 8]), size, size)] * 2)
    same_bits(small, chain, dict(x=x, y=y), threads=choose.choice([1, 2, 3]))


def test_random_models(small, monkeypatch):
    """Models of any kind against NumPy; few of them have instructions that share an axis."""
    monkeypatch.setattr(strips, "SECOND", 1)
    for seed in range(60):
        try:
            program = generate(random.Random(seed), length=10)
        except Mismatch:
            continue
        check_compiled(program, "cpu")
    assert small.found


# --------------------------------------------------------------------------------------------------------- what is told

@pytest.mark.parametrize("threads", [1, 2])
def test_the_profile_times_each_instruction(small, threads):
    q, k, v = random_arrays(*[(6, 45, 24)] * 3)
    model = gc.compile(attention, threads=threads)
    found = profile(model._only(), "forward", dict(q=q, k=k, v=v), runs=5)
    assert found.strips == ((1, 2, 3),) and len(found.timings) == 3
    assert all(1e-8 < t.seconds < found.seconds for t in found.timings)
    (strip,) = small.strips[:1]
    assert {t.parts for t in found.timings} == {len(strip.parts)} and (len(strip.parts) > 1) == (threads > 1)
    small.on = False
    whole = profile(gc.compile(attention, threads=threads)._only(), "forward", dict(q=q, k=k, v=v), runs=3)
    assert not whole.strips and (whole.arena > found.arena or threads > 1)  # parts have memory of their own


def test_the_command_tells_of_blocks(small, tmp_path, capsys):
    text = "import graphc as gc\n\n@gc.model\n" + inspect.getsource(attention.function).split("\n", 1)[1]
    (tmp_path / "attention.py").write_text(text)
    sizes = ["--size", "B=6", "--size", "T=45", "--size", "S=45", "--threads", "1", "--repeat", "3"]
    assert main(["profile", str(tmp_path / "attention.py"), *sizes]) == 0
    assert "in blocks   1, 2, 3: these run together" in capsys.readouterr().out
    assert main(["profile", str(tmp_path / "attention.py"), *sizes, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["in_blocks"] == [[1, 2, 3]]
    assert main(["compile", str(tmp_path / "attention.py"), "--explain-schedule"]) == 0
    assert "may run block by block with the products of einsum_1, div_1, if these" in capsys.readouterr().out
