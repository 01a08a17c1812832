"""The arrays that calls hand out: never written again while anybody holds them, and their memory used again after."""
from __future__ import annotations

import gc as collector
import threading
import tracemalloc

import numpy as np
import pytest

import graphc as gc
from graphc.errors import GraphcError


@gc.model
def net(x: gc.f32["B", 3], i: gc.i64["B"]):
    w, b = gc.param("w", (3, 4), init="normal"), gc.param("b", (4,), init="normal")
    scale = gc.param("scale", init=2.0)
    h = gc.tanh(x @ w + b) * scale
    return gc.outputs(h=h, top=gc.argmax(h, axis=1), mean=gc.mean(h), loss=gc.mean(gc.square(h)) + gc.nn.cross_entropy(h, i))


COMPILED = gc.compile(net, seed=1)
RNG = np.random.default_rng(0)


def batch(size):
    return RNG.standard_normal((size, 3)).astype(np.float32), RNG.integers(0, 4, size)


def reference(params, x, i):
    """The outputs and the gradients, in NumPy and float64."""
    w, b, scale = (np.asarray(params[n], np.float64) for n in ("w", "b", "scale"))
    x = x.astype(np.float64)
    t = np.tanh(x @ w + b)
    h = t * scale
    e = np.exp(h - h.max(axis=1, keepdims=True))
    p = e / e.sum(axis=1, keepdims=True)
    rows = np.arange(len(i))
    outputs = dict(h=h, top=h.argmax(axis=1), mean=h.mean(), loss=np.mean(h * h) - np.mean(np.log(p[rows, i])))
    p[rows, i] -= 1
    dh = 2 * h / h.size + p / len(i)
    dz = dh * scale * (1 - t * t)
    return outputs, dict(w=x.T @ dz, b=dz.sum(axis=0), scale=(dh * t).sum())


def close(got, want):
    assert list(got) == list(want)
    for name in want:
        np.testing.assert_allclose(got[name], want[name], rtol=2e-5, atol=2e-6, err_msg=name)


def place(array):
    return array.__array_interface__["data"][0]


@pytest.fixture
def m():
    return COMPILED.clone()


def torch_tensor(array):
    return pytest.importorskip("torch").from_numpy(array)


def torch_dlpack(array):
    return pytest.importorskip("torch").from_dlpack(array)


class Interface:
    """What other libraries make of an array: its address and the array itself."""

    def __init__(self, array):
        self.__array_interface__, self.owner = array.__array_interface__, array


KEEPERS = {
    "the array": lambda a: a,
    "a slice": lambda a: a[..., 1:],
    "a view of a view": lambda a: a.reshape(-1)[1:][::2],
    "transposed": lambda a: a.T,
    "another type": lambda a: a.view(np.uint8),
    "memoryview": memoryview,
    "an array of a memoryview": lambda a: np.asarray(memoryview(a)),
    "its data": lambda a: a.data,
    "an iterator": lambda a: a.flat,
    "ctypes": lambda a: a.ctypes,
    "DLPack": np.from_dlpack,
    "torch.from_numpy": torch_tensor,
    "torch.from_dlpack": torch_dlpack,
    "a slice of a tensor": lambda a: torch_tensor(a)[..., 1:],
    "array interface": lambda a: np.asarray(Interface(a)),
    "a subclass": lambda a: a.view(type("Own", (np.ndarray,), {})),
    "a closure": lambda a: lambda: a,
}


@pytest.mark.parametrize("keep", KEEPERS.values(), ids=KEEPERS)
@pytest.mark.parametrize("what", ["h", "w"])
def test_what_is_kept_is_never_written_again(m, keep, what):
    outputs, gradients = m.value_and_grad(*batch(5))
    array = {**outputs, **gradients}[what]
    want, at = array.copy(), place(array)
    kept = keep(array)
    del array, outputs, gradients
    for _ in range(6):
        outputs, gradients = m.value_and_grad(*batch(5))
        assert place({**outputs, **gradients}[what]) != at
    # a view made as the test began shows what the memory holds now
    del outputs, gradients
    still = np.ctypeslib.as_array((np.ctypeslib.ctypes.c_float * want.size).from_address(at)).reshape(want.shape)
    np.testing.assert_array_equal(still, want)
    del kept, still
    collector.collect()
    seen = {place({**o, **g}[what]) for o, g in (m.value_and_grad(*batch(5)) for _ in range(6))}
    assert len(seen) <= 3, "memory that nobody holds is used again"


