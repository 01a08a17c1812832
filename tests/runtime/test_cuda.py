"""The target cuda: its kernels in Numba's simulator against the CPU, as PTX, and what is said where neither can be."""
from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import graphc as gc
from graphc.cli import compile as compile_command
from graphc.codegen.launch import BLOCKS
from graphc.errors import GraphcError
from graphc.frontend.model import trace_models
from graphc.graph.dtype import f32
from graphc.pipeline import Compilation, Options
from graphc.runtime import cuda_words
from graphc.runtime.cache import KernelSource

from . import cuda_checks

installed = importlib.util.find_spec("numba_cuda") is not None
needs_numba_cuda = pytest.mark.skipif(not installed, reason="numba-cuda is not installed: pip install -e '.[cuda]'")


def in_simulator(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python in Numba's simulator, which is chosen when Numba is loaded."""
    environment = {**os.environ, "NUMBA_ENABLE_CUDASIM": "1"}
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, env=environment, check=False)


@pytest.fixture(scope="module")
def told():
    """What all the checks say, run in one process."""
    run = in_simulator(str(Path(cuda_checks.__file__)))
    return run.stdout + run.stderr


@needs_numba_cuda
@pytest.mark.parametrize("name", list(cuda_checks.CHECKS))
def test_in_the_simulator(name, told):
    assert f"{name}: ok in Numba's simulator" in told, told


@needs_numba_cuda
def test_a_compiled_folder_runs_by_itself(tmp_path):
    compiled = gc.compile(cuda_checks.rows, target="cuda", dtype="float64")
    compiled.save(tmp_path)
    script = "import sys, numpy as np; sys.path.insert(0, sys.argv[1]); import rows; print(rows.forward(x=np.zeros((2, 6)))['p'][1, 4])"
    run = in_simulator("-c", script, str(tmp_path))
    assert run.returncode == 0, run.stderr
    assert float(run.stdout) == pytest.approx(0.2)


@needs_numba_cuda
@pytest.mark.parametrize("cc", [80, 90])
@pytest.mark.parametrize("model", [cuda_checks.network, cuda_checks.lstm_lm], ids=lambda m: m.name)
def test_every_kernel_becomes_ptx(model, cc):
    """Forward, gradient and step, in the model's own precision: float32 is nowhere widened."""
    module = trace_models([model], model.name, f32, {}, gc.train.Adam(0.1))
    compilation = Compilation(module, Options("cuda"))
    texts = compilation.ptx(cc)
    assert {"fixed_gemm_f32", "fixed_check_index_i64"} <= texts.keys()
    assert compilation.book.texts.keys() == {name for name in texts if not name.startswith("fixed_")}
    for name, text in texts.items():
        assert f".target sm_{cc}" in text and len(re.findall(r"\.entry\b", text)) == 1, name
        assert ".f64" not in text, name
    assert "ex2.approx" in "".join(texts.values())      # libdevice's exp of a float32


@needs_numba_cuda
def test_without_a_gpu_a_model_compiles_and_the_first_call_says_why():
    if cuda_words.is_simulated() or cuda_words.numba_cuda().is_available():
        pytest.skip("there is something to run on: tools/check_cuda does")
    compiled = gc.compile(cuda_checks.counter, target="cuda")
    with pytest.raises(GraphcError, match="NVIDIA GPU") as caught:
        compiled.forward(x=np.zeros(2, np.float32))
    assert "--emit ptx" in str(caught.value) and "NUMBA_ENABLE_CUDASIM" in str(caught.value)


def test_without_the_extra_a_message_says_how(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(GraphcError, match="numba-cuda") as caught:
        gc.compile(cuda_checks.counter, target="cuda")
    assert "pip install -e '.[cuda]' in graphc's folder" in str(caught.value)


@needs_numba_cuda
def test_an_unknown_compute_capability_is_refused():
    with pytest.raises(GraphcError, match="no compute capability 77"):
        cuda_words.ptx(cuda_words.fixed_sources()["copy"], 77)


@needs_numba_cuda
def test_the_command_writes_ptx_beside_the_model(tmp_path):
    file = tmp_path / "double.py"
    file.write_text("import graphc as gc\n\n@gc.model\ndef double(x: gc.f32['B']):\n    return gc.outputs(y=x * 2)\n")
    command = [sys.executable, "-m", "graphc", "compile", str(file), "-o", str(tmp_path)]
    options = ["--target", "cuda", "--emit", "ptx", "--cc", "80"]
    environment = {n: v for n, v in os.environ.items() if n != "NUMBA_ENABLE_CUDASIM"}
    made = subprocess.run([*command, *options], capture_output=True, text=True, env=environment, check=False)
    assert made.returncode == 0, made.stderr
    assert [p.name for p in (tmp_path / "double" / "ptx").iterdir()] == ["mul.sm_80.ptx"]
    gc.load(tmp_path / "double")      # what is beside the model does not concern its loader


def test_ptx_is_for_the_target_cuda():
    with pytest.raises(GraphcError, match="--emit ptx is for the target cuda"):
        compile_command.run(Path("any.py"), emit=compile_command.Emitted.ptx)


def test_a_launch_has_no_more_blocks_than_sums_have_parts():
    assert cuda_words.MOST_BLOCKS == BLOCKS


WORDS = """
def words(out, x, c, threads):
    for i in range(cuda.grid(1), threads, cuda.gridsize(1)):
        v = x[i]
        v = exp(v) + exp2(v) + expm1(v) + log(v) + log2(v) + log1p(v) + tanh(v) + erf(v) + sqrt(v)
        v = pow(v, x[i]) + fabs(v) + floor(v) + fmax(v, x[i]) * fmin(v, x[i]) - rmax(v, x[i]) * rmin(v, x[i])
        v = sigmoid_T(v) + select(c[i] & (not isnan(v)), rmul(v, T(2.0)), T(1e999))
    out[i] = block_sum_T(v) + block_prod_T(v) + block_max_T(v) + block_min_T(v)
"""


@needs_numba_cuda
def test_every_word_has_a_float32_of_its_own():
    """No word computes a float32 in float64; each is known in float64 too. (Only libdevice's sin and cos do, to reduce
    large angles.)"""
    for t, widened in (("f32", False), ("f64", True)):
        kernel = KernelSource("words", re.sub(r"\bT\b|(?<=_)T\b", t, WORDS), (f"{t}*", f"{t}*", "bool*", "i64"))
        text = cuda_words.ptx(kernel, 90)
        arithmetic = re.findall(r"(?:add|mul|fma|div|sqrt)\.(?:rn\.)?f64", text)
        assert bool(arithmetic) == widened, arithmetic[:5]
