"""What bad input gets: an error that says what, where, why and how to mend it; at the command line exit code 2 and nothing half-written."""
import re

import numpy as np
import pytest
import safetensors.numpy

import graphc as gc

from .helpers import cli, option, snapshot

HEADER = "import graphc as gc\nimport numpy as np\n\n\n"


def write(folder, body, name="bad"):
    path = folder / f"{name}.py"
    path.write_text(HEADER + body)
    return path


def line(path, mark="HERE"):
    """`file:line` of the line with the mark."""
    number = next(i for i, text in enumerate(path.read_text().splitlines(), 1) if f"# {mark}" in text)
    return f"{path.name}:{number}"


def holds(text, *facts):
    """Each fact stands in the text, numbers and names as words of their own; the text says more than the bare fact."""
    missing = [f for f in map(str, facts) if not re.search(rf"(?<![\w]){re.escape(f)}(?![\w])", text)]
    assert not missing, f"{missing} not in: {text}"


def without_place(text, path):
    """The text without the folder and without line numbers, so that a number in it is a fact."""
    return re.sub(rf"{re.escape(path.name)}:\d+(:\d+)?", "", text.replace(str(path.parent), ""))


def refused(path, *facts, mark="HERE", **options):
    """Compiling the file is an error with its place and these facts."""
    with pytest.raises(gc.GraphcError) as error:
        gc.compile(str(path), **options)
    text = str(error.value)
    if mark:
        assert re.search(rf"{re.escape(line(path, mark))}(?!\d)", text), text
    holds(without_place(text, path), *facts)
    return text


# Shapes, in the model

SHAPES = {
    "matmul": ('@gc.model\ndef bad(x: gc.f32["B", 3]):\n    w = gc.param("w", (4, 2))\n    return gc.outputs(y=x @ w)  # HERE\n', (3, 4)),
    "add": ('@gc.model\ndef bad(x: gc.f32["B", 3]):\n    w = gc.param("w", (5,))\n    y = x + w  # HERE\n    return gc.outputs(y=y)\n', (3, 5)),
    "concat": ('@gc.model\ndef bad(x: gc.f32[2, 3], y: gc.f32[2, 4]):\n    z = gc.concat([x, y], axis=0)  # HERE\n    return gc.outputs(z=z)\n', (3, 4)),
    "reshape": ('@gc.model\ndef bad(x: gc.f32[2, 7]):\n    z = gc.reshape(x, (5, 3))  # HERE\n    return gc.outputs(z=z)\n', (2, 7, 5, 3)),
    "split": ('@gc.model\ndef bad(x: gc.f32["B", 7]):\n    z = gc.split(x, 3, axis=1)  # HERE\n    return gc.outputs(z=z[0])\n', (7, 3)),
    "axis": ('@gc.model\ndef bad(x: gc.f32["B", 7]):\n    z = gc.sum(x, axis=5)  # HERE\n    return gc.outputs(z=z)\n', (5,)),
    "einsum": ('@gc.model\ndef bad(x: gc.f32[2, 3]):\n    z = gc.einsum("ij,jk->ik", x, gc.param("w", (6, 9)))  # HERE\n    return gc.outputs(z=z)\n', (3, 6)),
    "broadcast": ('@gc.model\ndef bad(x: gc.f32[2, 3]):\n    z = gc.broadcast_to(x, (4, 3))  # HERE\n    return gc.outputs(z=z)\n', (2, 4)),
    "index": ('@gc.model\ndef bad(x: gc.f32["B", 3]):\n    z = x[:, 8]  # HERE\n    return gc.outputs(z=z)\n', (8, 3)),
    "too many indices": ('@gc.model\ndef bad(x: gc.f32["B", 3]):\n    z = x[0, 0, 0]  # HERE\n    return gc.outputs(z=z)\n', (2, 3)),
    "where": ('@gc.model\ndef bad(x: gc.f32[5], y: gc.f32[6]):\n    z = gc.where(x > 0, x, y)  # HERE\n    return gc.outputs(z=z)\n', (5, 6)),
    "in a layer": ('@gc.model\ndef bad(x: gc.f32["B", 3], y: gc.f32["B", 4]):\n    z = gc.nn.mse(x, y)  # HERE\n    return gc.outputs(loss=z)\n', (3, 4)),
    "in a function": ('def inner(x):\n    return x @ gc.param("w", (4, 2))  # HERE\n\n\n@gc.model\ndef bad(x: gc.f32["B", 3]):\n    return gc.outputs(y=inner(x))\n', (3, 4)),
}


