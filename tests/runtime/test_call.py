"""Inputs in every form, in any order of calls: what was bound before decides nothing but how long a call takes."""
from __future__ import annotations

import numpy as np
import pytest

import graphc as gc
from graphc.errors import GraphcError, InputError


@gc.model
def mixed(x: gc.f32["B", 2], a: gc.f32[()], n: gc.i64[()], on: gc.bool_[()], k: gc.i32[()]):
    c = gc.param("c", init=-2.0)
    y = gc.where(on, x * a, x) * gc.cast(n + gc.cast(k, gc.i64), gc.f32)
    return gc.outputs(y=y, loss=gc.sum(y) * c)


COMPILED = gc.compile(mixed)


@pytest.fixture
def m():
    return COMPILED.clone()


class Lender:
    def __init__(self, array):
        self.array = array

    def __dlpack__(self, **options):
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.array.__dlpack_device__()


def read_only(array):
    array = array.copy()
    array.flags.writeable = False
    return array


FORMS = {
    "x": [lambda v: v, lambda v: v.tolist(), lambda v: np.asfortranarray(v), read_only, Lender, lambda v: v.astype("f2"),
          lambda v: v.astype(">f4"), lambda v: np.repeat(v, 2, axis=1)[:, ::2]],
    "a": [float, np.float32, lambda v: np.array(v, np.float32), lambda v: read_only(np.array(v, np.float32)),
          lambda v: np.array(v, np.float16), lambda v: np.array([v], np.float32)[0, ...], lambda v: Lender(np.array(v, np.float32))],
    "n": [int, np.int64, np.array, np.int8, lambda v: np.array(v, np.int16), np.int32],
    "on": [bool, np.bool_, np.array, lambda v: read_only(np.array(v))],
    "k": [int, np.int32, lambda v: np.array(v, np.int32), np.int16],
}  # fmt: skip


@pytest.mark.parametrize("seed", range(3))
def test_every_form_of_an_input_in_any_order(m, seed):
    rng = np.random.default_rng(seed)
    for _ in range(200):
        x = rng.integers(-8, 8, (int(rng.choice([1, 2, 4])), 2)).astype(np.float32)
        a, n, on, k = float(rng.integers(-8, 8)), int(rng.integers(-9, 9)), bool(rng.integers(2)), int(rng.integers(9))
        values = dict(x=x, a=a, n=n, on=on, k=k)
        given = {name: FORMS[name][rng.integers(len(FORMS[name]))](v) for name, v in values.items()}
        names = list(given)
        rng.shuffle(names)
        if rng.integers(2):
            outputs, gradients = m.value_and_grad(**{n: given[n] for n in names})
        else:
            first = int(rng.integers(0, 6))
            by_name = {n: given[n] for n in names if n in list(values)[first:]}
            outputs, gradients = m.value_and_grad(*list(given.values())[:first], **by_name)
        want = (x * np.float32(a) if on else x) * np.float32(n + k)
        np.testing.assert_array_equal(outputs["y"], want)
        assert gradients["c"] == want.sum() and outputs["loss"] == -2 * want.sum()


