"""What a schedule becomes for a CPU: kernels that keep what they need of a row in cache, and that can be divided."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from ..graph.node import TensorType
from .fission import fissioned
from .phases import phased
from .ranges import divided
from .rows import contracted
from .schedule import Buffer, Launch, Schedule
from .sums import accurate


def for_cpu(steps: Schedule) -> Schedule:
    """The schedule with each kernel brought into the form that a CPU runs best."""
    touched = Counter(b for step in steps.steps for b in set(steps.touches(step)))
    buffers = list(steps.buffers)
    changed = [_launch(s, buffers, touched) if isinstance(s, Launch) else s for s in steps.steps]
    return replace(steps, buffers=buffers, steps=changed)


def _launch(step: Launch, buffers: list[Buffer], touched: Counter[int]) -> Launch:
    """The launch of a kernel, with the arrays that it shortens."""
    own = [i for i, b in enumerate(step.buffers) if buffers[b].kind == "temp" and touched[b] == 1]
    kernel, rows = contracted(step.kernel, own)
    kernel, sums = accurate(divided(kernel))
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
