"""The compiled model: what people call. It needs no compiler when its kernels are in the cache."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from . import variables
from .arguments import missing
from .call import Call, Context
from .execute import Executor
from .memory import Arena
from .program import Program
from .signature import Signature, forward_kind
from .variables import Arrays, Parameters, States, unknown

Array = np.ndarray[Any, Any]


Programs = Callable[[str, Collection[str]], Program]
"""Gives the program of a kind for given inputs: "gradient", "step", or "forward:OUTPUT,…:UPDATE,…", an update by its
number, and ":train" at the end of one that trains. It may give a forward program of more outputs that needs no other inputs."""


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
        arena: Arena,
    ):
        self.name, self.signature = name, signature
        self._programs = programs
        self._declared = {d.name: d for d in signature.inputs}
        self._context = Context(name, self._declared, signature.needs, executor, constants, params, states, arena)
        self._calls: dict[tuple[str, frozenset[str]], Call] = {}
        self._chosen: dict[tuple[Any, ...], tuple[Call, tuple[str, ...] | None]] = {}

    def forward(
        self,
        *args: Any,
        train: bool = False,
        outputs: str | list[str] | tuple[str, ...] | None = None,
        out: Mapping[str, Array] | None = None,
        **inputs: Any,
    ) -> dict[str, Array]:
        """The outputs that the given inputs suffice for, or those named by `outputs`, as a mapping.

        out: arrays to write into, by output name, instead of fresh ones. train: as a call
        that trains does, with dropout.
        """
        given = self._named(args, inputs) if args else inputs
        key = (outputs if outputs is None or isinstance(outputs, str) else tuple(outputs), bool(train), *given)
        chosen = self._chosen.get(key)
        if chosen is None:
            chosen = self._chosen[key] = self._choose(given, outputs, train)
        call, names = chosen
        results, _ = call.run(given, out)
        return results if names is None else {n: results[n] for n in names}

    def value_and_grad(
        self, *args: Any, out: Mapping[str, Array] | None = None, **inputs: Any
    ) -> tuple[dict[str, Array], dict[str, Array]]:
        """(outputs, gradients): every output, and the gradient of `loss` by parameter name."""
        return self._gradient.run(self._named(args, inputs) if args else inputs, out)

    def step(self, *args: Any, out: Mapping[str, Array] | None = None, **inputs: Any) -> dict[str, Array]:
        """One step of the optimiser that the model was compiled with: the outputs, the parameters being updated."""
        results, _ = self._step.run(self._named(args, inputs) if args else inputs, out)
        return results

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

    @cached_property
    def _gradient(self) -> Call:
        return self._call("gradient")

    @cached_property
    def _step(self) -> Call:
        return self._call("step")

    def _choose(
        self, given: Mapping[str, Any], outputs: str | list[str] | tuple[str, ...] | None, train: bool = False
    ) -> tuple[Call, tuple[str, ...] | None]:
        """What computes the outputs that are asked for, and their names where it computes others too."""
        needs = self.signature.needs
        for name in given:
            if name not in self._declared:
                raise unknown("input", name, list(self._declared))
        if outputs is not None:
            outputs = [outputs] if isinstance(outputs, str) else outputs
            for name in outputs:
                if name not in needs:
                    raise unknown("output", name, list(needs))
            lacking = {i for name in outputs for i in needs[name]} - given.keys()
            if lacking:
                raise missing(self.name, self._declared, lacking, outputs)
            chosen = tuple(n for n in needs if n in outputs)
        else:
            chosen = tuple(n for n, inputs_needed in needs.items() if inputs_needed <= given.keys())
            if not chosen and needs:
                raise missing(self.name, self._declared, self._declared.keys() - given.keys(), list(needs))
        call = self._call(forward_kind(self.signature, chosen, given, train), given)
        return call, None if len(call.program.outputs) == len(chosen) else chosen

    def _call(self, kind: str, given: Collection[str] = ()) -> Call:
        key = (kind, frozenset(given))
        call = self._calls.get(key)
        if call is None:
            call = self._calls[key] = Call(self._context, self._programs(kind, given))
        return call

    def _over(self, states: States, arena: Arena) -> Entry:
        """The same entry over other states and memory."""
        at = self._context
        return Entry(self.name, self.signature, self._programs, at.executor, at.constants, at.params, states, arena)

    def _named(self, args: tuple[Any, ...], inputs: dict[str, Any]) -> dict[str, Any]:
        """Arguments by input name."""
        names = list(self._declared)
        if len(args) > len(names):
            raise InputError(f"{self.name} takes {len(names)} inputs, not {len(args)}: {', '.join(names) or 'none'}")
        for name, value in zip(names, args, strict=False):
            if name in inputs:
                raise InputError(f"the input {name!r} is given twice: by position and by name")
            inputs[name] = value
        return inputs


class CompiledModel:
    """Compiled models of one file, sharing parameters and states. With one model its methods are here directly.

    vocab: the `gc.Vocabulary` of the texts that it was trained on, or several by name, or None.
    """

    def __init__(self, name: str, entries: Mapping[str, Entry], params: Parameters, states: States, info: Info):
        self.name, self.entries, self.params, self._states, self._info = name, dict(entries), params, states, info
        self.vocab: Any = None
        if len(self.entries) == 1:  # the methods below, without the way through them
            (entry,) = self.entries.values()
            vars(self).update(forward=entry.forward, value_and_grad=entry.value_and_grad, step=entry.step)

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

    @property
    def carried(self) -> tuple[str, ...]:
        """The names of the states with a symbolic shape, such as the hidden state of each sequence of a batch.

        They follow the data: training takes them back to their beginning where a pass over the data begins.
        """
        return self._states.carried

    def set_states(self, values: Mapping[str, Any]) -> None:
        """Give states values by name; one of symbolic shape takes the shape of its value. InputError where one does not fit."""
        self._states.set(values)

    def reset(self, names: Iterable[str] | None = None) -> None:
        """Take states back to their beginning: all, or those named, such as `m.carried`."""
        self._states.reset(names)

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
        """Make the parameters read-only, and pack them for matrix products, for repeated inference until `thaw`."""
        self.params.freeze()

    def thaw(self) -> None:
        """Make the parameters writable again."""
        self.params.thaw()

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
        arena = Arena()
        entries = {n: e._over(states, arena) for n, e in self.entries.items()}
        twin = CompiledModel(self.name, entries, self.params, states, self._info)
        twin.vocab = self.vocab
        return twin

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
