"""The driver, and the fixed kernels against their Python twins and NumPy."""
from __future__ import annotations

import numpy as np
import pytest

from graphc.runtime import driver
from graphc.runtime.cache import KernelSource, build
from graphc.runtime.driver import (
    Call,
    Moving,
    Own,
    Program,
    Repeat,
    Strands,
    encode,
    fixed_kernels,
    fixed_sources,
    parts_of,
)
from graphc.runtime.library import LIBRARY

DTYPES = {"f32": np.float32, "f64": np.float64, "i32": np.int32, "i64": np.int64}


@pytest.fixture(autouse=True, scope="module")
def folder(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRAPHC_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        yield


def program(*calls, n_slots=8, bound=()):
    """A program of (kernel name or address, arguments); bound arrays lie in slots 2, 3, …"""
    made = Program([Call(fixed_kernels(f)[f] if isinstance(f, str) else f, tuple(a)) for f, a in calls], n_slots)
    for slot, array in enumerate(bound, 2):
        made.bind(slot, array)
    made.kept = bound
    return made


def call_fixed(name, arrays, integers):
    """Run one fixed kernel on arrays, then integers."""
    slots = [(slot, 0) for slot in range(2, 2 + len(arrays))]
    numbers = [(0, int(v)) for v in integers]
    made = program((name, [*slots, *numbers]), bound=arrays)
    return made.run()


def filled(slot, offset, count, value):
    return ("fill_32", [(slot, offset), (0, count), (0, value)])


# ------------------------------------------------------------------------------------------------------------ driver

def test_runs_in_order_with_offsets():
    x = np.zeros(8, np.int32)
    made = program(filled(2, 0, 8, 1), filled(2, 8, 3, 5), filled(2, 12, 1, -7), bound=[x])
    assert made.run() == 0
    assert x.tolist() == [1, 1, 5, -7, 5, 1, 1, 1]


def test_slots_can_be_bound_again():
    x, y = np.zeros(2, np.int32), np.zeros(2, np.int32)
    made = program(filled(2, 0, 2, 3), bound=[x])
    made.run()
    made.bind(2, y)
    x[:] = 0
    made.run()
    assert x.tolist() == [0, 0] and y.tolist() == [3, 3]


def test_empty_program():
    assert program().run() == 0


def test_largest_number_of_arguments():
    n = driver.SCRATCH_WORDS
    names = ", ".join(f"a{i}" for i in range(n - 1))
    source = f"def many(out, {names}):\n    out[0] = {' + '.join(f'a{i}' for i in range(n - 1))}\n"
    address = build([KernelSource("many", source, ("i64*",) + ("i64",) * (n - 1))])["many"]
    out = np.zeros(1, np.int64)
    program((address, [(2, 0), *((0, i) for i in range(n - 1))]), bound=[out]).run()
    assert out[0] == sum(range(n - 1))
    with pytest.raises(ValueError, match=f"at most {n} arguments"):
        encode([Call(address, ((0, 0),) * (n + 1))])


def loop(times, counter, moving, *body):
    return Repeat(times, counter, tuple(Moving(*m) for m in moving), tuple(body))


def fill_call(slot, offset, count, value):
    name, arguments = filled(slot, offset, count, value)
    return Call(fixed_kernels(name)[name], tuple(arguments))


@pytest.mark.parametrize("times", [0, 1, 4])
def test_a_loop_moves_its_slots(times):
    x = np.zeros(8, np.int32)
    # slot 4 moves forward through x from its element 1 on, slot 5 backwards from its last
    ahead = loop(times, 6, [(4, 2, 4, 4), (5, 2, 28, -4)], fill_call(4, 0, 1, 1), fill_call(5, 0, 1, 2))
    made = Program([ahead, fill_call(2, 0, 1, 9)], 8)
    made.bind(2, x)
    for _ in range(2):
        x[:] = 0
        assert made.run() == 0
        want = np.zeros(8, int)
        for t in range(times):
            want[1 + t], want[7 - t] = 1, 2
        want[0] = 9
        assert x.tolist() == want.tolist()


def test_loops_nest():
    x = np.zeros((3, 4), np.int32)
    inner = loop(2, 6, [(5, 4, 4, 8)], fill_call(5, 0, 1, 7))  # every second column from the first on
    made = Program([loop(3, 7, [(4, 2, 0, 16)], inner, fill_call(4, 0, 1, 3))], 8)
    made.bind(2, x)
    made.run()
    assert x.tolist() == [[3, 7, 0, 7]] * 3


def test_a_check_that_fails_ends_a_loop():
    x, i = np.zeros(4, np.int32), np.array([0, 1, 9, 2], np.int64)
    check = Call(fixed_kernels("check_index_i64")["check_index_i64"], ((4, 0), (driver.STATUS_SLOT, 0), (0, 1), (0, 3), (0, 5)))
    made = Program([loop(4, 6, [(4, 3, 0, 8), (5, 2, 0, 4)], check, fill_call(5, 0, 1, 1))], 8)
    made.bind(2, x)
    made.bind(3, i)
    assert made.run() == 5
    assert made.status == (5, 9, 3, 0)
    assert x.tolist() == [1, 1, 0, 0]


def test_encoding():
    body = Call(100, ((4, 8),))
    words = encode([Repeat(5, 6, (Moving(4, 2, 16, -8),), (body,)), Call(200, ())]).tolist()
    assert words == [0, 1, 6, 9, 5, 22, 4, 2, 16, *[100, 1, 1, 6, 4, 8], *[1, 1, 6, 7, 9, 4, -8], 200, 0, 1, 4]
    assert encode([Call(100, ((2, 8), (0, 5))), Call(200, ())]).tolist() == [100, 2, 1, 8, 2, 8, 0, 5, 200, 0, 1, 4]


def test_encoding_of_parts():
    call = Call(100, ((2, 8), (0, 0), (0, 9)), ((0, 4), (4, 9)), (Own(0, (3, 64), 128),))
    assert encode([call]).tolist() == [100, 3, 2, 15, 2, 8, 0, 4, 4, 9, 1, 0, 3, 64, 128]


def test_stops_at_a_fault_and_recovers():
    index, x = np.array([3, 9, -1], np.int64), np.zeros(1, np.int32)
    check = ("check_index_i64", [(2, 0), (driver.STATUS_SLOT, 0), (0, 3), (0, 5), (0, 42)])
    made = program(check, filled(3, 0, 1, 1), bound=[index, x])
    assert made.run() == 42
    assert made.status == (42, 9, 5, 1)
    assert x[0] == 0
    index[1] = 4
    assert made.run() == 42 and made.status == (42, -1, 5, 2)
    index[2] = 0
    assert made.run() == 0 and x[0] == 1


@pytest.mark.parametrize("workers", [1, 3])
def test_strands_run_side_by_side(workers):
    """Each is a part of the code, with loops and moving slots of its own; what comes after waits for all."""
    count, width = 7, 5
    x = np.zeros((count, width), np.int32)
    fill = fixed_kernels("fill_32")["fill_32"]
    bodies = []
    for p in range(count):
        counter, moving = 10 + 2 * p, 11 + 2 * p
        row = Repeat(width, counter, (Moving(moving, 2, 4 * width * p, 4),), (Call(fill, ((moving, 0), (0, 1), (0, p + 1))),))
        bodies.append((row, Call(fill, ((2, 4 * width * p), (0, 1), (0, -p)))))
    strands = Strands(fixed_kernels("run")["run"], tuple(bodies))
    last = Call(fill, ((2, 4), (0, 1), (0, 99)))
    assert parts_of(strands) == count
    for calls in ([strands, last], [Repeat(2, 3, (), (strands,)), last]):
        made = Program(calls, 10 + 2 * count, workers)
        made.bind(2, x)
        for _ in range(30):
            x[:] = 0
            assert made.run() == 0
            expected = np.repeat(np.arange(1, count + 1)[:, None], width, 1)
            expected[:, 0] = -np.arange(count)
            expected[0, 1] = 99
            np.testing.assert_array_equal(x, expected)


def test_programs_are_independent():
    x, y = np.zeros(1, np.int32), np.zeros(1, np.int32)
    first, second = program(filled(2, 0, 1, 1), bound=[x]), program(filled(2, 0, 1, 2), bound=[y])
    first.run(), second.run(), first.run()
    assert (x[0], y[0]) == (1, 2)


# ---------------------------------------------------------------------------------------------------- fixed kernels

def test_every_fixed_kernel_has_its_twin():
    # the driver's own, and those that a matrix product or a combination is made of when sizes are bound
    inner = {"run", "part", "share", "work"}
    inner |= {n for n in fixed_sources() if n.split("_")[0] in ("gemm", "blas", "batch", "pack", "turn", "combine")}
    products = {f"gemm_{b}{t}" for b in ("", "batch_") for t in ("f32", "f64")}
    assert set(fixed_sources()) == {*LIBRARY, *inner} - {"gemm_batch_f32", "gemm_batch_f64"}
    assert products <= LIBRARY.keys()
    for name, source in fixed_sources().items():
        assert f"def {name}(" in source.source


@pytest.mark.parametrize("dtype", ["f32", "f64", "i32", "i64"])
@pytest.mark.parametrize("reduce, expected", [("sum", [12, 15]), ("prod", [28, 80]), ("max", [7, 8]), ("min", [1, 2])])
def test_combine(dtype, reduce, expected):
    out, others = np.array([1, 2], DTYPES[dtype]), np.array([4, 5, 0, 7, 8, 0], DTYPES[dtype])
    call_fixed(f"combine_{reduce}_{dtype}", [out, others], (2, 2, 3))
    assert out.tolist() == expected


@pytest.mark.parametrize("dtype", ["i32", "i64"])
@pytest.mark.parametrize("bad, expected", [({}, (0, 0, 0, 0)), ({4: 10}, (7, 10, 10, 4)), ({99: -1}, (7, -1, 10, 99)),
                                           ({50: -3, 3: 11}, (7, 11, 10, 3)), ({0: 2**31 - 1}, (7, 2**31 - 1, 10, 0))])
def test_check_index(dtype, bad, expected):
    index = np.arange(100, dtype=DTYPES[dtype]) % 10
    for position, value in bad.items():
        index[position] = value
    status, twin = np.zeros(4, np.int64), np.zeros(4, np.int64)
    call_fixed(f"check_index_{dtype}", [index, status], (100, 10, 7))
    LIBRARY[f"check_index_{dtype}"](index, twin, 100, 10, 7)
    assert tuple(status) == tuple(twin) == expected


def test_check_index_looks_at_count_alone():
    index, status = np.array([1, 2, 99]), np.zeros(4, np.int64)
    call_fixed("check_index_i64", [index, status], (2, 3, 7))
    assert not status.any()


@pytest.mark.parametrize("dtype, value", [("u1", 200), ("?", True), ("f4", 1.5), ("i4", -3), ("f8", np.inf), ("i8", -2)])
def test_fill(dtype, value):
    out = np.zeros(37, dtype)
    twin = out.copy()
    bits = int(np.array([value], dtype).view(f"i{out.itemsize}")[0])
    name = f"fill_{8 * out.itemsize}"
    call_fixed(name, [out], (30, bits))
    LIBRARY[name](twin, 30, bits)
    for result in (out, twin):
        assert (result[:30] == value).all() and not result[30:].any()


def test_copy():
    source, out = np.arange(20, dtype=np.float32), np.zeros(20, np.float32)
    twin = out.copy()
    call_fixed("copy", [out, source], (15 * 4,))
    LIBRARY["copy"](twin, source, 15 * 4)
    for result in (out, twin):
        assert result.tolist() == [*range(15), 0, 0, 0, 0, 0]
