"""Random models: text of the DSL, line by line, with arrays to run it on.

Each line is traced and run with NumPy as it is written, so that what is generated is well typed, finite, and not so
close to a kink that rounding decides. All choices come from one `random.Random`, which Hypothesis or a seed provides.
"""
from __future__ import annotations

import math
import random
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import graphc as gc
from graphc.errors import GraphcError
from graphc.frontend.tensor import Tensor
from graphc.frontend.trace import Trace, active
from graphc.graph.dtype import f64
from graphc.graph.graph import Graph
from graphc.graph.node import Node, TensorType
from graphc.graph.size import Size, size
from graphc.pipeline import STAGES, lower

from .reference import REFERENCE

LARGEST, MOST_ELEMENTS, MOST_AXES = 30.0, 200, 4
NEAR = 1e-5  # a kink nearer than this is left to nobody's rounding


class Mismatch(AssertionError):
    """The compiler and NumPy disagree."""


@dataclass(frozen=True)
class Given:
    """An input, parameter or state: its declaration as text, and its array."""

    kind: str
    shape: tuple[str, ...]
    array: np.ndarray
    begin: str = ""  # how it begins, where its array cannot be written down

    @property
    def annotation(self) -> str:
        dtype = {"float64": "f32", "int64": "i64", "int32": "i32", "bool": "bool_"}[self.array.dtype.name]
        items = ", ".join(e if e.isdigit() else f'"{e}"' for e in self.shape)
        return f"gc.{dtype}[{items or '()'}]"


@dataclass(frozen=True)
class Program:
    """A model: what it is given, its lines `name = expression`, its outputs, updates and gradients."""

    sizes: Mapping[str, int]
    given: Mapping[str, Given]
    lines: tuple[tuple[str, str], ...]
    outputs: tuple[str, ...]
    updates: Mapping[str, str] = field(default_factory=dict)
    loss: str = ""
    wrt: tuple[str, ...] = ()
    second: bool = False  # a gradient of a function of gradients
    smooth: bool = True  # no kink is hit exactly

    def body(self) -> list[str]:
        """The statements of the model's function."""
        made = []
        for name, g in self.given.items():
            shape = "".join(f"{e if e.isdigit() else _dims(e)}, " for e in g.shape)
            if g.kind != "input":
                init = g.begin or ("0.0" if g.kind == "param" else _literal(g.array))
                made.append(f'{name} = gc.{g.kind}("{name}", ({shape}), init={init})')
        made += [f"{name} = {expression}" for name, expression in self.lines]
        if self.loss:
            made.append(f"loss = {self.loss}")
        if self.wrt:
            made.append(f"gradients = gc.grad(loss, [{', '.join(self.wrt)}])")
            if self.second:
                made.append("second = " + " + ".join(f"gc.sum(gc.sin(g{i} * 0.1))" for i in range(len(self.wrt))))
                made[-2] = made[-2] + f"; {', '.join(f'g{i}' for i in range(len(self.wrt)))}, = gradients"
                made.append(f"curvatures = gc.grad(second, [{', '.join(self.wrt)}])")
        made += [f"gc.update({name}, {value})" for name, value in self.updates.items()]
        results = [f"o{i}={name}" for i, name in enumerate(self.outputs)]
        results += ["loss=loss"] if self.loss else []
        results += [f"d_{name}=gradients[{i}]" for i, name in enumerate(self.wrt)]
        results += ["second=second", *(f"h_{name}=curvatures[{i}]" for i, name in enumerate(self.wrt))] if self.second and self.wrt else []
        made.append(f"return gc.outputs({', '.join(results)})")
        return made

    def text(self) -> str:
        """A model file, and the arrays that it is to be run on."""
        inputs = ", ".join(f"{n}: {g.annotation}" for n, g in self.given.items() if g.kind == "input")
        lines = ["import graphc as gc", "import numpy as np", "", "", "@gc.model", f"def net({inputs}):", *(f"    {line}" for line in self.body()), "", "",
                 "GIVEN = dict(", *(f"    {n}={_literal(g.array)}," for n, g in self.given.items()), ")"]
        return "\n".join(lines) + "\n"

    def model(self) -> Any:
        """The model function of this program."""
        namespace: dict[str, Any] = {}
        exec(compile(self.text(), "fuzzed.py", "exec"), namespace)
        return namespace["net"]

    def values(self) -> dict[str, np.ndarray]:
        """The arrays that the model is given, by name."""
        return {n: g.array for n, g in self.given.items()}

    def run(self, values: Mapping[str, np.ndarray], moved: Mapping[str, np.ndarray] | None = None, stopped: list[Any] | None = None) -> dict[str, Any]:
        """Every line and the loss by NumPy. `moved` is added to a line's value as soon as it is there; `stopped` are the
        values of the stop_gradients, kept in the result under that name."""
        reference = REFERENCE.sized(self.sizes, stopped)
        scope: dict[str, Any] = {"gc": reference, "np": np, **values, "stopped": reference.stopped}
        with np.errstate(all="ignore"):
            for name, expression in [*self.lines, *([("loss", self.loss)] if self.loss else [])]:
                scope[name] = np.asarray(eval(expression, scope))
                if moved and name in moved:
                    scope[name] = scope[name] + moved[name]
        return scope


