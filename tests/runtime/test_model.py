"""Calling a compiled model: arrays in and out, whose they are, states, clones, frozen parameters."""
from __future__ import annotations

import threading

import numpy as np
import pytest

import graphc as gc
from graphc.errors import GraphcError, InputError


@gc.model
def net(x: gc.f32["B", 3], i: gc.i64["B"]):
    w = gc.param("w", (3, 4))
    seen = gc.state("seen", (), init=1.0)
    gc.update(seen, seen + gc.sum(x))
    h = gc.tanh(x @ w)
    return gc.outputs(h=h, n=seen, top=gc.argmax(h, axis=1), loss=gc.nn.cross_entropy(h, i))


X, LABELS = np.random.default_rng(0).standard_normal((5, 3)).astype(np.float32), np.array([0, 3, 1, 2, 0])
COMPILED = gc.compile(net, seed=1)


@pytest.fixture
def m():
    COMPILED.thaw()
    return COMPILED.clone()


# -- out= ------------------------------------------------------------------------------------------------------------
def test_out_is_written_and_returned(m):
    first = m.forward(X, LABELS)
    kept = {n: v.copy() for n, v in first.items()}
    second = m.forward(X * 2, LABELS, out=first)
    for name in first:
        assert second[name] is first[name], f"{name} is the array that was given"
    fresh = m.clone().forward(X * 2, LABELS)
    for name in ("h", "top", "loss"):
        np.testing.assert_array_equal(second[name], fresh[name])
    assert not np.array_equal(second["h"], kept["h"])


def test_out_may_name_some(m):
    h = np.empty((5, 4), np.float32)
    got = m.forward(X, LABELS, out={"h": h})
    assert got["h"] is h and got["loss"] is not None
    np.testing.assert_array_equal(h, m.clone().forward(X, LABELS)["h"])


def test_gradients_take_out_by_the_parameters_name(m):
    out, grads = m.value_and_grad(X, LABELS)
    again, more = m.value_and_grad(X, LABELS, out={**out, **grads})
    assert more["w"] is grads["w"] and again["h"] is out["h"]


@pytest.mark.parametrize("array", [
    np.empty((4, 4), np.float32), np.empty((5, 4), np.float64), np.empty((4, 5), np.float32).T, np.empty((5, 8), np.float32)[:, ::2], np.empty(20, np.float32)],
    ids=["other shape", "other type", "other order", "not contiguous", "flat"])
def test_an_out_that_does_not_fit_is_an_error(m, array):
    with pytest.raises(InputError, match=r"out\['h'\]"):
        m.forward(X, LABELS, out={"h": array})


def test_a_read_only_out_is_an_error(m):
    array = np.empty((5, 4), np.float32)
    array.flags.writeable = False
    with pytest.raises(InputError, match="writable"):
        m.forward(X, LABELS, out={"h": array})


def test_an_out_that_is_an_input_or_a_parameter_is_an_error():
    @gc.model
    def square(x: gc.f32[3, 3]):
        p = gc.param("p", (3, 3))
        return gc.outputs(y=x @ p, z=x.T + 1)

    m, x = gc.compile(square), np.ones((3, 3), np.float32)
    for array in (x, m.params["p"]):
        with pytest.raises(InputError, match="shares memory"):
            m.forward(x, out={"y": array})
    wide = np.ones((6, 3), np.float32)
    with pytest.raises(InputError, match="shares memory"):
        m.forward(wide[:3], out={"y": wide[1:4]})


def test_one_array_for_two_outputs_is_an_error():
    @gc.model
    def pair(x: gc.f32[3]):
        return gc.outputs(a=x + 1, b=x * 2)

    m, array = gc.compile(pair), np.empty(3, np.float32)
    with pytest.raises(InputError, match=r"shares memory|twice|out"):
        m.forward(np.ones(3, np.float32), out={"a": array, "b": array})


def test_an_unknown_name_in_out_is_an_error(m):
    with pytest.raises(GraphcError):
        m.forward(X, LABELS, out={"hh": np.empty((5, 4), np.float32)})


def test_results_belong_to_the_caller(m):
    first = m.forward(X, LABELS)
    kept = first["h"].copy()
    second = m.forward(X * 3, LABELS)
    np.testing.assert_array_equal(first["h"], kept)
    assert first["h"].flags.writeable and not np.may_share_memory(first["h"], second["h"])


# -- inputs ----------------------------------------------------------------------------------------------------------
LAYOUTS = {
    "transposed": lambda x: np.asfortranarray(x),
    "a slice": lambda x: np.repeat(np.repeat(x, 2, 0), 2, 1)[::2, ::2],
    "reversed": lambda x: x[::-1].copy()[::-1],
    "read-only": lambda x: _frozen(x),
    "misaligned": lambda x: _misaligned(x),
    "a list": lambda x: x.tolist(),
    "a subclass": lambda x: x.view(type("Own", (np.ndarray,), {})),
    "broadcast": lambda x: np.broadcast_to(x, (1, *x.shape))[0],
    "big-endian": lambda x: x.astype(">f4"),
}


