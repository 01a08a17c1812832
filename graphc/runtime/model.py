"""The compiled model: what people call. It needs no compiler when its kernels are in the cache."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import GraphcError, InputError, raise_all
from ..graph.dtype import DType, from_numpy
from ..graph.size import Size
from . import variables
from .execute import Bound, Executor
from .program import Buffer, Program
from .variables import Arrays, Parameters, States, unknown

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Declared:
    """An input or output as declared: its name, element type and symbolic shape."""

    name: str
    dtype: DType
    shape: tuple[Size, ...]

    def __str__(self) -> str:
        return f"{self.name}: {self.dtype}[{', '.join(map(str, self.shape)) or '()'}]"


@dataclass(frozen=True)
class Signature:
    """What an entry takes and gives. `needs` says for each output which inputs it depends on, `update_needs` for each
    variable that a call updates."""

    inputs: tuple[Declared, ...]
    outputs: tuple[Declared, ...]
    needs: Mapping[str, frozenset[str]]
    update_needs: Mapping[str, frozenset[str]]
    trainable: tuple[str, ...]

    def __str__(self) -> str:
        return f"({', '.join(map(str, self.inputs))}) -> {', '.join(map(str, self.outputs))}"


def forward_kind(signature: Signature, outputs: Iterable[str], given: Collection[str]) -> str:
    """The kind of program that computes some outputs, and every update that the given inputs suffice for."""
    updates = [str(i) for i, needs in enumerate(signature.update_needs.values()) if needs <= set(given)]
    return f"forward:{','.join(outputs)}:{','.join(updates)}"


Programs = Callable[[str, Collection[str]], Program]
"""Gives the program of a kind for given inputs: "gradient", "step", or "forward:OUTPUT,…:UPDATE,…", an update by its
number. It may give a forward program of more outputs that needs no other inputs."""


class Entry:
    """One model of a compiled file."""

    def __init__(
        self,
        name: str,
        signature: Signature,
        programs: Programs,
        executor: Executor,
        constants: Mapping[str, Array],
        params: Parameters,
        states: States,
    ):
        self.name, self.signature = name, signature
        self._programs, self._executor, self._constants = programs, executor, constants
        self._params, self._states = params, states
        self._calls: dict[tuple[str, frozenset[str]], _Call] = {}
        self._declared = {d.name: d for d in signature.inputs}

    def forward(
        self,
        *args: Any,
        train: bool = False,
        outputs: str | list[str] | tuple[str, ...] | None = None,
        out: Mapping[str, Array] | None = None,
        **inputs: Any,
    ) -> dict[str, Array]:
        """The outputs that the given inputs suffice for, or those named by `outputs`, as a mapping.

        out: arrays to write into, by output name, instead of fresh ones. train: whether the model is being trained.
        """
        given = self._named(args, inputs)
        needs = self.signature.needs
        if outputs is not None:
            outputs = [outputs] if isinstance(outputs, str) else outputs
            for name in outputs:
                if name not in needs:
                    raise unknown("output", name, list(needs))
            missing = sorted(
                {i for name in outputs for i in needs[name]} - given.keys(), key=list(self._declared).index
            )
            if missing:
                raise self._missing(missing, outputs)
            chosen = tuple(n for n in needs if n in outputs)
        else:
            chosen = tuple(n for n, inputs_needed in needs.items() if inputs_needed <= given.keys())
            if not chosen and needs:
                missing = [i for i in self._declared if i not in given]
                raise self._missing(missing, list(needs))
        kind = forward_kind(self.signature, chosen, given)
        results = self._call(kind, given).run(given, out)
        return {n: results[n] for n in chosen} if len(results) > len(chosen) else results

    def value_and_grad(
        self, *args: Any, out: Mapping[str, Array] | None = None, **inputs: Any
    ) -> tuple[dict[str, Array], dict[str, Array]]:
        """(outputs, gradients): every output, and the gradient of `loss` by parameter name."""
        return self._split(self._checked("gradient", args, inputs, out))

    def step(self, *args: Any, out: Mapping[str, Array] | None = None, **inputs: Any) -> dict[str, Array]:
        """One step of the optimiser that the model was compiled with: the outputs, the parameters being updated."""
        return self._checked("step", args, inputs, out)

    def cost(self, **sizes: int) -> dict[str, dict[str, int]]:
        """See CompiledModel.cost."""
        inputs = [d.name for d in self.signature.inputs]
        kinds = [forward_kind(self.signature, self.signature.needs, inputs)]
        kinds += ["gradient"] if "loss" in self.signature.needs else []
        try:
            return {kind.split(":")[0]: self._call(kind, inputs).program.cost(sizes) for kind in kinds}
        except KeyError as error:
            names = sorted({n for d in self.signature.inputs for e in d.shape for n in e.names})
            raise InputError(
                f"the cost depends on the size {error.args[0]!r}", how=f"pass {', '.join(f'{n}=…' for n in names)}"
            ) from error

    def program(self, kind: str) -> Program:
        """What runs when all inputs are given: the program "forward", "gradient" or "step"."""
        inputs = [d.name for d in self.signature.inputs]
        wanted = forward_kind(self.signature, self.signature.needs, inputs) if kind == "forward" else kind
        return self._programs(wanted, inputs)

    def _checked(
        self, kind: str, args: tuple[Any, ...], inputs: dict[str, Any], out: Mapping[str, Array] | None
    ) -> dict[str, Array]:
        given = self._named(args, inputs)
        call = self._call(kind)
        missing = [i for i in call.program.inputs if i not in given]
        if missing:
            raise self._missing(sorted(missing, key=list(self._declared).index), ["loss"])
        return call.run(given, out)

    @staticmethod
    def _split(results: dict[str, Array]) -> tuple[dict[str, Array], dict[str, Array]]:
        gradients = {n[5:]: a for n, a in results.items() if n.startswith("grad:")}
        return {n: a for n, a in results.items() if not n.startswith("grad:")}, gradients

    def _call(self, kind: str, given: Collection[str] = ()) -> _Call:
        key = (kind, frozenset(given))
        call = self._calls.get(key)
        if call is None:
            call = self._calls[key] = _Call(self, self._programs(kind, given))
        return call

    def _named(self, args: tuple[Any, ...], inputs: dict[str, Any]) -> dict[str, Any]:
        """Arguments by input name."""
        if args:
            names = list(self._declared)
            if len(args) > len(names):
                raise InputError(
                    f"{self.name} takes {len(names)} inputs, not {len(args)}: {', '.join(names) or 'none'}"
                )
            for name, value in zip(names, args, strict=False):
                if name in inputs:
                    raise InputError(f"the input {name!r} is given twice: by position and by name")
                inputs[name] = value
        for name in inputs:
            if name not in self._declared:
                raise unknown("input", name, list(self._declared))
        return inputs

    def _missing(self, missing: list[str], wanted: list[str] | tuple[str, ...]) -> InputError:
        listed = ", ".join(str(self._declared[m]) for m in missing)
        return InputError(
            f"{self.name}: missing input{'s' if len(missing) > 1 else ''} for {', '.join(wanted)}: {listed}",
            how=f"pass {', '.join(f'{m}=…' for m in missing)}",
        )


_KINDS = {"b": "b", "i": "iu", "f": "f"}  # NumPy's letters of what a declared kind takes
MOST_BINDINGS = 32  # distinct shapes of inputs that a program stays bound to: each has an arena


@dataclass(frozen=True)
class _Binding:
    """A program bound to sizes: its outputs' shapes, and the range of addresses of the variables that it writes."""

    bound: Bound
    outputs: list[tuple[str, int, tuple[int, ...], np.dtype[Any]]]
    sizes: Mapping[str, int]
    low: int
    high: int

    def overlaps(self, array: Array) -> bool:
        """Might an input lie in memory that the call writes?"""
        if not self.high:
            return False
        start = array.__array_interface__["data"][0]
        return start < self.high and start + array.nbytes > self.low


