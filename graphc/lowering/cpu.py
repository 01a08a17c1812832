"""What a schedule becomes for a CPU: kernels that keep what they need of a row in cache, and that can be divided."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

from ..graph.node import TensorType
from .fission import fissioned
from .multiply_adds import multiply_adds
from .phases import phased
from .ranges import divided
from .rows import contracted
from .schedule import Buffer, Launch, Repeat, Schedule, Step
from .sums import accurate
from .tiling import tiled


def for_cpu(steps: Schedule) -> Schedule:
    """The schedule with each kernel brought into the form that a CPU runs best."""
    touched: Counter[int] = Counter()
    _count(steps, steps.steps, touched)
    buffers = list(steps.buffers)
    return replace(steps, buffers=buffers, steps=_changed(steps.steps, buffers, touched))


def _count(schedule: Schedule, steps: Iterable[Step], touched: Counter[int]) -> None:
    """How many steps touch each buffer, or a part of it; what a loop does counts once."""
    for step in steps:
        if isinstance(step, Repeat):
            _count(schedule, step.steps, touched)
        else:
            touched.update({schedule.root(b) for b in schedule.touches(step)})


def _changed(steps: Iterable[Step], buffers: list[Buffer], touched: Counter[int]) -> list[Step]:
    changed: list[Step] = []
    for step in steps:
        if isinstance(step, Repeat):
            step = replace(step, steps=tuple(_changed(step.steps, buffers, touched)))
        changed.append(_launch(step, buffers, touched) if isinstance(step, Launch) else step)
    return changed


def _launch(step: Launch, buffers: list[Buffer], touched: Counter[int]) -> Launch:
    """The launch of a kernel, with the arrays that it shortens."""
    own = [i for i, b in enumerate(step.buffers) if buffers[b].kind == "temp" and touched[b] == 1]
    kernel, rows = contracted(multiply_adds(step.kernel), own)
    kernel, sums = accurate(tiled(divided(kernel)))
    kernel, phases = phased(kernel, rows)
    kernel, tiles = fissioned(kernel)
    lengths = rows | sums | phases | tiles
    made = []
    for array, length in lengths.items():
        kind = TensorType(kernel.arrays[array].dtype, (length,))
        if array < len(step.buffers):
            number = step.buffers[array]
            buffers[number] = replace(buffers[number], type=kind)
        else:
            made.append(len(buffers))
            buffers.append(Buffer(len(buffers), "temp", kernel.arrays[array].name, kind, kernel.nodes[array]))
    return replace(step, kernel=kernel, buffers=(*step.buffers, *made))
