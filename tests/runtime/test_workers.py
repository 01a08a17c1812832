"""Kernels compiled side by side: who does which half, and what happens when a process fails."""
from __future__ import annotations

import ctypes
import sys
import textwrap

import numpy as np
import pytest

from graphc.errors import RuntimeFault
from graphc.runtime import jit, workers
from graphc.runtime.workers import compile_all


def job(constant, name=None):
    name = name or f"add_{constant}"
    source = f"def {name}(x, n):\n    for i in range(n):\n        x[i] = x[i] + f32({constant})\n"
    return source, name, ("f32*", "i64"), f"symbol_of_{name}"


BAD = ("def bad(x):\n    x[0] = nonsense\n", "bad", ("f32*",), "symbol_of_bad")


def run(code, symbol):
    """What the code of `job` makes of zeros."""
    x = np.zeros(3, np.float32)
    address = jit.load({symbol: code})[symbol]
    ctypes.CFUNCTYPE(None, ctypes.c_void_p)(address)((ctypes.c_int64 * 2)(x.ctypes.data, x.size))
    return x.tolist()


def compiled(jobs):
    """Object code by symbol, and the order in which it was kept."""
    found = {}

    def keep(symbol, code):
        assert symbol not in found
        found[symbol] = code

    compile_all(jobs, keep)
    return found


@pytest.fixture
def halves(monkeypatch):
    """(names of the kernels of which this process did the first half, symbols of those of which it did the second)."""
    first, second = [], []
    kernel_ir, object_code = jit.kernel_ir, jit.object_code

    def counted_ir(source, name, *rest):
        first.append(name)
        return kernel_ir(source, name, *rest)

    def counted_code(modules, symbol):
        second.append(symbol)
        return object_code(modules, symbol)

    counted_code.__name__ = "object_code"  # as a process is told
    monkeypatch.setattr(jit, "kernel_ir", counted_ir)
    monkeypatch.setattr(jit, "object_code", counted_code)
    return first, second


def processes(monkeypatch, finishers, others):
    """Start so many, whatever there is to do, and let all be ready before the work begins. Those started."""
    started = []
    make = workers._Worker.__init__

    def start(self, *arguments):
        make(self, *arguments)
        while not self._ready and self.is_alive():
            self.join(0.01)
        started.append(self)

    monkeypatch.setattr(workers, "_processes", lambda lengths: (finishers, others))
    monkeypatch.setattr(workers._Worker, "__init__", start)
    return started


@pytest.mark.parametrize("processors, lengths, started", [
    (1, [10**6, 10**6], (0, 0)), (2, [], (0, 0)), (2, [10**6], (0, 0)), (2, [500, 499], (0, 0)), (2, [500, 500], (1, 0)),
    (8, [500, 500], (1, 0)), (2, [10**6] * 9, (1, 0)), (3, [10**6] * 9, (1, 1)), (8, [5000] * 4, (1, 2)),
    (8, [5000] * 3, (1, 1)), (8, [10**6] * 3, (1, 1)), (8, [10**6], (0, 0))])
def test_processes_are_started_for_the_length_of_what_there_is(monkeypatch, processors, lengths, started):
    monkeypatch.setattr(workers, "_processors", lambda: processors)
    monkeypatch.setattr(workers, "TEXT_OF_A_FINISHER", 1000)
    monkeypatch.setattr(workers, "TEXT_OF_A_WORKER", 10000)
    assert workers._processes(lengths) == started


def test_one_process_compiles_the_longest_first(monkeypatch, halves):
    processes(monkeypatch, 0, 0)
    found = compiled([job(1), job(2, "a" * 50), job(3, "b" * 20)])
    assert halves[0] == ["a" * 50, "b" * 20, "add_1"]
    assert list(found) == halves[1] == [f"symbol_of_{name}" for name in halves[0]]
    assert run(found["symbol_of_add_1"], "symbol_of_add_1") == [1] * 3


@pytest.mark.parametrize("finishers, others", [(1, 0), (0, 1), (1, 1)])
def test_processes_share_the_work(monkeypatch, halves, finishers, others):
    started = processes(monkeypatch, finishers, others)
    jobs = [job(i) for i in range(16)]
    found = compiled(jobs)
    assert [run(found[symbol], symbol) for *_, symbol in jobs] == [[float(i)] * 3 for i in range(16)]
    first, second = halves
    assert 0 < len(first) and len(set(first)) == len(first) and len(set(second)) == len(second)
    assert len(first) == 16 if not others else len(first) < 16  # they take whole kernels
    assert len(second) < 16 if finishers else len(second) == len(first)
    assert all(worker._process.returncode is not None for worker in started)  # none is left behind


