"""The words of CUDA kernels, the fixed kernels, and how a kernel's text becomes a function or PTX.

The words of `graphc.codegen.primitives` mean on a GPU what they mean on a CPU; mathematics is libdevice's, in the
argument's own type. Beside them a kernel may use

| word | meaning |
|---|---|
| `cuda` | numba.cuda |
| `BLOCK` | threads of a block |
| `BLOCKS`, `blocks(n)` | the most blocks of a launch; how many a launch of n threads has |
| `sigmoid_f32(x)`, `sigmoid_f64(x)` | 1/(1 + e^−x), which libdevice has not |
| `block_sum_f32(x)`, … | the x of a block's threads put together, pair by pair: always in one order |
| `TILE`, `PADDED` | rows and columns of the tiles of a matrix product; columns with one more, against bank conflicts |

In Numba's simulator (NUMBA_ENABLE_CUDASIM=1) each thread is a thread of Python, so blocks and tiles are small there.
"""

from __future__ import annotations

import functools
import importlib.util
import linecache
import math
import re
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..codegen import primitives, randomness, vecmath
from ..errors import GraphcError, extra
from .cache import KernelSource

Namespace = dict[str, Any]

MOST_BLOCKS = 1024
"""The most blocks of a launch: what the arrays for parts of sums are made for (graphc.codegen.launch.BLOCKS)."""


def numba_cuda() -> Any:
    """numba.cuda. GraphcError where the `cuda` extra is not installed."""
    if importlib.util.find_spec("numba_cuda") is None:
        raise GraphcError("the target cuda needs numba-cuda, which is not installed", how=extra("cuda"))
    from numba import cuda

    return cuda


@functools.cache
def is_simulated() -> bool:
    """Do kernels run in Numba's simulator?"""
    numba_cuda()
    from numba.cuda.core import config

    return bool(config.ENABLE_CUDASIM)


def check_device() -> None:
    """GraphcError where there is neither a GPU nor the simulator."""
    if not is_simulated() and not numba_cuda().is_available():
        raise GraphcError(
            "the target cuda needs an NVIDIA GPU and its driver, and finds none",
            how="compile with --emit ptx to see the kernels, set NUMBA_ENABLE_CUDASIM=1 to run them in Numba's simulator "
            "(slowly), or take --target cpu",
        )
    from numba.cuda.core import config

    config.CUDA_LOW_OCCUPANCY_WARNINGS = 0  # small launches are what they are


def threads_of_block() -> int:
    return 4 if is_simulated() else 256


def tile() -> int:
    return 2 if is_simulated() else 16


