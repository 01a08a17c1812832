"""The training loop: averages, validation, checkpoints, resuming to the same bits."""
import numpy as np
import pytest

import graphc as gc
from graphc.train import SGD, Adam, Batches, Checkpoint, Dataset, Epoch, draw_curve, evaluate, fit

RNG = np.random.default_rng(0)
X = RNG.standard_normal((50, 3)).astype(np.float32)
Y = (X.sum(1) > 0).astype(np.int64)
DATA = Dataset(train=dict(x=X, y=Y), valid=dict(x=X[:7], y=Y[:7]))


@gc.model
def net(x: gc.f32["B", 3], y: gc.i64["B"]):
    calls = gc.state("calls", ())
    gc.update(calls, calls + 1)
    seen = gc.param("seen", (), trainable=False)     # a learning rule of the model's own
    gc.update(seen, seen + 1)
    z = gc.nn.linear(gc.tanh(gc.nn.linear(x, 6, name="one")), 2, name="two")
    return gc.outputs(z=z, loss=gc.nn.cross_entropy(z, y), accuracy=gc.mean(gc.equal(gc.argmax(z, axis=-1), y)))


@pytest.fixture(scope="module")
def compiled():
    """Compiled once; `model` takes it back to its beginning."""
    m = gc.compile(net, optimiser=Adam(0.02))
    return m, {n: p.copy() for n, p in m.params.items()}


@pytest.fixture
def model(compiled):
    m, beginning = compiled
    return begin(m, beginning)


def begin(m, beginning):
    for name, value in beginning.items():
        m.params[name] = value
    m.reset()
    return m


def everything(m):
    return {n: a.tobytes() for n, a in [*m.params.items(), *m.states.items()]}


def test_it_learns_and_keeps_the_history(model):
    seen = []
    result = fit(model, DATA, epochs=8, batch_size=16, on_epoch=lambda n, e: seen.append((n, e)))
    assert result.finished and len(result.history) == 8 and seen == list(enumerate(result.history))
    first, last = result.history[0], result.history[-1]
    assert last.train["loss"] < 0.7 * first.train["loss"] and set(last.train) == set(last.valid) == {"loss", "accuracy"}


def test_every_row_is_used_the_last_small_batch_too(model):
    seen = []
    fit(model, DATA, epochs=2, batch_size=16, on_batch=lambda *a: seen.append(a[:3]))
    assert seen == [(e, b, 4) for e in range(2) for b in range(1, 5)]
    assert model.states["calls"] == 8 and model.params["seen"] == 8


def test_means_are_weighted_by_rows(model):
    got = evaluate(model, Batches(DATA.train, model.signature, 16))
    out = model.forward(x=X, y=Y)
    assert got["loss"] == pytest.approx(float(out["loss"]), rel=1e-6) and got["accuracy"] == pytest.approx(float(out["accuracy"]))


def test_the_training_mean_is_that_of_the_steps(model):
    (epoch,) = fit(model, Dataset(train=[dict(x=X[:30], y=Y[:30]), dict(x=X[30:], y=Y[30:])]), epochs=1).history
    assert epoch.train["loss"] == pytest.approx(0.69, abs=0.4) and epoch.valid == {}


def test_evaluation_leaves_the_model_as_it_was(model):
    fit(model, Dataset(train=DATA.train), epochs=1)
    before = everything(model)
    evaluate(model, Batches(DATA.train, model.signature, 16))
    assert everything(model) == before


def stopper(after):
    """A `stop` that ends the training after some batches."""
    left = [after]

    def stop():
        left[0] -= 1
        return left[0] <= 0
    return stop


@pytest.mark.parametrize("after", [1, 3, 4, 6])
def test_a_stopped_training_resumes_to_the_same_bits(compiled, tmp_path, after):
    whole = fit(begin(*compiled), DATA, epochs=3, batch_size=16, seed=5)
    want = everything(compiled[0])
    path = tmp_path / "c.safetensors"
    cut = fit(begin(*compiled), DATA, epochs=3, batch_size=16, seed=5, checkpoint=path, stop=stopper(after))
    assert not cut.finished and everything(compiled[0]) != want
    again = fit(begin(*compiled), DATA, epochs=3, batch_size=16, seed=5, checkpoint=path, resume=True)
    assert again.finished and everything(compiled[0]) == want
    assert [(e.train, e.valid) for e in again.history] == [(e.train, e.valid) for e in whole.history]


def test_resuming_twice_and_for_more_epochs(compiled, tmp_path):
    fit(begin(*compiled), DATA, epochs=5, batch_size=16)
    want = everything(compiled[0])
    for epochs in (2, 3, 3, 5):
        fit(begin(*compiled), DATA, epochs=epochs, batch_size=16, checkpoint=tmp_path / "c", resume=epochs > 2)
    assert everything(compiled[0]) == want