def test_a_block_is_held_through_its_base(m):
    """What numpy calls an array's base is the block of memory: it too counts."""
    _, gradients = m.value_and_grad(*batch(5))
    base, want, at = gradients["w"].base, gradients["w"].copy(), place(gradients["w"])
    del gradients
    start = at - place(base)
    for _ in range(5):
        m.value_and_grad(*batch(5))
    np.testing.assert_array_equal(base[start : start + want.nbytes].view(np.float32).reshape(want.shape), want)


def test_dropped_results_are_used_again(m):
    def places():
        outputs, gradients = m.value_and_grad(*batch(5))
        return tuple(place(a) for a in (*outputs.values(), *gradients.values()))

    assert len({places() for _ in range(20)}) == 1, "one set of arrays serves, where each is dropped before the next"
    result, seen = None, set()
    for _ in range(20):
        result = m.value_and_grad(*batch(5))  # the last is held while the next is made
        seen.add(place(result[1]["w"]))
    assert len(seen) == 2, "two take turns"


def test_no_memory_is_allocated_for_results_in_the_steady_state():
    @gc.model
    def wide(x: gc.f32["B"]):
        return gc.outputs(y=x * 2, z=gc.exp(x) + x)

    m, x = gc.compile(wide), np.ones(1 << 18, np.float32)
    result = [m.forward(x), m.forward(x)]
    del result
    tracemalloc.start()
    try:
        for _ in range(5):
            result = [m.forward(x)]  # the last is held while the next is made
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert result and peak < x.nbytes / 10, f"two arrays of {x.nbytes} bytes were given five times, with {peak} bytes allocated"


def test_few_blocks_stand_by():
    """After results were kept and dropped, and after other sizes: what stays allocated is what takes turns."""

    @gc.model
    def wide(x: gc.f32["B"]):
        p = gc.param("p", (1 << 16,))
        return gc.outputs(y=x * 2, loss=gc.sum(x) * gc.sum(p))

    m, x = gc.compile(wide), np.ones(1 << 16, np.float32)
    m.value_and_grad(x)
    tracemalloc.start()
    try:
        many = [m.value_and_grad(x) for _ in range(12)]
        del many
        kept, _ = tracemalloc.get_traced_memory()
        assert kept < 2 * 3.1 * x.nbytes, "three of twelve"
        sizes = range(1 << 16, (1 << 16) + 12)
        pairs = [(m.value_and_grad(np.ones(b, np.float32)), m.value_and_grad(np.ones(b, np.float32))) for b in sizes]
        del pairs
        kept, _ = tracemalloc.get_traced_memory()
        assert kept < 2 * 3.1 * x.nbytes, "those of the last size"
    finally:
        tracemalloc.stop()


def test_a_held_loss_holds_no_array_with_it(m):
    losses = []
    for _ in range(10):
        outputs, gradients = m.value_and_grad(*batch(5))
        losses.append(outputs["loss"])
        assert outputs["loss"].base is not gradients["w"].base and outputs["loss"].base is not outputs["h"].base
        assert outputs["loss"].base.nbytes < 1000
    assert len({place(a) for a in losses}) == 10


def test_the_callers_arrays_are_his_to_change(m):
    """Shape, type and flags of an array are its own: what is handed out next is a new array over the memory."""
    x, i = batch(5)
    want = reference(m.params, x, i)
    for _ in range(3):
        outputs, gradients = m.value_and_grad(x, i)
        close(outputs, want[0])
        close(gradients, want[1])
        assert outputs["h"].shape == (5, 4) and outputs["h"].flags.writeable
        outputs["h"].shape = (20,)
        outputs["h"].flags.writeable = False
        gradients["w"].dtype = np.int32
        gradients["w"][...] = 7
        outputs["other"] = gradients.pop("b")


