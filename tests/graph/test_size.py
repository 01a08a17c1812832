"""Sizes: their normal form decides equality for all values, and their text reads back."""
from __future__ import annotations

import itertools
from math import floor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphc.errors import GraphError
from graphc.graph.size import equal, isqrt, parse, product, size

NAMES = ("B", "T", "K")
B, T, K = map(size, NAMES)
VALUES = st.fixed_dictionaries({n: st.integers(1, 12) for n in NAMES})


def _combine(inner):
    return st.one_of(
        st.tuples(st.sampled_from("+-*"), inner, inner),
        st.tuples(st.just("//"), inner, st.one_of(st.integers(1, 6).map(lambda n: (n,)), st.sampled_from(NAMES).map(lambda n: (n,)))),
        st.tuples(st.just("%"), inner, st.integers(1, 6).map(lambda n: (n,))))


EXPRESSIONS = st.recursive(st.one_of(st.integers(-7, 7), st.sampled_from(NAMES)).map(lambda leaf: (leaf,)), _combine, max_leaves=6)


def as_size(e):
    if len(e) == 1:
        return size(e[0])
    a, b = as_size(e[1]), as_size(e[2])
    return {"+": lambda: a + b, "-": lambda: a - b, "*": lambda: a * b, "//": lambda: a // b, "%": lambda: a % b}[e[0]]()


def as_number(e, values):
    if len(e) == 1:
        return values[e[0]] if isinstance(e[0], str) else e[0]
    a, b = as_number(e[1], values), as_number(e[2], values)
    return {"+": lambda: a + b, "-": lambda: a - b, "*": lambda: a * b, "//": lambda: a // b, "%": lambda: a % b}[e[0]]()


@settings(max_examples=150, derandomize=True, deadline=None)
@given(EXPRESSIONS, VALUES)
def test_a_size_has_the_value_of_its_expression(e, values):
    assert as_size(e).evaluate(values) == as_number(e, values)


@settings(max_examples=150, derandomize=True, deadline=None)
@given(EXPRESSIONS)
def test_a_size_prints_and_reads_back(e):
    s = as_size(e)
    assert parse(str(s)) == s


@settings(max_examples=100, derandomize=True, deadline=None)
@given(EXPRESSIONS, EXPRESSIONS, VALUES)
def test_what_is_decided_holds_for_all_values(a, b, values):
    verdict, same = equal(as_size(a), as_size(b)), as_number(a, values) == as_number(b, values)
    assert verdict is None or verdict == same
    assert (as_size(a) == as_size(b)) == (verdict is True)


@settings(max_examples=100, derandomize=True, deadline=None)
@given(EXPRESSIONS, EXPRESSIONS, VALUES)
def test_substitution_is_evaluation_in_steps(a, b, values):
    replaced = as_size(a).substitute({"B": as_size(b)})
    inner = as_number(b, values)
    if inner >= 1:  # a name stands for a length; below 1 a quotient by it may not exist
        assert replaced.evaluate(values) == as_number(a, {**values, "B": inner})


IDENTITIES = [
    ((T - 1) // 2 + 1, (T + 1) // 2),
    (2 * B + B - 1, 3 * B - 1),
    ((4 * T + 2) // 4, T),
    ((4 * T + 5) // 4, T + 1),
    ((T + 6) // 3, T // 3 + 2),
    ((B * T) // T, B),
    ((B * T + 3 * T) // T, B + 3),
    ((B * B - T * T) // (B + T), B - T),
    ((2 * B * T) // (2 * T), B),
    (T % 1, size(0)),
    ((3 * T) % 3, size(0)),
    ((T + 4) % 4, T % 4),
    ((-T) // 1, -T),
    ((2 * T + 1) // 2, T),
    ((T // 2) * 2 + T % 2, T),
    (B * (T + 1) - B, B * T),
    (0 * T + 5, size(5)),
    (size(7) // 2, size(3)),
    (size(-7) // 2, size(-4)),
    (7 // size(-2), size(-4)),
]


@pytest.mark.parametrize("a, b", IDENTITIES, ids=[f"{a} = {b}" for a, b in IDENTITIES])
def test_equal_sizes_have_one_normal_form(a, b):
    assert a == b and hash(a) == hash(b) and str(a) == str(b) and equal(a, b) is True


@pytest.mark.parametrize("a, b, verdict", [(T, T + 1, False), (T // 2, T // 2 - 3, False), (B, T, None), (B, 3, None), (T // 2, (T + 1) // 2, None), (3, 4, False)])
def test_what_cannot_be_equal_and_what_depends(a, b, verdict):
    assert equal(a, b) is verdict


def test_floor_division_is_that_of_integers():
    for n, d in itertools.product(range(-9, 10), [-4, -3, -2, -1, 1, 2, 3, 4]):
        assert int(size(n) // d) == n // d == floor(n / d)
        assert ((T + n) // d).evaluate({"T": 5}) == (5 + n) // d


def test_a_number_is_a_number():
    assert size(3) == 3 and hash(size(3)) == hash(3) and int(size(3)) == 3 and range(5)[size(2)] == 2
    assert size(0) == 0 and not size(0) and bool(T)
    assert product([B, 2, T]) == 2 * B * T and product([]) == 1
    assert T.constant is None and (T - T).constant == 0
    with pytest.raises(TypeError, match="symbolic"):
        int(T)
    with pytest.raises(ZeroDivisionError):
        T // 0


def test_integer_roots():
    t = size("T")
    root = isqrt(t * 2 + 1)
    assert isqrt(17) == 4 and isqrt(size(0)) == 0
    assert str(root * t // root) == "T" and str(t - root) in ("T - isqrt(2*T + 1)", "-isqrt(2*T + 1) + T")
    assert parse(str(t // root + root * 3)) == t // root + root * 3
    assert root.names == {"T"} and root.evaluate({"T": 12}) == 5
    assert root.substitute({"T": 4}) == 3 and root.substitute({"T": size("S")}) == isqrt(size("S") * 2 + 1)


def test_names_are_found_in_quotients():
    assert ((B + 1) // K * T).names == {"B", "K", "T"}
    with pytest.raises(KeyError, match="K"):
        (B // K).evaluate({"B": 2})


@pytest.mark.parametrize("text", ["B +", "2 $ T", "(B", "B)", "* 2", "B T", "", "1.5"])
def test_what_is_no_size_is_an_error(text):
    with pytest.raises(GraphError, match="cannot read the size"):
        parse(text)


@pytest.mark.parametrize("text, value", [("2*T + 1", 11), ("-T", -5), ("(T + 1)//2*B", 6), ("T % 3", 2), ("T - 1 - 1", 3), ("T//2//2", 1), ("-(T + 1)*2", -12)])
def test_operators_bind_as_in_python(text, value):
    assert parse(text).evaluate({"T": 5, "B": 2}) == value
