"""A program that reads the clock between its instructions: how long each takes where it stands.

Reading the clock is a kernel too, `stamp`, whose calls stand between the others. So an instruction is timed as it runs:
by the driver and with the threads that it always has, on real values, its operands in the caches where the
instructions before it left them. And the times of all add up to that of the whole.
"""

from __future__ import annotations

import ctypes
import functools
import itertools
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ..errors import RuntimeFault
from . import driver
from .binding import Binder
from .cache import KernelSource, build
from .driver import Argument, Call, Repeat, Step, Strands
from .execute import CpuExecutor
from .memory import Arena
from .program import Program

_STAMP = '''
def stamp(now, clock, which):
    """now = [seconds, nanoseconds] of a clock, as the C function clock_gettime at the address `clock` gives them."""
    ccall(clock, i32(which), address(now))
'''
_SOURCE = KernelSource("stamp", _STAMP, ("i64*", "i64", "i64"))
_LAP = '''
def lap(now, total, clock, which):
    """total += the nanoseconds since the last lap, whose time `now` has, as `stamp` gives it."""
    before = now[0] * 1000000000 + now[1]
    ccall(clock, i32(which), address(now))
    total[0] += now[0] * 1000000000 + now[1] - before
'''
_LAP_SOURCE = KernelSource("lap", _LAP, ("i64*", "i64*", "i64", "i64"))
_STAMP_BYTES = 16
_EMPTY, _TRIES = 64, 32  # how many stamps follow each other to be timed themselves, and how often


class Timeline:
    """A program bound to sizes and addresses, to be run and timed.

    places: the address of each buffer by number; temporaries lie in memory of the timeline's own. None: all buffers are
    temporaries. apart: time every instruction; else their sequence as a whole, which nothing then interrupts. What runs block
    by block takes the share of the blocks' time that its own kernel does in them.
    RuntimeFault where the system has no clock_gettime.
    """

    def __init__(
        self,
        program: Program,
        sizes: Mapping[str, int],
        executor: CpuExecutor,
        places: Sequence[int] | None = None,
        apart: bool = True,
    ):
        arena_slot = driver.FIRST_FREE_SLOT
        slots = {n: arena_slot + 1 + n for n in range(len(program.buffers))}
        counters = itertools.count(arena_slot + 1 + len(slots))
        binder = Binder(executor.addresses(program), sizes, slots, arena_slot, executor.threads, counters=counters)
        groups, length = binder.by_instruction(program)
        self.strips = binder.strips(program, program.instructions)
        """The instructions that run block by block."""
        self.arena = length
        """Bytes of the temporaries, and of what parts have of their own."""
        self.parts = [max(map(driver.parts_of, group), default=1) for group in groups]
        """Into how many parts, to run side by side, each instruction is cut."""
        for strip in self.strips:
            for number in strip.members:
                self.parts[number] = len(strip.parts)
        self._arena = Arena()
        self._arena.reserve(length)
        self._laps: list[_Laps] = []
        if apart:
            for strip in self.strips:
                self._laps.append(_Laps(list(strip.members), groups[max(strip.members)], next(counters)))
                groups[max(strip.members)] = self._laps[-1].steps
        else:
            groups = [[call for group in groups for call in group]]
        self._stamped = _Stamped(groups, next(counters), executor.threads)
        self._stamped.native.bind(arena_slot, self._arena.block)
        for laps in self._laps:
            self._stamped.native.bind(laps.slot, laps.words)
        for slot, place in zip(slots.values(), places or (), strict=False):  # behind them are counters of loops
            self._stamped.native.slots[slot] = place

    def run(self) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Run once: the seconds that each instruction took, the stamp's own time taken off; never below 1 ns."""
        for laps in self._laps:
            laps.words[:] = 0
        seconds = self._stamped.run() - _stamp_seconds()
        for laps in self._laps:
            seconds[laps.numbers] = seconds[laps.numbers[-1]] * laps.shares
        return np.maximum(seconds, 1e-9)