def test_gradients_are_one_block(m):
    _, gradients = m.value_and_grad(*batch(5))
    assert len({id(g.base) for g in gradients.values()}) == 1
    at = place(gradients["w"])
    for name, length in (("w", 12), ("b", 4), ("scale", 1)):
        assert place(gradients[name]) == at and gradients[name].size == length, name
        at += -(-length * 4 // 64) * 64


def test_numbers_of_several_types_share_a_block_in_the_order_of_the_model():
    @gc.model
    def counts(x: gc.f32["B"]):
        return gc.outputs(
            first=gc.argmax(x), total=gc.sum(x), y=x + 1, any=gc.max(x) > 1, wide=gc.cast(gc.sum(x), gc.f64), loss=gc.mean(x)
        )

    m, x = gc.compile(counts), np.array([1, 5, 2], np.float32)
    for _ in range(3):
        got = m.forward(x)
        assert list(got) == ["first", "total", "y", "any", "wide", "loss"]
        assert (got["first"], got["total"], got["any"], got["wide"]) == (1, 8, True, 8)
        assert [got[n].dtype.name for n in ("first", "total", "any", "wide")] == ["int64", "float32", "bool", "float64"]
        np.testing.assert_array_equal(got["y"], x + 1)
        assert len({id(got[n].base) for n in ("first", "total", "any", "wide", "loss")}) == 1
        assert place(got["loss"]) - place(got["total"]) == 64, "those of one type side by side"
        assert got["y"].base is not got["loss"].base


def test_every_array_is_aligned(m):
    for size in (1, 3, 5, 64):
        outputs, gradients = m.value_and_grad(*batch(size))
        for name, array in {**outputs, **gradients, **m.params, **m.states}.items():
            assert place(array) % 64 == 0 and array.flags.c_contiguous, name


def test_out_is_written_once_only(m):
    """What was passed as out= is not written by a later call without it."""
    (x, i), (x2, i2) = batch(5), batch(5)
    h, w = np.empty((5, 4), np.float32), np.empty((3, 4), np.float32)
    m.value_and_grad(x2, i2)
    outputs, gradients = m.value_and_grad(x, i, out={"h": h, "w": w})
    assert outputs["h"] is h and gradients["w"] is w
    close(outputs, reference(m.params, x, i)[0])
    close(gradients, reference(m.params, x, i)[1])
    kept = h.copy(), w.copy()
    outputs, gradients = m.value_and_grad(x2, i2)
    close(outputs, reference(m.params, x2, i2)[0])
    close(gradients, reference(m.params, x2, i2)[1])
    assert outputs["h"] is not h
    np.testing.assert_array_equal(h, kept[0])
    np.testing.assert_array_equal(w, kept[1])


def test_out_for_all_results_allocates_nothing(m):
    outputs, gradients = m.value_and_grad(*batch(5))
    out = {**outputs, **gradients}
    for _ in range(3):
        x, i = batch(5)
        outputs, gradients = m.value_and_grad(x, i, out=out)
        close(outputs, reference(m.params, x, i)[0])
        assert all(a is out[n] for n, a in {**outputs, **gradients}.items())


def test_a_parameter_and_an_output_of_one_name():
    @gc.model
    def same(x: gc.f32[3]):
        w = gc.param("w", (3,), init="ones")
        return gc.outputs(w=w * x, loss=gc.sum(w * x))

    m, x, own = gc.compile(same), np.array([1, 2, 3], np.float32), np.empty(3, np.float32)
    outputs, gradients = m.value_and_grad(x, out={"w": own})
    assert outputs["w"] is own and gradients["w"] is not own
    other = np.empty(3, np.float32)
    outputs, gradients = m.value_and_grad(x * 2, out={"w": own, "grad:w": other})
    assert outputs["w"] is own and gradients["w"] is other
    np.testing.assert_array_equal(other, x * 2)


def test_the_same_out_again_is_checked_for_what_changed(m):
    """Arrays that were given as out= before are taken at once, but not where they, or an input, are now others."""
    (x, i), own = batch(5), {"h": np.empty((5, 4), np.float32), "w": np.empty((3, 4), np.float32)}
    want, want_gradients = reference(m.params, x, i)
    for _ in range(2):
        outputs, gradients = m.value_and_grad(x, i, out=own)
        assert outputs["h"] is own["h"] and gradients["w"] is own["w"]
        close(outputs, want)
        close(gradients, want_gradients)
    inside = own["h"].reshape(-1)[:15].reshape(5, 3)
    with pytest.raises(GraphcError, match=r"out\['h'\] shares memory with an input or a parameter"):
        m.value_and_grad(inside, i, out=own)
    own["h"].fill(1)
    outputs, _ = m.value_and_grad(inside, i)  # without out= it is an array like any other
    close(outputs, reference(m.params, inside, i)[0])
    m.value_and_grad(x, i, out=own)
    own["h"].flags.writeable = False
    with pytest.raises(GraphcError, match=r"out\['h'\] must be a writable, contiguous array"):
        m.value_and_grad(x, i, out=own)
    own["h"].flags.writeable = True
    m.value_and_grad(x, i, out=own)
    own["h"].shape = (4, 5)
    with pytest.raises(GraphcError, match=r"out\['h'\] must be a writable, contiguous array of float32 of the shape \(5, 4\)"):
        m.value_and_grad(x, i, out=own)
    own["h"].shape = (5, 4)
    m.value_and_grad(x, i, out=own)
    own["h"].dtype = np.int32
    with pytest.raises(GraphcError, match=r"of float32 of the shape \(5, 4\); it is int32 \(5, 4\)"):
        m.value_and_grad(x, i, out=own)
    own["h"].dtype = np.float32
    m.value_and_grad(x, i, out=own)
    for length in (300_000, 5):  # its memory is another now
        own["h"].resize((length, 4), refcheck=False)
    own["h"].fill(0)
    outputs, _ = m.value_and_grad(x, i, out=own)
    close({"h": own["h"]}, {"h": want["h"]})
    m.value_and_grad(*batch(2))
    m.value_and_grad(x, i)
    own["h"].fill(0)
    outputs, gradients = m.value_and_grad(x, i, out=own)
    assert outputs["h"] is own["h"]
    close(outputs, want)
    close(gradients, want_gradients)


def test_what_is_wrong_with_an_out_array_is_told(m):
    turned = np.empty((4, 5), np.float32).T
    turned.flags.writeable = False
    with pytest.raises(GraphcError, match=r"shape \(5, 4\); it is read-only, not contiguous, or not in C's order"):
        m.value_and_grad(*batch(5), out={"h": turned})
    a, b = np.empty((3, 4), np.float32), np.empty((3, 4), np.float32)
    with pytest.raises(GraphcError, match=r"out= gives 'w' two arrays"):
        m.value_and_grad(*batch(5), out={"w": a, "grad:w": b})


def test_out_for_an_output_that_is_not_computed_says_how_to_ask():
    @gc.model
    def several(x: gc.f32["B"], y: gc.f32["B"]):
        return gc.outputs(double=2 * x, most=gc.max(x), loss=gc.nn.mse(x, y))

    m, x, own = gc.compile(several), np.ones(3, np.float32), np.empty((), np.float32)
    told = "out= has an array for the output '{}', which this call does not compute"
    with pytest.raises(GraphcError, match=told.format("most")) as error:
        m.forward(x, outputs="double", out={"most": own})
    assert error.value.how == "ask for it: outputs=['double', 'most']"
    assert m.forward(x, outputs=["double", "most"], out={"most": own})["most"] is own and own == 1
    with pytest.raises(GraphcError, match=told.format("loss")) as error:
        m.forward(x, out={"loss": own})
    assert error.value.how == "it needs more inputs: pass y=…"
    assert m.forward(x, x + 2, out={"loss": own})["loss"] is own and own == 4
    with pytest.raises(GraphcError, match=r"there is no output 'mots'") as error:
        m.forward(x, out={"mots": own})
    assert error.value.how == "did you mean 'most'?"


def test_out_arrays_that_overlap_are_told_by_name(m):
    wide = np.empty(40, np.float32)
    with pytest.raises(GraphcError, match=r"out\['w'\] and out\['h'\] share memory"):
        m.value_and_grad(*batch(5), out={"h": wide[11:31].reshape(5, 4), "w": wide[:12].reshape(3, 4)})
    m.value_and_grad(*batch(5), out={"h": wide[12:32].reshape(5, 4), "w": wide[:12].reshape(3, 4)})
    with pytest.raises(GraphcError, match=r"out\['w'\] shares memory with an input or a parameter"):
        m.value_and_grad(*batch(5), out={"w": m.params["w"]})
    x = wide[:15].reshape(5, 3)
    x[...] = 0
    with pytest.raises(GraphcError, match=r"out\['w'\] shares memory with an input or a parameter"):
        m.value_and_grad(x, batch(5)[1], out={"w": wide[14:26].reshape(3, 4)})


@pytest.mark.parametrize("seed", range(4))
def test_any_order_of_keeping_dropping_and_failing(seed):
    """Calls of several sizes and kinds, results kept and dropped at random: all kept ones stay what they were."""
    rng, m = np.random.default_rng(seed), COMPILED.clone()
    kept, brought = [], {}
    for _ in range(300):
        x, i = batch(int(rng.choice([1, 2, 5, 9])))
        action = rng.integers(0, 10)
        want, want_gradients = reference(m.params, x, i)
        if action == 0:
            with pytest.raises(GraphcError, match="out of range"):
                m.value_and_grad(x, i + 4)
        elif action == 1:
            with pytest.raises(GraphcError):
                m.value_and_grad(x, i[:-1] if len(i) > 1 else np.zeros(2, np.int64))
        elif action == 2:
            close(m.forward(x, outputs=["mean", "h"]), {n: want[n] for n in ("h", "mean")})
        else:
            out = None
            if action == 3:
                out = {"h": np.empty(want["h"].shape, np.float32), "b": np.empty(4, np.float32)}
                brought[len(x)] = out
            elif action > 7:  # the same as the last time, or none
                out = brought.get(len(x))
            outputs, gradients = m.value_and_grad(x, i, out=out)
            close(outputs, want)
            close(gradients, want_gradients)
            if 4 < action < 8:
                pairs = {**outputs, **{f"grad {n}": g for n, g in gradients.items()}}
                names = rng.choice(list(pairs), rng.integers(1, len(pairs)), replace=False)
                kept.append({n: (pairs[n][...], pairs[n].copy()) for n in names})
            del outputs, gradients
        if len(kept) > 5:
            del kept[rng.integers(0, len(kept))]
        for results in kept:
            for name, (array, copy) in results.items():
                np.testing.assert_array_equal(array, copy, err_msg=name)


def test_a_failed_call_leaves_nothing_broken(m):
    x, i = batch(5)
    m.value_and_grad(x, i)
    for _ in range(5):
        with pytest.raises(GraphcError, match=r"out of range"):
            m.value_and_grad(x, i + 4)
        outputs, gradients = m.value_and_grad(x, i)
        close(outputs, reference(m.params, x, i)[0])
        close(gradients, reference(m.params, x, i)[1])


def test_clones_in_threads_keep_their_results():
    """Each thread its clone; what one hands to another thread is not written by either."""
    wrong, handed = [], []

    def work(seed):
        rng, mine = np.random.default_rng(seed), COMPILED.clone()
        held = []
        for _ in range(150):
            x, i = rng.standard_normal((4, 3)).astype(np.float32), rng.integers(0, 4, 4)
            outputs, gradients = mine.value_and_grad(x, i)
            held.append((gradients["w"], gradients["w"].copy()))
            handed.append((outputs["h"], outputs["h"].copy()))
            held = held[-int(rng.integers(1, 5)) :]
            if len(handed) > 20:
                array, copy = handed.pop(int(rng.integers(0, 10)))
                held.append((array, copy))
            wrong.extend(seed for array, copy in held if not np.array_equal(array, copy))

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong
    assert all(np.array_equal(array, copy) for array, copy in handed)


@pytest.mark.parametrize("target", ["numpy", "cpu"])
def test_every_target_keeps_what_is_kept(target):
    @gc.model
    def small(x: gc.f32["B"]):
        p = gc.param("p", init=3.0)
        return gc.outputs(y=x * p, loss=gc.sum(x * p))

    m = gc.compile(small, target=target, dtype="float32")
    kept = [m.value_and_grad(np.full(4, k, np.float32)) for k in range(6)]
    for k, (outputs, gradients) in enumerate(kept):
        np.testing.assert_array_equal(outputs["y"], np.full(4, 3 * k))
        assert outputs["loss"] == 12 * k and gradients["p"] == 4 * k
