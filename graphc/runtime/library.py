"""The fixed kernels as Python functions over NumPy arrays, for the reference runner.

Each takes what the compiled kernel of the same name takes, a flat array in place of a pointer; trailing addresses of
BLAS routines are accepted and ignored. A batched matrix given by a stride is cut from its flat array, as a pointer
would be moved. All write in place and return nothing.
"""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]


def gemm(a: Array, b: Array, c: Array, m: int, n: int, k: int, lda: int, ldb: int, ldc: int, trans_a: int, trans_b: int,
         accumulate: int, *_: int) -> None:
    """C (m, n) = or += op(A) (m, k) @ op(B) (k, n), row-major; ld* is the distance between rows, in elements."""
    left = _matrix(a, k, m, lda).T if trans_a else _matrix(a, m, k, lda)
    right = _matrix(b, n, k, ldb).T if trans_b else _matrix(b, k, n, ldb)
    out = _matrix(c, m, n, ldc)
    product = left @ right
    out[...] = out + product if accumulate else product


def gemm_batch(a: Array, b: Array, c: Array, m: int, n: int, k: int, lda: int, ldb: int, ldc: int, trans_a: int,
               trans_b: int, accumulate: int, batch: int, stride_a: int, stride_b: int, stride_c: int, *_: int) -> None:
    """`gemm` for each of `batch` matrices, which lie `stride_*` elements apart; 0 uses one matrix again."""
    for i in range(batch):
        # With stride_c = 0 the products after the first replace it or add to it, as the compiled kernel's do.
        gemm(a[i * stride_a:], b[i * stride_b:], c[i * stride_c:], m, n, k, lda, ldb, ldc, trans_a, trans_b, accumulate)


def check_index(index: Array, status: Array, count: int, limit: int, tag: int) -> None:
    """Write [tag, value, limit, position] to `status` for the first of `count` indices outside 0 <= value < limit."""
    bad = np.flatnonzero((index[:count] < 0) | (index[:count] >= limit))
    if bad.size:
        status[:4] = tag, index[bad[0]], limit, bad[0]


def fill(out: Array, count: int, bits: int) -> None:
    """Set `count` elements to the value whose bit pattern is the low bits of `bits`."""
    width = out.dtype.itemsize
    out[:count] = np.array([bits], np.int64).view(np.uint8)[:width].copy().view(out.dtype)[0]


def copy(out: Array, source: Array, size: int) -> None:
    """Copy `size` bytes."""
    out.view(np.uint8)[:size] = source.view(np.uint8)[:size]


def _matrix(flat: Array, rows: int, columns: int, distance: int) -> Array:
    item = flat.dtype.itemsize
    needed = (rows - 1) * distance + columns if rows and columns else 0
    if needed > flat.size:
        raise IndexError(f"{rows} rows of {columns}, {distance} apart, need {needed} elements, not {flat.size}")
    return np.lib.stride_tricks.as_strided(flat, (rows, columns), (distance * item, item))


LIBRARY: dict[str, Callable[..., None]] = {
    "gemm_f32": gemm,
    "gemm_f64": gemm,
    "gemm_batch_f32": gemm_batch,
    "gemm_batch_f64": gemm_batch,
    "check_index_i32": check_index,
    "check_index_i64": check_index,
    "fill_8": fill,
    "fill_32": fill,
    "fill_64": fill,
    "copy": copy,
}
"""The fixed kernels of `graphc.runtime.driver`, by name."""
