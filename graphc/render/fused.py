"""The view `fused`: what runs. Kernels with the statements fused into them, matrix products, and the buffers between.

With a profile each kernel tells its time, and is the darker the longer it takes.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from ..graph.size import Size, size
from ..runtime.profile import Profile, Timing, time_text
from ..runtime.program import Buffer, Instruction, Loop, Program
from .notation import size_text
from .picture import Box, Edge, Line, Picture
from .style import heat

MOST = 24
"""Statements of a kernel that are listed."""
LEGEND = (
    ("input", "input"),
    ("param", "parameter"),
    ("state", "state"),
    ("const", "constant"),
    ("kernel", "kernel, its fused statements"),
    ("product", "matrix product"),
    ("timed product", "matrix product"),
    ("check", "check of indices"),
    ("output", "outputs"),
    ("buffer", "buffer, its shape and bytes"),
)
HOT = ("hot", "the darker, the more of the time")


@dataclass(frozen=True)
class Kernel:
    """A generated kernel as its source tells it: its arrays, those that it writes, its statements."""

    arrays: tuple[str, ...]
    written: frozenset[str]
    statements: tuple[str, ...]


def fused(program: Program, source: str, title: str, subtitle: str = "", profile: Profile | None = None) -> Picture:
    """The picture of a program and the source of its kernels; with a profile of it, their times."""
    kernels = read_kernels(source)
    picture = Picture(title, subtitle)
    maker: dict[int, str] = {}
    over: set[int] = set()  # temporaries that hold another value than the one that they are named after
    for number, buffer in enumerate(program.buffers):
        if buffer.kind in ("input", "param", "state", "const"):
            lines = (Line(buffer.name, "title"), Line(_shape(buffer), "small"), Line(_bytes(buffer), "small"))
            picture.boxes.append(Box(f"b{number}", buffer.kind, lines))
            maker[number] = f"b{number}"
    for step, instruction in enumerate(_calls(program)):
        box = _box(step, instruction, program, kernels)
        if profile is not None and (timing := _timings(program, profile)[step]) is not None:
            box = _timed(box, timing, profile)
        picture.boxes.append(box)
        written = _written(instruction, kernels)
        for number in dict.fromkeys(n for n, _ in instruction.arrays):
            if number in maker and (number not in written or program.buffers[number].kind != "output"):
                if maker[number].startswith("s") and maker[number] != box.id:  # it goes from step to step
                    buffer = program.buffers[number]
                    held = f"{buffer.name}{', written over' if number in over else ''}"
                    text = Line(f"{held} {_shape(buffer)}", "plain"), Line(_bytes(buffer), "small")
                    name = f"t{number}.{step}"
                    picture.boxes.append(Box(name, "buffer", text))
                    picture.edges.append(Edge(maker[number], name, "line"))
                    maker[number] = name
                if maker[number] != box.id:
                    picture.edges.append(Edge(maker[number], box.id, "buffer"))
        outputs = [program.buffers[n] for n in written if program.buffers[n].kind == "output"]
        for number in written:
            if number in maker and program.buffers[number].kind in ("param", "state"):
                picture.edges.append(Edge(box.id, f"b{number}", "update", (Line("becomes", "small"),)))
        over |= {n for n in written if n in maker and program.buffers[n].kind == "temp"}
        maker |= dict.fromkeys(written, box.id)
        if outputs:
            shown = [(Line(_output_name(b), "title"), Line(f"{_shape(b)}, {_bytes(b)}", "small")) for b in outputs]
            picture.boxes.append(Box(f"o{step}", "output", tuple(line for lines in shown for line in lines)))
            picture.edges.append(Edge(box.id, f"o{step}", "buffer"))
    used = {e.tail for e in picture.edges} | {e.head for e in picture.edges}
    picture.boxes = [b for b in picture.boxes if b.id in used or not b.id.startswith("b")]
    kinds = {b.kind for b in picture.boxes}
    picture.legend = [(k, t) for k, t in LEGEND if k in kinds] + ([] if profile is None else [HOT])
    return picture


def _calls(program: Program) -> list[Instruction]:
    """Every instruction over whole arrays: a loop's once, and its rows as the arrays that they are rows of."""
    return [replace(i, arrays=tuple((program.root(n), o) for n, o in i.arrays)) for i in program.calls]


def _timings(program: Program, profile: Profile) -> list[Timing | None]:
    """The time of each instruction; None inside loops, which are timed as a whole."""
    found: list[Timing | None] = []
    for instruction, timing in zip(program.instructions, profile.timings, strict=True):
        found += [None for _ in instruction.calls] if isinstance(instruction, Loop) else [timing]
    return found


def _timed(box: Box, timing: Timing, profile: Profile) -> Box:
    """The box of an instruction with its time, and coloured by it."""
    share = profile.share(timing)
    lines = (
        Line(f"{time_text(timing.seconds)}, {share:.1%} of the time", "time"),
        Line(f"{timing.fraction:.0%} of peak ({timing.bound})", "note"),
    )
    kind = "timed product" if box.kind == "product" else box.kind  # whose own colour does not compete
    return replace(box, kind=kind, lines=(*box.lines, *lines), fill=heat(share))


