"""tools/bench: what it compares, measures and writes, and what it says when something is wrong."""
import dataclasses
import importlib.util
import itertools
import json
import math
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from tools.benchmarks import bench, children, measure, report, targets, worker, workload, yardsticks
from tools.benchmarks.case import Case, FirstCall, chosen
from tools.benchmarks.cases import CASES, GROUPS
from tools.benchmarks.cases.networks import EXPRESSION, MLP, MLP_STEP
from tools.benchmarks.cases.products import FORMS, Product
from tools.benchmarks.peers import PEERS, Peer
from tools.benchmarks.results import Figures, Record, Result, record_from, to_json

ROOT = Path(__file__).resolve().parents[2]
QUICK = (0.01, (3, 3))  # seconds and rounds of a case


@pytest.fixture(autouse=True)
def kernels(monkeypatch, tmp_path_factory):
    monkeypatch.setenv("GRAPHC_CACHE_DIR", str(tmp_path_factory.getbasetemp() / "bench-kernels"))


# ------------------------------------------------------------------------------------------------------- the command

def test_a_quick_run_of_one_case_prints_figures_and_writes_nothing(tmp_path):
    page = ROOT / "docs" / report.PAGE
    before = page.read_bytes() if page.exists() else None
    figures = tmp_path / "figures.json"
    r = subprocess.run([sys.executable, str(ROOT / "tools" / "bench"), "expression", "--quick", "--no-write", "--threads",
                        "1", "--peers", "numpy", "--json", str(figures)], capture_output=True, text=True)
    assert r.returncode == 0, r.stderr
    assert "expression, 1 thread: L = c(a + 2b)" in r.stdout and "must reach: within 2.00 µs; reached: " in r.stdout
    record = record_from(json.loads(figures.read_text("utf-8")))
    ours = record.find("expression", 1).figures["graphc"]
    assert 0 < ours.low <= ours.median <= ours.high and record.quick
    assert (page.read_bytes() if page.exists() else None) == before


def test_list_names_every_case_and_target(capsys):
    assert bench.main(["--list"]) == 0
    listed = capsys.readouterr().out
    assert all(f"  {case.name} " in listed and case.what in listed for case in CASES)
    assert "85 % of peak on 1 core" in listed and "80 % of peak on several cores" in listed


@pytest.mark.parametrize("arguments, said", [
    (["nonsense"], "there is no case 'nonsense': tools/bench --list shows them"),
    (["--threads", "0"], "--threads 0: a number of threads is 1 to "),
    (["--threads", "one"], "--threads one: a number of threads is 1 to "),
    (["--peers", "torhc"], "--peers torhc: there is no peer 'torhc': one of graphc, openblas, numpy, torch"),
])
def test_mistakes_are_explained(arguments, said, capsys):
    assert bench.main(arguments) == 2
    assert f"tools/bench: {said}" in capsys.readouterr().err


def test_cases_are_chosen_by_name_group_and_pattern():
    def names(*patterns):
        return [case.name for case in chosen(CASES, patterns)]
    assert names("mlp") == ["mlp/gradient", "mlp/step"]
    assert names("chain/forward", "mlp/step") == ["mlp/step", "chain/forward"]
    assert len(names("product/*/tt")) == 11 and names() == [case.name for case in CASES]
    with pytest.raises(LookupError, match="there is no case 'ml'"):
        chosen(CASES, ["ml"])


def test_peers_that_are_not_installed_are_named_and_left_out(monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in ("torch", "jax") else found(name))
    peers, missing = bench.peers_of(None)
    assert "graphc" in peers and "numpy" in peers and "torch" not in peers
    assert missing == {"torch": "torch is not installed", "torch.compile": "torch is not installed",
                       "jax": "jax is not installed"}


# --------------------------------------------------------------------------------------------------------- agreement

class ByHand(Peer):
    """L = c(a + 2b) and its derivatives, with the gradient by b off by a factor."""

    def __init__(self, factor):
        super().__init__("torch", "numpy", ())
        self.factor = factor

    def prepare(self, model, params, data):
        def call():
            a, b, c = params["a"], params["b"], params["c"]
            return {"loss": c * (a + 2 * b), "a": c, "b": 2 * c * np.float32(self.factor), "c": a + 2 * b}
        return workload.Run(call, dict)


