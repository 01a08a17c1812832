"""A step as data: a list of kernel calls over slots, run by one native function.

A slot holds an address. An argument of an instruction is a pair (slot, offset) and has the value slots[slot] + offset,
in bytes; slot 0 always holds 0, so an integer v is (0, v). Slot 1 holds the address of the program's status, four
int64; the run ends after the instruction that sets the first of them.

Instructions between a BEGIN and its END are a loop. Its moving slots begin at slots[parent] + offset, and advance by a
step each time; a parent may itself move in a loop outside.

The driver and the kernels that every program may use (matrix products, index checks, fills, copies) are kernels like
any other: Python text, compiled once, cached by content. `graphc.runtime.library` has them as Python functions.
"""
from __future__ import annotations

import ctypes
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphc.codegen.primitives import SCRATCH_WORDS
from graphc.runtime import blas
from graphc.runtime.cache import KernelSource, build

ZERO_SLOT, STATUS_SLOT, FIRST_FREE_SLOT = 0, 1, 2
STATUS_WORDS = 4

BEGIN, END = 0, 1  # in place of an address

_RUN = '''
def run(code, slots, count):
    """Run the first `count` words of `code`. Its instructions are

    call: address, n, then n pairs (slot, offset)
    begin: 0, n, times, counter (a slot), the word after the loop, then n moving slots: slot, parent, offset
    end: 1, n, the word after the begin, counter, then n moving slots: slot, step
    """
    arguments = scratch()
    status = words_at(slots[1])
    pc = 0
    while pc < count:
        n = code[pc + 1]
        if code[pc] == 0:
            counter = code[pc + 3]
            slots[counter] = code[pc + 2]
            if slots[counter] > 0:
                for j in range(n):
                    place = pc + 5 + 3 * j
                    slots[code[place]] = slots[code[place + 1]] + code[place + 2]
                pc += 5 + 3 * n
            else:
                pc = code[pc + 4]
        elif code[pc] == 1:
            counter = code[pc + 3]
            slots[counter] -= 1
            if slots[counter] > 0:
                for j in range(n):
                    slots[code[pc + 4 + 2 * j]] += code[pc + 5 + 2 * j]
                pc = code[pc + 2]
            else:
                pc += 4 + 2 * n
        else:
            for j in range(n):
                arguments[j] = slots[code[pc + 2 + 2 * j]] + code[pc + 3 + 2 * j]
            call(code[pc], arguments)
            if status[0] != 0:
                break
            pc += 2 + 2 * n
'''

# OpenBLAS has kernels of its own for small products: a call costs about 30 ns, less than plain loops from the size
# of 4 by 4 by 4 on, so there are none here.
_GEMM = '''
def gemm_{t}(a, b, c, m, n, k, lda, ldb, ldc, trans_a, trans_b, accumulate, gemm, gemv):
    """C (m, n) = or += op(A) (m, k) @ op(B) (k, n), row-major; ld* are the distances between rows."""
    keep = select(accumulate != 0, {t}(1), {t}(0))
    if k == 0:
        if accumulate == 0:
            for i in range(m):
                for j in range(n):
                    c[i * ldc + j] = {t}(0)
    elif m == 0 or n == 0:
        pass
    elif n == 1:
        step_b = select(trans_b != 0, 1, ldb)
        rows = select(trans_a != 0, k, m)
        columns = select(trans_a != 0, m, k)
        kind = select(trans_a != 0, 112, 111)
        ccall(gemv, i32(101), i32(kind), i32(rows), i32(columns), {t}(1), a, i32(lda), b, i32(step_b),
              keep, c, i32(ldc))
    elif m == 1:
        step_a = select(trans_a != 0, lda, 1)
        rows = select(trans_b != 0, n, k)
        columns = select(trans_b != 0, k, n)
        kind = select(trans_b != 0, 111, 112)
        ccall(gemv, i32(101), i32(kind), i32(rows), i32(columns), {t}(1), b, i32(ldb), a, i32(step_a),
              keep, c, i32(1))
    else:
        kind_a = select(trans_a != 0, 112, 111)
        kind_b = select(trans_b != 0, 112, 111)
        ccall(gemm, i32(101), i32(kind_a), i32(kind_b), i32(m), i32(n), i32(k), {t}(1), a, i32(lda), b, i32(ldb),
              keep, c, i32(ldc))
'''

_GEMM_BATCH = '''
def gemm_batch_{t}(a, b, c, m, n, k, lda, ldb, ldc, trans_a, trans_b, accumulate, batch, stride_a, stride_b, stride_c,
                   gemm, gemv, one):
    """`batch` products, their matrices stride_* elements apart; `one` is the address of gemm_{t}."""
    arguments = scratch()
    arguments[3] = m
    arguments[4] = n
    arguments[5] = k
    arguments[6] = lda
    arguments[7] = ldb
    arguments[8] = ldc
    arguments[9] = trans_a
    arguments[10] = trans_b
    arguments[11] = accumulate
    arguments[12] = gemm
    arguments[13] = gemv
    for i in range(batch):
        arguments[0] = address(at(a, i * stride_a))
        arguments[1] = address(at(b, i * stride_b))
        arguments[2] = address(at(c, i * stride_c))
        call(one, arguments)
'''

_CHECK_INDEX = '''
def check_index_{t}(index, status, count, limit, tag):
    """status = [tag, value, limit, position] for the first index outside 0 <= value < limit."""
    bad = 0
    for i in range(count):
        bad = radd(bad, select((index[i] < 0) | (index[i] >= limit), 1, 0))
    if bad != 0:
        for i in range(count):
            value = i64(index[i])
            if value < 0 or value >= limit:
                status[0] = tag
                status[1] = value
                status[2] = limit
                status[3] = i
                break
'''

