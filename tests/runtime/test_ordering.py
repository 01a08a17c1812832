"""The order of instructions in vectorised loops: a better one, and never a wrong one."""
from __future__ import annotations

import ctypes
import platform
import random
import re

import llvmlite.binding as llvm
import numpy as np
import pytest

from graphc.codegen.host import vector_bytes
from graphc.runtime import jit, ordering

HEAD = """define void @f(ptr %0, ptr %1, i64 %2) {
  br label %4

4:                                                ; preds = %4, %3
  %5 = phi i64 [ 0, %3 ], [ %NEXT, %4 ]
  %6 = getelementptr inbounds float, ptr %0, i64 %5
  %7 = getelementptr inbounds float, ptr %1, i64 %5
"""
TAIL = """  %NEXT = add i64 %5, 16
  %END = icmp eq i64 %NEXT, %2
  br i1 %END, label %EXIT, label %4

EXIT:                                             ; preds = %4
  ret void
}

declare <16 x float> @llvm.fma.v16f32(<16 x float>, <16 x float>, <16 x float>) #0
declare <16 x float> @llvm.masked.load.v16f32.p0(ptr, i32, <16 x i1>, <16 x float>) #1
declare void @elsewhere()

attributes #0 = { nounwind willreturn memory(none) }
attributes #1 = { nounwind willreturn memory(argmem: read) }
!1 = distinct !{!1, !"all"}
!2 = distinct !{!2, !1, !"first"}
!3 = distinct !{!3, !1, !"second"}
!4 = !{!2}
!5 = !{!3}
"""


def module(lines):
    """A module with one loop; a line is what it computes, in values numbered from 8 on, or has no value."""
    number, body = 8, []
    for line in lines:
        if line.startswith("store") or line.startswith("call void"):
            body.append(f"  {line}\n")
        else:
            body.append(f"  %{number} = {line}\n")
            number += 1
    tail = TAIL.replace("%NEXT", f"%{number}").replace("%END", f"%{number + 1}")
    tail = tail.replace("%EXIT", f"%{number + 2}").replace("EXIT", str(number + 2))
    return HEAD.replace("%NEXT", f"%{number}") + "".join(body) + tail


def loop_of(text):
    """The instructions of the loop."""
    (body,) = re.findall(r"^v?4:.*\n((?:  .*\n)+)", text, re.MULTILINE)
    return [re.sub(r"%v(\d+)", r"%\1", line.strip()) for line in body.splitlines()]


def chains(count, length, first=8):
    """So many chains of multiplications, one after another; their values are numbered from `first` on."""
    lines = []
    for chain in range(count):
        for step in range(length):
            before = f"%{first + len(lines) - 1}" if step else f"splat (float {float(chain + 1)})"
            lines.append(f"fmul <16 x float> {before}, splat (float 5.000000e-01)")
    return lines


def checked(text):
    """What `ordered` makes of a module: LLVM takes it, it has the same lines, and every value is there when read."""
    result = ordering.ordered(text)
    llvm.parse_assembly(result).verify()
    before, after = loop_of(text), loop_of(result)
    assert sorted(before) == sorted(after)
    seen = {f"%{n}" for n in range(8)}
    for line in after:
        name, _, rest = line.rpartition(" = ")
        assert " phi " in line or set(re.findall(r"%\d+", rest)) <= seen | {"%4"} or line.startswith("br")
        seen.add(name)
    return after


def test_chains_stand_between_one_another():
    """Of four chains one after another the first steps come first."""
    length = 15
    after = [line for line in checked(module(chains(4, length))) if "fmul" in line]
    step = {f"%{8 + chain * length + s}": s for chain in range(4) for s in range(length)}
    steps = [step[line.partition(" = ")[0]] for line in after]
    assert steps == sorted(steps) and steps[:5] == [0, 0, 0, 0, 1]


def test_the_longest_chain_begins_first():
    after = [line for line in checked(module(chains(1, 10) + chains(1, 40, first=18))) if "fmul" in line]
    assert after[0].startswith("%18 = ") and after.index(next(a for a in after if a.startswith("%8 = "))) > 20


def test_few_vectors_are_held():
    """The sum of 64 products in pairs, and pairs of these: two by two, not first all products."""
    lines = [f"fmul <16 x float> splat (float {float(i + 2)}), splat (float 5.000000e-01)" for i in range(64)]
    lines += [f"fadd <16 x float> %{8 + 2 * i}, %{9 + 2 * i}" for i in range(63)]
    held, most = set(), 0
    for line in checked(module(lines)):
        if "fmul" in line or "fadd" in line:
            name, _, rest = line.partition(" = ")
            held = held - set(re.findall(r"%\d+", rest)) | {name}
            most = max(most, len(held))
    assert most <= 14


