"""The order of the instructions in vectorised loops.

The vectoriser takes several vectors of a loop at a time, and writes the same operation of all of them one after
another. So a processor meets many multiplications in a row, then many look-ups, and of its units now these are idle and
now those. Here the instructions of such a loop are put in another order: of those whose operands are there, first the
one with the longest way to the end of the loop (list scheduling; Cooper and Torczon, "Engineering a Compiler", chapter
12). Long chains then begin early, and stand between one another. The same operations are done on the same numbers. Two
things LLVM chooses after this, and may choose otherwise: which product goes into a sum in one rounding, where either
could, and in which order the operands of a sum or product stand, which is the sign of a NaN made of two.
"""
from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

FEWEST = 40  # instructions of a loop: shorter ones the processor overlaps by itself
HELD = 8     # vectors held between instructions from which on only such are begun that add none, while there are any

LATENCY = {**dict.fromkeys(("fadd", "fsub", "fmul", "fma", "permvar", "scalef", "load"), 4), "fdiv": 12, "sqrt": 18}
"""How long after an instruction its result is there, in cycles; 1 for what is not listed."""

_PURE = ("fma", "fabs", "copysign", "sqrt", "minnum", "maxnum", "rint", "floor", "ceil", "trunc", "ldexp", "abs", "smin",
         "smax", "umin", "umax", "permvar", "scalef")
"""The intrinsics that are nothing but their result."""

_Scopes = frozenset[str]

_FUNCTION = re.compile(r"^define .*?^\}$", re.MULTILINE | re.DOTALL)
_LOOP = re.compile(r"^([\w.]+):.*\n((?:  %.* = phi .*\n)*)((?:  .*\n)*?)(?=  br i1 .*label %\1(?:,|$))", re.MULTILINE)
_INSTRUCTION = re.compile(r"  (?:(%[\w.]+) = )?(?:(?:must|no)?tail )?(\w+)(.*)")
_SHARED = re.compile(r"  (?:%[\w.]+ = )?(?:fence|cmpxchg|atomicrmw|(?:load|store) (?:atomic|volatile)) ")
_CALLEE = re.compile(r"@llvm\.(?:x86\.avx512\.)?(?:mask\.)?(\w+)")
_NAME = re.compile(r"%[\w.]+")
_VECTOR = re.compile(r" <\d+ x (?:float|double|i\d\d)>")
_SCOPES_OF = re.compile(r"!(alias\.scope|noalias) !(\d+)")
_SCOPE_LIST = re.compile(r"^!(\d+) = !\{(!\d+(?:, !\d+)*)\}$", re.MULTILINE)


def ordered(text: str) -> str:
    """A module's text, vectorised and finished, with its longer loops of one block in a better order."""
    scopes = {number: frozenset(names.split(", ")) for number, names in _SCOPE_LIST.findall(text)}
    return _FUNCTION.sub(lambda function: _with_ordered_loops(function[0], scopes), text)


def _with_ordered_loops(function: str, scopes: Mapping[str, _Scopes]) -> str:
    changed = False

    def ordered_loop(found: re.Match[str]) -> str:
        nonlocal changed
        lines = found[3].splitlines(keepends=True)
        loop = _Loop.read(lines, scopes) if len(lines) >= FEWEST and _VECTOR.search(found[3]) else None
        if loop is None:
            return found[0]
        changed = True
        return found[0].removesuffix(found[3]) + "".join(lines[i] for i in loop.order())

    result = _LOOP.sub(ordered_loop, function)
    return _named(result) if changed else function


def _named(function: str) -> str:
    """A function whose values and blocks have names, since numbers must come in their order."""
    head, body = re.sub(r"%(\d+)\b", r"%v\1", function).split("\n", 1)
    body = re.sub(r"^(\d+):", r"v\1:", body, flags=re.MULTILINE)
    if not re.match(r"[\w.]+:", body):  # the first block is told by the number after those of the arguments
        body = f"v{len(re.findall(r'%v[0-9]+', head))}:\n{body}"
    return f"{head}\n{body}"


@dataclass(frozen=True)
class _Access:
    """A load or store, the alias scopes that it belongs to, and those that it keeps clear of."""

    instruction: int
    stores: bool
    scopes: _Scopes
    others: _Scopes

    def must_follow(self, earlier: _Access) -> bool:
        """Must this access stay behind another?

        No load need wait for a store that never touches what it reads. A store waits for all loads: a processor takes
        a load for dependent on a store before it whose address ends alike, as those of arrays often do.
        """
        if not earlier.stores:
            return self.stores
        return not (self.scopes and self.scopes <= earlier.others or earlier.scopes and earlier.scopes <= self.others)


@dataclass(frozen=True)
class _Loop:
    """The instructions of a loop: for each those that it must follow, its latency, and whether it makes a vector."""

    before: Sequence[Sequence[int]]
    latency: Sequence[int]
    is_vector: Sequence[bool]

    @staticmethod
    def read(lines: Sequence[str], scopes: Mapping[str, _Scopes]) -> _Loop | None:
        """The loop of these lines; None if it calls what may do more than give a result, or other threads see
        in which order it reads and writes."""
        made: dict[str, int] = {}
        accesses: list[_Access] = []
        before, latency, is_vector = [], [], []
        for i, line in enumerate(lines):
            found = _INSTRUCTION.match(line)
            if found is None or _SHARED.match(line):
                return None
            name, word, rest = found.groups()
            if word == "call":
                callee = _CALLEE.search(rest)
                if callee is None or callee[1] not in _PURE:
                    return None
                word = callee[1]
            needed = {made[read] for read in _NAME.findall(rest) if read in made}
            if word in ("load", "store"):
                lists = {kind: scopes.get(number, frozenset()) for kind, number in _SCOPES_OF.findall(rest)}
                access = _Access(i, word == "store", lists.get("alias.scope", frozenset()), lists.get("noalias", frozenset()))
                needed |= {earlier.instruction for earlier in accesses if access.must_follow(earlier)}
                accesses.append(access)
            if name is not None:
                made[name] = i
            before.append(sorted(needed))
            latency.append(LATENCY.get(word, 1))
            # a comparison makes a mask, which lies elsewhere
            is_vector.append(name is not None and word not in ("fcmp", "icmp") and bool(_VECTOR.search(line)))
        return _Loop(before, latency, is_vector)

    @cached_property
    def after(self) -> list[list[int]]:
        found: list[list[int]] = [[] for _ in self.before]
        for i, needed in enumerate(self.before):
            for j in needed:
                found[j].append(i)
        return found

    def order(self) -> list[int]:
        """The instructions in their new order."""
        way = [0] * len(self.before)  # to the end of the loop
        for i in reversed(range(len(way))):
            way[i] = self.latency[i] + max((way[j] for j in self.after[i]), default=0)
        waits_for = [len(needed) for needed in self.before]
        readers = [len(found) for found in self.after]
        ready = [i for i, count in enumerate(waits_for) if count == 0]
        done: list[int] = []
        held = 0

        def added(i: int) -> int:
            """The vectors held after an instruction less those before."""
            last = sum(self.is_vector[j] and readers[j] == 1 for j in self.before[i])
            return (self.is_vector[i] and readers[i] > 0) - last

        while ready:
            few = [i for i in ready if added(i) <= 0] if held >= HELD else []
            chosen = max(few or ready, key=lambda i: (way[i], -i))
            ready.remove(chosen)
            done.append(chosen)
            held += added(chosen)
            for j in self.before[chosen]:
                readers[j] -= 1
            for j in self.after[chosen]:
                waits_for[j] -= 1
                if waits_for[j] == 0:
                    ready.append(j)
        return done
