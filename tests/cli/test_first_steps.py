"""What a newcomer may type, and what is then said: names, folders, options, data."""
import keyword
import shutil
import sys

import pytest

import graphc as gc
from graphc.runtime.artifact import checkpoint_of

LINE = '''
import numpy as np
import graphc as gc

training = dict(epochs=2)

@gc.model
def line(x: gc.f32["B", 2], y: gc.f32["B"], *, hidden: int = 4):
    y_hat = gc.sum(gc.nn.linear(x, hidden), axis=1)
    return gc.outputs(y_hat=y_hat, loss=gc.nn.mse(y_hat, y))

def data():
    x = np.random.default_rng(0).uniform(-1, 1, (40, 2))
    return gc.Dataset(train=dict(x=x, y=x[:, 0]))
'''


@pytest.fixture
def line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "line.py").write_text(LINE)
    return tmp_path


def refused(result, text):
    code, out, err = result
    assert code == 2 and out == "" and err == f"error: {text}\n", err


# What is not overwritten

def test_compiling_does_not_replace_what_was_learnt(line, run):
    assert run("compile", "line.py")[0] == run("compile", "line.py")[0] == run("train", "line.py", "--no-plot")[0] == 0
    before = (line / "build" / "line" / "params.safetensors").read_bytes()
    refused(run("compile", "line.py"), "build/line is a trained model, and compiling would replace its parameters\n"
            "  how: give another folder with -o, or remove build/line.checkpoint.safetensors")
    assert (line / "build" / "line" / "params.safetensors").read_bytes() == before
    for writes_nothing in (["--stop-after", "trace"], ["--explain-schedule"], ["-o", "other"]):
        assert run("compile", "line.py", *writes_nothing)[0] == 0
    assert run("train", "line.py", "--no-plot")[0] == 0  # to train again is meant to replace it
    checkpoint_of(line / "build" / "line").unlink()
    assert run("compile", "line.py")[0] == 0


@pytest.mark.parametrize("name", ["random", "json", "numpy", "graphc", "scipy_openblas32", "typer"])
def test_a_model_file_does_not_take_the_name_of_a_module(line, run, name):
    said = f"{name}.py is no name for a model file\n  why: {{}}/{name} would be imported in place of the module {name}\n  how: rename the file, such as my_{name}.py"
    refused(run("new", f"{name}.py"), said.format("build"))
    (line / f"{name}.py").write_text("raise RuntimeError('it is not executed')")
    refused(run("compile", f"{name}.py"), said.format("build"))
    refused(run("train", f"{name}.py", "-o", "out"), said.format("out"))
    assert sorted(p.name for p in line.iterdir()) == sorted(["line.py", f"{name}.py"])


@pytest.mark.parametrize("name", ["lambda.py", "class.py", "my-model.py", "1st.py", "model.txt"])
def test_a_model_file_has_a_name_that_can_be_imported(line, run, name):
    said = (f"{name} is no name for a model file\n  why: the compiled folder is named after it, and is imported by that name\n"
            "  how: choose letters, digits and _, but no keyword, and end it with .py, such as mymodel.py")
    refused(run("new", name), said)
    shutil.copy("line.py", name)
    refused(run("compile", name), said)
    refused(run("train", name), said)
    assert not (line / "build").exists()


def test_no_module_of_python_and_no_keyword_is_taken():
    from pathlib import Path

    from graphc.cli.place import check_name
    for name in (*sys.stdlib_module_names, *keyword.kwlist):
        with pytest.raises(gc.GraphcError):
            check_name(Path(f"{name}.py"))
    for file in (Path(__file__).parents[2] / "models").glob("*.py"):
        check_name(file)


# Folders

def test_a_folder_of_models_is_told_from_a_model(line, run):
    for name in ("one", "two"):
        shutil.copy("line.py", f"{name}.py")
        assert run("compile", f"{name}.py")[0] == 0
    (line / "build" / ".hidden").mkdir()
    (line / "build" / ".hidden" / "manifest.json").write_text("{}")
    refused(run("info", "build"), "build is no compiled model, but holds some: one, two\n  how: give one of them, such as build/two")
    refused(run("compile", "build/one"), "build/one is a folder, not a model file\n  how: graphc info build/one shows a compiled one")
    refused(run("compile", "build"), "build is a folder, not a model file")


def test_where_a_training_was_stopped(line, run):
    assert run("train", "line.py", "--no-plot")[0] == 0
    shutil.rmtree("build/line")
    said = "there is no compiled model at build/line\n  how: its training was stopped: graphc train … --resume finishes it"
    refused(run("predict", "build/line", "--data", "d.csv"), said)
    refused(run("generate", "build/line"), said)
    refused(run("info", "build/other"), "there is no compiled model at build/other\n  how: graphc compile model.py -o build makes build/model")