def test_errors_are_the_same_after_a_call_that_went_well(m):
    x = np.ones((4, 2), np.float32)
    good = dict(x=x, a=1.0, n=1, on=True, k=1)
    wrong = [
        (dict(good, x=x.astype(np.float64)), r"'x' has the type float64, but f32 \(float32\) is declared"),
        (dict(good, a=np.float64(1)), r"'a' has the type float64, but f32"),
        (dict(good, a=1j), r"'a' has the type complex128"),
        (dict(good, a="one"), r"'a' has the type"),
        (dict(good, n=1.5), r"'n' has the type float64, but i64"),
        (dict(good, n=2**70), r"'n'"),
        (dict(good, k=2**40), r"'k' holds a number that i32 cannot: 1099511627776"),
        (dict(good, on=1), r"'on' has the type int64, but bool_"),
        (dict(good, a=np.ones(1, np.float32)), r"'a' has 1 axes \(1,\), but a: f32\[\(\)\] is declared"),
        (dict(good, x=x[0]), r"'x' has 1 axes \(2,\)"),
        (dict(good, x=np.ones((4, 3), np.float32)), r"'x' has the shape \(4, 3\): axis 1 is 3, not 2"),
        (dict(good, z=1), r"there is no input 'z'"),
        ({**{n: v for n, v in good.items() if n != "a"}, "A": 1.0}, r"there is no input 'A'"),
        ({n: v for n, v in good.items() if n not in "an"}, r"mixed: missing inputs for loss: a: f32\[\(\)\], n: i64\[\(\)\]"),
        ({}, r"missing inputs for loss: x: f32\[B, 2\], a: "),
    ]
    for given, message in wrong:
        m.value_and_grad(**good)
        for call in (m.value_and_grad, m.forward if "missing" not in message else m.value_and_grad):
            with pytest.raises(InputError, match=message):
                call(**given)
    with pytest.raises(InputError, match="'x' is given twice"):
        m.value_and_grad(x, x=x)
    with pytest.raises(InputError, match="takes 5 inputs, not 6"):
        m.value_and_grad(x, 1.0, 1, True, 1, 1)
    outputs, _ = m.value_and_grad(**good)
    np.testing.assert_array_equal(outputs["y"], x * 2)


def test_a_number_is_read_as_it_is_when_the_call_is_made(m):
    """Numbers are copied; an array that is changed in its place is read anew."""
    a, x = np.array(2, np.float32), np.ones((1, 2), np.float32)
    assert m.forward(x, a, 1, True, 0)["y"][0, 0] == 2
    a[...], x[...] = 5, 3
    assert m.forward(x, a, 1, True, 0)["y"][0, 0] == 15


def test_a_call_holds_no_input(m):
    import weakref

    for make in (np.copy, lambda x: x[::2], read_only, np.asfortranarray):
        given = make(np.ones((4, 2), np.float32))
        m.forward(given, 1.0, 1, True, 1)
        gone = weakref.ref(given)
        del given
        assert gone() is None


@gc.model
def two(u: gc.f32["N"], v: gc.f32["M"], x: gc.f32["B"]):
    w = gc.param("w", init=1.0)
    return gc.outputs(s=gc.sum(u) * gc.sum(v), loss=gc.sum(x) * w)


def test_inputs_that_a_program_does_not_read_are_checked_by_name():
    """Given in another order, the shapes of inputs that are not read must not be taken for one another's."""
    m, x = gc.compile(two), np.ones(3, np.float32)
    u, v = np.ones(2, np.float32), np.ones(5, np.float32)
    for given in (dict(u=u, v=v), dict(v=u, u=v), dict(v=v), dict(u=u), {}, dict(u=u.tolist(), v=[1.0])):
        assert m.forward(**given, x=x, outputs="loss")["loss"] == 3
        assert m.forward(x=x, **given, outputs="loss")["loss"] == 3
    with pytest.raises(InputError, match=r"'u' has 2 axes"):
        m.forward(x=x, u=u.reshape(1, 2), v=v, outputs="loss")


def test_inputs_that_nothing_reads_are_checked_too():
    @gc.model
    def unread(x: gc.f32["B"], u: gc.f32["N"], v: gc.f32["M", "K"], s: gc.f32[()]):
        return gc.outputs(loss=gc.sum(x) * gc.param("w", init=1.0))

    m, x, u = gc.compile(unread), np.ones(3, np.float32), np.ones(2, np.float32)
    for _ in range(2):
        for extra in ({}, dict(u=u), dict(v=u.reshape(1, 2)), dict(s=1.0), dict(u=[1, 2], s=2)):
            assert m.value_and_grad(x=x, **extra)[0]["loss"] == 3
            assert m.value_and_grad(**extra, x=x)[0]["loss"] == 3
        m.value_and_grad(x=x, u=u)
        with pytest.raises(InputError, match=r"'v' has 1 axes \(2,\)"):
            m.value_and_grad(x=x, v=u)
        with pytest.raises(InputError, match=r"'s' has 1 axes"):
            m.value_and_grad(x=x, s=u)


