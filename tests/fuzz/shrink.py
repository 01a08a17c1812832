"""Making a failing program small: what can go goes, as long as it still fails in the same way."""
from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from .generate import Given, Program, words

Fault = Callable[[Program], str | None]
"""What is wrong with a program, as a text; None where nothing is."""


def kind_of(fault: str) -> str:
    """A fault's text without its numbers and names, so that a smaller program with the same fault is recognised."""
    first = re.sub(r"\b[vxpso]\d+|loss\b|\bsecond\b|[dh]_", "#", fault.split("\n")[0])
    return re.sub(r"[-+]?\d[\d.e+-]*|\bnan\b|[-]?inf\b", "#", re.sub(r"(says|differences say|is not finite).*", "", first))[:90]


def shrink(program: Program, fault: Fault, rounds: int = 6) -> Program:
    """A smaller program with the same kind of fault."""
    kind = kind_of(fault(program) or "")

    def fails(candidate: Program) -> bool:
        try:
            found = fault(candidate)
        except Exception:
            return False
        return found is not None and kind_of(found) == kind

    for _ in range(rounds):
        before = program
        for candidates in (_outputs, _updates, _gradients, _numbers, _cuts, _kinds):
            again = True
            while again:
                again = False
                for candidate in candidates(program):
                    candidate = tidy(candidate)
                    if candidate != program and fails(candidate):
                        program, again = candidate, True
                        break
        if program is before:
            break
    return program


def keep(program: Program, fault: Fault, path: Path) -> Program:
    """The program made small, written as a model file with its arrays; what is wrong stands at its top."""
    first = tidy(program)
    small = shrink(first, fault) if fault(first) else program
    reason = "\n".join(f"# {line}" for line in (fault(small) or "").splitlines())
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{reason}\n{small.text()}")
    return small


def tidy(program: Program) -> Program:
    """Without lines and arrays that nothing uses."""
    used = {*program.outputs, *program.updates, *program.updates.values(), *program.wrt, *words(program.loss)}
    lines: list[tuple[str, str]] = []
    for name, expression in reversed(program.lines):
        if name in used:
            lines.insert(0, (name, expression))
            used |= words(expression)
    texts = " ".join(e for _, e in lines) + " ".join(" ".join(g.shape) for n, g in program.given.items() if n in used)
    for size in program.sizes:  # a size that is used keeps one input that has it
        if size in words(texts.replace('"', " ")):
            used |= {next(n for n, g in program.given.items() if g.kind == "input" and size in g.shape)}
    return replace(program, lines=tuple(lines), given={n: g for n, g in program.given.items() if n in used})


def _outputs(p: Program) -> Iterator[Program]:
    for i in range(len(p.outputs)):
        rest = (*p.outputs[:i], *p.outputs[i + 1:])
        if rest or p.loss:
            yield replace(p, outputs=rest)


def _updates(p: Program) -> Iterator[Program]:
    for name in p.updates:
        yield replace(p, updates={n: v for n, v in p.updates.items() if n != name})


def _gradients(p: Program) -> Iterator[Program]:
    if p.second:
        yield replace(p, second=False)
    for i in range(len(p.wrt)):
        yield replace(p, wrt=(*p.wrt[:i], *p.wrt[i + 1:]), second=p.second and len(p.wrt) > 1)
    terms = p.loss.split(" + ")
    if not p.wrt and p.loss and p.outputs:
        yield replace(p, loss="")
    for i in range(len(terms)):
        if len(terms) > 1:
            yield replace(p, loss=" + ".join([*terms[:i], *terms[i + 1:]]))


def _numbers(p: Program) -> Iterator[Program]:
    """Sizes by numbers in place of names."""
    for name, value in p.sizes.items():
        def put(text: str, name: str = name, value: int = value) -> str:
            return re.sub(rf"\b{name}\b", str(value), re.sub(rf'gc\.dim\("{name}"\)', str(value), text))

        shapes = {n: tuple(str(eval(put(e), {})) if name in words(e) and words(e) == {name} else e for e in g.shape) for n, g in p.given.items()}
        yield replace(p, sizes={n: v for n, v in p.sizes.items() if n != name}, lines=tuple((n, put(e)) for n, e in p.lines),
                      given={n: replace(g, shape=shapes[n]) for n, g in p.given.items()})


def _cuts(p: Program) -> Iterator[Program]:
    """A line's value given instead of computed."""
    values = p.run(p.values())
    for i, (name, _) in reversed(list(enumerate(p.lines))):
        array = np.asarray(values[name])
        if array.dtype.name in ("float64", "int64", "bool"):
            yield replace(p, lines=(*p.lines[:i], *p.lines[i + 1:]), given={**p.given, name: Given("input", tuple(map(str, array.shape)), array)})


def _kinds(p: Program) -> Iterator[Program]:
    for name, g in p.given.items():
        if g.kind != "input" and name not in p.updates:
            yield replace(p, given={**p.given, name: replace(g, kind="input")})
