"""What newcomers write in place of the DSL, and how the message says it is written."""
import re

import pytest

import graphc as gc

HEAD = "import math\nimport numpy as np\nimport graphc as {alias}\n\n@{alias}.model\ndef m(x: {alias}.f32['B', 3]):\n"


def message(folder, lines, alias="gc"):
    """What is said of a model with these lines in its function, without the folder."""
    file = folder / "m.py"
    body = "".join(f"    {line}\n" for line in lines.splitlines())
    file.write_text(HEAD.format(alias=alias) + body + f"    return {alias}.outputs(y=x)\n")
    with pytest.raises(gc.GraphcError) as error:
        gc.compile(file)
    return str(error.value).replace(f"{folder}/", "")


SAID = {
    "np.exp(x)": ("np.exp does not work on a tensor", "write gc.exp(x)"),
    "np.maximum(x, 0)": ("np.maximum does not work on a tensor", "write gc.maximum(x, 0)"),
    "np.sum(x * x, axis=1)": ("np.sum does not work on a tensor", "write gc.sum(x * x, axis=1)"),
    "np.mean(x, axis=1)": ("np.mean does not work on a tensor", "write gc.mean(x, axis=1)"),
    "np.concatenate([x, x])": ("np.concatenate does not work on a tensor", "did you mean gc.concat?"),
    "np.linalg.norm(x)": ("np.linalg.norm does not work on a tensor", "use graphc's functions and operators"),
    "math.exp(x)": ("math.exp does not work on a tensor", "write gc.exp(x)"),
    "float(x)": ("float does not work on a tensor", "use graphc's functions and operators"),
    "x.sum()": ("model m raises AttributeError: 'Tensor' object has no attribute 'sum'", "write gc.sum(x)"),
    "(x * 2).sum(1, keepdims=True)": ("no attribute 'sum'", "write gc.sum(x * 2, 1, keepdims=True)"),
    "x.sum": ("no attribute 'sum'", "write gc.sum(x)"),
    "x.astype('f4')": ("no attribute 'astype'", "a tensor has shape, dtype, ndim and T; all else is a function, such as gc.sum(x)"),
    "gc.rellu(x)": ("module 'graphc' has no attribute 'rellu'", "did you mean gc.relu?"),
    "gc.nn.linaer(x, 3)": ("no attribute 'linaer'", "did you mean gc.nn.linear?"),
    "gc.nn.relu(x)": ("no attribute 'relu'", "did you mean gc.relu?"),
    "gc.linear(x, 3)": ("no attribute 'linear'", "did you mean gc.nn.linear?"),
    "gc.mean(x, axes=1)": ("mean() got an unexpected keyword argument 'axes'", "the signature is gc.mean(x, axis=None, keepdims=False)"),
    "gc.nn.mse(x)": ("mse() missing 1 required positional argument: 'y'", "the signature is gc.nn.mse(y_hat, y, reduction='mean')"),
    "x[0] = 2": ("a tensor does not change", "make a new one: use gc.where or gc.concat"),
    "for row in x: pass": ("Tensor(f32[B, 3]) cannot be unpacked: its first axis has no known length", "to go along an axis use gc.scan"),
}


@pytest.mark.parametrize("line, said", SAID.items())
def test_the_line_and_the_mend(tmp_path, line, said):
    what, how = said
    text = message(tmp_path, line)
    assert re.match(r"m\.py:7: ", text) and what in text.splitlines()[0] and text.endswith(f"\n  how: {how}"), text


def test_the_name_under_which_graphc_is_imported(tmp_path):
    assert message(tmp_path, "np.exp(x)", "graph").endswith("how: write graph.exp(x)")


def test_over_several_lines_after_letters_of_many_bytes(tmp_path):
    text = message(tmp_path, "é = 'é'; y = np.sum(\n    x,\n    axis=1,\n)")
    assert text.startswith("m.py:7: np.sum") and text.endswith("how: write gc.sum(x, axis=1)")


def test_in_a_function_of_the_file_and_in_a_step_of_a_loop(tmp_path):
    text = message(tmp_path, "def step(h, r): return h + np.tanh(r), r\ngc.scan(step, init=x, xs=x)")
    assert text == "m.py:7: np.tanh does not work on a tensor\n  how: write gc.tanh(r)"


def test_an_error_of_other_code_is_told_as_it_is(tmp_path, monkeypatch):
    (tmp_path / "helping_m.py").write_text("def f(x):\n    return int(x)\n")
    monkeypatch.syspath_prepend(tmp_path)
    text = message(tmp_path, "import helping_m\nhelping_m.f(x)")
    assert text.startswith("m.py:8: model m raises TypeError: int() argument must be") and "how" not in text
    assert message(tmp_path, "1 / 0") == "m.py:7: model m raises ZeroDivisionError: division by zero"
    assert message(tmp_path, "math.nothing(x)") == "m.py:7: model m raises AttributeError: module 'math' has no attribute 'nothing'"


def test_where_the_text_of_the_line_is_not_known():
    scope = {"gc": gc}
    exec("import numpy as np\n@gc.model\ndef m(x: gc.f32['B', 3]):\n    return gc.outputs(y=np.exp(x))", scope)
    with pytest.raises(gc.GraphcError, match="does not support ufuncs"):
        gc.compile(scope["m"])
    exec("import numpy as np\n@gc.model\ndef m(x: gc.f32['B', 3]):\n    return gc.outputs(y=np.mean(x))", scope)
    with pytest.raises(gc.GraphcError, match=r"NumPy does not work on a tensor(?s:.*)gc\.exp, not np\.exp"):
        gc.compile(scope["m"])


def test_a_file_that_cannot_be_read_shows_the_line(tmp_path):
    (tmp_path / "m.py").write_text("import graphc as gc\n\ny = 3 x\n")
    with pytest.raises(gc.GraphcError, match=r"m\.py:3: the model file cannot be read: invalid syntax\n  why: the line is: y = 3 x$"):
        gc.compile(tmp_path / "m.py")


def test_lines_below_the_current_folder_are_named_from_there(tmp_path, monkeypatch):
    (tmp_path / "below").mkdir()
    file = tmp_path / "below" / "m.py"
    file.write_text("import graphc as gc\n1 / 0\n")
    for folder, name in ((tmp_path, "below/m.py"), (tmp_path / "below", "m.py"), (tmp_path.parent, f"{tmp_path.name}/below/m.py")):
        monkeypatch.chdir(folder)
        with pytest.raises(gc.GraphcError) as error:
            gc.compile(file)
        assert str(error.value).startswith(f"{name}:2: ")
    (tmp_path / "bel").mkdir()
    monkeypatch.chdir(tmp_path / "bel")  # a beginning of the name is not the folder
    with pytest.raises(gc.GraphcError) as error:
        gc.compile(file)
    assert str(error.value).startswith(f"{file}:2: ")
