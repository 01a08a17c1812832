"""The stages from a model's function to a program, in their order. Only this module knows them all.

trace → canonicalise → stabilise → differentiate → optimise → lower → codegen → program
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .assembly import KernelBook, assemble, print_program
from .derivatives.partials import partial as local_partial
from .derivatives.reverse import expand, watch
from .errors import GraphcError, InputError, ModelError, SourceLine, short_path
from .frontend.init import generator
from .frontend.load import choose, load_file
from .frontend.model import Model, Module, Optimiser, trace_models
from .frontend.trace import Declaration
from .graph.dtype import DType, f32, f64
from .graph.graph import Graph
from .graph.node import Node, TensorType, size_names
from .graph.text import print_graph
from .lowering.cpu import for_cpu
from .lowering.report import report
from .lowering.schedule import Schedule, schedule
from .ops.verify import verify
from .passes.calls import asks_for_training, counting, for_training
from .passes.default import canonicalise, optimise, stabilise
from .passes.rewrite import Firings
from .runtime import artifact, variables
from .runtime.cache import Progress
from .runtime.collector import no_collection
from .runtime.cuda import ptx_of
from .runtime.execute import EXECUTORS
from .runtime.memory import Arena
from .runtime.model import CompiledModel, Entry, Info
from .runtime.program import Program
from .runtime.signature import Declared, Signature, forward_kind
from .runtime.threads import checked_threads
from .runtime.variables import Parameters, States

if TYPE_CHECKING:
    from sympy import Basic

STAGES = ("trace", "canonicalise", "stabilise", "differentiate", "optimise", "lower", "codegen")
DTYPES: Mapping[str, DType] = {"float32": f32, "float64": f64}


@no_collection()
def compile(
    *models: Any,
    target: str = "cpu",
    dtype: str | None = None,
    seed: int = 0,
    model: str | None = None,
    optimiser: Optimiser | None = None,
    progress: Progress | None = None,
    check: bool = False,
    threads: int | None = None,
    **hyperparameters: Any,
) -> CompiledModel:
    """Compile a model function, several, or a model file.

    target: "cpu" (compiled kernels), "numpy" (the same generated source, run as plain Python) or "cuda" (NVIDIA GPUs).
    dtype: "float32" or "float64", the type of parameters and fresh arrays; float32, but float64 for target "numpy".
    seed: of the initial parameters. model: the one to take of a file with several. optimiser: makes `step` available.
    check: verify every graph after every pass. threads: the most that a call may use, the caller's among them; without it
    $GRAPHC_NUM_THREADS, or as many as there are processors. Other keywords are the models' hyperparameters.
    """
    options = Options(target, dtype, seed, check, progress, threads)
    chosen, name, digest = resolve(models, model)
    module = trace_models(chosen, name, options.float_type, hyperparameters, optimiser)
    return Compilation(module, options, digest).model()


def resolve(models: Iterable[Any], name: str | None = None) -> tuple[list[Model], str, str]:
    """(models, the name of their module, the digest of their file) of model functions or of the path of a file."""
    given = list(models)
    if len(given) == 1 and isinstance(given[0], (str, Path)):
        file = load_file(given[0])
        return choose(file, name), file.name, file.digest
    for m in given:
        if not isinstance(m, Model):
            raise ModelError(
                f"{m!r} is no model", how="pass functions decorated with @gc.model, or the path of one model file"
            )
    if name is not None and given:
        known = [m.name for m in given]
        if name not in known:
            raise ModelError(f"there is no model {name!r} among {', '.join(known)}")
        given = [m for m in given if m.name == name]
    if not given:
        raise ModelError("there is nothing to compile", how="pass a model or the path of a model file")
    return given, given[0].name, ""


@dataclass(frozen=True)
class Options:
    """How to compile; see `compile`."""

    target: str = "cpu"
    dtype: str | None = None
    seed: int = 0
    check: bool = False
    progress: Progress | None = None
    threads: int | None = None

    def __post_init__(self) -> None:
        checked_threads(self.threads)
        if self.target not in EXECUTORS:
            raise ModelError(f"there is no target {self.target!r}", how=f"one of {', '.join(EXECUTORS)}")
        if not isinstance(self.seed, int) or self.seed < 0:
            raise ModelError(f"the seed {self.seed!r} is no natural number")
        if self.dtype is not None and self.dtype not in DTYPES:
            raise ModelError(f"there is no dtype {self.dtype!r}", how=f"one of {', '.join(DTYPES)}")

    @property
    def float_type(self) -> DType:
        return DTYPES[self.dtype or ("float64" if self.target == "numpy" else "float32")]


# -- the graph of a program ------------------------------------------------------------------------------------------
def program_graph(module: Module, entry: str, kind: str) -> Graph:
    """The graph that a program of an entry computes: "forward:OUTPUT,…:UPDATE,…", "gradient", "step".

    A forward program whose kind ends with ":train" is one of a call that trains, as the others are.
    """
    training = not kind.startswith("forward:") or kind.endswith(":train")
    return for_training(_chosen(module, entry, kind), training)


def _chosen(module: Module, entry: str, kind: str) -> Graph:
    graph = module.entries[entry]
    if kind.startswith("forward:"):
        _, outputs, *updates = kind.removesuffix(":train").split(":")
        targets = list(graph.updates.items())
        chosen = dict(targets[int(i)] for i in updates[0].split(",") if i) if updates else graph.updates
        return replace(graph, outputs={n: graph.outputs[n] for n in outputs.split(",") if n}, updates=chosen)
    if "loss" not in graph.outputs:
        raise InputError(
            f"model {entry} has no output named 'loss', so there is nothing to differentiate",
            how="return gc.outputs(loss=…), a scalar",
        )
    if kind == "step":
        if entry not in module.steps:
            raise InputError(
                f"model {entry} was compiled without an optimiser",
                how="gc.compile(model, optimiser=graphc.train.Adam(1e-3))",
            )
        return module.steps[entry]
    gradients = {
        f"grad:{n}": Node("grad", (graph.outputs["loss"], _param(module, n)), _type(module, n))
        for n in trainable(module, entry)
    }
    return replace(graph, outputs={**graph.outputs, **gradients})


def trainable(module: Module, entry: str) -> tuple[str, ...]:
    """The names of an entry's parameters that gradients are taken of."""
    return tuple(n for n in module.variables_of[entry] if module.declarations[n].variable.trainable)