def one(case, peers, threads=1):
    return worker.one_speed(case, threads, peers, *QUICK)


EXPRESSION_CASE = Case("expression", "L", EXPRESSION)


def test_a_peer_that_agrees_is_timed(monkeypatch):
    monkeypatch.setitem(PEERS, "torch", ByHand(1.0))
    result = one(EXPRESSION_CASE, ["graphc", "torch"])
    assert result["error"] is None and result["skipped"] == {}
    assert set(result["figures"]) == {"graphc", "torch"}
    assert result["figures"]["torch"]["ratio"] > 0 and result["figures"]["graphc"]["ratio"] is None


def test_a_perturbed_gradient_fails_the_case(monkeypatch):
    monkeypatch.setitem(PEERS, "torch", ByHand(1.001))
    result = one(EXPRESSION_CASE, ["graphc", "torch"])
    assert result["figures"] == {}
    assert result["error"].startswith("torch and graphc disagree on b: ‖difference‖/‖value‖ is 1.00e-03")


def test_a_peer_that_cannot_is_left_out_with_its_reason(monkeypatch):
    class Fails(ByHand):
        def prepare(self, model, params, data):
            raise RuntimeError("no C++ compiler\nand a long story")
    monkeypatch.setitem(PEERS, "torch", Fails(1.0))
    result = one(EXPRESSION_CASE, ["graphc", "torch"])
    assert result["skipped"] == {"torch": "RuntimeError: no C++ compiler"} and set(result["figures"]) == {"graphc"}


@pytest.mark.parametrize("value, said", [
    ({"y": np.ones(3)}, None),
    ({"y": np.ones(3) + 1e-6}, None),
    ({"y": np.array([1, 1, 1.01])}, "disagree on y"),
    ({"y": np.array([1, 1, np.nan])}, "is inf"),
    ({"y": np.ones((3, 1))}, "is inf"),
    ({"z": np.ones(3)}, "peer gives z, and graphc y"),
])
def test_agreement_on_edge_inputs(value, said):
    if said is None:
        measure.agree("peer", value, {"y": np.ones(3)}, 1e-4)
    else:
        with pytest.raises(measure.Disagreement, match=said):
            measure.agree("peer", value, {"y": np.ones(3)}, 1e-4)


@pytest.mark.parametrize("form", [*FORMS, "packed"])
@pytest.mark.parametrize("size", [(7, 5, 3), (1, 12, 8), (20, 17, 33)])
def test_products_of_every_form_agree_with_numpy_and_openblas(size, form):
    product = Product(*size, form)
    a, b, _ = product.arrays()
    want = np.matmul(*(x.astype(np.float64) for x in product.turned(a, b)))
    for name in ("graphc", "numpy", "openblas"):
        got = measure.outputs(product.prepare(name, 1))
        assert got["c"].shape == (size[0], size[1])
        np.testing.assert_allclose(got["c"], want, rtol=1e-4, atol=1e-5)


def test_openblas_has_threads_of_its_own():
    """graphc keeps its own OpenBLAS to one thread: the competitor is another library."""
    from graphc.runtime import blas

    peer = type(PEERS["openblas"])()
    peer.start(2)
    assert peer.library().scipy_openblas_get_num_threads() == min(2, os.cpu_count() or 1)
    assert blas.library().scipy_openblas_get_num_threads() == 1


@pytest.mark.slow
@pytest.mark.parametrize("library, names", [("torch", ["torch"]), ("jax", ["jax"])])
def test_the_peers_compute_the_same(library, names):
    pytest.importorskip(library)
    small = [dataclasses.replace(case.workload, rows=4) for case in CASES
             if case.name in ("mlp/gradient", "mlp/step", "expression", "layer_norm", "cross_entropy/2048x96")]
    assert len(small) == 5
    for model in small:
        result = one(Case("small", "", model), ["graphc", *names])
        assert result["error"] is None and result["skipped"] == {} and set(result["figures"]) == {"graphc", *names}


# --------------------------------------------------------------------------------------------------------- measuring

