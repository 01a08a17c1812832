"""Profiles: what is timed, counted and compared; nothing here says how fast anything is."""
import ctypes

import numpy as np
import pytest

import graphc as gc
from graphc.errors import InputError, RuntimeFault
from graphc.graph.dtype import f32, f64
from graphc.graph.size import parse, size
from graphc.runtime import timeline
from graphc.runtime.execute import CpuExecutor
from graphc.runtime.peaks import Peaks, largest_cache, measure
from graphc.runtime.profile import merged, profile, reuse, time_text, traffic
from graphc.runtime.program import Buffer, Instruction, Program
from graphc.runtime.signature import bind_sizes
from graphc.runtime.timeline import Timeline
from graphc.train import SGD

RNG = np.random.default_rng(0)


@gc.model
def mixed(x: gc.f32["B", 48], word: gc.i64["B"]):
    """A look-up that is checked, matrix products, elementwise kernels, equal ones among them."""
    e = gc.take(gc.param("E", (9, 48)), word)
    h = x + e
    for i in range(3):
        h = gc.tanh(gc.nn.linear(h, 48, name=f"layer{i}"))
    return gc.outputs(h=h, loss=gc.mean(h * h))


def given(rows=16):
    return dict(x=RNG.standard_normal((rows, 48)).astype(np.float32), word=RNG.integers(0, 9, rows))


@pytest.fixture(scope="module")
def found():
    return profile(gc.compile(mixed, threads=1)._only(), "gradient", given(), runs=12)


@pytest.mark.parametrize("kind", ["forward", "gradient", "step"])
@pytest.mark.parametrize("threads", [1, 2])
def test_there_is_a_time_for_each_instruction(kind, threads):
    entry = gc.compile(mixed, threads=threads, optimiser=SGD())._only()
    found = profile(entry, kind, given(), runs=5)
    assert [t.instruction for t in found.timings] == list(found.program.instructions)
    assert [t.steps for t in found.timings] == [(i,) for i in range(1, len(found.timings) + 1)]
    assert all(t.seconds > 0 and t.least >= 0 for t in found.timings) and found.whole > 0 and found.call > 0
    assert sum(map(found.share, found.timings)) == pytest.approx(1)
    assert (found.kind, found.threads, found.runs, found.sizes) == (kind, threads, 5, {"B": 16})


def test_what_takes_long_has_the_largest_share():
    @gc.model
    def heavy(x: gc.f32[8], a: gc.f32[600, 600]):
        return gc.outputs(y=gc.tanh(x), z=a @ a)

    found = profile(gc.compile(heavy)._only(), "forward", dict(x=np.ones(8), a=np.ones((600, 600))), runs=10)
    longest = max(found.timings, key=found.share)
    assert longest.instruction.kernel == "gemm_f32" and found.share(longest) > 0.5


def test_the_number_of_runs_is_chosen_where_none_is_given():
    assert 10 <= profile(gc.compile(mixed)._only(), "forward", given()).runs <= 1000


@pytest.mark.parametrize("threads", [1, 2])
def test_a_timeline_computes_what_a_call_does(threads):
    model = gc.compile(mixed, threads=threads)
    entry, inputs = model._only(), given(512)
    outputs, gradients = entry.value_and_grad(**inputs)
    expected = {n: a.copy() for n, a in {**outputs, **{f"grad:{n}": g for n, g in gradients.items()}}.items()}
    program, executor = entry.program("gradient"), entry._context.executor
    sizes = bind_sizes([(d, inputs[d.name].shape) for d in entry.signature.inputs])
    arrays = {}
    for number, buffer in enumerate(program.buffers):
        source = {"input": inputs, "param": model.params, "const": entry._context.constants}.get(buffer.kind, {})
        arrays[number] = source.get(buffer.name, np.full([e.evaluate(sizes) for e in buffer.shape], -7, buffer.dtype.numpy))
    for apart in (True, False):
        for number, buffer in enumerate(program.buffers):
            if buffer.kind == "output":
                arrays[number][...] = -7
        line = Timeline(program, sizes, executor, [a.ctypes.data for a in arrays.values()], apart)
        seconds = line.run()
        assert seconds.shape == (len(program.instructions) if apart else 1,) and (seconds > 0).all()
        assert len(line.parts) == len(program.instructions) and (max(line.parts) > 1) == (threads > 1)
        for number, buffer in enumerate(program.buffers):
            if buffer.kind == "output":
                np.testing.assert_array_equal(arrays[number], expected[buffer.name])