@pytest.mark.parametrize("seed", range(20))
def test_random_loops(seed):
    """Any graph of operations, loads and stores stays a right program."""
    rng = random.Random(seed)
    lines, values = [], ["splat (float 2.000000e+00)"]
    for _ in range(120):
        kind, (a, b, c) = rng.random(), rng.choices(values[-25:], k=3)
        array, scopes = rng.choice([("%6", "!alias.scope !4, !noalias !5"), ("%7", "!alias.scope !5, !noalias !4"), ("%6", "")])
        tail = f", align 4{', ' if scopes else ''}{scopes}"
        if kind < 0.15:
            lines.append(f"store <16 x float> {a}, ptr {array}{tail}")
            continue
        lines.append(f"load <16 x float>, ptr {array}{tail}" if kind < 0.3 else
                     f"call <16 x float> @llvm.fma.v16f32(<16 x float> {a}, <16 x float> {b}, <16 x float> {c})" if kind < 0.5
                     else f"{rng.choice(['fadd', 'fmul'])} <16 x float> {a}, {b}")
        values.append(f"%{8 + sum(not line.startswith('store') for line in lines) - 1}")
    text = module(lines)
    after = checked(text)
    for one, other in _meeting(loop_of(text)):
        assert after.index(one) < after.index(other)


def _meeting(lines):
    """Pairs of accesses, of which one stores, that may touch the same memory."""
    accesses = [line for line in lines if "ptr %6" in line or "ptr %7" in line]
    accesses = [line for line in accesses if "load" in line or "store" in line]
    unique = [line for line in accesses if accesses.count(line) == 1]
    for i, one in enumerate(unique):
        for other in unique[i + 1:]:
            clear = "!alias" in one and "!alias" in other and ("ptr %6" in one) != ("ptr %6" in other)
            if "store" in one + other and not clear:
                yield one, other


def test_stores_wait_for_all_loads():
    """A load behind a store whose address ends alike would wait for it, though they never meet."""
    first, second = "align 4, !alias.scope !4, !noalias !5", "align 4, !alias.scope !5, !noalias !4"

    def load_comes_first(lines):
        after = checked(module(lines))
        load, store = (next(i for i, line in enumerate(after) if word in line) for word in ("load", "store"))
        return load < store

    load, one = f"load <16 x float>, ptr %6, {first}", "splat (float 1.000000e+00)"
    assert load_comes_first([load, f"store <16 x float> {one}, ptr %7, {second}", *chains(1, 40, first=9)])
    # and one that comes later goes before a store that it need not wait for, if many wait for it
    lines = [*chains(1, 20), f"store <16 x float> {one}, ptr %7, {second}", load]
    lines += ["fadd <16 x float> %28, %28", *(f"fadd <16 x float> %{29 + i}, %28" for i in range(30))]
    assert load_comes_first(lines)
    assert not load_comes_first([line.replace("ptr %6", "ptr %7").replace(first, second) for line in lines])


@pytest.mark.parametrize("line", [
    "call void @elsewhere()",
    "call <16 x float> @llvm.masked.load.v16f32.p0(ptr %6, i32 4, <16 x i1> splat (i1 true), <16 x float> zeroinitializer)",
])
def test_what_calls_may_do_is_not_guessed(line):
    text = module([*chains(4, 15), line])
    llvm.parse_assembly(text).verify()
    assert ordering.ordered(text) == text


@pytest.mark.parametrize("line", [
    "fence seq_cst",
    "%X = atomicrmw add ptr %0, i64 1 seq_cst, align 8",
    "%X = cmpxchg ptr %0, i64 0, i64 1 seq_cst seq_cst, align 8",
    "%X = load atomic i64, ptr %0 seq_cst, align 8",
    "store atomic i64 1, ptr %0 seq_cst, align 8",
    "%X = load volatile i64, ptr %0, align 8",
    "store volatile i64 1, ptr %0, align 8",
    "%X = notail call <16 x float> @unknown()",
])
def test_what_other_threads_see_stays_in_its_order(line):
    text = module(chains(4, 15)).replace("  %68 = add", f"  {line.replace('%X', '%x')}\n  %68 = add")
    text += "declare <16 x float> @unknown()\n"
    llvm.parse_assembly(text).verify()
    assert ordering.ordered(text) == text