def _frozen(x):
    y = x.copy()
    y.flags.writeable = False
    return y


def _misaligned(x):
    raw = np.empty(x.nbytes + 1, np.uint8)[1:]
    y = raw.view(np.float32).reshape(x.shape)
    y[...] = x
    assert not y.flags.aligned
    return y


@pytest.mark.parametrize("layout", LAYOUTS)
def test_arrays_of_any_layout_are_taken(m, layout):
    want = m.clone().forward(X, LABELS)
    got = m.forward(LAYOUTS[layout](X), LABELS)
    np.testing.assert_array_equal(got["h"], want["h"])


def test_integers_widen_and_other_kinds_are_errors(m):
    want = m.clone().forward(X, LABELS)["loss"]
    for kind in (np.int8, np.int16, np.int32, np.uint8):
        assert m.forward(X, LABELS.astype(kind))["loss"] == want
    with pytest.raises(InputError, match=r"'x' has the type float64.*\n.*astype\(np\.float32\)"):
        m.forward(X.astype(np.float64), LABELS)
    with pytest.raises(InputError, match="'i' has the type float32"):
        m.forward(X, LABELS.astype(np.float32))
    with pytest.raises(InputError, match="'i'"):
        m.forward(X, LABELS.astype(np.complex64))


class Lender:
    """Anything that lends its memory through DLPack."""

    def __init__(self, array):
        self.array = array

    def __dlpack__(self, **options):
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.array.__dlpack_device__()


def test_dlpack_is_taken(m):
    want = m.clone().forward(X, LABELS)["h"]
    np.testing.assert_array_equal(m.forward(Lender(X), Lender(LABELS))["h"], want)


def test_dlpack_is_taken_without_a_copy():
    """Values written after the lending are seen: the memory is the lender's own."""
    torch = pytest.importorskip("torch")

    @gc.model
    def double(x: gc.f32["N"]):
        return gc.outputs(y=x * 2)

    m, x = gc.compile(double), torch.arange(5.0)
    np.testing.assert_array_equal(m.forward(x)["y"], [0, 2, 4, 6, 8])
    np.testing.assert_array_equal(m.forward(x[::2])["y"], [0, 4, 8])
    x[0] = 7
    assert m.forward(x)["y"][0] == 14
    assert isinstance(m.forward(torch.ones(2))["y"], np.ndarray)
    with pytest.raises(InputError, match="float64"):
        m.forward(torch.ones(2, dtype=torch.float64))


def test_a_torch_tensor_that_needs_a_gradient_is_an_error_that_says_so(m):
    torch = pytest.importorskip("torch")
    with pytest.raises(GraphcError, match=r"x"):
        m.forward(torch.ones((5, 3), requires_grad=True), LABELS)


def test_different_sizes_alternate(m):
    for b in (5, 1, 0, 3, 5, 2):
        x = np.ones((b, 3), np.float32)
        got = m.forward(x, outputs=["h"])["h"]
        np.testing.assert_allclose(got, np.tanh(x @ m.params["w"]), rtol=1e-6)


# -- states ----------------------------------------------------------------------------------------------------------
def test_states_go_on_and_reset(m):
    one = np.ones((2, 3), np.float32)
    assert [float(m.forward(x=one, outputs=["n"])["n"]) for _ in range(3)] == [1, 7, 13]
    array = m.states["seen"]
    m.reset()
    assert m.states["seen"] is array and float(m.forward(x=one, outputs=["n"])["n"]) == 1
    m.states["seen"][...] = 100
    assert float(m.forward(x=one, outputs=["n"])["n"]) == 100


def test_a_failed_call_changes_nothing(m):
    m.forward(X, LABELS)
    before = float(m.states["seen"])
    with pytest.raises(GraphcError, match="out of range"):
        m.forward(X, np.array([0, 1, 9, 0, 0]))
    with pytest.raises(GraphcError, match="out of range"):
        m.forward(X, np.array([0, 1, -1, 0, 0]))
    with pytest.raises(InputError):
        m.forward(X, LABELS[:3])
    assert float(m.states["seen"]) == before


def test_a_state_of_symbolic_shape():
    @gc.model
    def memory(x: gc.f32["B", 2]):
        s = gc.state("s", (gc.dim("B"), 2), init=0.5)
        gc.update(s, s + x)
        return gc.outputs(s=s)

    m = gc.compile(memory)
    m.forward(np.ones((3, 2), np.float32))
    np.testing.assert_array_equal(m.forward(np.ones((3, 2), np.float32))["s"], np.full((3, 2), 1.5))
    with pytest.raises(InputError, match=r"state 's' has the shape \(3, 2\)"):
        m.forward(np.ones((4, 2), np.float32))
    m.reset()
    np.testing.assert_array_equal(m.forward(np.ones((3, 2), np.float32))["s"], np.full((3, 2), 0.5))


