"""Models: the decorator, parameters, states, updates, outputs, and the trace of a model's function."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from types import TracebackType
from typing import Any, Protocol

from ..errors import GraphcError, ModelError, SourceLine, TraceError, raise_all
from ..graph.dtype import Annotation, DType
from ..graph.graph import Graph, Variable
from ..graph.node import Node, TensorType
from ..graph.size import Size, parse, size
from .init import Constant, resolve, zeros
from .mistakes import explained
from .settle import settle
from .shape import shape_of
from .tensor import Tensor, fail, lift
from .trace import Declaration, Trace, active, caller, check_name, current

RESERVED_INPUTS = ("train", "seed", "out", "outputs")
RESERVED_HYPERPARAMETERS = ("target", "dtype", "seed", "model")


@dataclass(frozen=True)
class Outputs:
    """The named results of a model."""

    values: Mapping[str, Tensor]


def outputs(**values: Any) -> Outputs:
    """The results of a model by name; `loss` is what value_and_grad differentiates."""
    return Outputs({name: lift(value) for name, value in values.items()})


@dataclass(frozen=True)
class Model:
    """A function that describes a computation: its positional parameters are inputs, its keyword ones hyperparameters."""

    function: Callable[..., Any]  # gives Outputs; what else it gives is an error with a message
    name: str
    inputs: Mapping[str, Annotation]
    hyperparameters: Mapping[str, Any]
    source: SourceLine

    def __call__(self, *args: Any, **kwargs: Any) -> Outputs:
        """Used inside another model, a model is an ordinary function."""
        return self.function(*args, **kwargs)


def model(function: Callable[..., Outputs]) -> Model:
    """Mark a function as a model: `@gc.model def xor(x: gc.f32["B", 2], *, hidden: int = 2)`."""
    source = SourceLine(function.__code__.co_filename, function.__code__.co_firstlineno)
    name = function.__name__
    annotations = inspect.get_annotations(function, eval_str=True)
    inputs: dict[str, Annotation] = {}
    hyperparameters: dict[str, Any] = {}
    errors: list[GraphcError] = []

    def wrong(what: str, how: str) -> None:
        errors.append(ModelError(f"model {name}: {what}", where=source, how=how))

    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY:
            if parameter.default is parameter.empty:
                wrong(
                    f"the hyperparameter {parameter.name!r} has no default",
                    f"write {parameter.name}=… in the signature",
                )
            if parameter.name in RESERVED_HYPERPARAMETERS:
                wrong(f"the hyperparameter name {parameter.name!r} is reserved for gc.compile", "choose another name")
            hyperparameters[parameter.name] = parameter.default
        elif parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            wrong(f"*{parameter.name} cannot be an input", "name each input with its type")
        else:
            annotation = annotations.get(parameter.name)
            if isinstance(annotation, DType):
                annotation = annotation[()]
            if not isinstance(annotation, Annotation):
                wrong(
                    f"the input {parameter.name!r} has no type",
                    f'annotate it, for example {parameter.name}: gc.f32["B", 2]; hyperparameters stand behind a *',
                )
            elif parameter.name in RESERVED_INPUTS:
                wrong(
                    f"the input name {parameter.name!r} is reserved",
                    f"choose another name; {', '.join(RESERVED_INPUTS)} are arguments of the compiled model",
                )
            else:
                inputs[parameter.name] = annotation
    raise_all(errors)
    return Model(function, name, inputs, hyperparameters, source)


# -- variables -------------------------------------------------------------------------------------------------------
def param(name: str, shape: Any = (), init: Any = None, trainable: bool = True, shared: bool = False) -> Tensor:
    """A parameter of the model, by its name within the open scopes.

    init: None (zeros for 0 and 1 axes, Glorot uniform for more), a name, a number, an array, or one of gc.init.
    """
    return _declare("param", name, shape, init, trainable, shared)


def state(name: str, shape: Any = (), init: Any = None, shared: bool = False, dtype: DType | None = None) -> Tensor:
    """A value carried from call to call; gc.update sets it, m.reset() takes it back to its beginning (zeros)."""
    return _declare("state", name, shape, init, False, shared, dtype)


def _declare(
    kind: str, name: str, shape: Any, init: Any, trainable: bool, shared: bool, dtype: DType | None = None
) -> Tensor:
    trace, source = current(f"gc.{kind}"), caller()
    try:
        check_name("parameter" if kind == "param" else kind, name)
        full_name = trace.full_name(name)
        sizes = shape_of(shape)
        if kind == "param" and any(s.constant is None for s in sizes):
            raise TraceError(
                f"the parameter {full_name!r} has the symbolic shape ({', '.join(map(str, sizes))})",
                how="a parameter's sizes are numbers; use a hyperparameter or the constant size of an input",
            )
        if any((s.constant or 0) < 0 for s in sizes):
            raise TraceError(f"the parameter {full_name!r} has the negative size ({', '.join(map(str, sizes))})")
        known = tuple(int(s) for s in sizes) if all(s.constant is not None for s in sizes) else None
        initializer = resolve(init, known, zeros() if kind == "state" else None)
        if known is None and not isinstance(initializer, Constant):
            raise TraceError(
                f"the {kind} {full_name!r} has the symbolic shape ({', '.join(map(str, sizes))}) and no constant beginning",
                how="a shape that is known at the call begins with one number: init=0.0",
            )
        variable = Variable(full_name, kind, trace.dtype(dtype) if dtype else trace.float_type, sizes, trainable)
        declaration = Declaration(variable, initializer, shared, source)
        _check_name(trace, declaration)
    except TraceError as error:
        return fail(error, source)
    trace.made.setdefault(full_name, declaration)
    trace.declarations.setdefault(full_name, declaration)
    node = Node(kind, (), TensorType(variable.dtype, variable.shape), name=full_name)
    trace.note(node, source)
    trace.tables.names.setdefault(node, full_name)
    return Tensor(node)


def _check_name(trace: Trace, new: Declaration) -> None:
    name = new.variable.name
    here, elsewhere = trace.made.get(name), trace.declarations.get(name)
    if here and not (here.shared and new.shared):
        raise TraceError(
            f"the {new.variable.kind} {name!r} is made twice",
            why=f"it was first made at {here.source}",
            how="give it another name or scope; to tie weights use the first value twice, or write shared=True on both",
        )
    other = here or elsewhere
    if other and other.variable != new.variable:

        def show(v: Variable) -> str:
            return f"{v.kind} {TensorType(v.dtype, v.shape)}{'' if v.trainable or v.kind == 'state' else ', not trainable'}"

        raise TraceError(
            f"{name!r} is declared as {show(new.variable)} here and as {show(other.variable)} at {other.source}",
            how="what shares a name must be declared alike",
        )


def update(target: Tensor, value: Any) -> None:
    """Set a state or parameter to a value when the call ends."""
    trace, source = current("gc.update"), caller()
    if not isinstance(target, Tensor) or (not target.broken and target.node.op not in ("param", "state")):
        fail(
            TraceError(
                "gc.update sets a state or a parameter, and this is neither",
                how="pass what gc.state or gc.param returned",
            ),
            source,
        )
        return
    new = lift(value, None if target.broken else target.dtype)
    if target.broken or new.broken:
        return
    name = target.node.attr("name")
    if target.node in trace.updates:
        fail(TraceError(f"{name!r} is updated twice in one model"), source)
    elif new.node.type != target.node.type:
        fail(
            TraceError(
                f"the update of {name!r} has the type {new.node.type}, the {target.node.op} {target.node.type}",
                how="shapes and types must be the same",
            ),
            source,
        )
    else:
        trace.updates[target.node] = new.node


# -- tracing ---------------------------------------------------------------------------------------------------------
@dataclass
class Module:
    """What a compilation begins with: the traced graph of each entry, and the variables that they share."""

    name: str
    entries: dict[str, Graph]
    steps: dict[str, Graph]
    declarations: dict[str, Declaration]
    variables_of: dict[str, tuple[str, ...]]
    float_type: DType
    hyperparameters: dict[str, dict[str, Any]] = field(default_factory=dict)


class Optimiser(Protocol):
    """What makes a training step of a model: updates of its parameters, written in the DSL."""

    def update(self, loss: Tensor, params: Mapping[str, Tensor]) -> None:
        """Call gc.update on the parameters, from gc.grad of the loss, with states of its own."""


def trace_models(
    models: Sequence[Model],
    name: str,
    float_type: DType,
    hyperparameters: Mapping[str, Any],
    optimiser: Optimiser | None = None,
) -> Module:
    """Run each model's function once; with an optimiser, once more for its training step.

    Hyperparameters go to the models that have them.
    """
    known = {k for m in models for k in m.hyperparameters}
    for key in hyperparameters:
        if key not in known:
            near = get_close_matches(key, known, 1)
            raise ModelError(
                f"{', '.join(m.name for m in models)} has no hyperparameter {key!r}",
                where=models[0].source,
                how=f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(sorted(known)) or 'none'}",
            )
    module = Module(name, {}, {}, {}, {}, float_type)
    for m in models:
        if m.name in module.entries:
            raise ModelError(f"two models are called {m.name!r}", where=m.source, how="give one of them another name")
        chosen = {k: hyperparameters.get(k, v) for k, v in m.hyperparameters.items()}
        trace = Trace(m.name, float_type, module.declarations)
        graph = module.entries[m.name] = trace_model(trace, m, chosen)
        module.variables_of[m.name] = tuple(trace.made)
        module.hyperparameters[m.name] = chosen
        if optimiser is not None and "loss" in graph.outputs:
            module.steps[m.name] = trace_step(trace, graph, optimiser)
    return module


def trace_step(trace: Trace, graph: Graph, optimiser: Optimiser) -> Graph:
    """The graph of a training step: the model's outputs, and its updates with the optimiser's."""
    updated = {node.attr("name") for node in trace.updates}
    params = {n: d.variable for n, d in trace.made.items() if d.variable.trainable and n not in updated}
    own, trace.updates = trace.updates, dict(trace.updates)
    with active(trace):
        optimiser.update(
            Tensor(graph.outputs["loss"]),
            {n: Tensor(Node("param", (), TensorType(v.dtype, v.shape), name=n)) for n, v in params.items()},
        )
    raise_all(trace.errors)
    updates, trace.updates = trace.updates, own
    return settle(replace(graph, updates=updates, guards=tuple(dict.fromkeys(trace.guards))))


def trace_model(trace: Trace, m: Model, hyperparameters: Mapping[str, Any]) -> Graph:
    """The graph of one model; all errors of its operations are raised together."""
    inputs = [_input(trace, m, name, annotation) for name, annotation in m.inputs.items()]
    with active(trace):
        try:
            result = m.function(*map(Tensor, inputs), **hyperparameters)
        except GraphcError as error:
            raise_all(trace.errors if error in trace.errors else [*trace.errors, error])
        except Exception as error:
            raise_all(trace.errors)  # an error after a broken value is its consequence
            entry = _entry(error, m)
            what, how = explained(error, entry) if entry else (None, None)
            raise ModelError(
                what or f"model {m.name} raises {type(error).__name__}: {error}",
                where=SourceLine(m.source.file, entry.tb_lineno) if entry else m.source,
                how=how,
            ) from error
    if not isinstance(result, Outputs):
        trace.errors.append(
            ModelError(
                f"model {m.name} returns {type(result).__name__}, not gc.outputs(…)",
                where=m.source,
                how="end it with: return gc.outputs(y=y, loss=loss)",
            )
        )
    raise_all(trace.errors)
    named = {name: tensor.node for name, tensor in result.values.items()}
    if "loss" in named and (named["loss"].shape or not named["loss"].dtype.is_float):
        raise ModelError(
            f"the output 'loss' of model {m.name} is {named['loss'].type}, not a floating-point scalar",
            where=trace.tables.source(named["loss"]) or m.source,
            how="reduce it, for example with gc.mean, or give it another name",
        )
    if not named and not trace.updates:
        raise ModelError(f"model {m.name} has no outputs and no updates", where=m.source, how="return gc.outputs(y=y)")
    graph = Graph(m.name, tuple(inputs), named, trace.updates, tuple(dict.fromkeys(trace.guards)), trace.tables)
    _check_steps(m, graph)
    _check_sizes(m, graph, trace)
    graph = settle(graph)
    for name, node in graph.outputs.items():
        trace.tables.names.setdefault(node, name)
    return graph


def _input(trace: Trace, m: Model, name: str, annotation: Annotation) -> Node:
    try:
        shape: tuple[Size, ...] = tuple(parse(s) if isinstance(s, str) else size(s) for s in annotation.shape)
    except (GraphcError, TypeError, ValueError) as error:
        raise ModelError(
            f"model {m.name}: the shape of the input {name!r} cannot be read: {error}", where=m.source
        ) from error
    node = Node("input", (), TensorType(trace.dtype(annotation.dtype), shape), name=name)
    trace.tables.names[node] = name
    with active(trace):
        trace.note(node, m.source)
    return node


def _check_steps(m: Model, graph: Graph) -> None:
    """ModelError where a value that only a step of a loop has is used outside it."""
    known = set(graph.inputs)
    for node in graph.nodes:
        if node.op == "input" and node not in known:
            users = [s for n in graph.users(node) if (s := graph.tables.source(n))]
            raise ModelError(
                f"model {m.name}: a value of a step of gc.scan is used outside the step",
                where=users[0] if users else m.source,
                how="return it from the step, as the carry or as what the step gives",
            )


def _entry(error: BaseException, m: Model) -> TracebackType | None:
    """The deepest entry of an exception's traceback that is of the model's own file."""
    found, traceback = None, error.__traceback__
    while traceback is not None:
        if traceback.tb_frame.f_code.co_filename == m.source.file:
            found = traceback
        traceback = traceback.tb_next
    return found


def _check_sizes(m: Model, graph: Graph, trace: Trace) -> None:
    known = set(graph.sizes())
    for name in sorted(trace.dims - known):
        raise ModelError(
            f"model {m.name}: the size {name!r} is not a size of any input",
            where=m.source,
            how=f"the inputs have the sizes {', '.join(sorted(known)) or 'none'}",
        )
    for node in graph.inputs:
        for extent in node.shape:
            if (
                extent.constant is None
                and extent != size(next(iter(extent.names)))
                and not extent.names
                <= {
                    n
                    for i in graph.inputs
                    for e in i.shape
                    if len(e.names) == 1 and e == size(next(iter(e.names)))
                    for n in e.names
                }
            ):
                raise ModelError(
                    f"model {m.name}: the size {extent} of the input {node.attr('name')!r} does not determine its names",
                    where=m.source,
                    how="each name must stand alone as a size of some input",
                )