def test_everyone_has_one_block_a_round_and_begins_in_turn(monkeypatch):
    order = []
    monkeypatch.setattr(measure, "BLOCK_SECONDS", 0.0)
    times = measure.in_turns({name: lambda name=name: order.append(name) for name in "abc"}, 0.0, rounds=(3, 3))
    assert {name: len(values) for name, values in times.items()} == {"a": 3, "b": 3, "c": 3}
    assert "".join(order[-18:]) == "aabbccbbccaaccaabb"  # each block follows a call that is not timed


@pytest.mark.skipif(not measure.TASKS.exists(), reason="Linux tells what threads do")
def test_rest_waits_for_threads_that_spin():
    function, _, _ = yardsticks._multiply_add()
    iterations, begin = 100_000, time.perf_counter()
    function(iterations, 0.5, 1.0)
    often = int(0.1 / (time.perf_counter() - begin)) + 1
    ended = []

    def spin():
        function(iterations * often, 0.5, 1.0)  # which does not hold Python's lock
        ended.append(True)

    thread = threading.Thread(target=spin)
    thread.start()
    measure.rest()
    assert ended
    thread.join()
    begin = time.perf_counter()
    measure.rest()
    assert time.perf_counter() - begin < measure.REST_LIMIT / 2


def test_figures_are_medians_of_ratios_within_a_round():
    figures = Figures.of([2.0, 40.0, 6.0], own=[2.0, 4.0, 1.0], ideal=[1.0, 10.0, 6.0])
    assert (figures.median, figures.ratio, figures.share) == (6.0, 6.0, 0.5)
    assert (figures.low, figures.high) == (4.0, 23.0)


def test_rounds_that_do_not_count():
    nan = float("nan")
    figures = Figures.of([2.0, nan, 6.0, nan], own=[2.0, 4.0, nan, nan], ideal=[1.0, 10.0, 6.0, nan])
    assert (figures.median, figures.ratio, figures.share, figures.left_out) == (4.0, 1.0, 0.75, 0.5)
    assert Figures.of([2.0, nan], own=[nan, 1.0]).ratio is None


@pytest.mark.parametrize("disturbed, rounds, counting", [
    ([], 3, 3),                    # nothing is
    ([1], 4, 3),                   # before the first block: it is tried in another round
    ([2], 4, 3),                   # after it
    (range(1, 100), 6, 6),         # always: then all count
])  # fmt: skip
def test_disturbed_blocks_do_not_count_and_others_are_tried(monkeypatch, disturbed, rounds, counting):
    monkeypatch.setattr(measure, "rest", lambda: None)
    asked = itertools.count(1)
    times = measure.in_turns({"a": lambda: None, "b": lambda: None}, 0.0, True, (3, 3),
                             lambda: next(asked) not in disturbed)
    assert all(len(values) == rounds for values in times.values())
    assert min(sum(not math.isnan(t) for t in values) for values in times.values()) == counting


def test_cores_that_are_not_there_are_noticed(monkeypatch):
    cores = yardsticks.Cores(2)
    cores.alone = 1e-3
    for taken, there in (([1.1e-3, 1.05e-3], True), ([1.1e-3, 2e-3], False), ([1.2e-3, 1.2e-3], False)):
        left = list(taken)
        monkeypatch.setattr(cores, "_seconds", lambda left=left: left.pop())
        assert cores.all_there() is there
    monkeypatch.setattr(cores, "_seconds", lambda: 0.5e-3)
    assert cores.all_there() and cores.alone == 0.5e-3  # it was no core alone that was measured first


def test_the_peak_counts_its_operations():
    one_core, operations = yardsticks.peak_call()
    assert np.isfinite(one_core())
    call, scale = yardsticks.Peak(operations / 4).prepare(1)
    assert scale == 0.25 and callable(call)


def test_the_peak_of_several_threads_is_so_many_times_that_of_one():
    _, operations = yardsticks.peak_call()
    for threads in (2, 5):
        assert yardsticks.Peak(operations).prepare(threads)[1] == 1 / threads


