"""Memory: blocks and addresses, and the arena that all programs and all sizes of a model share."""
from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

import graphc as gc
from graphc.runtime import variables
from graphc.runtime.memory import HUGE_PAGE, Arena, address, address_at_once, side_by_side


def place(array):
    return array.__array_interface__["data"][0]


@pytest.mark.parametrize("seed", range(20))
def test_side_by_side(seed):
    rng = np.random.default_rng(seed)
    types = [np.dtype(t) for t in ("f4", "f8", "i4", "i8", "?", "u1")]
    wanted = [
        (types[rng.integers(len(types))], tuple(map(int, rng.integers(0, 6, rng.integers(0, 4)))))
        for _ in range(rng.integers(0, 12))
    ]
    block, arrays = side_by_side(wanted)
    assert [(a.dtype, a.shape) for a in arrays] == wanted
    end = 0
    for array in arrays:
        assert place(array) % 64 == 0 and array.base is block and array.flags.c_contiguous and not array.any()
        assert end == 0 or 0 <= place(array) - end < 64, "side by side, and apart"
        end = place(array) + array.nbytes
        assert end <= place(block) + block.nbytes
    for number, array in enumerate(arrays):
        array.reshape(-1).view(np.uint8)[...] = number + 1
    assert all((a.reshape(-1).view(np.uint8) == n + 1).all() for n, a in enumerate(arrays))


