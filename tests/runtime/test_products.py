"""Matrix products against float64 NumPy: every way of doing them, every kind of edge, in one thread and in several."""

import itertools
import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest

import graphc as gc
from graphc.codegen import host, tiles
from graphc.errors import InputError, RuntimeFault
from graphc.graph.dtype import f32, f64
from graphc.graph.size import size
from graphc.runtime import driver, products
from graphc.runtime.cache import build
from graphc.runtime.execute import CpuExecutor
from graphc.runtime.library import LIBRARY
from graphc.runtime.program import Buffer, Instruction, Program

DTYPES = {"f32": np.float32, "f64": np.float64}
TYPES = {"f32": f32, "f64": f64}
TOLERANCE = {"f32": dict(rtol=2e-5, atol=2e-5), "f64": dict(rtol=1e-12, atol=1e-12)}


def run(dtype, arrays, integers, *, threads=1, batch=()):
    """Run one product instruction over flat arrays a, b, c."""
    names = ("input", "input", "output")
    buffers = tuple(Buffer(k, n, TYPES[dtype], (size(x.size),)) for k, n, x in zip(names, "abc", arrays, strict=True))
    kernel = f"gemm_{'batch_' if batch else ''}{dtype}"
    values = tuple(size(int(v)) for v in (*integers, *batch))
    instruction = Instruction(kernel, tuple((i, size(0)) for i in range(3)), values, fixed=True)
    bound = CpuExecutor({}, threads=threads).bound(Program("product", buffers, (instruction,), ()), {})
    for number, array in enumerate(arrays):
        bound.bind(number, array)
    bound.run()


def operands(dtype, m, n, k, trans_a, trans_b, pad=0, seed=0):
    """(a, b, c as stored, their exact product as float64)"""
    rng = np.random.default_rng(seed + m + n + k)
    a = rng.standard_normal((k, m + pad) if trans_a else (m, k + pad)).astype(DTYPES[dtype])
    b = rng.standard_normal((n, k + pad) if trans_b else (k, n + pad)).astype(DTYPES[dtype])
    c = rng.standard_normal((m, n + pad)).astype(DTYPES[dtype])
    op_a = a[:, :m].T if trans_a else a[:, :k]
    op_b = b[:, :k].T if trans_b else b[:, :n]
    return a, b, c, op_a.astype(float) @ op_b.astype(float)


def check(dtype, m, n, k, *, pads=(0,), threads=1, accumulates=(0, 1)):
    for trans_a, trans_b, accumulate, pad in itertools.product((0, 1), (0, 1), accumulates, pads):
        a, b, c, exact = operands(dtype, m, n, k, trans_a, trans_b, pad)
        expected = c.copy()
        expected[:, :n] = exact + (c[:, :n] if accumulate else 0)
        if not accumulate:
            c[:, :n] = np.nan  # what is not accumulated to is not read: it may hold anything
        integers = (m, n, k, a.shape[1], b.shape[1], c.shape[1], trans_a, trans_b, accumulate)
        run(dtype, [a, b, c], integers, threads=threads)
        scale = max(1, np.sqrt(k) / 4)
        tolerance = {key: value * scale for key, value in TOLERANCE[dtype].items()}
        np.testing.assert_allclose(c, expected, **tolerance, err_msg=str(integers))


SMALL = [(1, 1, 1), (1, 7, 5), (7, 1, 5), (3, 4, 5), (33, 65, 17), (1, 1, 9), (64, 64, 64), (4, 3, 0), (0, 3, 2),
         (3, 0, 2), (1, 5, 0), (5, 1, 0), (7, 5, 3), (9, 33, 15), (2, 130, 31), (4, 64, 7), (100, 70, 33), (16, 31, 32),
         (15, 47, 20), (16, 48, 5), (23, 22, 9)]  # the last three: a tile with a vector more


