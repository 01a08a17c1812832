"""Kernels as Python source: the text that Numba compiles, that plain Python runs, and that people read.

A kernel's parameters are its arrays, flat, then its sizes; where it may run over a part of its main loop, then the
beginning and the end of that part. Kernels of the same structure have the same text but for
names and comments, so that the runtime compiles equal structures once.
"""

from __future__ import annotations

import keyword
import re
from collections import Counter
from dataclasses import dataclass

from ..graph import scalar as sc
from ..graph.dtype import DType, bool_
from ..graph.formula import Affine
from ..graph.scalar import Scalar
from ..graph.size import Size, size
from ..lowering.ir import (
    Accumulate,
    Arg,
    Assign,
    Kernel,
    Load,
    Loop,
    Note,
    Position,
    Statement,
    Store,
    leaves,
    loops,
    walk,
)
from . import vecmath

_INFIX = {
    "add": ("+", 6),
    "sub": ("-", 6),
    "mul": ("*", 7),
    "div": ("/", 7),
    "less": ("<", 3),
    "less_equal": ("<=", 3),
    "greater": (">", 3),
    "greater_equal": (">=", 3),
    "equal": ("==", 3),
    "not_equal": ("!=", 3),
    "right_shift": (">>", 5),
    "logical_and": ("&", 5),
    "logical_or": ("|", 4),
}
_WORDS = {"maximum": "fmax", "minimum": "fmin", "where": "select"}
# what a kernel's text may call; a parameter must not hide one
VOCABULARY = frozenset(
    (
        *("f32", "f64", "i32", "i64", "bool_", "select", "fmax", "fmin", "radd", "rmul", "rmax", "rmin"),
        *("fma", "isnan", "fabs", "floor", "at", "exp", "exp2", "expm1", "log", "log2", "log1p", "tanh"),
        *("erf", "sin", "cos", "pow", "sqrt", "sigmoid", "range", "kernel", "begin", "end", "short", "deep"),
        "random_bits",
    )
)
_LONG = frozenset((*vecmath.UNARY, *vecmath.BINARY)) - {"sqrt"}  # functions of many steps
REDUCE = {"sum": "radd", "prod": "rmul", "max": "rmax", "min": "rmin"}
ATOM = 9
LONGEST = 90  # characters of an expression; a longer one is split
LITERAL = 1024
"""The largest fixed length of a row that is written as a number where its elements are combined in a register.

The compiler then knows how many vectors the row is, and needs no code for what is left over: softmax of 96 elements takes
half the time. Elsewhere fixed sizes are parameters, so that kernels of one structure are compiled once."""


@dataclass(frozen=True)
class Source:
    """A printed kernel: its text, its parameters' types, and its size parameters, to be evaluated at each call."""

    text: str
    signature: tuple[str, ...]
    sizes: tuple[Size, ...]


def print_kernel(kernel: Kernel) -> Source:
    """The source of a kernel."""
    printer = Printer(kernel)
    printer.literal = _rows(kernel)
    printer.outer = {item.variable for item in kernel.body if isinstance(item, Loop)}
    printer.block(kernel.body, 1)
    sizes = [printer.size_names[value] for value in printer.sizes]
    signature = tuple(f"{'bool' if a.dtype is bool_ else a.dtype.name}*" for a in kernel.arrays) + ("i64",) * len(sizes)
    ends = ["begin", "end"] if kernel.main is not None else []
    doc = [
        f'    """{kernel.notes[0] if len(kernel.notes) == 1 else f"{len(kernel.notes)} statements over shared loops."}',
        "",
    ]
    for name, array in zip(printer.arrays, kernel.arrays, strict=True):
        doc.append(f"    {name}: {array.dtype}{', written' if array.written else ''}")
    shown = [f"{name} = {value}" for name, value in zip(sizes, printer.sizes, strict=True) if name != str(value)]
    doc += [f"    {', '.join(shown)}"] if shown else []
    if kernel.main is not None:
        doc.append(f"    begin, end: the part to do of range({loops(kernel.body)[kernel.main].extent})")
    doc.append('    """')
    text = (
        "\n".join(
            [
                f"def {kernel.name}({', '.join([*printer.arrays, *sizes, *ends])}):",
                *doc,
                *(printer.lines or ["    pass"]),
            ]
        )
        + "\n"
    )
    return Source(text, signature + ("i64",) * len(ends), tuple(printer.sizes))


def free_name(name: str, taken: set[str]) -> str:
    """A parameter's name that is no word of the kernel language and not taken."""
    while (
        name in VOCABULARY
        or name in taken
        or keyword.iskeyword(name)
        or re.fullmatch(r"[vtin]\d+", name)
        or not name.isidentifier()
    ):
        name += "_"
        if not name.isidentifier():
            name = f"a_{name}"
    taken.add(name)
    return name


