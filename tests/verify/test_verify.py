"""What verification shows of rows and models, and how the command line tells it."""
from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import mpmath as mp
import numpy as np
import pytest

import graphc as gc
from graphc.cli.app import main
from graphc.frontend.model import trace_models
from graphc.graph.dtype import f32, f64
from graphc.graph.node import Node, TensorType
from graphc.graph.size import size
from graphc.ops import build
from graphc.verify import adjoints, exact, rewrites
from graphc.verify.certificate import Certificate, Finding
from graphc.verify.culprit import near
from graphc.verify.model import verify
from graphc.verify.rows import differentiable, pattern, proofs

ROOT = Path(__file__).resolve().parents[2]


# -- rows ------------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def rows():
    return {f.subject: f for f in proofs()}


@pytest.mark.parametrize("name", differentiable())
def test_a_row_is_proved_or_exact_on_every_pattern(rows, name):
    row = differentiable()[name]
    patterns = [p for p in (pattern(row, s) for s in row.samples) if p.dtype.is_float]
    assert patterns or name == "cast"
    for p in patterns:
        assert rows[adjoints.describe(p)].standing in ("PROVED", "EXACT"), rows[adjoints.describe(p)]


def test_most_are_proved(rows):
    exact_ones = {f.subject.split("(")[0] for f in rows.values() if f.standing == "EXACT"}
    assert exact_ones <= {"max", "min", "pow", "reshape"}, "these have no index form, or one that SymPy does not decide"


def test_the_list_is_printed(rows, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["list_proofs"])
    with pytest.raises(SystemExit) as done:
        runpy.run_path(str(ROOT / "tools" / "list_proofs"), run_name="__main__")
    out = capsys.readouterr().out
    assert done.value.code == 0, out
    for name in differentiable():
        assert f"  {name}(" in out or name == "cast", name


def test_what_is_not_proved_is_not_called_proved():
    """An identity that does not hold is neither proved nor exact, one with no real point neither."""
    x = Node("input", (), TensorType(f64, (size("n"),)), name="x")
    cotangent = Node("input", (), TensorType(f64, (size("n"),)), name="G")
    assert adjoints.agrees(build.make("exp", x), 0, cotangent, cotangent) is False
    assert adjoints.agrees(build.make("pow", build.const(-1.0, f64), x), 1, cotangent, cotangent) is None


# -- rewrites --------------------------------------------------------------------------------------------------------
def test_a_rewrite_of_values_that_depend_on_each_other():
    """c and ¬c stand on both sides: taken as free, the sides would differ."""
    x, a, b = (Node("input", (), TensorType(f64, ()), name=n) for n in "xab")
    c = build.make("greater", x, build.const(0, f64))
    other = build.make("logical_not", c)
    before = build.make("where", other, a, build.make("where", other, b, x))
    assert rewrites.agree(before, build.make("where", c, build.make("where", other, b, x), a)) is True
    assert rewrites.agree(before, build.make("where", c, a, build.make("where", other, b, x))) is False


def test_a_fold_is_right_to_the_precision_of_its_type():
    two = build.const(2.0, f32)
    assert rewrites.agree(build.make("sqrt", two), build.const(np.sqrt(np.float32(2)), f32)) is True
    assert rewrites.agree(build.make("sqrt", two), build.const(1.4142, f32)) is False


# -- exact arithmetic --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("spec, shapes", [("ab,bc->ac", ((2, 3), (3, 4))), ("aa->a", ((3, 3),)), ("ab,bc,cd->ad", ((2, 2), (2, 3), (3, 2))), ("a,b->", ((2,), (3,)))])
def test_contractions_are_exact(spec, shapes):
    nodes = [Node("input", (), TensorType(f64, tuple(map(size, s))), name=f"x{k}") for k, s in enumerate(shapes)]
    arrays = [np.random.default_rng(k).standard_normal(s) * 10.0 ** (8 * k) for k, s in enumerate(shapes)]
    node = build.einsum(spec, *nodes)
    got = exact.evaluate([node], dict(zip(nodes, map(exact.numbers, arrays), strict=True)), {})[node]
    np.testing.assert_allclose(got.astype(float), np.einsum(spec, *arrays), rtol=1e-12)


def test_contractions_with_infinities_and_nan():
    x, y = (Node("input", (), TensorType(f64, (size(2),)), name=n) for n in "xy")
    node = build.einsum("a,a->", x, y)
    for a, want in ((np.inf, np.inf), (np.nan, np.nan)):
        leaves = {x: exact.numbers([a, 1.0]), y: exact.numbers([2.0, 3.0])}
        assert np.array_equal(float(exact.evaluate([node], leaves, {})[node].item()), want, equal_nan=True)


