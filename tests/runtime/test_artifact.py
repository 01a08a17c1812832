"""The compiled folder: what is saved is what is loaded, what is damaged is noticed, and whoever saves last wins whole."""
from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import textwrap

import numpy as np
import pytest

import graphc as gc
from graphc.errors import ArtifactError
from graphc.runtime import artifact


@gc.model
def net(x: gc.f32["B", 3], i: gc.i64["B"]):
    w = gc.param("layer/w", (3, 4))
    b = gc.param("b", (4,), trainable=False, init=0.5)
    seen, wide = gc.state("seen", (4,), init=2.0), gc.state("wide", (gc.dim("B"), 2))
    h = gc.tanh(x @ w + b + gc.const(np.arange(4, dtype=np.float32)))
    gc.update(seen, seen + gc.sum(h, axis=0))
    gc.update(wide, wide + x[:, :2])
    return gc.outputs(h=h, seen=seen, wide=wide, loss=gc.nn.cross_entropy(h, i), rows=gc.reshape(h, (gc.dim("B") * 4,))[1::2])


X, LABELS = np.random.default_rng(0).standard_normal((5, 3)).astype(np.float32), np.array([0, 3, 1, 2, 0])


@pytest.fixture(scope="module")
def original():
    return gc.compile(net, seed=3)


@pytest.fixture(scope="module")
def saved(original, tmp_path_factory):
    return original.save(tmp_path_factory.mktemp("build"))


@pytest.fixture
def copy(saved, tmp_path):
    """A copy to be damaged."""
    folder = tmp_path / "net"
    shutil.copytree(saved, folder)
    return folder


def python(code, *arguments, **options):
    return subprocess.run([sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)], capture_output=True, text=True, timeout=100, **options)


def same(a, b):
    assert set(a) == set(b)
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)
        assert a[name].dtype == b[name].dtype


# -- there and back --------------------------------------------------------------------------------------------------
def test_a_loaded_model_is_the_compiled_one(original, saved):
    loaded = gc.load(saved)
    original.reset()
    for _ in range(2):
        same(loaded.forward(X, LABELS), original.forward(X, LABELS))
    for mine, theirs in zip(loaded.value_and_grad(x=X, i=LABELS), original.value_and_grad(x=X, i=LABELS), strict=True):
        same(mine, theirs)
    same(dict(loaded.states), dict(original.states))
    assert str(loaded.signature) == str(original.signature) and loaded.source == original.source and repr(loaded) == repr(original)
    assert dict(loaded.params).keys() == dict(original.params).keys()
    assert loaded.params.trainable == {"layer/w": True, "b": False}
    original.reset()


def test_the_graph_of_a_loaded_model_is_the_same_graph(original, saved):
    mine, theirs = gc.load(saved).graph, original.graph
    assert mine.outputs == dict(theirs.outputs), "nodes are interned"
    assert mine.updates == dict(theirs.updates) and mine.inputs == theirs.inputs


def test_every_choice_of_outputs_is_there(saved):
    loaded = gc.load(saved)
    full = loaded.clone().forward(X, LABELS)
    for name in full:
        got = loaded.clone().forward(X, LABELS, outputs=[name])
        assert list(got) == [name]
        np.testing.assert_array_equal(got[name], full[name])
    pair = loaded.clone().forward(X, LABELS, outputs=["loss", "h"])
    assert set(pair) == {"h", "loss"}
    same(loaded.clone().forward(x=X), {n: v for n, v in full.items() if n != "loss"})


def test_the_folder_holds_what_it_should(saved):
    names = {p.name for p in saved.iterdir()}
    assert {"__init__.py", "manifest.json", "kernels.py", "programs.json", "graph.txt", "params.safetensors", "constants.safetensors", "states.safetensors"} <= names
    for path in saved.iterdir():
        assert not path.read_bytes().startswith(b"\x80"), f"{path.name} looks like a pickle"
    manifest = json.loads((saved / "manifest.json").read_text())
    assert manifest["format_version"] == artifact.FORMAT_VERSION and manifest["name"] == "net"
    assert set(manifest["sha256"]) == names - {"manifest.json", "params.safetensors", "__pycache__"}
    compile((saved / "kernels.py").read_text(), "kernels.py", "exec")


def test_no_file_tells_where_it_was_made(saved):
    here = os.path.dirname(os.path.abspath(__file__)).encode()
    for path in saved.iterdir():
        assert here not in path.read_bytes() and str(saved.parent).encode() not in path.read_bytes(), path.name