@pytest.mark.parametrize("dtype", ["f32", "f64"])
@pytest.mark.parametrize("shape", SMALL, ids=str)
def test_small(shape, dtype):
    check(dtype, *shape, pads=(0, 3))


# many tiles over a panel; several blocks of the inner axis; several blocks of rows; columns to divide; rows far apart
LARGE = [(160, 70, 33), (16, 40, 600), (600, 288, 70), (20, 700, 130), (300, 300, 512), (1, 300, 400)]


@pytest.mark.parametrize("dtype", ["f32", "f64"])
@pytest.mark.parametrize("shape", LARGE, ids=str)
def test_large(shape, dtype):
    check(dtype, *shape, accumulates=(1,))


@pytest.mark.parametrize("threads", [2, 3])
@pytest.mark.parametrize("shape", [(600, 288, 70), (20, 700, 130), (129, 513, 65)], ids=str)
def test_threads(shape, threads):
    check("f32", *shape, threads=threads, accumulates=(1,))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(32, 512, 128), (17, 33, 34), (64, 8, 128), (19, 300, 700), (63, 97, 131)], ids=str)
def test_the_transpose_of_c_is_computed_and_turned(dtype, shape, monkeypatch):
    """Where both operands are transposed and C has few rows; to the same bits as with B packed."""
    m, n, k = shape
    assert products.is_turned(dtype, m, n, k, True, True, False)
    check(dtype, *shape, pads=(0, 3))
    a, b, c, _ = operands(dtype, m, n, k, 1, 1)
    results = []
    for turned in (True, False):
        monkeypatch.setattr(products, "is_turned", lambda *_, turned=turned: turned)
        run(dtype, [a, b, c], (m, n, k, m, k, n, 1, 1, 0))
        results.append(c.tobytes())
    assert results[0] == results[1]


@pytest.mark.parametrize("shape, form", [
    ((32, 256, 64), (True, False, False)), ((32, 256, 64), (False, True, False)), ((32, 256, 64), (True, True, True)),
    ((65, 256, 512), (True, True, False)), ((32, 256, 63), (True, True, False)), ((32, 5, 64), (True, True, False)),
    ((4, 256, 64), (True, True, False)),
])  # fmt: skip
def test_c_is_not_turned_where_that_costs_more(shape, form):
    assert not products.is_turned("f32", *shape, *form)


@pytest.mark.parametrize("m, n, batch", [(0, 1, ()), (0, 1, (3, 0, 5, 0)), (3, 0, ()), (3, 0, (2, 15, 0, 0))], ids=str)
def test_a_product_of_nothing_is_silent(m, n, batch, capfd):
    a, b, c, _ = operands("f32", m, n, 5, 1, 1)
    for threads in (1, 2):
        run("f32", [np.tile(a.ravel(), 3), np.tile(b.ravel(), 3), c], (m, n, 5, m, 5, n, 1, 1, 0), threads=threads, batch=batch)
    assert capfd.readouterr() == ("", "")


def test_every_way_is_taken():
    """The shapes above meet each choice of `plan`, so that none is left untested."""
    met = set()
    for m, n, k in SMALL + LARGE:
        for trans_a, trans_b in itertools.product((False, True), repeat=2):
            plan = products.plan("f32", m, n, k, m if trans_a else k, k if trans_b else n, trans_a, trans_b, False)
            met |= {bit for bit in (products.PACK_A, products.PACK_B, products.USE_BLAS) if plan.how & bit}
    if host.vector_bytes() == 64:
        assert len(met) == 3


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_same_bits_for_the_same_threads(threads):
    a, b, c, _ = operands("f32", 257, 300, 129, 0, 1)
    integers = (257, 300, 129, 129, 129, 300, 0, 1, 0)
    results = []
    for _ in range(5):
        run("f32", [a, b, c], integers, threads=threads)
        results.append(c.tobytes())
    assert len(set(results)) == 1


