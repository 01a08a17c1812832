"""Algebra: identities that shorten a graph. Exact ones give the same bits (the sign of a zero aside)."""

from __future__ import annotations

from math import frexp

from ..graph import scalar as sc
from ..graph.formula import ZERO, Affine, Clause, Formula, Lookup, Read, identity, var
from ..graph.node import Node
from ..graph.scalar import Scalar
from ..graph.size import size
from ..ops import build
from ..ops.build import const_value, make
from ..ops.contract import split_spec
from ..ops.elementwise import ROWS as ELEMENTWISE
from .rewrite import EXACT, VALUE_CHANGING, Memo, Rule, rule


def _is(node: Node, value: float) -> bool:
    return const_value(node) == value


@rule("neutral element", EXACT, "x·1, x/1, x + 0, x - 0, x¹ are x")
def neutral(node: Node, memo: Memo) -> Node | None:
    if node.op not in ("mul", "div", "add", "sub", "pow"):
        return None
    a, b = node.operands
    number = 1 if node.op in ("mul", "div", "pow") else 0
    if _is(b, number):
        return build.broadcast_to(a, node.shape)
    if node.op in ("mul", "add") and _is(a, number):
        return build.broadcast_to(b, node.shape)
    return None


@rule("negation", EXACT, "−(−x) = x; x·(−1) = −x; x + (−y) = x − y; x − (−y) = x + y; −x − y = −(x + y); 0 − x = −x")
def negation(node: Node, memo: Memo) -> Node | None:
    if node.op == "neg" and node.operands[0].op == "neg":
        return node.operands[0].operands[0]
    if node.op == "mul":
        for a, b in (node.operands, node.operands[::-1]):
            if _is(a, -1):
                return make("neg", build.broadcast_to(b, node.shape))
    if node.op in ("add", "sub"):
        a, b = node.operands
        if b.op == "neg":
            return make("sub" if node.op == "add" else "add", a, b.operands[0])
        if node.op == "add" and a.op == "neg":
            return make("sub", b, a.operands[0])
        if node.op == "sub" and a.op == "neg" and memo.read_once(a):
            return make("neg", make("add", a.operands[0], b))
        if node.op == "sub" and _is(a, 0):
            return make("neg", build.broadcast_to(b, node.shape))
    return None


@rule("power of two", EXACT, "x/2ⁿ and x·2⁻ⁿ round alike")
def divide_by_power_of_two(node: Node, memo: Memo) -> Node | None:
    if node.op != "div":
        return None
    number = const_value(node.operands[1])
    if not number or abs(number) > 2**60 or abs(number) < 2**-60 or abs(frexp(number)[0]) != 0.5:
        return None
    return make("mul", node.operands[0], build.const(1 / number, node.dtype))


@rule("square", EXACT, "x² and x·x round alike")
def square(node: Node, memo: Memo) -> Node | None:
    if node.op != "pow" or not _is(node.operands[1], 2):
        return None
    x = build.broadcast_to(node.operands[0], node.shape)
    return make("mul", x, x)


@rule(
    "small power", VALUE_CHANGING, "x³, x⁴, x⁻¹, x^½ by products, a quotient, a root: one rounding more, no logarithm"
)
def small_power(node: Node, memo: Memo) -> Node | None:
    if node.op != "pow":
        return None
    x, exponent = build.broadcast_to(node.operands[0], node.shape), const_value(node.operands[1])
    if exponent == 3:
        return make("mul", make("mul", x, x), x)
    if exponent == 4:
        return make("mul", make("mul", x, x), make("mul", x, x))
    if exponent == -1:
        return make("div", build.const(1, node.dtype), x)
    return make("sqrt", x) if exponent == 0.5 else None


@rule("same choice", EXACT, "where(c, x, x) = x; a choice on ¬c swaps its branches; a second choice on c is made")
def same_choice(node: Node, memo: Memo) -> Node | None:
    if node.op != "where":
        return None
    c, a, b = node.operands
    if a is b:
        return build.broadcast_to(a, node.shape)
    if c.op == "logical_not":
        return make("where", c.operands[0], b, a)
    if a.op == "where" and a.operands[0] is c:
        return _choice(node, c, a.operands[1], b)
    if b.op == "where" and b.operands[0] is c:
        return _choice(node, c, a, b.operands[2])
    return None


