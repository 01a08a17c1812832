"""One program being called: arguments checked, sizes bound, memory planned once for each set of shapes.

A call with arrays of the same types and shapes as the last one goes a short way: `Binding.take` puts their addresses
where the program looks for them. All others go the long way, which converts what can be converted and has the errors.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from ..errors import GraphcError, InputError, raise_all
from .arguments import array_of, missing, number_types
from .execute import Bound, Executor
from .memory import Arena, address, address_at_once
from .program import Program
from .results import Result, Results
from .signature import Declared, bind_sizes
from .variables import Parameters, States, unknown

Array = np.ndarray[Any, Any]
Span = tuple[int, int]  # addresses: of the first byte, and after the last

MOST_BINDINGS = 32  # distinct shapes of inputs that a program stays bound to


@dataclass(frozen=True)
class Context:
    """What the programs of an entry share: the inputs as declared, which of them each output needs, a way to run, memory,
    the arrays that live on."""

    name: str
    declared: Mapping[str, Declared]
    needs: Mapping[str, frozenset[str]]
    executor: Executor
    constants: Mapping[str, Array]
    params: Parameters
    states: States
    arena: Arena


class Argument(NamedTuple):
    """An input as it is given to a binding: its type and shape, and what else is taken for it.

    number: its buffer's, or None where the program does not read it. cell: where a number is copied to, and the
    program reads it; None for an array with axes, which is read where it lies. numbers: the types of such numbers.
    """

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    number: int | None
    cell: Array | None
    numbers: frozenset[type]


class Binding:
    """A program bound to sizes, to variables and constants, and to the inputs of the current call."""

    def __init__(self, bound: Bound, arguments: list[Argument], outputs: list[Results], updated: list[Array]):
        self.bound, self.arguments, self.outputs, self._updated = bound, arguments, outputs, updated
        self.own: Mapping[int, Array] = {}  # results that are written where the caller wants them, by buffer number
        self._given: tuple[tuple[str, Array, np.dtype[Any], tuple[int, ...], int], ...] = ()  # as `out` had them
        self._guard()

    def _guard(self) -> None:
        """Note where the call writes."""
        spans = sorted(_span(array) for array in (*self._updated, *self.own.values()))
        # they do not overlap, so that their ends are in order too
        self._starts, self._ends = [start for start, _ in spans], [end for _, end in spans]

    def adopt(self, out: Mapping[str, Array], own: Mapping[int, Array]) -> None:
        """Write results into arrays of the caller's from now on, and hold these; `own` is what `out` has, checked."""
        self.own = own
        self._given = tuple((name, a, a.dtype, a.shape, address_at_once(a)) for name, a in out.items())
        for number, array in own.items():
            self.bound.bind(number, array)
        self._guard()

    def adopted(self, out: Mapping[str, Array] | None) -> bool:
        """Are these the arrays that were adopted last, and still as they were?"""
        if type(out) is not dict or len(out) != len(self._given):
            return False
        try:
            for name, array, dtype, shape, place in self._given:
                same = out.get(name) is array and array.dtype is dtype and array.shape == shape
                if not same or address_at_once(array) != place:
                    return False
        except TypeError:  # no longer writable, or contiguous
            return False
        return True

    def take(self, given: Mapping[str, Any]) -> bool:
        """Bind the inputs if each is an array that can be read where it lies, of the very shape, or a number.

        False where one is not, or others are given: nothing is decided then.
        """
        if len(given) != len(self.arguments):
            return False
        if not given:
            return True
        ndarray, places, where = np.ndarray, self.bound.places, self.bound.where
        try:
            for name, dtype, shape, number, cell, numbers in self.arguments:
                value = given[name]
                kind = type(value)
                if kind is ndarray and value.dtype is dtype and value.shape == shape:
                    if cell is not None:
                        cell[0] = value
                    elif number is not None:
                        if self._starts and self._overlaps(value):
                            return False
                        places[number] = where(value)
                elif cell is not None and kind in numbers:
                    cell[0] = value
                else:
                    return False
        except (KeyError, TypeError, OverflowError):
            return False  # other names; an array that is not contiguous or writable; a number too large
        return True

    def bind(self, arrays: Mapping[str, Array]) -> dict[str, Array]:
        """Bind the inputs that the program reads to contiguous arrays. The caller holds those that are returned."""
        held = {}
        for argument in self.arguments:
            if argument.number is not None:
                array = arrays[argument.name]
                if argument.cell is not None:
                    argument.cell[0] = array
                    continue
                # what the call writes must not be read through an input
                held[argument.name] = array = array.copy() if self._overlaps(array) else array
                self.bound.bind(argument.number, array)
        return held

    def _overlaps(self, array: Array) -> bool:
        """Might an input lie in memory that the call writes?"""
        start, end = _span(array)
        before = bisect_left(self._starts, end)
        return before > 0 and self._ends[before - 1] > start