def test_what_is_made_of_an_input_lives_until_it_was_read():
    """Large, so that memory given back too early is no longer there."""

    @gc.model
    def double(x: gc.f32["B", "N"]):
        return gc.outputs(y=x * 2)

    m, x = gc.compile(double), (np.arange(1 << 22) % 1000).astype(np.float32).reshape(1 << 11, -1)
    for given in (x.T, x.astype(np.float16), x[::-1], np.asfortranarray(x), x.T):
        np.testing.assert_array_equal(m.forward(given)["y"], np.asarray(given, np.float32) * 2)


def test_an_input_that_is_an_updated_parameter_is_read_as_it_was():
    @gc.model
    def turn(x: gc.f32[3, 3]):
        w = gc.param("w", (3, 3), init="normal")
        gc.update(w, x.T + w)
        return gc.outputs(y=x @ w)

    m = gc.compile(turn)
    for given in (lambda w: w, lambda w: w.copy(), lambda w: w, lambda w: w.T, lambda w: w):
        before = m.params["w"].copy()
        x = given(m.params["w"])
        kept = x.copy()
        y = m.forward(x)["y"]
        np.testing.assert_allclose(y, kept @ before, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(m.params["w"], kept.T + before, rtol=1e-5, atol=1e-6)


def test_a_state_of_symbolic_shape_is_bound_anew_after_a_reset():
    @gc.model
    def memory(x: gc.f32["B"]):
        s = gc.state("s", (gc.dim("B"),), init=1.0)
        gc.update(s, s + x)
        return gc.outputs(y=s * 2, total=gc.sum(x))

    m, x = gc.compile(memory), np.ones(3, np.float32)
    for b in (3, 3, 5, 3):
        m.reset()
        x = np.ones(b, np.float32)
        for k in range(3):
            np.testing.assert_array_equal(m.forward(x)["y"], np.full(b, 2 + 2 * k))
            np.testing.assert_array_equal(m.states["s"], np.full(b, 2 + k))
        # a state that is passed as an input is read as it was, also one that was made after the first call
        m.forward(m.states["s"])
        np.testing.assert_array_equal(m.states["s"], np.full(b, 8))
    with pytest.raises(InputError, match="state 's' has the shape"):
        m.forward(np.ones(4, np.float32))
    np.testing.assert_array_equal(m.forward(x)["y"], np.full(3, 16))


def test_outputs_by_name_in_any_spelling(m):
    x = np.ones((2, 2), np.float32)
    given = dict(x=x, a=1.0, n=1, on=True, k=0)
    for _ in range(2):
        assert list(m.forward(**given, outputs="y")) == list(m.forward(**given, outputs=["y"])) == ["y"]
        assert list(m.forward(**given, outputs=("loss", "y"))) == ["y", "loss"] == list(m.forward(**given))
        with pytest.raises(GraphcError, match="there is no output 'z'"):
            m.forward(**given, outputs=["y", "z"])
        with pytest.raises(GraphcError, match="missing input for y: a"):
            m.forward(x=x, n=1, on=True, k=0, outputs="y")


def test_one_model_is_called_directly():
    m = gc.compile(two)
    assert m.value_and_grad == m.entries["two"].value_and_grad and "gradient of `loss`" in m.value_and_grad.__doc__
    several = gc.compile(two, mixed)
    with pytest.raises(InputError, match="holds several models"):
        several.value_and_grad(x=np.ones(3, np.float32))
    assert several.two.forward(x=np.ones(3, np.float32))["loss"] == 3
