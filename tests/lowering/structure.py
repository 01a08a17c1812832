"""What the tests of lowering look at: the steps of a program, and the loops of a kernel."""
from __future__ import annotations

from dataclasses import dataclass

from graphc.assembly import KernelBook, assemble
from graphc.frontend.model import trace_models
from graphc.graph.dtype import f64
from graphc.lowering.ir import Kernel, Loop, Statement, Store
from graphc.lowering.schedule import CheckIndex, Copy, Launch, Multiply, Schedule
from graphc.pipeline import lower, program_graph
from graphc.runtime.program import Program


@dataclass
class Lowered:
    """A program of a model: its schedule, and as data with its kernels' texts."""

    schedule: Schedule
    program: Program
    book: KernelBook

    @property
    def kernels(self) -> list[Kernel]:
        return [s.kernel for s in self.schedule.steps if isinstance(s, Launch)]

    @property
    def products(self) -> list[Multiply]:
        return [s for s in self.schedule.steps if isinstance(s, Multiply)]

    @property
    def copies(self) -> list[Copy]:
        return [s for s in self.schedule.steps if isinstance(s, Copy)]

    @property
    def checks(self) -> list[CheckIndex]:
        return [s for s in self.schedule.steps if isinstance(s, CheckIndex)]

    def kinds(self, kind: str) -> list[str]:
        """The names of the buffers of a kind."""
        return [b.name for b in self.program.buffers if b.kind == kind]

    def kernel_names(self) -> list[str]:
        """The generated kernels in the order in which they run."""
        return [i.kernel for i in self.program.instructions if not i.fixed]


def lowered(model, kind: str | None = None, optimiser=None, dtype=f64, **hyperparameters) -> Lowered:
    """The program of a model's one entry; without a kind, the one that gives all outputs."""
    module = trace_models([model], model.name, dtype, hyperparameters, optimiser)
    entry = model.name
    graph = program_graph(module, entry, kind or f"forward:{','.join(module.entries[entry].outputs)}")
    graph, steps = lower(graph, check=True)
    book = KernelBook()
    return Lowered(steps, assemble(entry, graph, steps, book), book)


def loops(items: list[Statement]) -> list[Loop]:
    """Every loop, outer ones first."""
    found = []
    for item in items:
        if isinstance(item, Loop):
            found += [item, *loops(item.before), *loops(item.body), *loops(item.after)]
    return found


def outer_loops(kernel: Kernel) -> list[Loop]:
    return [item for item in kernel.body if isinstance(item, Loop)]


def statements(items: list[Statement], kind: type = Store) -> list[Statement]:
    """Statements of a type, wherever they stand."""
    found = [item for item in items if isinstance(item, kind)]
    for item in items:
        if isinstance(item, Loop):
            found += statements(item.before, kind) + statements(item.body, kind) + statements(item.after, kind)
    return found

