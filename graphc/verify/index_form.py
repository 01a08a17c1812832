"""What a node's value is at one index: a sum of terms, each a SymPy expression over bound variables and conditions.

    node[q] = Σ_terms Σ_{v in box, where lhs = rhs} body(q, v)

Sizes stay symbols, so that what is shown of two index forms holds for all sizes. This reads the named operations by
their meaning in NumPy; it shares nothing with the formulas that the deriver works on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count, permutations
from typing import Any

import sympy as sp

from ..graph import scalar as sc
from ..graph.dtype import DType, f32
from ..graph.formula import Affine, Clause, Index
from ..graph.node import Node
from ..graph.scalar import Scalar
from ..graph.size import Root, Size
from ..ops.contract import split_spec
from ..ops.elementwise import ROWS

Expr = Any  # a SymPy expression; SymPy is not typed
_fresh = count()


class NoIndexForm(Exception):
    """The node is none of the operations that have an index form here."""


@dataclass(frozen=True)
class Term:
    """Σ over the bound variables, each from 0 to its extent, where every equation holds, of the body."""

    bound: tuple[tuple[sp.Symbol, Expr], ...]
    equations: tuple[tuple[Expr, Expr], ...]
    body: Expr


def variable() -> sp.Symbol:
    return sp.Symbol(f"v{next(_fresh)}", integer=True, nonnegative=True)


def symbol_of(size: Size) -> Expr:
    """A size as SymPy: its names are positive integers."""
    total: Expr = sp.Integer(0)
    for monomial, coefficient in size.terms:
        product: Expr = sp.Integer(coefficient)
        for atom, power in monomial:
            if isinstance(atom, str):
                product *= sp.Symbol(atom, integer=True, positive=True) ** power
            elif isinstance(atom, Root):
                product *= sp.floor(sp.sqrt(symbol_of(atom.argument))) ** power
            else:
                product *= sp.floor(symbol_of(atom.numerator) / symbol_of(atom.divisor)) ** power
        total += product
    return total


def number(value: float | int | bool, dtype: DType) -> Expr:
    """A constant: the rational that it is, or what has a π or is a root, if it is that as nearly as its type can hold."""
    if isinstance(value, bool):
        return sp.true if value else sp.false
    plain = sp.nsimplify(value, rational=True)
    if not isinstance(value, float) or plain.q < 10**6:
        return plain
    near = sp.nsimplify(value, [sp.pi], tolerance=1e-6 if dtype is f32 else 1e-15)
    is_root = (near**2).is_Rational and (near**2).q < 100  # √2
    return near if near.has(sp.pi) or is_root else plain


class IndexForms:
    """Index forms over given leaves: node → its name. Anything that is a leaf is an unknown array of that name."""

    def __init__(self, leaves: dict[Node, str]):
        self.leaves = leaves

    def of(self, node: Node, q: Sequence[Expr]) -> list[Term]:
        """The value of a node at an index."""
        if node in self.leaves:
            return [Term((), (), self.element(node, q))]
        if node.op == "const" and not node.shape:
            return [Term((), (), number(node.attr("value").array.item(), node.dtype))]
        if node.op == "size":
            return [Term((), (), symbol_of(node.attr("value")))]
        if node.op in ROWS:
            return self._elementwise(node, q)
        method = getattr(self, f"_{node.op}", None)
        if method is None:
            raise NoIndexForm(node.op)
        result: list[Term] = method(node, q)
        return result

    def element(self, node: Node, q: Sequence[Expr]) -> Expr:
        """An unknown array's element. Reshapes of it are read by their flat position."""
        name = self.leaves[node]
        if node.dtype.kind == "b":  # a condition, as SymPy wants one
            return (sp.Function(name, real=True)(*q) if node.shape else sp.Symbol(name, real=True)) > 0
        if not node.shape:
            return sp.Symbol(name, real=True)
        return sp.Function(name, real=True)(*q) if node.dtype.is_float else sp.Function(name, integer=True)(*q)

    # -- operations ---------------------------------------------------------------------------------------------
    def _single(self, node: Node, q: Sequence[Expr]) -> Expr:
        terms = self.of(node, q)
        if any(t.bound or t.equations for t in terms):
            raise NoIndexForm(f"a function of a sum: {node.op}")
        return sum((t.body for t in terms[1:]), terms[0].body)

    def _elementwise(self, node: Node, q: Sequence[Expr]) -> list[Term]:
        at = [self._broadcast(o, q) for o in node.operands]
        if node.op in ("add", "sub"):
            left, right = self.of(node.operands[0], at[0]), self.of(node.operands[1], at[1])
            sign = 1 if node.op == "add" else -1
            return left + [Term(t.bound, t.equations, sign * t.body) for t in right]
        if node.op in ("neg", "cast", "watched", "stop_gradient"):
            sign = -1 if node.op == "neg" else 1
            return [Term(t.bound, t.equations, sign * t.body) for t in self.of(node.operands[0], at[0])]
        if node.op == "mul":
            left, right = (self.of(o, a) for o, a in zip(node.operands, at, strict=True))
            return [Term(s.bound + t.bound, s.equations + t.equations, s.body * t.body) for s in left for t in right]
        if node.op == "div":
            below = self._single(node.operands[1], at[1])
            return [Term(t.bound, t.equations, t.body / below) for t in self.of(node.operands[0], at[0])]
        values = [self._single(o, a) for o, a in zip(node.operands, at, strict=True)]
        return [Term((), (), applied(node.op, values))]

    def _broadcast(self, operand: Node, q: Sequence[Expr]) -> list[Expr]:
        shift = len(q) - operand.type.rank
        return [sp.Integer(0) if e == 1 else q[d + shift] for d, e in enumerate(operand.shape)]

    def _broadcast_to(self, node: Node, q: Sequence[Expr]) -> list[Term]:
        return self.of(node.operands[0], self._broadcast(node.operands[0], q))

    def _transpose(self, node: Node, q: Sequence[Expr]) -> list[Term]:
        perm = node.attr("perm")
        return self.of(node.operands[0], [q[perm.index(d)] for d in range(len(q))])

    def _slice(self, node: Node, q: Sequence[Expr]) -> list[Term]:
        starts, steps = node.attr("start"), node.attr("step")
        return self.of(
            node.operands[0], [symbol_of(a) + symbol_of(s) * i for a, s, i in zip(starts, steps, q, strict=True)]
        )

    def _reshape(self, node: Node, q: Sequence[Expr]) -> list[Term]:
        (x,) = node.operands
        old = [d for d, e in enumerate(x.shape) if e != 1]
        new = [d for d, e in enumerate(node.shape) if e != 1]
        if [x.shape[d] for d in old] != [node.shape[d] for d in new]:
            raise NoIndexForm("a reshape that merges or splits axes")
        at: list[Expr] = [sp.Integer(0)] * x.type.rank
        for d, e in zip(old, new, strict=True):
            at[d] = q[e]
        return self.of(x, at)

    def _sum(self, node: Node, q: Sequence[Expr]) -> list[Term]:
        (x,) = node.operands
        axes = node.attr("axes")
        inner = {a: variable() for a in axes}
        rest = iter(q)
        at = [inner[d] if d in inner else next(rest) for d in range(x.type.rank)]
        bound = tuple((inner[a], symbol_of(x.shape[a])) for a in axes)
        return [Term(bound + t.bound, t.equations, t.body) for t in self.of(x, at)]

    def _max(self, node: Node, q: Sequence[Expr]) -> list[Term]:
        """By definition the element at the first maximum, whose flat position is an unknown."""
        (x,) = node.operands
        axes = node.attr("axes")
        if len(axes) != 1:
            raise NoIndexForm("a maximum over several axes")
        place = self._argmax_at(node, q)
        rest = iter(q)
        return self.of(x, [place if d in axes else next(rest) for d in range(x.type.rank)])

    def _argmax(self, node: Node, q: Sequence[Expr]) -> list[Term]:
        return [Term((), (), self._argmax_at(node, q))]

    def _argmax_at(self, node: Node, q: Sequence[Expr]) -> Expr:
        x, sign = node.operands[0], ""
        if x.op == "neg":
            x, sign = x.operands[0], "-"
        if node.op == "min":
            sign = "-"
        return sp.Function(f"argmax{sign}{self.leaves[x]}{node.attr('axes')}", integer=True)(*q)

    _min = _max

    def _einsum(self, node: Node, q: Sequence[Expr]) -> list[Term]:
        inputs, output = split_spec(node.attr("spec"))
        at: dict[str, Expr] = dict(zip(output, q, strict=True))
        bound = []
        for letters, operand in zip(inputs, node.operands, strict=True):
            for letter, extent in zip(letters, operand.shape, strict=True):
                if letter not in at:
                    v = variable()
                    at[letter] = v
                    bound.append((v, symbol_of(extent)))
        terms = [Term(tuple(bound), (), sp.Integer(1))]
        for letters, operand in zip(inputs, node.operands, strict=True):
            found = self.of(operand, [at[c] for c in letters])
            terms = [Term(s.bound + t.bound, s.equations + t.equations, s.body * t.body) for s in terms for t in found]
        return terms

    def _take(self, node: Node, q: Sequence[Expr]) -> list[Term]:
        x, indices = node.operands
        axis, n = node.attr("axis"), indices.type.rank
        found = self._single(indices, q[axis : axis + n])
        return self.of(x, [*q[:axis], found, *q[axis + n :]])

    def _take_along(self, node: Node, q: Sequence[Expr]) -> list[Term]:
        x, indices = node.operands
        axis = node.attr("axis")
        at = [sp.Integer(0) if e == 1 else i for e, i in zip(indices.shape, q, strict=True)]
        found = self._single(indices, at)
        return self.of(x, [found if d == axis else i for d, i in enumerate(q)])

    def _concat(self, node: Node, q: Sequence[Expr]) -> list[Term]:
        """One term a part: the part's position is a bound variable, equal to q minus the offset."""
        axis, offset, terms = node.attr("axis"), sp.Integer(0), []
        for operand in node.operands:
            v = variable()
            at = [v if d == axis else i for d, i in enumerate(q)]
            extent = symbol_of(operand.shape[axis])
            terms += [
                Term(((v, extent), *t.bound), ((q[axis], offset + v), *t.equations), t.body)
                for t in self.of(operand, at)
            ]
            offset = offset + extent
        return terms

    def _formula(self, node: Node, q: Sequence[Expr]) -> list[Term]:
        formula = node.attr("formula")
        terms: list[Term] = []
        for clause in formula.clauses:
            if clause.guards:
                raise NoIndexForm("a guarded formula")
            at = [variable() for _ in clause.box]

            def index(i: Index, at: list[sp.Symbol] = at) -> Expr:
                if isinstance(i, Affine):
                    return symbol_of(i.constant) + sum((symbol_of(c) * at[a] for a, c in i.terms), sp.Integer(0))
                return self._single(node.operands[i.operand], [index(m) for m in i.map])

            def leaf(e: Scalar, at: list[sp.Symbol] = at, clause: Clause = clause) -> Expr:
                if e.op == "arg":
                    read = clause.reads[e.value]
                    return self._single(node.operands[read.operand], [index(i) for i in read.map])
                return index(e.value) if e.op == "index" else symbol_of(e.value)

            def visit(e: Scalar, args: tuple[Expr, ...]) -> Expr:
                if e.op == "const":
                    return number(e.value, e.dtype)
                return leaf(e) if e.op in sc.LEAVES else applied(e.op, list(args))

            bound = tuple((v, symbol_of(e)) for v, e in zip(at, clause.box, strict=True))
            equations = tuple((i, index(w)) for i, w in zip(q, clause.write, strict=True))
            terms.append(Term(bound, equations, sc.fold(clause.body, visit)))
        return terms