def test_a_kernel_reads_behind_the_word_that_it_waits_for():
    """Short vectors stand in loops of atomics too: those that LLVM makes of statements side by side."""
    lines = ["word = atomic_load(flag, i)"]
    for k in range(4):
        lines += [f"x{k} = x[4 * i + {k}]", *[f"x{k} = x{k} / (x{k} + f32({s}))" for s in range(1, 12)]]
    lines += [f"y[4 * i + {k}] = x{k}" for k in range(4)] + ["flag[i] = word"]
    source = "def k(flag, x, y, n):\n    for i in range(n):\n        " + "\n        ".join(lines) + "\n"
    ir = jit.inspect_llvm(source, "k", ("i64*", "f32*", "f32*", "i64"), jit.compiled_words(source))
    order = [line.split(" = ")[-1] for line in ir.splitlines() if "load atomic" in line or re.search(r"load <\d+ x float>", line)]
    assert len(order) >= 2 and ["atomic" in line for line in order] == [True, False] * (len(order) // 2)


def test_short_loops_and_loops_of_several_blocks_are_left_alone():
    short = module(chains(2, 10))
    branches = module(chains(4, 15)).replace("label %70, label %4", "label %70, label %71")
    branches = branches.replace("  ret void", "  ret void\n\n71:\n  br label %4").replace("%68, %4 ]", "%68, %71 ]")
    llvm.parse_assembly(branches).verify()
    assert ordering.ordered(short) == short
    assert ordering.ordered(branches) == branches


# -------------------------------------------------------------------------------------------------------- machine code

KERNELS = {
    "chain": "a2[i] = tanh(a0[i] * f32(0.5)) * exp(-(a1[i] * a1[i])) + a0[i]",
    "in place": "a2[i] = sigmoid(a2[i]) * tanh(a0[i]) + sigmoid(a1[i]) * a2[i]",
    "two stores": "a2[i] = tanh(a0[i]) * a1[i]\n        a1[i] = exp(-(a2[i] * a2[i])) + log(a0[i] * a0[i] + f32(1))",
    "sum": "v = radd(v, tanh(a0[i]) * exp(-(a1[i] * a1[i])) + log(a1[i] * a1[i] + f32(1)))",
}


def run(source, monkeypatch, ordered):
    """The code of a kernel, and its three arrays after a run of it."""
    with monkeypatch.context() as patch:
        if not ordered:
            patch.setattr(ordering, "ordered", lambda text: text)
        code = jit.compile_source(source, "k", ("f32*",) * 3 + ("i64",), symbol := "test_ordering")
    entry = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(jit.load({symbol: code})[symbol])
    arrays = [np.random.default_rng(i).standard_normal(1003).astype(np.float32) * 4 for i in range(3)]
    arrays[0][5:9] = [np.nan, np.inf, -np.inf, -0.0]
    entry((ctypes.c_int64 * 4)(*(a.ctypes.data for a in arrays), 1003))
    return code, arrays


@pytest.mark.parametrize("name", KERNELS)
def test_the_same_bits(name, monkeypatch):
    source = f"def k(a0, a1, a2, n):\n    v = f32(0)\n    for i in range(n):\n        deep()\n        {KERNELS[name]}\n    a2[0] = a2[0] + v\n"
    (code, arrays), (other, same) = (run(source, monkeypatch, ordered) for ordered in (True, False))
    if vector_bytes() >= 32:
        assert code != other, "nothing was put in another order"
    for a, b in zip(arrays, same, strict=True):
        assert a.tobytes() == b.tobytes()


@pytest.mark.skipif(platform.machine() != "x86_64", reason="reads x86 assembly")
def test_vectors_that_registers_have_no_room_for_lie_in_cache_lines():
    """Across two lines each would take twice as long, and much longer where it is read soon after it was written."""
    values = "\n".join(f"        v{i} = tanh(a0[i + {i}]) * exp(-(a1[i] * a1[i]))" for i in range(6))
    total = " + ".join(f"v{i} * v{(i + 1) % 6} * log(v{i} * v{i} + f32(1))" for i in range(6))
    source = f"def k(a0, a1, a2, n):\n    for i in range(n):\n{values}\n        a2[i] = {total}\n"
    asm = jit.inspect_asm(source, "k", ("f32*",) * 3 + ("i64",), jit.compiled_words(source))
    wide = {16: "xmm", 32: "ymm", 64: "zmm"}[vector_bytes()]
    spilled = re.findall(rf"(vmov\w+|mov\w+)\s+%{wide}\d+, -?\d*\(%[er]sp\)", asm)
    assert spilled, "this kernel is to need more vectors than there are registers"
    assert all("u" not in move.removeprefix("vmov") for move in spilled)
    assert f"andq\t$-{vector_bytes()}, %rsp" in asm or vector_bytes() == 16
