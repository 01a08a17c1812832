"""Proofs: the stable form of a row is its mathematics, and the partial that is computed is the derived one."""
from __future__ import annotations

import mpmath
import numpy as np
import pytest
import sympy as sp

from graphc.derivatives.partials import Y, derived, partial, template
from graphc.graph import scalar as sc
from graphc.graph.dtype import bool_, f64
from graphc.ops.elementwise import ROWS
from graphc.symbolic.bridge import to_sympy
from tests.fuzz.evaluate import scalar_value

POSITIVE, NEGATIVE = sp.Symbol("p", positive=True), sp.Symbol("n", negative=True)
NUMERIC = {n: r for n, r in ROWS.items() if not r.bools}
SMOOTH = [(n, k) for n, r in NUMERIC.items() if r.differentiable for k in range(len(r.symbols)) if not (r.condition and k == 0)]
DOMAIN = {"log": (0.1, 3), "log1p": (-0.9, 3), "sqrt": (0.05, 3), "pow": (0.2, 3)}


def mathematics(name):
    """An operation's mathematics by name, in eval forms and in partials that name an operation."""
    return lambda *args: ROWS[name].math(*args)


def spelt_out(expression):
    """A SymPy expression with the operations that it names written as their mathematics."""
    return expression.replace(lambda e: isinstance(e, sp.core.function.AppliedUndef), lambda e: ROWS[e.func.__name__].math(*e.args))


def points(name, count=12):
    low, high = DOMAIN.get(name, (-3, 3))
    rng = np.random.default_rng(3)
    return [[sp.Rational(int(v * 10**6), 10**6) for v in rng.uniform(low, high, len(ROWS[name].symbols))] for _ in range(count)]


EVAL = [n for n, r in ROWS.items() if r.eval is not None]


@pytest.mark.parametrize("name", EVAL)
def test_the_stable_form_is_the_mathematics(name):
    """Proved branch by branch: where the operand is positive, negative and zero."""
    row = ROWS[name]
    assert len(row.symbols) == 1
    stable = row.eval(sc.arg(0, f64))
    for branch in (POSITIVE, NEGATIVE, sp.Integer(0)):
        mine = to_sympy(stable, lambda e, branch=branch: branch, mathematics)
        difference = sp.simplify(sp.piecewise_fold(mine - row.math(branch)).rewrite(sp.exp))
        assert sp.simplify(sp.expand_log(sp.logcombine(difference), force=True)) == 0 or _zero_log(mine, row.math(branch)), f"{name} at {branch}: {difference}"


def _zero_log(a, b):
    """log A = log B is proved as A = B."""
    return sp.simplify(sp.exp(sp.expand_log(a, force=True)) - sp.exp(b)) == 0


def test_the_proof_can_fail():
    wrong = ROWS["sigmoid"].math(POSITIVE) - 1 / (1 + sp.exp(POSITIVE))
    assert sp.simplify(wrong) != 0


@pytest.mark.parametrize("name, k", SMOOTH)
def test_the_computed_partial_is_the_derived_one(name, k):
    """At random rational points in 50-digit arithmetic, y standing for the operation's value."""
    row = ROWS[name]
    for values in points(name):
        at = dict(zip(row.symbols, values, strict=True))
        if row.condition:
            at[row.symbols[0]] = sp.true if values[0] > 0 else sp.false
        y = row.expression.subs(at)
        computed = spelt_out(partial(name, k).subs({Y: y, **at}))
        difference = sp.N(computed - derived(name, k).subs(at), 50)
        assert abs(difference) < sp.Float("1e-45"), f"{name} by operand {k} at {values}: {difference}"


ONE = [(n, k) for n, k in SMOOTH if len(ROWS[n].symbols) == 1]


@pytest.mark.parametrize("name, k", ONE)
def test_the_partial_of_one_operand_is_proved(name, k):
    """Symbolically, for all positive and all negative operands."""
    row = ROWS[name]
    for branch in (POSITIVE, NEGATIVE):
        if branch is NEGATIVE and name in ("log", "sqrt", "log1p"):
            continue
        at = {row.symbols[0]: branch}
        value = row.math(branch)
        computed = spelt_out(partial(name, k).subs({Y: value}).subs(at))
        difference = sp.simplify(sp.piecewise_fold(computed - derived(name, k).subs(at)).rewrite(sp.exp))
        assert sp.simplify(difference) == 0, f"{name} at {branch}: {difference}"


