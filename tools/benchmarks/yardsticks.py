"""What the machine can do at best, measured in the same run and in turn with what is held against it."""
from __future__ import annotations

import ctypes
import functools
import itertools
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import llvmlite.binding as llvm
import numpy as np

ITERATIONS = 100_000
CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
"""Linux tells the sizes of the caches here, in kilobytes: `32768K`."""
USUAL_CACHE = 32 << 20
"""Bytes of the last cache, where nothing tells."""
TURNS = 10
"""How often threads repeat what they do side by side: beside that, waking them is nothing."""


@functools.cache
def _pool(threads: int) -> ThreadPoolExecutor:
    """A thread for each core, which stays there: the system may put two on one core, and leave them there for long."""
    cores = itertools.cycle(sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [])

    def settle() -> None:
        core = next(cores, None)
        if core is not None:
            os.sched_setaffinity(0, {core})

    return ThreadPoolExecutor(threads, initializer=settle)


def side_by_side(calls: list[Callable[[], Any]]) -> tuple[Callable[[], Any], int]:
    """(all calls at once, each in a thread on a core of its own, how often they are done); they must release Python's
    lock."""
    if len(calls) == 1:
        return calls[0], 1
    pool = _pool(len(calls))

    def often(call: Callable[[], Any]) -> None:
        for _ in range(TURNS):
            call()

    def run() -> None:
        for future in [pool.submit(often, call) for call in calls]:
            future.result()
    return run, TURNS


@functools.cache
def _multiply_add() -> tuple[Any, int, Any]:
    """(a compiled loop of independent multiply-adds of whole registers, its float32 operations a turn, its owner)"""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    features = llvm.get_host_cpu_features()
    wide = features.get("avx512f", False)
    lanes = 16 if wide else 8 if features.get("avx", False) else 4
    # Enough chains to hide the latency of a multiply-add, and few enough for the registers: 16 of them with AVX2.
    chains = 24 if wide or "aarch64" in llvm.get_default_triple() else 12
    vector = f"<{lanes} x float>"
    text = [
        f"declare {vector} @llvm.fma.v{lanes}f32({vector}, {vector}, {vector})",
        "define float @peak(i64 %n, float %a, float %b) {", "entry:",
        f"  %a0 = insertelement {vector} poison, float %a, i32 0",
        f"  %av = shufflevector {vector} %a0, {vector} poison, <{lanes} x i32> zeroinitializer",
        f"  %b0 = insertelement {vector} poison, float %b, i32 0",
        f"  %bv = shufflevector {vector} %b0, {vector} poison, <{lanes} x i32> zeroinitializer",
        # the chains begin at different values, or they would be one
        *(f"  %s{i} = fmul {vector} %av, splat (float {float(i)})" for i in range(chains)),
        "  br label %loop", "loop:", "  %i = phi i64 [ 0, %entry ], [ %j, %loop ]",
        *(f"  %x{i} = phi {vector} [ %s{i}, %entry ], [ %y{i}, %loop ]" for i in range(chains)),
        *(f"  %y{i} = call {vector} @llvm.fma.v{lanes}f32({vector} %x{i}, {vector} %av, {vector} %bv)"
          for i in range(chains)),
        "  %j = add i64 %i, 1", "  %more = icmp slt i64 %j, %n", "  br i1 %more, label %loop, label %done", "done:",
        f"  %t0 = fadd {vector} %y0, %y0",
        *(f"  %t{i} = fadd {vector} %t{i - 1}, %y{i}" for i in range(1, chains)),
        f"  %r = extractelement {vector} %t{chains - 1}, i32 0", "  ret float %r", "}"]
    machine = llvm.Target.from_default_triple().create_target_machine(
        cpu=llvm.get_host_cpu_name(), features=features.flatten(), opt=2)
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly("\n".join(text)), machine)
    engine.finalize_object()
    kind = ctypes.CFUNCTYPE(ctypes.c_float, ctypes.c_int64, ctypes.c_float, ctypes.c_float)
    return kind(engine.get_function_address("peak")), 2 * lanes * chains, engine


def peak_call() -> tuple[Callable[[], Any], float]:
    """(a call, its float32 operations)"""
    function, operations, _ = _multiply_add()
    return functools.partial(function, ITERATIONS, 0.5, 1.0), float(operations) * ITERATIONS


@dataclass(frozen=True)
class Peak:
    """The arithmetic of a workload, as multiply-adds that wait for nothing.

    It is measured on one core; so many threads are held to as many times that. On all cores at once, one that another
    program takes away would make the peak as low as it makes what is held against it.
    """

    operations: float
    name: str = "peak"

    def prepare(self, threads: int) -> tuple[Callable[[], Any], float]:
        call, done = peak_call()
        return call, self.operations / (done * threads)


class Cores:
    """Are all cores there, each as fast as one alone? A virtual machine may find two of its own on one that is real, or
    share one with another machine, for a moment or for seconds."""

    SHORT = 100_000
    """Iterations, about a third of a millisecond."""
    SLACK = 1.15

    def __init__(self, threads: int) -> None:
        self.threads, self.together = threads, threading.Barrier(threads)
        self.function, _, _ = _multiply_add()
        self.alone = min(self._seconds() for _ in range(50))

    def _seconds(self) -> float:
        begin = time.perf_counter()
        self.function(self.SHORT, 0.5, 1.0)
        return time.perf_counter() - begin

    def all_there(self) -> bool:
        """Do multiply-adds on all of them at once take as long as on one?"""
        def one() -> float:
            self.together.wait()
            return self._seconds()

        futures = [_pool(self.threads).submit(one) for _ in range(self.threads)]
        taken = [future.result() for future in futures]
        self.alone = min(self.alone, *taken)
        return max(taken) <= self.SLACK * self.alone


@functools.cache
def beyond_the_caches() -> int:
    """How many float32 fill four times the last-level cache: what is copied then comes from memory, and goes there.

    STREAM's rule for the length of each array (J. McCalpin, "Memory Bandwidth and Machine Balance", 1995).
    """
    sizes = [int(file.read_text().strip().removesuffix("K")) << 10 for file in CACHES.glob("index*/size")]
    return 4 * max(sizes, default=USUAL_CACHE) // np.dtype(np.float32).itemsize


@dataclass(frozen=True)
class Copy:
    """The machine's copying, np.copyto through memory, a part on every core in use: `values` float32 of it."""

    values: int
    name: str = "copy"

    def prepare(self, threads: int) -> tuple[Callable[[], Any], float]:
        length = beyond_the_caches()
        source, target = np.ones(length, np.float32), np.zeros(length, np.float32)
        parts = zip(np.array_split(target, threads), np.array_split(source, threads))
        call, turns = side_by_side([functools.partial(np.copyto, t, s) for t, s in parts])
        return call, self.values / (length * turns)