def test_nearness():
    want = exact.numbers([1.0, 1000.0])
    assert near(np.array([1.0, 1000.0]), want, 1e-9)
    assert not near(np.array([1.0, 1000.1]), want, 1e-9)
    assert not near(np.array([np.nan, 1000.0]), want, 1e-9)
    assert not near(np.array([1.0, 2.0]), np.array([mp.mpc(0, 1), mp.mpf(3)], dtype=object), 1e-9), "the real ones count"
    assert near(np.array([1.0, 3.0]), np.array([mp.mpc(0, 1), mp.mpf(3)], dtype=object), 1e-9)


# -- models ----------------------------------------------------------------------------------------------------------
@gc.model
def logistic(x: gc.f32["B", 3], y: gc.f32["B"]):
    z = gc.sum(gc.nn.linear(x, 1, name="unit"), axis=1)
    return gc.outputs(p=gc.sigmoid(z), loss=gc.nn.binary_cross_entropy(z, y))


@gc.model
def embedded(i: gc.i64["N"], label: gc.i64["N"]):
    h = gc.take(gc.param("table", (5, 3)), i, axis=0)
    return gc.outputs(loss=gc.nn.cross_entropy(gc.nn.linear(gc.relu(h), 4, name="out"), label))


@gc.model
def choices(x: gc.f32["B", 4]):
    h = x * gc.param("w", (4,))
    kept = gc.where(h > 0, gc.log(gc.abs(h)), h * h)
    return gc.outputs(best=gc.argmax(h, axis=1), loss=gc.sum(gc.max(h, axis=1)) + gc.sum(gc.softmax(h) * kept))


@gc.model
def stopped(x: gc.f32["B", 2]):
    h = x @ gc.param("w", (2, 2))
    return gc.outputs(loss=gc.sum(gc.stop_gradient(h) * gc.tanh(h)))


@gc.model
def penalised(x: gc.f32["B", 2]):
    h = gc.sum(gc.gelu(x @ gc.param("w", (2, 3))))  # its derivative holds √2 and π, rounded
    (g,) = gc.grad(h, [x])
    return gc.outputs(g=g, loss=h + 0.5 * gc.sum(g * g))


@gc.model
def updated(x: gc.f32["B", 2]):
    s, p = gc.state("s", (2,), init=0.0), gc.param("p", (2,), trainable=False)
    gc.update(s, 0.9 * s + gc.mean(x, axis=0))
    gc.update(p, p - 0.1 * s)
    return gc.outputs(y=x * p)


@gc.model
def constants(x: gc.f32["B", 10]):
    return gc.outputs(y=x / gc.sqrt(gc.ones(()) * 10.0), z=gc.gelu(x))


MODELS = (logistic, embedded, choices, stopped, penalised, updated, constants)


@pytest.mark.parametrize("dtype", [f64, f32], ids=["float64", "float32"])
@pytest.mark.parametrize("model", MODELS, ids=lambda m: m.name)
def test_models_verify_strictly(model, dtype):
    certificate = verify(trace_models([model], model.name, dtype, {}))
    assert certificate.strict, str(certificate)
    kinds = {f.kind for f in certificate.findings}
    assert "values" in kinds and ("gradient" in kinds or model in (updated, constants))


def test_first_and_second_order_are_told():
    certificate = verify(trace_models([logistic], "logistic", f64, {}))
    assert [f.subject.split(":")[1][:7] for f in certificate.findings if f.kind == "gradient"] == [" ∂loss ", " ∂²loss"]


def test_gradients_that_a_model_asks_for_are_checked():
    certificate = verify(trace_models([penalised], "penalised", f64, {}))
    assert sum(f.kind == "gradient" for f in certificate.findings) == 3


def test_updates_are_checked():
    (values,) = [f for f in verify(trace_models([updated], "updated", f64, {})).findings if f.kind == "values"]
    assert "update:s" in values.subject and "update:p" in values.subject


def test_another_seed_is_another_point():
    one, two = (verify(trace_models([logistic], "logistic", f64, {}), seed) for seed in (0, 1))
    assert one.strict and two.strict and one != two


def test_the_same_seed_is_the_same_certificate():
    one, two = (verify(trace_models([choices], "choices", f64, {})) for _ in range(2))
    assert one == two and Certificate.from_json(json.loads(json.dumps(one.to_json()))) == one


# -- the command line --------------------------------------------------------------------------------------------------
UNIT = '''import graphc as gc


@gc.model
def unit(x: gc.f32["B", 2]):
    return gc.outputs(loss=gc.sum(gc.tanh(x @ gc.param("w", (2,)))))
'''


