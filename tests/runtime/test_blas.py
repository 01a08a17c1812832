"""Loading OpenBLAS: the right kernels, one thread, nobody else's environment or library disturbed."""
from __future__ import annotations

import subprocess
import sys
import textwrap

import llvmlite.binding as llvm
import pytest

from graphc.errors import RuntimeFault
from graphc.runtime import blas

HAS_AVX512 = all(llvm.get_host_cpu_features().get(f) for f in ("avx512f", "avx512dq", "avx512bw", "avx512vl"))


def in_fresh_process(script, **environment):
    import os
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("OPENBLAS", "GRAPHC"))}
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], env={**kept, **environment}, text=True,
                          capture_output=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_core_type_needs_every_flag(monkeypatch):
    monkeypatch.delenv("GRAPHC_BLAS_CORETYPE", raising=False)
    full = dict.fromkeys(("avx512f", "avx512dq", "avx512bw", "avx512vl"), True)
    monkeypatch.setattr(llvm, "get_host_cpu_features", lambda: full)
    assert blas.core_type() == "SkylakeX"
    for missing in full:
        monkeypatch.setattr(llvm, "get_host_cpu_features", lambda missing=missing: {**full, missing: False})
        assert blas.core_type() is None
    monkeypatch.setenv("GRAPHC_BLAS_CORETYPE", "Haswell")
    assert blas.core_type() == "Haswell"


@pytest.mark.skipif(not HAS_AVX512, reason="needs a processor with AVX-512")
@pytest.mark.parametrize("before", [{}, {"OPENBLAS_CORETYPE": "Haswell"}])
def test_avx512_kernels_are_used(before):
    assert "SkylakeX" in in_fresh_process("from graphc.runtime import blas; print(blas.config())", **before)


@pytest.mark.parametrize("before", [{}, {"OPENBLAS_CORETYPE": "Haswell", "OPENBLAS_NUM_THREADS": "2"}])
def test_environment_is_restored(before):
    script = """
        import os
        from graphc.runtime import blas
        before = dict(os.environ)
        blas.address("sgemm")
        assert dict(os.environ) == before
    """
    in_fresh_process(script, **before)


@pytest.mark.parametrize("given", [{}, {"GRAPHC_NUM_THREADS": "2"}, {"OPENBLAS_NUM_THREADS": "2"}])
def test_one_thread(given):
    script = "from graphc.runtime import blas; print(blas.library().scipy_openblas_get_num_threads())"
    assert in_fresh_process(script, **given) == ["1"]


def test_numpy_keeps_its_own():
    script = """
        import numpy as np
        from graphc.runtime import blas, driver
        blas.address("dgemm")
        maps = [line.split()[-1] for line in open("/proc/self/maps") if "openblas" in line]
        print(len(set(maps)))
        assert (np.ones((50, 50)) @ np.ones((50, 50)) == 50).all()
    """
    if sys.platform != "linux":
        pytest.skip("reads the process's own memory map")
    assert in_fresh_process(script) == ["2"]


def test_nothing_is_loaded_before_the_first_product(tmp_path):
    script = """
        from graphc.runtime import blas, driver
        driver.Program([], 2)
        print(blas.library.cache_info().currsize)
    """
    assert in_fresh_process(script, GRAPHC_CACHE_DIR=str(tmp_path)) == ["0"]


def test_addresses():
    addresses = [blas.address(routine) for routine in blas.ROUTINES]
    assert len(set(addresses)) == 4 and all(addresses)


def test_missing_package(monkeypatch):
    monkeypatch.setattr(blas, "find_spec", lambda name: None)
    with pytest.raises(RuntimeFault, match="no matrix product"):
        blas._file()
