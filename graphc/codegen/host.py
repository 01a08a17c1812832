"""The processor that kernels are compiled for: this machine's, or the one that GRAPHC_CPU names."""
from __future__ import annotations

import functools
import os

import llvmlite.binding as llvm

from graphc.errors import RuntimeFault

LEVELS = {"x86-64": 16, "x86-64-v2": 16, "x86-64-v3": 32, "x86-64-v4": 64}
"""The processors that $GRAPHC_CPU may name, in LLVM's words, and the bytes of their vectors."""

_AVX512 = ("avx512f", "avx512dq", "avx512bw", "avx512vl")


@functools.cache
def host_cpu() -> tuple[str, str]:
    """The name and the features of the processor, as LLVM spells them."""
    chosen = os.environ.get("GRAPHC_CPU")
    if not chosen:
        return llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten()
    if chosen not in LEVELS:
        raise RuntimeFault(f"GRAPHC_CPU is {chosen!r}", why="it names the processor that kernels are compiled for",
                           how=f"set it to one of {', '.join(LEVELS)}, or remove it to use this machine's own")
    return chosen, ""


def has_avx512() -> bool:
    """Does this machine have the parts of AVX-512 that kernels for it use?"""
    features = llvm.get_host_cpu_features()
    return all(features.get(name) for name in _AVX512)


@functools.cache
def vector_bytes() -> int:
    """The bytes of the widest vector that pays: 64 with AVX-512, 32 with AVX2, 16 otherwise."""
    name, features = host_cpu()
    if name in LEVELS and not features:
        return LEVELS[name]
    if has_avx512():
        return 64
    found = llvm.get_host_cpu_features()
    return 32 if found.get("avx2") and found.get("fma") else 16