def test_copying_goes_through_memory_on_every_number_of_threads(monkeypatch):
    monkeypatch.setattr(yardsticks, "beyond_the_caches", lambda: 4004)
    copied = []
    monkeypatch.setattr(np, "copyto", lambda target, source: copied.append((target.size, source.size)))
    for threads in (1, 2, 3):
        call, scale = yardsticks.Copy(1001).prepare(threads)
        copied.clear()
        call()
        turns = 1 if threads == 1 else yardsticks.TURNS
        assert sum(target for target, _ in copied) == sum(source for _, source in copied) == 4004 * turns
        assert scale == 0.25 / turns  # the case needs a quarter of what is copied in a turn


def test_what_is_copied_does_not_fit_into_the_caches(tmp_path, monkeypatch):
    for number, text in enumerate(["48K", "32K", "1024K", "32768K"]):
        (tmp_path / f"index{number}").mkdir()
        (tmp_path / f"index{number}" / "size").write_text(text + "\n")
    monkeypatch.setattr(yardsticks, "CACHES", tmp_path)
    yardsticks.beyond_the_caches.cache_clear()
    assert 4 * yardsticks.beyond_the_caches() == 4 * 32 << 20
    monkeypatch.setattr(yardsticks, "CACHES", tmp_path / "nowhere")
    yardsticks.beyond_the_caches.cache_clear()
    assert 4 * yardsticks.beyond_the_caches() == 4 * yardsticks.USUAL_CACHE
    yardsticks.beyond_the_caches.cache_clear()


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="cores cannot be chosen here")
def test_each_thread_of_a_yardstick_has_a_core_of_its_own():
    cores, where = sorted(os.sched_getaffinity(0)), []

    def note():
        where.append(tuple(os.sched_getaffinity(0)))
        time.sleep(0.002)  # so that each thread has its share

    call, turns = yardsticks.side_by_side([note] * len(cores))
    call()
    assert len(where) == turns * len(cores)
    assert set(where) == ({(core,) for core in cores} if len(cores) > 1 else {tuple(cores)})


def test_children_choose_their_own_kernels(monkeypatch):
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    monkeypatch.setenv("OPENBLAS_L2_SIZE", "512")
    found = children.environment(2, EXTRA="1")
    assert "OPENBLAS_CORETYPE" not in found and "OPENBLAS_L2_SIZE" not in found
    assert found["GRAPHC_NUM_THREADS"] == found["OMP_NUM_THREADS"] == "2" and found["EXTRA"] == "1"
    assert os.environ["OPENBLAS_CORETYPE"] == "Haswell"


def test_a_child_that_fails_says_why():
    with pytest.raises(children.ChildError, match="KeyError: 'nonsense'"):
        list(children.child("nonsense", 1))


def test_a_case_that_ends_the_process_does_not_take_the_others_with_it(monkeypatch):
    asked = []

    def child(task, threads, cases, **request):
        asked.append(list(cases))
        for name in cases:
            yield {"case": name}
            if name == "mlp/step":
                raise children.ChildError("the process was ended by signal 11")
            yield to_json(Result(name, threads, {"graphc": Figures(1.0, 1.0, 1.0)}))
    monkeypatch.setattr(children, "child", child)
    cases = chosen(CASES, ["mlp", "expression"])
    results = children.speeds(cases, 1, ["graphc"], True, lambda text: None)
    assert asked == [["mlp/gradient", "mlp/step", "expression"], ["expression"]]
    assert [(r.case, r.error) for r in results] == [
        ("mlp/gradient", None), ("mlp/step", "the process was ended by signal 11"), ("expression", None)]


def test_a_first_call_alone_counts_kernels_and_imports(monkeypatch):
    (case,) = chosen(CASES, ["compile/second_process"])
    asked = []

    def child(task, threads, extra=None, **request):
        asked.append((task, request["imports"], request["other"]))
        folder = Path(extra["GRAPHC_CACHE_DIR"])
        folder.mkdir(exist_ok=True)
        (folder / "kernel.o").write_bytes(b"")
        yield {"imports": 0.25, "first": 0.5}
    monkeypatch.setattr(children, "child", child)
    result = children.alone(case, 1, ["graphc"], True, lambda text: None)
    assert result.figures["graphc"] == Figures(0.75, 0.75, 0.75, extra={"imports": 0.25, "kernels": 1.0})
    # what only the compiler needs is loaded before the clock starts, but not where the whole process is timed
    assert "sympy" in asked[0][1] and asked[1] == ("first", ["numpy", "graphc"], False)