def _choice(node: Node, c: Node, a: Node, b: Node) -> Node | None:
    new = make("where", c, a, b)
    return new if new.type == node.type else None


@rule("double negation", EXACT, "¬¬x = x")
def double_not(node: Node, memo: Memo) -> Node | None:
    inner = node.operands[0] if node.op == "logical_not" else None
    return inner.operands[0] if inner is not None and inner.op == "logical_not" else None


@rule("identity", EXACT, "with all gradients expanded stop_gradient and watched values are what they hold")
def drop_identity(node: Node, memo: Memo) -> Node | None:
    return node.operands[0] if node.op in ("stop_gradient", "watched") else None


@rule("movement of a movement", EXACT, "two transposes, reshapes or broadcasts in a row are one")
def compose_movements(node: Node, memo: Memo) -> Node | None:
    if node.op not in ("transpose", "reshape", "broadcast_to"):
        return None
    (x,) = node.operands
    if x.shape == node.shape and (node.op != "transpose" or node.attr("perm") == tuple(range(x.type.rank))):
        return x
    if x.op != node.op:
        return None
    (inner,) = x.operands
    if node.op == "transpose":
        return build.transpose(inner, tuple(x.attr("perm")[d] for d in node.attr("perm")))
    return make(node.op, inner, shape=node.shape) if node.op == "reshape" or _stretches(inner, x, node) else None


def _stretches(inner: Node, middle: Node, outer: Node) -> bool:
    shift = outer.type.rank - inner.type.rank
    return shift >= 0 and all(e == 1 or e == outer.shape[d + shift] for d, e in enumerate(inner.shape))


@rule("late broadcast", EXACT, "elementwise operations stretch their operands themselves")
def late_broadcast(node: Node, memo: Memo) -> Node | None:
    if node.op not in ELEMENTWISE:
        return None
    operands = [o.operands[0] if o.op == "broadcast_to" else o for o in node.operands]
    if operands == list(node.operands):
        return None
    new = make(node.op, *operands, **dict(node.attrs))
    return build.broadcast_to(new, node.shape)


@rule("sum over one", EXACT, "a sum over axes of length 1 is a reshape, over none nothing")
def sum_over_one(node: Node, memo: Memo) -> Node | None:
    if node.op not in ("sum", "max", "min"):
        return None
    (x,) = node.operands
    axes = tuple(a for a in node.attr("axes") if x.shape[a] != 1)
    if len(axes) == len(node.attr("axes")) and axes:
        return None
    return build.reshape(build.reduce(node.op, x, axes), node.shape)


@rule("sum of a negation", EXACT, "Σ(−x) = −Σx: rounding is symmetric")
def sum_of_negation(node: Node, memo: Memo) -> Node | None:
    if node.op != "sum" or node.operands[0].op != "neg" or not node.dtype.is_float:
        return None
    return make("neg", build.reduce("sum", node.operands[0].operands[0], node.attr("axes")))


@rule(
    "sum of a choice by index",
    EXACT,
    "Σ_j (I = j ? v : 0) is v: the other terms are zeros, and I is checked to be in range",
)
def sum_of_choice(node: Node, memo: Memo) -> Node | None:
    if node.op != "sum" or node.operands[0].op != "formula" or len(node.attr("axes")) != 1:
        return None
    (x,), (axis,) = node.operands, node.attr("axes")
    formula = x.attr("formula")
    if formula.reduce != "assign" or formula.init is not None or len(formula.clauses) != 1:
        return None
    (clause,) = formula.clauses
    j = clause.write[axis]
    if (
        clause.guards
        or clause.write != identity(x.type.rank)
        or clause.body.op != "where"
        or not sc.is_const(clause.body.args[2], 0)
    ):
        return None
    condition, value, _ = clause.body.args
    if condition.op != "equal" or condition.args[1].op != "index" or condition.args[1].value != j:
        return None
    looked_up, used = sc.args_of(condition.args[0]), sc.args_of(value)
    if any(axis in i.axes for k in {*looked_up, *used} for i in clause.reads[k].map if isinstance(i, Affine)):
        return None
    if any(isinstance(i, Lookup) for k in used for i in clause.reads[k].map) or value.op == "index":
        return None
    return Node(
        "formula",
        x.operands,
        node.type,
        shape=node.shape,
        formula=Formula((_without_axis(clause, axis, value),), checks=formula.checks),
    )


