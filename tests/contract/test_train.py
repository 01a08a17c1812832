"""`graphc train` on tiny data: what it learns, what it repeats bit for bit, what it leaves behind when it is stopped."""
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import safetensors.numpy

import graphc as gc

from .helpers import ENVIRONMENT, cli, documents, numbers_under, option, snapshot, takes_value

LINE = '''
"""A line through points, with data of its own."""
import numpy as np

import graphc as gc


@gc.model
def line(x: gc.f32["B"], t: gc.f32["B"], y: gc.f32["B"]):
    y_hat = gc.param("a", ()) * x + gc.param("b", ()) * t + gc.param("c", ())
    return gc.outputs(y_hat=y_hat, loss=gc.nn.mse(y_hat, y))


def data(n: int = 203):
    rng = np.random.default_rng(0)
    x, t = rng.standard_normal((2, n)).astype(np.float32)
    y = (2 * x - t + 0.5 + 0.1 * rng.standard_normal(n)).astype(np.float32)
    first = dict(x=x[:-40], t=t[:-40], y=y[:-40])
    return gc.Dataset(train=first, valid=dict(x=x[-40:], t=t[-40:], y=y[-40:]))
'''
DEEP = '''
"""Random weights, a state and no data of its own."""
import graphc as gc


@gc.model
def deep(x: gc.f32["B", 3], y: gc.i64["B"]):
    calls = gc.state("calls", ())
    gc.update(calls, calls + 1)
    h = gc.tanh(gc.nn.linear(x, 8, name="one"))
    z = gc.nn.linear(h, 2, name="two")
    return gc.outputs(p=gc.softmax(z, axis=-1), calls=calls, loss=gc.nn.cross_entropy(z, y))
'''


def npz(path, n=301):
    rng = np.random.default_rng(1)
    x = rng.standard_normal((n, 3)).astype(np.float32)
    np.savez(path, x=x, y=(x.sum(1) > 0).astype(np.int64))
    return path


def write(folder, text, name):
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.py").write_text(text)
    return folder / f"{name}.py"


def settings(epochs, seed=0, batch=16, optimizer="adam", rate=0.02):
    return ["--epochs", epochs, option("train", "--seed"), seed, option("train", "--batch-size", "--batch"), batch,
            option("train", "--optimizer", "--optimiser", "--opt"), optimizer, option("train", "--lr", "--learning-rate", "--rate"), rate]


def train(path, folder, *arguments, code=0):
    folder.mkdir(exist_ok=True)
    result = cli("train", path, *arguments, cwd=folder)
    assert result.returncode == code, result.stderr + result.stdout
    return result


def parameters(folder):
    """The trained parameters, read as the artifact that the training leaves under its folder."""
    return {k: np.array(v) for k, v in gc.load(str(artifact(folder))).params.items()}


def artifact(folder):
    (found,) = {p.parent for p in folder.rglob("manifest.json") if "checkpoint" not in str(p.relative_to(folder))}
    return found


def equal(one, other):
    assert set(one) == set(other)
    for name in one:
        assert one[name].tobytes() == other[name].tobytes(), name


def resume(folder):
    """`--resume` as a flag, or with the checkpoint that the folder holds where the help says that it takes one."""
    if not takes_value("train", "--resume"):
        return ["--resume"]
    found = [p for p in folder.rglob("*") if "checkpoint" in str(p.relative_to(folder)) or "ckpt" in str(p.relative_to(folder))]
    return ["--resume", max(found, key=lambda p: p.stat().st_mtime)]


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """One uninterrupted run of six epochs with Adam."""
    folder = tmp_path_factory.mktemp("straight")
    path, data = write(folder, DEEP, "deep"), npz(folder / "d.npz")
    result = train(path, folder, "--data", data, "--json", *settings(6))
    return folder, result


def test_it_learns_from_the_data_of_the_model_file(tmp_path):
    path = write(tmp_path, LINE, "line")
    train(path, tmp_path, *settings(30, rate=0.05))
    p = parameters(tmp_path)
    np.testing.assert_allclose([p["a"], p["b"], p["c"]], [2, -1, 0.5], atol=0.1)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_every_optimiser_learns(tmp_path, optimizer):
    path = write(tmp_path, LINE, "line")
    train(path, tmp_path, *settings(20, optimizer=optimizer, rate=0.05))
    p = parameters(tmp_path)
    np.testing.assert_allclose([p["a"], p["b"], p["c"]], [2, -1, 0.5], atol=0.15)


