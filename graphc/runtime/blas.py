"""OpenBLAS, loaded for graphc alone, when the first matrix product is encoded.

The package `scipy-openblas32` has a library of its own, its symbols prefixed, so NumPy's is left as it is. Which
kernels it uses is settled while it loads: by what it makes of the processor, or by $OPENBLAS_CORETYPE, which may have
been set with another program or machine in mind. Kernels for AVX2 on a processor with AVX-512 halve the speed. So
while it loads, that variable names the best kernels that the processor's own flags allow, and is then put back.
"""
from __future__ import annotations

import ctypes
import functools
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from graphc.codegen.host import has_avx512
from graphc.errors import RuntimeFault

PREFIX = "scipy_cblas_"
ROUTINES = ("sgemm", "dgemm", "sgemv", "dgemv")

_AVX512_KERNELS = "SkylakeX"
_CORE_TYPE = "OPENBLAS_CORETYPE"

_loading = threading.Lock()


def core_type() -> str | None:
    """The kernels that OpenBLAS should be told to use: $GRAPHC_BLAS_CORETYPE, or the best of this processor.

    None leaves the choice to $OPENBLAS_CORETYPE and the library.
    """
    chosen = os.environ.get("GRAPHC_BLAS_CORETYPE")
    if chosen:
        return chosen
    return _AVX512_KERNELS if has_avx512() else None


@functools.cache
def library() -> ctypes.CDLL:
    """The loaded library. Raises RuntimeFault when it is not installed or does not load."""
    # one thread: products are divided among graphc's own threads, never among two pools
    with _loading, _environment(_CORE_TYPE, core_type()), _environment("OPENBLAS_NUM_THREADS", "1"):
        try:
            loaded = ctypes.CDLL(str(_file()))
        except OSError as error:
            raise RuntimeFault("OpenBLAS does not load", why=str(error)) from error
    loaded.scipy_openblas_set_num_threads(ctypes.c_int(1))
    return loaded


@functools.cache
def address(routine: str) -> int:
    """The address of one of ROUTINES, by its CBLAS name. Loads the library."""
    function = ctypes.cast(getattr(library(), PREFIX + routine), ctypes.c_void_p)
    assert function.value is not None
    return function.value


@functools.cache
def routines(letter: str) -> int:
    """The address of two words: the addresses of gemm and gemv for float32 ("s") or float64 ("d"). Loads the library."""
    words = (ctypes.c_int64 * 2)(address(f"{letter}gemm"), address(f"{letter}gemv"))
    _words.append(words)
    return ctypes.addressof(words)


_words: list[object] = []  # what addresses were given of


def config() -> str:
    """The library's version and the kernels it chose, in its own words. Loads the library."""
    describe = library().scipy_openblas_get_config
    describe.restype = ctypes.c_char_p
    text: bytes = describe()
    return text.decode()


def _file() -> Path:
    # The package is found but not imported: its import loads the library before the environment can be set.
    package = find_spec("scipy_openblas32")
    if package is None or package.origin is None:
        raise RuntimeFault("no matrix product is available", why="the package scipy-openblas32 is not installed",
                           how="pip install scipy-openblas32")
    suffix = {"win32": ".dll", "darwin": ".dylib"}.get(sys.platform, ".so")
    found = sorted((Path(package.origin).parent / "lib").glob(f"*openblas*{suffix}"))
    if not found:
        raise RuntimeFault("no matrix product is available", why="scipy-openblas32 holds no library")
    return found[0]


@contextmanager
def _environment(name: str, value: str | None) -> Iterator[None]:
    """Set an environment variable for a while; None leaves it alone."""
    if value is None:
        yield
        return
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