@pytest.mark.parametrize("name", SHAPES)
def test_a_shape_mismatch_says_where_and_which_sizes(tmp_path, name):
    body, facts = SHAPES[name]
    refused(write(tmp_path, body), *facts)


def test_all_errors_of_a_model_at_once(tmp_path):
    path = write(tmp_path, """@gc.model
def bad(x: gc.f32["B", 3]):
    y = x @ gc.param("w", (4, 2))  # ONE
    z = x + gc.param("v", (7,))  # TWO
    return gc.outputs(y=y, z=z)
""")
    text = refused(path, 3, 4, 7, mark="ONE")
    assert line(path, "TWO") in text


# Names, losses, parameters

def test_a_name_made_twice(tmp_path):
    path = write(tmp_path, """@gc.model
def bad(x: gc.f32["B", 3]):
    with gc.scope("body"):
        a = gc.param("weight", (3,))  # ONE
        b = gc.param("weight", (3,))  # TWO
    return gc.outputs(y=x * a * b)
""")
    text = refused(path, "body/weight", "shared", mark="TWO")
    assert line(path, "ONE") in text


def test_a_layer_name_made_twice(tmp_path):
    path = write(tmp_path, """@gc.model
def bad(x: gc.f32["B", 3]):
    h = gc.nn.linear(x, 3, name="layer")
    return gc.outputs(y=gc.nn.linear(h, 3, name="layer"))  # HERE
""")
    refused(path, "layer/W")


def test_a_shared_parameter_of_two_shapes(tmp_path):
    path = write(tmp_path, """@gc.model
def bad():
    a = gc.param("w", (3,), shared=True)
    b = gc.param("w", (4,), shared=True)  # HERE
    return gc.outputs(y=gc.sum(a) + gc.sum(b))
""")
    refused(path, "w", 3, 4)


def test_a_loss_that_is_not_a_scalar(tmp_path):
    path = write(tmp_path, """@gc.model
def bad(x: gc.f32["B", 3]):
    e = (x - gc.param("w", (3,))) ** 2
    return gc.outputs(loss=e)
""")
    with pytest.raises(gc.GraphcError) as error:
        gc.compile(str(path)).value_and_grad(x=np.zeros((2, 3), np.float32))
    text = str(error.value)
    assert re.search(rf"{path.name}:[78]\b", text), text
    holds(without_place(text, path), "loss", "B", 3)


def test_a_gradient_of_what_is_not_a_scalar(tmp_path):
    path = write(tmp_path, """@gc.model
def bad(x: gc.f32[3, 2]):
    return gc.outputs(g=gc.grad(x * x, [x])[0])  # HERE
""")
    refused(path, 3, 2)


def test_reserved_names(tmp_path):
    for i, name in enumerate(("train", "seed", "out", "outputs")):
        refused(write(tmp_path, f"@gc.model\ndef bad({name}: gc.f32[3]):\n    return gc.outputs(y={name})\n", f"bad{i}"), name, mark=None)


def test_an_unknown_hyperparameter(xor_py):
    with pytest.raises(gc.GraphcError) as error:
        gc.compile(str(xor_py), hiden=3)
    holds(str(error.value), "hiden", "hidden")


# Inputs of a call

@pytest.fixture(scope="module")
def xor(xor_py):
    return gc.compile(str(xor_py))


X, Y = np.zeros((4, 2), np.float32), np.zeros((4, 1), np.float32)


def call(f, *facts):
    with pytest.raises(gc.GraphcError) as error:
        f()
    holds(str(error.value), *facts)
    return str(error.value)


def test_missing_inputs_are_all_listed(xor):
    call(lambda: xor.value_and_grad(x=X), "y")
    call(lambda: xor.value_and_grad(), "x", "y")
    call(lambda: xor.forward(), "x")
    call(lambda: xor.forward(x=X, outputs=["loss"]), "loss", "y")


def test_a_misspelt_input_names_the_right_one(tmp_path):
    path = write(tmp_path, '@gc.model\ndef bad(features: gc.f32["B", 2]):\n    return gc.outputs(prediction=features * 2)\n', "fine")
    m = gc.compile(str(path))
    call(lambda: m.forward(featuers=X), "featuers", "features")
    call(lambda: m.forward(features=X, outputs=["predction"]), "predction", "prediction")
    call(lambda: m.forward(features=X, labels=Y), "labels", "features")