class Printer:
    """Statements to lines. A target with other words or another frame of loops is a subclass."""

    def __init__(self, kernel: Kernel, reserved: frozenset[str] = frozenset()):
        self.kernel = kernel
        self.lines: list[str] = []
        self.sizes: dict[Size, int] = {}
        self.size_names: dict[Size, str] = {}
        self.taken: set[str] = set(reserved)
        self.arrays = [free_name(array.name, self.taken) for array in kernel.arrays]
        self.temporaries = 0
        self.used = _locals_used(kernel.body)
        self.rename: dict[str, str] = {}
        self.loops: dict[int, str] = {}
        self.named = 0  # names given to loops: one variable may have several, one after the other
        self.blocks: dict[int, tuple[str, str]] = {}  # of loops over blocks: a block's length, and where the last ends
        self.literal = {0, 1}  # sizes that are written as numbers
        self.outer: set[int] | None = None  # variables of the outermost loops; None: nothing is noted of loops

    def line(self, text: str, depth: int) -> None:
        self.lines.append("    " * depth + text)

    def block(self, items: list[Statement], depth: int) -> None:
        for item in items:
            self.statement(item, depth)

    def statement(self, item: Statement, depth: int) -> None:
        if isinstance(item, Loop):
            self.block(item.before, depth)
            self.line(f"for {self.loop_name(item)} in range({self.range(item)}):", depth)
            if note := self.note(item):
                self.line(f"{note}()", depth + 1)
            before = len(self.lines)
            self.block(item.body, depth + 1)
            if all(line.lstrip().startswith("#") for line in self.lines[before:]):
                self.line("pass", depth + 1)
            self.block(item.after, depth)
        elif isinstance(item, Note):
            self.line(f"# {item.text}", depth)
        elif isinstance(item, Assign):
            if item.local in self.used:
                self.line(f"{self.local(item.local)} = {self.shared(item.expression, depth)}", depth)
        elif isinstance(item, Store):
            target = f"{self.arrays[item.array]}[{self.position(item.position, tuple(self.shared(e, depth) for e in item.lookups))}]"
            value = self.shared(item.expression, depth)
            dtype = self.kernel.arrays[item.array].dtype
            if item.reduce == "sum":
                value = self.rounded(f"{target} + {value}", dtype)
            elif item.reduce != "assign":
                value = f"{REDUCE[item.reduce]}({target}, {value})"
            self.line(f"{target} = {value}", depth)
        elif isinstance(item, Accumulate):
            name = self.local(item.local)
            self.line(
                f"{name} = {self.rounded(f'{REDUCE[item.reduce]}({name}, {self.shared(item.expression, depth)})', item.expression.dtype)}",
                depth,
            )
        else:
            self.first_maximum(item, depth)

    def note(self, loop: Loop) -> str | None:
        """What the compiler is told of an innermost loop whose length it does not know."""
        if self.outer is None or any(isinstance(item, Loop) for item in loop.body):
            return None
        if loop.extent.constant is not None and loop.extent.constant <= LITERAL:
            return None
        row = not {loop.variable, loop.within} & self.outer
        if row and loop.extent.constant is None and any(isinstance(item, Accumulate) for item in loop.body):
            return "short"  # a row that is combined in a register may be a few vectors
        return "deep" if any(e.op in _LONG for item in loop.body for e in leaves(item)) else None

    def loop_name(self, loop: Loop) -> str:
        """A name for the variable of a loop."""
        name = self.loops[loop.variable] = f"i{self.named}"
        self.named += 1
        return name

    def range(self, loop: Loop) -> str:
        """The arguments of `range` for a loop."""
        if loop.within is not None:
            begin, (length, end) = self.loops[loop.within], self.blocks[loop.within]
            end = f"fmin({begin} + {length}, {end})"
        else:
            begin, end = ("begin", "end") if loop.variable == self.kernel.main else ("0", self.size(loop.extent))
        if loop.step == 1:
            return end if begin == "0" else f"{begin}, {end}"
        known = size(loop.step).constant
        step = str(known) if known is not None else self.size(size(loop.step))
        self.blocks[loop.variable] = step, end
        return f"{begin}, {end}, {step}"

    def first_maximum(self, item: Arg, depth: int) -> None:
        """NumPy's rule: the first of equals, and the first NaN before everything."""
        best, place, value = self.local(item.best), self.local(item.place), f"t{self.temporaries}"
        self.temporaries += 1
        self.line(f"{value} = {self.shared(item.expression, depth)}", depth)
        nan = f" | (({value} != {value}) & ({best} == {best}))" if item.expression.dtype.is_float else ""
        better = f"({value} > {best}){nan}"
        self.line(f"{place} = select({better}, i64({self.affine(item.position)}), {place})", depth)
        self.line(f"{best} = select({better}, {value}, {best})", depth)

    # -- expressions --------------------------------------------------------------------------------------------
    def shared(self, expression: Scalar, depth: int) -> str:
        """An expression, its repeated parts computed once into temporaries."""
        order = list(sc.distinct([expression]))
        counts = Counter(a for e in order for a in e.args)
        texts: dict[Scalar, tuple[str, int]] = {}
        for e in order:
            text, strength = self.expression(e, [texts[a] for a in e.args])
            long = len(text) > LONGEST and e is not expression
            if (counts[e] > 1 or long) and e.op not in ("const", "local", "size", "index"):
                name = f"t{self.temporaries}"
                self.temporaries += 1
                self.line(f"{name} = {text}", depth)
                text, strength = name, ATOM
            texts[e] = text, strength
        return texts[expression][0]

    def expression(self, e: Scalar, args: list[tuple[str, int]]) -> tuple[str, int]:
        """(text, binding strength) of one operation over its arguments' texts."""
        plain = [text for text, _ in args]
        if e.op == "const":
            return self.number(e.value, e.dtype), ATOM
        if e.op == "local":
            return self.local(e.value), ATOM
        if e.op == "index":
            return f"i64({self.affine(e.value)})", ATOM
        if e.op == "size":
            return f"{e.dtype}({self.size(e.value)})", ATOM
        if e.op == "load":
            load: Load = e.value
            return f"{self.arrays[load.array]}[{self.position(load.position, tuple(plain))}]", ATOM
        if e.op == "cast":
            return (f"({plain[0]} != 0)" if e.dtype is bool_ else f"{e.dtype}({plain[0]})"), ATOM
        if e.op in _INFIX:
            sign, strength = _INFIX[e.op]
            left = args[0][0] if args[0][1] >= strength and strength != 3 else _bracket(args[0])
            right = args[1][0] if args[1][1] > strength else _bracket(args[1])
            text = f"{left} {sign} {right}"
            return (self.rounded(text, e.dtype), ATOM) if e.dtype.kind == "i" else (text, strength)
        if e.op == "neg":
            text = f"-{_bracket(args[0])}"
            return (self.rounded(text, e.dtype), ATOM) if e.dtype.kind == "i" else (text, 8)
        if e.op == "logical_not":
            return f"(not {_bracket(args[0])})", ATOM
        if e.op == "abs":
            return (
                f"fabs({plain[0]})"
                if e.dtype.is_float
                else self.rounded(f"select({plain[0]} < 0, -{plain[0]}, {plain[0]})", e.dtype)
            ), ATOM
        return f"{_WORDS.get(e.op, e.op)}({', '.join(plain)})", ATOM

    def rounded(self, text: str, dtype: DType) -> str:
        """Integer arithmetic keeps its width."""
        return f"{dtype}({text})" if dtype.kind == "i" else text

    def number(self, value: float | int | bool, dtype: DType) -> str:
        if dtype is bool_:
            return f"bool_({int(value)})"
        if isinstance(value, float) and value != value:
            return f"({dtype}(1e999) - {dtype}(1e999))"  # a NaN
        if isinstance(value, float) and value in (float("inf"), float("-inf")):
            return f"{dtype}({'-' if value < 0 else ''}1e999)"
        return f"{dtype}({value!r})"

    def local(self, name: str) -> str:
        return self.rename.setdefault(name, f"v{len(self.rename)}")

    def size(self, value: Size) -> str:
        """A size: 0, 1 and lengths of rows as they are, others as parameters."""
        if value.constant in self.literal:
            return str(value.constant)
        if value not in self.sizes:
            self.sizes[value] = len(self.sizes)
            named = str(value).isidentifier()
            self.size_names[value] = free_name(str(value), self.taken) if named else f"n{self.sizes[value]}"
        return self.size_names[value]

    def affine(self, form: Affine) -> str:
        parts = []
        for axis, coefficient in form.terms:
            negative = all(factor < 0 for _, factor in coefficient.terms)
            length = coefficient * -1 if negative else coefficient
            part = self.loops[axis] if length == 1 else f"{self.loops[axis]}*{self.size(length)}"
            parts.append(f"-{part}" if negative else part)
        if form.constant != 0 or not parts:
            parts.append(self.size(form.constant))
        return " + ".join(parts).replace("+ -", "- ")

    def position(self, position: Position, lookups: tuple[str, ...]) -> str:
        looked_up = [
            text if stride == 1 else f"{text}*{self.size(stride)}"
            for text, stride in zip(lookups, position.strides, strict=True)
        ]
        fixed = self.affine(position.affine)
        return " + ".join([*looked_up, fixed] if fixed != "0" or not looked_up else looked_up)


def _rows(kernel: Kernel) -> set[int]:
    """The sizes that are written as numbers: see LITERAL."""
    lengths = {
        loop.extent.constant
        for loop in loops(kernel.body).values()
        if loop.variable != kernel.main and any(isinstance(item, (Accumulate, Arg)) for item in loop.body)
    }
    return {0, 1} | {n for n in lengths if n is not None and n <= LITERAL}


def _bracket(part: tuple[str, int]) -> str:
    text, strength = part
    return text if strength == ATOM else f"({text})"


def _locals_used(items: list[Statement]) -> set[str]:
    found: set[str] = set()
    for item in walk(items):
        found |= {e.value for e in leaves(item) if e.op == "local"}
        if isinstance(item, (Arg, Accumulate)):
            found |= {item.best, item.place} if isinstance(item, Arg) else {item.local}
    return found