def test_a_timeline_stops_at_a_check_that_fails():
    entry = gc.compile(mixed)._only()
    program, inputs = entry.program("forward"), given(4)
    inputs["word"][2] = 9
    arrays = [inputs.get(b.name, np.zeros([e.evaluate({"B": 4}) for e in b.shape], b.dtype.numpy)) for b in program.buffers]
    line = Timeline(program, {"B": 4}, entry._context.executor, [a.ctypes.data for a in arrays])
    with pytest.raises(RuntimeFault, match="a check failed while the program was timed"):
        line.run()


def test_a_program_of_no_instructions_takes_no_time():
    line = Timeline(Program("none", (), (), ()), {}, CpuExecutor({}))
    assert line.run().shape == (0,)


# -- what is counted -------------------------------------------------------------------------------------------------
def test_bytes_are_those_of_the_arrays_each_once(found):
    expected = {
        "gemm_f32": {4 * (16 * 48 + 48 * 48 + 16 * 48)},
        "check_index_i64": {8 * 16},
    }
    for timing in found.timings:
        kernel = timing.instruction.kernel
        arrays = [found.program.buffers[n] for n in {n for n, _ in timing.instruction.arrays}]
        whole = sum(int(np.prod([e.evaluate(found.sizes) for e in b.shape])) * b.dtype.itemsize for b in arrays)
        assert timing.bytes in expected.get(kernel, {whole})
        assert timing.operations == timing.instruction.operations.evaluate(found.sizes)


def test_a_matrix_that_a_batch_shares_counts_once():
    buffers = tuple(Buffer("temp", name, f64, ()) for name in "abc")
    for strides, elements in (((12, 24, 18), 5 * (12 + 24 + 18)), ((12, 0, 18), 5 * (12 + 18) + 24), ((0, 24, 18), 12 + 5 * (24 + 18))):
        values = (3, 6, 4, 4, 6, 6, 0, 0, 0, 5, *strides)  # 5 products of (3, 4) and (4, 6)
        product = Instruction("gemm_batch_f64", tuple((n, size(0)) for n in range(3)), tuple(map(size, values)), fixed=True)
        assert sum(traffic(Program("p", buffers, (product,), ()), product, {}).values()) == 8 * elements


def test_a_copy_counts_what_it_reads_and_writes():
    buffers = (Buffer("input", "x", f32, (parse("N"),)), Buffer("output", "y", f32, (parse("N"),)))
    copy = Instruction("copy", ((1, size(0)), (0, size(0))), (parse("4*N"),), fixed=True)
    assert traffic(Program("p", buffers, (copy,), ()), copy, {"N": 10}) == {0: 40, 1: 40}


def test_equal_kernels_are_added_up_and_the_longest_comes_first(found):
    rows = merged(found)
    assert len(rows) < len(found.timings) and sorted(s for t in rows for s in t.steps) == list(range(1, len(found.timings) + 1))
    assert [t.seconds for t in rows] == sorted((t.seconds for t in rows), reverse=True)
    for what in ("seconds", "operations", "bytes", "least"):
        assert sum(getattr(t, what) for t in rows) == pytest.approx(sum(getattr(t, what) for t in found.timings))
    sizes = [(t.instruction.kernel, *(s.evaluate(found.sizes) for s in t.instruction.sizes)) for t in rows]
    assert len(set(sizes)) == len(sizes)


# -- what it is compared with ----------------------------------------------------------------------------------------
def test_the_bound_is_what_takes_longer_at_the_peak():
    peaks = Peaks({"f32": 100.0, "f64": 50.0}, ((1000, 8.0), (4000, 10.0), (largest_cache() + 1, 2.0)))
    assert [peaks.rate(n) for n in (1, 1000, 1001, 4001, largest_cache() * 9)] == [10, 10, 10, 2, 2]
    far = largest_cache() + 1
    assert peaks.least(1000, [(10, 10)], "f32") == (10.0, "compute")
    assert peaks.least(1000, [(10, 10)], "f64") == (20.0, "compute")
    assert peaks.least(1, [(600, 1000), (400, 1000)], "f32") == (100.0, "cache")
    assert peaks.least(1, [(600, 1000), (10, far)], "f32") == (65.0, "cache")
    assert peaks.least(1, [(100, 1000), (400, far)], "f32") == (210.0, "memory")
    assert peaks.least(0, [], "f32") == (0.0, "compute")


