"""Faults planted one at a time, in every layer: each makes a verification fail, and the findings name the culprit."""
from __future__ import annotations

import hashlib
import re
from dataclasses import replace
from types import SimpleNamespace

import pytest
import sympy as sp

import graphc as gc
from graphc import assembly
from graphc.codegen import source, vecmath
from graphc.derivatives import emit, partials, reverse, rule, support
from graphc.frontend.model import trace_models
from graphc.graph import scalar as sc
from graphc.graph.dtype import f32, f64
from graphc.graph.formula import Affine, Formula, affine, var
from graphc.graph.size import size
from graphc.lowering import cluster, contractions, products, schedule
from graphc.ops import build, shape
from graphc.passes import default, fold, stabilise
from graphc.runtime import binding, cache
from graphc.verify.model import verify

# -- models ----------------------------------------------------------------------------------------------------------
MODELS = {}


def model(function):
    MODELS[function.__name__] = gc.model(function)
    return MODELS[function.__name__]


def w(*shape, name="w"):
    return gc.param(name, shape)


@model
def elementwise(x: gc.f32["B", 3]):
    h = x * w(3)
    y = gc.tanh(h) + gc.sqrt(h * h + 1.0) / gc.sigmoid(h) - gc.maximum(h, x)
    return gc.outputs(loss=gc.sum(y))


@model
def shared(x: gc.f32["B", 3]):
    h = x * w(3)
    return gc.outputs(loss=gc.sum(h * gc.tanh(h)))


@model
def dense(x: gc.f32["B", 3]):
    return gc.outputs(loss=gc.sum(gc.tanh(x @ w(3, 3) + w(3, name="b"))))


@model
def turned(x: gc.f32["B", 2, 4]):
    return gc.outputs(loss=gc.sum(gc.tanh(gc.transpose(x * w(4), (2, 0, 1)) * w(2, name="u"))))


@model
def sliced(x: gc.f32["B", 5]):
    return gc.outputs(loss=gc.sum(gc.tanh((x * w(5))[:, 1:3])))


@model
def joined(x: gc.f32["B", 2], y: gc.f32["B", 3]):
    return gc.outputs(loss=gc.sum(gc.tanh(gc.concat([x * w(2), y * w(3, name="v")], axis=1))))


@model
def greatest(x: gc.f32["B", 5]):
    return gc.outputs(place=gc.argmax(x, axis=1), loss=gc.sum(gc.max(x * w(5), axis=1)))


@model
def softmaxed(x: gc.f32["B", 4]):
    e = gc.exp(x * w(4))
    return gc.outputs(p=e / gc.sum(e, axis=1, keepdims=True), l=gc.log(gc.sum(e, axis=1)), s=1.0 / (1.0 + gc.exp(-x)))


@model
def algebraic(x: gc.f32["B", 3]):
    v = w(3)
    u = v - (-(x * v)) + v * (gc.ones(()) * 2.0 + 5.0)
    return gc.outputs(loss=gc.sum(gc.tanh(u)) + gc.sum(gc.broadcast_to(v, (gc.dim("B"), 3))))


@model
def multiplied(x: gc.f32["B", 3]):
    return gc.outputs(y=x @ gc.transpose(w(3, 3)))


@model
def strided(x: gc.f32["B", 4]):
    return gc.outputs(y=x[:, :2] @ w(2, 3))


@model
def plain(x: gc.f32["B", 3]):
    return gc.outputs(y=gc.tanh(x) * 0.3)


@model
def rows(x: gc.f32["B", "C"]):
    return gc.outputs(y=gc.sum(x, axis=1))


@model
def reversed_rows(x: gc.f32["B", 3]):
    s = gc.sum(x, axis=1)
    return gc.outputs(s=s, y=gc.exp(x) - s[::-1, None])


@model
def two_products(x: gc.f32["B", 3]):
    return gc.outputs(y=(x @ w(3, 3)) * (x @ w(3, 3, name="v")))


@model
def lonely_index(x: gc.f32["B", 3]):
    return gc.outputs(y=gc.einsum("ab,bc->a", x, w(3, 4)))


@model
def counter(x: gc.f32[3]):
    s = gc.state("s", (3,), init=0.0)
    gc.update(s, s[::-1] + x)
    return gc.outputs(y=gc.sum(x))


@model
def picked(x: gc.f32["B", 4], i: gc.i64["B", 1]):
    return gc.outputs(loss=gc.sum(gc.tanh(gc.take_along_axis(x * w(4), i, axis=1))))


@model
def chosen(x: gc.f32["B", 3]):
    h = x * w(3)
    return gc.outputs(loss=gc.sum(gc.where(h > 0, gc.sqrt(gc.abs(h)), 0.0)))