# -- clones, frozen parameters ---------------------------------------------------------------------------------------
def test_a_clone_shares_parameters_and_nothing_else(m):
    c = m.clone()
    assert c.params["w"] is m.params["w"]
    m.forward(X, LABELS)
    assert float(c.states["seen"]) == 1 and float(m.states["seen"]) != 1
    a, b = m.forward(X, LABELS)["h"], c.forward(X, LABELS)["h"]
    np.testing.assert_array_equal(a, b)
    assert not np.may_share_memory(a, b)


def test_clones_run_in_threads():
    """Each thread its clone: every result is its own, and none is mixed with another's."""
    wrong = []

    def work(k):
        mine, x = COMPILED.clone(), np.full((4, 3), k / 10, np.float32)
        want = np.tanh(x @ COMPILED.params["w"])
        for _ in range(200):
            if not np.allclose(mine.forward(x=x, outputs=["h"])["h"], want, rtol=1e-5, atol=1e-6):
                wrong.append(k)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(6)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong


def test_frozen_parameters_are_read_only_until_thawed(m):
    before = m.forward(X, LABELS)["h"]
    m.freeze()
    with pytest.raises(InputError, match="frozen"):
        m.params["w"] = np.zeros((3, 4))
    with pytest.raises(ValueError, match="read-only"):
        m.params["w"][0, 0] = 1
    np.testing.assert_array_equal(m.forward(X, LABELS)["h"], before)
    m.thaw()
    kept = m.params["w"].copy()
    m.params["w"] = kept * 2
    assert not np.array_equal(m.forward(X, LABELS)["h"], before)
    m.params["w"] = kept


def test_a_step_on_frozen_parameters_is_an_error():
    @gc.model
    def fit(x: gc.f32["B", 2]):
        return gc.outputs(loss=gc.sum(gc.square(x @ gc.param("w", (2, 1)))))

    m = gc.compile(fit, optimiser=gc.train.SGD(0.1))
    kept = m.params["w"].copy()
    m.freeze()
    with pytest.raises(GraphcError, match=r"frozen|read-only|thaw"):
        m.step(np.ones((3, 2), np.float32))
    np.testing.assert_array_equal(m.params["w"], kept)
    m.thaw()
    m.step(np.ones((3, 2), np.float32))
    assert not np.array_equal(m.params["w"], kept)


def test_parameters_keep_their_memory(m):
    array = m.params["w"]
    m.params["w"] = array * 1
    assert m.params["w"] is array and array.ctypes.data % 64 == 0
    with pytest.raises(InputError, match=r"shape \(3, 4\), not \(4,\)"):
        m.params["w"] = np.zeros(4)
    with pytest.raises(InputError, match="did you mean 'w'"):
        m.params["ww"]


def test_saved_parameters_come_back(m, tmp_path):
    m.save_params(tmp_path / "p.safetensors")
    kept = m.params["w"].copy()
    m.params["w"] = kept + 1
    m.load_params(tmp_path / "p.safetensors")
    np.testing.assert_array_equal(m.params["w"], kept)


def test_frozen_parameters_are_not_loaded_over(m, tmp_path):
    m.save_params(tmp_path / "p.safetensors")
    m.freeze()
    with pytest.raises((GraphcError, ValueError)) as error:
        m.load_params(tmp_path / "p.safetensors")
    m.thaw()
    assert isinstance(error.value, GraphcError), "a message of graphc's own"


def test_clones_of_a_frozen_model_share_what_is_packed():
    """Threads that ask for it at once get one array: the address of another would be left pointing at freed memory."""
    import threading

    from graphc.runtime.packing import Packed

    packed = Packed({"w": np.random.default_rng(0).standard_normal((512, 512)).astype("f")})
    for offset in range(8):
        gate, got = threading.Barrier(4), []

        def ask(gate=gate, got=got, offset=offset):
            gate.wait()
            got.append(packed.operand("w", offset, "f32", 512, 500, 512, False))

        users = [threading.Thread(target=ask) for _ in range(4)]
        for user in users:
            user.start()
        for user in users:
            user.join()
        assert len({id(array) for array in got}) == 1


def test_a_parameter_is_not_set_to_complex_numbers():
    @gc.model
    def scaled(x: gc.f32[2]):
        return gc.outputs(y=x * gc.param("w", (2,)))

    with pytest.raises(GraphcError, match="the parameter 'w' cannot be set: it is complex"):
        gc.compile(scaled).params["w"] = np.array([1j, 2])
