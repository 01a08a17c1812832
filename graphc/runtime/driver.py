"""A step as data: a list of kernel calls over slots, run by one native function.

A slot holds an address. An argument of an instruction is a pair (slot, offset) and has the value slots[slot] + offset,
in bytes; slot 0 always holds 0, so an integer v is (0, v). Slot 1 holds the address of the program's status, four
int64; the run ends after the instruction that sets the first of them. Behind the slots that a program asks for, two hold
the addresses of its code and of the slots themselves, so that an instruction can be a run of the driver over a part of the
code.

A loop is the instructions between a BEGIN and its END. Its moving slots begin at slots[parent] + offset, and advance by
a step each time; a parent may itself move, in a loop outside.

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
from graphc.runtime import products, threads
from graphc.runtime.cache import KernelSource, build

ZERO_SLOT, STATUS_SLOT, FIRST_FREE_SLOT = 0, 1, 2
STATUS_WORDS = 4

BEGIN, END = 0, 1  # in place of an address

_RUN = f'''
def run(code, slots, table, begin, end):
    """Run the instructions in the words of `code` from `begin` to `end`; see `encode`."""
    arguments = scratch()
    status = words_at(slots[1])
    pc = begin
    while pc < end:
        n = code[pc + 1]
        following = pc + code[pc + 3]
        if code[pc] == {BEGIN}:
            times = code[pc + 4]
            slots[code[pc + 2]] = times
            if times > 0:
                for j in range(n):
                    place = pc + 6 + 3 * j
                    slots[code[place]] = slots[code[place + 1]] + code[place + 2]
            else:
                following = code[pc + 5]
        elif code[pc] == {END}:
            counter = code[pc + 2]
            slots[counter] -= 1
            if slots[counter] > 0:
                for j in range(n):
                    slots[code[pc + 5 + 2 * j]] += code[pc + 6 + 2 * j]
                following = code[pc + 4]
        elif code[pc + 2] == 1:
            for j in range(n):
                arguments[j] = slots[code[pc + 4 + 2 * j]] + code[pc + 5 + 2 * j]
            call(code[pc], arguments)
            if status[0] != 0:
                break
        else:
            arguments[0] = address(at(code, pc))
            arguments[1] = address(slots)
            arguments[2] = address(table)
            call(table[{threads.SHARE}], arguments)
        pc = following
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


_COMBINE = '''
def combine_{reduce}_{t}(out, others, count, parts, stride):
    """Reduce `parts` more arrays of `count` elements, `stride` apart, into one, in their order."""
    for p in range(parts):
        other = at(others, p * stride)
        for i in range(count):
            out[i] = {expression}
'''
REDUCTIONS = {"sum": "out[i] + other[i]", "prod": "out[i] * other[i]", "max": "fmax(out[i], other[i])",
              "min": "fmin(out[i], other[i])"}


# ------------------------------------------------------------------------------------------------------ fixed kernels

_INDICES, _FILLS = ("i32", "i64"), {8: "u8", 32: "i32", 64: "i64"}


@functools.cache
def fixed_sources() -> dict[str, KernelSource]:
    """The kernels that every program may use, and `run`, by name."""
    words = ("i64*",) * 3
    kernels = [KernelSource("run", _RUN, ("i64*",) * 3 + ("i64",) * 2),
               KernelSource("part", threads.PART_TEXT, ("i64*", "i64*", "i64")),
               KernelSource("share", threads.SHARE_TEXT, words),
               KernelSource("work", threads.WORK_TEXT, ("i64*", "i64")),
               KernelSource("copy", _COPY, ("u8*", "u8*", "i64")),
               *products.sources()]
    for t in ("f32", "f64", "i32", "i64"):
        for reduce, expression in REDUCTIONS.items():
            text = _COMBINE.format(t=t, reduce=reduce, expression=expression)
            kernels.append(KernelSource(f"combine_{reduce}_{t}", text, (f"{t}*", f"{t}*", "i64", "i64", "i64")))
    for t in _INDICES:
        kernels.append(KernelSource(f"check_index_{t}", _CHECK_INDEX.format(t=t), (f"{t}*", "i64*") + ("i64",) * 3))
    for width, t in _FILLS.items():
        kernels.append(KernelSource(f"fill_{width}", _FILL.format(width=width), (f"{t}*", "i64", "i64")))
    return {kernel.name: kernel for kernel in kernels}


def fixed_kernels(*names: str) -> dict[str, int]:
    """The addresses of the named fixed kernels; of all of them when none is named."""
    sources = fixed_sources()
    return build([sources[name] for name in names or sources])


# ----------------------------------------------------------------------------------------------------------- programs

Argument = tuple[int, int]
"""(slot, offset in bytes), or (0, integer)."""


@dataclass(frozen=True)
class Own:
    """An argument that the parts of a divided instruction do not share: part p > 0 has `place`, p - 1 times `stride`
    bytes further."""

    number: int
    place: Argument
    stride: int


@dataclass(frozen=True)
class Call:
    """One instruction: the address of a kernel and its arguments.

    bounds: where it is divided, the (begin, end) of each part, in place of the last two arguments.
    """

    address: int
    arguments: tuple[Argument, ...]
    bounds: tuple[tuple[int, int], ...] = ()
    own: tuple[Own, ...] = ()


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
    body: tuple[Step, ...]


@dataclass(frozen=True)
class Strands:
    """Lists of instructions, to run side by side: each is a part of one divided instruction, a run of the driver, whose
    address is `run`. In them nothing is divided, and no slot is written that another reads."""

    run: int
    bodies: tuple[tuple[Call | Repeat, ...], ...]


Step = Call | Repeat | Strands


def encode(calls: Sequence[Step], n_slots: int = 0) -> np.ndarray[Any, np.dtype[np.int64]]:
    """The instructions as the driver reads them; n_slots is the slot that holds the address of the code, the next that of
    the slots.

    A call is: address, n, parts, its length in words; the pairs of the arguments; where there are several parts, their
    bounds in place of the last two pairs, then the number of arguments of their own, and for each its number, slot,
    offset and stride. A loop is a BEGIN: 0, n, counter, its length, how many times, the word after the loop, and n
    moving slots, each slot, parent and offset; its body; and an END: 1, n, counter, its length, the word after the
    BEGIN, and for each moving slot the slot and its step. Strands are a divided call of `run` whose length covers what
    follows it, the bodies one after the other; the bounds of a part are where its body begins and ends.
    """
    words: list[int] = []
    _encode(calls, words, n_slots)
    return np.array(words, np.int64)


def _encode(calls: Sequence[Step], words: list[int], n_slots: int) -> None:
    for call in calls:
        if isinstance(call, Strands):
            place, parts = len(words), len(call.bodies)
            words += [call.run, 5, parts, 0, n_slots, 0, n_slots + 1, 0, ZERO_SLOT, 0, *(0,) * (2 * parts), 0]
            for p, body in enumerate(call.bodies):
                words[place + 10 + 2 * p] = len(words)
                _encode(body, words, n_slots)
                words[place + 11 + 2 * p] = len(words)
            words[place + 3] = len(words) - place
            continue
        if isinstance(call, Repeat):
            n, place = len(call.moving), len(words)
            words += [BEGIN, n, call.counter, 6 + 3 * n, call.times, 0]
            words += [word for m in call.moving for word in (m.slot, m.parent, m.offset)]
            first = len(words)
            _encode(call.body, words, n_slots)
            words += [END, n, call.counter, 5 + 2 * n, first, *(word for m in call.moving for word in (m.slot, m.step))]
            words[place + 5] = len(words)
            continue
        if len(call.arguments) > SCRATCH_WORDS:
            raise ValueError(f"a kernel takes at most {SCRATCH_WORDS} arguments, not {len(call.arguments)}")
        divided = len(call.bounds) > 1
        shared = call.arguments[:-2] if divided else call.arguments
        rest = [word for pair in shared for word in pair]
        if divided:
            rest += [word for pair in call.bounds for word in pair]
            rest.append(len(call.own))
            rest += [word for o in call.own for word in (o.number, *o.place, o.stride)]
        words += [call.address, len(call.arguments), max(len(call.bounds), 1), 4 + len(rest), *rest]


def parts_of(call: Step) -> int:
    """Into how many parts, to run side by side, an instruction is cut; of a loop the most of any inside."""
    if isinstance(call, Strands):
        return len(call.bodies)
    return max(map(parts_of, call.body), default=1) if isinstance(call, Repeat) else max(len(call.bounds), 1)


class Program:
    """Instructions bound to slots: what a step runs.

    `slots` may be written between runs (addresses as int64), all but the first two and the last two. One program is not for two threads
    at once. workers: how many threads take part in its divided instructions.
    """

    def __init__(self, calls: Sequence[Step], n_slots: int, workers: int = 1) -> None:
        n_slots = max(n_slots, FIRST_FREE_SLOT)
        self.slots = np.zeros(n_slots + 2, np.int64)
        self._code = encode(calls, n_slots)
        status = np.zeros(STATUS_WORDS, np.int64)
        self._status = status.data  # a memoryview is read and written faster than an array
        fixed = {STATUS_SLOT: status, n_slots: self._code, n_slots + 1: self.slots}
        for slot, array in fixed.items():
            self.bind(slot, array)
        divided = any(parts_of(call) > 1 for call in calls)
        table = threads.table(workers, fixed_kernels("part", "share", "work")) if divided else threads.table()
        arguments = (self._code.ctypes.data, self.slots.ctypes.data, table, 0, len(self._code))
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