class Call:
    """One program of an entry, with its bindings by the shapes of the inputs."""

    def __init__(self, context: Context, program: Program):
        self.context, self.program = context, program
        buffers = list(enumerate(program.buffers))
        self._numbers = {b.name: n for n, b in buffers if b.kind == "input"}
        # states of symbolic shape, which are made again after a reset: bindings are to those that are known here
        sized = [b.name for _, b in buffers if b.kind == "state" and any(e.constant is None for e in b.shape)]
        self._sized_states: dict[str, Array | None] = dict.fromkeys(sized)
        self._updated = [
            (b.name, context.params[b.name]) for n, b in buffers if n in program.updated and b.kind == "param"
        ]
        outputs = {b.name: n for n, b in buffers if b.kind == "output"}
        gradients = []
        for name in [n for n in outputs if n.startswith("grad:")]:
            array = context.params[name[5:]]
            gradients.append(Result(outputs.pop(name), name[5:], array.dtype, array.shape))
        self._blank: dict[str, Any] = dict.fromkeys(outputs)
        # used together, and of the same shapes whatever the sizes are: one block
        self._gradients = [Results(gradients)] if gradients else []
        self._bindings: dict[tuple[tuple[str, tuple[int, ...]], ...], Binding] = {}
        self._last: Binding | None = None
        self._packed = context.params.packed

    def run(
        self, given: Mapping[str, Any], out: Mapping[str, Array] | None = None
    ) -> tuple[dict[str, Array], dict[str, Array]]:
        """(outputs, gradients by parameter) for the inputs given."""
        if self._sized_states:
            self._forget_other_states()
        if self._packed is not self.context.params.packed:  # bindings are to parameters as they were, frozen or not
            self._packed = self.context.params.packed
            self._bindings.clear()
            self._last = None
        binding = self._last
        if binding is not None and binding.own and not (binding.adopted(out) and binding.take(given)):
            binding.adopt({}, {})
        if binding is None or not binding.own and not binding.take(given):
            binding, given = self._take(given)  # and hold what was made of them
        for name, array in self._updated:
            if not array.flags.writeable:
                raise InputError(
                    f"this call updates the parameter {name!r}, which is frozen", how="call thaw() on the model first"
                )
        bound = binding.bound
        outputs: dict[str, Array] = self._blank.copy()
        gradients: dict[str, Array] = {}
        if out is None:
            for results in binding.outputs:
                results.give(bound, outputs)
            for results in self._gradients:
                results.give(bound, gradients)
        else:
            if not binding.own:
                binding.adopt(out, self._checked(out, binding, given))
            for results in binding.outputs:
                results.give(bound, outputs, binding.own)
            for results in self._gradients:
                results.give(bound, gradients, binding.own)
        bound.run()
        return outputs, gradients

    def _forget_other_states(self) -> None:
        """Drop bindings to states of symbolic shape that were made again since, after a reset."""
        for name, state in self._sized_states.items():
            if self.context.states.arrays.get(name) is not state:
                self._bindings.clear()
                self._last = None

    # -- inputs ------------------------------------------------------------------------------------------------------
    def _take(self, given: Mapping[str, Any]) -> tuple[Binding, Mapping[str, Any]]:
        """The binding for some inputs, bound to them, and the arrays that the caller has to hold for it."""
        declared = self.context.declared
        for name in given:
            if name not in declared:
                raise unknown("input", name, list(declared))
        needed = self._numbers.keys() - given.keys()
        if needed:
            raise missing(self.context.name, declared, needed, ["loss"])
        arrays = {name: array_of(self.program.buffers[n], given[name]) for name, n in self._numbers.items()}
        # inputs that this program does not read are checked too, and may fix sizes
        shapes = {n: arrays[n].shape if n in arrays else np.shape(given[n]) for n in declared if n in given}
        key = tuple(shapes.items())
        binding = self._bindings.get(key)
        if binding is None:
            binding = self._bind(shapes)
            if len(self._bindings) >= MOST_BINDINGS:
                del self._bindings[next(iter(self._bindings))]
            self._bindings[key] = binding
        if self._last is not None and binding is not self._last:
            for results in self._last.outputs:
                results.release()  # of other sizes: no memory stands by for sizes that may not come again
        self._last = binding
        return binding, binding.bind(arrays)

    def _bind(self, shapes: Mapping[str, tuple[int, ...]]) -> Binding:
        """Sizes from shapes, guards checked, memory planned: done once for each set of shapes."""
        context, program = self.context, self.program
        sizes = bind_sizes([(context.declared[n], shape) for n, shape in shapes.items()])
        self._check_sizes(sizes)
        bound = context.executor.bound(program, sizes, context.arena, self._packed)
        results: list[Result] = []
        updated: list[Array] = []
        for number, buffer in enumerate(program.buffers):
            if buffer.kind in ("param", "state"):
                array = (
                    context.params[buffer.name] if buffer.kind == "param" else context.states.get(buffer.name, sizes)
                )
                if buffer.name in self._sized_states and buffer.kind == "state":
                    self._sized_states[buffer.name] = array
                bound.bind(number, array)
                updated += [array] if number in program.updated else []
            elif buffer.kind == "const":
                bound.bind(number, context.constants[buffer.name])
            elif buffer.name in self._blank and buffer.kind == "output":
                shape = tuple(e.evaluate(sizes) for e in buffer.shape)
                results.append(Result(number, buffer.name, buffer.dtype.numpy, shape))
        arguments = []
        for name, shape in shapes.items():
            place = self._numbers.get(name)
            dtype = (context.declared[name] if place is None else program.buffers[place]).dtype.numpy
            cell = np.empty(1, dtype) if shape == () else None
            if place is not None and cell is not None:
                bound.bind(place, cell)
            arguments.append(Argument(name, dtype, shape, place, cell, number_types(dtype)))
        # the numbers in one block; each array in its own, so that who keeps a loss does not keep all the rest
        groups = [[r for r in results if r.shape == ()], *([r] for r in results if r.shape != ())]
        return Binding(bound, arguments, [Results(group) for group in groups if group], updated)

    def _check_sizes(self, sizes: Mapping[str, int]) -> None:
        """The program's guards, and that every size is known and none negative; InputError."""
        errors: list[GraphcError] = []
        distinct = {(g.left, g.right, g.relation): g for g in reversed(self.program.guards)}  # the first of equal ones
        for guard in reversed(distinct.values()):
            if guard.left.names | guard.right.names <= sizes.keys() and not guard.holds(sizes):
                sides = [s for s in (guard.left, guard.right) if s.constant is None]
                known = " and ".join(f"{s} is {s.evaluate(sizes)}" for s in sides)
                errors.append(
                    InputError(
                        guard.message,
                        where=guard.where or None,
                        why=f"{known}; {guard.left} {guard.relation} {guard.right} is needed",
                    )
                )
        raise_all(errors)
        for buffer in self.program.buffers:
            for extent in buffer.shape:
                unbound = extent.names - sizes.keys()
                if unbound:
                    declared = self.context.declared.values()
                    having = [str(d) for d in declared if any(unbound & e.names for e in d.shape)]
                    raise InputError(
                        f"the size {min(unbound)!r} of {buffer.name!r} is not known from the inputs given",
                        how=f"pass an input that has it: {', '.join(having)}",
                    )
                actual = extent.evaluate(sizes)
                if actual < 0:
                    bound_sizes = ", ".join(f"{k} = {v}" for k, v in sizes.items())
                    raise InputError(f"the size {extent} of {buffer.name!r} is {actual} for {bound_sizes}")

    # -- out= --------------------------------------------------------------------------------------------------------
    def _checked(self, out: Mapping[str, Array], binding: Binding, inputs: Mapping[str, Any]) -> dict[int, Array]:
        """The arrays of `out` by buffer number: of known names, that fit, and that lie apart from all others."""
        if not isinstance(out, Mapping) or not all(isinstance(a, np.ndarray) for a in out.values()):
            raise InputError("out= is a mapping from output names to arrays", how='out={"y": array}')
        known = {r.name: r for results in self._gradients for r in results.results}
        known |= {f"grad:{n}": r for n, r in known.items()}
        known |= {r.name: r for results in binding.outputs for r in results.results}
        checked: dict[int, Array] = {}
        spans: list[tuple[int, int, str]] = []
        for name, array in out.items():
            if name not in known:
                raise self._no_result(name, sorted({n.removeprefix("grad:") for n in known}), inputs)
            result = known[name]
            wrong = []
            if array.shape != result.shape or array.dtype != result.dtype:
                wrong.append(f"{array.dtype} {array.shape}")
            wrong += ["read-only"] * (not array.flags.writeable)
            wrong += ["not contiguous, or not in C's order"] * (not array.flags.c_contiguous)
            if wrong:
                raise InputError(
                    f"out[{name!r}] must be a writable, contiguous array of {result.dtype} of the shape"
                    f" {result.shape}; it is {', '.join(wrong)}"
                )
            if result.number in checked:
                raise InputError(f"out= gives {name.removeprefix('grad:')!r} two arrays", how="pass one")
            checked[result.number] = array
            if array.size:
                spans.append((*_span(array), name))
        spans.sort()
        for (_, end, name), (start, _, other) in pairwise(spans):
            if start < end:
                raise InputError(f"out[{name!r}] and out[{other!r}] share memory", how="pass two arrays")
        variables = [*self.context.params.values(), *self.context.states.arrays.values()]
        read = [a for a in map(inputs.get, self._numbers) if isinstance(a, np.ndarray)]
        for array in (*read, *variables):
            if array.size:
                start, end = _span(array)
                before = bisect_left(spans, (end,)) - 1  # the last array that begins before this one ends
                if before >= 0 and spans[before][1] > start:
                    raise InputError(
                        f"out[{spans[before][2]!r}] shares memory with an input or a parameter",
                        how="pass an array of its own",
                    )
        return checked

    def _no_result(self, name: str, known: list[str], inputs: Mapping[str, Any]) -> GraphcError:
        """The error for a name in `out` that no result of this program has."""
        needs = self.context.needs.get(name)
        if needs is None:
            return unknown("output", name, known)
        lacking = [f"{n}=…" for n in self.context.declared if n in needs - inputs.keys()]
        return InputError(
            f"out= has an array for the output {name!r}, which this call does not compute",
            how=f"it needs more inputs: pass {', '.join(lacking)}"
            if lacking
            else f"ask for it: outputs={[n for n in self.context.needs if n in self._blank or n == name]}",
        )


def _span(array: Array) -> Span:
    """The addresses that a contiguous array takes up."""
    try:
        start = address_at_once(array)
    except TypeError:
        start = address(array)
    return start, start + array.nbytes