def _type(module: Module, name: str) -> TensorType:
    variable = module.declarations[name].variable
    return TensorType(variable.dtype, variable.shape)


def _param(module: Module, name: str) -> Node:
    return Node("param", (), _type(module, name), name=name)


def needs_of(graph: Graph, node: Node) -> frozenset[str]:
    """The inputs that a value needs: those it depends on, and one for each size that only it fixes."""
    sources = graph.sources(node)
    needed = {n.attr("name") for n in sources if n.op == "input"}
    used = {name for n in sources for name in size_names(n)}

    def fixes(i: Node, name: str) -> bool:
        return any(str(e) == name for e in i.shape)

    for name in sorted(used):
        if not any(fixes(i, name) for i in graph.inputs if i.attr("name") in needed):
            needed |= {i.attr("name") for i in [i for i in graph.inputs if fixes(i, name)][:1]}
    return frozenset(needed)


# -- the stages ------------------------------------------------------------------------------------------------------
def lower(
    graph: Graph,
    *,
    check: bool = False,
    fired: Firings | None = None,
    stop_after: str | None = None,
    target: str = "cpu",
) -> tuple[Graph, Schedule | None]:
    """Run the stages on a traced graph, up to `stop_after`. (the graph, its schedule if it came so far)"""
    graph = replace(graph, tables=graph.tables.copy())
    for name, node in graph.outputs.items():
        graph.tables.names.setdefault(node, name)
    for stage, run in (
        ("trace", lambda g: g),
        ("canonicalise", lambda g: canonicalise(watch(g), fired)),
        ("stabilise", lambda g: stabilise(g, fired)),
        ("differentiate", expand),
        ("optimise", lambda g: counting(optimise(g, fired))),
    ):
        graph = run(graph)
        if check:
            verify(graph, stage=stage, expanded=stage in ("differentiate", "optimise"))
        if stage == stop_after:
            return graph, None
    steps = schedule(graph)
    return graph, steps if target == "cuda" else for_cpu(steps)


def derive(graph: Graph) -> Graph:
    """A traced graph with its gradients expanded and nothing else changed: what pictures of a derivation show."""
    return expand(replace(graph, tables=graph.tables.copy()))


def local_derivative(op: str, operand: int) -> Basic:
    """∂f/∂operand of an elementwise operation as the compiler takes it, in the operation's symbols and its output `y`."""
    return local_partial(op, operand)