def test_metrics_in_json(straight):
    _, result = straight
    found = documents(result.stdout)
    losses = [value for document in found for value in numbers_under(document, "loss")]
    assert len(losses) >= 6 and np.isfinite(losses).all() and losses[-1] < 0.8 * losses[0], result.stdout
    for text in (json.dumps(d) for d in found):
        assert "NaN" not in text and "Infinity" not in text


def test_validation_metrics(tmp_path):
    path = write(tmp_path, LINE, "line")
    result = train(path, tmp_path, "--json", *settings(3))
    values = [v for d in documents(result.stdout) for v in numbers_under(d, "val")]
    assert len(values) >= 3 and np.isfinite(values).all(), result.stdout
    curve = [p for p in tmp_path.rglob("*") if p.suffix in {".png", ".svg", ".pdf"}]
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        assert "matplotlib" in result.stderr + result.stdout or not curve
    else:
        assert curve, "no loss curve was drawn"


def test_equal_seeds_give_equal_bits(straight, tmp_path):
    folder, _ = straight
    train(folder / "deep.py", tmp_path / "a", "--data", folder / "d.npz", *settings(6))
    equal(parameters(tmp_path / "a"), parameters(folder))
    train(folder / "deep.py", tmp_path / "b", "--data", folder / "d.npz", *settings(6, seed=1))
    other = parameters(tmp_path / "b")
    assert any((other[k] != v).any() for k, v in parameters(folder).items())


def test_resumed_training_equals_uninterrupted_training(straight, tmp_path):
    folder, _ = straight
    for epochs, again in ((2, False), (3, True), (6, True)):
        train(folder / "deep.py", tmp_path, "--data", folder / "d.npz", *settings(epochs), *(resume(tmp_path) if again else []))
    equal(parameters(tmp_path), parameters(folder))


def test_resumed_training_keeps_the_momentum_of_sgd(tmp_path):
    path, data = write(tmp_path, DEEP, "deep"), npz(tmp_path / "d.npz", 100)
    momentum = [option("train", "--momentum"), 0.9]
    one, two = tmp_path / "one", tmp_path / "two"
    train(path, one, "--data", data, *settings(4, optimizer="sgd"), *momentum)
    train(path, two, "--data", data, *settings(2, optimizer="sgd"), *momentum)
    train(path, two, "--data", data, *settings(4, optimizer="sgd"), *momentum, *resume(two))
    equal(parameters(one), parameters(two))


def test_the_trained_folder_predicts(straight):
    folder, _ = straight
    found = artifact(folder)
    d = np.load(folder / "d.npz")
    p = gc.load(str(found)).forward(x=d["x"])["p"]
    assert (p.argmax(1) == d["y"]).mean() > 0.9
    for path in found.rglob("*"):
        assert path.suffix not in {".pkl", ".pickle", ".nbi", ".nbc"}, path


def test_csv_by_column_names(tmp_path):
    path = write(tmp_path, LINE.split("def data")[0], "line")
    rng = np.random.default_rng(2)
    x, t = rng.standard_normal((2, 150))
    rows = ["y,x,t", *(f"{2 * a - b + 0.5:.6f},{a:.6f},{b:.6f}" for a, b in zip(x, t, strict=True))]
    (tmp_path / "d.csv").write_text("\n".join(rows) + "\n")
    train(path, tmp_path, "--data", tmp_path / "d.csv", *settings(40, rate=0.05))
    p = parameters(tmp_path)
    np.testing.assert_allclose([p["a"], p["b"], p["c"]], [2, -1, 0.5], atol=0.1)