def test_parameters_are_saved_as_they_are_now(saved, tmp_path):
    loaded = gc.load(saved)
    loaded.params["b"] = np.arange(4)
    folder = loaded.save(tmp_path / "again")
    again = gc.load(folder)
    np.testing.assert_array_equal(again.params["b"], np.arange(4))
    same(again.forward(X, LABELS), loaded.forward(X, LABELS))


def test_a_loaded_model_begins_with_the_states_that_were_saved(original, tmp_path):
    """What has a known shape, such as running statistics; what follows the sequences of a batch begins anew."""
    m = original.clone()
    m.forward(X, LABELS)
    seen = m.states["seen"].copy()
    assert (seen != 2).all() and "wide" in m.states
    loaded = gc.load(m.save(tmp_path))
    np.testing.assert_array_equal(loaded.states["seen"], seen)
    assert "wide" not in loaded.states
    loaded.states["seen"][...] = 7
    again = gc.load(loaded.save(tmp_path / "again"))  # a loaded model is saved as it is now, too
    np.testing.assert_array_equal(again.states["seen"], np.full(4, 7.0))
    again.states["seen"][...] = 0
    again.reset()
    np.testing.assert_array_equal(again.states["seen"], np.full(4, 7.0))
    m.reset()
    np.testing.assert_array_equal(m.states["seen"], np.full(4, 2.0))


def test_an_optimisers_memory_stays_with_the_checkpoint(tmp_path):
    @gc.model
    def line(x: gc.f32["B"]):
        return gc.outputs(loss=gc.mean(gc.square(x - gc.param("w"))))

    m = gc.compile(line, optimiser=gc.train.Adam(0.5))
    m.step(X[:, 0])
    assert m.states["optimiser/step"] == 1 and m.states["optimiser/w/m"] != 0
    loaded = gc.load(m.save(tmp_path))
    assert loaded.states["optimiser/step"] == 0 and loaded.states["optimiser/w/m"] == 0
    assert loaded.states["optimiser/lr"] == 0.5 and loaded.params["w"] == m.params["w"]


