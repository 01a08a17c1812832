"""The compiled folder: moved, imported, loaded, saved, edited, compiled twice at once."""
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import safetensors.numpy

import graphc as gc

from .helpers import ENVIRONMENT, cli, documents, option, python, snapshot

NET = '''
"""A small network with a state, several outputs and every kind of parameter."""
import graphc as gc


@gc.model
def net(x: gc.f32["B", 3], y: gc.i64["B"], *, hidden: int = 5):
    h = gc.tanh(gc.nn.linear(x, hidden, name="hidden"))
    z = gc.nn.linear(h, 3, name="out") * (1 + gc.param("scale", ()))
    seen = gc.state("seen", (3,))
    gc.update(seen, seen + gc.sum(x, axis=0))
    return gc.outputs(p=gc.softmax(z, axis=-1), seen=seen * 2, loss=gc.nn.cross_entropy(z, y))
'''
TWO = '''
import graphc as gc


def body(x):
    with gc.scope("shared"):
        return gc.tanh(gc.nn.linear(x, 4, name="body"))


@gc.model
def first(x: gc.f32["B", 3]):
    return gc.outputs(h=body(x), loss=gc.sum(x * gc.param("only_first", (3,))))


@gc.model
def second(x: gc.f32["B", 3], y: gc.f32["B", 1]):
    z = gc.nn.linear(body(x), 1, name="head")
    return gc.outputs(z=z, loss=gc.nn.mse(z, y))
'''
RNG = np.random.default_rng(3)
X, Y = RNG.standard_normal((7, 3)).astype(np.float32), np.array([0, 1, 2, 2, 1, 0, 1])

USE = """
import sys
import numpy as np
m = {how}
d = np.load(sys.argv[2])
out, grads = m.value_and_grad(x=d["x"], y=d["y"])
np.savez(sys.argv[3], **{{"out." + k: v for k, v in out.items()}}, **{{"grad." + k.replace("/", "."): v for k, v in grads.items()}})
print(",".join(sorted({{"sympy", "networkx"}} & set(sys.modules))))
"""


@pytest.fixture(scope="module")
def net_py(tmp_path_factory):
    path = tmp_path_factory.mktemp("net") / "net.py"
    path.write_text(NET)
    return path


@pytest.fixture(scope="module")
def built(net_py):
    """The folder that the command line builds; tests copy it before they change it."""
    result = cli("compile", net_py, "-o", net_py.parent / "build", "--set", "hidden=6", cwd=net_py.parent)
    assert result.returncode == 0, result.stderr
    return net_py.parent / "build" / "net"