# ----------------------------------------------------------------------------------------------- targets and reports

def results(*items, **options):
    return Record({"processor": "a processor", "cores": "2", "system": "Linux", "Python": "3.11.0", "date": "2024-02-29",
                   "peak": "260 GFLOP/s a core", "copy": "20.0 GB/s on one core", "load before": "0.0"},
                  {"graphc": "0.1.0", "torch": "2.4"}, {"jax": "jax is not installed"}, items, **options)


RECORD = results(
    Result("product/512x512x512/nn", 1, {"graphc": Figures(1.1e-3, 1.0e-3, 1.2e-3, None, 0.9),
                                         "torch": Figures(2.2e-3, 2.1e-3, 2.3e-3, 2.0, 0.45)}),
    Result("product/512x512x512/nn", 2, {"graphc": Figures(1.0e-3, 1.0e-3, 1.2e-3, None, 0.5)}),
    Result("mlp/gradient", 1, {"graphc": Figures(395e-6, 380e-6, 410e-6), "torch": Figures(711e-6, 7e-4, 8e-4, 1.8)},
           {"torch.compile": "RuntimeError: no C++ compiler"}),
    Result("mlp/step", 1, error="jax and graphc disagree on loss"),
    Result("compile/4_layers", 2, {"graphc": Figures(1.0, 0.9, 1.1, extra={"imports": 0.5, "kernels": 6.0})}),
    Result("compile/64_layers", 2, {"graphc": Figures(2.5, 2.4, 2.6, extra={"imports": 0.5, "kernels": 6.0})}),
    Result("memory/step", 2, {"graphc": Figures(99e6, 98e6, 1e8, extra={"whole": 3e8}),
                              "torch": Figures(144e6, 144e6, 144e6, 1.45, extra={"whole": 5e8})}))


def test_the_page_shows_targets_with_what_was_reached():
    lines = report.page(RECORD).splitlines()
    for line in (
        "| `product/512x512x512/nn` | 1 | 85 % of peak on 1 core | 90 % | met |",
        "| `product/512x512x512/nn` | 2 | 80 % of peak on several cores | 50 % | **not met** |",
        "| `mlp/gradient` | 1 | 1.2× as fast as jax | not measured | — |",
        "| `mlp/gradient` | 1 | 2× as fast as torch | 1.80× | **not met** |",
        "| `compile/64_layers` | 2 | as many kernels as compile/4_layers | as many | met |",
        "| `compile/64_layers` | 2 | at most 2 times compile/4_layers | 2.50× | **not met** |",
        "| `memory/step` | 2 | at most torch's memory | 0.69× | met |",
        "3 of 9 targets are met.",
    ):
        assert line in lines, line


def test_the_page_shows_figures_failures_and_what_was_left_out():
    text = report.page(RECORD, [("pictures/benchmarks.svg", "ratios")])
    for part in (
        "| case | threads | graphc | GFLOP/s | of the peak | torch |\n| --- | ---: | ---: | ---: | ---: | ---: |",
        "512×512 by 512×512 | 1 | 1.10 ms<br>[1.00–1.20 ms] | 244.0 | 90 % | 2.20 ms, **2.00×**<br>[2.10–2.30 ms] |",
        "| 395 µs<br>[380–410 µs] | 711 µs, **1.80×**<br>[700–800 µs] |",
        "| failed: jax and graphc disagree on loss |",
        "- `torch.compile` took no part everywhere: RuntimeError: no C++ compiler",
        "| 99 MB<br>[98–100 MB] | 300 MB | 144 MB, **1.45×**<br>[144–144 MB] |",
        "| 2.50 s<br>[2.40–2.60 s] | 500 ms | 6 |",
        "graphc 0.1.0, torch 2.4. ", "Not there: jax (jax is not installed).", "![ratios](pictures/benchmarks.svg)",
    ):
        assert part in text, part
    assert all(f"## {title}" in text for title in ("Matrix products", "Networks", "Compile time", "Memory"))
    assert "## Elementwise chains" not in text  # nothing was measured there
    # every row of a table has as many columns as its head
    tables = [block.splitlines() for block in text.split("\n\n") if block.startswith("| ")]
    assert tables and all(len({line.count(" | ") for line in lines}) == 1 for lines in tables)


