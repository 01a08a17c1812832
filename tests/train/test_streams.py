"""Streams of a long text, and states carried along them through an epoch."""

import numpy as np
import pytest

import graphc as gc
from graphc.train import SGD, Adam, Batches, Checkpoint, Dataset, Streams, evaluate, fit, read_text
from graphc.train.loop import Average


@pytest.mark.parametrize("count, batch, steps", [(25, 2, 3), (25, 1, 24), (26, 5, 5), (1000, 7, 11), (3, 2, 1)])
def test_rows_go_on_and_targets_are_one_ahead(count, batch, steps):
    streams = Streams(np.arange(count), batch, steps, "a", "b")
    batches = list(streams)
    assert len(batches) == len(streams) == (count - 1) // (batch * steps)
    assert all(part["a"].shape == part["b"].shape == (batch, steps) for part in batches)
    whole, ahead = (np.concatenate([part[n] for part in batches], axis=1) for n in "ab")
    np.testing.assert_array_equal(ahead, whole + 1)
    np.testing.assert_array_equal(whole.reshape(-1), np.arange(whole.size))  # nothing between two streams is left out
    np.testing.assert_array_equal([p["a"] for p in streams], [p["a"] for p in batches])  # it can be read again


@pytest.mark.parametrize(
    "numbers, batch, steps, message",
    [
        (range(6), 2, 3, "a sequence of 6 has no full batch of 2 × 3"),
        ([], 1, 1, "no full batch"),
        (range(9), 0, 3, "batch is 0, it must be at least 1"),
        (range(9), 3, -1, "steps is -1"),
        (np.zeros((3, 3)), 1, 1, "one axis"),
    ],
)
def test_what_gives_no_batch_is_explained(numbers, batch, steps, message):
    with pytest.raises(gc.GraphcError, match=message):
        Streams(numbers, batch, steps)


def test_texts(tmp_path):
    (tmp_path / "text").write_bytes("dröge".encode("latin-1"))
    assert read_text(str(tmp_path / "text"), "latin-1") == "dröge"
    with pytest.raises(gc.GraphcError, match="is not utf-8"):
        read_text(str(tmp_path / "text"))
    with pytest.raises(gc.GraphcError, match="cannot be read: No such file"):
        read_text(str(tmp_path / "none"))


# -- states carried along ----------------------------------------------------------------------------------------------
@gc.model
def running(x: gc.f64["B", "T"], y: gc.f64["B", "T"]):
    """h, a sum of all that a row has seen in the epoch, and a count of calls that no epoch touches."""
    h, calls = gc.state("h", ("B",)), gc.state("calls")
    gc.update(h, h + gc.sum(x, axis=1))
    gc.update(calls, calls + 1)
    y_hat = gc.param("w") * (h + gc.sum(x, axis=1))
    return gc.outputs(loss=gc.mean(gc.square(y_hat - y[:, 0])), seen=gc.sum(h))


DATA = np.random.default_rng(0).standard_normal(61)


def compiled():
    return gc.compile(running, dtype="float64", optimiser=SGD(1e-3))


def test_an_epoch_begins_with_fresh_states():
    m, seen = compiled(), []
    streams = Streams(DATA, 3, 4)
    fit(m, Dataset(train=streams), epochs=2, on_batch=lambda *a: seen.append(m.states["h"].copy()))
    sums = np.cumsum([part["x"].sum(1) for part in streams], axis=0)
    np.testing.assert_allclose(seen, [*sums, *sums], rtol=1e-12)
    assert m.states["calls"] == 2 * len(streams)


def test_validation_of_other_sizes_begins_anew_and_leaves_the_states_alone():
    m = compiled()
    fit(m, Dataset(train=Streams(DATA, 3, 4), valid=Streams(DATA, 5, 2)), epochs=1)
    before = {n: a.copy() for n, a in m.states.items()}
    first, again = (evaluate(m, Batches(Streams(DATA, 5, 2), m.signature, 1)) for _ in range(2))
    assert first == again
    assert set(m.states) == set(before)
    for name, value in before.items():
        np.testing.assert_array_equal(m.states[name], value)


def test_what_stopped_amid_an_epoch_goes_on_to_the_same_bits(tmp_path):
    data, settings = Dataset(train=Streams(DATA, 3, 4)), dict(epochs=3)
    straight = compiled()
    fit(straight, data, **settings)
    pressed = iter([False] * 6 + [True])
    first = compiled()
    assert not fit(first, data, **settings, checkpoint=tmp_path / "c", stop=lambda: next(pressed)).finished
    m = compiled()
    assert "h" not in m.states
    fit(m, data, **settings, checkpoint=tmp_path / "c", resume=True)
    for name in ("h", "calls"):
        assert m.states[name].tobytes() == straight.states[name].tobytes()
    assert m.params["w"].tobytes() == straight.params["w"].tobytes()


def test_a_checkpoint_without_carried_states_takes_them_away(tmp_path):
    m = compiled()
    Checkpoint.of(m, {}, [], 0, Average()).save(tmp_path / "c")
    m.step(x=np.ones((2, 2)), y=np.ones((2, 2)))
    Checkpoint.load(tmp_path / "c").restore(m, tmp_path / "c")
    assert "h" not in m.states and m.states["calls"] == 0


@pytest.mark.parametrize("part", ["train", "valid"])
def test_arrays_have_no_order_to_carry_a_state_along(part):
    arrays = dict(x=np.ones((5, 2)), y=np.ones((5, 2)))
    data = Dataset(**{"train": Streams(DATA, 3, 4), part: arrays})
    with pytest.raises(gc.GraphcError, match=f"(?s)carries the state 'h' .* but the {part} data are arrays.*Streams"):
        fit(compiled(), data, epochs=1)


def test_a_smaller_batch_is_explained():
    with pytest.raises(gc.GraphcError, match=r"(?s)the state 'h' has the shape \(3,\).*need \(2,\).*a row for each"):
        fit(compiled(), Dataset(train=[dict(x=np.ones((b, 2)), y=np.ones((b, 2))) for b in (3, 2)]), epochs=1)


def test_states_are_set_and_reset_by_name():
    m = compiled()
    assert m.carried == ("h",)
    m.set_states({"h": [1.0, 2.0], "calls": 5.0})
    m.forward(x=np.ones((2, 3)), outputs=["seen"])
    np.testing.assert_array_equal(m.states["h"], [4, 5])
    m.reset(m.carried)
    assert "h" not in m.states and m.states["calls"] == 6
    for wrong, message in (
        ({"h": [[1.0]]}, r"the state 'h' is f64\[B\], the value is float64\[1, 1\]"),
        ({"calls": [1.0, 2.0]}, r"the state 'calls' is f64\[\]"),
        ({"h": [True]}, "the value is bool"),
        ({"k": 1.0}, "there is no state 'k'"),
    ):
        with pytest.raises(gc.GraphcError, match=message):
            m.set_states({"calls": 9.0, **wrong})
    assert m.states["calls"] == 6, "none is set where one does not fit"
    with pytest.raises(gc.GraphcError, match="there is no state 'hh'"):
        m.reset(["hh"])


def test_a_model_takes_the_vocabulary_of_its_data():
    m = gc.compile(running, dtype="float64", optimiser=Adam())
    fit(m, Dataset(train=Streams(DATA, 3, 4), vocab=["a", "b"]), epochs=1)
    assert m.vocab == gc.Vocabulary(["a", "b"], "word")
    with pytest.raises(gc.GraphcError, match="the vocabulary of the data is int"):
        fit(m, Dataset(train=Streams(DATA, 3, 4), vocab=3), epochs=1)