def test_code_is_the_same_wherever_it_is_made(monkeypatch):
    jobs = [job(i) for i in range(8)]
    found = []
    for count in ((0, 0), (1, 0), (0, 1)):
        with monkeypatch.context() as patch:
            processes(patch, *count)
            found.append(compiled(jobs))
    assert found[0] == found[1] == found[2]


FAILING = {
    "does not start": "raise SystemExit(1)",
    "dies at its first kernel": "tell(True); load()",
    "answers nonsense": "tell(True); load(); sys.stdout.buffer.write(b'nonsense'); sys.stdout.flush()",
    "compiles nothing": """
tell(True)
while True:
    load(); tell(None)
""",
}


@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("finishers, others", [(1, 0), (0, 2), (1, 1)])
@pytest.mark.parametrize("body", FAILING.values(), ids=FAILING.keys())
def test_process_that_fails_does_no_harm(monkeypatch, tmp_path, body, finishers, others):
    worker = tmp_path / "worker"
    worker.write_text(f"#!{sys.executable}\n" + textwrap.dedent("""
        import pickle, sys
        load = lambda: pickle.load(sys.stdin.buffer)
        def tell(value):
            pickle.dump(value, sys.stdout.buffer)
            sys.stdout.flush()
        """) + body)
    worker.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(worker))
    processes(monkeypatch, finishers, others)
    found = compiled([job(i) for i in range(6)])
    assert [run(found[f"symbol_of_add_{i}"], f"symbol_of_add_{i}") for i in range(6)] == [[i] * 3 for i in range(6)]


def test_processes_that_are_not_ready_are_not_waited_for(monkeypatch, tmp_path, halves):
    worker = tmp_path / "worker"
    worker.write_text(f"#!{sys.executable}\nimport time\ntime.sleep(600)\n")
    worker.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(worker))
    monkeypatch.setattr(workers, "_processes", lambda lengths: (1, 1))
    assert len(compiled([job(i) for i in range(3)])) == 3
    assert len(halves[0]) == len(halves[1]) == 3


@pytest.mark.parametrize("finishers, others", [(0, 0), (1, 0), (0, 1), (1, 1)])
def test_error_of_one_kernel_reaches_the_caller(monkeypatch, finishers, others):
    started = processes(monkeypatch, finishers, others)
    with pytest.raises(RuntimeFault, match="kernel bad does not compile"):
        compiled([*(job(i) for i in range(6)), BAD, *(job(i) for i in range(6, 9))])
    assert all(worker._process.returncode is not None for worker in started)


def test_what_was_done_before_an_error_is_kept(monkeypatch):
    processes(monkeypatch, 0, 0)
    found = {}
    with pytest.raises(RuntimeFault):
        compile_all([job(1, "longer_than_bad" * 3), BAD], found.__setitem__)
    assert list(found) == ["symbol_of_" + "longer_than_bad" * 3]


def test_an_error_of_who_keeps_ends_the_processes(monkeypatch):
    started = processes(monkeypatch, 1, 1)

    def full(symbol, code):
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="the disk is full"):
        compile_all([job(i) for i in range(6)], full)
    assert all(worker._process.returncode is not None for worker in started)


@pytest.mark.parametrize("given", [0, 1])
def test_a_system_without_a_process_to_give(monkeypatch, given):
    """What was started ends, and everything is compiled."""
    started, popen = [], workers.subprocess.Popen

    def scarce(*arguments, **options):
        if len(started) == given:
            raise BlockingIOError("Resource temporarily unavailable")
        started.append(popen(*arguments, **options))
        return started[-1]

    monkeypatch.setattr(workers.subprocess, "Popen", scarce)
    monkeypatch.setattr(workers, "_processes", lambda lengths: (1, 2))
    found = compiled([job(1), job(2), job(3)])
    assert {symbol: run(code, symbol) for symbol, code in found.items()} == {
        f"symbol_of_add_{c}": [c] * 3 for c in (1, 2, 3)}
    assert len(started) == given and all(process.poll() is not None for process in started)
