"""Threads: parts of one instruction, run side by side by a pool of workers.

An instruction that was divided is shared out: the thread that runs the program puts it on the table, and it and the
workers take its parts from there, one by one, until none is left. A worker that is late finds nothing to do, and costs
nothing. Which thread runs a part makes no difference to the result: parts are cut beforehand, each has its own memory
for sums, and these are added in the order of the parts. So the same number of parts gives the same bits.

Workers wait for work in a loop for a fraction of a millisecond, then sleep. There is one pool in a process; OpenBLAS
is told to use one thread. A program that finds the pool taken, by another thread, runs its parts by itself.

The system likes to wake a worker on the very processor of the thread that woke it, and lets the two take turns there
for many milliseconds while another is idle. A worker that finds itself there takes no part, and moves away.
"""
from __future__ import annotations

import ctypes
import os
import sys
import threading
from collections.abc import Mapping
from typing import Any

from graphc.errors import RuntimeFault

VARIABLE = "GRAPHC_NUM_THREADS"

# Words of the table, each on a cache line of its own.
TICKET, DONE, BUSY, SLEEPING, CODE, SLOTS, WORKERS, PART, SHARE, POST, WAIT, SEMAPHORE, GETCPU, HOME = (
    8 * i for i in range(14))
TABLE_WORDS = 8 * 16
SPINS = 4000   # looks at the table before a worker sleeps: about a tenth of a millisecond
STAY = 1000    # parts that a worker does where it is, if there is no other processor, before it looks again

PART_TEXT = '''
def part(code, slots, p):
    """Run part p of the divided instruction at `code`."""
    arguments = scratch()
    n = code[1]
    parts = code[2]
    for j in range(n - 2):
        arguments[j] = slots[code[4 + 2 * j]] + code[5 + 2 * j]
    bounds = 2 * n
    arguments[n - 2] = code[bounds + 2 * p]
    arguments[n - 1] = code[bounds + 2 * p + 1]
    own = bounds + 2 * parts
    if p > 0:
        for j in range(code[own]):
            entry = own + 1 + 4 * j
            arguments[code[entry]] = slots[code[entry + 1]] + code[entry + 2] + (p - 1) * code[entry + 3]
    call(code[0], arguments)
'''

SHARE_TEXT = f'''
def share(code, slots, table):
    """Run all parts of the divided instruction at `code`, with the workers' help if the table is free."""
    arguments = scratch()
    parts = code[2]
    run = table[{PART}]
    arguments[0] = address(code)
    arguments[1] = address(slots)
    if table[{WORKERS}] == 0 or atomic_swap(table, {BUSY}, 1) != 0:
        for p in range(parts):
            arguments[2] = p
            call(run, arguments)
    else:
        table[{CODE}] = address(code)
        table[{SLOTS}] = address(slots)
        if table[{GETCPU}] != 0:
            ccall(table[{GETCPU}], address(at(table, {HOME})), 0, 0)
        atomic_store(table, {DONE}, 0)
        atomic_store(table, {TICKET}, parts << 16)
        if atomic_load(table, {SLEEPING}) != 0:
            for s in range(atomic_swap(table, {SLEEPING}, 0)):
                ccall(table[{POST}], table[{SEMAPHORE}])
        p = atomic_add(table, {TICKET}, 1) & 65535
        while p < parts:
            arguments[2] = p
            call(run, arguments)
            atomic_add(table, {DONE}, 1)
            p = atomic_add(table, {TICKET}, 1) & 65535
        while atomic_load(table, {DONE}) != parts:
            pause()
        atomic_store(table, {TICKET}, 0)
        atomic_store(table, {BUSY}, 0)
'''

