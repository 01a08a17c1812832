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
HELD = 8     # vectors that wait for a reader; from here on, of the instructions that are ready, those go first that add none

LATENCY = {**dict.fromkeys(("fadd", "fsub", "fmul", "fma", "permvar", "scalef", "load"), 4), "fdiv": 12, "sqrt": 18}
"""How long after an instruction its result is there, in cycles; 1 for what is not listed."""

_Scopes = frozenset[str]

_FUNCTION = re.compile(r"^define .*?^\}$", re.MULTILINE | re.DOTALL)
_LOOP = re.compile(r"^([\w.]+):.*\n((?:  %.* = phi .*\n)*)((?:  .*\n)*?)(?=  br i1 .*label %\1(?:,|$))", re.MULTILINE)
_INSTRUCTION = re.compile(r"  (?:(%[\w.]+) = )?(?:(?:must|no)?tail )?(\w+)(.*)")
_SHARED = re.compile(r"  (?:%[\w.]+ = )?(?:fence|cmpxchg|atomicrmw|(?:load|store) (?:atomic|volatile)) ")
_CALLEE = re.compile(r"@(?:llvm\.(?:x86\.avx512\.)?(?:mask\.)?)?(\w+)[\w.]*")
_PURE = re.compile(r"^attributes #(\d+) = \{.* willreturn memory\(none\) ", re.MULTILINE)
_DECLARED = re.compile(r"^declare .*(@[\w.]+)\(.*\).* #(\d+)$", re.MULTILINE)
_NAME = re.compile(r"%[\w.]+")
_VECTOR = re.compile(r" <\d+ x (?:float|double|i\d\d)>")
_SCOPES_OF = re.compile(r"!(alias\.scope|noalias) !(\d+)")
_SCOPE_LIST = re.compile(r"^!(\d+) = !\{(!\d+(?:, !\d+)*)\}$", re.MULTILINE)


def ordered(text: str) -> str:
    """A module's text, vectorised and finished, with its longer loops of one block in a better order."""
    facts = _Facts.read(text)
    return _FUNCTION.sub(lambda function: _with_ordered_loops(function[0], facts), text)


def _with_ordered_loops(function: str, facts: _Facts) -> str:
    def ordered_loop(found: re.Match[str]) -> str:
        lines = found[3].splitlines(keepends=True)
        loop = _Loop.read(lines, facts) if len(lines) >= FEWEST and _VECTOR.search(found[3]) else None
        return found[0] if loop is None else found[0].removesuffix(found[3]) + "".join(lines[i] for i in loop.order())

    result = _LOOP.sub(ordered_loop, function)
    return function if result == function else _named(result)


def _named(function: str) -> str:
    """A function whose values and blocks have names, since numbers must come in their order."""
    head, body = re.sub(r"%(\d+)\b", r"%v\1", function).split("\n", 1)
    body = re.sub(r"^(\d+):", r"v\1:", body, flags=re.MULTILINE)
    if not re.match(r"[\w.]+:", body):  # the first block is told by the number after those of the arguments
        body = f"v{len(re.findall(r'%v[0-9]+', head))}:\n{body}"
    return f"{head}\n{body}"


@dataclass(frozen=True)
class _Facts:
    """What a module tells of itself: the functions that are nothing but their result, and lists of alias scopes by number."""

    pure: frozenset[str]
    scopes: Mapping[str, _Scopes]

    @staticmethod
    def read(text: str) -> _Facts:
        attributes = set(_PURE.findall(text))
        pure = frozenset(name for name, number in _DECLARED.findall(text) if number in attributes)
        return _Facts(pure, {number: frozenset(names.split(", ")) for number, names in _SCOPE_LIST.findall(text)})


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
    """The instructions of a loop: for each those whose results it reads, and all that it must follow; its latency; and
    whether it makes a vector."""

    reads: list[list[int]]
    before: list[list[int]]
    latency: list[int]
    is_vector: list[bool]

    @staticmethod
    def read(lines: Sequence[str], facts: _Facts) -> _Loop | None:
        """The loop of these lines; None if it calls what may do more than give a result, or other threads see
        in which order it reads and writes."""
        made: dict[str, int] = {}
        accesses: list[_Access] = []
        loop = _Loop([], [], [], [])
        for i, line in enumerate(lines):
            found = _INSTRUCTION.match(line)
            if found is None or _SHARED.match(line):
                return None
            name, word, rest = found.groups()
            if word == "call":
                callee = _CALLEE.search(rest)
                if callee is None or callee[0] not in facts.pure:
                    return None
                word = callee[1]
            reads = {made[read] for read in _NAME.findall(rest) if read in made}
            after: set[int] = set()
            if word in ("load", "store"):
                lists = {kind: facts.scopes.get(number, frozenset()) for kind, number in _SCOPES_OF.findall(rest)}
                access = _Access(i, word == "store", lists.get("alias.scope", frozenset()), lists.get("noalias", frozenset()))
                after = {earlier.instruction for earlier in accesses if access.must_follow(earlier)}
                accesses.append(access)
            if name is not None:
                made[name] = i
            loop.reads.append(sorted(reads))
            loop.before.append(sorted(reads | after))
            loop.latency.append(LATENCY.get(word, 1))
            # a comparison makes a mask, which lies elsewhere
            loop.is_vector.append(name is not None and word not in ("fcmp", "icmp") and bool(_VECTOR.search(line)))
        return loop

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
        readers = [0] * len(self.before)
        for reads in self.reads:
            for j in reads:
                readers[j] += 1
        ready = [i for i, count in enumerate(waits_for) if count == 0]
        done: list[int] = []
        held = 0

        def added(i: int) -> int:
            """The vectors held after an instruction less those before."""
            last = sum(self.is_vector[j] and readers[j] == 1 for j in self.reads[i])
            return (self.is_vector[i] and readers[i] > 0) - last

        while ready:
            few = [i for i in ready if added(i) <= 0] if held >= HELD else []
            chosen = max(few or ready, key=lambda i: (way[i], -i))
            ready.remove(chosen)
            done.append(chosen)
            held += added(chosen)
            for j in self.reads[chosen]:
                readers[j] -= 1
            for j in self.after[chosen]:
                waits_for[j] -= 1
                if waits_for[j] == 0:
                    ready.append(j)
        return done
