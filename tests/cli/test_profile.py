"""`graphc profile`: the table, the JSON document, the picture, where inputs come from, and what is refused."""
import json
import re
import shutil

import numpy as np
import pytest

from graphc.cli import main, sample
from graphc.cli.source import read
from graphc.pipeline import Options
from graphc.train import SGD

TEXT = '''
import numpy as np

import graphc as gc

training = dict(batch_size=24, optimizer="sgd", lr=0.1)


@gc.model
def words(word: gc.i64["B", "T"], y: gc.f32["B", 8]):
    e = gc.mean(gc.take(gc.param("E", (11, 8)), word), axis=1)
    y_hat = gc.tanh(gc.nn.linear(gc.tanh(gc.nn.linear(e, 8, name="first")), 8, name="second"))
    return gc.outputs(y_hat=y_hat, loss=gc.nn.mse(y_hat, y))
'''
DATA = '''

def data(rows: int = 30):
    rng = np.random.default_rng(0)
    return gc.Dataset(train=dict(word=rng.integers(0, 11, (rows, 5)), y=rng.random((rows, 8))))
'''


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Run `graphc profile` on the model file words.py, or data.py that has data(): (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "words.py").write_text(TEXT)
    (tmp_path / "data.py").write_text(TEXT + DATA)

    def call(*arguments):
        capsys.readouterr()
        code = main(["profile", *map(str, arguments)])
        return (code, *capsys.readouterr())
    return call


def ok(result):
    code, out, err = result
    assert code == 0, err
    return out


def refused(result, *facts):
    code, out, err = result
    assert code == 2 and out == "", (code, out, err)
    for fact in facts:
        assert fact in err, err


QUICK = ("--repeat", 3, "--threads", 1)
SIZED = ("--size", "B=4", "--size", "T=3", *QUICK)


# -- the table -------------------------------------------------------------------------------------------------------
def test_the_table_tells_of_each_kernel_in_a_hundred_columns(run):
    out = ok(run("words.py", *SIZED))
    lines = out.splitlines()
    assert max(map(len, lines)) <= 100
    assert lines[0] == "words: the gradient program; B = 4, T = 3, 1 thread, 3 runs"
    assert lines[2].split() == ["#", "kernel", "time", "share", "FLOP", "GFLOP/s", "bytes", "GB/s", "of", "peak"]
    rows = [line for line in lines if re.match(r" +\d+  \w", line)]
    facts = json.loads(ok(run("words.py", *SIZED, "--json")))
    assert [r.split()[1] for r in rows] == [k["kernel"] for k in facts["kernels"]]
    assert all(re.search(r"\d (ns|µs|ms) +\d+\.\d%.*\d% (compute|cache|memory)$", r) for r in rows)
    shares = [float(re.search(r"([\d.]+)%", r)[1]) for r in rows]
    assert sum(shares) == pytest.approx(100, abs=0.1 * len(rows))
    assert "0 ≤ word < 11  words.py:11" in out and "Σ_k" in out and "words.py:12 first" in out
    for fact in ("all kernels", "the program", "a call", "memory", "peaks here", "FLOP/s in f32", "232 numbers"):
        assert fact in out


def test_equal_kernels_are_merged_on_request(run):
    out = ok(run("words.py", *SIZED, "--merge"))
    assert re.search(r"gemm_f32 × \d", out)
    rows = json.loads(ok(run("words.py", *SIZED, "--merge", "--json")))["kernels"]
    assert any(r["calls"] == len(r["steps"]) > 1 for r in rows)
    assert [r["seconds"] for r in rows] == sorted((r["seconds"] for r in rows), reverse=True)


@pytest.mark.parametrize("program", ["forward", "gradient", "step"])
def test_each_program_can_be_timed(run, program):
    facts = json.loads(ok(run("words.py", *SIZED, "--program", program, "--json")))
    assert facts["program"] == program and facts["kernels"]
    entry = read("words.py").compilation(Options(), SGD(lr=0.1)).model()._only()
    assert [k["kernel"] for k in facts["kernels"]] == [i.kernel for i in entry.program(program).instructions]