def test_too_many_or_doubled_arguments(xor):
    with pytest.raises((gc.GraphcError, TypeError)):
        xor.forward(X, Y, X)
    with pytest.raises((gc.GraphcError, TypeError)):
        xor.forward(X, x=X)


def test_wrong_types_say_how_to_convert(xor):
    text = call(lambda: xor.forward(x=X.astype(np.float64)), "x", "float64", "float32")
    assert "astype" in text or "dtype" in text
    call(lambda: xor.forward(x=np.array([["a", "b"]])), "x")
    call(lambda: xor.forward(x=X.astype(complex)), "x")
    call(lambda: xor.forward(x=None), "x")
    call(lambda: xor.forward(x=[[1.0, 2.0], [3.0]]), "x")
    m = gc.compile(_lookup)
    call(lambda: m.forward(i=np.array([0.0, 1.0])), "i")
    call(lambda: m.forward(i=np.array([0.0, 1.0], np.float32)), "i")


def test_wrong_shapes_name_input_and_sizes(xor):
    call(lambda: xor.forward(x=np.zeros((4, 3), np.float32)), "x", 2, 3)
    call(lambda: xor.forward(x=np.zeros(2, np.float32)), "x", 2)
    call(lambda: xor.forward(x=np.zeros((1, 4, 2), np.float32)), "x")
    call(lambda: xor.value_and_grad(x=X, y=Y[:3]), "x", "y", "B", 4, 3)


def test_a_call_that_fails_leaves_the_model_as_it_was(xor):
    before = {k: v.copy() for k, v in xor.params.items()}
    want = np.array(xor.forward(x=X + 1)["y_hat"])
    with pytest.raises(gc.GraphcError):
        xor.value_and_grad(x=X, y=Y[:3])
    np.testing.assert_array_equal(xor.forward(x=X + 1)["y_hat"], want)
    for name, value in before.items():
        np.testing.assert_array_equal(xor.params[name], value)


@gc.model
def _lookup(i: gc.i64["N"]):
    return gc.outputs(y=gc.take(gc.param("E", (5, 2)), i, axis=0), loss=gc.sum(gc.take(gc.param("F", (5, 2)), i, axis=0)))


@pytest.mark.parametrize("bad", [5, -1, 2 ** 40, -2 ** 40])
def test_an_index_out_of_range_at_run_time(bad):
    m = gc.compile(_lookup)
    call(lambda: m.forward(i=np.array([0, 4, bad, 1])), bad, 5)
    call(lambda: m.value_and_grad(i=np.array([bad])), bad, 5)
    assert m.forward(i=np.array([0, 4]))["y"].shape == (2, 2)


def test_an_index_out_of_range_says_where_the_model_looks_up(tmp_path):
    path = write(tmp_path, """@gc.model
def fine(i: gc.i64["N"]):
    table = gc.param("E", (5, 2))
    return gc.outputs(y=gc.take(table, i, axis=0))  # HERE
""", "fine")
    m = gc.compile(str(path))
    text = call(lambda: m.forward(i=np.array([9])), 9, 5)
    assert line(path) in text


def test_a_label_out_of_range():
    @gc.model
    def net(z: gc.f32["B", 3], labels: gc.i64["B"]):
        return gc.outputs(loss=gc.nn.cross_entropy(z, labels))
    m = gc.compile(net)
    z = np.zeros((2, 3), np.float32)
    call(lambda: m.forward(z=z, labels=np.array([0, 3])), 3)
    call(lambda: m.forward(z=z, labels=np.array([0, -1])), -1, 3)


# Parameters and parameter files

def test_an_unknown_parameter(xor):
    call(lambda: xor.params["hiden/W"], "hiden/W", "hidden/W")


def test_a_parameter_of_another_shape_is_refused(xor_py):
    m = gc.compile(str(xor_py))

    def set_and_use():
        m.params["hidden/W"] = np.zeros((9, 9), np.float32)
        m.forward(x=X)
    with pytest.raises((gc.GraphcError, TypeError, ValueError)):
        set_and_use()


