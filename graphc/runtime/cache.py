"""Compiled kernels by content: in memory, then on disk, then compiled.

A kernel's key is a hash of everything that its machine code depends on: its text, name and signature, the processor,
the versions of the compilers, and the text of the words that kernels use. Equal kernels of different models are one
entry; nothing ever needs to be invalidated. A file holds a digest of its code, so a damaged one is noticed and built
anew.
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
import tempfile
import threading
import warnings
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from graphc.runtime import jit

Progress = Callable[[int, int, str], None]
"""Called as progress(done, total, name) while kernels are compiled."""

KERNELS_A_WORKER = 16
"""A worker process is started for so many missing kernels: it needs most of a second until its first is done."""

_MAGIC = b"graphc-kernel-1\n"


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
    for module in (*jit.VOCABULARY, jit.__name__):
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


# ----------------------------------------------------------------------------------------------------------- on disk

_objects: dict[str, bytes] = {}    # by key: what could not be written, so that it is not compiled twice
_addresses: dict[str, int] = {}    # by key: what is linked into this process
_building = threading.RLock()
_warned = False


def folder() -> Path:
    """Where compiled kernels are kept: $GRAPHC_CACHE_DIR, else `graphc` in the user's cache folder."""
    chosen = os.environ.get("GRAPHC_CACHE_DIR")
    if chosen:
        return Path(chosen)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "graphc"


def _path(key: str) -> Path:
    return folder() / key[:2] / f"{key}.o"


def get(key: str) -> bytes | None:
    """The object code of a key, or None. A damaged entry is removed and counts as absent."""
    if key in _objects:
        return _objects[key]
    path = _path(key)
    try:
        content = path.read_bytes()
    except OSError:
        return None
    header = len(_MAGIC) + hashlib.sha256().digest_size
    digest, code = content[len(_MAGIC):header], content[header:]
    if content.startswith(_MAGIC) and hashlib.sha256(code).digest() == digest:
        return code
    with suppress(OSError):
        path.unlink()
    return None


def put(key: str, data: bytes) -> None:
    """Keep object code under a key. A folder that cannot be written is warned of once; the code is kept in memory."""
    path = _path(key)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Written beside its place and moved there: no other process ever sees half a file.
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=key[:8], suffix=".part")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(_MAGIC + hashlib.sha256(data).digest() + data)
            os.replace(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise
    except OSError as error:
        _objects[key] = data
        _warn(error)


def _warn(error: OSError) -> None:
    global _warned
    if not _warned:
        _warned = True
        warnings.warn(f"compiled kernels cannot be kept in {folder()} ({error}); the next process compiles them again. "
                      "Set GRAPHC_CACHE_DIR to a folder that can be written.", RuntimeWarning, stacklevel=3)


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
    queue = deque(kernels)
    helpers = min(_processors() - 1, len(kernels) // KERNELS_A_WORKER)
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
