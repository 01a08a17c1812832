"""The command line, run in this process: what it writes and says, its exit codes."""
import ast
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

import graphc as gc
from graphc.cli import screen
from graphc.cli.options import read_settings
from graphc.cli.source import read
from graphc.pipeline import STAGES

COMMANDS = ("compile", "train", "predict", "info", "new")
MODELS = Path(__file__).parents[2] / "models"
LINE = '''
import numpy as np

import graphc as gc

training = dict(epochs=3, batch_size=8, optimizer="sgd", lr=0.1)


@gc.model
def line(x: gc.f32["B", 2], y: gc.f32["B"], *, power: int = 1, bias: bool = True):
    y_hat = gc.sum(x ** power * gc.param("w", (2,)), axis=1) + (gc.param("b", ()) if bias else 0.0)
    return gc.outputs(y_hat=y_hat, loss=gc.nn.mse(y_hat, y))


def data(rows: int = 40, power: int = 0):
    x = np.random.default_rng(0).uniform(-1, 1, (rows, 2))
    part = dict(x=x, y=x[:, 0] ** power - x[:, 1])
    return gc.Dataset(train=part, valid=part, test=part)
'''


@pytest.fixture
def line(tmp_path, monkeypatch):
    """A model file in the current folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "line.py").write_text(LINE)
    return tmp_path


def ok(result):
    code, out, err = result
    assert code == 0, err
    return out


def refused(result, *facts):
    code, out, err = result
    assert code == 2 and out == "", (code, out, err)
    for fact in facts:
        assert fact in err, err


# Help

@pytest.mark.parametrize("command", COMMANDS)
def test_help_ends_its_text_with_an_example(run, command):
    out = ok(run(command, "--help"))
    text = out[: out.index("Arguments:")]
    assert "Example" in text and f"  graphc {command} " in text[text.index("Example"):]
    assert "--" not in text[: text.index("\n\n")]                      # the first paragraph is plain English


def test_help_names_the_commands_and_the_stages(run):
    out = ok(run("--help"))
    assert all(command in out for command in COMMANDS)
    out = " ".join(ok(run("compile", "--help")).split())
    assert ", ".join(STAGES) in out
    assert gc.__version__ in ok(run("--version"))


def test_wrong_usage_is_exit_code_2(run):
    for arguments in (["compil"], ["compile"], ["compile", "a.py", "--nowhere"], ["train", "a.py", "--epochs", "0"], ["train", "a.py", "--epochs", "x"]):
        code, out, err = run(*arguments)
        assert code == 2 and err and not out


def test_help_loads_no_compiler():
    code = ("import sys; from graphc.cli import main; main(['--help']); main(['train', '--help']);"
            "assert not {'numpy', 'sympy', 'networkx', 'numba', 'rich'} & set(sys.modules)")
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


# Errors

def test_unexpected_errors_are_exit_code_1_with_a_traceback(line):
    code = ("import sys, graphc.cli.source as s; from graphc.cli import main\n"
            "def read(*a): raise RuntimeError('a fault')\ns.read = read\nsys.exit(main(['compile', 'line.py']))")
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 1 and "Traceback" in result.stderr and "a fault" in result.stderr


def test_ctrl_c_is_exit_code_130(line, run, monkeypatch):
    def pressed(*_):
        raise KeyboardInterrupt
    monkeypatch.setattr("graphc.cli.source.read", pressed)
    assert run("compile", "line.py")[0] == 130


def test_settings_are_read_by_the_type_of_their_default():
    defaults = dict(n=1, rate=0.5, bias=True, name="a", sizes=(1, 2), none=None)
    given = ["n=3", "rate=2", "bias=no", "name=3", "sizes=(4, 5)", "none=x=y"]
    assert read_settings(given, defaults) == dict(n=3, rate=2.0, bias=False, name="3", sizes=(4, 5), none="x=y")
    assert type(read_settings(["rate=2"], defaults)["rate"]) is float and read_settings(None, defaults) == {}
    for wrong, fact in {"n=1.5": "int", "bias=maybe": "bool", "rat=1": "'rate'", "n": "n=VALUE", "=3": "NAME=VALUE"}.items():
        with pytest.raises(gc.GraphcError) as error:
            read_settings([wrong], defaults)
        assert fact in str(error.value)
    with pytest.raises(gc.GraphcError, match="2 errors"):
        read_settings(["n=x", "zzz=1"], defaults)


def test_json_has_no_nan():
    assert screen.plain({"a": [1.5, float("nan"), (float("inf"), True)]}) == {"a": [1.5, None, [None, True]]}


# compile

def test_compile(line, run):
    out = ok(run("compile", "line.py", "--set", "power=2"))
    assert "line(x: f32[B, 2], y: f32[B])" in out and "build/line" in out and "kernel" in out
    assert gc.load("build/line").forward(x=np.ones((1, 2), "f4"))["y_hat"].shape == (1,)
    facts = json.loads(ok(run("compile", "line.py", "--json", "-o", "other", "--set", "bias=false", "--dtype", "float64")))
    assert facts["folder"] == "other/line" and facts["kernels"] >= 1
    m = gc.load("other/line")
    assert set(m.params) == {"w"} and m.params["w"].dtype == np.float64


def test_compile_stops_after_a_stage_and_writes_nothing(line, run):
    for stage in STAGES:
        for program in ("forward", "gradient", "step"):
            out = ok(run("compile", "line.py", "--stop-after", stage, "--program", program))
            assert ("optimiser/lr" in out or "optimiser_lr" in out) == (program == "step"), (stage, program)
    assert "grad:w" in ok(run("compile", "line.py", "--stop-after", "optimise"))
    ast.parse(ok(run("compile", "line.py", "--stop-after", "codegen")))
    assert [p.name for p in line.iterdir() if p.name != "__pycache__"] == ["line.py"]


# train

def test_train_with_the_settings_of_the_file(line, run):
    facts = json.loads(ok(run("train", "line.py", "--json")))
    assert [e["epoch"] for e in facts["history"]] == [1, 2, 3] and set(facts["test"]) == {"loss"}
    assert facts["settings"]["optimizer"] == "sgd" and facts["settings"]["lr"] == 0.1
    assert facts["history"][-1]["valid"]["loss"] < facts["history"][0]["valid"]["loss"]
    assert facts["test"] == facts["history"][-1]["valid"]
    assert {p.name for p in (line / "build").iterdir()} >= {"line", "line.checkpoint.safetensors"}
    m = gc.load("build/line")
    np.testing.assert_allclose(m.forward(x=np.zeros((1, 2), "f4"))["y_hat"], m.params["b"], rtol=1e-6)


def test_train_says_what_it_did(line, run):
    out = ok(run("train", "line.py", "--epochs", 2))
    assert "epoch 2/2" in out and "valid" in out and "on the test data" in out and "build/line" in out


def test_train_draws_the_curve_or_says_what_is_missing(line, run, monkeypatch):
    pytest.importorskip("matplotlib")
    ok(run("train", "line.py", "--epochs", 1, "--no-plot"))
    assert not (line / "build" / "line.png").exists()
    assert "build/line.png" in ok(run("train", "line.py", "--epochs", 1))
    assert (line / "build" / "line.png").exists()
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    code, _, err = run("train", "line.py", "--epochs", 1)
    assert code == 0 and "pip install -e '.[plot]' in graphc's folder" in err


def test_what_model_and_data_both_name_is_one_setting(line):
    source = read(Path("line.py"), None, ["power=2", "rows=9"])
    assert source.hyperparameters == {"power": 2} and source.data_options == {"power": 2, "rows": 9}
    assert read(Path("line.py")).data_options == {"power": 1, "rows": 40}       # the model's default, not that of data()


def test_resuming_goes_on_with_the_settings_of_the_checkpoint(line, run):
    arguments = ["train", "line.py", "--no-plot", "--seed", 3, "--batch-size", 7, "--set", "power=3", "--set", "rows=30", "--optimizer", "adam", "--lr", "0.01"]
    ok(run(*arguments, "--epochs", 5, "-o", "whole"))
    ok(run(*arguments, "--epochs", 2))
    ok(run("train", "line.py", "--no-plot", "--epochs", 5, "--resume"))
    one, two = gc.load("whole/line").params, gc.load("build/line").params
    assert {n: a.tobytes() for n, a in one.items()} == {n: a.tobytes() for n, a in two.items()}
    for wrong, fact in ((["--seed", 4], "--seed 3"), (["--optimizer", "sgd"], "adam"), (["--set", "power=2"], "power=3"), (["--batch-size", 8], "7"),
                        (["--dtype", "float64"], "float32")):
        refused(run("train", "line.py", "--resume", *wrong), fact, "without --resume")
    facts = json.loads(ok(run("train", "line.py", "--no-plot", "--epochs", 6, "--resume", "--lr", "0.5", "--json")))
    assert facts["settings"]["lr"] == 0.5 and facts["settings"]["seed"] == 3 and len(facts["history"]) == 6


@pytest.fixture
def interruptible():
    """Ctrl-C as Python begins with it: a shell's background job inherits that it is ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_while_training_leaves_a_checkpoint_to_resume(line, run):
    ok(run("train", "line.py", "--epochs", 30, "-o", "whole", "--no-plot"))
    path = line / "build" / "line.checkpoint.safetensors"

    def press():
        deadline = time.monotonic() + 30
        while not path.exists() and time.monotonic() < deadline:
            time.sleep(0.001)
        os.kill(os.getpid(), signal.SIGINT)
    threading.Thread(target=press).start()
    code, _, err = run("train", "line.py", "--epochs", 100000, "--no-plot")
    assert code == 130 and "--resume" in err and "Traceback" not in err
    assert not (line / "build" / "line").exists() and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    done = len(gc.train.Checkpoint.load(path).history)
    ok(run("train", "line.py", "--resume", "--epochs", max(done, 30), "--no-plot"))
    if done <= 30:
        one, two = gc.load("whole/line").params, gc.load("build/line").params
        assert {n: a.tobytes() for n, a in one.items()} == {n: a.tobytes() for n, a in two.items()}


