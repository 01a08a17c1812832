"""Compiled kernels by content: in memory, then on disk, then compiled.

A kernel's key is a hash of everything that its machine code depends on: its text, name and signature, the processor,
the versions of the compilers, and the text of the words that kernels use. Equal kernels of different models are one
entry; nothing ever needs to be invalidated.
"""
from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import json
import os
import pickle
import platform
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from graphc import store
from graphc.runtime import jit

Progress = Callable[[int, int, str], None]
"""Called as progress(done, total, name) while kernels are compiled."""

TEXT_A_WORKER = 6000
"""A worker process is started for so many characters of missing kernels. Compiling takes about 100 µs for each of them,
and a worker needs as long as for 4000 until it is ready."""


@dataclass(frozen=True)
class KernelSource:
    """A kernel before it is compiled: the Python text of its function, the function's name, its parameters' types."""

    name: str
    source: str
    signature: jit.Signature

    @functools.cached_property
    def key(self) -> str:
        """The content address, 64 hexadecimal digits."""
        return key_of(self.source, self.name, self.signature)

    @property
    def symbol(self) -> str:
        """The symbol that the object code exports."""
        return f"k_{self.key[:24]}"


@functools.cache
def codegen_version() -> str:
    """A hash of the text of every module that shapes machine code besides a kernel's own text."""
    top = Path(__file__).parents[2]
    digest = hashlib.sha256()
    for module in (*jit.VOCABULARY, *jit.COMPILER):
        place = top.joinpath(*module.split("."))
        files = sorted(place.rglob("*.py")) if place.is_dir() else [place.with_suffix(".py")]
        for file in files:
            digest.update(file.read_bytes())
    return digest.hexdigest()


@functools.cache
def _environment() -> tuple[str, ...]:
    # The version of Numba is read from its metadata: importing it costs more than everything else here.
    versions = (importlib.metadata.version(package) for package in ("numba", "llvmlite"))
    return (codegen_version(), platform.python_version(), *versions, *jit.host_cpu())


def key_of(source: str, name: str, signature: jit.Signature) -> str:
    """The content address of a kernel on this machine, 64 hexadecimal digits. Does not import Numba."""
    parts = json.dumps([source, name, list(signature), *_environment()])
    return hashlib.sha256(parts.encode()).hexdigest()


_addresses: dict[str, int] = {}    # by key: what is linked into this process
_building = threading.RLock()


def get(key: str) -> bytes | None:
    """The object code of a key, or None."""
    return store.get(f"{key}.o")


def put(key: str, code: bytes) -> None:
    """Keep object code under a key."""
    store.put(f"{key}.o", code)


# ------------------------------------------------------------------------------------------------------------- build

def build(kernels: Sequence[KernelSource], progress: Progress | None = None) -> dict[str, int]:
    """The addresses of compiled kernels, by name; each has the form `void (int64_t *args)`.

    What is in no cache is compiled, calling `progress` after each. Raises RuntimeFault for a kernel that does not
    compile, and ValueError for two different kernels of one name.
    """
    named: dict[str, KernelSource] = {}
    for kernel in kernels:
        if named.setdefault(kernel.name, kernel) != kernel:
            raise ValueError(f"two different kernels are named {kernel.name}")
    with _building:
        wanted = {kernel.key: kernel for kernel in named.values() if kernel.key not in _addresses}
        found = {key: code for key in wanted if (code := get(key)) is not None}
        missing = [kernel for key, kernel in wanted.items() if key not in found]
        found |= _compile(missing, progress)
        linked = jit.load({wanted[key].symbol: code for key, code in found.items()})
        _addresses.update({key: linked[wanted[key].symbol] for key in found})
        return {name: _addresses[kernel.key] for name, kernel in named.items()}


def _compile(kernels: Sequence[KernelSource], progress: Progress | None) -> dict[str, bytes]:
    done: dict[str, bytes] = {}
    lock = threading.Lock()

    def keep(kernel: KernelSource, code: bytes) -> None:
        put(kernel.key, code)
        with lock:
            done[kernel.key] = code
            if progress is not None:
                progress(len(done), len(kernels), kernel.name)

    # Numba compiles one function at a time in a process, so side by side takes processes. This one takes kernels from
    # the same queue: it may be through before a worker has even started.
    queue = deque(sorted(kernels, key=lambda k: -len(k.source)))  # the longest first: at the end all are done together
    helpers = min(_processors() - 1, sum(len(k.source) for k in kernels) // TEXT_A_WORKER)
    workers = [_Worker(queue, keep) for _ in range(helpers)]
    try:
        while True:
            try:
                kernel = queue.popleft()
            except IndexError:
                break
            keep(kernel, _compile_one(kernel))
    finally:
        queue.clear()
        for worker in workers:
            worker.finish()
    for kernel in kernels:
        if kernel.key not in done:  # a worker could not: do it here, where an error has a reader
            keep(kernel, _compile_one(kernel))
    return done


def _compile_one(kernel: KernelSource) -> bytes:
    words = jit.compiled_words(kernel.source)
    return jit.compile_kernel(kernel.source, kernel.name, kernel.signature, words, symbol=kernel.symbol)


def _processors() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on every platform
        return os.cpu_count() or 1


class _Worker(threading.Thread):
    """A process that compiles kernels of a queue, and the thread that talks to it. It may die without harm."""

    def __init__(self, queue: deque[KernelSource], keep: Callable[[KernelSource, bytes], None]) -> None:
        super().__init__(daemon=True)
        self._queue, self._keep = queue, keep
        self._ready = False
        # A fresh interpreter rather than a fork or `multiprocessing`: it needs nothing of the caller's main module, and
        # the caller may have threads.
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)}
        self._process = subprocess.Popen([sys.executable, "-P", "-c", "from graphc.runtime.jit import serve; serve()"],
                                         env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                         stderr=subprocess.DEVNULL)
        self.start()

    def run(self) -> None:
        asked, answers = self._process.stdin, self._process.stdout
        assert asked is not None and answers is not None
        try:
            pickle.load(answers)  # it says when it has imported Numba; until then no kernel waits for it
            self._ready = True
            while True:
                kernel = self._queue.popleft()
                pickle.dump((kernel.source, kernel.name, kernel.signature, kernel.symbol), asked)
                asked.flush()
                code = pickle.load(answers)
                if code is not None:
                    self._keep(kernel, code)
        except (IndexError, OSError, EOFError, pickle.UnpicklingError):
            return  # nothing is left, or the process is gone

    def finish(self) -> None:
        """Wait for the kernel in work, if any, and end the process."""
        if not self._ready:
            self._process.kill()
        self.join()
        self._process.kill()
        self._process.communicate()