@pytest.fixture
def moved(built, tmp_path):
    """A copy elsewhere, the model file out of reach."""
    folder = tmp_path / "elsewhere" / "net"
    shutil.copytree(built, folder, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def in_process(net_py, **options):
    out, grads = gc.compile(str(net_py), hidden=6, **options).value_and_grad(x=X, y=Y)
    return {"out." + k: np.array(v) for k, v in out.items()} | {"grad." + k.replace("/", "."): np.array(v) for k, v in grads.items()}


HOW = {"imported": "(sys.path.insert(0, sys.argv[1].rsplit('/', 1)[0]), __import__('net'))[1]",
       "loaded": "__import__('graphc').load(sys.argv[1])"}


@pytest.mark.parametrize("how", HOW)
def test_a_moved_folder_gives_the_same_bits(moved, net_py, tmp_path, how):
    np.savez(tmp_path / "in.npz", x=X, y=Y)
    result = python(USE.format(how=HOW[how]), moved, tmp_path / "in.npz", tmp_path / "out.npz", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "", "the artifact imported " + result.stdout
    got, want = dict(np.load(tmp_path / "out.npz")), in_process(net_py)
    assert set(got) == set(want)
    for name, value in want.items():
        assert got[name].dtype == value.dtype and got[name].tobytes() == value.tobytes(), name


def test_importing_graphc_is_light(tmp_path):
    result = python("import sys, graphc; print(sorted({'sympy', 'networkx', 'matplotlib', 'sklearn', 'torch'} & set(sys.modules)))", cwd=tmp_path)
    assert result.stdout.strip() == "[]", result.stderr


def test_a_path_with_a_space_and_letters(built, tmp_path):
    folder = tmp_path / "mäßig große modelle" / "net"
    shutil.copytree(built, folder)
    assert gc.load(str(folder)).forward(x=X)["p"].shape == (7, 3)
    assert gc.load(folder).forward(x=X)["p"].shape == (7, 3)           # a path object too


def test_the_folder_holds_what_it_should(built):
    manifest = json.loads((built / "manifest.json").read_text())
    assert manifest["format_version"] >= 1
    params = safetensors.numpy.load_file(built / "params.safetensors")
    shapes = {"hidden/W": (3, 6), "hidden/b": (6,), "out/W": (6, 3), "out/b": (3,), "scale": ()}
    assert {k: v.shape for k, v in params.items() if k in shapes} == shapes
    assert any("net.py:" in data.decode() for name, data in snapshot(built).items() if name.endswith(".py"))


def test_the_folder_holds_no_pickle(built):
    for path in built.rglob("*"):
        if not path.is_file() or "__pycache__" in path.parts:
            continue
        data = path.read_bytes()
        assert path.suffix not in {".pkl", ".pickle", ".nbi", ".nbc", ".npy", ".pt", ".joblib"}, path
        assert not (data[:1] == b"\x80" and data[1:2] in b"\x02\x03\x04\x05"), path
        if path.suffix == ".py":
            assert b"pickle" not in data and b"marshal" not in data, path


def test_the_folder_tells_no_path_of_the_machine(built, net_py):
    for name, data in snapshot(built).items():
        assert str(net_py.parent).encode() not in data, name


def test_compiling_twice_gives_equal_folders(built, net_py, tmp_path):
    result = cli("compile", net_py, "-o", tmp_path / "again", "--set", "hidden=6", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    one, two = snapshot(built), snapshot(tmp_path / "again" / "net")
    assert set(one) == set(two)
    for name in one:
        if name.endswith((".py", ".safetensors")):
            assert one[name] == two[name], name


def test_a_loaded_model_has_what_a_compiled_one_has(built):
    m = gc.load(str(built))
    assert set(m.params) == {"hidden/W", "hidden/b", "out/W", "out/b", "scale"}
    for name in ("x", "y", "p", "loss"):
        assert name in str(m.signature)
    assert "net.py:" in m.source and m.graph is not None
    first = np.array(m.forward(x=X)["seen"])
    second = m.forward(x=X)["seen"]
    assert not first.any() and np.allclose(second, 2 * X.sum(0), rtol=1e-5)
    m.reset()
    assert not m.forward(x=X)["seen"].any()
    with pytest.raises(gc.GraphcError):
        m.forward(z=X)
    other = m.clone()
    m.params["out/b"][...] = [0, 0, 50]
    np.testing.assert_allclose(other.forward(x=X)["p"], np.tile([0, 0, 1], (7, 1)), atol=1e-6)


def test_two_loads_are_two_models(built):
    one, two = gc.load(str(built)), gc.load(str(built))
    one.params["out/b"][...] = 9
    assert not two.params["out/b"].any()


def test_parameters_go_out_and_come_back(built, net_py, tmp_path):
    m = gc.compile(str(net_py), hidden=6, seed=5)
    for p in m.params.values():
        p[...] = RNG.standard_normal(p.shape)
    m.save_params(str(tmp_path / "p.safetensors"))
    stored = safetensors.numpy.load_file(tmp_path / "p.safetensors")
    for name, value in m.params.items():
        np.testing.assert_array_equal(stored[name], value)
    other = gc.load(str(built))
    views = dict(other.params.items())
    other.load_params(tmp_path / "p.safetensors")
    for name, value in m.params.items():
        np.testing.assert_array_equal(other.params[name], value)
        np.testing.assert_array_equal(views[name], value)              # loaded in place
    np.testing.assert_array_equal(other.forward(x=X)["p"], m.forward(x=X)["p"])


def test_a_frozen_model_takes_no_parameters_until_it_thaws(built, tmp_path):
    m = gc.load(str(built))
    m.save_params(str(tmp_path / "p.safetensors"))
    want = np.array(m.forward(x=X)["p"])
    m.freeze()
    np.testing.assert_allclose(m.forward(x=X)["p"], want, rtol=1e-5)
    with pytest.raises((ValueError, gc.GraphcError)):
        m.params["out/W"][...] = 0
    m.thaw()
    m.load_params(str(tmp_path / "p.safetensors"))
    np.testing.assert_array_equal(m.forward(x=X)["p"], want)


# Several entries

def test_several_entries_share_through_the_artifact(tmp_path):
    (tmp_path / "two.py").write_text(TWO)
    result = cli("compile", tmp_path / "two.py", "-o", tmp_path / "build", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    m = gc.load(str(tmp_path / "build" / "two"))
    assert set(m.params) == {"shared/body/W", "shared/body/b", "only_first", "head/W", "head/b"}
    m.params["shared/body/W"][...] = 0.5
    h = np.tanh(X @ np.full((3, 4), 0.5, np.float32))
    np.testing.assert_allclose(m.first.forward(x=X)["h"], h, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(m.second.forward(x=X)["z"], h @ m.params["head/W"], rtol=1e-4, atol=1e-5)
    assert set(m.second.value_and_grad(x=X, y=X[:, :1])[1]) == {"shared/body/W", "shared/body/b", "head/W", "head/b"}
    code = ("import sys; sys.path.insert(0, 'build'); import two, numpy as np; x = np.ones((2, 3), 'f4'); "
            "print(two.first.forward(x=x)['h'].shape, two.second.forward(x=x)['z'].shape)")
    result = python(code, cwd=tmp_path)
    assert result.stdout.strip() == "(2, 4) (2, 1)", result.stderr
    result = cli("compile", tmp_path / "two.py", "--model", "second", "-o", tmp_path / "one", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    (folder,) = [p.parent for p in (tmp_path / "one").rglob("manifest.json")]
    assert set(gc.load(str(folder)).params) == {"shared/body/W", "shared/body/b", "head/W", "head/b"}


def test_entries_compiled_together_in_process():
    @gc.model
    def left(x: gc.f32[2]):
        return gc.outputs(y=x * gc.param("w", (2,)))

    @gc.model
    def right(x: gc.f32[2]):
        total = gc.state("total", ())
        gc.update(total, total + 1)
        return gc.outputs(y=x - gc.param("w", (2,)), total=total)
    m = gc.compile(left, right)
    m.params["w"][...] = [2, 3]
    x = np.ones(2, np.float32)
    assert m.left.forward(x=x)["y"].tolist() == [2, 3] and m.right.forward(x=x)["y"].tolist() == [-1, -2]
    assert float(m.right.forward(x=x)["total"]) == 1


# Edited, truncated, half there

def files_of(folder):
    return list(snapshot(folder))


def refuses(folder, *facts):
    with pytest.raises(gc.GraphcError) as error:
        gc.load(str(folder))
    for fact in facts:
        assert fact in str(error.value), str(error.value)


def test_edited_source_is_refused(moved):
    sources = [name for name in files_of(moved) if name.endswith(".py")]
    assert sources
    for name in sources:
        path = moved / name
        was = path.read_bytes()
        path.write_bytes(was + b"\nx = 1\n")
        refuses(moved, path.name)
        path.write_bytes(was)
    gc.load(str(moved))


def test_an_edited_graph_is_refused(moved):
    for name in files_of(moved):
        if name.endswith((".py", ".safetensors")) or name == "manifest.json":
            continue
        path = moved / name
        was = path.read_bytes()
        path.write_bytes(was[: len(was) // 2])
        with pytest.raises(gc.GraphcError):
            str(gc.load(str(moved)).graph)
        path.write_bytes(was)


def test_truncated_files_are_refused(moved):
    for name in ("manifest.json", "params.safetensors"):
        was = (moved / name).read_bytes()
        for keep in (0, 1, len(was) // 2, len(was) - 1):
            if name == "manifest.json" and not was[keep:].strip():
                continue                                               # only the newline at the end is missing
            (moved / name).write_bytes(was[:keep])
            refuses(moved, name)
        (moved / name).write_bytes(was)
    gc.load(str(moved))


def test_missing_files_are_refused(moved):
    for name in files_of(moved):
        if name.endswith((".py", ".safetensors", ".json")):
            was = (moved / name).read_bytes()
            (moved / name).unlink()
            with pytest.raises(gc.GraphcError):
                gc.load(str(moved))
            (moved / name).write_bytes(was)


def test_a_format_of_the_future_is_refused(moved):
    manifest = json.loads((moved / "manifest.json").read_text())
    (moved / "manifest.json").write_text(json.dumps(manifest | {"format_version": manifest["format_version"] + 1000}))
    refuses(moved, str(manifest["format_version"] + 1000))
    for nonsense in ([], {}, {"format_version": "x"}, manifest | {"format_version": None}):
        (moved / "manifest.json").write_text(json.dumps(nonsense))
        refuses(moved, "manifest.json")


def test_parameters_of_other_shapes_in_the_folder_are_refused(moved):
    params = safetensors.numpy.load_file(moved / "params.safetensors")
    params["hidden/W"] = np.zeros((9, 4), np.float32)
    safetensors.numpy.save_file(params, moved / "params.safetensors")
    refuses(moved, "hidden/W")


def test_importing_an_edited_artifact_fails_too(moved, tmp_path):
    (moved / "manifest.json").write_text("{")
    result = python("import sys; sys.path.insert(0, sys.argv[1]); import net; net.forward()", moved.parent, cwd=tmp_path)
    assert result.returncode != 0 and "manifest.json" in result.stderr


# Two processes at once

def test_two_processes_compile_the_same_model_at_once(tmp_path):
    path = tmp_path / "net.py"                                         # a model that no cache has seen
    path.write_text(NET.replace("* 2,", f"* {1 + int.from_bytes(os.urandom(4), 'big') / 2 ** 33!r},"))
    command = [sys.executable, "-m", "graphc", "compile", str(path), "-o", str(tmp_path / "build")]
    running = [subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                env={**os.environ, **ENVIRONMENT}) for _ in range(2)]
    for process in running:
        _, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
    assert [p.name for p in (tmp_path / "build").iterdir()] == ["net"]  # no half-written folder beside it
    got, want = gc.load(str(tmp_path / "build" / "net")).value_and_grad(x=X, y=Y), gc.compile(str(path)).value_and_grad(x=X, y=Y)
    for one, other in zip(got, want, strict=True):
        assert set(one) == set(other)
        for name in other:
            np.testing.assert_array_equal(one[name], other[name])


# The commands around an artifact

def test_info_tells_inputs_outputs_and_parameters(built, tmp_path):
    result = cli("info", built, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    for fact in ("net", "x", "loss", "hidden/W", "float32"):
        assert fact in result.stdout, fact
    result = cli("info", built, "--json", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "hidden/W" in json.dumps(json.loads(result.stdout))


def test_predict_gives_what_forward_gives(built, tmp_path):
    np.savez(tmp_path / "in.npz", x=X)
    result = cli("predict", built, option("predict", "--data", "--input", "--inputs", "-i"), tmp_path / "in.npz", "--json", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    found = []

    def look(value):
        if isinstance(value, dict):
            for v in value.values():
                look(v)
        elif isinstance(value, list):
            if _regular(value) and np.shape(value) == (7, 3):
                found.append(np.array(value))
            else:
                for v in value:
                    look(v)
    for document in documents(result.stdout):
        look(document)
    want = gc.load(str(built)).forward(x=X)["p"]
    assert any(np.allclose(value, want, rtol=1e-5) for value in found), result.stdout


def _regular(value):
    try:
        return np.array(value, float).ndim > 0
    except (TypeError, ValueError):
        return False


def test_every_command_helps_with_an_example(tmp_path):
    for command in ("compile", "train", "predict", "info", "new"):
        result = cli(command, "--help", cwd=tmp_path)
        assert result.returncode == 0 and result.stdout.count(f"graphc {command} ") >= 2, command     # usage, and an example
    result = cli("--help", cwd=tmp_path)
    assert result.returncode == 0 and all(c in result.stdout for c in ("compile", "train", "predict", "info", "new"))


def test_a_starter_model_compiles(tmp_path):
    result = cli("new", "starter.py", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    text = (tmp_path / "starter.py").read_text()
    assert "@gc.model" in text and "#" in text
    result = cli("compile", "starter.py", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "build" / "starter" / "manifest.json").exists()
    gc.load(str(tmp_path / "build" / "starter"))


def test_every_stage_can_be_printed(net_py, tmp_path):
    result = cli("compile", net_py, "--stop-after", "nowhere", cwd=tmp_path)
    text = result.stderr + result.stdout
    stages = [s for s in ("frontend", "trace", "graph", "canonicalise", "canonicalize", "stabilise", "stabilize", "differentiate",
                          "optimise", "optimize", "lowering", "lower", "codegen") if s in text]
    assert result.returncode == 2 and len(stages) >= 3, text           # the message lists the stages
    printed = {}
    for stage in stages:
        runs = [cli("compile", net_py, "--stop-after", stage, cwd=tmp_path) for _ in range(2 if stage == stages[0] else 1)]
        if runs[0].returncode == 0:                                    # a word of the message need not be a stage
            assert runs[0].stdout == runs[-1].stdout, "not stable"
            printed[stage] = runs[0].stdout
    assert len(printed) >= 3 and len(set(printed.values())) == len(printed) and all(printed.values())
    assert not (tmp_path / "build" / "net").exists()