def blocks_of(threads: int) -> int:
    """How many blocks a launch has in which so many threads have work."""
    return min(max(1, -(-threads // threads_of_block())), MOST_BLOCKS)


def grid(threads: int) -> tuple[int, int]:
    """(blocks, threads of each) of a launch in which so many threads have work."""
    return blocks_of(threads), threads_of_block()


def gemm_grid(sizes: Sequence[int]) -> tuple[int, int]:
    """The same for a matrix product, from the numbers that it is called with."""
    m, n, batch = sizes[0], sizes[1], sizes[9]
    tiles = batch * -(-m // tile()) * -(-n // tile())
    return min(max(1, tiles), 2**31 - 1), tile() ** 2


# -- words -----------------------------------------------------------------------------------------------------------
_CHOICES = '''
def select(condition, a, b):
    return a if condition else b

def fmax(a, b):
    return b if b != b or b > a else a

def fmin(a, b):
    return b if b != b or b < a else a

def rmax(a, b):
    return b if b != b or b > a else a

def rmin(a, b):
    return b if b != b or b < a else a

def radd(a, b):
    return a + b

def rmul(a, b):
    return a * b
'''

# e^−|x| never overflows: a result far below 0 is as small as the format goes, and not 1/∞
_SIGMOID = '''
def sigmoid_{t}(x):
    e = exp(-fabs(x))
    return ({t}(1) if x >= 0 else e) / ({t}(1) + e)
'''

_BLOCKS = '''
def blocks(threads):
    return min(max(1, (threads + BLOCK - 1) // BLOCK), BLOCKS)
'''

_IN_BLOCK = '''
def block_{reduce}_{t}(value):
    cells = cuda.shared.array(BLOCK, {t})
    me = cuda.threadIdx.x
    cells[me] = value
    cuda.syncthreads()
    half = BLOCK // 2
    while half > 0:
        if me < half:
            cells[me] = {step}(cells[me], cells[me + half])
        cuda.syncthreads()
        half = half // 2
    result = cells[0]
    cuda.syncthreads()
    return result
'''

_STEPS = {"sum": "radd", "prod": "rmul", "max": "rmax", "min": "rmin"}
_TYPES = ("f32", "f64", "i32", "i64")
_MATH = ("exp", "exp2", "expm1", "log", "log2", "log1p", "tanh", "erf", "sin", "cos", "sqrt", "pow", "isnan", "fabs", "floor")

_OWN = "".join(_SIGMOID.format(t=t) for t in ("f32", "f64")) + _BLOCKS
_OWN += "".join(_IN_BLOCK.format(reduce=r, t=t, step=step) for r, step in _STEPS.items() for t in _TYPES)


def _namespace() -> Namespace:
    """What the free names of a kernel's text mean: a mapping of its own, which the text may be run in."""
    if not is_simulated():
        return dict(_device_words())
    words = _constants() | primitives.numpy_namespace() | vecmath.numpy_namespace() | randomness.numpy_namespace()
    words["shared"] = _simulated_shared(words)
    # The simulator binds `cuda` anew in a kernel's own names, so what uses it must share them.
    _define(_OWN, "words of CUDA", words)
    return words


def _simulated_shared(words: Namespace) -> Callable[..., Any]:
    """Shared memory: one array for each line that asks for one. (The simulator's own may give two threads that ask at the
    same time an array each.)"""
    arrays: dict[Any, Any] = {}
    lock = threading.Lock()

    def shared(shape: Any, dtype: Any) -> Any:
        asked = sys._getframe(1)
        with lock:
            if arrays.get("launch") is not words["cuda"]:
                arrays.clear()
                arrays["launch"] = words["cuda"]
            return arrays.setdefault((asked.f_code, asked.f_lineno), np.empty(shape, dtype))

    return shared


def _constants() -> Namespace:
    return {"cuda": numba_cuda(), "BLOCK": threads_of_block(), "BLOCKS": MOST_BLOCKS, "TILE": tile(), "PADDED": tile() + 1}


@functools.cache
def _device_words() -> Namespace:
    types = _numba_types()
    words = _constants() | {name: getattr(math, name) for name in _MATH}
    words |= {t: getattr(types, _NUMBA[t]) for t in _TYPES} | {"bool_": types.boolean}
    known = set(words)
    _define(_CHOICES + randomness.TEXT + _OWN, "words", words)
    for name in words.keys() - known - {"__builtins__"}:
        # written into the kernel before it is typed: a function called would be compiled for the device that is there,
        # and PTX is made where there is none
        words[name] = numba_cuda().jit(words[name], device=True, inline="always")
    return words


def _numba_types() -> Any:
    from numba.cuda import types

    return types


_NUMBA = {"f32": "float32", "f64": "float64", "i32": "int32", "i64": "int64", "u8": "uint8", "bool": "boolean"}


def _define(text: str, name: str, scope: Namespace) -> None:
    """Run a text that defines functions whose free names are in `scope`."""
    filename = f"<kernel {name}>"
    if is_simulated():
        text = text.replace("cuda.shared.array(", "shared(")
    # so that errors show the kernel's own lines
    linecache.cache[filename] = (len(text), None, text.splitlines(keepends=True), filename)
    exec(compile(text, filename, "exec"), scope)


# -- functions and PTX -----------------------------------------------------------------------------------------------
@functools.cache
def function_of(kernel: KernelSource) -> Any:
    """The kernel as a function that can be launched."""
    return numba_cuda().jit(_python(kernel))


def _python(kernel: KernelSource) -> Callable[..., None]:
    words = _namespace()
    _define(kernel.source, kernel.name, words)
    function: Callable[..., None] = words[kernel.name]
    return function


def types_of(kernel: KernelSource) -> tuple[Any, ...]:
    """The Numba types of a kernel's parameters."""
    types = _numba_types()

    def numba(kind: str) -> Any:
        return numba(kind[:-1])[::1] if kind.endswith("*") else getattr(types, _NUMBA[kind])

    return tuple(map(numba, kernel.signature))


def ptx(kernel: KernelSource, cc: int) -> str:
    """The kernel as PTX for a compute capability such as 80 or 90. Needs no GPU."""
    if is_simulated():
        raise GraphcError("Numba's simulator makes no PTX", how="unset NUMBA_ENABLE_CUDASIM")
    from cuda.pathfinder import DynamicLibNotFoundError

    signature = _numba_types().void(*types_of(kernel))
    options = dict(device=False, abi="numba", cc=divmod(cc, 10), output="ptx")
    try:
        text, _ = numba_cuda().compile(_python(kernel), signature, **options)
    except DynamicLibNotFoundError as error:
        raise GraphcError("NVIDIA's compiler libraries are not installed", how=extra("cuda")) from error
    made_for = re.search(r"^\.target sm_(\d+)", text, re.MULTILINE)
    if made_for is None or int(made_for[1]) != cc:  # the nearest that is known is taken without a word
        nearest = made_for[1] if made_for else "none"
        raise GraphcError(f"NVIDIA's compiler knows no compute capability {cc}", how=f"the nearest is {nearest}")
    return str(text)


# -- fixed kernels ---------------------------------------------------------------------------------------------------
_GEMM = '''
def gemm_{t}(a, b, c, m, n, k, lda, ldb, ldc, trans_a, trans_b, accumulate, batch, stride_a, stride_b, stride_c):
    """C (m, n) = or += op(A) (m, k) @ op(B) (k, n), row-major, for each of `batch` matrices stride_* elements apart.

    A block makes one tile of C at a time, a thread for each element of it. Tiles of A and B go through shared memory,
    each read so that neighbouring threads read neighbouring elements, whichever way the matrix lies.
    """
    left = cuda.shared.array((TILE, PADDED), {t})
    right = cuda.shared.array((TILE, PADDED), {t})
    row = cuda.threadIdx.x // TILE
    column = cuda.threadIdx.x % TILE
    across = (n + TILE - 1) // TILE
    tiles = (m + TILE - 1) // TILE * across
    for work in range(cuda.blockIdx.x, batch * tiles, cuda.gridDim.x):
        one = work // tiles
        top = work % tiles // across * TILE
        side = work % tiles % across * TILE
        total = {t}(0)
        for start in range(0, k, TILE):
            if trans_a != 0:
                inside = start + row < k and top + column < m
                left[column, row] = a[one*stride_a + (start + row)*lda + top + column] if inside else {t}(0)
            else:
                inside = top + row < m and start + column < k
                left[row, column] = a[one*stride_a + (top + row)*lda + start + column] if inside else {t}(0)
            if trans_b != 0:
                inside = side + row < n and start + column < k
                right[column, row] = b[one*stride_b + (side + row)*ldb + start + column] if inside else {t}(0)
            else:
                inside = start + row < k and side + column < n
                right[row, column] = b[one*stride_b + (start + row)*ldb + side + column] if inside else {t}(0)
            cuda.syncthreads()
            for p in range(TILE):
                total += left[row, p] * right[p, column]
            cuda.syncthreads()
        if top + row < m and side + column < n:
            place = one*stride_c + (top + row)*ldc + side + column
            c[place] = c[place] + total if accumulate != 0 else total
'''

_CHECK_INDEX = '''
def check_index_{t}(index, first, threads, limit):
    """first[0] becomes the least position of an index outside 0 <= index < limit, if there is one."""
    for i in range(cuda.grid(1), threads, cuda.gridsize(1)):
        if index[i] < 0 or index[i] >= limit:
            cuda.atomic.min(first, 0, i)
'''

_FILL = '''
def fill_{width}(out, threads, bits):
    """Set `threads` elements of {width} bits to the low bits of `bits`."""
    for i in range(cuda.grid(1), threads, cuda.gridsize(1)):
        out[i] = bits
'''

_COPY = '''
def copy(out, source, threads):
    """Copy `threads` bytes."""
    for i in range(cuda.grid(1), threads, cuda.gridsize(1)):
        out[i] = source[i]
'''


@functools.cache
def fixed_sources() -> dict[str, KernelSource]:
    """The kernels that every program may use, by the names that its instructions give them."""
    found = {"copy": KernelSource("copy", _COPY, ("u8*", "u8*", "i64"))}
    for t in ("f32", "f64"):
        gemm = KernelSource(f"gemm_{t}", _GEMM.format(t=t), (f"{t}*",) * 3 + ("i64",) * 13)
        found |= {f"gemm_{t}": gemm, f"gemm_batch_{t}": gemm}
    for t in ("i32", "i64"):
        text = _CHECK_INDEX.format(t=t)
        found[f"check_index_{t}"] = KernelSource(f"check_index_{t}", text, (f"{t}*", "i64*", "i64", "i64"))
    for width, t in ((8, "u8"), (32, "i32"), (64, "i64")):
        found[f"fill_{width}"] = KernelSource(f"fill_{width}", _FILL.format(width=width), (f"{t}*", "i64", "i64"))
    return found