def test_a_parameter_file_of_other_shapes(xor, xor_py, tmp_path):
    before = {k: v.copy() for k, v in xor.params.items()}
    gc.compile(str(xor_py), hidden=5).save_params(str(tmp_path / "other.safetensors"))
    text = call(lambda: xor.load_params(str(tmp_path / "other.safetensors")), "hidden/W", 2, 5)
    holds(text, "hidden/b", "out/W")                                   # all of them at once
    for name, value in before.items():
        np.testing.assert_array_equal(xor.params[name], value)


def test_a_parameter_file_with_other_names(xor, tmp_path):
    values = {k: np.array(v) + 1 for k, v in xor.params.items()}
    before = {k: v.copy() for k, v in xor.params.items()}
    values["hidden/V"] = values.pop("hidden/W")
    safetensors.numpy.save_file(values, tmp_path / "names.safetensors")
    call(lambda: xor.load_params(str(tmp_path / "names.safetensors")), "hidden/V", "hidden/W")
    for name, value in before.items():                                 # nothing was half loaded
        np.testing.assert_array_equal(xor.params[name], value)


@pytest.mark.parametrize("content", [b"", b"not a parameter file", b"\xff" * 100])
def test_a_parameter_file_that_is_none(xor, tmp_path, content):
    path = tmp_path / "broken.safetensors"
    path.write_bytes(content)
    assert "broken.safetensors" in call(lambda: xor.load_params(str(path)))


def test_a_truncated_or_absent_parameter_file(xor, tmp_path):
    path = tmp_path / "cut.safetensors"
    xor.save_params(str(path))
    path.write_bytes(path.read_bytes()[:-3])
    assert "cut.safetensors" in call(lambda: xor.load_params(str(path)))
    assert "absent.safetensors" in call(lambda: xor.load_params(str(tmp_path / "absent.safetensors")))
    with pytest.raises(gc.GraphcError):
        xor.save_params(str(tmp_path / "no" / "such" / "folder" / "p.safetensors"))


# Model files

def test_a_model_file_that_is_not_there(tmp_path):
    with pytest.raises(gc.GraphcError, match=r"absent\.py"):
        gc.compile(str(tmp_path / "absent.py"))
    with pytest.raises(gc.GraphcError, match="absent"):
        gc.load(str(tmp_path / "absent"))


def test_a_model_file_that_raises(tmp_path):
    path = write(tmp_path, 'table = {}\nvalue = table["the missing key"]  # HERE\n')
    refused(path, "KeyError", "the missing key")


def test_a_model_that_raises_while_it_is_traced(tmp_path):
    path = write(tmp_path, '@gc.model\ndef bad(x: gc.f32[3]):\n    return gc.outputs(y=x / len(7))  # HERE\n')
    refused(path, "TypeError")


def test_a_model_file_with_a_syntax_error(tmp_path):
    path = write(tmp_path, "def f(:  # HERE\n    pass\n")
    refused(path)


def test_a_model_file_that_defines_no_model(tmp_path):
    path = write(tmp_path, "x = 3\n", "empty")
    with pytest.raises(gc.GraphcError, match=r"empty\.py") as error:
        gc.compile(str(path))
    holds(str(error.value), "gc.model")


def test_the_same_message_from_a_function_as_from_a_file(tmp_path):
    @gc.model
    def bad(x: gc.f32["B", 3]):
        return gc.outputs(y=x @ gc.param("w", (4, 2)))
    with pytest.raises(gc.GraphcError, match=r"test_errors\.py:\d+"):
        gc.compile(bad)


# The command line: exit code 2, a message without a traceback, nothing half-written

TWO = """@gc.model
def first(x: gc.f32[3]):
    return gc.outputs(y=x)


@gc.model
def second(x: gc.f32[3]):
    return gc.outputs(y=2 * x)
"""


def complains(result, *facts):
    text = result.stderr + result.stdout
    assert result.returncode == 2, (result.returncode, text)
    assert "Traceback" not in text, text
    flat = re.sub(r"[\s│|]+", " ", text)                                # a frame or a narrow terminal may break lines
    for fact in facts:
        assert str(fact) in flat or str(fact) in flat.replace(" ", ""), (fact, text)
    return text


def test_a_bad_model_writes_nothing(tmp_path):
    path = write(tmp_path, SHAPES["matmul"][0])
    result = cli("compile", path, "-o", tmp_path / "build", cwd=tmp_path)
    complains(result, line(path), 3, 4)
    assert not (tmp_path / "build" / "bad").exists()
    assert not (tmp_path / "build").exists() or not snapshot(tmp_path / "build")