@pytest.mark.parametrize("name, k", [(n, k) for n, k in SMOOTH if n not in ("cast", "where")])
def test_the_derived_partial_is_the_limit_of_differences(name, k):
    """Against mpmath's numerical derivative of the mathematics, which shares nothing with SymPy's rules."""
    row = ROWS[name]
    mpmath.mp.dps = 60
    f = sp.lambdify(row.symbols, row.expression, "mpmath")
    for values in points(name, 5):
        numbers = [mpmath.mpf(v.p) / v.q for v in values]
        want = mpmath.diff(lambda x, numbers=numbers: f(*numbers[:k], x, *numbers[k + 1:]), numbers[k])
        got = sp.N(derived(name, k).subs(dict(zip(row.symbols, values, strict=True))), 50)
        assert abs(mpmath.mpf(str(got)) - want) < mpmath.mpf(10) ** -25, (name, k, values)


@pytest.mark.parametrize("name, k", [(n, k) for n, k in SMOOTH if n != "cast"])
def test_the_template_is_the_partial(name, k):
    """What is put into graphs, evaluated by oracles, has the value of the symbolic partial."""
    row = ROWS[name]
    for values in points(name, 6):
        at = dict(zip(row.symbols, values, strict=True))
        reads = [np.float64(v) for v in values]
        if row.condition:
            at[row.symbols[0]] = sp.true if values[0] > 0 else sp.false
            reads[0] = np.bool_(values[0] > 0)
        y = row.expression.subs(at)
        want = float(sp.N(spelt_out(partial(name, k).subs({Y: y, **at})), 30))
        with np.errstate(all="ignore"):
            expression = template(name, k, f64)
            if row.condition:
                expression = sc.substitute(expression, [sc.arg(0, bool_), *(sc.arg(i, f64) for i in range(1, 4))])
            got = scalar_value(expression, (), [*reads, np.float64(float(y))], {})
        assert abs(got - want) <= 1e-12 * max(1, abs(want)), (name, k, values)


KINKS = {
    ("relu", (0.0,), 0): 0.0, ("abs", (0.0,), 0): 0.0, ("maximum", (1.0, 1.0), 0): 0.0, ("maximum", (1.0, 1.0), 1): 1.0,
    ("minimum", (2.0, 2.0), 0): 0.0, ("minimum", (2.0, 2.0), 1): 1.0, ("pow", (0.0, 2.0), 0): 0.0, ("pow", (0.0, 2.0), 1): 0.0, ("pow", (0.0, 1.0), 0): 1.0,
    ("pow", (0.0, 0.0), 0): 0.0, ("sqrt", (0.0,), 0): np.inf, ("log", (0.0,), 0): np.inf, ("sigmoid", (-800.0,), 0): 0.0, ("sigmoid", (800.0,), 0): 0.0,
    ("softplus", (800.0,), 0): 1.0, ("softplus", (-800.0,), 0): 0.0, ("tanh", (400.0,), 0): 0.0, ("expm1", (-800.0,), 0): 0.0, ("exp", (-800.0,), 0): 0.0,
}


@pytest.mark.parametrize("name, values, k", KINKS)
def test_partials_at_kinks_and_far_out(name, values, k):
    """The conventions: by branches, finite where the true value is."""
    with np.errstate(all="ignore"):
        y = ROWS[name].oracle(*map(np.float64, values))
        got = scalar_value(template(name, k, f64), (), [*map(np.float64, values), np.float64(y)], {})
    assert got == KINKS[name, values, k]


def test_partials_through_the_output():
    assert sp.expand(partial("tanh", 0) - (1 - Y**2)) == 0
    assert sp.expand(partial("sigmoid", 0) - Y * (1 - Y)) == 0
    assert partial("exp", 0) == Y and sp.simplify(partial("sqrt", 0) - 1 / (2 * Y)) == 0
