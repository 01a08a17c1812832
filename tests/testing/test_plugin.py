"""`pytest --graphc FOLDER` and `gc.testing.check`: model files verified as tests, and what a failure says."""
from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import graphc as gc
from graphc.derivatives import partials

GOOD = '''"""A unit."""
import graphc as gc


@gc.model
def unit(x: gc.f32["B", 2]):
    return gc.outputs(loss=gc.sum(gc.tanh(x @ gc.param("w", (2,)))))
'''
# what goes wrong is planted beside the model, since graphc itself should be right
FAULT = '''
from graphc.derivatives import partials

real = partials.partial
partials.partial = lambda name, k: -real(name, k) if name == "tanh" else real(name, k)
partials.template.cache_clear()
'''


def pytest_on(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--graphc", str(folder), "--rootdir", str(folder)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)


def test_model_files_alone_are_collected_and_pass(tmp_path):
    (tmp_path / "unit.py").write_text(GOOD)
    (tmp_path / "helpers.py").write_text("raise RuntimeError('this is no model file')\n")
    (tmp_path / "notes.txt").write_text("@gc.model\n")
    done = pytest_on(tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout


def test_a_failure_names_the_culprit_in_words(tmp_path):
    (tmp_path / "unit.py").write_text(GOOD)
    (tmp_path / "wrong.py").write_text(GOOD + FAULT)
    (tmp_path / "broken.py").write_text(GOOD.replace("(2,)", "(3,)"))
    done = pytest_on(tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "graphc: wrong.py" in done.stdout and "wrong does not verify:" in done.stdout
    assert "tanh(f64[B])" in done.stdout and "the adjoint of operand 0 is not the derivative" in done.stdout
    assert "broken.py:7" in done.stdout, "an error of the model is told at its line"
    assert "Traceback" not in done.stdout


def test_without_the_option_pytest_is_left_alone(tmp_path):
    (tmp_path / "test_other.py").write_text("# @gc.model\ndef test_it():\n    pass\n")
    done = subprocess.run([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(tmp_path)], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and "1 passed" in done.stdout


@gc.model
def curve(x: gc.f32["B"]):
    return gc.outputs(loss=gc.sum(gc.sqrt(x * x + gc.param("c", (), init=1.0) * gc.param("d", ()))))


def test_check_gives_the_certificate():
    certificate = gc.testing.check(curve)
    assert certificate.strict and "sqrt(" in str(certificate)


def test_check_takes_a_file(tmp_path):
    path = tmp_path / "unit.py"
    path.write_text(GOOD)
    assert gc.testing.check(path, dtype="float32").model == "unit"


def test_check_names_the_culprit(monkeypatch):
    real = partials.partial
    monkeypatch.setattr(partials, "partial", lambda name, k: 2 * real(name, k) if name == "sqrt" else real(name, k))
    partials.template.cache_clear()
    try:
        with pytest.raises(AssertionError, match=r"sqrt\(f64\[B\]\).*is not the derivative"):
            gc.testing.check(curve)
    finally:
        partials.template.cache_clear()
