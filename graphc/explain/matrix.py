"""Matrix form of an index form, where there is one: x[i,k] W[k,j] summed over k is X W.

In matrix form an element's symbol without indices is the whole array; one axis is a column. The operations are those
of rows, element by element, and matmul, transpose, hadamard (⊙), ones (a column of 1) and onehot.
"""

from __future__ import annotations

from collections.abc import Sequence

from .expression import (
    Apply,
    Bracket,
    Expr,
    Num,
    Reduce,
    Ref,
    Var,
    add,
    div,
    extent,
    mul,
    neg,
    variables,
    walk,
)
from .solve import factors_of

Axes = tuple[Var, ...]


def matrix_form(e: Expr, free: Axes) -> Expr | None:
    """The whole array whose elements, by the free variables, are e."""
    return _form(e, free) if len(free) <= 2 else None


def _form(e: Expr, free: Axes) -> Expr | None:
    match e:
        case Apply("add", args):
            forms = [_form(a, free) for a in args]
            return None if any(f is None for f in forms) else add(*(f for f in forms if f is not None))
        case Apply("neg", (x,)):
            inner = _form(x, free)
            return None if inner is None else neg(inner)
        case Apply("div", (a, b)) if not variables(b) and not isinstance(a, Num):
            above = _form(a, free)
            return None if above is None or isinstance(b, Reduce) else div(above, b)
        case Reduce("sum", over, body):
            return _contraction(over, factors_of(body), free)
    return _contraction((), factors_of(e), free)


def _contraction(over: Axes, factors: Sequence[Expr], free: Axes) -> Expr | None:
    """Σ over variables of a product, as a chain of matrix products."""
    scalars = [f for f in factors if not variables(f)]
    if any(isinstance(f, Reduce) or _holds_array(f) for f in scalars):
        return None
    groups: dict[frozenset[Var], list[Expr]] = {}
    for f in factors:
        axes = frozenset(variables(f))
        if len(axes) > 2:
            return None
        if axes:
            groups.setdefault(axes, []).append(f)
    pieces: dict[frozenset[Var], Piece] = {}
    for axes, group in groups.items():
        order = tuple(dict.fromkeys(x for f in group for x in walk(f) if isinstance(x, Var) and x in axes))
        forms = [_factor(f, order) for f in group]
        if any(f is None for f in forms):
            return None
        pieces[axes] = Piece(order, tuple(f for f in forms if f is not None))
    result = Chain(pieces, free, over).result()
    if result is None and not over:
        result = _pointwise(pieces, free)
    return None if result is None else mul(*scalars, result) if scalars else result


def _holds_array(e: Expr) -> bool:
    return isinstance(e, Ref) and bool(e.symbol.shape)


def _factor(e: Expr, order: Axes) -> Expr | None:
    """A factor over its own axes, without sums."""
    match e:
        case Ref(symbol, indices) if symbol.shape:
            if any(isinstance(i, Var) and i.extent != e for i, e in zip(indices, symbol.shape, strict=True)):
                return None  # a part of the array
            if indices == order:
                return Ref(symbol)
            return Apply("transpose", (Ref(symbol),)) if indices == order[::-1] else None
        case Bracket(Apply("equal", (Ref(symbol, (Var() as i,)), Var() as j))):
            hot = Apply("onehot", (Ref(symbol), extent(j.extent)))
            return hot if order == (i, j) else Apply("transpose", (hot,)) if order == (j, i) else None
        case Bracket(condition):
            inner = _factor(condition, order)
            return None if inner is None else Bracket(inner)
        case Apply("div", (_, b)) if variables(b):
            return None
        case Apply("add" | "neg" | "div" | "mul", _):
            return _form(e, order)
        case Apply("pow", (x, Num(n))) if n == 2:  # a power of a matrix is something else
            inner = _form(x, order)
            return None if inner is None else Apply("hadamard", (inner, inner))
        case Apply("pow" | "within" | "floordiv" | "mod" | "trunc", _):
            return None
        case Apply(op, args):
            forms = [a if isinstance(a, Num) else _form(a, order) for a in args]
            return None if any(f is None for f in forms) else Apply(op, tuple(f for f in forms if f is not None))
    return None