def applied(op: str, values: list[Expr]) -> Expr:
    """An operation on expressions; a comparison of a choice is the choice of comparisons, as one condition."""
    if ROWS[op].result == "bool" and not ROWS[op].bools and isinstance(values[0], sp.Piecewise):
        cases, before = [], sp.true
        for value, condition in values[0].args:
            cases.append(sp.And(before, condition, applied(op, [value, *values[1:]])))
            before = sp.And(before, sp.Not(condition))
        return sp.Or(*cases)
    return ROWS[op].math(*values)


# -- normal form -----------------------------------------------------------------------------------------------------
def normal(term: Term) -> Term:
    """Equations solved for bound variables where one has the coefficient ±1; the rest kept."""
    bound, equations, body = list(term.bound), list(term.equations), term.body
    body, found = _split_deltas(body)
    equations += found
    changed = True
    while changed:
        changed = False
        equations = [(a, b) for a, b in equations if sp.expand(a - b) != 0]
        for k, (left, right) in enumerate(equations):
            difference = sp.expand(left - right)
            for i, (v, _) in enumerate(bound):
                coefficient = difference.coeff(v, 1)
                rest = sp.expand(difference - coefficient * v)
                if coefficient in (1, -1) and not rest.has(v):
                    value = sp.expand(-rest / coefficient)
                    bound.pop(i)
                    equations.pop(k)
                    equations = [(a.subs(v, value), b.subs(v, value)) for a, b in equations]
                    body = body.subs(v, value)
                    changed = True
                    break
            if changed:
                break
    return Term(tuple(bound), tuple(equations), body)