def test_resuming_what_is_complete(line, run):
    assert run("train", "line.py", "--no-plot", "--epochs", 3)[1].splitlines()[-2].startswith("trained line for 3 epochs: loss ")
    for epochs in ([], ["--epochs", 2]):
        code, out, _ = run("train", "line.py", "--no-plot", "--resume", *epochs)
        first, second, _ = out.splitlines()
        assert code == 0 and first == "the training of 3 epochs is complete: --epochs 23 goes on" and second.startswith("loss ")
    assert "trained line for 4 epochs" in run("train", "line.py", "--no-plot", "--resume", "--epochs", 4)[1]


def test_stages_name_the_file_from_the_current_folder(line, run):
    (line / "below").mkdir()
    shutil.copy("line.py", "below/line.py")
    out = run("compile", "below/line.py", "--stop-after", "trace")[1]
    assert '@ "below/line.py":7' in out and str(line) not in out


# Options

@pytest.mark.parametrize("arguments, said", [
    (["compile", "line.py", "--hiden", "8"], "graphc compile has no option --hiden\n  how: hyperparameters are given as --set hiden=8; graphc compile -h explains it"),
    (["compile", "line.py", "--hiden=8"], "graphc compile has no option --hiden\n  how: hyperparameters are given as --set hiden=8; graphc compile -h explains it"),
    (["info", "line.py", "--hiden", "--json"], "graphc info has no option --hiden\n  how: hyperparameters are given as --set hiden=VALUE; graphc info -h explains it"),
    (["train", "line.py", "--epoch", "3"], "graphc train has no option --epoch\n  how: did you mean --epochs? graphc train -h explains it"),
    (["new", "line.py", "--hiden", "8"], "graphc new has no option --hiden\n  how: graphc new -h explains it"),
    (["train", "line.py", "--optimizer", "adan"], "invalid value for '--optimizer': 'adan' is not one of 'adam', 'adamw', 'sgd'\n  how: graphc train -h explains it"),
    (["train", "line.py", "--epochs", "x"], "invalid value for '--epochs': it must be a valid integer\n  how: graphc train -h explains it"),
    (["train", "line.py", "--epochs", "0"], "invalid value for '--epochs': it must be greater than or equal to 1\n  how: graphc train -h explains it"),
    (["compile"], "missing argument 'MODEL.py'\n  how: graphc compile -h explains it"),
])
def test_wrong_options(line, run, arguments, said):
    refused(run(*arguments), said)


def test_no_command_is_the_help(run):
    code, out, err = run()
    assert code == 2 and "graphc train mymodel.py" in out + err


def test_values_for_a_picture(line, run):
    (line / "m.py").write_text("import graphc as gc\n@gc.model\ndef m(a: gc.f32):\n    return gc.outputs(loss=a * gc.param('w'))\n")
    joint = ["render", "m.py", "--view", "joint", "--input"]
    code, _, err = run(*joint, "aa=3")
    assert code == 2 and "m has no input, parameter or state 'aa'\n  how: did you mean 'a'? there are: a, w" in err
    refused(run(*joint, "a=1", "--input", "w=[3, 2]"), "'w' is declared of shape (), and (2,) is given")


# Data

def test_a_table_whose_header_names_no_vector(line, run):
    (line / "d.csv").write_text("x1,x2,y\n1,2,3\n")
    said = "d.csv:1: no column of d.csv is the input x: f32[B, 2]\n  how: name its columns x[0], x[1]; the file has x1, x2, y"
    refused(run("train", "line.py", "--data", "d.csv"), said)
    (line / "e.csv").write_text("a,b,y\n1,2,3\n")
    refused(run("train", "line.py", "--data", "e.csv"), said.replace("d.csv", "e.csv").replace("x1, x2", "a, b"))
    assert run("compile", "line.py")[0] == 0
    refused(run("predict", "build/line", "--data", "d.csv"), said)
    (line / "f.csv").write_text("x[0],x[1],y\n1,2,3\n4,5,6\n")
    assert run("train", "line.py", "--data", "f.csv", "--no-plot")[0] == 0


@pytest.mark.parametrize("command", ["train", "predict"])
def test_help_says_what_a_table_is(run, command):
    out = " ".join(run(command, "--help")[1].split())
    assert "A .csv has one example a row; its header names the inputs: y for one number a row, x[0], x[1], … for a vector." in out


def test_what_is_given_and_what_is_found_are_told(line, run):
    out = run("explain", "line.py", "--set", "hidden=1", "--wrt", "x")[1]
    assert "A parameter or an input is given, not computed: what its uses give, added up, is its gradient." in out


def test_help_shows_what_works():
    import re

    from graphc.cli import generate, render
    assert set(re.findall(r'--prompt "([^"]*)"', generate.run.__doc__)) == {"12 green bottles", "7 green"}
    assert "graphc render models/lstm_lm.py --view unrolled" in render.run.__doc__
