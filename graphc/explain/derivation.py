"""The derivation itself: equations forward, cotangents backward, each as the sum over its uses, then simplified."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from ..errors import InputError
from ..graph.graph import Graph
from ..graph.node import Node
from ..ops.leaves import LEAVES
from ..pipeline import derive as expanded
from ..render.names import names_of
from .adjoint import Use, contribution, uses
from .algebra import LONGEST, is_pointwise, simplified
from .box import var
from .expression import (
    ONE,
    Apply,
    Expr,
    Extent,
    Num,
    Reduce,
    Ref,
    Symbol,
    Var,
    add,
    measure,
    mul,
    neg,
    rebuild,
    refs,
    renamed,
    substitute,
    variables,
    walk,
)
from .loops import Loops, without_loops
from .names import cotangent_of, symbols_for
from .reading import Equation, Reading, flowing, fresh, stepped

SHORT = 24
"""A cotangent of at most this measure is put into those that follow."""
WRITTEN = 44
"""A gradient of at most this measure is written out down to inputs and parameters."""
DIFFERENCE = 6
"""A value without a name that is at most this long, such as ŷ − y, is written out in simplified cotangents."""
ARITHMETIC = ("add", "mul", "neg", "div")


@dataclass(frozen=True)
class Cotangent:
    """∂L/∂(a value): the sum of what its uses give, and what that comes to.

    general: by the cotangents of the readers; inserted: these written out where they are short; closed: simplified.
    using: values that were replaced by what they are computed from on the way to `closed`. place: the indices, where
    they are not plain, as those of a state after a step.
    """

    node: Node
    symbol: Symbol
    indices: tuple[Var, ...]
    parts: tuple[tuple[Use, Expr], ...]
    general: Expr
    inserted: Expr
    closed: Expr
    using: tuple[Symbol, ...] = ()
    place: tuple[Expr, ...] | None = None

    @property
    def left(self) -> Ref:
        return Ref(self.symbol, self.indices if self.place is None else self.place)


@dataclass
class Derivation:
    """The gradients of a model's loss, derived."""

    graph: Graph
    loss: Node
    symbols: dict[Node, Symbol]
    equations: list[Equation] = field(default_factory=list)
    cotangents: list[Cotangent] = field(default_factory=list)
    abbreviations: list[Equation] = field(default_factory=list)
    unreached: list[Node] = field(default_factory=list)
    named: set[Node] = field(default_factory=set)
    loops: Loops | None = None

    @property
    def definitions(self) -> dict[Symbol, Equation]:
        """What values are computed from; those of the paths of loops are not, or it would have no end."""
        return {e.symbol: e for e in (*self.equations, *self.abbreviations) if e.place is None}


def derive(graph: Graph, y: Node, wrt: Sequence[Node]) -> Derivation:
    """The derivation of a scalar of a traced graph, such as its loss, with respect to inputs and parameters."""
    if y.shape:
        raise InputError(f"what is derived in model {graph.name} has the type {y.type}; only a scalar has a gradient")
    named = names_of(graph)
    graph = expanded(replace(graph, outputs={"loss": y}, updates={}))
    loops = without_loops(graph, named)
    graph = loops.graph
    loss = graph.outputs["loss"]
    named = {n: name for n, name in loops.names.items() if n in set(graph.nodes)}
    flow = flowing(graph, set(wrt), loops.paths)
    kept = stepped(graph, flow, named, loops.parts, loops.made)
    scopes = {n: next((o.scope for o in graph.tables.origins.get(n, ()) if o.scope), "") for n in kept}
    missing = [n for n in wrt if n not in set(kept)]
    symbols = symbols_for([*kept, *missing], named | {n: n.attr("name") for n in missing}, loss, scopes)
    derivation = Derivation(
        graph, loss, symbols, unreached=[n for n in wrt if n not in flow], named=set(named), loops=loops
    )
    reading = Reading({n: symbols[n] for n in kept}, loops.parts)
    derivation.equations = _equations(graph, reading, loops)
    _backward(derivation, flow, wrt)
    return derivation


def _equations(graph: Graph, reading: Reading, loops: Loops) -> list[Equation]:
    """The equations in an order in which they can be computed, step by step."""
    found: list[Equation] = []
    steps = loops.steps
    for node in graph.nodes:
        if node in loops.paths:
            found.append(reading.begin(loops.paths[node]))
        elif node in reading.symbols and node.op not in LEAVES:
            found.append(reading.equation(node))
        found += [reading.step(path) for path in steps.get(node, ())]
    return found