def test_a_csv_that_does_not_fit(tmp_path):
    path = write(tmp_path, LINE.split("def data")[0], "line")
    (tmp_path / "d.csv").write_text("x,t\n1,2\n")
    result = train(path, tmp_path, "--data", tmp_path / "d.csv", "--epochs", 1, code=2)
    assert "y" in result.stderr and "Traceback" not in result.stderr
    (tmp_path / "d.csv").write_text("x,t,y\n1,2,3\n4,five,6\n")
    result = train(path, tmp_path, "--data", tmp_path / "d.csv", "--epochs", 1, code=2)
    assert "five" in result.stderr and "Traceback" not in result.stderr
    train(write(tmp_path, DEEP, "deep"), tmp_path, "--epochs", 1, code=2)   # no data at all


def test_data_of_one_row_and_a_batch_larger_than_the_data(tmp_path):
    path = write(tmp_path, DEEP, "deep")
    train(path, tmp_path, "--data", npz(tmp_path / "d.npz", 1), *settings(2, batch=64))
    assert all(np.isfinite(v).all() for v in parameters(tmp_path).values())


def launch(path, folder, *arguments):
    folder.mkdir(exist_ok=True)
    return subprocess.Popen([sys.executable, "-m", "graphc", "train", str(path), *map(str, arguments)], cwd=folder, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, text=True, env={**os.environ, **ENVIRONMENT}, stdin=subprocess.DEVNULL,
                            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))   # a shell's background job ignores it


def wait_for_a_checkpoint(process, folder, seconds=60):
    """Until a file of parameters or a checkpoint lies in the folder, or the process has ended."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and process.poll() is None:
        names = [str(p.relative_to(folder)) for p in folder.rglob("*")]
        if any("checkpoint" in name or "ckpt" in name or name.endswith(".safetensors") for name in names):
            return True
        time.sleep(0.005)
    return False


def test_a_killed_run_leaves_a_whole_checkpoint(tmp_path):
    path, data = write(tmp_path, DEEP, "deep"), npz(tmp_path / "d.npz", 640)
    arguments = ["--data", data, *settings(120, batch=16)]
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    train(path, whole, *arguments)
    process = launch(path, cut, *arguments)
    seen = wait_for_a_checkpoint(process, cut)
    time.sleep(0.1)
    process.kill()
    process.communicate()
    assert seen, "no checkpoint appeared while it trained"
    for file in cut.rglob("*.safetensors"):
        safetensors.numpy.load_file(file)
    train(path, cut, *arguments, *resume(cut))
    equal(parameters(cut), parameters(whole))


def test_ctrl_c_saves_and_says_how_to_go_on(tmp_path):
    path, data = write(tmp_path, DEEP, "deep"), npz(tmp_path / "d.npz", 64)
    process = launch(path, tmp_path, "--data", data, *settings(1000000))
    seen = wait_for_a_checkpoint(process, tmp_path)
    process.send_signal(signal.SIGINT)
    try:
        out, err = process.communicate(timeout=30)
    finally:
        process.kill()
    assert seen and process.returncode not in (0, None, -signal.SIGKILL), (seen, process.returncode, out, err)
    assert "Traceback" not in err and "--resume" in out + err
    files = list(tmp_path.rglob("*.safetensors"))
    assert files
    for file in files:
        safetensors.numpy.load_file(file)


def test_resuming_with_nothing_to_resume(tmp_path):
    path, data = write(tmp_path, DEEP, "deep"), npz(tmp_path / "d.npz", 20)
    if takes_value("train", "--resume"):
        result = train(path, tmp_path, "--data", data, "--epochs", 1, "--resume", tmp_path / "absent", code=2)
    else:
        result = train(path, tmp_path, "--data", data, "--epochs", 1, "--resume", code=2)
    assert "checkpoint" in result.stderr and "Traceback" not in result.stderr


def test_failed_training_leaves_the_earlier_result(tmp_path):
    path, data = write(tmp_path, DEEP, "deep"), npz(tmp_path / "d.npz", 40)
    train(path, tmp_path, "--data", data, *settings(1))
    found = artifact(tmp_path)
    before = snapshot(found)
    np.savez(tmp_path / "bad.npz", x=np.zeros((4, 9), np.float32), y=np.zeros(4, np.int64))
    train(path, tmp_path, "--data", tmp_path / "bad.npz", *settings(1), code=2)
    assert snapshot(found) == before
