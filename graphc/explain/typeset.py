"""Expressions as boxes: letters for index variables, brackets where they are needed, signs for operations."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from decimal import Decimal
from fractions import Fraction
from typing import Any

from ..graph.size import Root as SizeRoot
from ..graph.size import Size
from .box import Atom, Big, Box, Branches, Fence, Frac, Hat, Root, Row, Script, joined, op, row, var, word
from .expression import Apply, Bracket, Cases, Expr, Extent, Num, Reduce, Ref, Symbol, Var, variables, walk
from .reading import Equation

CHOICE, SUM, PRODUCT, POWER, ATOM = range(5)
THIN = Atom(" ", "space")
POOL = "ijklmnqrtacdfgovxyzpuhbesw"
NAMES = {"sigmoid": "σ", "relu": "ReLU", "maximum": "max", "minimum": "min"}
RELATIONS = {
    "less": "<", "less_equal": "≤", "greater": ">", "greater_equal": "≥", "equal": "=", "not_equal": "≠",
    "logical_and": "∧", "logical_or": "∨",
}  # fmt: skip
KINDS = {"f": "ℝ", "i": "ℤ", "b": "{0,1}"}


class Letters:
    """One letter for the same axis wherever it is read: i counts examples in every equation. steps: the axes, by the name
    of a symbol and their position, that count the steps of a loop: t."""

    def __init__(self, equations: Sequence[Equation], used: Iterable[Symbol], steps: Collection[tuple[str, int]] = ()):
        single = {a.text for s in used for a in _letters_of(s.box)}
        self.pool = [c for c in POOL if c not in single] + [f"{c}′" for c in POOL[:8]]
        parent: dict[Any, Any] = {}
        order: dict[Any, int] = {}

        def find(x: Any) -> Any:
            parent.setdefault(x, x)
            order.setdefault(x, len(order))
            while parent[x] != x:
                x = parent[x]
            return x

        groups = []
        for equation in equations:
            slots: dict[Var, list[tuple[str, int]]] = {}
            for ref in (equation.left, *(x for x in walk(equation.value) if isinstance(x, Ref))):
                for axis, index in enumerate(ref.indices):
                    running = _running(index)
                    if running is not None:
                        slots.setdefault(running, []).append((ref.symbol.name, axis))
            for same in slots.values():
                for slot in same[1:]:
                    a, b = sorted((find(same[0]), find(slot)), key=order.__getitem__)  # the first seen stands for all
                    parent[b] = a
            groups.append([same[0] for same in slots.values()])
        together: dict[Any, set[Any]] = {}
        for group in groups:
            for slot in group:
                together.setdefault(find(slot), set()).update(find(other) for other in group)
        chosen: dict[Any, str] = {find(slot): "t" for slot in steps if slot in parent and "t" in self.pool}
        for slot in parent:  # in the order of their appearance
            if (axis := find(slot)) not in chosen:
                beside = {chosen.get(other) for other in together.get(axis, ())}
                chosen[axis] = next((c for c in self.pool if c not in beside), self.pool[0])
        self.letter = {slot: chosen[find(slot)] for slot in parent}

    def choose(self, v: Var, e: Iterable[Expr], taken: Iterable[str]) -> str:
        """A letter for a variable: that of the first axis that it runs along, if it is free."""
        taken = set(taken)
        for part in e:
            for ref in (x for x in walk(part) if isinstance(x, Ref)):
                for axis, index in enumerate(ref.indices):
                    symbol = ref.symbol.of or ref.symbol
                    letter = self.letter.get((symbol.name, axis))
                    if _running(index) == v and letter is not None and letter not in taken:
                        return letter
        return next(c for c in self.pool if c not in taken)


def _running(index: Expr) -> Var | None:
    """The variable that an index is, or is a number of steps away from: t of t + 1."""
    terms = index.args if isinstance(index, Apply) and index.op == "add" else (index,)
    found = [t for t in terms if isinstance(t, Var)]
    return found[0] if len(found) == 1 and all(isinstance(t, Var | Num) for t in terms) else None


def _letters_of(box: Box | None) -> list[Atom]:
    if isinstance(box, Atom):
        return [box] if box.kind == "var" else []
    if isinstance(box, Script):
        return _letters_of(box.base)
    return _letters_of(box.body) if isinstance(box, Hat) else []


Env = dict[Var, str]


class Typesetter:
    """Expressions as boxes, with the letters of one derivation."""

    def __init__(self, letters: Letters):
        self.letters = letters

    def environment(self, *parts: Expr) -> Env:
        """Letters for the free variables of expressions that stand together, those of the first first."""
        env: Env = {}
        for part in parts:
            ordered = [x for x in walk(part) if isinstance(x, Var) and x in variables(part)]
            for v in ordered:
                if v not in env:
                    env[v] = self.letters.choose(v, parts, env.values())
        return env

    def box(self, e: Expr, env: Env, level: int = CHOICE) -> Box:
        box, own = self._box(e, env)
        return Fence(box) if own < level else box

    def _box(self, e: Expr, env: Env) -> tuple[Box, int]:
        match e:
            case Var():
                return var(env.get(e, "·")), ATOM
            case Num(value):
                return number_box(value)
            case Extent(size):
                return size_box(size)
            case Ref(symbol, indices):
                return self.element(symbol, indices, env), ATOM
            case Bracket(condition):
                return Fence(self.box(condition, env), "[", "]"), ATOM
            case Cases(branches, otherwise):
                rows = [(self.box(v, env), row(word("if "), self.box(c, env))) for v, c in branches]
                return Branches((*rows, (self.box(otherwise, env), word("otherwise")))), SUM
            case Reduce(op, over, body):
                return self._reduce(op, over, body, env)
            case Apply(op, args):
                return self._apply(op, args, env)
        raise TypeError(e)

    def element(self, symbol: Symbol, indices: Sequence[Expr], env: Env) -> Box:
        """A symbol with its indices; without them, of an array, the whole array."""
        if symbol.partial and symbol.of is not None:
            return Frac(row("∂", var("L")), row("∂", self.element(symbol.of, indices, env)))
        if not indices:
            return bold(symbol.box) if symbol.shape else symbol.box
        base = symbol.box if len(indices) == len(symbol.shape) else bold(symbol.box)
        boxes = [self.box(i, env) for i in indices]
        short = all(isinstance(b, Atom) and len(b.text) == 1 for b in boxes)
        below = row(*boxes) if short else joined(boxes, ",")
        return Script(base.base, below, base.sup) if isinstance(base, Script) else Script(base, below)

    def _reduce(self, op_name: str, over: Sequence[Var], body: Expr, env: Env) -> tuple[Box, int]:
        inner = dict(env)
        for v in over:
            inner[v] = self.letters.choose(v, [body], inner.values())
        under = joined([var(inner[v]) for v in over], ",")
        if op_name in ("sum", "prod"):
            return row(Big("∑" if op_name == "sum" else "∏", under), self.box(body, inner, PRODUCT)), PRODUCT
        return row(Script(Atom(op_name, "fn"), under), THIN, self.box(body, inner, POWER)), PRODUCT

    def _apply(self, name: str, args: Sequence[Expr], env: Env) -> tuple[Box, int]:
        match name, args:
            case "add", _:
                return self._sum(args, env), SUM
            case "neg", (x,):
                return row("−", self.box(x, env, PRODUCT)), SUM
            case "mul" | "matmul" | "hadamard", _:
                return self._product(name, args, env), PRODUCT
            case "div", (a, b):
                return self._fraction(a, b, env), PRODUCT
            case "pow", (a, b):
                base = self.box(a, env, ATOM)
                if isinstance(base, Script | Frac) and not (isinstance(base, Script) and base.sup is None):
                    base = Fence(base)
                above = self.box(b, env)
                if isinstance(base, Script):
                    return Script(base.base, base.sub, above), POWER
                return Script(base, None, above), POWER
            case "dot", (a, b):
                return row(self.box(a, env), "·", self.box(b, env)), PRODUCT
            case "transpose", (x,):
                box = self.box(x, env, ATOM)
                box = Fence(box) if isinstance(box, Script) and box.sup is not None else box
                return Script(box, None, op("⊤")), ATOM
            case "ones", (_,):
                return Atom("1", "bold"), ATOM
            case "onehot", (x, _):
                return row(Atom("onehot", "fn"), Fence(self.box(x, env))), ATOM
            case "exp", (x,):
                return Script(Atom("e", "fn"), None, self.box(x, env)), POWER
            case "sqrt", (x,):
                return Root(self.box(x, env)), ATOM
            case "abs", (x,):
                return Fence(self.box(x, env), "|", "|"), ATOM
            case "pi" | "e", ():
                return var("π" if name == "pi" else "e"), ATOM
            case "within", (x, n):
                return row(Atom("0", "num"), "≤", self.box(x, env), "<", self.box(n, env)), CHOICE
            case "floordiv", (a, b):
                return Fence(row(self.box(a, env, PRODUCT), "/", self.box(b, env, ATOM)), "⌊", "⌋"), ATOM
            case "mod", (a, b):
                return row(self.box(a, env, PRODUCT), THIN, Atom("mod", "fn"), THIN, self.box(b, env, ATOM)), SUM
            case "logical_not", (x,):
                return row("¬", self.box(x, env, ATOM)), POWER
            case _, (a, b) if name in RELATIONS:
                level = CHOICE if name.startswith("logical") else SUM
                return row(self.box(a, env, level), RELATIONS[name], self.box(b, env, level)), CHOICE
        inside = joined([self.box(a, env) for a in args], ",")
        return row(function_name(name), Fence(inside)), ATOM

    def _sum(self, terms: Sequence[Expr], env: Env) -> Box:
        items: list[Box | str] = []
        for n, term in enumerate(terms):
            negative = isinstance(term, Apply) and term.op == "neg"
            inner = term.args[0] if isinstance(term, Apply) and negative else term
            if isinstance(inner, Num) and inner.value < 0:
                negative, inner = not negative, Num(-inner.value)
            if n or negative:
                items.append("−" if negative else "+")
            items.append(self.box(inner, env, PRODUCT if negative else SUM))
        return row(*items)

    def _product(self, name: str, factors: Sequence[Expr], env: Env) -> Box:
        # a sum or a choice reaches to the end of a product, so it stands last
        ordered = [f for f in factors if not isinstance(f, Reduce)] + [f for f in factors if isinstance(f, Reduce)]
        items: list[Box | str] = []
        for n, factor in enumerate(ordered):
            last = n == len(ordered) - 1
            mixed = isinstance(factor, Apply) and factor.op == "hadamard" and name != "hadamard"
            level = PRODUCT if not mixed and (last or not isinstance(factor, Reduce)) else ATOM
            box = self.box(factor, env, level)
            if n:
                items.append("⊙" if name == "hadamard" else "·" if _begins_with_number(factor) else THIN)
            items.append(box)
        return row(*items)

    def _fraction(self, a: Expr, b: Expr, env: Env) -> Box:
        """a/b; a sum above stands beside the fraction: (1/B) Σ."""
        factors = list(a.args) if isinstance(a, Apply) and a.op == "mul" else [a]
        beside = [f for f in factors if isinstance(f, Reduce) or isinstance(f, Apply) and f.op == "matmul"]
        above = [f for f in factors if f not in beside]
        if not beside:
            return Frac(self.box(a, env), self.box(b, env))
        top = self._product("mul", above, env) if above else Atom("1", "num")
        return row(Frac(top, self.box(b, env)), THIN, self._product("mul", beside, env))


def _begins_with_number(e: Expr) -> bool:
    return isinstance(e, Num)


def function_name(name: str) -> Box:
    text = NAMES.get(name, name)
    return var(text) if len(text) == 1 else Atom(text, "fn")


def bold(box: Box) -> Box:
    """A whole array: its letter bold."""
    match box:
        case Atom(text, "var"):
            return Atom(text, "bold")
        case Script(base, sub, sup):
            return Script(bold(base), sub, sup)
        case Hat(body):
            return Hat(bold(body))
        case Row(items):
            return Row((bold(items[0]), *items[1:]))
    return box


def number_box(value: Fraction | float) -> tuple[Box, int]:
    """A number: a short fraction as one, else a decimal; large and small ones with a power of ten."""
    if value < 0:
        return row("−", number_box(-value)[0]), SUM
    if not isinstance(value, Fraction):
        return Atom("∞" if value == float("inf") else "NaN", "num"), ATOM
    if value.denominator == 1 and value < 10**7:
        return Atom(str(value.numerator), "num"), ATOM
    if value.denominator <= 12:
        return Frac(Atom(str(value.numerator), "num"), Atom(str(value.denominator), "num")), PRODUCT
    text = f"{Decimal(value.numerator) / Decimal(value.denominator):.7g}".lower()
    mantissa, _, exponent = text.partition("e")
    if not exponent:
        return Atom(mantissa, "num"), ATOM
    power = Script(Atom("10", "num"), None, number_box(Fraction(int(exponent)))[0])
    return (power, POWER) if mantissa == "1" else (row(Atom(mantissa, "num"), "·", power), PRODUCT)


def size_box(size: Size) -> tuple[Box, int]:
    """A size: names and numbers."""
    terms: list[Box | str] = []
    for n, (monomial, coefficient) in enumerate(size.terms):
        if n or coefficient < 0:
            terms.append("−" if coefficient < 0 else "+")
        factors: list[Box] = [] if monomial and abs(coefficient) == 1 else [Atom(str(abs(coefficient)), "num")]
        for atom, power in monomial:
            if isinstance(atom, str):
                base: Box = var(atom)
            elif isinstance(atom, SizeRoot):
                base = Fence(Root(size_box(atom.argument)[0]), "⌊", "⌋")
            else:
                above, below = size_box(atom.numerator)[0], size_box(atom.divisor)[0]
                base = Fence(row(above, "/", below), "⌊", "⌋")
            factors.append(base if power == 1 else Script(base, None, Atom(str(power), "num")))
        terms.append(joined(factors, "·"))
    if not terms:
        return Atom("0", "num"), ATOM
    return row(*terms), ATOM if len(terms) == 1 and not isinstance(terms[0], Row) else SUM


def membership(symbol: Symbol, box: Box) -> Box:
    """`z ∈ ℝ^{B×3}`"""
    space: Box = op(KINDS[symbol.kind])
    if symbol.shape:
        space = Script(space, None, joined([_sized(e) for e in symbol.shape], "×"))
    return row(box, "∈", space)


def _sized(extent: Size) -> Box:
    box, level = size_box(extent)
    return box if level == ATOM or not isinstance(box, Row) or "+" not in str(extent) else Fence(box)
