"""What a schedule becomes for a CPU: kernels that keep what they need of a row in cache, and that can be divided."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from ..graph.node import TensorType
from .fission import fissioned
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
    kernel, lengths = contracted(step.kernel, own)
    for array, length in lengths.items():
        buffer = buffers[step.buffers[array]]
        buffers[buffer.number] = replace(buffer, type=TensorType(buffer.type.dtype, (length,)))
    kernel, sums = accurate(divided(kernel))
    kernel, tiles = fissioned(kernel)
    made = []
    for array, length in (sums | tiles).items():
        name, dtype = kernel.arrays[array].name, kernel.arrays[array].dtype
        made.append(len(buffers))
        buffers.append(Buffer(len(buffers), "temp", name, TensorType(dtype, (length,)), kernel.nodes[array]))
    return replace(step, kernel=kernel, buffers=(*step.buffers, *made))