def test_the_document_has_all_numbers(run):
    facts = json.loads(ok(run("words.py", *SIZED, "--json", "--dtype", "float64")))
    assert facts["model"] == "words" and facts["sizes"] == {"B": 4, "T": 3}
    assert (facts["threads"], facts["runs"], facts["parameters"]) == (1, 3, 11 * 8 + 2 * (8 * 8 + 8))
    assert facts["bytes"]["parameters"] == 8 * facts["parameters"] and facts["bytes"]["temporaries"] > 0
    assert all(seconds > 0 for seconds in facts["seconds"].values())
    assert facts["seconds"]["kernels"] == pytest.approx(sum(k["seconds"] for k in facts["kernels"]))
    assert sum(k["share"] for k in facts["kernels"]) == pytest.approx(1)
    for k in facts["kernels"]:
        assert k["seconds"] > 0 and k["bytes"] > 0 and k["calls"] == k["parts"] == 1 and k["formulas"] and k["lines"]
        assert k["operations_per_second"] == pytest.approx(k["operations"] / k["seconds"])
        assert k["bytes_per_second"] == pytest.approx(k["bytes"] / k["seconds"])
        assert k["peak"] >= 0 and k["bound"] in ("compute", "cache", "memory")
    assert facts["peaks"]["operations_per_second"]["f64"] > 0 and len(facts["peaks"]["bytes_per_second"]) > 3


# -- the picture -----------------------------------------------------------------------------------------------------
def test_the_picture_tells_the_time_of_each_kernel(run, tmp_path):
    out = ok(run("words.py", *SIZED, "-o", "words.dot"))
    assert "the picture is words.dot" in out
    text = (tmp_path / "words.dot").read_text()
    kernels = sum(1 for line in out.splitlines() if re.match(r" +\d+  \w", line))
    assert len(re.findall(r"\d (?:ns|µs|ms), [\d.]+% of the time", text)) == kernels
    assert len(re.findall(r"\d+% of peak \((?:compute|cache|memory)\)", text)) == kernels
    assert "the darker, the more of the time" in text and "B = 4, T = 3, 1 thread" in text
    fills = re.findall(r'fillcolor="(#\w+)".*of the time', text)
    assert len(fills) == kernels and len(set(fills)) > 3


@pytest.mark.skipif(shutil.which("dot") is None, reason="Graphviz is not installed")
def test_the_picture_is_drawn(run, tmp_path):
    ok(run("words.py", *SIZED, "-o", "words.svg"))
    assert "of the time" in (tmp_path / "words.svg").read_text()


# -- inputs ----------------------------------------------------------------------------------------------------------
def test_inputs_are_a_batch_of_the_data_unless_sizes_are_given(run):
    assert json.loads(ok(run("data.py", *QUICK, "--json", "--model", "words")))["sizes"] == {"B": 24, "T": 5}
    assert json.loads(ok(run("data.py", *QUICK, "--json", "--set", "rows=7")))["sizes"] == {"B": 7, "T": 5}
    assert json.loads(ok(run("data.py", *QUICK, "--json", "--size", "T=2")))["sizes"] == {"B": 24, "T": 2}


MODEL = '''
import graphc as gc


@gc.model
def m(x: gc.f32["B", "D", "E"], i: gc.i64["B"], j: gc.i64["B", 2], k: gc.i32["B"], flag: gc.bool_["B"]):
    W = gc.param("W", (6,))
    y = gc.sum(x, axis=2) * W
    a = gc.take(gc.param("P", (7,)), i) + gc.sum(gc.take(gc.param("Q", (3,)), j + 0), axis=1)
    return gc.outputs(y=y, a=gc.where(flag, a, 0.0), k=k)
'''


@pytest.fixture
def compiled(tmp_path):
    (tmp_path / "m.py").write_text(MODEL)
    return read(tmp_path / "m.py").compilation(Options()).model()


def test_sizes_not_given_are_the_batch_and_what_guards_say(compiled):
    entry = compiled._only()
    inputs, program = entry.signature.inputs, entry.program("forward")
    assert sample.names_of(inputs) == ["B", "D", "E"]
    assert sample.completed({"E": 4}, inputs, program, 32) == {"E": 4, "B": 32, "D": 6}
    assert sample.completed({"E": 4, "B": 5, "D": 9}, inputs, program, 32)["D"] == 9  # what is given is left to the call


