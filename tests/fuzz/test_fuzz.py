"""A fixed choice of random models, small enough for every run. `tools/fuzz` makes as many as one likes.

One that fails is made small and written as a model file to fuzz-failures; the message holds its text.
"""
from __future__ import annotations

import hashlib
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import graphc as gc
from graphc.derivatives import partials
from tests.fuzz.check import check_compiled, check_graphs
from tests.fuzz.generate import Given, Mismatch, Program, generate
from tests.fuzz.shrink import keep, kind_of, shrink

# a seed is not made smaller: the program that it gives is
FIXED = dict(derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck), phases=[Phase.generate])
FAILURES = Path("fuzz-failures")


def checked(program, check, folder=FAILURES):
    """Check a program; AssertionError with a smaller one that fails alike, which is kept as a model file."""
    def fault(candidate):
        try:
            check(candidate)
        except Exception as error:
            return f"{'' if isinstance(error, Mismatch) else f'{type(error).__name__}: '}{error}"
        return None

    first = fault(program)
    if first is not None:
        path = folder / f"{hashlib.sha256(program.text().encode()).hexdigest()[:12]}.py"
        small = keep(program, fault, path)
        raise AssertionError(f"{first}\n\nmade small, and written to {path}:\n\n{small.text()}")


def check_source(program):
    check_graphs(program)
    check_compiled(program, "numpy")


@settings(max_examples=200, **FIXED)
@given(st.integers(0, 2**32))
def test_graphs_and_generated_source_give_the_values(seed):
    """Each stage's graph by oracles: the values that NumPy has; gradients by differences; texts that parse back. Then
    outputs, gradients and updates, two calls in a row, by the generated source run as Python."""
    checked(generate(random.Random(seed), length=7), check_source)


@settings(max_examples=50, **FIXED)
@given(st.integers(0, 2**32))
def test_compiled_models_give_the_values(seed):
    """The same, compiled for the CPU."""
    checked(generate(random.Random(seed), length=6), lambda p: check_compiled(p, "cpu"))


# Models that were wrong once, made small

def _program(lines, given, outputs=(), loss="", wrt=(), updates=None, second=False, sizes=None):
    made = {}
    for name, (shape, array) in given.items():
        kind = {"x": "input", "p": "param", "s": "state"}[name[0]]
        made[name] = Given(kind, tuple(map(str, shape)), np.asarray(array, None if np.asarray(array).dtype.kind == "i" else np.float64))
    return Program(sizes or {}, made, tuple(lines.items()), tuple(outputs), updates or {}, loss, tuple(wrt), second)


REGRESSIONS = {
    "gradient by a value that movements hide": _program(
        {"v0": "gc.expand_dims(x0, 1)", "v1": "v0[..., None]"}, {"x0": ([1], [0.5])}, loss="gc.sum(v1 * v1)", wrt=["v0"]),
    "a quotient in an access map": _program(
        {"v0": "x0[::2]", "v1": "v0[-2, 1:0:-1]"}, {"x0": (["T", 2], np.arange(6.0).reshape(3, 2))}, loss="gc.sum(v1)", wrt=["x0"], sizes={"T": 3}),
    "two updates by one value": _program(
        {"v0": "gc.maximum(p0, p1)"}, {"p0": ([1], [1.5]), "p1": ([1], [-1.0])}, ["v0"], "gc.sum(p0)", updates={"p0": "v0", "p1": "v0"}),
    "an update that reads nothing of the old value": _program(
        {"v0": "gc.exp(x0)", "v1": "gc.sum(s0)"}, {"x0": ([3], [1.0, 2.0, 3.0]), "s0": ([3], [0.5, 0.25, 1.0])}, ["v1"], updates={"s0": "v0"}),
    "an update of a parameter that nothing reads": _program({"v0": "x0 * 2"}, {"x0": ([2], [1.0, 2.0]), "p0": ([2], [0.5, 1.0])}, ["v0"], updates={"p0": "v0"}),
    "a repeated index": _program(
        {"v0": "x0 @ x1", "v1": "gc.where(v0 > 0.1, v0, x2)", "v2": 'gc.einsum("ijj,ikj->ki", v1, x1)'},
        {"x0": ([1, "T", 3], np.linspace(-1, 1, 6).reshape(1, 2, 3)), "x1": ([1, 3, "T"], np.linspace(0.3, 2, 6).reshape(1, 3, 2)), "x2": ([1, "T"], [[0.4, -0.7]]),
         "x3": (["T"], [0.0, 0.0])},
        loss="gc.sum(gc.tanh(v2))", wrt=["x1"], second=True, sizes={"T": 2}),
}


@pytest.mark.parametrize("name", REGRESSIONS)
def test_regressions(name):
    program = REGRESSIONS[name]
    check_graphs(program)
    check_compiled(program, "numpy")


# The fuzzer itself

def test_the_same_seed_makes_the_same_model():
    assert generate(random.Random(5)).text() == generate(random.Random(5)).text()


def test_models_use_the_whole_table():
    text = "\n".join(generate(random.Random(seed)).text() for seed in range(60))
    for word in ("einsum", "@", "reshape", "transpose", "::-", "concat", "take(", "take_along_axis", "where", "gc.max(", "softmax", "state", "update",
                 "grad(", "second", "stop_gradient", "arange", "argmax"):
        assert word in text, word


def test_what_fails_is_kept_as_a_model_file(monkeypatch, tmp_path):
    """A wrong derivative, found by a random model; the file that is kept fails in the same way."""
    real = partials.partial
    program = _program({"v0": "gc.tanh(x0)", "v1": "gc.exp(x1)"}, {"x0": ([3], [0.5, 1.0, -0.3]), "x1": ([2], [0.1, 0.2])}, ["v1"], "gc.sum(v0) + gc.sum(v1)", ["x0"])
    partials.template.cache_clear()
    with monkeypatch.context() as patch:
        patch.setattr(partials, "partial", lambda name, k: 2 * real(name, k) if name == "tanh" else real(name, k))
        with pytest.raises(AssertionError, match="made small, and written to"):
            checked(program, check_graphs, tmp_path)
    partials.template.cache_clear()
    (file,) = tmp_path.iterdir()
    text = file.read_text()
    assert text.startswith("# gradient of loss by x0: the gradient says") and "tanh" in text and "exp" not in text
    assert gc.compile(file, target="numpy").forward(x0=np.ones(3))


def test_a_wrong_oracle_is_found_and_made_small(monkeypatch):
    """The check can fail, and what fails is told in few lines."""
    program = generate(random.Random(11))
    line = next(n for n, e in program.lines if "gc." in e)
    broken = replace(program, outputs=(line,), loss="", wrt=(), second=False, updates={})
    real = Program.run

    def fault(p):
        def wrong(self, values, moved=None, stopped=None):
            scope = real(self, values, moved, stopped)
            return {**scope, **{n: scope[n] + 1 for n in [line] if n in scope and self.lines}}

        monkeypatch.setattr(Program, "run", wrong)
        try:
            check_graphs(p)
        except Mismatch as error:
            return str(error)
        finally:
            monkeypatch.setattr(Program, "run", real)
        return None

    found = fault(broken)
    assert found is not None and kind_of(found).startswith("stage trace")
    small = shrink(broken, fault)
    assert [n for n, _ in small.lines] == [line] and fault(small)
