"""Padded batches: what is in them, in which order, and what is refused."""

import numpy as np
import pytest

import graphc as gc
from graphc.train import Batches, Dataset, Padded, fit


def ragged(count, seed=0, most=9):
    rng = np.random.default_rng(seed)
    return [rng.integers(1, 100, rng.integers(1, most + 1)) for _ in range(count)]


def rows(batches):
    """Every example of some batches, without its padding, with its label."""
    return [(tuple(row[:n]), int(k)) for b in batches for row, n, k in zip(b["x"], b["lengths"], b["k"])]


@pytest.mark.parametrize("count, batch", [(1, 4), (8, 4), (23, 4), (500, 7)])
@pytest.mark.parametrize("seed", [None, 0, 1])
def test_every_example_once_padded_with_zeros(count, batch, seed):
    x = ragged(count)
    padded = Padded(dict(x=x, k=range(count)), batch)
    batches = list(padded.epoch(seed))
    assert len(batches) == len(padded) == -(-count // batch)
    assert sorted(rows(batches)) == sorted((tuple(e), k) for k, e in enumerate(x))
    for b in batches:
        assert b["x"].shape == (len(b["lengths"]), max(b["lengths"]))
        assert not b["x"][np.arange(b["x"].shape[1]) >= b["lengths"][:, None]].any()


def test_the_order_follows_from_seed_and_epoch():
    padded = Padded(dict(x=ragged(300), k=range(300)), 8)
    orders = {(s, n): tuple(k for _, k in rows(padded.epoch(s, n))) for s in (0, 1) for n in (0, 1)}
    assert len(set(orders.values())) == 4
    assert orders[1, 1] == tuple(k for _, k in rows(padded.epoch(1, 1)))
    assert rows(padded) == rows(padded.epoch()) != rows(padded.epoch(0))


def test_little_is_padded():
    padded = Padded(dict(x=ragged(2000, most=60)), 16)
    used, filled = (sum(f(b) for b in padded.epoch(0)) for f in (lambda b: b["x"].size, lambda b: b["lengths"].sum()))
    assert used < 1.1 * filled


def test_arrays_of_two_axes_and_other_padding():
    examples = dict(x=[[1, 2], [3]], y=[np.ones((2, 3)), np.ones((1, 4))])
    (batch,) = Padded(examples, 2, lengths=None, padding=dict(x=-1))
    assert set(batch) == {"x", "y"}
    order = batch["x"].tolist()
    assert sorted(order) == [[1, 2], [3, -1]]
    assert batch["y"].shape == (2, 2, 4) and batch["y"].sum() == 10
    assert batch["y"][order.index([3, -1])].tolist() == [[1] * 4, [0] * 4]


@pytest.mark.parametrize(
    "examples, batch, message",
    [
        (dict(x=[]), 1, "there are no examples"),
        ({}, 1, "there are no examples"),
        (dict(x=[[1]], y=[1, 2]), 1, "x has 1, y has 2"),
        (dict(x=[[1], []]), 1, "the example 1 of 'x' is empty"),
        (dict(x=[1, 2]), 1, "are numbers, not sequences"),
        (dict(x=[[1], [[1]]]), 1, "have 1 or 2 axes"),
        (dict(x=[[1]]), 0, "batch is 0"),
    ],
)
def test_what_is_refused(examples, batch, message):
    with pytest.raises(gc.GraphcError, match=message):
        Padded(examples, batch)


@gc.model
def mean(x: gc.f64["B", "T"], lengths: gc.i64["B"], k: gc.f64["B"]):
    total = gc.sum(x, axis=1) / gc.cast(lengths, gc.f64)
    return gc.outputs(loss=gc.mean(gc.square(gc.param("w") * total - k)))


def test_training_takes_another_order_each_epoch_and_resumes_to_the_same_bits(tmp_path):
    data = Dataset(train=Padded(dict(x=[e / 100 for e in ragged(40)], k=np.linspace(0, 1, 40)), 4))

    def made():
        return gc.compile(mean, dtype="float64", optimiser=gc.train.SGD(0.1))

    straight, stopped, resumed = made(), made(), made()
    fit(straight, data, epochs=3, seed=5)
    pressed = iter([False] * 13 + [True])
    fit(stopped, data, epochs=3, seed=5, checkpoint=tmp_path / "c", stop=lambda: next(pressed))
    fit(resumed, data, epochs=3, seed=5, checkpoint=tmp_path / "c", resume=True)
    assert straight.params["w"].tobytes() == resumed.params["w"].tobytes()
    orders = [[tuple(b["k"]) for b, _ in Batches(data.train, straight.signature, 1).epoch(5, n)] for n in (0, 1, 0)]
    assert orders[0] == orders[2] != orders[1] and sorted(sum(orders[0], ())) == sorted(sum(orders[1], ()))