@pytest.fixture
def unit(tmp_path):
    path = tmp_path / "unit.py"
    path.write_text(UNIT)
    return path


@pytest.fixture
def fault(monkeypatch):
    """A wrong derivative of tanh."""
    from graphc.derivatives import partials
    real = partials.partial
    monkeypatch.setattr(partials, "partial", lambda name, k: -real(name, k) if name == "tanh" else real(name, k))
    partials.template.cache_clear()
    yield
    partials.template.cache_clear()


@pytest.fixture
def unproved(monkeypatch):
    """An operation of which nothing can be shown."""
    def check(node, subject):
        return Finding("operation", subject, "UNPROVED", "nothing is known")
    monkeypatch.setattr(adjoints, "check", check)


def test_a_model_file(unit, capsys):
    assert main(["verify", str(unit), "--strict"]) == 0
    out = capsys.readouterr().out
    assert "PROVED    operation  tanh(f64[B])" in out and out.endswith(
        "0 UNPROVED\n  PROVED: a symbolic identity, for all sizes; EXACT: agrees with 50-digit arithmetic at random points\n")


def test_json(unit, capsys):
    assert main(["verify", str(unit), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["model"] == "unit" and told["passed"] is True and {f["standing"] for f in told["findings"]} == {"PROVED", "EXACT"}


def test_what_disagrees_is_exit_code_1(unit, fault, capsys):
    assert main(["verify", str(unit)]) == 1
    assert "FAILED    operation  tanh(f64[B])" in capsys.readouterr().out


def test_strict_is_for_what_is_not_shown(unit, unproved, capsys):
    assert main(["verify", str(unit)]) == 0
    assert main(["verify", str(unit), "--strict"]) == 1


def test_a_compiled_folder_without_its_model_file(unit, tmp_path, capsys):
    assert main(["compile", str(unit), "-o", str(tmp_path / "build"), "--strict"]) == 0
    unit.unlink()
    certificate = json.loads((tmp_path / "build" / "unit" / "certificate.json").read_text())
    assert certificate["passed"] and Certificate.from_json(certificate).strict
    capsys.readouterr()
    assert main(["verify", str(tmp_path / "build" / "unit"), "--strict", "--json"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert [f for f in again["findings"] if f["kind"] == "operation"] == [f for f in certificate["findings"] if f["kind"] == "operation"]
    assert {"kind": "artifact", "subject": "unit", "standing": "EXACT", "detail": "the folder's kernels are those that were verified"} in again["findings"]
    assert main(["info", str(tmp_path / "build" / "unit")]) == 0
    assert f"verified: {Certificate.from_json(certificate).summary()}" in capsys.readouterr().out


def test_a_folder_that_runs_other_kernels_is_told(unit, tmp_path, capsys, monkeypatch):
    from dataclasses import replace as with_

    from graphc import assembly
    real = assembly.print_kernel
    with monkeypatch.context() as patch:
        patch.setattr(assembly, "print_kernel", lambda k: with_(real(k), text=real(k).text.replace("f64(", "f64(0.0 + ").replace("f32(", "f32(0.0 + ")))
        assert main(["compile", str(unit), "-o", str(tmp_path / "build")]) == 0
    assert main(["verify", str(tmp_path / "build" / "unit")]) == 0
    assert main(["verify", str(tmp_path / "build" / "unit"), "--strict"]) == 1
    assert "UNPROVED  artifact   unit   other kernels" in capsys.readouterr().out


def test_an_edited_certificate_is_not_believed(unit, tmp_path):
    assert main(["compile", str(unit), "-o", str(tmp_path / "build"), "--strict"]) == 0
    path = tmp_path / "build" / "unit" / "certificate.json"
    path.write_text(path.read_text().replace("EXACT", "PROVED"))
    with pytest.raises(gc.GraphcError, match=r"certificate\.json is not what was compiled"):
        gc.load(path.parent)


@pytest.mark.parametrize("reason", ["fault", "unproved"])
def test_strict_compiles_nothing_that_is_not_shown(unit, tmp_path, capsys, request, reason):
    request.getfixturevalue(reason)
    assert main(["compile", str(unit), "-o", str(tmp_path / "build"), "--strict"]) == 1
    assert "tanh(" in capsys.readouterr().err and not (tmp_path / "build").exists()
    assert main(["compile", str(unit), "-o", str(tmp_path / "build")]) == 0
    assert main(["info", str(tmp_path / "build" / "unit")]) == 0
    assert "not verified" in capsys.readouterr().out