class _Call:
    """One program of an entry, with its bindings by the shapes of the inputs."""

    def __init__(self, entry: Entry, program: Program):
        self.entry, self.program = entry, program
        self.inputs = [(n, b) for n, b in enumerate(program.buffers) if b.kind == "input"]
        self.read = frozenset(program.inputs)
        self.outputs = [(n, b) for n, b in enumerate(program.buffers) if b.kind == "output"]
        self.sized_states = [
            (n, b.name)
            for n, b in enumerate(program.buffers)
            if b.kind == "state" and any(e.constant is None for e in b.shape)
        ]
        self.updates_params = [
            b.name for n, b in enumerate(program.buffers) if n in program.updated and b.kind == "param"
        ]
        self.bindings: dict[tuple[tuple[int, ...], ...], _Binding] = {}

    def run(self, given: Mapping[str, Any], out: Mapping[str, Array] | None) -> dict[str, Array]:
        arrays = [(n, self._array(b, given[b.name])) for n, b in self.inputs]
        # inputs that the program does not read may fix sizes too
        key = tuple(a.shape for _, a in arrays) + tuple(np.shape(given[n]) for n in given if n not in self.read)
        binding = self.bindings.get(key)
        if binding is None:
            if len(self.bindings) >= MOST_BINDINGS:
                del self.bindings[next(iter(self.bindings))]
            binding = self.bindings[key] = self._bind(
                {b.name: a for (_, b), (_, a) in zip(self.inputs, arrays, strict=True)}, given
            )
        bound = binding.bound
        for name in self.updates_params:
            if not self.entry._params[name].flags.writeable:
                raise InputError(
                    f"this call updates the parameter {name!r}, which is frozen", how="call thaw() on the model first"
                )
        for number, name in self.sized_states:
            bound.bind(number, self.entry._states.get(name, binding.sizes))
        for number, array in arrays:
            # what the call writes must not be read through an input
            bound.bind(number, array.copy() if binding.overlaps(array) else array)
        results: dict[str, Array] = {}
        if out is not None:
            self._check_out(out)
        for name, number, shape, dtype in binding.outputs:
            result = np.empty(shape, dtype) if out is None else self._reused(out, name, shape, dtype, arrays)
            bound.bind(number, result)
            results[name] = result
        bound.run()
        return results

    def _array(self, buffer: Buffer, value: Any) -> Array:
        """The argument as a contiguous array of the declared type."""
        dtype = buffer.dtype.numpy
        if type(value) is np.ndarray and value.dtype == dtype and value.flags.c_contiguous:
            return value
        if not isinstance(value, (np.ndarray, np.generic)) and hasattr(value, "__dlpack__"):
            value = np.from_dlpack(value)
        weak = not isinstance(value, (np.ndarray, np.generic))
        try:
            array = np.asarray(value)
        except ValueError as error:
            raise InputError(f"the input {buffer.name!r} is no array: {error}") from error
        own = from_numpy(array.dtype)
        target = buffer.dtype
        # integers and floats widen within their kind: int8 to int32, float32 to float64
        wider = array.dtype.kind in _KINDS[target.kind] and np.can_cast(array.dtype, dtype, "safe")
        numbers = (
            weak
            and own is not None
            and (own.kind == target.kind or (own.kind in "ib" and target.kind == "f") or array.size == 0)
        )
        if not (wider or numbers):
            raise InputError(
                f"the input {buffer.name!r} has the type {array.dtype}, but {target.name} ({dtype}) is declared",
                how=f"convert it: {buffer.name}.astype(np.{dtype})",
            )
        if (
            numbers
            and target.kind == "i"
            and array.size
            and (array.max() > np.iinfo(dtype).max or array.min() < np.iinfo(dtype).min)
        ):
            raise InputError(f"the input {buffer.name!r} holds a number that {target.name} cannot: {array.max()}")
        return np.ascontiguousarray(array, dtype).reshape(array.shape)

    def _check_out(self, out: Mapping[str, Array]) -> None:
        """`out` names outputs, or parameters for their gradients, and its arrays lie apart."""
        known = {b.name.removeprefix("grad:") for _, b in self.outputs}
        if not isinstance(out, Mapping) or not all(isinstance(a, np.ndarray) for a in out.values()):
            raise InputError("out= is a mapping from output names to arrays", how='out={"y": array}')
        for name in out:
            if name.removeprefix("grad:") not in known:
                raise unknown("output", name, sorted(known))
        arrays = list(out.items())
        for i, (name, array) in enumerate(arrays):
            for other, second in arrays[:i]:
                if np.may_share_memory(array, second):
                    raise InputError(f"out[{name!r}] and out[{other!r}] share memory", how="pass two arrays")

    def _reused(
        self,
        out: Mapping[str, Array],
        name: str,
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        inputs: list[tuple[int, Array]],
    ) -> Array:
        result = out.get(name)
        if result is None and name.startswith("grad:"):
            result = out.get(name[5:])
        if result is None:
            return np.empty(shape, dtype)
        if (
            result.shape != shape
            or result.dtype != dtype
            or not result.flags.c_contiguous
            or not result.flags.writeable
        ):
            raise InputError(
                f"out[{name!r}] must be a writable, contiguous array of {dtype} of the shape {shape}, not {result.dtype} {result.shape}"
            )
        variables_ = [*self.entry._params.values(), *self.entry._states.arrays.values()]
        if any(np.may_share_memory(result, other) for other in [*(a for _, a in inputs), *variables_]):
            raise InputError(
                f"out[{name!r}] shares memory with an input or a parameter", how="pass an array of its own"
            )
        return result

    def _bind(self, arrays: Mapping[str, Array], given: Mapping[str, Any]) -> _Binding:
        """Sizes from shapes, guards checked, memory planned: done once for each set of shapes."""
        entry, program = self.entry, self.program
        # inputs that this program does not read are checked too, and may fix sizes
        shapes = {n: arrays[n].shape if n in arrays else np.shape(v) for n, v in given.items()}
        sizes = bind_sizes([(d, shapes[n]) for n, d in entry._declared.items() if n in shapes])
        errors: list[GraphcError] = []
        distinct = {(g.left, g.right, g.relation): g for g in reversed(program.guards)}  # the first of equal ones
        for guard in reversed(distinct.values()):
            if guard.left.names | guard.right.names <= sizes.keys() and not guard.holds(sizes):
                left, right = guard.left.evaluate(sizes), guard.right.evaluate(sizes)
                errors.append(
                    InputError(
                        guard.message,
                        where=guard.where or None,
                        why=f"{guard.left} is {left} and {guard.right} is {right}; {guard.left} {guard.relation} {guard.right} is needed",
                    )
                )
        raise_all(errors)
        for buffer in program.buffers:
            for extent in buffer.shape:
                unbound = extent.names - sizes.keys()
                if unbound:
                    having = [str(d) for d in entry._declared.values() if any(unbound & e.names for e in d.shape)]
                    raise InputError(
                        f"the size {min(unbound)!r} of {buffer.name!r} is not known from the inputs given",
                        how=f"pass an input that has it: {', '.join(having)}",
                    )
                actual = extent.evaluate(sizes)
                if actual < 0:
                    bound_sizes = ", ".join(f"{k} = {v}" for k, v in sizes.items())
                    raise InputError(f"the size {extent} of {buffer.name!r} is {actual} for {bound_sizes}")
        bound = entry._executor.bound(program, sizes)
        outputs = []
        written: list[Array] = []
        for number, buffer in enumerate(program.buffers):
            if buffer.kind in ("param", "state"):
                array = entry._params[buffer.name] if buffer.kind == "param" else entry._states.get(buffer.name, sizes)
                bound.bind(number, array)
                written += [array] if number in program.updated else []
            elif buffer.kind == "const":
                bound.bind(number, entry._constants[buffer.name])
            elif buffer.kind == "output":
                outputs.append(
                    (buffer.name, number, tuple(e.evaluate(sizes) for e in buffer.shape), buffer.dtype.numpy)
                )
        low = min((a.__array_interface__["data"][0] for a in written), default=0)
        high = max((a.__array_interface__["data"][0] + a.nbytes for a in written), default=0)
        return _Binding(bound, outputs, sizes, low, high)