@model
def own_gradient(x: gc.f32["N"]):
    y = gc.sum(gc.exp(x) * gc.sin(x))
    (g,) = gc.grad(y, [x])
    return gc.outputs(g=g)


def certificate(name, dtype=f64):
    return verify(trace_models([MODELS[name]], name, dtype, {}))


# -- how faults are planted --------------------------------------------------------------------------------------------
def wrong_partial(op, position, change):
    """The partial of a row, changed: change(partial, y)."""
    def plant(patch):
        real = partials.partial
        patch.setattr(partials, "partial", lambda name, k: change(real(name, k), partials.Y) if (name, k) == (op, position) else real(name, k))
    return plant


def swapped_branches(expression, _):
    (a, c), (b, d) = expression.args
    return sp.Piecewise((b, c), (a, d), evaluate=False)


def wrong_rule(table, name, apply):
    """A rule that does something else: apply(rule, node, memo)."""
    def plant(patch):
        rules = getattr(default, table)
        assert any(r.name == name for r in rules)
        wrong = tuple(replace(r, apply=lambda n, m, r=r: apply(r, n, m)) if r.name == name else r for r in rules)
        patch.setattr(default, table, wrong)
    return plant


def after_rule(change):
    """What a rule gives, changed."""
    def apply(rule_, node, memo):
        new = rule_.apply(node, memo)
        return None if new is None else change(node, new)
    return apply


def wrong_formula(row, change):
    """The formula of a row, its clauses changed: change(clause, number)."""
    def plant(patch):
        real = row.formula

        def formula(self, node):
            f = real(self, node)
            return Formula(tuple(change(c, i) for i, c in enumerate(f.clauses)), f.reduce, f.init, f.checks)

        patch.setattr(row, "formula", formula)
    return plant


def wrong_text(pattern, replacement):
    """The text of kernels, changed at the first place that the pattern fits."""
    def plant(patch):
        real = assembly.print_kernel

        def print_kernel(kernel):
            printed = real(kernel)
            return replace(printed, text=re.sub(pattern, replacement, printed.text, count=1, flags=re.MULTILINE))

        patch.setattr(assembly, "print_kernel", print_kernel)
    return plant


def patched(owner, name, make):
    """An attribute replaced by make(the real one)."""
    return lambda patch: patch.setattr(owner, name, make(getattr(owner, name)))


def built(owner, **wrong):
    """`build`, as one module sees it, with some functions replaced."""
    return lambda patch: patch.setattr(owner, "build", SimpleNamespace(**{**vars(build), **wrong}))


def first_only(value, summed, box):
    """A sum that is forgotten: the first of its terms."""
    value = build.broadcast_to(value, box)
    kept = tuple(size(1) if a in summed else e for a, e in enumerate(box))
    zero, one = (size(0),) * len(box), (size(1),) * len(box)
    return build.reshape(build.make("slice", value, start=zero, step=one, shape=kept), tuple(e for a, e in enumerate(box) if a not in summed))


def swapped_terms(spec, *operands, fit=None):
    inputs, output = spec.split("->")
    return build.einsum(f"{','.join(reversed(inputs.split(',')))}->{output}", *operands, fit=fit)


def without_offsets(real):
    def adjoint(clause, read, cotangent, partial, mask, extra):
        extra = tuple(replace(r, map=tuple(affine(0, dict(i.terms)) if isinstance(i, Affine) else i for i in r.map)) for r in extra)
        return real(clause, read, cotangent, partial, mask, extra)
    return adjoint


def other_way(clause, _):
    """A permutation in place of its inverse."""
    (read,) = clause.reads
    axes = [i.variable for i in read.map]
    return replace(clause, reads=(replace(read, map=tuple(var(axes.index(d)) for d in range(len(axes)))),))


def moved_slice(clause, _):
    (read,) = clause.reads
    return replace(clause, reads=(replace(read, map=tuple(i + affine(1) if i.constant == 1 else i for i in read.map)),))


def other_rows(real):
    """What is exponentiated is shifted by the maxima of the rows in reverse; what is summed, by its own."""
    def shifted_sum(total, x):
        m, _, summed = real(total, x)
        rows = m.shape[0]
        turned_ = build.make("slice", m, start=(rows - 1, size(0)), step=(size(-1), size(1)), shape=m.shape)
        return m, build.make("sub", x, turned_), summed
    return shifted_sum


def last_maximum(patch):
    real = source.Printer.first_maximum

    def wrong(self, item, depth):
        start = len(self.lines)
        real(self, item, depth)
        self.lines[start:] = [line.replace(" > ", " >= ") for line in self.lines[start:]]

    patch.setattr(source.Printer, "first_maximum", wrong)