def _split_deltas(body: Expr) -> tuple[Expr, list[tuple[Expr, Expr]]]:
    """A body `v if a = b else 0` is a body v under the equation a = b."""
    coefficient, rest = (
        body.as_independent(sp.Piecewise, as_Add=False) if isinstance(body, sp.Mul) else (sp.Integer(1), body)
    )
    if isinstance(rest, sp.Piecewise) and len(rest.args) == 2:
        (value, condition), (other, last) = rest.args
        if isinstance(condition, sp.Eq) and other == 0 and last == sp.true:
            inner, more = _split_deltas(coefficient * value)
            return inner, [(condition.lhs, condition.rhs), *more]
    return body, []


def same(a: list[Term], b: list[Term]) -> bool:
    """Are two sums of terms equal for all sizes and arrays? (True is a proof; False may be a failure to see it.)"""
    left = _gathered([normal(t) for t in a])
    right = _gathered([normal(t) for t in b])
    for term in left:
        match = next((t for t in right if _equal(term, t)), None)
        if match is None:
            return False
        right.remove(match)
    return not right


def _gathered(terms: list[Term]) -> list[Term]:
    """Terms over nothing are added up, so that a difference of two splittings of one sum is seen."""
    free = [t for t in terms if not t.bound and not t.equations]
    rest = [t for t in terms if t.bound or t.equations]
    total = sum((t.body for t in free), sp.Integer(0))
    kept = [t for t in rest if t.body != 0]
    return kept + ([Term((), (), total)] if free and sp.simplify(total) != 0 else [])