WORK_TEXT = f'''
def work(table, stay):
    """A worker: take parts from the table, until it is on the processor of the thread that shares them out.

    stay: so many parts it takes there too.
    """
    arguments = scratch()
    spins = 0
    while True:
        ticket = atomic_load(table, {TICKET})
        if (ticket & 65535) < (ticket >> 16):
            if table[{GETCPU}] != 0 and stay <= 0:
                arguments[0] = 0
                ccall(table[{GETCPU}], address(arguments), 0, 0)
                if arguments[0] == table[{HOME}]:
                    break
            ticket = atomic_add(table, {TICKET}, 1)
            p = ticket & 65535
            if p < (ticket >> 16):
                arguments[0] = table[{CODE}]
                arguments[1] = table[{SLOTS}]
                arguments[2] = p
                call(table[{PART}], arguments)
                atomic_add(table, {DONE}, 1)
                stay -= 1
            spins = 0
        elif spins < {SPINS}:
            pause()
            spins += 1
        else:
            atomic_add(table, {SLEEPING}, 1)
            ticket = atomic_load(table, {TICKET})
            if (ticket & 65535) >= (ticket >> 16):
                ccall(table[{WAIT}], table[{SEMAPHORE}])
            spins = 0
'''


def default_threads() -> int:
    """How many threads a model may use: $GRAPHC_NUM_THREADS, or as many as this process has processors."""
    text = os.environ.get(VARIABLE)
    if text is None:
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if not text.isdecimal() or int(text) < 1:
        raise RuntimeFault(f"{VARIABLE} is {text!r}", why="it is the number of threads that a model may use",
                           how="set it to 1 or more, or remove it")
    return int(text)


def checked_threads(count: int | None) -> int:
    """A number of threads as it was asked for; None asks for the default. RuntimeFault where it is no such number."""
    if count is None:
        return default_threads()
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise RuntimeFault(f"threads={count!r}", why="it is the number of threads that a model may use",
                           how="pass 1 or more, or nothing")
    return count


class _Pool:
    """The table, and the workers around it."""

    def __init__(self) -> None:
        raw = ctypes.create_string_buffer(8 * TABLE_WORDS + 64)
        self._kept = raw
        self.address = -(-ctypes.addressof(raw) // 64) * 64
        self.table = (ctypes.c_int64 * TABLE_WORDS).from_address(self.address)
        self.workers = 0
        self._lock = threading.Lock()
        self._semaphore = ctypes.create_string_buffer(64)

    def grow(self, workers: int, addresses: Mapping[str, int]) -> None:
        """See to it that there are so many workers; none where the platform has no semaphores of the kind used."""
        with self._lock:
            self.table[PART], self.table[SHARE] = addresses["part"], addresses["share"]
            if workers <= self.workers or not sys.platform.startswith("linux"):
                return
            if self.workers == 0:
                library = ctypes.CDLL(None)
                library.sem_init(self._semaphore, 0, 0)
                self.table[POST] = _address(library.sem_post)
                self.table[WAIT] = _address(library.sem_wait)
                self.table[SEMAPHORE] = ctypes.addressof(self._semaphore)
                if hasattr(library, "getcpu"):
                    self.table[GETCPU] = _address(library.getcpu)
            work = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(addresses["work"])
            while self.workers < workers:
                threading.Thread(target=self._serve, args=(work,), daemon=True, name="graphc worker").start()
                self.workers += 1
            self.table[WORKERS] = self.workers

    def _serve(self, work: Any) -> None:
        """What a worker's thread runs: it works, and moves whenever it is in the way."""
        allowed = os.sched_getaffinity(0)  # as the thread had it that made this one
        arguments = (ctypes.c_int64 * 2)(self.address, 0)
        while True:
            work(ctypes.addressof(arguments))
            try:
                os.sched_setaffinity(0, allowed - {self.table[HOME]})
                arguments[1] = 0
            except OSError:  # there is no other processor
                arguments[1] = STAY


def _address(function: Any) -> int:
    address = ctypes.cast(function, ctypes.c_void_p).value
    assert address is not None
    return address


_pool = _Pool()


def table(threads: int = 1, kernels: Mapping[str, int] | None = None) -> int:
    """The address of the table of a pool in which so many threads, the caller's among them, take part.

    kernels: the addresses of `part`, `share` and `work`; a program in which nothing is divided needs none.
    """
    if kernels is not None:
        _pool.grow(threads - 1, kernels)
    return _pool.address


_left: list[_Pool] = []


def _after_fork() -> None:
    """A child process has the table but none of the workers: programs bound to it run their parts themselves."""
    global _pool
    _pool.table[WORKERS] = _pool.table[BUSY] = 0
    _left.append(_pool)
    _pool = _Pool()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
