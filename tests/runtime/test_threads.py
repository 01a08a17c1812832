"""The pool of threads: the same results however parts are run, and numbers of threads that are none."""

import os
import subprocess
import sys
import textwrap
import threading

import numpy as np
import pytest

import graphc as gc
from graphc.errors import RuntimeFault
from graphc.runtime.binding import cut


@gc.model
def net(x: gc.f32["B", 300], t: gc.f32["B", 40]):
    """Something of every kind that is divided: products, elementwise kernels, sums over rows, a sum over all."""
    h = gc.tanh(gc.nn.linear(x, 200, name="a"))
    y = gc.softmax(gc.nn.linear(h, 40, name="b"))
    return gc.outputs(y=y, loss=gc.mean((y - t) ** 2))


def data(rows=700):
    rng = np.random.default_rng(0)
    return dict(x=rng.standard_normal((rows, 300)).astype("f"), t=rng.random((rows, 40)).astype("f"))


def results(threads, **kwargs):
    outputs, gradients = gc.compile(net, threads=threads, **kwargs).value_and_grad(**data())
    return {**outputs, **gradients}


def test_results_of_several_threads():
    exact = results(1, dtype="float64")
    for threads in (1, 2, 3, 8):
        for name, value in results(threads).items():
            np.testing.assert_allclose(value, exact[name], rtol=2e-4, atol=1e-6, err_msg=f"{name}, {threads} threads")


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_same_threads_same_bits(threads):
    m = gc.compile(net, threads=threads)
    first = None
    for _ in range(20):
        outputs, gradients = m.value_and_grad(**data())
        bits = {n: a.tobytes() for n, a in {**outputs, **gradients}.items()}
        first = first or bits
        assert bits == first


def test_models_in_several_threads_share_the_pool():
    """Only one has the workers at a time; the others run their parts themselves, with the same bits."""
    m = gc.compile(net, threads=3)
    expected = {n: a.tobytes() for n, a in m.value_and_grad(**data())[1].items()}
    wrong = []

    def use(clone):
        for _ in range(15):
            got = clone.value_and_grad(**data())[1]
            wrong.extend(n for n, a in got.items() if a.tobytes() != expected[n])

    users = [threading.Thread(target=use, args=(m.clone(),)) for _ in range(4)]
    for user in users:
        user.start()
    for user in users:
        user.join()
    assert not wrong


def in_fresh_process(script, **environment):
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], env={**os.environ, **environment},
                          capture_output=True, text=True, timeout=120)
    return done


def test_workers_sleep_and_wake():
    """Calls that are far apart find workers asleep."""
    script = """
        import time
        from tests.runtime.test_threads import *
        m = gc.compile(net, threads=3)
        first = m.value_and_grad(**data())[1]["a/W"].tobytes()
        for pause in (0.0, 0.01, 0.1, 0.0, 0.05):
            time.sleep(pause)
            assert m.value_and_grad(**data())[1]["a/W"].tobytes() == first
        time.sleep(0.1)
        used, started = time.process_time(), time.time()
        time.sleep(0.5)
        assert time.process_time() - used < 0.2, "workers wait without sleeping"
        print("ok")
    """
    done = in_fresh_process(script)
    assert done.stdout.split() == ["ok"], done.stderr


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity") or len(os.sched_getaffinity(0)) < 2, reason="one processor")
def test_a_worker_moves_out_of_the_way():
    """Where it is kept to the processor of the thread that runs the model, it leaves for another."""
    script = """
        import time
        from tests.runtime.test_threads import *
        m, given = gc.compile(net, threads=2), data()
        m.value_and_grad(**given)
        (worker,) = (t.native_id for t in threading.enumerate() if t.name == "graphc worker")
        everywhere = os.sched_getaffinity(0)
        here = min(everywhere)
        os.sched_setaffinity(worker, {here})

        def use():
            os.sched_setaffinity(0, {here})
            end = time.monotonic() + 20
            while here in os.sched_getaffinity(worker) and time.monotonic() < end:
                m.value_and_grad(**given)

        user = threading.Thread(target=use)
        user.start()
        user.join()
        assert os.sched_getaffinity(worker) == everywhere - {here}
        print("ok")
    """
    done = in_fresh_process(script)
    assert done.stdout.split() == ["ok"], done.stderr


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="processors cannot be chosen here")
def test_several_threads_on_one_processor():
    script = """
        import os
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        from tests.runtime.test_threads import *
        m = gc.compile(net, threads=2)
        first = m.value_and_grad(**data())[1]["a/W"].tobytes()
        for _ in range(50):
            assert m.value_and_grad(**data())[1]["a/W"].tobytes() == first
        print("ok")
    """
    done = in_fresh_process(script)
    assert done.stdout.split() == ["ok"], done.stderr


def test_a_forked_process_has_its_own_workers():
    script = """
        import os
        from tests.runtime.test_threads import *
        m = gc.compile(net, threads=3)
        first = m.value_and_grad(**data())[1]["a/W"].tobytes()
        child = os.fork()
        if child == 0:
            same = gc.compile(net, threads=3).value_and_grad(**data())[1]["a/W"].tobytes() == first
            same &= m.value_and_grad(**data())[1]["a/W"].tobytes() == first
            os._exit(0 if same else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert m.value_and_grad(**data())[1]["a/W"].tobytes() == first
        print("ok")
    """
    if not hasattr(os, "fork"):
        pytest.skip("no fork here")
    done = in_fresh_process(script)
    assert done.stdout.split() == ["ok"], done.stderr


@pytest.mark.parametrize("text", ["0", "-1", "two", "", "1.5"])
def test_an_impossible_number_in_the_environment(text, monkeypatch):
    monkeypatch.setenv("GRAPHC_NUM_THREADS", text)
    with pytest.raises(RuntimeFault) as caught:
        gc.compile(net)
    assert f"GRAPHC_NUM_THREADS is {text!r}" in str(caught.value)
    assert "set it to 1 or more, or remove it" in str(caught.value)


@pytest.mark.parametrize("count", [0, -2, 1.5, "2", True])
def test_an_impossible_number_as_an_argument(count):
    with pytest.raises(RuntimeFault) as caught:
        gc.compile(net, threads=count)
    assert f"threads={count!r}" in str(caught.value) and "pass 1 or more" in str(caught.value)


@pytest.mark.parametrize("extent, grain, parts, expected", [
    (10, 1, 3, [(0, 3), (3, 6), (6, 10)]),
    (10, 4, 3, [(0, 4), (4, 8), (8, 10)]),
    (10, 8, 4, [(0, 8), (8, 10)]),
    (5, 1, 1, [(0, 5)]),
    (2, 1, 8, [(0, 1), (1, 2)]),
    (0, 1, 4, [(0, 0)]),
])
def test_cut(extent, grain, parts, expected):
    assert list(cut(extent, grain, parts)) == expected