def _backward(derivation: Derivation, flow: set[Node], wrt: Sequence[Node]) -> None:
    symbols = derivation.symbols
    read: dict[Symbol, list[Use]] = {}
    by_symbol = {s: n for n, s in symbols.items()}

    def node_flows(equation: Equation) -> bool:
        return by_symbol[equation.symbol] in flow

    for equation in derivation.equations:
        if node_flows(equation):
            for use in uses(equation):
                read.setdefault(use.read.symbol, []).append(use)
    deltas = {symbols[n]: cotangent_of(symbols[n], partial=n in set(wrt)) for n in symbols}
    known: dict[Symbol, tuple[tuple[Var, ...], Expr]] = {}
    loss = derivation.loss
    loops = derivation.loops
    paths = {} if loops is None else loops.paths
    order = dict.fromkeys(by_symbol[e.symbol] for e in reversed(derivation.equations))
    computed = [n for n in order if n in flow and n is not loss]
    start = deltas[symbols[loss]]
    derivation.cotangents.append(Cotangent(loss, start, (), (), ONE, ONE, ONE))
    known[start] = (), ONE
    reached = {symbols[loss]}
    if loops is not None:  # a step is reached from the steps after it
        reached |= {symbols[n] for n in (*paths, *loops.made) if n in symbols and n in flow}
    work = Insertion(derivation, known)
    for node in [*computed, *(n for n in wrt if n in flow)]:
        symbol = symbols[node]
        indices = fresh(node.shape)
        place: tuple[Expr, ...] | None = None
        if node in paths and paths[node].init not in flow:  # of the states after the steps alone
            indices = fresh(paths[node].new.shape)
            place = (paths[node].after(indices[0]), *indices[1:])
        at = indices if place is None else place
        parts = [
            (use, contribution(use, at, deltas[use.equation.symbol]))
            for use in read.get(symbol, [])
            if use.equation.symbol in reached and use.local != Num(ONE.value * 0)
        ]
        if not parts:
            if node in set(wrt):
                derivation.unreached.append(node)
            continue
        reached.add(symbol)
        general = add(*(renamed(value) for _, value in parts))
        inserted = work.insert(general)
        closed, using = work.closed(inserted)
        derivation.cotangents.append(
            Cotangent(node, deltas[symbol], indices, tuple(parts), general, inserted, closed, using, place)
        )
        if node not in paths and is_pointwise(closed) and measure(closed) <= SHORT:
            known[deltas[symbol]] = indices, closed


class Insertion:
    """What is known of cotangents put into expressions."""

    def __init__(self, derivation: Derivation, known: Mapping[Symbol, tuple[tuple[Var, ...], Expr]]):
        self.derivation, self.known = derivation, known
        self.definitions = derivation.definitions
        self.computed = {e.symbol: e for e in derivation.equations if e.place is None}

    def insert(self, e: Expr) -> Expr:
        def change(x: Expr) -> Expr | None:
            if isinstance(x, Ref) and x.symbol in self.known:
                indices, value = self.known[x.symbol]
                return substitute(value, dict(zip(indices, x.indices, strict=True)))
            return None

        return rebuild(e, change)

    def closed(self, e: Expr) -> tuple[Expr, tuple[Symbol, ...]]:
        """The simplest of an expression; sums and products of other values, which are named, written out if that helps."""
        short, using = self.unfold(e, only_short=True)
        best = simplified(short)
        unfolded, all_using = self.unfold(e, only_short=False)
        if len(all_using) > len(using) and measure(other := simplified(unfolded)) < measure(best):
            best, using = other, all_using
        return self._with_softmax(best), using

    def unfold(self, e: Expr, only_short: bool) -> tuple[Expr, tuple[Symbol, ...]]:
        """Values that are plain arithmetic as what they are computed from, and which these are.

        only_short: of the short ones, those without a name. As long as the expression stays readable: values that are
        used twice, level after level, would double it each time.
        """
        using: dict[Symbol, None] = {}

        def change(x: Expr) -> Expr | None:
            equation = self.computed.get(x.symbol) if isinstance(x, Ref) else None
            if not isinstance(x, Ref) or equation is None or not _is_arithmetic(equation.value):
                return None
            if only_short and (measure(equation.value) > DIFFERENCE or equation.node in self.derivation.named):
                return None
            using[x.symbol] = None
            return substitute(equation.value, dict(zip(equation.indices, x.indices, strict=True)))

        limit = min(measure(e) + SHORT, LONGEST)
        while measure(e) <= LONGEST:
            before, known = e, dict(using)
            e = rebuild(e, change)
            if e == before:
                return e, tuple(using)
            if measure(e) > limit:
                return before, tuple(known)
        return e, tuple(using)

    def _with_softmax(self, e: Expr) -> Expr:
        """e/s, of exponentials and their sum, by a name of its own where that leaves no e and s behind."""
        for sums in {x for x in walk(e) if isinstance(x, Ref)}:
            definition = self.definitions.get(sums.symbol)
            if definition is None or not isinstance(definition.value, Reduce) or definition.value.op != "sum":
                continue
            term = definition.value.body
            source = self.definitions.get(term.symbol) if isinstance(term, Ref) else None
            if not isinstance(term, Ref) or source is None or source.node.op != "exp":
                continue
            for power in [x for x in walk(e) if isinstance(x, Ref) and x.symbol == term.symbol]:
                p = self._softmax(term, definition)
                share = Ref(p, power.indices)
                shorter = simplified(_replaced(e, power, mul(share, sums)))
                if sums not in set(walk(shorter)):
                    if all(a.symbol != p for a in self.derivation.equations) and p not in self.definitions:
                        self._abbreviate(p, term, definition)
                    return shorter
        return e

    def _softmax(self, term: Ref, total: Equation) -> Symbol:
        """The name of term/total: the model's own value, or a new one."""
        for equation in (*self.derivation.equations, *self.derivation.abbreviations):
            match equation.value:
                case Apply("div", (Ref(a, _), Ref(b, _))) if a == term.symbol and b == total.symbol:
                    return equation.symbol
        used = {s.name for s in (*self.derivation.symbols.values(), *(a.symbol for a in self.derivation.abbreviations))}
        letter = next(c for c in ("p", "q", "π", "ρ", *(f"p{n}" for n in range(1, 999))) if c not in used)
        return Symbol(letter, var(letter), term.symbol.shape)

    def _abbreviate(self, p: Symbol, term: Ref, total: Equation) -> None:
        at = fresh(p.shape)
        assert isinstance(total.value, Reduce)
        place = {v: at[d] for d, v in enumerate(term.indices) if isinstance(v, Var)}
        below = Ref(total.symbol, tuple(place.get(v, v) for v in total.indices))
        self.derivation.abbreviations.append(Equation(total.node, p, at, Apply("div", (Ref(term.symbol, at), below))))
        self.definitions = self.derivation.definitions


