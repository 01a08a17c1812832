"""One program being called: arguments checked, sizes bound, memory planned once for each set of shapes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import GraphcError, InputError, raise_all
from ..graph.dtype import from_numpy
from .execute import Bound, Executor
from .program import Buffer, Program
from .signature import Declared, bind_sizes
from .variables import Parameters, States, unknown

Array = np.ndarray[Any, Any]

_KINDS = {"b": "b", "i": "iu", "f": "f"}  # NumPy's letters of what a declared kind takes
MOST_BINDINGS = 32  # distinct shapes of inputs that a program stays bound to: each has an arena


@dataclass(frozen=True)
class Binding:
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


@dataclass(frozen=True)
class Context:
    """What the programs of an entry share: the inputs as declared, a way to run, and the arrays that live on."""

    declared: Mapping[str, Declared]
    executor: Executor
    constants: Mapping[str, Array]
    params: Parameters
    states: States


class Call:
    """One program of an entry, with its bindings by the shapes of the inputs."""

    def __init__(self, context: Context, program: Program):
        self.context, self.program = context, program
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
        self.bindings: dict[tuple[tuple[int, ...], ...], Binding] = {}

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
            if not self.context.params[name].flags.writeable:
                raise InputError(
                    f"this call updates the parameter {name!r}, which is frozen", how="call thaw() on the model first"
                )
        for number, name in self.sized_states:
            bound.bind(number, self.context.states.get(name, binding.sizes))
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
            try:
                value = np.from_dlpack(value)
            except (BufferError, RuntimeError, TypeError) as error:
                how = "pass an array in main memory that needs no gradient: tensor.detach().cpu()"
                raise InputError(f"the input {buffer.name!r} cannot be read: {error}", how=how) from error
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
        variables_ = [*self.context.params.values(), *self.context.states.arrays.values()]
        if any(np.may_share_memory(result, other) for other in [*(a for _, a in inputs), *variables_]):
            raise InputError(
                f"out[{name!r}] shares memory with an input or a parameter", how="pass an array of its own"
            )
        return result

    def _bind(self, arrays: Mapping[str, Array], given: Mapping[str, Any]) -> Binding:
        """Sizes from shapes, guards checked, memory planned: done once for each set of shapes."""
        context, program = self.context, self.program
        # inputs that this program does not read are checked too, and may fix sizes
        shapes = {n: arrays[n].shape if n in arrays else np.shape(v) for n, v in given.items()}
        sizes = bind_sizes([(d, shapes[n]) for n, d in context.declared.items() if n in shapes])
        errors: list[GraphcError] = []
        distinct = {(g.left, g.right, g.relation): g for g in reversed(program.guards)}  # the first of equal ones
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
        for buffer in program.buffers:
            for extent in buffer.shape:
                unbound = extent.names - sizes.keys()
                if unbound:
                    having = [str(d) for d in context.declared.values() if any(unbound & e.names for e in d.shape)]
                    raise InputError(
                        f"the size {min(unbound)!r} of {buffer.name!r} is not known from the inputs given",
                        how=f"pass an input that has it: {', '.join(having)}",
                    )
                actual = extent.evaluate(sizes)
                if actual < 0:
                    bound_sizes = ", ".join(f"{k} = {v}" for k, v in sizes.items())
                    raise InputError(f"the size {extent} of {buffer.name!r} is {actual} for {bound_sizes}")
        bound = context.executor.bound(program, sizes)
        outputs = []
        written: list[Array] = []
        for number, buffer in enumerate(program.buffers):
            if buffer.kind in ("param", "state"):
                array = (
                    context.params[buffer.name] if buffer.kind == "param" else context.states.get(buffer.name, sizes)
                )
                bound.bind(number, array)
                written += [array] if number in program.updated else []
            elif buffer.kind == "const":
                bound.bind(number, context.constants[buffer.name])
            elif buffer.kind == "output":
                outputs.append(
                    (buffer.name, number, tuple(e.evaluate(sizes) for e in buffer.shape), buffer.dtype.numpy)
                )
        low = min((a.__array_interface__["data"][0] for a in written), default=0)
        high = max((a.__array_interface__["data"][0] + a.nbytes for a in written), default=0)
        return Binding(bound, outputs, sizes, low, high)