# -- another process -------------------------------------------------------------------------------------------------
def test_a_moved_folder_is_imported_and_loads_no_compiler(copy, original, tmp_path):
    """Plain import from elsewhere; with the kernels in the cache neither SymPy nor networkx nor Numba is loaded."""
    np.savez(tmp_path / "in.npz", x=X, i=LABELS)
    code = """
        import sys
        sys.path.insert(0, sys.argv[1])
        import numpy as np, net
        d = np.load(sys.argv[2])
        out, grads = net.value_and_grad(x=d["x"], i=d["i"])
        np.savez(sys.argv[3], **out, **{"grad": grads["layer/w"]})
        print(sorted({m.split(".")[0] for m in sys.modules} & {"sympy", "networkx", "numba"}))
        print(net.signature, [n for n in dir(net) if n in ("forward", "params", "value_and_grad")])
    """
    result = python(code, copy.parent, tmp_path / "in.npz", tmp_path / "out.npz", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[0] == "[]", "what is cached needs no compiler"
    assert "['forward', 'params', 'value_and_grad']" in result.stdout
    original.reset()
    out, grads = original.value_and_grad(x=X, i=LABELS)
    original.reset()
    got = np.load(tmp_path / "out.npz")
    same({n: got[n] for n in out}, out)
    np.testing.assert_array_equal(got["grad"], grads["layer/w"])


def test_two_processes_save_one_folder(tmp_path):
    """Many saves at once: whoever loads sees a whole folder, of one of them, and nothing is left behind."""
    code = """
        import sys
        import numpy as np
        import graphc as gc

        @gc.model
        def net(x: gc.f32["B"]):
            p = gc.param("p", (), init=float(sys.argv[2]))
            return gc.outputs(y=x * p + gc.const(np.float32(sys.argv[2])))

        m = gc.compile(net)
        for _ in range(15):
            m.save(sys.argv[1])
        print("saved")
    """
    env = {**os.environ, "PYTHONPATH": os.getcwd()}
    (tmp_path / "w.py").write_text(textwrap.dedent(code))
    workers = [subprocess.Popen([sys.executable, str(tmp_path / "w.py"), str(tmp_path / "build"), str(k)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env) for k in (1, 2)]
    seen, said = set(), set()
    while any(w.poll() is None for w in workers):
        try:
            m = gc.load(tmp_path / "build" / "net")
        except ArtifactError as error:
            said.add(str(error))
            continue
        seen.add(float(m.forward(np.ones(2, np.float32))["y"][0]))
    for w in workers:
        out, err = w.communicate()
        assert w.returncode == 0 and "saved" in out, err
    assert all("no compiled model" in text or "incomplete" in text for text in said), said
    assert seen <= {2.0, 4.0}, "the parameter of one with the constant of the other"
    assert gc.load(tmp_path / "build" / "net").forward(np.ones(1, np.float32))["y"][0] in (2.0, 4.0)
    assert [p.name for p in (tmp_path / "build").iterdir()] == ["net"], "no temporary folders are left"


# -- damage ----------------------------------------------------------------------------------------------------------
FILES = ("kernels.py", "programs.json", "graph.txt", "constants.safetensors", "states.safetensors", "__init__.py")


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("how", ["truncated", "edited", "removed", "empty"])
def test_a_damaged_file_is_noticed(copy, name, how):
    path = copy / name
    data = path.read_bytes()
    if how == "removed":
        path.unlink()
    else:
        path.write_bytes({"truncated": data[:len(data) // 2], "edited": data[:-2] + bytes([data[-2] ^ 1]) + data[-1:], "empty": b""}[how])
    with pytest.raises(ArtifactError) as error:
        gc.load(copy)
    assert name in str(error.value) and "compile the model again" in str(error.value)
    assert ("incomplete" if how == "removed" else "edited or truncated") in str(error.value)


@pytest.mark.parametrize("how", ["truncated", "removed", "empty", "other shapes", "missing one", "one too many"])
def test_damaged_parameters_are_noticed(copy, how):
    from safetensors.numpy import load_file, save_file
    path = copy / "params.safetensors"
    data, arrays = path.read_bytes(), load_file(path)
    if how == "removed":
        path.unlink()
    elif how in ("truncated", "empty"):
        path.write_bytes(data[:len(data) // 2] if how == "truncated" else b"")
    else:
        save_file({"other shapes": {**arrays, "b": np.zeros(5, np.float32)}, "missing one": {"b": arrays["b"]},
                   "one too many": {**arrays, "c": arrays["b"]}}[how], path)
    with pytest.raises(ArtifactError, match=r"params\.safetensors"):
        gc.load(copy)


@pytest.mark.parametrize("change, message", [
    (lambda m: m | {"format_version": 99}, "has the format 99"),
    (lambda m: {k: v for k, v in m.items() if k != "sha256"}, "truncated or edited"),
    (lambda m: {k: v for k, v in m.items() if k != "entries"}, "truncated or edited"),
    (lambda m: m | {"options": {}}, "truncated or edited"),
    (lambda m: [], "truncated or edited"),
])
def test_a_damaged_manifest_is_noticed(copy, change, message):
    path = copy / "manifest.json"
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    with pytest.raises(ArtifactError, match=message):
        gc.load(copy)


def test_a_truncated_manifest_is_noticed(copy):
    data = (copy / "manifest.json").read_bytes()
    (copy / "manifest.json").write_bytes(data[:len(data) // 2])
    with pytest.raises(ArtifactError, match="truncated or edited"):
        gc.load(copy)


def test_what_is_no_compiled_model(tmp_path):
    with pytest.raises(ArtifactError, match="no compiled model at"):
        gc.load(tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ArtifactError, match=r"manifest\.json"):
        gc.load(tmp_path / "empty")


def test_a_folder_of_other_things_is_left_alone(original, tmp_path):
    (tmp_path / "net").mkdir()
    (tmp_path / "net" / "precious.txt").write_text("mine")
    with pytest.raises(ArtifactError, match="is no compiled model"):
        original.save(tmp_path)
    assert [p.name for p in (tmp_path / "net").iterdir()] == ["precious.txt"] and [p.name for p in tmp_path.iterdir()] == ["net"]


def test_a_failed_save_leaves_the_old_folder(copy, original, monkeypatch):
    before = {p.name: p.read_bytes() for p in copy.iterdir() if p.is_file()}

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(artifact.os, "rename", fail)
    with pytest.raises(ArtifactError, match="cannot be written: No space left"):
        original.save(copy.parent)
    assert {p.name: p.read_bytes() for p in copy.iterdir() if p.is_file()} == before
    assert [p.name for p in copy.parent.iterdir()] == ["net"]
