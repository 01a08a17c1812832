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
import platform
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from graphc import store
from graphc.runtime import jit
from graphc.runtime.workers import compile_all

Progress = Callable[[int, int, str], None]
"""Called as progress(done, total, name) while kernels are compiled."""

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
    named = {kernel.symbol: kernel for kernel in kernels}
    done: dict[str, bytes] = {}

    def keep(symbol: str, code: bytes) -> None:
        kernel = named[symbol]
        put(kernel.key, code)
        done[kernel.key] = code
        if progress is not None:
            progress(len(done), len(kernels), kernel.name)

    compile_all([(k.source, k.name, k.signature, symbol) for symbol, k in named.items()], keep)
    return done