def flipped(field, value):
    def make(real):
        def matrix(*args):
            found = real(*args)
            return found and replace(found, **{field: value(found)})
        return matrix
    return patched(products, "_matrix", make)


def all_loops(real):
    return lambda self, *args: len(self.spine)


def stale(patch):
    patch.setattr(cluster.Builder, "_shared", lambda self, *args: len(self.spine))
    patch.setattr(cluster.Builder, "_in_register", lambda self, *args: True)


def everything_at_once(real):
    def plan(program, sizes, *strips):
        offsets, length = real(program, sizes, *strips)
        return dict.fromkeys(offsets, 0), length
    return plan


def wrong_tanh(patch):
    """The words of vector mathematics are no part of a kernel's key, so all keys are changed, and nothing is kept on disk."""
    real, key = vecmath.jit_namespace, cache.key_of
    patch.setattr(vecmath, "jit_namespace", lambda: {**real(), "tanh": real()["sigmoid"]})
    patch.setattr(cache, "key_of", lambda *of: hashlib.sha256(f"{key(*of)} with a wrong tanh".encode()).hexdigest())
    patch.setattr(cache, "put", lambda key, code: None)


def fewer(real):
    """The last size argument of a kernel is one too small."""
    def print_kernel(kernel):
        printed = real(kernel)
        return replace(printed, sizes=(*printed.sizes[:-1], printed.sizes[-1] - 1))
    return print_kernel


def opposite(real):
    def of(self, cotangent, chosen=False):
        found = real(self, cotangent, chosen)
        return None if found is None else build.make("logical_not", found)
    return of


def in_branch(index):
    def apply(rule_, node, memo):
        new = rule_.apply(node, memo)
        return None if new is None else build.broadcast_to(node.operands[index], node.shape)
    return apply


def less(patch):
    """The gradient goes to all elements from the one looked up on."""
    real = emit._select_at_lookup

    def wrong(clause, kind):
        found = real(clause, kind)
        if found is None:
            return None
        condition, value, zero = found[0].body.args
        condition = sc.Scalar("less_equal", condition.args, condition.dtype)
        return replace(found[0], body=sc.Scalar("where", (condition, value, zero), found[0].body.dtype)), found[1]

    patch.setattr(emit, "_select_at_lookup", wrong)


def second_term(op, *operands, **attrs):
    return operands[1] if op == "add" else build.make(op, *operands, **attrs)