@pytest.mark.parametrize("length", [HUGE_PAGE - 128, HUGE_PAGE, 3 * HUGE_PAGE + 128])
def test_large_blocks_are_whole_huge_pages(length):
    block, (first, second) = side_by_side([(np.dtype("f4"), (length // 8,)), (np.dtype("f4"), (length // 8,))])
    assert place(second) - place(first) == length // 2
    if length >= HUGE_PAGE:
        assert place(first) % HUGE_PAGE == 0
        assert place(first) - place(block) + -(-length // HUGE_PAGE) * HUGE_PAGE <= block.nbytes
    else:
        assert block.nbytes <= length + 64


def test_addresses():
    for shape in ((), (1,), (3, 4), (0, 3), (2, 0)):
        array = np.zeros(shape)
        assert address(array) == address_at_once(array) == array.ctypes.data
    read_only = np.zeros(3)
    read_only.flags.writeable = False
    assert address(read_only) == read_only.ctypes.data
    for array in (read_only, np.zeros((3, 4)).T, np.zeros(6)[::2], np.zeros(6)[::-1]):
        with pytest.raises(TypeError):
            address_at_once(array)


def test_parameters_are_one_block():
    from graphc.graph.dtype import f32, f64

    made = variables.allocate({"a": (f32, (5,)), "b": (f64, ()), "c": (f32, (2, 3)), "d": (f64, (9,))})
    assert list(made) == ["a", "b", "c", "d"] and len({id(a.base) for a in made.values()}) == 1
    assert place(made["c"]) - place(made["a"]) == 64 and place(made["d"]) - place(made["b"]) == 64


def test_an_arena_grows_to_the_largest_and_stays():
    arena = Arena()
    assert arena.block.size == 0
    arena.reserve(0)
    first = arena.block
    arena.reserve(100)
    grown = arena.block
    assert grown is not first and grown.size == 100 and place(grown) % 64 == 0
    arena.reserve(64)
    assert arena.block is grown
    grown[...] = 7
    arena.reserve(1000)
    assert arena.block.size == 1000 and place(arena.block) % 64 == 0


@gc.model
def deep(x: gc.f32["B", "N"]):
    w = gc.param("w", (8, 8), init="normal")
    h = gc.matmul(gc.matmul(gc.transpose(x, (1, 0)), x), gc.transpose(x, (1, 0)))  # (N, B)
    y = gc.tanh(gc.sum(h, axis=0))
    return gc.outputs(y=y, loss=gc.mean(y) + gc.sum(gc.matmul(w, w)))


def reference(x):
    return np.tanh((x.T @ x @ x.T).sum(axis=0))


def data(b, n, rng):
    return (rng.standard_normal((b, n)) / 4).astype(np.float32)


def arena_of(m):
    return m.entries["deep"]._context.arena


def call(m, kind, x):
    """The outputs of one of the three ways to run it."""
    result = {"gradient": m.value_and_grad, "step": m.step, "forward": m.forward}[kind](x)
    return result[0] if kind == "gradient" else result


def test_programs_and_sizes_share_one_arena():
    """It is as large as the largest needs alone, whatever was run in which order; and what runs in it is right."""
    m, rng, most = gc.compile(deep, optimiser=gc.train.SGD(1e-6)), np.random.default_rng(0), 0
    for _ in range(60):
        x, kind = data(*map(int, rng.integers(1, 40, 2)), rng), str(rng.choice(["gradient", "step", "forward"]))
        alone = m.clone()
        for model in (m, alone):
            np.testing.assert_allclose(call(model, kind, x)["y"], reference(x), rtol=1e-3, atol=1e-4)
        most = max(most, arena_of(alone).block.size)
        assert arena_of(m).block.size == most


def test_small_again_after_large():
    m, rng = gc.compile(deep), np.random.default_rng(1)
    small, large = data(2, 3, rng), data(50, 60, rng)
    for x in (small, large, small, large, small):
        np.testing.assert_allclose(m.forward(x)["y"], reference(x), rtol=1e-3, atol=1e-4)
        outputs, _ = m.value_and_grad(x)
        np.testing.assert_allclose(outputs["y"], reference(x), rtol=1e-3, atol=1e-4)


def test_nothing_runs_in_the_memory_that_an_arena_left():
    m, rng = gc.compile(deep), np.random.default_rng(3)
    small, large = data(20, 30, rng), data(90, 80, rng)
    m.forward(small)
    left = arena_of(m).block
    m.forward(large)
    assert arena_of(m).block is not left
    left[...] = 7
    arena_of(m).block[...] = 0
    np.testing.assert_allclose(m.forward(small)["y"], reference(small), rtol=1e-3, atol=1e-4)
    assert (left == 7).all() and arena_of(m).block.any()


def test_a_clone_has_an_arena_of_its_own():
    m = gc.compile(deep)
    c = m.clone()
    m.forward(np.ones((9, 9), np.float32))
    assert arena_of(c) is not arena_of(m) and arena_of(c).block.size == 0
    c.forward(np.ones((2, 2), np.float32))
    assert not np.may_share_memory(arena_of(c).block, arena_of(m).block)


def test_models_of_one_file_share_an_arena():
    @gc.model
    def first(x: gc.f32["B", 4]):
        return gc.outputs(y=gc.matmul(gc.matmul(x, gc.transpose(x, (1, 0))), x))

    @gc.model
    def second(x: gc.f32["B", 4]):
        return gc.outputs(y=gc.matmul(gc.matmul(x, gc.transpose(x, (1, 0))), x) + 1)

    m = gc.compile(first, second)
    assert m.first._context.arena is m.second._context.arena
    x = np.random.default_rng(0).standard_normal((7, 4)).astype(np.float32)
    for _ in range(2):
        np.testing.assert_allclose(m.first.forward(x)["y"], x @ x.T @ x, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(m.second.forward(x[:3])["y"], x[:3] @ x[:3].T @ x[:3] + 1, rtol=1e-4, atol=1e-5)


def test_many_sizes_take_the_memory_of_the_largest():
    """Thirty sizes of inputs, results dropped: what stays allocated is an arena, and the results of one size."""
    m, rng, n = gc.compile(deep), np.random.default_rng(2), 300
    m.forward(data(1, 1, rng))
    tracemalloc.start()
    try:
        for b in range(200, 230):
            m.forward(data(b, n, rng))
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    needed = arena_of(m).block.size
    assert needed > 300_000 and kept < 2 * needed, f"{kept} bytes are held; the largest size needs {needed}"