def _without_axis(clause: Clause, axis: int, value: Scalar) -> Clause:
    kept = [a for a in range(len(clause.box)) if a != axis]
    place = {a: var(i) for i, a in enumerate(kept)} | {axis: ZERO}
    reads = tuple(
        Read(r.operand, tuple(i.substitute(place) if isinstance(i, Affine) else i for i in r.map)) for r in clause.reads
    )
    used = sc.args_of(value)
    number = {old: new for new, old in enumerate(used)}
    body = sc.rebuild(value, lambda e: sc.arg(number[e.value], e.dtype) if e.op == "arg" else None)
    return Clause(tuple(clause.box[a] for a in kept), tuple(reads[k] for k in used), body, identity(len(kept)))


@rule("same operands", EXACT, "x ∧ x = x ∨ x = x")
def idempotent(node: Node, memo: Memo) -> Node | None:
    same = node.op in ("logical_and", "logical_or") and node.operands[0] is node.operands[1]
    return node.operands[0] if same else None


@rule(
    "sum of equal terms",
    VALUE_CHANGING,
    "Σ over an axis along which x does not vary is x times its length: one rounding instead of many",
)
def sum_of_broadcast(node: Node, memo: Memo) -> Node | None:
    if node.op != "sum" or node.operands[0].op != "broadcast_to" or not node.dtype.is_float:
        return None
    (x,) = node.operands
    (inner,) = x.operands
    shift = x.type.rank - inner.type.rank
    free = [a for a in node.attr("axes") if a < shift or (inner.shape[a - shift] == 1 and x.shape[a] != 1)]
    if not free:
        return None
    kept = tuple(size(1) if a in free else e for a, e in enumerate(x.shape))
    value = build.reduce("sum", build.broadcast_to(inner, kept), node.attr("axes"))
    for a in free:
        value = make("mul", value, build.size_value(x.shape[a], node.dtype))
    return build.reshape(value, node.shape)


@rule("transposed operand", EXACT, "a contraction reads a transposed operand by renaming its indices")
def absorb_transpose(node: Node, memo: Memo) -> Node | None:
    if node.op != "einsum" or all(o.op != "transpose" for o in node.operands):
        return None
    inputs, output = split_spec(node.attr("spec"))
    operands = list(node.operands)
    for k, operand in enumerate(operands):
        if operand.op == "transpose":
            place = dict(zip(operand.attr("perm"), inputs[k], strict=True))
            inputs[k] = "".join(place[d] for d in range(len(inputs[k])))
            (operands[k],) = operand.operands
    return build.einsum(f"{','.join(inputs)}->{output}", *operands)


@rule("common subexpression", EXACT, "a + b and b + a are one; equal nodes are one already")
def commutative(node: Node, memo: Memo) -> Node | None:
    if node.op not in ELEMENTWISE or not ELEMENTWISE[node.op].commutative:
        return None
    return memo.setdefault((node.op, frozenset(node.operands)), node)


RULES: tuple[Rule, ...] = (
    drop_identity,
    neutral,
    negation,
    divide_by_power_of_two,
    square,
    small_power,
    same_choice,
    double_not,
    compose_movements,
    late_broadcast,
    sum_over_one,
    sum_of_negation,
    sum_of_choice,
    idempotent,
    sum_of_broadcast,
    absorb_transpose,
    commutative,
)