def _replaced(e: Expr, old: Expr, new: Expr) -> Expr:
    return rebuild(e, lambda x: new if x == old else None)


def _is_arithmetic(e: Expr) -> bool:
    """Is it made by sums, products and quotients alone?"""
    if isinstance(e, Apply):
        return e.op in ARITHMETIC and all(map(_is_arithmetic, e.args))
    return isinstance(e, (Ref, Num, Extent))


def written_out(derivation: Derivation, e: Expr) -> Expr | None:
    """An expression down to inputs and parameters; None where that is long, or where a cotangent is left in it."""
    definitions = derivation.definitions

    def change(x: Expr) -> Expr | None:
        equation = definitions.get(x.symbol) if isinstance(x, Ref) else None
        if isinstance(x, Ref) and equation is not None:
            return substitute(renamed(equation.value), dict(zip(equation.indices, x.indices, strict=True)))
        return None

    whole, before = e, None
    while whole != before:
        if measure(whole) > WRITTEN or any(x.symbol.of is not None for x in refs(whole)):
            return None
        before, whole = whole, rebuild(whole, change)
    return None if whole == e else whole


def by_rows(e: Expr, last: Var) -> Expr | None:
    """A gradient's element by its last index, as the whole row: x[i] for x[i, last], a·b for Σ_k a[k] b[k]."""
    match e:
        case Ref(symbol, (*before, v)) if v == last and last not in set().union(*map(variables, before), ()):
            return Ref(symbol, tuple(before))
        case Reduce("sum", over, body):
            inner = by_rows(body, last)
            return None if inner is None else Reduce("sum", over, inner)
        case Apply("neg", (x,)):
            inner = by_rows(x, last)
            return None if inner is None else neg(inner)
        case Apply("div", (above, below)) if last not in variables(below):
            inner = by_rows(above, last)
            return None if inner is None else Apply("div", (inner, _with_dots(below)))
        case Apply("mul", factors):
            varying = [f for f in factors if last in variables(f)]
            inner = by_rows(varying[0], last) if len(varying) == 1 else None
            if inner is not None:
                return mul(*(inner if f is varying[0] else _with_dots(f) for f in factors))
    return None


def _with_dots(e: Expr) -> Expr:
    """Sums of products along two rows as their product."""

    def change(x: Expr) -> Expr | None:
        match x:
            case Reduce("sum", (k,), Apply("mul", (Ref(a, (*i, u)), Ref(b, (*j, v))))) if u == v == k:
                return Apply("dot", (Ref(a, tuple(i)), Ref(b, tuple(j))))
        return None

    return rebuild(e, change)