class _Laps:
    """The calls of a strip with a lap after each: which of its instructions the time of its blocks is spent on.

    words: for each part the time of its last lap (two words), then the nanoseconds of what is no instruction, and of each.
    """

    def __init__(self, numbers: list[int], steps: Sequence[Step], slot: int):
        self.numbers, self.slot = numbers, slot
        self._address, self._clock = build([_LAP_SOURCE])["lap"], _clock()
        self._width = 3 + len(numbers)
        bodies = steps[0].bodies if isinstance(steps[0], Strands) else (tuple(steps),)
        self.words = np.zeros((len(bodies), self._width), np.int64)
        timed = [tuple(self._timed(step, row) for step in body) for row, body in enumerate(bodies)]
        self.steps: list[Step] = [replace(steps[0], bodies=tuple(timed))] if isinstance(steps[0], Strands) else [*timed[0]]

    def _timed(self, step: Step, row: int) -> Any:
        """A loop with laps between the calls of a block."""
        assert isinstance(step, Repeat)
        if any(isinstance(inner, Repeat) for inner in step.body):
            return replace(step, body=tuple(self._timed(inner, row) for inner in step.body))
        body: list[Step] = [self._lap(row, 0)]
        for number, call in enumerate(step.body, 1):
            body += [call, self._lap(row, number)]
        return replace(step, body=tuple(body))

    def _lap(self, row: int, number: int) -> Call:
        now = 8 * row * self._width
        places: tuple[Argument, ...] = ((self.slot, now), (self.slot, now + 8 * (2 + number)))
        return Call(self._address, (*places, (0, self._clock), (0, time.CLOCK_MONOTONIC)))

    @property
    def shares(self) -> np.ndarray[Any, np.dtype[np.float64]]:
        """The share of the last run's time that each instruction took."""
        taken = self.words[:, 3:].sum(axis=0)
        shares: np.ndarray[Any, np.dtype[np.float64]] = taken / max(1, taken.sum())
        return shares


class _Stamped:
    """Groups of calls with a stamp before, between and behind them."""

    def __init__(self, groups: Sequence[Sequence[Step]], n_slots: int, threads: int):
        self.times = np.zeros((len(groups) + 1, 2), np.int64)
        address, clock = build([_SOURCE])["stamp"], _clock()
        which = time.CLOCK_MONOTONIC
        stamps = [
            Call(address, ((n_slots, i * _STAMP_BYTES), (0, clock), (0, which))) for i in range(len(self.times))
        ]
        calls: list[Step] = [stamps[0]]
        for group, stamp in zip(groups, stamps[1:], strict=True):
            calls += [*group, stamp]
        self.native = driver.Program(calls, n_slots + 1, threads)
        self.native.bind(n_slots, self.times)

    def run(self) -> np.ndarray[Any, np.dtype[np.float64]]:
        if self.native.run():
            raise RuntimeFault("a check failed while the program was timed", why="an earlier run with the same inputs passed")
        seconds, nanoseconds = np.diff(self.times, axis=0).T
        taken: np.ndarray[Any, np.dtype[np.float64]] = seconds + nanoseconds * 1e-9
        return taken


@functools.cache
def _clock() -> int:
    """The address of the C function clock_gettime."""
    try:
        address = ctypes.cast(ctypes.CDLL(None).clock_gettime, ctypes.c_void_p).value
        assert address is not None and time.CLOCK_MONOTONIC is not None
        return address
    except (AttributeError, OSError, TypeError) as error:  # a system that is not POSIX
        raise RuntimeFault(
            "kernels cannot be timed on this system", why="it has no clock_gettime, which is read between them"
        ) from error


@functools.cache
def _stamp_seconds() -> float:
    """What a stamp adds to the time between two stamps."""
    empty = _Stamped([[]] * _EMPTY, driver.FIRST_FREE_SLOT, 1)
    return float(np.median([empty.run() for _ in range(_TRIES)]))