def test_what_cannot_be_trained(line, run):
    def of(text, *facts, options=()):
        (line / "bad.py").write_text(text)
        refused(run("train", "bad.py", *options), *facts)
        assert not (line / "build").exists()
    of(LINE.replace("epochs=3", "epoch=3"), "'epoch'", "epochs")
    of(LINE.replace('"sgd"', '"sdg"'), "sdg")
    of(LINE.replace("return gc.Dataset", "return dict"), "data()", "gc.Dataset")
    of(LINE.replace("    part =", "    1 / 0\n    part ="), "bad.py:17", "ZeroDivisionError")
    of(LINE.partition("def data")[0], "no data()", "--data")
    of(LINE + LINE.partition("\n\n\n")[2].replace("def line", "def other"), "line, other", "--model")
    of(LINE.replace("loss=", "cost="), "loss")
    of(LINE, "momentum", options=("--optimizer", "adam", "--momentum", 0.9))
    of(LINE, "lr", options=("--lr", -1))
    refused(run("train", "line.py", "--resume"), "checkpoint")
    (line / "build" / "line").mkdir(parents=True)
    (line / "build" / "line" / "notes").write_text("mine")
    refused(run("train", "line.py"), "build/line", "no compiled model")


# predict, info, new

@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A compiled folder that tests leave alone."""
    folder = tmp_path_factory.mktemp("built")
    (folder / "line.py").write_text(LINE)
    return gc.compile(folder / "line.py").save(folder / "build")


def test_predict(built, line, run):
    (line / "d.csv").write_text("x[0],x[1]\n1,2\n3,4\n")
    want = gc.load(built).forward(x=np.array([[1, 2], [3, 4]], "f4"))["y_hat"]
    facts = json.loads(ok(run("predict", built, "--data", "d.csv", "--json", "-o", "out.npz")))
    assert list(facts["outputs"]) == ["y_hat"] and facts["outputs"]["y_hat"] == pytest.approx(want.tolist())
    np.testing.assert_array_equal(np.load("out.npz")["y_hat"], want)
    out = ok(run("predict", built, "--data", "d.csv"))
    assert "y_hat [2]" in out
    np.savez("many.npz", x=np.zeros((50, 2)), y=np.zeros(50))
    out = ok(run("predict", built, "--data", "many.npz"))
    assert "loss = " in out and "of 50 rows" in out


def test_predict_with_what_does_not_fit(built, line, run):
    (line / "y.csv").write_text("y\n1\n")
    refused(run("predict", built, "--data", "y.csv"), "x: f32[B, 2]")
    refused(run("predict", built, "--data", "absent.npz"), "absent.npz")
    refused(run("predict", "absent", "--data", "y.csv"), "absent")
    (line / "d.csv").write_text("x[0],x[1]\n1,2\n")
    refused(run("predict", built, "--data", "d.csv", "--model", "other"), "other", "line")
    refused(run("predict", built, "--data", "d.csv", "-o", "no/such/out.npz"), "no/such")
    refused(run("predict", built, "--data", "d.csv", "-o", "out.txt"), ".npz")


def test_info_of_a_folder_and_of_a_file(built, line, run):
    of_folder, of_file = (json.loads(ok(run("info", path, "--json"))) for path in (built, "line.py"))
    for key in ("models", "parameters", "parameter_count"):
        assert of_folder[key] == of_file[key]
    assert of_folder["parameter_count"] == 3 and of_folder["versions"]["numpy"] == np.__version__
    assert of_file["models"]["line"]["inputs"][0] == {"name": "x", "dtype": "float32", "shape": ["B", 2]}
    assert json.loads(ok(run("info", "line.py", "--json", "--set", "bias=0")))["parameter_count"] == 2
    out = ok(run("info", built))
    for fact in ("x: float32[B, 2]", "power = 1", "3 numbers in 2 parameters", "y_hat", "numpy"):
        assert fact in out
    assert not (line / "build").exists()


def test_new_writes_a_model_that_learns(line, run):
    ok(run("new", "mine.py"))
    facts = json.loads(ok(run("train", "mine.py", "--json", "--no-plot", "--epochs", 20)))
    assert facts["history"][-1]["valid"]["accuracy"] > 0.95
    refused(run("new", "mine.py"), "exists")
    refused(run("new", "my-model.py"), "my-model.py", "imported")
    refused(run("new", "mine.txt"), ".py")
    refused(run("new", "no/such/mine.py"), "no/such")


# The first models

@pytest.mark.parametrize("seed", range(3))
def test_xor_is_learnt(line, run, seed):
    facts = json.loads(ok(run("train", MODELS / "xor.py", "--json", "--no-plot", "--seed", seed)))
    assert facts["history"][-1]["train"]["loss"] < 1e-3


def test_xor_has_exact_weights():
    m = gc.compile(MODELS / "xor.py", hidden=2)
    for name, value in {"hidden/W": [[1, 1], [1, 1]], "hidden/b": [0, -1], "out/W": [[1], [-2]], "out/b": [0]}.items():
        m.params[name] = value
    x = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], "f4")
    assert m.forward(x=x)["y_hat"].ravel().tolist() == [0, 1, 1, 0]


def test_digits_are_learnt(line, run):
    pytest.importorskip("sklearn")
    facts = json.loads(ok(run("train", MODELS / "digits.py", "--json", "--no-plot", "--epochs", 10)))
    assert facts["history"][-1]["valid"]["accuracy"] > 0.93


def test_digits_say_what_they_need(line, run, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    refused(run("train", MODELS / "digits.py"), "scikit-learn", "pip install -e '.[data]' in graphc's folder")