def test_a_failed_compile_leaves_the_earlier_artifact_alone(tmp_path):
    path = write(tmp_path, '@gc.model\ndef net(x: gc.f32["B", 3]):\n    return gc.outputs(y=x * gc.param("w", (3,)))\n', "net")
    assert cli("compile", path, "-o", tmp_path / "build", cwd=tmp_path).returncode == 0
    before = snapshot(tmp_path / "build")
    path.write_text(path.read_text().replace("(3,)", "(4,)"))
    complains(cli("compile", path, "-o", tmp_path / "build", cwd=tmp_path), "net.py:7", 3, 4)
    assert snapshot(tmp_path / "build") == before
    gc.load(str(tmp_path / "build" / "net")).forward(x=np.zeros((1, 3), np.float32))


def test_an_unwritable_output_folder(xor_py, tmp_path):
    (tmp_path / "occupied").write_text("a file")
    complains(cli("compile", xor_py, "-o", tmp_path / "occupied", cwd=tmp_path), "occupied")
    assert (tmp_path / "occupied").read_text() == "a file"
    complains(cli("compile", xor_py, "-o", tmp_path / "occupied" / "below", cwd=tmp_path), "occupied")
    (tmp_path / "build").mkdir()
    (tmp_path / "build" / "xor").write_text("a file in the way")
    complains(cli("compile", xor_py, "-o", tmp_path / "build", cwd=tmp_path), "xor")
    assert (tmp_path / "build" / "xor").read_text() == "a file in the way"


def test_model_files_at_the_command_line(tmp_path):
    complains(cli("compile", write(tmp_path, "x = 1 / 0  # HERE\n", "raises"), cwd=tmp_path), "raises.py:5", "ZeroDivisionError")
    complains(cli("compile", write(tmp_path, "x = 3\n", "empty"), cwd=tmp_path), "empty.py")
    complains(cli("compile", write(tmp_path, TWO, "two"), "--model", "third", cwd=tmp_path), "third", "first", "second")
    assert sorted(p.name for p in tmp_path.iterdir() if p.name != "build" and p.suffix != ".py" and p.name != "__pycache__") == []
    assert not (tmp_path / "build").exists() or not snapshot(tmp_path / "build")


def test_bad_options_at_the_command_line(xor_py, tmp_path):
    complains(cli("compile", xor_py, "--set", "hiden=3", cwd=tmp_path), "hiden", "hidden")
    complains(cli("compile", xor_py, "--set", "hidden", cwd=tmp_path), "hidden")
    complains(cli("compile", xor_py, "--set", "hidden=many", cwd=tmp_path), "hidden", "many")
    complains(cli("compile", xor_py, "--stop-after", "nowhere", cwd=tmp_path), "nowhere")
    assert not (tmp_path / "build").exists() or not snapshot(tmp_path / "build")


def test_a_starter_model_never_overwrites(tmp_path):
    (tmp_path / "mine.py").write_text("precious = 1\n")
    complains(cli("new", "mine.py", cwd=tmp_path), "mine.py")
    assert (tmp_path / "mine.py").read_text() == "precious = 1\n"


def test_what_is_no_artifact(tmp_path):
    complains(cli("info", tmp_path / "absent", cwd=tmp_path), "absent")
    (tmp_path / "folder").mkdir()
    complains(cli("info", tmp_path / "folder", cwd=tmp_path), "folder")
    with pytest.raises(gc.GraphcError, match="folder"):
        gc.load(str(tmp_path / "folder"))


def test_training_without_fitting_data(xor_py, tmp_path):
    epochs = (option("train", "--epochs"), 1)
    complains(cli("train", xor_py, *epochs, "--data", tmp_path / "absent.npz", cwd=tmp_path), "absent.npz")
    np.savez(tmp_path / "half.npz", x=X)
    complains(cli("train", xor_py, *epochs, "--data", tmp_path / "half.npz", cwd=tmp_path), "y")
    np.savez(tmp_path / "wide.npz", x=np.zeros((4, 3), np.float32), y=Y)
    complains(cli("train", xor_py, *epochs, "--data", tmp_path / "wide.npz", cwd=tmp_path), "x", 2, 3)
    (tmp_path / "broken.npz").write_bytes(b"PK nothing")
    complains(cli("train", xor_py, *epochs, "--data", tmp_path / "broken.npz", cwd=tmp_path), "broken.npz")