def test_the_terminal_shows_the_same():
    text = report.plain(RECORD, CASES)
    assert "product/512x512x512/nn, 2 threads: 512×512 by 512×512\n" in text
    assert "  torch             2.20 ms  [2.10–2.30 ms]         2.00×   122.0 GFLOP/s   45 % of peak\n" in text
    assert "  FAILED: jax and graphc disagree on loss\n" in text
    assert "  must reach: 80 % of peak on several cores; reached: 50 %  NOT MET\n" in text
    assert text.endswith("3 of 9 targets met")


def test_figures_survive_json():
    assert record_from(json.loads(json.dumps(to_json(RECORD)))) == RECORD


def test_pictures_are_drawn_and_the_page_shows_them(tmp_path):
    pytest.importorskip("matplotlib")
    written = report.write(RECORD, tmp_path)
    assert [p.relative_to(tmp_path).as_posix() for p in written] == [
        "benchmarks.md", "pictures/benchmarks.svg", "pictures/benchmarks-products.svg"]
    first = written[1].read_text("utf-8")
    assert "mlp/gradient, 1" in first and "<svg" in first
    assert "(pictures/benchmarks-products.svg)" in written[0].read_text("utf-8")
    report.write(RECORD, tmp_path)
    assert written[1].read_text("utf-8") == first


def test_a_picture_of_nothing_is_not_drawn(tmp_path):
    pytest.importorskip("matplotlib")
    assert report.write(results(), tmp_path) == [tmp_path / "benchmarks.md"]
    assert "![" not in (tmp_path / "benchmarks.md").read_text("utf-8")


@pytest.mark.parametrize("target, figures, met", [
    (targets.within(2e-6), {"graphc": Figures(2e-6, 0, 0)}, True),
    (targets.within(2e-6), {"graphc": Figures(2.1e-6, 0, 0)}, False),
    (targets.within(2e-6), {}, None),
    (targets.faster("jax", 1.2), {"jax": Figures(1, 0, 0, 1.2)}, True),
    (targets.faster("jax", 1.2), {"jax": Figures(1, 0, 0, 1.19)}, False),
    (targets.not_slower("openblas", "torch"), {"openblas": Figures(1, 0, 0, 2.0), "torch": Figures(1, 0, 0, 0.9)}, False),
    (targets.not_slower("openblas", "torch"), {"openblas": Figures(1, 0, 0, 1.0)}, True),
    (targets.no_more_than("torch", "memory"), {"graphc": Figures(2, 0, 0), "torch": Figures(1, 0, 0)}, False),
])
def test_targets(target, figures, met):
    result = Result("case", 1, figures)
    assert target.verdict(results(result), result).met is met


@pytest.mark.parametrize("seconds, said", [(12.3, "12.3 s"), (1.0, "1.00 s"), (0.9999, "1.00 s"), (123e-6, "123 µs"),
                                           (999.9e-9, "1.00 µs"), (350e-9, "350 ns")])
def test_durations(seconds, said):
    assert targets.duration(seconds) == said


# ----------------------------------------------------------------------------------------------------------- the cases

def test_cases_are_well_formed():
    names = [case.name for case in CASES]
    assert len(set(names)) == len(names)
    assert {case.name.split("/")[0] for cases in GROUPS.values() for case in cases} >= {"product", "mlp", "compile"}
    for case in CASES:
        assert set(case.workload.competitors) <= set(PEERS) and case.workload.competitors[0] == "graphc"
        if isinstance(case.measure, FirstCall):
            assert (case.measure.other is not None) == (case.measure.before == "other")


def test_every_competitor_gets_the_same_arrays():
    for model in (MLP, MLP_STEP):
        (params, data), (again, once_more) = model.arrays(), model.arrays()
        assert all((params[n] == again[n]).all() for n in params) and all((data[n] == once_more[n]).all() for n in data)
        assert model.arrays(rows=3)[1]["x"].shape == (3, 784)
