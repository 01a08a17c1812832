"""Models and the cache when something is wrong with it: the result is right, and what is said is said once."""
from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap

import numpy as np
import pytest

MODEL = textwrap.dedent("""
    import numpy as np
    import graphc as gc

    @gc.model
    def net(x: gc.f32["B", 3]):
        h = gc.tanh(gc.nn.linear(x, 4, name="hidden"))
        return gc.outputs(loss=gc.mean(gc.nn.linear(h, 1, name="out") ** 2))

    def run():
        m = gc.compile(net)
        outputs, gradients = m.value_and_grad(x=np.linspace(-1, 1, 6, dtype=np.float32).reshape(2, 3))
        return float(outputs["loss"]), {name: g.sum() for name, g in gradients.items()}
""")

MAIN = "loss, gradients = run()\nprint(repr(loss), *(f'{name}={float(g):.6g}' for name, g in gradients.items()))\n"


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def right(tmp_path_factory):
    """What a process prints that nothing is wrong with."""
    return check(start(tmp_path_factory.mktemp("right") / "cache"))


def start(folder, body=MAIN, **environment):
    changed = {**os.environ, "GRAPHC_CACHE_DIR": str(folder), **environment}
    return subprocess.Popen([sys.executable, "-c", MODEL + textwrap.dedent(body)], env=changed, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, text=True)


def check(process):
    """What a process printed, which warned of nothing."""
    out, err = process.communicate()
    assert process.returncode == 0 and err == "", err
    return out


def kernels(folder):
    return {p: p.read_bytes() for p in folder.rglob("*.o")}


def test_the_model_is_right(right):
    x = np.linspace(-1, 1, 6, dtype=np.float32).reshape(2, 3)
    script = "m = gc.compile(net); print([m.params[n].tolist() for n in ('hidden/W', 'hidden/b', 'out/W', 'out/b')])"
    W, b, V, c = map(np.array, eval(subprocess.run([sys.executable, "-c", MODEL + script], check=True, text=True,
                                                   capture_output=True).stdout))
    assert float(right.split()[0]) == pytest.approx(np.mean((np.tanh(x @ W + b) @ V + c) ** 2), rel=1e-5)


@pytest.mark.parametrize("count", ["0", "-1", "x", "", "1.5", "2 threads"])
def test_impossible_number_of_threads(folder, count):
    out, err = start(folder, GRAPHC_NUM_THREADS=count).communicate()
    assert out == ""
    assert f"GRAPHC_NUM_THREADS is {count!r}" in err
    assert "set it to 1 or more, or remove it" in err


def test_folder_that_cannot_be_written(folder, right):
    folder.write_text("a file in the place of the folder")
    out, err = start(folder).communicate()
    assert out == right
    assert err.count("RuntimeWarning") == 1
    assert f"cannot be kept in {folder}" in err and "Set GRAPHC_CACHE_DIR to a folder that can be written." in err


def test_full_disk(folder, right):
    body = """
        import errno, os
        def full(*_):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.replace = full
    """
    out, err = start(folder, textwrap.dedent(body) + MAIN).communicate()
    assert out == right
    assert err.count("RuntimeWarning") == 1 and "No space left on device" in err
    assert not [p for p in folder.rglob("*") if p.is_file()]


@pytest.mark.parametrize("other", ["jit.host_cpu = lambda: ('another-cpu', '+none')",
                                   "cache.codegen_version = lambda: 'another version'"])
def test_kernels_of_another_processor_or_version_are_left_alone(folder, right, other):
    """Their code would be wrong here, so under their keys lies what would not even link."""
    body = f"""
        from graphc.runtime import cache, driver, jit
        from graphc.pipeline import Compilation, Options, trace_models
        from graphc.graph.dtype import f32
        from graphc import store
        {other}
        program = Compilation(trace_models([net], "net", f32, {{}}, None), Options())
        program.program("net", "gradient")
        for kernel in [*program.book.kernels.values(), *driver.fixed_sources().values()]:
            store.put(kernel.key + ".o", b"code of another machine")
    """
    check(start(folder, body))
    before = kernels(folder)
    assert len(before) > 10
    assert check(start(folder)) == right
    after = kernels(folder)
    assert before.items() <= after.items() and len(after) > len(before)


@pytest.mark.parametrize("damage", [lambda b: b[:-40], lambda b: b[: len(b) // 2] + b"\0" * (len(b) - len(b) // 2),
                                    lambda b: b"", lambda b: b"\x7fELF" + b])
def test_damaged_files_are_made_again(folder, right, damage):
    assert check(start(folder)) == right
    files = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    assert {p.suffix for p in files} == {".o", ".partial"}
    for path, content in files.items():
        path.write_bytes(damage(content))
    assert check(start(folder)) == right
    assert {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()} == files  # compiling is deterministic


def test_two_processes_compile_one_model(folder, right):
    processes = [start(folder) for _ in range(3)]
    assert [check(p) for p in processes] == [right] * 3
    assert {p.suffix for p in folder.rglob("*") if p.is_file()} == {".o", ".partial"}
    script = "import sys\n" + MAIN + "assert not {'numba', 'sympy', 'networkx'} & set(sys.modules)"
    assert check(start(folder, script)) == right  # all that they left is whole


def test_folder_deleted_while_running(folder, right):
    body = f"""
        import shutil
        first = run()
        shutil.rmtree({str(folder)!r})
        assert run()[0] == first[0]  # linked already

        @gc.model
        def other(x: gc.f32["B", 3]):
            return gc.outputs(y=gc.exp(x) - 1)

        x = np.ones((2, 3), np.float32)
        assert abs(gc.compile(other).forward(x=x)["y"] - 1.7182818).max() < 1e-5
    """
    check(start(folder, body))
    assert kernels(folder)  # the folder is made again
    shutil.rmtree(folder)
    assert check(start(folder)) == right


# -- progress --------------------------------------------------------------------------------------------------------
def test_progress_of_a_compilation(folder):
    body = """
        import re
        from graphc.runtime import driver
        told = []
        m = gc.compile(net, progress=lambda *call: told.append(call))
        assert not told  # nothing was compiled yet
        x = np.ones((2, 3), np.float32)
        m.value_and_grad(x=x)
        assert [done for done, _, _ in told] == list(range(1, len(told) + 1)), told
        assert {total for _, total, _ in told} == {len(told)} and len({name for _, _, name in told}) == len(told)
        known = set(re.findall(r"def (\\w+)\\(", m.source)) | set(driver.fixed_sources())
        assert "run" in {name for _, _, name in told} <= known, told  # as the generated source names them
        count = len(told)
        m.value_and_grad(x=x)
        gc.compile(net, progress=lambda *call: told.append(call)).value_and_grad(x=x)
        assert len(told) == count  # nothing was compiled again
        print(count)
    """
    assert int(check(start(folder, body))) >= 3
