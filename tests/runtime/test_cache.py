"""The cache of compiled kernels: keys, files, damage, unwritable folders, several processes."""
from __future__ import annotations

import ctypes
import subprocess
import sys
import textwrap
import warnings
from pathlib import Path

import numpy as np
import pytest

from graphc import store
from graphc.errors import RuntimeFault
from graphc.runtime import cache, jit
from graphc.runtime.cache import KernelSource, build, get, key_of


@pytest.fixture(autouse=True)
def empty(tmp_path, monkeypatch):
    """A cache folder of the test's own, and a process that has linked nothing yet."""
    monkeypatch.setenv("GRAPHC_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(cache, "_addresses", {})
    monkeypatch.setattr(store, "_kept", {})
    monkeypatch.setattr(store, "_warned", False)
    return tmp_path / "cache"


def add(constant, name="add"):
    source = f"def {name}(x, n):\n    for i in range(n):\n        x[i] = x[i] + f32({constant})\n"
    return KernelSource(name, source, ("f32*", "i64"))


def run(address):
    x = np.zeros(3, np.float32)
    ctypes.CFUNCTYPE(None, ctypes.c_void_p)(address)((ctypes.c_int64 * 2)(x.ctypes.data, x.size))
    return x.tolist()


@pytest.fixture
def compilations(monkeypatch):
    """The names of the kernels that this process compiled."""
    names = []
    kernel_ir = jit.kernel_ir

    def count(source, name, *rest):
        names.append(name)
        return kernel_ir(source, name, *rest)

    monkeypatch.setattr(jit, "kernel_ir", count)
    return names


def test_key_depends_on_all_that_matters(monkeypatch):
    base = ("def k(x): pass", "k", ("f32*",))
    keys = {key_of(*base), key_of("def k(x): return", "k", ("f32*",)), key_of("def k(x): pass", "j", ("f32*",)),
            key_of("def k(x): pass", "k", ("f64*",)), key_of("def k(x): pass", "k", ("f32*", "i64"))}
    assert len(keys) == 5 and all(len(key) == 64 for key in keys)
    assert key_of(*base) in keys
    environment = cache._environment()
    for i in range(len(environment)):
        changed = (*environment[:i], environment[i] + "x", *environment[i + 1:])
        monkeypatch.setattr(cache, "_environment", lambda changed=changed: changed)
        keys.add(key_of(*base))
    assert len(keys) == 5 + len(environment) == 11  # codegen, python, numba, llvmlite, processor, its features


def test_codegen_version_is_the_text_of_the_words_and_of_the_compiler(monkeypatch, tmp_path):
    top = Path(jit.__file__).parents[2]
    files = [Path(*module.split(".")) for module in (*jit.VOCABULARY, *jit.COMPILER)]
    files = [file / "functions.py" if (top / file).is_dir() else file.with_suffix(".py") for file in files]
    assert all((top / file).is_file() for file in files)
    for file in files:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text("one")
    monkeypatch.setattr(cache, "__file__", str(tmp_path / "graphc" / "runtime" / "cache.py"))
    cache.codegen_version.cache_clear()
    seen = {cache.codegen_version()}
    for file in files:
        (tmp_path / file).write_text("two")
        cache.codegen_version.cache_clear()
        seen.add(cache.codegen_version())
    cache.codegen_version.cache_clear()
    assert len(seen) == 1 + len(files)


def test_damaged_entry_is_built_again(empty, compilations, monkeypatch):
    build([add(1)])
    path, = empty.rglob("*.o")
    path.write_bytes(path.read_bytes()[:-40])
    monkeypatch.setattr(cache, "_addresses", {})
    assert run(build([add(1)])["add"]) == [1] * 3
    assert compilations == ["add", "add"]
    assert get(add(1).key) is not None


def test_build_compiles_once(compilations):
    first = build([add(2), add(3, "other")])
    assert run(first["add"]) == [2] * 3 and run(first["other"]) == [3] * 3
    assert build([add(2)]) == {"add": first["add"]}
    assert sorted(compilations) == ["add", "other"]


def test_same_name_different_text():
    one, two = build([add(4)])["add"], build([add(5)])["add"]
    assert add(4).symbol != add(5).symbol
    assert run(one) == [4] * 3 and run(two) == [5] * 3
    with pytest.raises(ValueError, match="two different kernels are named add"):
        build([add(4), add(5)])
    assert build([add(4), add(4)]) == {"add": one}


def test_next_process_compiles_nothing(empty):
    build([add(6)])
    script = f"""
        import sys
        from graphc.runtime import cache
        kernel = cache.{add(6)!r}
        assert cache.build([kernel])[kernel.name] > 0
        assert "numba" not in sys.modules, "numba was imported"
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=True)


def test_progress_is_told():
    calls = []
    build([add(7), add(8, "other")], lambda *call: calls.append(call))
    assert calls == [(1, 2, "other"), (2, 2, "add")]  # the longest first
    build([add(7)], lambda *call: pytest.fail("nothing was compiled"))


def test_folder_that_cannot_be_written_warns_once(tmp_path, monkeypatch, compilations):
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("GRAPHC_CACHE_DIR", str(tmp_path / "file"))
    with pytest.warns(RuntimeWarning, match="GRAPHC_CACHE_DIR") as caught:
        built = [build([add(n)])["add"] for n in (9, 10)]
    assert len(caught) == 1
    assert run(built[0]) == [9] * 3
    assert get(add(9).key) is not None  # kept in memory
    build([add(9)])
    assert compilations == ["add", "add"]


def test_error_of_one_kernel_reaches_the_caller():
    bad = KernelSource("bad", "def bad(x):\n    x[0] = nonsense\n", ("f32*",))
    with pytest.raises(RuntimeFault, match="kernel bad does not compile"):
        build([add(11), bad])
    assert get(add(11).key) is not None  # what was done is kept


def test_processes_side_by_side(empty, tmp_path):
    script = tmp_path / "script.py"  # without a main guard, as people write them
    script.write_text(textwrap.dedent("""
        from graphc.runtime import cache, workers
        workers.TEXT_OF_A_FINISHER = workers.TEXT_OF_A_WORKER = 50
        kernels = [cache.KernelSource(f"k{i}", f"def k{i}(x):\\n    x[0] = f32({i})\\n", ("f32*",)) for i in range(4)]
        print(len(cache.build(kernels)))
    """))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        processes = [subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True)
                     for _ in range(3)]
        assert [process.communicate()[0] for process in processes] == ["4\n"] * 3
    assert not list(empty.rglob("*.part"))
    assert len(list(empty.rglob("*.o"))) == 4