_FILL = '''
def fill_{width}(out, count, bits):
    """Set `count` elements of {width} bits to the low bits of `bits`."""
    for i in range(count):
        out[i] = bits
'''

_COPY = '''
def copy(out, source, size):
    """Copy `size` bytes."""
    for i in range(size):
        out[i] = source[i]
'''


# ------------------------------------------------------------------------------------------------------ fixed kernels

_FLOATS, _INDICES, _FILLS = ("f32", "f64"), ("i32", "i64"), {8: "u8", 32: "i32", 64: "i64"}


@functools.cache
def fixed_sources() -> dict[str, KernelSource]:
    """The kernels that every program may use, and `run`, by name."""
    kernels = [KernelSource("run", _RUN, ("i64*", "i64*", "i64")),
               KernelSource("copy", _COPY, ("u8*", "u8*", "i64"))]
    for t in _FLOATS:
        pointers = (f"{t}*",) * 3
        kernels.append(KernelSource(f"gemm_{t}", _GEMM.format(t=t), pointers + ("i64",) * 11))
        kernels.append(KernelSource(f"gemm_batch_{t}", _GEMM_BATCH.format(t=t), pointers + ("i64",) * 16))
    for t in _INDICES:
        kernels.append(KernelSource(f"check_index_{t}", _CHECK_INDEX.format(t=t), (f"{t}*", "i64*") + ("i64",) * 3))
    for width, t in _FILLS.items():
        kernels.append(KernelSource(f"fill_{width}", _FILL.format(width=width), (f"{t}*", "i64", "i64")))
    return {kernel.name: kernel for kernel in kernels}


def fixed_kernels(*names: str) -> dict[str, int]:
    """The addresses of the named fixed kernels; of all of them when none is named."""
    sources = fixed_sources()
    return build([sources[name] for name in names or sources])


def trailing(name: str) -> tuple[int, ...]:
    """The addresses that a fixed kernel takes after its other arguments. Loads OpenBLAS for a matrix product."""
    if not name.startswith("gemm"):
        return ()
    letter = "s" if name.endswith("f32") else "d"
    routines = blas.address(f"{letter}gemm"), blas.address(f"{letter}gemv")
    single = name.replace("_batch", "")
    return routines if name == single else (*routines, *fixed_kernels(single).values())


# ----------------------------------------------------------------------------------------------------------- programs

@dataclass(frozen=True)
class Call:
    """One instruction: the address of a kernel and its arguments, each (slot, offset in bytes) or (0, integer)."""

    address: int
    arguments: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Moving:
    """A slot that moves in a loop: it begins at slots[parent] + offset, and advances by `step`, in bytes."""

    slot: int
    parent: int
    offset: int
    step: int


@dataclass(frozen=True)
class Repeat:
    """A loop: its body run a number of times; `counter` is a slot of its own."""

    times: int
    counter: int
    moving: tuple[Moving, ...]
    body: tuple[Call | Repeat, ...]


def encode(calls: Sequence[Call | Repeat]) -> np.ndarray[Any, np.dtype[np.int64]]:
    """The instructions as the driver reads them: see `run`."""
    words: list[int] = []
    _encode(calls, words)
    return np.array(words, np.int64)


def _encode(calls: Sequence[Call | Repeat], words: list[int]) -> None:
    for call in calls:
        if isinstance(call, Repeat):
            place = len(words)
            words += [BEGIN, len(call.moving), call.times, call.counter, 0]
            words += [word for m in call.moving for word in (m.slot, m.parent, m.offset)]
            first = len(words)
            _encode(call.body, words)
            words += [END, len(call.moving), first, call.counter]
            words += [word for m in call.moving for word in (m.slot, m.step)]
            words[place + 4] = len(words)
            continue
        if len(call.arguments) > SCRATCH_WORDS:
            raise ValueError(f"a kernel takes at most {SCRATCH_WORDS} arguments, not {len(call.arguments)}")
        words += [call.address, len(call.arguments), *(word for pair in call.arguments for word in pair)]


class Program:
    """Instructions bound to slots: what a step runs.

    `slots` may be written between runs (addresses as int64), all but the first two. One program is not for two threads
    at once.
    """

    def __init__(self, calls: Sequence[Call | Repeat], n_slots: int) -> None:
        self.slots = np.zeros(max(n_slots, FIRST_FREE_SLOT), np.int64)
        self._code = encode(calls)
        self._status = (ctypes.c_int64 * STATUS_WORDS)()
        self.slots[STATUS_SLOT] = ctypes.addressof(self._status)
        arguments = (self._code.ctypes.data, self.slots.ctypes.data, len(self._code))
        self._arguments = (ctypes.c_int64 * len(arguments))(*arguments)
        self._place = ctypes.addressof(self._arguments)
        self._entry = _entry()

    def bind(self, slot: int, array: np.ndarray[Any, Any]) -> None:
        """Let a slot hold the address of an array, which the caller keeps alive."""
        self.slots[slot] = array.ctypes.data

    def run(self) -> int:
        """Run all instructions; 0, or the first status word of the one that ended the run."""
        self._status[0] = 0
        self._entry(self._place)
        return self._status[0]

    @property
    def status(self) -> tuple[int, ...]:
        """The status words of the last run; (tag, value, limit, position) after an index check that failed."""
        return tuple(self._status)


@functools.cache
def _entry() -> Any:
    # The prototype releases the interpreter's lock: a step is long beside the price of that.
    return ctypes.CFUNCTYPE(None, ctypes.c_void_p)(fixed_kernels("run")["run"])