def _dims(text: str) -> str:
    out, word = "", ""
    for c in text + " ":
        if c.isalnum() or c == "_":
            word += c
        else:
            out += (f'gc.dim("{word}")' if word and not word.isdigit() else word) + c
            word = ""
    return out.strip()


def _literal(array: np.ndarray) -> str:
    data = repr(array.tolist()) if array.size else f"np.zeros({array.shape})"
    return f"np.array({data}, np.{array.dtype.name if array.dtype.name != 'bool' else 'bool_'})".replace("inf", "np.inf")


@dataclass
class Value:
    """A value of the program so far: traced, and computed."""

    tensor: Tensor
    array: np.ndarray

    @property
    def shape(self) -> tuple[Size, ...]:
        return self.tensor.node.shape

    @property
    def is_float(self) -> bool:
        return self.array.dtype.kind == "f"


Step = tuple[str, str]  # an expression, and one whose zeros are its kinks ("" where it has none)


class Generator:
    """Writes one program."""

    def __init__(self, rng: random.Random, *, length: int = 10, empty: float = 0.04):
        self.rng = rng
        self.length = length
        lengths = [1, 2, 2, 3, 3, 4, 5]
        self.sizes = {n: 0 if rng.random() < empty else rng.choice(lengths) for n in ("B", "T")[:rng.choice([0, 1, 2, 2])]}
        self.trace = Trace("net", f64, {})
        self.values: dict[str, Value] = {}
        self.given: dict[str, Given] = {}
        self.lines: list[tuple[str, str]] = []
        self.nodes: set[Node] = set()
        self.smooth = True

    # -- what there is ------------------------------------------------------------------------------------------
    def give(self, kind: str, shape: tuple[Size, ...], dtype: str = "float64", low: int = 0, high: int = 1) -> str:
        """A new input, parameter or state."""
        name = f"{ {'input': 'x', 'param': 'p', 'state': 's'}[kind] }{len(self.given)}"
        actual, begin = tuple(e.evaluate(self.sizes) for e in shape), ""
        if dtype == "float64":
            count = math.prod(actual)
            array = np.array([round(self.rng.uniform(-2, 2), 3) for _ in range(count)]).reshape(actual)
        elif dtype == "bool":
            array = np.array([self.rng.random() < 0.5 for _ in range(math.prod(actual))], bool).reshape(actual)
        else:
            array = np.array([self.rng.randrange(low, high) for _ in range(math.prod(actual))], dtype).reshape(actual)
        if kind == "param" and any(e.constant is None for e in shape):
            kind, name = "input", f"x{len(self.given)}"
        if kind == "state" and any(e.constant is None for e in shape):
            array = np.full(actual, round(self.rng.uniform(-1, 1), 2))  # a state whose sizes are not known yet begins at one number
            begin = repr(float(array.flat[0])) if array.size else "0.0"
        self.given[name] = Given(kind, tuple(map(str, shape)), array, begin)
        node_type = TensorType({"float64": gc.f64, "bool": gc.bool_, "int64": gc.i64, "int32": gc.i32}[dtype], shape)
        self.values[name] = Value(Tensor(Node(kind, (), node_type, name=name)), array)
        return name

    def extent(self) -> Size:
        if self.sizes and self.rng.random() < 0.45:
            name = self.rng.choice(sorted(self.sizes))
            return size(name) if self.rng.random() < 0.9 else size(name) + self.rng.choice([1, 2])
        return size(self.rng.choice([1, 2, 2, 3, 3, 4, 5]))

    def fresh(self) -> str:
        shape = tuple(self.extent() for _ in range(self.rng.choice([0, 1, 1, 2, 2, 2, 3, 3])))
        for e in shape:
            self.bind(e)
        return self.give(self.rng.choice(["input", "input", "param", "state"]), shape)

    def bind(self, extent: Size) -> None:
        """Make sure that a name of a size stands alone in some input."""
        for name in sorted(extent.names):
            if not any(g.kind == "input" and name in g.shape for g in self.given.values()):
                self.give("input", (size(name),))

    def pick(self, want: Callable[[Value], bool] = lambda v: True) -> str | None:
        """A float value; later ones more often."""
        names = [n for n, v in self.values.items() if v.is_float and want(v)]
        if not names:
            return None
        return names[-1] if self.rng.random() < 0.35 else self.rng.choice(names)

    def partner(self, name: str) -> str:
        """A value that broadcasts with another."""
        v, r = self.values[name], self.rng.random()
        if r < 0.2:
            return self.rng.choice(["2.0", "0.5", "1", "-1", "0.3", "3", "0"])
        alike = [n for n, w in self.values.items() if w.is_float and (w.shape == v.shape or _broadcasts(w.shape, v.shape))]
        if r < 0.75 and alike:
            return self.rng.choice(alike)
        kept = v.shape[self.rng.choice([0, 0, 0, 1]) if v.shape else 0:]
        shape = tuple(size(1) if self.rng.random() < 0.25 else e for e in kept)
        for e in shape:
            self.bind(e)
        return self.give(self.rng.choice(["input", "param"]), shape)

    # -- adding a line ------------------------------------------------------------------------------------------
    def add(self, expression: str, kink: str = "") -> str | None:
        """Write a line if it traces, is finite and decided; its name."""
        before = len(self.trace.guards), len(self.trace.errors)
        with active(self.trace):
            try:
                tensor = eval(expression, {"gc": gc, "np": np, **{n: v.tensor for n, v in self.values.items()}})
            except GraphcError:
                tensor = Tensor(None)
        failed = not isinstance(tensor, Tensor) or tensor.broken or len(self.trace.errors) > before[1]
        failed = failed or not all(g.holds(self.sizes) for g in self.trace.guards)
        if failed:
            del self.trace.guards[before[0]:], self.trace.errors[before[1]:]
            return None
        name = f"v{len(self.lines)}"
        scope = {"gc": REFERENCE.sized(self.sizes), "np": np, **{n: v.array for n, v in self.values.items()}}
        with np.errstate(all="ignore"):
            try:
                array = np.asarray(eval(expression, scope))
            except Exception as error:
                if array_error(error):
                    raise Mismatch(f"{expression} traces, but NumPy says {type(error).__name__}: {error}\n{self.so_far(name, expression)}") from error
                raise
            if not self._decided(kink, scope):
                del self.trace.guards[before[0]:]
                return None
        node = tensor.node
        expected = tuple(e.evaluate(self.sizes) for e in node.shape)
        if array.shape != expected or array.dtype.kind != node.dtype.kind:
            raise Mismatch(f"{expression} is {node.type}, of the shape {expected}; NumPy says {array.dtype}{list(array.shape)}\n{self.so_far(name, expression)}")
        small = array.size <= MOST_ELEMENTS and array.ndim <= MOST_AXES
        if not small or not np.isfinite(array).all() or (array.size and array.dtype.kind == "f" and np.abs(array).max() > LARGEST):
            del self.trace.guards[before[0]:]
            return None
        if node in self.nodes or any(node is v.tensor.node for v in self.values.values()):
            return None
        self.nodes.add(node)
        self.lines.append((name, expression))
        self.values[name] = Value(tensor, array)
        return name

    def so_far(self, name: str, expression: str) -> str:
        return Program(self.sizes, self.given, (*self.lines, (name, expression)), (name,)).text()

    def _decided(self, kink: str, scope: dict[str, Any]) -> bool:
        if not kink:
            return True
        distance = np.abs(np.asarray(eval(kink, scope), float))
        if not distance.size or distance.min() > NEAR:
            return True
        if (distance[distance <= NEAR] == 0).all() and self.rng.random() < 0.3:
            self.smooth = False
            return True
        return False

    # -- lines --------------------------------------------------------------------------------------------------
    def step(self) -> None:
        """Try to add one line."""
        v = self.pick()
        if v is None:
            self.fresh()
            return
        makers = (
            [self.unary] * 5 + [self.binary] * 7 + [self.reduction] * 5 + [self.movement] * 5 + [self.slicing] * 4 + [self.contraction] * 4
            + [self.choice] * 3 + [self.gather] * 3 + [self.composed] * 4 + [self.joined] * 3 + [self.made] * 1)
        found = self.rng.choice(makers)(v)
        if found is not None:
            self.add(*found)

    def unary(self, v: str) -> Step | None:
        kinked = {"gc.relu({})": "{}", "gc.abs({})": "{}"}
        forms = ["gc.exp({} * 0.5)", "gc.tanh({})", "gc.sigmoid({})", "gc.relu({})", "gc.abs({})", "-{}", "gc.square({})", "gc.erf({})", "gc.sin({})", "gc.cos({})",
                 "gc.softplus({})", "gc.expm1({})", "gc.stop_gradient({})", "{} ** 2", "{} ** 3", "{} ** 4", "gc.log1p({} ** 2)", "gc.sqrt({} ** 2 + 0.3)",
                 "gc.log(gc.abs({}) + 0.5)", "1 / ({} ** 2 + 1)", "({} ** 2 + 0.5) ** 0.5", "({} ** 2 + 0.5) ** -1.5", "1 - {}", "2 * {}", "{} / 4", "0 - {}"]
        form = self.rng.choice(forms)
        kink = kinked.get(form, "{}" if "gc.abs" in form else "")
        return form.format(v), kink.format(v)

    def binary(self, v: str) -> Step | None:
        w = self.partner(v)
        a, b = (v, w) if self.rng.random() < 0.6 else (w, v)
        op = self.rng.choice(["+", "-", "*", "+", "-", "*", "/", "max", "min", "pow"])
        if op in ("max", "min"):
            return f"gc.{op}imum({a}, {b})", f"{a} - {b}"
        if op == "/":
            return f"{a} / ({b} * {b} + 0.7)", ""
        if op == "pow":
            return f"(gc.abs({a}) + 0.3) ** ({b} * 0.5)", f"{a} * 1"
        return f"{a} {op} {b}", ""

    def axes(self, rank: int) -> str:
        if not rank or self.rng.random() < 0.15:
            return "None"
        count = self.rng.choice([1, 1, 1, 2, rank])
        chosen = sorted(self.rng.sample(range(rank), min(count, rank)))
        chosen = [a - rank if self.rng.random() < 0.3 else a for a in chosen]
        return str(chosen[0]) if len(chosen) == 1 and self.rng.random() < 0.8 else str(tuple(chosen))

    def axis(self, rank: int) -> int:
        a = self.rng.randrange(rank)
        return a - rank if self.rng.random() < 0.3 else a

    def reduction(self, v: str) -> Step | None:
        x = self.values[v]
        op, axes, keep = self.rng.choice(["sum", "sum", "sum", "max", "min", "mean", "logsumexp"]), self.axes(len(x.shape)), self.rng.random() < 0.5
        if op != "sum" and x.array.size == 0:
            return None
        return f"gc.{op}({v}, axis={axes}, keepdims={keep})", f"gc.gap({v}, {axes}, {op == 'min'})" if op in ("max", "min") else ""

    def movement(self, v: str) -> Step | None:
        x = self.values[v]
        rank, kind = len(x.shape), self.rng.choice(["transpose", "transpose", "reshape", "reshape", "reshape", "expand", "squeeze", "broadcast", "T"])
        if kind == "T":
            return f"{v}.T", ""
        if kind == "transpose":
            perm = list(range(rank))
            self.rng.shuffle(perm)
            return f"gc.transpose({v}, {tuple(perm)})", ""
        if kind == "expand":
            return f"gc.expand_dims({v}, {self.rng.randrange(rank + 1)})", ""
        if kind == "squeeze":
            if any(n == 1 and e != 1 for n, e in zip(x.array.shape, x.shape, strict=True)):
                return None  # only literal ones go, NumPy cannot tell
            return f"gc.squeeze({v})", ""
        if kind == "broadcast":
            front = "".join(f"{self.text(self.extent_known())}, " for _ in range(self.rng.choice([0, 1])))
            shape = front + "".join(f"{self.text(self.extent_known()) if e == 1 and self.rng.random() < 0.6 else self.text(e)}, " for e in x.shape)
            return f"gc.broadcast_to({v}, ({shape}))", ""
        return self.reshape(v)

    def text(self, e: Size) -> str:
        return _dims(str(e))

    def extent_known(self) -> Size:
        e = self.extent()
        self.bind(e)
        return e

    def reshape(self, v: str) -> Step | None:
        shape = list(self.values[v].shape)
        how = self.rng.random()
        if how < 0.2:
            return f"gc.reshape({v}, -1)" if all(e.constant != 0 for e in shape) else f"gc.reshape({v}, ({self.text(math.prod(shape, start=size(1)))},))", ""
        if how < 0.55 and len(shape) >= 2:  # merge two neighbours
            at = self.rng.randrange(len(shape) - 1)
            shape[at:at + 2] = [shape[at] * shape[at + 1]]
        elif how < 0.85 and shape:  # split an axis
            at = self.rng.randrange(len(shape))
            e = shape[at]
            options = [(size(k), size(e.constant // k)) for k in range(1, 7) if e.constant and e.constant % k == 0] if e.constant is not None else [
                (k, e // k) for k in [size(2), size(3), size(4), size(5), *map(size, self.sizes)] if (e // k) * k == e]
            if not options:
                return None
            a, b = self.rng.choice(options)
            shape[at:at + 1] = [a, b] if self.rng.random() < 0.5 else [b, a]
        else:  # the axes in another order, the elements where they are
            self.rng.shuffle(shape)
        return f"gc.reshape({v}, ({''.join(self.text(e) + ', ' for e in shape)}))", ""

    def slicing(self, v: str) -> Step | None:
        x, items = self.values[v], []
        if not x.shape:
            return f"{v}[None]", ""
        for n in x.array.shape:
            r = self.rng.random()
            if r < 0.35 or n == 0:
                items.append(":")
            elif r < 0.5:
                items.append(str(self.rng.randrange(-n, n)))
            elif r < 0.65:
                items.append(self.rng.choice(["::-1", "::2", "::-2", "1:", ":-1", "-1:", "::3"]) if n > 1 else "::-1")
            else:
                a, b = sorted(self.rng.choices(range(n + 1), k=2))
                items.append(f"{a}:{b}" if self.rng.random() < 0.7 or b == 0 else f"{b - 1}:{a - 1 if a else ''}:-{self.rng.choice([1, 2])}")
            if self.rng.random() < 0.08:
                items.append("None")
        if len(items) > 1 and self.rng.random() < 0.15:
            items = ["...", items[-1]]
        return f"{v}[{', '.join(items)}]", ""

    def contraction(self, v: str) -> Step | None:
        x = self.values[v]
        rank = len(x.shape)
        r = self.rng.random()
        if r < 0.35 and rank:
            shape: tuple[Size, ...] = (x.shape[-1], self.extent_known())
            if self.rng.random() < 0.2:
                shape = shape[:1]
            elif rank >= 3 and self.rng.random() < 0.5:
                shape = (*x.shape[:-2], *shape)
            fits = [n for n, w in self.values.items() if w.is_float and len(w.shape) == 2 and w.shape[0] == x.shape[-1]]
            for e in shape:
                self.bind(e)
            w = self.rng.choice(fits) if fits and self.rng.random() < 0.6 else self.give(self.rng.choice(["input", "param"]), shape)
            return f"{v} @ {w}", ""
        if r < 0.45 and rank >= 2:
            return (f"{v}.T @ {v}" if rank == 2 else f"{v} @ gc.transpose({v}, {(*range(rank - 2), rank - 1, rank - 2)})"), ""
        extents: dict[str, Size] = {}
        names: list[str] = [v]
        for _ in range(self.rng.choice([0, 1, 1, 1, 2])):
            shared = [n for n, w in self.values.items() if w.is_float and 0 < len(w.shape) <= 3 and set(w.shape) & set(x.shape)]
            if shared:
                names.append(self.rng.choice(shared))
        terms = []
        for n in names:
            term = ""
            for e in self.values[n].shape:
                same = [c for c, known in extents.items() if known == e and (c not in term or self.rng.random() < 0.05)]
                c = self.rng.choice(same) if same and self.rng.random() < 0.75 else "ijklmnpqrstuv"[len(extents) % 13]
                extents.setdefault(c, e)
                term += c
            terms.append(term)
        found = sorted({c for t in terms for c in t})
        out = [c for c in found if self.rng.random() < 0.5]
        self.rng.shuffle(out)
        return f'gc.einsum("{",".join(terms)}->{"".join(out)}", {", ".join(names)})', ""

    def condition(self, v: str) -> tuple[str, str]:
        """A condition of the shape of a value, and its kink."""
        x, r = self.values[v], self.rng.random()
        if r < 0.15 and x.shape:
            e = self.text(x.shape[-1])
            return f"(gc.arange({e}) {self.rng.choice(['<', '>=', '=='])} {self.rng.randrange(3)})", ""
        if r < 0.25 and len(x.shape) >= 2:
            return f"(gc.arange({self.text(x.shape[-1])}) {self.rng.choice(['<=', '>'])} gc.arange({self.text(x.shape[-2])})[:, None])", ""
        if r < 0.35:
            for e in x.shape:
                self.bind(e)
            return self.give("input", x.shape, "bool"), ""
        w = self.partner(v)
        first, kink = f"({v} {self.rng.choice(['<', '>', '<=', '>='])} {w})", f"{v} - {w}"
        if self.rng.random() < 0.25:
            return f"({first} {self.rng.choice(['&', '|'])} ~({v} > 0.25))", f"np.minimum(np.abs({kink}), np.abs({v} - 0.25))"
        return first, kink

    def choice(self, v: str) -> Step | None:
        c, kink = self.condition(v)
        r = self.rng.random()
        if r < 0.2:
            return f"gc.where({v} > 0.3, gc.log({v}), {v} * 0.5)", f"{v} - 0.3"
        if r < 0.3:
            return f"gc.where({v} > 0.2, gc.sqrt({v}), 0.1 / ({v} - 3))", f"{v} - 0.2"
        if r < 0.4:
            return f"gc.cast({c}, gc.f32) * {v}", kink
        return f"gc.where({c}, {v}, {self.partner(v)})", kink

    def gather(self, v: str) -> Step | None:
        x = self.values[v]
        if not x.shape or x.array.size == 0:
            return None
        axis = self.axis(len(x.shape))
        n = x.array.shape[axis]
        dtype = self.rng.choice(["int64", "int32"])
        if self.rng.random() < 0.6:
            shape = tuple(self.extent_known() for _ in range(self.rng.choice([0, 1, 1, 2])))
            i = self.give("input", shape, dtype, 0, n)
            return (f"{v}[{i}]" if axis in (0, -len(x.shape)) and self.rng.random() < 0.3 else f"gc.take({v}, {i}, axis={axis})"), ""
        if self.rng.random() < 0.2:
            return f"gc.take({v}, gc.argmax({v}, axis={axis}), axis={axis})", f"gc.gap({v}, {axis}, False)"
        shape = list(x.shape)
        shape[axis] = size(1) if self.rng.random() < 0.5 else self.extent_known()
        for e in shape:
            self.bind(e)
        i = self.give("input", tuple(shape), dtype, 0, n)
        return f"gc.take_along_axis({v}, {i}, axis={axis})", ""

    def composed(self, v: str) -> Step | None:
        """Compositions that the passes know, spelt out or called."""
        x = self.values[v]
        if not x.shape or x.array.size == 0:
            return None
        a = self.axis(len(x.shape))
        mean = f"gc.mean({v}, axis={a}, keepdims=True)"
        return self.rng.choice([
            f"gc.softmax({v}, axis={a})", f"gc.log_softmax({v}, axis={a})", f"gc.exp({v}) / gc.sum(gc.exp({v}), axis={a}, keepdims=True)",
            f"gc.log(gc.softmax({v}, axis={a}))", f"gc.log(gc.sum(gc.exp({v}), axis={a}))", f"{v} - gc.logsumexp({v}, axis={a}, keepdims=True)",
            f"({v} - {mean}) / gc.sqrt(gc.mean(gc.square({v} - {mean}), axis={a}, keepdims=True) + 0.1)", f"{v} - {mean}",
            f"1 / (1 + gc.exp(-{v}))", f"gc.log(1 + gc.exp({v}))", f"gc.log(gc.sigmoid({v}))", f"(gc.exp({v}) - gc.exp(-{v})) / (gc.exp({v}) + gc.exp(-{v}))",
            f"gc.exp({v}) * (1 / gc.sum(gc.exp({v}), axis={a}, keepdims=True))", f"1 - gc.sigmoid({v})", f"gc.log(gc.sum(gc.exp({v}) * 2, axis={a}))",
            f"{v} / gc.sqrt(gc.sum({v} * {v}, axis={a}, keepdims=True) + 0.2)"]), ""

    def joined(self, v: str) -> Step | None:
        x = self.values[v]
        if not x.shape:
            return f"gc.stack([{v}, {v} * 2])", ""
        a = self.axis(len(x.shape))
        others = [n for n, w in self.values.items() if w.is_float and len(w.shape) == len(x.shape)
                  and all(e == f for d, (e, f) in enumerate(zip(w.shape, x.shape, strict=True)) if d != a % len(x.shape))]
        chosen = [v, *(self.rng.choice(others) for _ in range(self.rng.choice([1, 1, 2])))]
        self.rng.shuffle(chosen)
        r = self.rng.random()
        if r < 0.6:
            return f"gc.concat([{', '.join(chosen)}], axis={a})", ""
        if r < 0.75:
            alike = [n for n in chosen if self.values[n].shape == x.shape]
            return f"gc.stack([{', '.join(alike)}], axis={self.rng.randrange(len(x.shape) + 1)})", ""
        n = self.rng.choice([1, 2, 3])
        return f"gc.split({v}, {n}, axis={a})[{self.rng.randrange(n)}]", ""

    def made(self, v: str) -> Step | None:
        e = self.text(self.extent_known())
        return self.rng.choice([
            f"gc.cast(gc.arange({e}), gc.f32) * 0.5", f"gc.ones(({e}, 2))", "gc.const(np.array([[0.5, -1.0, 2.0], [0.25, 3.0, -0.5]], np.float32))", f"gc.full(({e},), 0.7)",
            f"gc.zeros(({e},))", f"gc.cast(gc.arange(2, {e} + 5, 3), gc.f32) - 1", "gc.const(np.float32(1.5))"]), ""

    # -- the whole ----------------------------------------------------------------------------------------------
    def program(self) -> Program:
        """A whole program."""
        for name in sorted(self.sizes):
            self.bind(size(name))
        for _ in range(self.rng.choice([1, 2, 2, 3])):
            self.fresh()
        tries = 0
        while len(self.lines) < self.length and tries < 6 * self.length:
            tries += 1
            self.step()
        floats = [n for n, v in self.values.items() if v.is_float]
        computed = [n for n, _ in self.lines]
        outputs = self.rng.sample(computed, min(len(computed), self.rng.choice([1, 2, 3, 4])))
        if self.rng.random() < 0.25:
            outputs.append(self.rng.choice(list(self.values)))
        loss, wrt, second = "", (), False
        if floats and self.rng.random() < 0.8:
            terms = self.rng.sample(floats, min(len(floats), self.rng.choice([1, 2, 3])))
            shaped = {n: self.rng.choice([f"gc.sum({n})", f"gc.sum(gc.sin({n}))", f"gc.sum({n} * {n})", f"gc.sum(gc.tanh({n}), axis=None)"]) for n in terms}
            loss = " + ".join(f"{self.rng.choice([1.0, 0.5, -0.25])} * {t}" for t in shaped.values())
            given = [n for n in floats if n in self.given]
            wrt = tuple(self.rng.sample(given, min(len(given), self.rng.choice([1, 2, 3]))))
            inner = sorted(n for n in self.apart(list(shaped.values())) if self.values[n].is_float) if self.rng.random() < 0.35 else []
            wrt += (self.rng.choice(inner),) if inner else ()
            second = self.rng.random() < 0.15
        if not outputs and not loss:
            outputs = [next(iter(self.values))]
        return Program(dict(self.sizes), dict(self.given), tuple(self.lines), tuple(outputs), self.updates(), loss, wrt, second, self.smooth)

    def apart(self, terms: list[str]) -> set[str]:
        """The lines that no line and no term of the loss depends on but those that name them, when rules have brought
        equal expressions together."""
        lines = [*self.lines, *((f"term {i}", t) for i, t in enumerate(terms))]
        with active(self.trace):
            scope = {"gc": gc, "np": np, **{n: v.tensor for n, v in self.values.items()}}
            nodes = {n: self.values[n].tensor.node if n in self.values else eval(e, scope).node for n, e in lines}
        graph, _ = lower(Graph("lines", (), nodes), stop_after=STAGES[2])
        found = set()
        for name, _ in self.lines:
            reached = {name}
            for other, expression in lines:
                if words(expression) & reached:
                    reached.add(other)
            if not any(_contains(graph.outputs[other], graph.outputs[name]) for other, _ in lines if other not in reached):
                found.add(name)
        return found

    def updates(self) -> dict[str, str]:
        found: dict[str, str] = {}
        for name, g in self.given.items():
            if g.kind in ("state", "param") and self.rng.random() < 0.6:
                alike = [n for n, v in self.values.items() if v.is_float and v.shape == self.values[name].shape and (n != name)]
                if alike:
                    found[name] = self.rng.choice(alike)
        return found


def words(text: str) -> set[str]:
    """The names in an expression."""
    return set(re.findall(r"[A-Za-z_]\w*", text))


def _contains(node: Node, inner: Node) -> bool:
    seen, stack = {node}, [node]
    while stack:
        n = stack.pop()
        if n is inner:
            return True
        for o in n.operands:
            if o not in seen:
                seen.add(o)
                stack.append(o)
    return False


def _broadcasts(a: tuple[Size, ...], b: tuple[Size, ...]) -> bool:
    """Do two shapes meet, without a size that only the call decides?"""
    return all(e == f or e == 1 or f == 1 for e, f in zip(reversed(a), reversed(b)))


def array_error(error: Exception) -> bool:
    return isinstance(error, (ValueError, IndexError, TypeError))


def generate(rng: random.Random, **options: Any) -> Program:
    """A random program."""
    return Generator(rng, **options).program()