class Piece:
    """A product of factors over the same one or two axes."""

    def __init__(self, order: Axes, factors: tuple[Expr, ...]):
        self.order, self.factors = order, factors

    def whole(self) -> Expr:
        return self.factors[0] if len(self.factors) == 1 else Apply("hadamard", self.factors)

    def along(self, first: Var) -> Expr:
        """Its array with the axis `first` first."""
        return self.whole() if self.order[0] == first else transposed(self.whole())


def transposed(e: Expr) -> Expr:
    return e.args[0] if isinstance(e, Apply) and e.op == "transpose" else Apply("transpose", (e,))


def matmul(*parts: Expr) -> Expr:
    return parts[0] if len(parts) == 1 else Apply("matmul", parts)


class Chain:
    """Pieces as the edges of a path of matrix products from the first free axis to the second, or to an end."""

    def __init__(self, pieces: dict[frozenset[Var], Piece], free: Axes, over: Axes):
        self.pieces, self.free, self.over = dict(pieces), free, over
        self.open = set(over)

    def result(self) -> Expr | None:
        if not self.free:
            found = self._scalar()
        elif len(self.free) == 1:
            found = self._column(self.free[0], None)
        else:
            i, j = self.free
            left = self._path(i, j)
            if left is None:
                return None
            parts, reached = left
            if reached:
                found = matmul(*parts)
            else:
                right = self._column(j, None)
                found = None if right is None else matmul(*parts, transposed(right))
        return found if not self.pieces and not self.open else None

    def _column(self, start: Var, goal: Var | None) -> Expr | None:
        path = self._path(start, goal)
        return None if path is None else matmul(*path[0])

    def _path(self, start: Var, goal: Var | None) -> tuple[list[Expr], bool] | None:
        """(the factors from an axis on, whether they end at the goal rather than in a column)"""
        parts: list[Expr] = []
        at = start
        while True:
            self.open.discard(at)
            near = [axes for axes in self.pieces if at in axes]
            if len(near) > 1:
                return None
            if not near:
                return [*parts, Apply("ones", (extent(at.extent),))], False
            piece = self.pieces.pop(near[0])
            parts.append(piece.along(at))
            if len(piece.order) == 1:
                return parts, False
            (at,) = near[0] - {at}
            if at == goal:
                return parts, True

    def _scalar(self) -> Expr | None:
        """aᵀ b, 1ᵀ a, aᵀ M b."""
        if not self.over:
            return None
        ends = [axes for axes in self.pieces if len(axes) == 1]
        if len(self.pieces) == 1 and ends and len(self.pieces[ends[0]].factors) > 1:
            piece = self.pieces.pop(ends[0])
            self.open.clear()
            first, *rest = piece.factors
            return matmul(transposed(first), Piece(piece.order, tuple(rest)).whole())
        if ends and len(self.pieces) > 1:
            piece = self.pieces.pop(ends[0])
            (start,) = ends[0]
            left: Expr = piece.whole()
        else:
            start = self.over[0]
            left = Apply("ones", (extent(start.extent),))
        right = self._column(start, None)
        return None if right is None else matmul(transposed(left), right)


def _pointwise(pieces: dict[frozenset[Var], Piece], free: Axes) -> Expr | None:
    """A product element by element, what has one axis stretched along the other."""
    if len(free) != 2 or not pieces:
        return None
    i, j = free
    parts: list[Expr] = []
    for axes, piece in pieces.items():
        if len(axes) == 2:
            parts.append(piece.along(i))
        elif i in axes:
            parts.append(matmul(piece.whole(), transposed(Apply("ones", (extent(j.extent),)))))
        else:
            parts.append(matmul(Apply("ones", (extent(i.extent),)), transposed(piece.whole())))
    return parts[0] if len(parts) == 1 else Apply("hadamard", tuple(parts))