def stage_text(module: Module, entry: str, kind: str, stage: str, target: str = "cpu") -> str:
    """What a program of an entry looks like after a stage, as text."""
    if stage not in STAGES:
        raise ModelError(f"there is no stage {stage!r}", how=f"one of {', '.join(STAGES)}")
    graph, steps = lower(program_graph(module, entry, kind), check=True, stop_after=stage, target=target)
    head = f"# {entry}, {kind} program, after the stage {stage!r}\n"
    if steps is None:
        return head + print_graph(renamed(graph, short_path))
    book = KernelBook(target)
    program = assemble(f"{entry}:{kind}", graph, steps, book)
    return head + (print_program(program) if stage == "lower" else book.text())


def schedule_text(module: Module, entry: str, kind: str, target: str = "cpu") -> str:
    """The steps of a program of an entry in words: what each computes, moves and costs, and why it is one."""
    _, steps = lower(program_graph(module, entry, kind), target=target)
    assert steps is not None
    return f"# {entry}, {kind} program, {len(steps.steps)} steps\n\n{report(steps)}"


MOST_FORWARD_PROGRAMS = 64


# -- the compiled model ----------------------------------------------------------------------------------------------
class Compilation:
    """A module being compiled: programs are made when they are first asked for, kernels when they first run."""

    def __init__(self, module: Module, options: Options, digest: str = ""):
        self.module, self.options, self.digest = module, options, digest
        self.book = KernelBook(options.target)
        self.constants: dict[str, np.ndarray[Any, Any]] = {}
        self.fired = Firings()
        self.programs: dict[tuple[str, str], Program] = {}
        self.certificate: Mapping[str, Any] | None = None  # what verification showed, to be kept in the artifact

    @no_collection()
    def program(self, entry: str, kind: str) -> Program:
        """The program of a kind; see `program_graph`."""
        if (entry, kind) not in self.programs:
            graph = program_graph(self.module, entry, kind)
            graph, steps = lower(graph, check=self.options.check, fired=self.fired, target=self.options.target)
            assert steps is not None
            for i, buffer in enumerate(steps.buffers):  # constants are shared by content
                if buffer.kind == "const":
                    name = self._constant(buffer.node.attr("value").array)
                    steps.buffers[i] = replace(buffer, name=name)
            self.programs[entry, kind] = assemble(f"{entry}:{kind}", graph, steps, self.book)
        return self.programs[entry, kind]

    def _program_for(self, entry: str, kind: str, given: Collection[str]) -> Program:
        return self.program(entry, kind)

    def _constant(self, array: np.ndarray[Any, Any]) -> str:
        for name, known in self.constants.items():
            if known.dtype == array.dtype and known.shape == array.shape and known.tobytes() == array.tobytes():
                return name
        name = f"constant_{len(self.constants)}"
        self.constants[name] = array
        return name

    def signature(self, entry: str) -> Signature:
        """What an entry takes and gives."""
        graph = self.module.entries[entry]
        return Signature(
            tuple(Declared(i.attr("name"), i.dtype, i.shape) for i in graph.inputs),
            tuple(Declared(n, v.dtype, v.shape) for n, v in graph.outputs.items()),
            {n: needs_of(graph, v) for n, v in graph.outputs.items()},
            {target.attr("name"): needs_of(graph, v) for target, v in graph.updates.items()},
            trainable(self.module, entry),
            asks_for_training(graph),
        )

    def kinds(self, entry: str) -> list[str]:
        """The programs that an artifact carries: the gradient, the step, and forward ones for every set of inputs that
        suffices for other outputs and updates than its subsets."""
        signature = self.signature(entry)
        needs = [*signature.needs.values(), *signature.update_needs.values()]
        sets: set[frozenset[str]] = {frozenset()} if not needs else set()
        for needed in dict.fromkeys(needs):
            sets |= {needed} | {needed | other for other in sets}
            if len(sets) > MOST_FORWARD_PROGRAMS:  # then one for each output, and one for all
                sets = {*needs, frozenset().union(*needs)}
                break
        kinds: dict[str, None] = {}
        for given in sorted(sets, key=lambda s: (len(s), sorted(s))):
            outputs = [n for n, needed in signature.needs.items() if needed <= given]
            kinds[forward_kind(signature, outputs, given)] = None
        for name, needed in signature.needs.items():
            kinds[forward_kind(signature, [name], needed)] = None
        if signature.trains:
            kinds |= {f"{k}:train": None for k in kinds}
        kinds |= {"gradient": None} if "loss" in signature.needs else {}
        kinds |= {"step": None} if entry in self.module.steps else {}
        return [k for k in kinds if k.removesuffix(":train") != "forward::"]

    def model(self) -> CompiledModel:
        """The compiled model, its parameters at their beginning."""
        declarations = self.module.declarations
        params = {n: d for n, d in declarations.items() if d.variable.kind == "param"}
        arrays = variables.allocate(
            {n: (d.variable.dtype, tuple(map(int, d.variable.shape))) for n, d in params.items()}
        )
        for name, declaration in params.items():
            arrays[name][...] = self._initial(declaration, arrays[name].shape)
        states = {n: d for n, d in declarations.items() if d.variable.kind == "state"}
        # a state of symbolic shape begins with one number
        known = {n: all(e.constant is not None for e in d.variable.shape) for n, d in states.items()}
        initial = {
            n: self._initial(d, tuple(map(int, d.variable.shape)) if known[n] else ()) for n, d in states.items()
        }
        parameters = Parameters(arrays, {n: d.variable.trainable for n, d in params.items()})
        state_arrays = States({n: (d.variable.dtype, d.variable.shape) for n, d in states.items()}, initial)
        executor = EXECUTORS[self.options.target](self.book.kernels, self.options.progress, self.options.threads)
        arena = Arena()
        entries = {
            name: Entry(
                name,
                self.signature(name),
                partial(self._program_for, name),
                executor,
                self.constants,
                parameters,
                state_arrays,
                arena,
            )
            for name in self.module.entries
        }
        info = Info(self.full_source, lambda: self.module.entries, self.save)
        return CompiledModel(self.module.name, entries, parameters, state_arrays, info)

    def _initial(self, declaration: Declaration, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
        """How a variable begins. ModelError, at its line, where the initialiser does not give its shape."""
        variable = declaration.variable
        try:
            drawn = np.asarray(declaration.init(shape, generator(self.options.seed, variable.name)))
        except GraphcError as error:
            error.where = error.where or declaration.source
            raise
        if drawn.shape not in (shape, ()):
            what = (
                f"the initialiser of {variable.name!r} gives the shape {drawn.shape}, the {variable.kind} has {shape}"
            )
            raise ModelError(what, where=declaration.source)
        return np.broadcast_to(drawn, shape).astype(variable.dtype.numpy)

    def complete(self) -> None:
        """Make every program that an artifact carries."""
        for entry in self.module.entries:
            for kind in self.kinds(entry):
                self.program(entry, kind)

    def full_source(self) -> str:
        self.complete()
        return self.book.text()

    def ptx(self, cc: int) -> dict[str, str]:
        """Every kernel of the target cuda as PTX for a compute capability, by name."""
        self.complete()
        programs = [self.program(n, k) for n in self.module.entries for k in self.kinds(n)]
        return ptx_of(self.book.kernels, programs, cc)

    def save(self, model: CompiledModel, folder: Path, progress: Progress | None = None) -> Path:
        """Write the artifact, its kernels compiled into the cache."""
        self.complete()
        contents = artifact.Contents(
            name=self.module.name,
            source=self.book.text(),
            signatures=self.book.signatures,
            entries={
                n: (self.signature(n), {k: self.program(n, k) for k in self.kinds(n)}) for n in self.module.entries
            },
            graphs={n: print_graph(renamed(g, lambda path: Path(path).name)) for n, g in self.module.entries.items()},
            constants=self.constants,
            params=model.params,
            states=model._states,
            options={
                "target": self.options.target,
                "dtype": self.options.float_type.name,
                "seed": self.options.seed,
                "hyperparameters": self.module.hyperparameters,
                "model_digest": self.digest,
            },
            rules=dict(self.fired.counts),
            certificate=self.certificate,
            vocab=model.vocab,
        )
        return artifact.save(contents, folder, progress)


def renamed(graph: Graph, name: Callable[[str], str]) -> Graph:
    """The graph with its source files under other names: by name alone where its text is to hold no path of this machine."""

    def of(source: SourceLine | None) -> SourceLine | None:
        return source and replace(source, file=name(source.file))

    tables = graph.tables.copy()
    for node, origins in tables.origins.items():
        tables.origins[node] = tuple(replace(o, source=of(o.source)) for o in origins)
    return replace(graph, tables=tables, guards=tuple(replace(g, source=of(g.source)) for g in graph.guards))