def bind_sizes(inputs: list[tuple[Declared, tuple[int, ...]]]) -> dict[str, int]:
    """The values of the dimension names, from the shapes of the inputs. InputError where shapes contradict."""
    sizes: dict[str, int] = {}
    origin: dict[str, str] = {}
    errors: list[GraphcError] = []
    for declared, shape in inputs:
        if len(shape) != len(declared.shape):
            errors.append(
                InputError(f"the input {declared.name!r} has {len(shape)} axes {shape}, but {declared} is declared")
            )
            continue
        for extent, actual in zip(declared.shape, shape, strict=True):
            name = next(iter(extent.names)) if len(extent.names) == 1 and str(extent).isidentifier() else None
            if name is not None and name not in sizes:
                sizes[name], origin[name] = actual, declared.name
    raise_all(errors)
    for declared, shape in inputs:
        for axis, (extent, actual) in enumerate(zip(declared.shape, shape, strict=True)):
            unknown_names = extent.names - sizes.keys()
            if unknown_names:
                errors.append(
                    InputError(
                        f"the size {min(unknown_names)!r} of the input {declared.name!r} is not known from the inputs given",
                        how=f"pass an input that has the size {min(unknown_names)!r} alone",
                    )
                )
                continue
            expected = extent.evaluate(sizes)
            if expected != actual:
                first = next((origin[n] for n in extent.names if n in origin), None)
                why = (
                    f"{extent} is {expected} by the input {first!r}"
                    if first and first != declared.name
                    else f"{declared} is declared"
                )
                errors.append(
                    InputError(
                        f"the input {declared.name!r} has the shape {shape}: axis {axis} is {actual}, not {expected}",
                        why=why,
                    )
                )
    raise_all(errors)
    return sizes