def test_what_is_drawn_fits_its_declaration(compiled):
    inputs = compiled._only().signature.inputs
    sizes = {"B": 500, "D": 6, "E": 2}
    drawn = sample.drawn(inputs, compiled.graph, sizes)
    for d in inputs:
        assert drawn[d.name].dtype == d.dtype.numpy
        assert drawn[d.name].shape == tuple(e.evaluate(sizes) for e in d.shape)
    assert set(drawn["i"]) == set(range(7)) and set(drawn["j"].ravel()) == set(range(3))
    assert set(drawn["flag"]) == {False, True} and set(drawn["k"]) <= set(range(3))
    assert 0 <= drawn["x"].min() < drawn["x"].max() < 1
    compiled.forward(**drawn)
    assert all(np.array_equal(a, sample.drawn(inputs, compiled.graph, sizes)[n]) for n, a in drawn.items())


RAGGED = """
import graphc as gc


@gc.model
def m(x: gc.i64["B", "T"], n: gc.i32["B"], y: gc.i64["B", "T"]):
    e = gc.take(gc.param("E", (9, 4)), gc.where(y > 0, x + 1, 2))
    hs, _ = gc.nn.gru(e, 4, lengths=n, name="cell")
    before = gc.concat([gc.full((gc.dim("B"), 1), 1, gc.i64), y[:, :-1]], axis=1)
    table = gc.param("F", (5, 4))
    last, _ = gc.scan(lambda h, i: (h + gc.take(table, 4 - i), None), init=gc.zeros((gc.dim("B"), 4)), xs=before, axis=1)
    return gc.outputs(loss=gc.mean(hs * hs) + gc.mean(last))
"""


@pytest.mark.parametrize("steps", [1, 2, 13])
def test_lengths_and_indices_that_are_computed_with_fit(tmp_path, steps):
    (tmp_path / "m.py").write_text(RAGGED)
    compiled = read(tmp_path / "m.py").compilation(Options()).model()
    sizes = {"B": 200, "T": steps}
    drawn = sample.drawn(compiled._only().signature.inputs, compiled.graph, sizes)
    assert set(drawn["n"]) == set(range(1, steps + 1))
    assert set(drawn["x"].ravel()) == set(range(-1, 8))
    assert set(drawn["y"].ravel()) == set(range(5))
    compiled.value_and_grad(**drawn)


# -- what is refused -------------------------------------------------------------------------------------------------
def test_wrong_sizes_are_refused(run):
    refused(run("words.py", *QUICK), "the size T of word: i64[B, T] must be given", "--size T=NUMBER")
    refused(run("words.py", "--size", "batch=4"), "--size batch=4: the model has no size 'batch'", "there are: B, T")
    refused(run("words.py", "--size", "b=4", "--size", "T=0"), "no size 'b'", "'0' is no size", "write --size T=NUMBER")
    refused(run("words.py", "--size", "T"), "'' is no size")
    refused(run("words.py", "--size", "T=1.5"), "'1.5' is no size")


def test_sizes_that_the_model_cannot_take_are_refused_as_by_a_call(run, tmp_path):
    (tmp_path / "m.py").write_text(MODEL)
    refused(run("m.py", "--size", "E=2", "--size", "D=9", *QUICK), "D")


@pytest.mark.parametrize("target", ["numpy", "cuda"])
def test_other_targets_are_refused(run, target):
    refused(run("words.py", *SIZED, "--target", target), f"kernels of the target {target} cannot be timed", "it is cpu")


def test_other_mistakes_are_refused(run, tmp_path):
    refused(run("words.py", *SIZED, "-o", "words.gif"), "the name words.gif says no format", ".svg")
    refused(run("words.py", *SIZED, "-o", "none/words.svg"), "there is no folder none")
    (tmp_path / "two.py").write_text(TEXT + TEXT.replace("def words", "def others"))
    refused(run("two.py", *SIZED), "holds several models: words, others", "--model NAME")
    (tmp_path / "plain.py").write_text(TEXT.replace(", loss=gc.nn.mse(y_hat, y)", ""))
    refused(run("plain.py", *SIZED, "--program", "gradient"), "no output named 'loss'")
    assert json.loads(ok(run("plain.py", *SIZED, "--json")))["program"] == "forward"


def test_help_explains_the_columns(run):
    out = " ".join(ok(run("--help")).split())
    for fact in ("FLOP", "bytes", "peak", "drawn at random", "graphc profile models/digits.py"):
        assert fact in out