def test_the_distance_is_what_was_touched_since():
    kinds = {"x": "input", "t": "temp", "u": "temp", "y": "output"}
    buffers = tuple(Buffer(kind, name, f32, (parse("N"),)) for name, kind in kinds.items())

    def step(*numbers):
        return Instruction("k", tuple((n, size(0)) for n in numbers), ())

    # x → t → u → y, and u gets memory of its own; a second run finds x and y as far away as all others are
    program = Program("p", buffers, (step(0, 1), step(1, 2), step(2, 3)), ())
    assert reuse(program, {"N": 4}) == [[(16, 96), (16, 64)], [(16, 32), (16, 64)], [(16, 32), (16, 96)]]
    # t is dead when u is made, so they share a place, and u finds it as t left it
    program = Program("p", buffers, (step(0, 1), step(1, 3), step(0, 2), step(2, 3)), ())
    distances = [[d for _, d in arrays] for arrays in reuse(program, {"N": 4})]
    assert distances == [[64, 32], [32, 64], [64, 32], [32, 64]]


def test_peaks_are_measured_for_the_types_asked_for():
    peaks = measure(1, ["f64", "f32"])
    assert list(peaks.flops) == ["f32", "f64"] and all(rate > 0 for rate in peaks.flops.values())
    counts = [count for count, _ in peaks.bandwidth]
    assert counts == sorted(counts) and all(rate > 0 for _, rate in peaks.bandwidth)


def test_a_float64_model_is_compared_with_the_peak_of_float64():
    found = profile(gc.compile(mixed, dtype="float64")._only(), "forward", given(), runs=2)
    assert "f64" in found.peaks.flops
    product = next(t for t in found.timings if t.instruction.kernel == "gemm_f64")
    arrays = reuse(found.program, found.sizes)[product.steps[0] - 1]
    assert product.least == found.peaks.least(product.operations, arrays, "f64")[0]


# -- what it leaves alone, and what it refuses -----------------------------------------------------------------------
def test_inputs_and_parameters_stay_as_they_are():
    model, inputs = gc.compile(mixed), given()
    before = {n: a.copy() for n, a in {**inputs, **model.params}.items()}
    for array in inputs.values():
        array.flags.writeable = False
    profile(model._only(), "gradient", {n: a[:] for n, a in inputs.items()}, runs=3)
    for name, array in {**inputs, **model.params}.items():
        np.testing.assert_array_equal(array, before[name])


def test_inputs_may_be_lists_and_arrays_of_any_order():
    inputs = given(2)
    profile(gc.compile(mixed)._only(), "forward", dict(x=np.asfortranarray(inputs["x"]), word=[1, 2]), runs=2)


@pytest.mark.parametrize("target", ["numpy", "cuda"])
def test_only_the_cpu_can_be_timed(target):
    with pytest.raises(InputError, match="mixed is not compiled for the CPU, whose kernels alone can be timed"):
        profile(gc.compile(mixed, target=target)._only(), "forward", given())


def test_wrong_inputs_are_refused_as_by_a_call():
    entry = gc.compile(mixed)._only()
    with pytest.raises(RuntimeFault, match="the index 9 is out of range for an axis of length 9"):
        profile(entry, "forward", dict(given(2), word=[0, 9]))
    with pytest.raises(InputError, match="there is no input 'nothing'"):
        profile(entry, "forward", dict(given(2), nothing=1.0))
    with pytest.raises(InputError, match="has the shape"):
        profile(entry, "gradient", dict(x=np.ones((2, 48)), word=[0, 1, 2]))


def test_a_system_without_a_clock_is_refused(monkeypatch):
    timeline._clock.cache_clear()
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    with pytest.raises(RuntimeFault, match="kernels cannot be timed on this system"):
        timeline._clock()


@pytest.mark.parametrize(
    "seconds, text", [(2.5, "2.50 s"), (0.0123, "12.30 ms"), (2.345e-6, "2.35 µs"), (4.4e-9, "4 ns"), (0.0, "0 ns")]
)
def test_times_are_told_in_a_unit_that_suits(seconds, text):
    assert time_text(seconds) == text