class CompiledModel:
    """Compiled models of one file, sharing parameters and states. With one model its methods are here directly."""

    def __init__(self, name: str, entries: Mapping[str, Entry], params: Parameters, states: States, info: Info):
        self.name, self.entries, self.params, self._states, self._info = name, dict(entries), params, states, info

    def _only(self) -> Entry:
        if len(self.entries) != 1:
            raise InputError(
                f"{self.name} holds several models",
                how=f"call one of them: {', '.join(f'm.{n}.forward(…)' for n in self.entries)}",
            )
        return next(iter(self.entries.values()))

    def __getattr__(self, name: str) -> Entry:
        entries = self.__dict__.get("entries", {})
        if name in entries:
            return entries[name]
        raise AttributeError(
            f"the compiled model {self.__dict__.get('name', '')!r} has no attribute {name!r}; its models are {', '.join(entries)}"
        )

    def forward(self, *args: Any, **kwargs: Any) -> dict[str, Array]:
        """See Entry.forward."""
        return self._only().forward(*args, **kwargs)

    def value_and_grad(self, *args: Any, **kwargs: Any) -> tuple[dict[str, Array], dict[str, Array]]:
        """See Entry.value_and_grad."""
        return self._only().value_and_grad(*args, **kwargs)

    def step(self, *args: Any, **kwargs: Any) -> dict[str, Array]:
        """See Entry.step."""
        return self._only().step(*args, **kwargs)

    @property
    def signature(self) -> Signature:
        """Inputs and outputs, by name, type and shape."""
        return self._only().signature

    @property
    def states(self) -> Arrays:
        """name → the array of a state that exists so far; one of symbolic shape exists from the first call on."""
        return Arrays(self._states.arrays)

    def reset(self) -> None:
        """Take all states back to their beginning."""
        self._states.reset()

    def cost(self, **sizes: int) -> dict[str, dict[str, int]]:
        """For each program of a model its arithmetic operations, bytes touched and bytes of memory: m.cost(B=32)."""
        return self._only().cost(**sizes)

    @property
    def source(self) -> str:
        """The generated kernels, as text."""
        return self._info.source()

    @property
    def graph(self) -> Any:
        """The graph of the model (of each model, by name, where there are several)."""
        graphs = self._info.graphs()
        return next(iter(graphs.values())) if len(graphs) == 1 else graphs

    def freeze(self) -> None:
        """Make the parameters read-only, for repeated inference, until `thaw`."""
        for array in self.params.values():
            array.flags.writeable = False

    def thaw(self) -> None:
        """Make the parameters writable again."""
        for array in self.params.values():
            array.flags.writeable = True

    def save_params(self, path: str | Path) -> None:
        """Write the parameters to a safetensors file, atomically."""
        variables.save(path, self.params)

    def load_params(self, path: str | Path) -> None:
        """Read the parameters from a safetensors file: all of them, or none and an error that says what does not fit."""
        loaded, _ = variables.load(path)
        variables.assign(self.params, loaded, path)

    def save(self, folder: str | Path, progress: Any = None) -> Path:
        """Write the model as a folder that imports anywhere; see graphc.runtime.artifact."""
        return self._info.save(self, Path(folder), progress)

    def clone(self) -> CompiledModel:
        """A model that shares the parameters, for another thread: its states and memory are its own."""
        states = States(self._states.declared, self._states.initial)
        entries = {
            n: Entry(e.name, e.signature, e._programs, e._executor, e._constants, self.params, states)
            for n, e in self.entries.items()
        }
        return CompiledModel(self.name, entries, self.params, states, self._info)

    def _repr_svg_(self) -> str | None:
        """The picture that a notebook shows of a single model; None where `dot` is not installed."""
        from ..render import notebook

        return notebook.svg(self)

    def _repr_html_(self) -> str:
        """The pictures of all models, or their text where `dot` is not installed."""
        from ..render import notebook

        return notebook.page(self)

    def __repr__(self) -> str:
        return "\n".join(
            f"{self.name}.{n}{e.signature}" if len(self.entries) > 1 else f"{n}{e.signature}"
            for n, e in self.entries.items()
        )


@dataclass(frozen=True)
class Info:
    """What a compiled model can tell beyond running: given by the pipeline or by the folder it was loaded from."""

    source: Callable[[], str]
    graphs: Callable[[], Mapping[str, Any]]
    save: Callable[[CompiledModel, Path, Any], Path]