def test_a_new_learning_rate_on_resuming(compiled, tmp_path):
    m = begin(*compiled)
    fit(m, DATA, epochs=1, checkpoint=tmp_path / "c")
    assert m.states["optimiser/lr"] == np.float32(0.02)
    fit(begin(*compiled), DATA, epochs=2, checkpoint=tmp_path / "c", resume=True, lr=0.5)
    assert m.states["optimiser/lr"] == 0.5
    fit(begin(*compiled), DATA, epochs=2, checkpoint=tmp_path / "c", resume=True)
    assert m.states["optimiser/lr"] == 0.5


def test_a_checkpoint_is_one_whole_file_and_comes_back(model, tmp_path):
    result = fit(model, DATA, epochs=2, checkpoint=tmp_path / "a" / "c", settings={"epochs": 2, "hidden": 6})
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["c"]
    stored = Checkpoint.load(tmp_path / "a" / "c")
    assert stored.history == result.history and stored.settings == {"epochs": 2, "hidden": 6} and stored.batch == 0


def test_checkpoints_that_do_not_fit(model, tmp_path):
    def resume(path):
        return lambda: fit(model, DATA, epochs=2, checkpoint=path, resume=True)

    def refuses(f, *facts):
        before = everything(model)
        with pytest.raises(gc.GraphcError) as error:
            f()
        assert all(fact in str(error.value) for fact in facts), str(error.value)
        assert everything(model) == before
    refuses(resume(tmp_path / "absent"), "checkpoint", "absent")
    refuses(resume(None), "checkpoint")
    (tmp_path / "none").write_bytes(b"no checkpoint")
    refuses(resume(tmp_path / "none"), "none")
    model.save_params(tmp_path / "params")
    refuses(resume(tmp_path / "params"), "params", "none that graphc wrote")
    other = gc.compile(net, optimiser=SGD())
    fit(other, DATA, epochs=1, checkpoint=tmp_path / "other")
    refuses(resume(tmp_path / "other"), "optimiser/one/W/m")
    whole = (tmp_path / "other").read_bytes()
    (tmp_path / "cut").write_bytes(whole[:-100])
    refuses(resume(tmp_path / "cut"), "cut")


def test_a_folder_that_cannot_be_written_is_found_before_the_work(model, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(gc.GraphcError, match="file"):
        fit(model, DATA, checkpoint=tmp_path / "file" / "c")
    assert model.states["calls"] == 0


def test_a_loss_that_is_no_number_ends_the_training(model):
    with pytest.raises(gc.GraphcError, match="epoch 1, batch 1"):
        fit(model, Dataset(train=dict(x=X * np.nan, y=Y)), epochs=2)


def test_models_without_a_loss_or_an_optimiser():
    @gc.model
    def none(x: gc.f32["B", 3]):
        return gc.outputs(y=x * gc.param("w", (3,)))
    with pytest.raises(gc.GraphcError, match="loss"):
        fit(gc.compile(none), DATA)
    with pytest.raises(gc.GraphcError, match="optimiser"):
        fit(gc.compile(net), DATA)


def test_the_curve(tmp_path):
    pytest.importorskip("matplotlib")
    history = [Epoch({"loss": 1 / n}, {"loss": 2 / n} if n % 2 else {}, 0.1) for n in range(1, 60)]
    assert draw_curve(history, tmp_path / "c.png", "title").read_bytes().startswith(b"\x89PNG")
    assert draw_curve(history[:1], tmp_path / "c.png") and [p.name for p in tmp_path.iterdir()] == ["c.png"]
    with pytest.raises(gc.GraphcError, match="written"):
        draw_curve(history, tmp_path / "absent" / "c.png")


# -- several models ----------------------------------------------------------------------------------------------------
@gc.model
def teacher(x: gc.f32["B", 3], y: gc.i64["B"]):
    return gc.outputs(loss=gc.nn.cross_entropy(gc.nn.linear(x, 2, name="one"), y))


@gc.model
def user(x: gc.f32["B", 3]):
    return gc.outputs(p=gc.softmax(gc.nn.linear(x, 2, name="one")))


def test_of_several_models_the_one_with_a_loss_learns(tmp_path):
    m = gc.compile(teacher, user, optimiser=Adam(0.1))
    history = fit(m, DATA, epochs=3).history
    assert history[-1].train["loss"] < history[0].train["loss"]
    p = m.user.forward(X)["p"]
    assert np.mean(p.argmax(1) == Y) > 0.8, "they share their parameters"
    loaded = gc.load(m.save(tmp_path))
    np.testing.assert_allclose(loaded.user.forward(X)["p"], p, rtol=1e-6)


def test_of_several_that_learn_one_must_be_named():
    @gc.model
    def other(x: gc.f32["B", 3], y: gc.i64["B"]):
        return gc.outputs(loss=gc.nn.cross_entropy(gc.nn.linear(x, 2, name="two"), y))

    m = gc.compile(teacher, other, optimiser=Adam(0.1))
    with pytest.raises(gc.GraphcError, match=r"(?s)holds several models: teacher, other.*entry=NAME"):
        fit(m, DATA, epochs=1)
    with pytest.raises(gc.GraphcError, match="holds no model 'third'"):
        fit(m, DATA, epochs=1, entry="third")
    before = m.params["one/W"].copy()
    fit(m, DATA, epochs=1, entry="other")
    np.testing.assert_array_equal(m.params["one/W"], before)
