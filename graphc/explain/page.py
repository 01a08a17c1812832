"""The derivation as a document: what is computed, the chain rule step by step, the results, what the compiler does."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..errors import SourceLine
from ..graph.node import Node
from ..ops.leaves import LEAVES
from ..passes.default import ALL_RULES
from ..passes.rewrite import Firings
from .box import Box, Frac, joined, row, var
from .derivation import Cotangent, Derivation, by_rows, written_out
from .document import Block, Bullets, Code, Display, Inline, Line, Math, Paragraph, Section, Strong
from .expression import ONE, Expr, Reduce, Ref, Symbol, measure, walk
from .matrix import matrix_form
from .names import cotangent_of
from .reading import Equation
from .rules import operation, rules
from .typeset import Env, Letters, Typesetter, membership

# what a symbol of an operation stands for, said once before it is used
_MEANINGS = (
    ("sigmoid", "σ(t) = 1/(1 + e^−t), between 0 and 1 and never either"),
    ("log", "log is the natural logarithm"),
    ("relu", "ReLU(t) is t where t > 0, else 0"),
    ("softplus", "softplus(t) = log(1 + e^t)"),
    ("gelu", "GELU(t) = t (1 + erf(t/√2))/2"),
    ("silu", "SiLU(t) = t σ(t)"),
)


class Page:
    """The sections on one model."""

    def __init__(self, derivation: Derivation, wrt: Sequence[Node], output: str):
        self.derivation, self.wrt, self.output = derivation, wrt, output
        everything = [*derivation.equations, *derivation.abbreviations]
        used = [*derivation.symbols.values(), *(a.symbol for a in derivation.abbreviations)]
        self.setter = Typesetter(Letters(everything, used, self._steps()))
        self.number = {e.symbol: str(n) for n, e in enumerate(derivation.equations, 1)}
        self.own_number = {id(e): str(n) for n, e in enumerate(derivation.equations, 1)}
        first = len(derivation.equations) + 1
        self.step = {c.symbol: str(n) for n, c in enumerate(derivation.cotangents, first)}
        self.told: set[Symbol] = set()  # abbreviations that have been introduced
        self.loss = derivation.symbols[derivation.loss]

    def _steps(self) -> set[tuple[str, int]]:
        """The axes that count the steps of a loop."""
        d = self.derivation
        if d.loops is None:
            return set()
        return {(d.symbols[n].name, 0) for n in (*d.loops.paths, *d.loops.made) if n in d.symbols}

    def sections(self, fired: Firings) -> list[Section]:
        steps = [c for c in self.derivation.cotangents if c.node not in set(self.wrt) or c.node.op not in LEAVES]
        results = [c for c in self.derivation.cotangents if c not in steps]
        return [
            Section(("What is computed",), tuple(self._forward())),
            Section(("The chain rule, from the loss backward",), tuple(self._opening())),
            *(self._step(c) for c in steps),
            Section(("The gradients",), tuple(self._gradients_opening(results))),
            *(self._gradient(c) for c in results),
            Section(("What the compiler computes",), tuple(self._closing(fired))),
        ]

    # -- forward ----------------------------------------------------------------------------------------------------
    def _forward(self) -> list[Block]:
        d = self.derivation
        blocks: list[Block] = []
        for op, title in (("input", "inputs"), ("param", "parameters"), ("state", "states"), ("const", "constants")):
            order = {n: k for k, n in enumerate((*d.graph.inputs, *self.wrt))}
            leaves = sorted((n for n in d.graph.nodes if n.op == op and n in d.symbols), key=lambda n: order.get(n, 0))
            if op == "param":
                leaves += [n for n in d.unreached if n not in leaves]
            if leaves:
                items = self._list([Math(membership(d.symbols[n], self._whole(d.symbols[n]))) for n in leaves])
                blocks.append(Paragraph((f"The {title if len(leaves) > 1 else title[:-1]}: ", *items, ".")))
        conventions = "Indices count from 0. A bold letter is a whole array, and one axis stands as a column; "
        conventions += (
            "operations on whole arrays that are no products are element by element, ⊙ is the product element by "
        )
        conventions += "element, and a bold 1 is an array of ones. […] is 1 where the condition in it holds, else 0."
        blocks.append(Paragraph((conventions,)))
        names = d.graph.sizes()
        if names:
            sizes = f"{', '.join(names)} {'is a size' if len(names) == 1 else 'are sizes'} of the inputs"
            blocks.append(
                Paragraph((f"{sizes}: any positive whole number, the same throughout, that no derivative is taken of.",))
            )
        used = {n.op for n in d.graph.nodes}
        meanings = [text for op, text in _MEANINGS if op in used]
        if meanings:
            blocks.append(Paragraph((f"{'; '.join(meanings)}.",)))
        what = (
            ("the loss",) if self.output == "loss" else ("what the output ", Code(self.output), " is a derivative of")
        )
        blocks.append(Paragraph((Math(self.loss.box), ", the last of the equations, is ", *what, ".")))
        for e in d.equations:
            blocks += self._equation(e)
        return blocks

    def _equation(self, e: Equation) -> list[Block]:
        env = self.setter.environment(e.left, e.value)
        affine = e.node.op == "add" and any(isinstance(x, Reduce) for x in walk(e.value))
        mean = e.node.op == "div" and any(isinstance(x, Reduce) for x in walk(e.value))
        head: list[Inline] = [Strong(f"({self.own_number[id(e)]}) {operation(e.node.op, mean, affine)}")]
        head += [" — ", *self._place(e.node)]
        right = [self.setter.box(e.value, env)]
        blocks: list[Block] = [
            Paragraph(tuple(head)),
            Display(self.setter.box(e.left, env), tuple(right), self.own_number[id(e)]),
        ]
        whole = matrix_form(e.value, e.indices) if e.place is None else None
        lines = self._matrix_lines(Ref(e.symbol), [whole])
        return [*blocks, Paragraph((*lines, "with ", *self._shapes([e.left, e.value]), "."))]

    def _matrix_lines(self, left: Expr, wholes: Sequence[Expr | None]) -> tuple[Inline, ...]:
        boxes = [self.setter.box(w, {}) for w in wholes if w is not None]
        distinct = list(dict.fromkeys(boxes))
        if not distinct:
            return ()
        return ("In matrix form ", Math(row(self.setter.box(left, {}), "=", joined(distinct, "="))), ", ")

    def _place(self, node: Node) -> tuple[Inline, ...]:
        """The model line of a node."""
        source = self.derivation.graph.tables.source(node)
        return (Code(short(source)),) if source else ("no line of the model",)

    def _whole(self, symbol: Symbol) -> Box:
        return self.setter.element(symbol, (), {})

    def _shapes(self, parts: Sequence[Expr]) -> tuple[Inline, ...]:
        """Every symbol in expressions, with its shape."""
        found: dict[Symbol, None] = {}
        for part in parts:
            for x in walk(part):
                if isinstance(x, Ref):
                    found.setdefault(x.symbol)
        return self._list([Math(membership(s, self._whole(s))) for s in found])

    @staticmethod
    def _list(items: Sequence[Inline]) -> tuple[Inline, ...]:
        joined_items: list[Inline] = []
        for n, item in enumerate(items):
            joined_items += [", ", item] if n else [item]
        return tuple(joined_items)

    # -- backward ---------------------------------------------------------------------------------------------------
    def _opening(self) -> list[Block]:
        text: Line = (
            "Every value ",
            Math(var("v")),
            " has a cotangent ",
            Math(self._delta_sign()),
            ", the derivative of the loss with respect to it, of the same shape. Where ",
            Math(var("v")),
            " is used in several places, the chain rule adds what they give: for each use the cotangent of the result times "
            "the local derivative of the result with respect to ",
            Math(var("v")),
            ". So the cotangents are found from the loss backward, each from those before it.",
        )
        return [Paragraph(text)]

    def _delta_sign(self) -> Box:
        v = Symbol("v", var("v"), ())
        return row(cotangent_of(v, False).box, "=", Frac(row("∂", self.loss.box), row("∂", var("v"))))

    def _step(self, c: Cotangent) -> Section:
        d = self.derivation
        symbol = d.symbols[c.node]
        title: Line = ("Step ", self.step[c.symbol], ": ", Math(self._whole(c.symbol)))
        if c.node is d.loss:
            left = self.setter.element(c.symbol, (), {})
            derivative = Frac(row("∂", symbol.box), row("∂", symbol.box))
            display = Display(left, (derivative, self.setter.box(ONE, {})), self.step[c.symbol])
            return Section(title, (Paragraph(("The derivative of a value with respect to itself is 1.",)), display), 3)
        blocks: list[Block] = [Paragraph(self._uses_line(c, symbol)), *self._uses(c)]
        env = self.setter.environment(c.left, c.general)
        derivative = Frac(row("∂", self.loss.box), row("∂", self.setter.box(Ref(symbol, c.left.indices), env)))
        blocks += self._chain(c, env, [derivative])
        return Section(title, tuple(blocks), 3)

    def _uses_line(self, c: Cotangent, symbol: Symbol) -> Line:
        readers = list(dict.fromkeys(use.equation.symbol for use, _ in c.parts))
        where = f"{'equation' if len(readers) == 1 else 'the equations'} {self._numbers(readers)}"
        times = "" if len(c.parts) == len(readers) else f", in {len(c.parts)} places"
        return (Math(self._whole(symbol)), " of ", *self._place(c.node), f" is used in {where}{times}. Chain rule:")

    def _numbers(self, symbols: Sequence[Symbol]) -> str:
        *first, last = (f"({n})" for n in sorted({int(self.number[s]) for s in symbols}))
        return f"{', '.join(first)} and {last}" if first else last

    def _uses(self, c: Cotangent) -> list[Block]:
        """The local derivative of each use, with its rules."""
        lines: list[Line] = []
        for use, _ in c.parts:
            env = self.setter.environment(use.equation.left, use.local, use.read)
            below = self.setter.box(use.read, env)
            above = self.setter.box(use.equation.left, env)
            local = row(Frac(row("∂", above), row("∂", below)), "=", self.setter.box(use.local, env))
            why: list[Inline] = []
            for n, rule in enumerate(rules(use, self.setter)):
                why += ["; ", *rule] if n else [*rule]
            lines.append(
                (
                    f"({self.number[use.equation.symbol]}), ",
                    *self._place(use.equation.node),
                    ": ",
                    Math(local),
                    " — ",
                    *why,
                    ".",
                )
            )
        times = {line: lines.count(line) for line in lines}
        return [Bullets(tuple(line if n == 1 else (*line[:-1], f", {n} times.") for line, n in times.items()))]

    def _chain(self, c: Cotangent, env: Env, before: Sequence[Box]) -> list[Block]:
        """The sum over the uses, what is known put in, and what that simplifies to."""
        general = self.setter.box(c.general, env)
        inserted = self.setter.box(c.inserted, env)
        closed = self.setter.box(c.closed, env)
        left = self.setter.box(c.left, env)
        rows = list(dict.fromkeys([*before, general, inserted]))
        blocks: list[Block] = []
        if closed in rows or closed == inserted:
            blocks.append(Display(left, tuple(rows), self.step[c.symbol]))
        else:
            blocks.append(Display(left, tuple(rows)))
            by = f", with {self._numbers(c.using)}," if c.using else ""
            verb = "is" if c.using and measure(c.closed) > measure(c.inserted) else "simplifies to"
            blocks.append(Paragraph((f"which{by} {verb}",)))
            blocks.append(Display(left, (closed,), self.step[c.symbol]))
        wholes = [matrix_form(e, c.indices) if c.place is None else None for e in (c.general, c.closed)]
        lines = self._matrix_lines(Ref(c.symbol), wholes)
        with_shapes = self._shapes([c.left, c.general, c.inserted, c.closed])
        blocks.append(Paragraph((*lines, "with ", *with_shapes, ".")))
        return [*blocks, *self._abbreviations([c.closed, c.inserted])]

    def _abbreviations(self, parts: Sequence[Expr]) -> list[Block]:
        blocks: list[Block] = []
        known = {a.symbol: a for a in self.derivation.abbreviations}
        for symbol in dict.fromkeys(x.symbol for part in parts for x in walk(part) if isinstance(x, Ref)):
            if symbol in known and symbol not in self.told:
                self.told.add(symbol)
                a = known[symbol]
                env = self.setter.environment(a.left, a.value)
                equals = Math(row(self.setter.box(a.left, env), "=", self.setter.box(a.value, env)))
                shape = Math(membership(symbol, self._whole(symbol)))
                blocks.append(Paragraph(("Here ", equals, " is the softmax, ", shape, ".")))
        return blocks

    # -- results ----------------------------------------------------------------------------------------------------
    def _gradients_opening(self, results: Sequence[Cotangent]) -> list[Block]:
        blocks: list[Block] = []
        for node in dict.fromkeys(self.derivation.unreached):
            symbol = self.derivation.symbols[node]
            zero: Line = (
                "The loss does not depend on ",
                Math(membership(symbol, self._whole(symbol))),
                " (",
                Code(node.attr("name")),
                ") by any path that a gradient flows through, so its gradient is 0.",
            )
            blocks.append(Paragraph(zero))
        text = "A parameter or an input is given, not computed: what its uses give, added up, is its gradient."
        return blocks or [Paragraph((text,))]

    def _gradient(self, c: Cotangent) -> Section:
        symbol = self.derivation.symbols[c.node]
        title: Line = (Code(c.node.attr("name")), ": ", Math(self._whole(c.symbol)))
        env = self.setter.environment(c.left, c.general)
        blocks = [Paragraph(self._uses_line(c, symbol)), *self._uses(c), *self._chain(c, env, [])]
        whole = written_out(self.derivation, c.closed)
        if whole is not None:
            env = self.setter.environment(c.left, whole)
            display = Display(self.setter.box(c.left, env), (self.setter.box(whole, env),))
            blocks += [Paragraph(("Written out down to the inputs and parameters:",)), display]
        result = whole or c.closed
        rows = by_rows(result, c.indices[0]) if len(c.indices) == 1 else None
        if rows is not None and any(
            isinstance(x, Ref) and 0 < len(x.indices) < len(x.symbol.shape) for x in walk(rows)
        ):
            env = self.setter.environment(rows)
            text = "and for all elements at once, an array with its last index left out being a whole row:"
            blocks += [Paragraph((text,)), Display(self._whole(c.symbol), (self.setter.box(rows, env),))]
        return Section(title, tuple(blocks), 3)

    # -- what is really computed ------------------------------------------------------------------------------------
    def _closing(self, fired: Firings) -> list[Block]:
        text = "This is the derivative of the formulas as they stand in the model. "
        if not fired.counts:
            return [Paragraph((text + "The compiler computes them as they stand.",))]
        text += "The compiler first rewrites formulas that lose digits or overflow in floating point, then "
        text += "differentiates, and then shortens the result; every rewrite is an identity, so the derivative is the same. Fired here:"
        lines: list[Line] = []
        for name in fired.counts:
            rule = ALL_RULES[name]
            lines.append((Strong(name), f" ({rule.kind}): {rule.reason}"))
        return [Paragraph((text,)), Bullets(tuple(lines))]


def short(source: SourceLine) -> str:
    return f"{Path(source.file).name}:{source.line}"