# -- the faults: how it is planted, the model that shows it, and what a finding that failed must say ---------------------
FAULTS = {
    # derivatives
    "a wrong sign in a partial": (wrong_partial("tanh", 0, lambda p, y: -p), "elementwise", ["operation", "tanh("]),
    "a dropped factor in a partial": (wrong_partial("sqrt", 0, lambda p, y: 2 * p), "elementwise", ["operation", "sqrt("]),
    "a dropped factor in a partial through the output": (wrong_partial("sigmoid", 0, lambda p, y: y), "elementwise", ["operation", "sigmoid("]),
    "a wrong sign in a stable partial": (wrong_partial("div", 1, lambda p, y: -p), "elementwise", ["operation", "div("]),
    "swapped branches of a partial": (wrong_partial("maximum", 0, swapped_branches), "elementwise", ["operation", "maximum("]),
    "a dropped term in the chain rule": (built(reverse, make=second_term), "shared", ["gradient", "'differentiate'", "what comes together from", "tanh("]),
    "a dropped term in a gradient that the model asks for": (built(reverse, make=second_term), "own_gradient", ["gradient", "'differentiate'", "what comes together from", "exp("]),
    "a cotangent that is dropped": (patched(rule, "times", lambda real: lambda c, p: p), "dense", ["operation", "tanh("]),
    "a forgotten sum over a broadcast axis": (patched(emit, "_sum", lambda real: first_only), "dense", ["operation", "add("]),
    "swapped operands in a contraction's adjoint": (built(emit, einsum=swapped_terms), "dense", ["operation", "einsum("]),
    "a wrong offset in concat's adjoint": (patched(reverse, "adjoint", without_offsets), "joined", ["operation", "concat("]),
    "a look-up's adjoint that reaches too far": (less, "picked", ["operation", "take_along("]),
    "the mask of a choice, negated": (patched(support.Support, "of", opposite), "chosen", ["gradient", "'differentiate'"]),
    # what operations are
    "a transposed access map": (wrong_formula(shape.Transpose, other_way), "turned", ["operation", "transpose("]),
    "an off-by-one in a slice": (wrong_formula(shape.Slice, moved_slice), "sliced", ["operation", "slice("]),
    # rewrites
    "a rule that drops a term": (wrong_rule("STABILISE", "logsumexp", after_rule(lambda n, new: new.operands[1])), "softmaxed", ["rewrite", "logsumexp"]),
    "a rule with a wrong sign": (wrong_rule("STABILISE", "sigmoid", after_rule(lambda n, new: build.make("sigmoid", build.make("neg", new.operands[0])))), "softmaxed", ["rewrite", "sigmoid"]),
    "a softmax shifted by another row's maximum": (patched(stabilise, "shifted_sum", other_rows), "softmaxed", ["rewrite", "softmax"]),
    "a wrong sign in algebra": (wrong_rule("OPTIMISE", "negation", after_rule(lambda n, new: build.make("sub", *new.operands) if new.op == "add" else new)), "algebraic", ["rewrite", "negation"]),
    "a sum of equal terms that counts one": (wrong_rule("OPTIMISE", "sum of equal terms", after_rule(lambda n, new: build.broadcast_to(new.operands[0], n.shape) if new.op == "mul" else new)), "algebraic", ["rewrite", "sum of equal terms"]),
    "a fold that does something else": (patched(fold, "evaluate", lambda real: lambda op, values, dtype: real("sub" if op == "add" else op, values, dtype)), "algebraic", ["rewrite", "fold"]),
    "a transpose absorbed the wrong way": (wrong_rule("OPTIMISE", "transposed operand", after_rule(lambda n, new: build.einsum("ab,bc->ac", *new.operands))), "multiplied", ["rewrite", "transposed operand"]),
    # lowering
    "a sum in a contraction that is a maximum": (built(contractions, reduce=lambda op, x, axes: build.reduce("max", x, axes)), "lonely_index", ["values", "'lower'"]),
    "a transposed flag, flipped": (flipped("transposed", lambda m: not m.transposed), "multiplied", ["values", "gemm"]),
    "a wrong leading dimension": (flipped("leading", lambda m: size(2) if m.leading == 4 else m.leading), "strided", ["values", "gemm"]),
    "a value read before it is written": (patched(cluster.Builder, "_shared", all_loops), "reversed_rows", ["values", "kernel"]),
    "a stale register": (stale, "reversed_rows", ["values", "kernel"]),
    "an arena where everything overlaps": (patched(binding, "plan_arena", everything_at_once), "two_products", ["values", "memory plan"]),
    "an update in place that is read later": (patched(schedule, "_same_place", lambda real: lambda *a: True), "counter", ["values", "update:s", "memory plan"]),
    # kernels
    "an argmax that takes the last maximum": (last_maximum, "greatest", ["values", "argmax(", "equal", "kernel argmax"]),
    "a loop that ends one too early": (wrong_text(r"in range\((.*)\)", r"in range(\1 - 1)"), "plain", ["values", "kernel"]),
    "an index that is off by one": (wrong_text(r"tanh\((\w+)\[i0\]\)", r"tanh(\1[i0 - (i0 > 0)])"), "plain", ["values", "kernel"]),
    "a wrong start of an accumulator": (wrong_text(r"= f64\(0(\.0)?\)$", "= f64(1.0)"), "rows", ["values", "kernel sum"]),
    "a store that is dropped": (wrong_text(r"^( +)\w+\[.*\] = .*$", r"\1pass"), "plain", ["values", "kernel"]),
    "a wrong constant": (patched(source.Printer, "number", lambda real: lambda self, v, t: real(self, v * 1.01 if abs(v - 0.3) < 1e-6 else v, t)), "plain", ["values", "kernel"]),
    "a wrong size argument": (patched(assembly, "print_kernel", fewer), "rows", ["values", "kernel"]),
    "a wrong function of vector mathematics": (wrong_tanh, "plain", ["values", "kernel", "tanh"]),
}


@pytest.fixture(autouse=True)
def _fresh_partials():
    partials.template.cache_clear()
    yield
    partials.template.cache_clear()


@pytest.mark.parametrize("name", MODELS)
def test_without_a_fault_each_model_verifies(name):
    found = certificate(name)
    assert found.strict, str(found)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_found_and_named(fault, monkeypatch):
    plant, name, words = FAULTS[fault]
    plant(monkeypatch)
    found = certificate(name)
    failed = [f"{f.kind} {f.subject} {f.detail}" for f in found.findings if f.standing == "FAILED"]
    assert not found.passed
    assert any(all(word in text for word in words) for text in failed), "\n".join(failed)


def test_faults_are_found_in_float32(monkeypatch):
    assert certificate("plain", f32).passed
    FAULTS["a wrong constant"][0](monkeypatch)
    assert not certificate("plain", f32).passed


def test_there_are_enough_faults():
    assert len(FAULTS) >= 20
    assert {words[0] for _, _, words in FAULTS.values()} == {"operation", "rewrite", "gradient", "values"}