def read_kernels(source: str) -> dict[str, Kernel]:
    """The kernels of a generated source: docstrings list the arrays, comments give the statements."""
    lines = source.splitlines()
    found: dict[str, Kernel] = {}
    for function in ast.parse(source).body:
        if not isinstance(function, ast.FunctionDef):
            continue
        listed = re.findall(r"^\s*(\w+): \w+(, written)?$", ast.get_docstring(function) or "", re.MULTILINE)
        body = lines[function.lineno : function.end_lineno]
        statements = [text.strip()[2:] for text in body if text.strip().startswith("# ")]
        found[function.name] = Kernel(
            tuple(name for name, _ in listed),
            frozenset(name for name, written in listed if written),
            tuple(dict.fromkeys(statements)),
        )
    return found


def told(instruction: Instruction, program: Program, kernels: Mapping[str, Kernel]) -> tuple[list[str], list[str]]:
    """(what an instruction computes, a formula each; the model's lines that it comes from)"""
    buffers = [program.buffers[n] for n, _ in instruction.arrays]
    if instruction.kernel.startswith("check_index"):
        return [f"0 ≤ {buffers[0].name} < {size_text(instruction.sizes[1])}"], [instruction.where]
    if instruction.kernel == "copy":
        return [f"{buffers[0].name} = {buffers[1].name}"], []
    if instruction.fixed:
        statements = [_split(instruction.message)]
    else:
        kernel = kernels[instruction.kernel]
        # a kernel that several steps share is written with the names of the first: here with those of this step
        names = {a: _plain(b.name) for a, b in zip(kernel.arrays, buffers, strict=False)}
        statements = [_split(s) for s in kernel.statements]
        statements = [(re.sub(r"\w+", lambda m: names.get(m[0], m[0]), f), where) for f, where in statements]
    places = [line for _, where in statements for line in where.split("   ")[1:]]  # the type stands before them
    return [formula for formula, _ in statements], list(dict.fromkeys(places))


def _written(instruction: Instruction, kernels: dict[str, Kernel]) -> list[int]:
    """The buffers that an instruction writes."""
    numbers = [n for n, _ in instruction.arrays]
    if not instruction.fixed:
        kernel = kernels[instruction.kernel]
        return [n for n, name in zip(numbers, kernel.arrays, strict=False) if name in kernel.written]
    if instruction.kernel.startswith("check"):
        return []
    return numbers[:1] if instruction.kernel == "copy" else numbers[-1:]


def _box(step: int, instruction: Instruction, program: Program, kernels: dict[str, Kernel]) -> Box:
    order = f"{step + 1} · "
    formulas, places = told(instruction, program, kernels)
    texts = [Line(text, "code") for text in formulas[:MOST]]
    if len(formulas) > MOST:
        texts.append(Line(f"… and {len(formulas) - MOST} more", "code"))
    cost = _operations(instruction.operations)
    if not instruction.fixed:
        lines = (Line(f"{order}kernel {instruction.kernel}", "head"), *texts, *cost)
        return Box(f"s{step}", "kernel", lines, tooltip=instruction.kernel)
    if instruction.kernel.startswith("gemm"):
        lines = (Line(f"{order}matrix product", "head"), *texts, *_of_sizes(instruction.sizes), *cost)
        return Box(f"s{step}", "product", lines, tooltip=", ".join(places) or instruction.kernel)
    if instruction.kernel.startswith("check_index"):
        return Box(f"s{step}", "check", (Line(f"{order}check", "plain"), Line(formulas[0], "plain")))
    return Box(f"s{step}", "kernel", (Line(f"{order}{instruction.kernel}", "head"), *texts))


def _split(statement: str) -> tuple[str, str]:
    """(formula, type and place) of a statement's comment."""
    formula, _, where = statement.partition("    ")
    return _pretty(formula), where.strip()


def _pretty(formula: str) -> str:
    for old, new in ((" * ", " · "), (" - ", " − "), ("inf", "∞"), (" >= ", " ≥ "), (" <= ", " ≤ "), ("[]", "")):
        formula = formula.replace(old, new)
    return formula


def _plain(name: str) -> str:
    return "".join(c if c.isalnum() else "_" for c in name)


def _of_sizes(sizes: tuple[Size, ...]) -> list[Line]:
    m, n, k = (size_text(s) for s in sizes[:3])
    batch = f"{size_text(sizes[9])} times " if len(sizes) > 9 else ""
    return [Line(f"{batch}({m} × {k}) · ({k} × {n})", "code")]


def _operations(count: Size) -> list[Line]:
    return [Line(f"{_count(count)} operation{'' if count == 1 else 's'}", "note")] if count != 0 else []


def _count(number: Size) -> str:
    return f"{number.constant:,}" if number.constant is not None else size_text(number)


def _shape(buffer: Buffer) -> str:
    shape = f"({', '.join(map(size_text, buffer.shape))})" if buffer.shape else "scalar"
    return shape if buffer.dtype.is_float else f"{shape} {buffer.dtype.name.rstrip('_')}"


def _bytes(buffer: Buffer) -> str:
    count = buffer.numel * size(buffer.dtype.itemsize)
    if count.constant is not None and count.constant >= 10240:
        return f"{count.constant / 1024:,.0f} KiB"
    return f"{_count(count)} bytes"


def _output_name(buffer: Buffer) -> str:
    return f"gradient with respect to {buffer.name[5:]}" if buffer.name.startswith("grad:") else buffer.name