def _equal(a: Term, b: Term) -> bool:
    if len(a.bound) != len(b.bound) or len(a.equations) != len(b.equations):
        return False
    for order in permutations(b.bound):
        if any(sp.simplify(x - y) != 0 for (_, x), (_, y) in zip(a.bound, order, strict=True)):
            continue
        names = {w: v for (v, _), (w, _) in zip(a.bound, order, strict=True)}
        body = b.body.subs(names, simultaneous=True)
        ours = {_canonical(x - y) for x, y in a.equations}
        theirs = {_canonical((x - y).subs(names, simultaneous=True)) for x, y in b.equations}
        if ours == theirs and _zero(a.body - body):
            return True
    return False


def _canonical(difference: Expr) -> Expr:
    """An equation's difference up to sign."""
    expanded = sp.expand(difference)
    return min(expanded, sp.expand(-expanded), key=sp.default_sort_key)


def _vanishes(expression: Expr, condition: sp.Basic) -> bool:
    """Is an expression zero wherever a condition holds?"""
    if isinstance(condition, sp.Eq):
        expression = sp.expand(expression).subs(condition.lhs, condition.rhs)
    return bool(sp.simplify(expression) == 0)


def _zero(difference: Expr) -> bool:
    simple = sp.simplify(difference)
    if simple == 0:
        return True
    folded = sp.piecewise_fold(sp.expand(difference))
    if isinstance(folded, sp.Piecewise):
        return all(_vanishes(e, c) for e, c in folded.args)
    return bool(sp.simplify(folded.rewrite(sp.exp)) == 0)