@pytest.mark.parametrize("trans_a, trans_b", [(0, 0), (0, 1), (1, 0), (1, 1)])
@pytest.mark.parametrize("shape", [(257, 300, 129), (520, 600, 512), (40, 1100, 300), (900, 40, 70)], ids=str)
def test_the_bits_do_not_depend_on_the_threads(shape, trans_a, trans_b):
    """Into which blocks C is cut, and who computes them, changes no sum."""
    m, n, k = shape
    a, b, c, _ = operands("f32", m, n, k, trans_a, trans_b)
    results = []
    for threads in (1, 2, 3, 2, 5):
        out = c.copy()
        run("f32", [a, b, out], (m, n, k, a.shape[1], b.shape[1], n, trans_a, trans_b, 1), threads=threads)
        results.append(out.tobytes())
    assert len(set(results)) == 1


SHAPES = [(32, 1024, 256), (512, 512, 512), (1024, 1536, 384), (1024, 1024, 1024), (784, 256, 16384), (16384, 256, 784),
          (600, 40, 300), (40, 70, 9000), (3, 5000, 5000), (100000, 10, 64)]


@pytest.mark.parametrize("trans_a, trans_b", [(False, False), (False, True), (True, False), (True, True)])
@pytest.mark.parametrize("threads", [2, 3, 16])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_blocks_for_several_threads(shape, threads, trans_a, trans_b):
    """There is a block for each thread at least, and where no operand is packed, none is most of the work."""
    m, n, k = shape
    lda, ldb = m if trans_a else k, k if trans_b else n
    plan = products.plan("f32", m, n, k, lda, ldb, trans_a, trans_b, False, threads=threads, blocks=4 * threads)
    assert plan.blocks == -(-m // plan.high) * -(-n // plan.wide)
    if plan.how & products.USE_BLAS:
        return
    possible = -(-m // 32) * -(-n // 64)
    assert plan.blocks >= min(threads, possible) and plan.high % tiles.most_rows() * (plan.high < m) == 0
    if not plan.how & products.PACK_A and possible >= 16 * threads:
        assert plan.high * plan.wide <= m * n / (2 * threads)


@pytest.mark.parametrize("who", [0, 1])
def test_who_comes_first_may_take_all_blocks_and_who_is_late_finds_none(who):
    m, n, k = 100, 200, 30
    a, b, c, exact = operands("f32", m, n, k, 0, 0)
    plan = products.plan("f32", m, n, k, k, n, False, False, False, threads=2, blocks=8)
    assert plan.blocks > 2
    left = np.array([plan.blocks * products.BLOCK_AFTER])
    work = np.zeros(plan.work, np.uint8)

    def take(part):
        kernel = driver.fixed_kernels("gemm_f32")["gemm_f32"]
        integers = (m, n, k, k, n, n, plan.how, plan.high, plan.wide, part, part + 1)
        program = driver.Program([driver.Call(kernel, (*((slot, 0) for slot in range(2, 7)), *((0, v) for v in integers)))], 7)
        for slot, array in enumerate((a, b, c, work, left), 2):
            program.bind(slot, array)
        program.run()

    take(who)
    np.testing.assert_allclose(c, exact, **TOLERANCE["f32"])
    c[:] = np.nan
    for late in (0, 1, 2, 3):
        take(late)
    assert np.isnan(c).all()


@pytest.mark.parametrize("dtype", ["f32", "f64"])
def test_spreads_infinity_and_nan(dtype):
    a = np.array([[1, np.inf], [np.nan, 1]], DTYPES[dtype])
    b, c = np.ones((2, 2), DTYPES[dtype]), np.zeros((2, 2), DTYPES[dtype])
    run(dtype, [a, b, c], (2, 2, 2, 2, 2, 2, 0, 0, 0))
    np.testing.assert_array_equal(c, [[np.inf, np.inf], [np.nan, np.nan]])


@pytest.mark.parametrize("dtype", ["f32", "f64"])
def test_nothing_beyond_the_operands_is_touched(dtype):
    """Operands at the very end of a page that is followed by one that cannot be read: a look beyond would crash."""
    script = f"""
        import ctypes, mmap, numpy as np
        from tests.runtime.test_products import DTYPES, run
        page = mmap.PAGESIZE
        protect = ctypes.CDLL(None).mprotect
        protect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
        def at_the_end(count):
            t = np.dtype(DTYPES["{dtype}"])
            need = -(-count * t.itemsize // page) * page
            area = mmap.mmap(-1, need + page)
            raw = np.frombuffer(area, np.uint8)
            assert protect(raw.ctypes.data + need, page, 0) == 0
            array = raw[need - count * t.itemsize:need].view(t)
            array[:] = 1
            return array
        for m, n, k in [(1, 1, 1), (7, 5, 3), (9, 33, 17), (15, 33, 9), (15, 17, 9), (3, 100, 20), (150, 47, 70), (20, 9, 300)]:
            a, b, c = at_the_end(m * k), at_the_end(k * n), at_the_end(m * n)
            for ta in (0, 1):
                for tb in (0, 1):
                    run("{dtype}", [a, b, c], (m, n, k, m if ta else k, k if tb else n, n, ta, tb, 0))
                    assert (c == k).all()
        print("ok")
    """
    if sys.platform != "linux":
        pytest.skip("uses mprotect")
    assert in_fresh_process(script) == ["ok"]


# ------------------------------------------------------------------------------------------------------------ batches

@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("dtype", ["f32", "f64"])
@pytest.mark.parametrize("shared", ["none", "a", "b", "c"])
@pytest.mark.parametrize("shape", [(5, 6, 7, 8), (2, 200, 150, 70)], ids=str)
def test_batch(shape, dtype, shared, threads):
    batch, m, n, k = shape
    if shared == "c" and threads > 1:
        pytest.skip("products into one matrix are one after another")
    rng = np.random.default_rng(3)
    a = rng.standard_normal((batch, m, k)).astype(DTYPES[dtype])
    b = rng.standard_normal((batch, n, k)).astype(DTYPES[dtype])
    c = rng.standard_normal((batch, m, n)).astype(DTYPES[dtype])
    strides = [0 if shared == name else x[0].size for name, x in (("a", a), ("b", b), ("c", c))]
    used_a = np.broadcast_to(a[:1], a.shape) if shared == "a" else a
    used_b = np.broadcast_to(b[:1], b.shape) if shared == "b" else b
    exact = np.einsum("gik,gjk->gij", used_a.astype(float), used_b.astype(float))
    expected = c.astype(float)
    if shared == "c":
        expected[0] += exact.sum(0)
    else:
        expected += exact
    twin = c.copy()
    integers = (m, n, k, k, k, n, 0, 1, 1)
    run(dtype, [a, b, c], integers, batch=(batch, *strides), threads=threads)
    LIBRARY[f"gemm_batch_{dtype}"](a.ravel(), b.ravel(), twin.reshape(-1), *integers, batch, *strides)
    np.testing.assert_allclose(c, expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(twin, expected, rtol=1e-4, atol=1e-4)


# ------------------------------------------------------------------------------------------------------------ packing

@pytest.mark.parametrize("dtype", ["f32", "f64"])
@pytest.mark.parametrize("shape", [(1, 1), (5, 3), (33, 17), (64, 32), (100, 300)], ids=str)
@pytest.mark.parametrize("trans_b", [0, 1])
def test_packed_operand(shape, trans_b, dtype):
    n, k = shape
    for m in (1, 5, 40):
        a, b, c, exact = operands(dtype, m, n, k, 0, trans_b)
        packed = np.full(products.packed_size(dtype, n, k), np.nan, DTYPES[dtype])
        kernels = build([driver.fixed_sources()[name] for name in (f"pack_{dtype}", f"gemm_{dtype}")])
        plan = products.plan(dtype, m, n, k, k, b.shape[1], False, bool(trans_b), False, packed_b=True)
        work = np.zeros(plan.work, np.uint8)
        whole = (m, n, k, k, b.shape[1], n, plan.how, plan.high, plan.wide, 0, 1)
        arrays = [(2, 0), (3, 0), (4, 0), (5, 0), (6, 0)]
        null = (driver.ZERO_SLOT, 0)
        calls = [
            driver.Call(kernels[f"pack_{dtype}"], (arrays[1], arrays[4], *((0, v) for v in (n, k, b.shape[1], trans_b)))),
            driver.Call(kernels[f"gemm_{dtype}"], (arrays[0], arrays[4], arrays[2], arrays[3], null, *((0, v) for v in whole))),
        ]
        program = driver.Program(calls, 7)
        for slot, array in enumerate((a, b, c, work, packed), 2):
            program.bind(slot, array)
        program.run()
        np.testing.assert_allclose(c, exact, **TOLERANCE[dtype])


# --------------------------------------------------------------------------------------------------- other processors

def in_fresh_process(script, **environment):
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], env={**os.environ, **environment},
                          capture_output=True, text=True, cwd=os.getcwd())
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.parametrize("cpu", ["x86-64-v2", "x86-64-v3"])
def test_narrower_vectors(cpu):
    """The same products for processors without AVX-512, and without AVX: this one runs their code too."""
    if not (tiles.vector_bytes() >= 32 and host.host_cpu()[0] not in host.LEVELS):
        pytest.skip("for an x86 processor with AVX2")
    script = """
        from tests.runtime.test_products import check
        for shape in [(7, 5, 3), (33, 65, 17), (160, 70, 33), (20, 40, 300), (3, 64, 9)]:
            for dtype in ("f32", "f64"):
                check(dtype, *shape)
        print("ok")
    """
    assert in_fresh_process(script, GRAPHC_CPU=cpu) == ["ok"]


def test_unknown_processor(monkeypatch):
    monkeypatch.setenv("GRAPHC_CPU", "pentium")
    host.host_cpu.cache_clear()
    try:
        with pytest.raises(RuntimeFault, match="GRAPHC_CPU is 'pentium'") as caught:
            host.host_cpu()
    finally:
        monkeypatch.undo()
        host.host_cpu.cache_clear()
    assert "x86-64-v3" in str(caught.value)


# ------------------------------------------------------------------------------------------------- frozen parameters

@pytest.mark.parametrize("threads", ["1", "2"])
def test_frozen_parameters_are_packed_and_thawed(threads, monkeypatch):
    monkeypatch.setenv("GRAPHC_NUM_THREADS", threads)

    @gc.model
    def net(x: gc.f32["B", 70]):
        w = gc.param("w", (70, 130))
        v = gc.param("v", (40, 130))
        return gc.outputs(y=(x @ w) @ gc.transpose(v))

    m = gc.compile(net)
    clone = m.clone()
    x = np.random.default_rng(0).standard_normal((50, 70)).astype(np.float32)

    def exact():
        return x.astype(float) @ m.params["w"] @ m.params["v"].T

    for model in (m, clone, m):
        np.testing.assert_allclose(model.forward(x=x)["y"], exact(), rtol=1e-4, atol=1e-4)
    m.freeze()
    for model in (m, clone, m):
        np.testing.assert_allclose(model.forward(x=x)["y"], exact(), rtol=1e-4, atol=1e-4)
    assert m.params.packed._made.keys() >= {("w", 0, "f32", 130, 70, 130, False), ("v", 0, "f32", 40, 130, 130, True)}
    with pytest.raises(InputError, match="frozen"):
        m.params["w"] = m.params["w"] * 2
    m.thaw()
    m.params["w"] = m.params["w"] * 2
    for model in (m, clone):
        np.testing.assert_allclose(model.forward(x=x)["y"], exact(), rtol=1e-4, atol=1e-4)
