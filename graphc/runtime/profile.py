"""What the time of a call is spent on: every instruction of a program, beside what the machine could do at most."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..errors import InputError
from ..graph.size import Size, size
from .execute import CpuExecutor
from .model import Entry
from .peaks import Peaks, measure
from .program import Instruction, Loop, Program, plan_arena
from .signature import bind_sizes
from .strips import Strip
from .timeline import Timeline

Array = np.ndarray[Any, Any]
WARM, LEAST, MOST = 3, 10, 1000
"""Runs before the first that counts; the least and most that are counted, unless their number is given."""
WORTH = 0.5
"""Seconds worth of runs, unless their number is given."""


@dataclass(frozen=True)
class Timing:
    """Some runs of a kernel on arrays of the same sizes: one instruction of a program, or several that are equal.

    steps: their places in the program, from 1 on. seconds, operations, bytes: of all of them together, seconds being
    the mean of the middle half of the program's runs. least: the seconds that they would take at the machine's peak, and bound
    what limits them there: "compute", "cache" or "memory". parts: into how many parts each is cut, to run side by side.
    """

    steps: tuple[int, ...]
    instruction: Instruction
    seconds: float
    operations: int
    bytes: int
    least: float
    bound: str
    parts: int

    @property
    def fraction(self) -> float:
        """The part of the machine's peak that is reached."""
        return self.least / self.seconds


@dataclass(frozen=True)
class Profile:
    """Where the time of a program goes.

    kind: forward, gradient or step. runs: how many there were. timings: a row for each instruction.
    whole: seconds of the program as it runs, its instructions not timed apart. call: seconds of a call from Python.
    arena: bytes of its temporaries. strips: the steps that run block by block, together, by their places from 1 on.
    """

    program: Program
    kind: str
    sizes: Mapping[str, int]
    threads: int
    runs: int
    timings: tuple[Timing, ...]
    whole: float
    call: float
    arena: int
    peaks: Peaks
    strips: tuple[tuple[int, ...], ...] = ()

    @property
    def seconds(self) -> float:
        """The time of all instructions. Where the machine is busy it is less than `whole`: what disturbs a long run hits
        some instruction in each, but seldom the same."""
        return sum(t.seconds for t in self.timings)

    def share(self, timing: Timing) -> float:
        """The part of all instructions' time that some take."""
        return timing.seconds / self.seconds


