"""What this machine can do at most, measured: multiply-adds, and bytes to and from memory and each cache.

The reference programs are like any other: they are divided among as many threads, by the same rule.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ..graph.dtype import f32, f64
from ..graph.size import parse, size
from .cache import KernelSource
from .execute import CpuExecutor
from .program import Buffer, Instruction, Private, Program
from .timeline import Timeline

SIDE = 256
"""Rows and columns of the square matrices whose product tells how many operations a second there are."""
LEAST, MOST = 1 << 14, 1 << 28
"""Bytes that are read and written to measure bandwidth: in the nearest cache, and in no cache. Between them, fourfold."""
WELL_TIMED = 1 << 20
"""Bytes of which reading takes long beside a tick of the clock: fewer are read several times."""
TRIES, WORTH = 8, 0.02
"""Times that a reference program is run at least, and seconds worth of runs; the best counts."""
CACHE = 1 << 23
"""Bytes of the largest cache where the system does not tell."""

_TEXTS = {
    "total": '''
def total(x, out, begin, end):
    """out = Σ x: reads alone."""
    v = f32(0)
    for i in range(begin, end):
        v = radd(v, x[i])
    out[0] = v
''',
    "triad": '''
def triad(x, y, out, begin, end):
    """out = x + 3 y: two reads and a write."""
    for i in range(begin, end):
        out[i] = x[i] + f32(3) * y[i]
''',
}


@dataclass(frozen=True)
class Peaks:
    """flops: operations a second, by float type; a product and its sum count as two. bandwidth: (bytes, bytes a second),
    by how many bytes are touched again and again, from few, which stay in the nearest cache, to many."""

    flops: Mapping[str, float]
    bandwidth: tuple[tuple[int, float], ...]

    def rate(self, count: int) -> float:
        """Bytes a second at which so many bytes can be touched: fewer are never slower than more."""
        return max((r for c, r in self.bandwidth if c >= count), default=self.bandwidth[-1][1])

    def least(self, operations: int, arrays: Iterable[tuple[int, int]], dtype: str) -> tuple[float, str]:
        """(the seconds that something takes at the peak, what bounds it: compute, cache or memory)

        arrays: (bytes, distance) of those that are touched; the distance, in bytes, decides which cache they come from.
        """
        computing = operations / self.flops[dtype]
        near = far = 0.0
        for count, distance in arrays:
            if distance <= largest_cache():
                near += count / self.rate(distance)
            else:
                far += count / self.rate(distance)
        if computing >= near + far:
            return computing, "compute"
        return near + far, "cache" if near > far else "memory"


def measure(threads: int, dtypes: Collection[str]) -> Peaks:
    """The peaks of so many threads, for some float types: "f32", "f64". It takes most of a second."""
    pointers = {"total": 2, "triad": 3}
    kernels = {n: KernelSource(n, t, ("f32*",) * pointers[n] + ("i64", "i64")) for n, t in _TEXTS.items()}
    executor = CpuExecutor(kernels, threads=threads)
    flops = {t: 2 * SIDE**3 / _best(Timeline(_product(t), {}, executor)) for t in sorted(dtypes)}
    bandwidth = []
    count = LEAST
    while count <= MOST:
        counts = {"total": count // f32.itemsize, "triad": count // (3 * f32.itemsize)}
        times = max(1, WELL_TIMED // count)
        runs = [Timeline(_stream(n, times), {"N": c}, executor, apart=False) for n, c in counts.items()]
        bandwidth.append((count, max(times * count / _best(run) for run in runs)))
        count *= 4
    return Peaks(flops, tuple(bandwidth))


def _best(timeline: Timeline) -> float:
    """Seconds of the fastest run."""
    first = float(min(timeline.run().sum() for _ in range(2)))  # the first touches its memory for the first time
    return min(first, *(float(timeline.run().sum()) for _ in range(max(TRIES, min(1000, int(WORTH / first))))))


def _product(dtype: str) -> Program:
    side, zero = size(SIDE), size(0)
    buffers = tuple(Buffer("temp", name, {"f32": f32, "f64": f64}[dtype], (side, side)) for name in "abc")
    arrays = tuple((n, zero) for n in range(3))
    instruction = Instruction(f"gemm_{dtype}", arrays, (*(side,) * 6, *(zero,) * 3), fixed=True)
    return Program("product", buffers, (instruction,), ())


def _stream(kernel: str, times: int) -> Program:
    length = parse("N")
    shapes = {"total": (length, size(1)), "triad": (length,) * 3}[kernel]
    buffers = tuple(Buffer("temp", str(n), f32, (extent,)) for n, extent in enumerate(shapes))
    arrays = tuple((n, size(0)) for n in range(len(buffers)))
    private = (Private(1, "scratch"),) if kernel == "total" else ()
    instruction = Instruction(kernel, arrays, (), extent=length, private=private)
    return Program(kernel, buffers, (instruction,) * times, ())


@functools.cache
def largest_cache() -> int:
    """The bytes of this processor's largest cache, as Linux tells it; CACHE elsewhere."""
    sizes = [file.read_text().strip() for file in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size")]
    return max((int(text[:-1]) << 10 for text in sizes if text.endswith("K")), default=CACHE)