def profile(entry: Entry, kind: str, inputs: Mapping[str, Any], runs: int | None = None) -> Profile:
    """Run a program of an entry, "forward", "gradient" or "step", on some inputs, and time its instructions.

    Its parameters and states are updated as by any call; give an entry of your own where that matters. runs: how often,
    by default about half a second long. InputError where the entry is not compiled for the CPU, or as a call has it.
    """
    executor = entry._context.executor
    if not isinstance(executor, CpuExecutor):
        raise InputError(f"{entry.name} is not compiled for the CPU, whose kernels alone can be timed")
    declared = {d.name: d for d in entry.signature.inputs}
    # of the declared types, and contiguous: what a call uses where it lies, so that the addresses hold for all runs
    given = {n: np.array(a, declared[n].dtype.numpy if n in declared else None, order="C") for n, a in inputs.items()}
    calls: dict[str, Callable[..., Any]] = {
        "forward": entry.forward,
        "gradient": entry.value_and_grad,
        "step": entry.step,
    }
    run = calls[kind]
    held = run(**given)  # the arrays that the timelines write into
    call = entry._choose(given, None)[0] if kind == "forward" else entry._gradient if kind == "gradient" else entry._step
    program, binding = call.program, call._last
    assert binding is not None
    sizes = bind_sizes([(declared[n], a.shape) for n, a in given.items()])
    places = [int(place) for place in binding.bound.places]
    apart = Timeline(program, sizes, executor, places)
    whole = Timeline(program, sizes, executor, places, apart=False)

    def timed() -> list[float]:
        """Seconds of each instruction, of their sequence, and of a call: one run each, so that noise is shared."""
        seconds = [*apart.run(), *whole.run()]
        begun = time.perf_counter()
        run(**given)
        return [*seconds, time.perf_counter() - begun]

    once = float(np.median([sum(timed()) for _ in range(WARM)]))
    runs = runs or min(MOST, max(LEAST, int(WORTH / once)))
    # the mean of the middle half is as robust as the median, and finer than a tick of the clock
    times = np.sort([timed() for _ in range(runs)], axis=0)[runs // 4 : runs - runs // 4].mean(axis=0)
    del held
    peaks = measure(executor.threads, {_float_type(program, i, sizes) for i in program.calls})
    timings = []
    touches = reuse(program, sizes, apart.strips)
    for step, (found, parts, arrays) in enumerate(zip(program.instructions, apart.parts, touches, strict=True)):
        instruction = _as_one(program, found) if isinstance(found, Loop) else found
        operations, dtype = instruction.operations.evaluate(sizes), _float_type(program, instruction, sizes)
        least, bound = peaks.least(operations, arrays, dtype)
        touched = sum(count for count, _ in arrays)
        timings.append(Timing((step + 1,), instruction, float(times[step]), operations, touched, least, bound, parts))
    together, called = float(times[-2]), float(times[-1])
    strips = tuple(tuple(number + 1 for number in strip.members) for strip in apart.strips)
    return Profile(program, kind, sizes, executor.threads, runs, tuple(timings), together, called, apart.arena, peaks, strips)


def _as_one(program: Program, loop: Loop) -> Instruction:
    """A loop as one instruction: its kernels together, their operations counted as often as they run."""

    def operations(body: tuple[Instruction | Loop, ...]) -> Size:
        each = (i.count * operations(i.body) if isinstance(i, Loop) else i.operations for i in body)
        return sum(each, size(0))

    arrays = dict.fromkeys((program.root(n), size(0)) for i in loop.calls for n, _ in i.arrays)
    kernels = ", ".join(dict.fromkeys(i.kernel for i in loop.calls))
    work = loop.count * operations(loop.body)
    return Instruction(f"loop: {kernels}", tuple(arrays), (loop.count,), fixed=True, operations=work)


def traffic(program: Program, instruction: Instruction | Loop, sizes: Mapping[str, int]) -> dict[int, int]:
    """The bytes of each array that an instruction reads or writes, by its buffer; of a look-up's table all.

    Of a loop, what its steps touch together.
    """
    if isinstance(instruction, Loop):
        steps: dict[int, int] = {}
        for inner in instruction.body:
            for number, count in traffic(program, inner, sizes).items():
                root = program.root(number)
                steps[root] = steps.get(root, 0) + instruction.count.evaluate(sizes) * count
        return steps
    values = [s.evaluate(sizes) for s in instruction.sizes]
    numbers = [n for n, _ in instruction.arrays]
    if instruction.kernel.startswith("gemm"):
        m, n, k = values[:3]
        batch, *strides = values[9:] or (1, 0, 0, 0)
        itemsize = program.buffers[numbers[0]].dtype.itemsize
        # a matrix that all products of a batch share has the stride 0
        counts = [
            count * (batch if stride else 1) * itemsize for count, stride in zip((m * k, k * n, m * n), strides, strict=True)
        ]
    elif instruction.kernel == "copy":
        counts = [values[0]] * 2
    else:
        buffers = [program.buffers[n] for n in numbers]
        counts = [b.numel.evaluate(sizes) * b.dtype.itemsize for b in buffers]
    found: dict[int, int] = {}
    for number, count in zip(numbers, counts, strict=True):
        found[number] = max(found.get(number, 0), count)
    return found


def reuse(program: Program, sizes: Mapping[str, int], strips: Iterable[Strip] = ()) -> list[list[tuple[int, int]]]:
    """For each instruction (bytes, distance) of the arrays that it touches, when the program runs again and again.

    The distance is how many bytes were touched since the array was, those of this instruction among them. It tells
    which cache can still hold the array: one smaller than it cannot. Of what runs block by block, arrays that one of them
    has touched come from the cache that a block fits into.
    """
    strips = list(strips)
    offsets, _ = plan_arena(program, sizes, [s.range for s in strips], {b for s in strips for b in s.local})
    touched = [traffic(program, instruction, sizes) for instruction in program.instructions]
    last: dict[tuple[str, int], int] = {}
    now = 0
    near = {place: strip.block_bytes for strip in strips for place in _touched_again(strip)}
    found: list[list[tuple[int, int]]] = []
    for _ in range(2):  # the first run touches everything; the second finds it as any later one does
        found = []
        for number, arrays in enumerate(touched):
            now += sum(arrays.values())
            # temporaries at one place of the arena are the same memory
            places = [("arena", offsets[n]) if n in offsets else ("buffer", n) for n in arrays]
            distances = (min(now - last.get(p, 0), near.get((number, n), now)) for n, p in zip(arrays, places, strict=True))
            found.append(list(zip(arrays.values(), distances, strict=True)))
            last |= dict.fromkeys(places, now)
    return found


def _touched_again(strip: Strip) -> Iterator[tuple[int, int]]:
    """(instruction, buffer) wherever one of a strip touches what lies in cache since another, or the last block, did."""
    seen = set(strip.local)
    for number, member in strip.members.items():
        touched = {r.buffer for r in member.regions if r is not None}
        yield from ((number, buffer) for buffer in touched & seen)
        seen |= touched


def _float_type(program: Program, instruction: Instruction, sizes: Mapping[str, int]) -> str:
    """The float type that an instruction mostly computes in: that of most of the elements that it touches."""
    counts = {"f32": 0, "f64": 0}
    for number in dict.fromkeys(n for n, _ in instruction.arrays):
        buffer = program.buffers[number]
        if buffer.dtype.is_float:
            counts[buffer.dtype.name] += buffer.numel.evaluate(sizes)
    return max(counts, key=lambda name: counts[name])


def merged(profile: Profile) -> list[Timing]:
    """Equal kernels on arrays of equal sizes added up; what takes longest comes first."""
    groups: dict[tuple[str, tuple[int, ...]], list[Timing]] = {}
    for timing in profile.timings:
        sizes = tuple(s.evaluate(profile.sizes) for s in timing.instruction.sizes)
        groups.setdefault((timing.instruction.kernel, sizes), []).append(timing)
    return sorted(map(_together, groups.values()), key=lambda t: -t.seconds)


def _together(timings: Sequence[Timing]) -> Timing:
    return replace(
        timings[0],
        steps=tuple(step for t in timings for step in t.steps),
        seconds=sum(t.seconds for t in timings),
        operations=sum(t.operations for t in timings),
        bytes=sum(t.bytes for t in timings),
        least=sum(t.least for t in timings),
    )


def time_text(seconds: float) -> str:
    """A time in the unit that suits it: `2.34 µs`."""
    for unit, scale in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= scale:
            return f"{seconds / scale:.2f} {unit}"
    return f"{seconds * 1e9:.0f} ns"
