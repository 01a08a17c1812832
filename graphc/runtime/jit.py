"""From a kernel's Python text to machine code, and from machine code to an address.

`compile_kernel` needs Numba, which is imported when it is first called; `load` needs llvmlite alone, so a process that
finds all its kernels in the cache never imports Numba.

Numba is the front end only: it types the text and prints LLVM IR (`numba_ir`). Optimising and emitting is done here,
once, with one module a kernel: the kernel itself, whose pointers are `noalias`, and an entry of the uniform form

    void NAME(int64_t *args)        args[i] is a pointer or an int64, in the order of the signature

into which LLVM inlines the kernel, the `noalias` surviving as scopes on its loads and stores.
"""
from __future__ import annotations

import functools
import importlib
import itertools
import linecache
import pickle
import platform
import re
import struct
import sys
import threading
from collections.abc import Callable, Mapping
from types import CodeType
from typing import Any

import llvmlite.binding as llvm

from graphc.codegen import tiles
from graphc.codegen.host import host_cpu, vector_bytes
from graphc.codegen.primitives import LOOP_NOTES
from graphc.codegen.vecmath import lanes
from graphc.errors import RuntimeFault
from graphc.runtime import ordering
from graphc.runtime.collector import no_collection

Signature = tuple[str, ...]
"""The types of a kernel's parameters: `f32* f64* i32* i64* u8* bool*` are pointers, `i64` an integer."""

Namespace = Mapping[str, Any]

Modules = tuple[str, ...]
"""LLVM IR as text: the module of a kernel and its entry, and those of functions that it calls."""


@functools.cache
def _target_machine() -> llvm.TargetMachine:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    name, features = host_cpu()
    # Position independent and small: constants are reached relative to the program counter, functions of other
    # libraries through stubs that the linker makes.
    return llvm.Target.from_default_triple().create_target_machine(
        cpu=name, features=features, opt=3, reloc="pic", codemodel="small")


# -------------------------------------------------------------------------------------------------------- compile

def compile_kernel(source: str, name: str, signature: Signature, namespace: Namespace, *,
                   symbol: str | None = None) -> bytes:
    """Object code of the function `name` of `source`, exporting `symbol` (default: `name`).

    The function takes parameters of the types in `signature`, returns nothing, and may use the names of `namespace`.
    Pointers must not overlap when it is called. Raises RuntimeFault when Numba does not accept the text.
    """
    return object_code(kernel_ir(source, name, signature, namespace, symbol or name), symbol or name)


def kernel_ir(source: str, name: str, signature: Signature, namespace: Namespace, symbol: str) -> Modules:
    """The first half of `compile_kernel`, which needs Numba."""
    (text, *used), function = _numba_ir(source, name, signature, namespace)
    return lanes.announced(_noted(text)) + "\n" + _entry(symbol, function, signature), *used


def object_code(modules: Modules, symbol: str) -> bytes:
    """The second half of `compile_kernel`, which needs llvmlite alone and takes somewhat longer."""
    return bytes(_target_machine().emit_object(_optimised(modules, symbol)))


def inspect_asm(source: str, name: str, signature: Signature, namespace: Namespace) -> str:
    """The assembly that `compile_kernel` would emit."""
    return str(_target_machine().emit_assembly(_optimised(kernel_ir(source, name, signature, namespace, name), name)))


def inspect_llvm(source: str, name: str, signature: Signature, namespace: Namespace) -> str:
    """The optimised LLVM IR that `compile_kernel` would emit code from."""
    return str(_optimised(kernel_ir(source, name, signature, namespace, name), name))


def run_python(source: str, name: str, namespace: Namespace) -> Callable[..., Any]:
    """The function `name` of `source` as plain Python: pointers are flat NumPy arrays, integers are ints."""
    return _define(source, name, namespace)


def _define(source: str, name: str, namespace: Namespace) -> Callable[..., Any]:
    filename = f"<kernel {name}>"
    # So that tracebacks, and Numba's errors, show the kernel's own lines.
    linecache.cache[filename] = (len(source), None, source.splitlines(keepends=True), filename)
    scope = dict(namespace)
    exec(compile(source, filename, "exec"), scope)
    function: Callable[..., Any] = scope[name]
    return function


def _numba_ir(source: str, name: str, signature: Signature, namespace: Namespace) -> tuple[list[str], str]:
    """The LLVM modules that make up a kernel, as text, and the name of its function there. Imports Numba."""
    from graphc.runtime.numba_ir import numba_ir

    try:
        return numba_ir(_define(source, name, namespace), name, signature)
    except Exception as error:  # Numba's lowering also raises what llvmlite raises
        raise RuntimeFault(f"kernel {name} does not compile", why=str(error), how=f"its text is\n{source}") from error


def _entry(symbol: str, function: str, signature: Signature) -> str:
    """IR text of the exported function: unpack the arguments and call the kernel.

    The stack is aligned for whole vectors: LLVM does not care where those lie that registers have no room for.
    """
    lines = [f"define void @{symbol}(ptr noalias %args) nounwind alignstack({vector_bytes()}) {{", "  %result = alloca ptr",
             "  %error = alloca ptr"]
    # Numba passes two places of its own first, for a result and for an exception.
    passed = ["ptr %result", "ptr %error"]
    for i, kind in enumerate(signature):
        if kind != "i64" and not kind.endswith("*"):
            raise ValueError(f"a kernel parameter is a pointer or i64, not {kind}")
        text = "ptr" if kind.endswith("*") else kind
        lines += [f"  %place{i} = getelementptr inbounds i64, ptr %args, i64 {i}",
                  f"  %a{i} = load {text}, ptr %place{i}"]
        passed.append(f"{text} %a{i}")
    return "\n".join([*lines, f'  call i32 @"{function}"({", ".join(passed)}) alwaysinline', "  ret void", "}"])


def _optimised(modules: Modules, symbol: str) -> llvm.ModuleRef:
    module, *used = map(llvm.parse_assembly, modules)
    for other in used:
        module.link_in(other)
    # Only the entry is seen from outside: the kernel is inlined into it, and what is unused disappears.
    for value in itertools.chain(module.functions, module.global_variables):
        if not value.is_declaration and value.name != symbol and not value.name.startswith("llvm."):
            value.linkage = "internal"
    module.verify()
    machine = _target_machine()
    options = llvm.create_pipeline_tuning_options(speed_level=2)
    options.loop_vectorization = True
    options.slp_vectorization = True
    builder = llvm.create_pass_builder(machine, options)
    builder.getModulePassManager().run(module, builder)
    return _with_definitions(module)


def _noted(text: str) -> str:
    """A module's text with the calls of LOOP_NOTES replaced by metadata of their loops.

    The body of an innermost loop is one block, which ends with the branch back.
    """
    if not any(name in text for name in LOOP_NOTES):
        return text
    free = 1 + max((int(number) for number in re.findall(r"^!(\d+) =", text, re.MULTILINE)), default=-1)
    lines: list[str] = []
    notes: list[str] = []
    count = 0
    for line in text.splitlines():
        name = next((name for name in LOOP_NOTES if name in line), None)
        if name is not None:
            count = LOOP_NOTES[name][_many_registers()] if " call " in line else count
            continue
        if count and line.startswith("  br "):
            number = free + len(notes)
            notes.append(f"!{number} = distinct !{{!{number}, !{number + 1}}}")
            notes.append(f'!{number + 1} = !{{!"llvm.loop.interleave.count", i32 {count}}}')
            line += f", !llvm.loop !{number}"
            count = 0
        lines.append(line)
    return "\n".join(lines + notes)


def _many_registers() -> bool:
    """Has the machine that is compiled for more than 16 vector registers?"""
    return vector_bytes() == 64 or platform.machine().lower() in ("arm64", "aarch64")


def _with_definitions(module: llvm.ModuleRef) -> llvm.ModuleRef:
    """A module with the functions that its words refer to; these are finished, so this comes after optimising."""
    missing = [f.name for f in module.functions if f.is_declaration]
    finished, inlined = ([name for name in missing if name.startswith(words.PREFIX)] for words in (tiles, lanes))
    if inlined:
        module.link_in(llvm.parse_assembly(lanes.definitions(inlined)))
        passes = llvm.create_new_module_pass_manager()
        passes.add_always_inliner_pass()
        passes.run(module, llvm.create_pass_builder(_target_machine(), llvm.create_pipeline_tuning_options()))
    text = str(module)
    if (better := ordering.ordered(text)) != text:
        module = llvm.parse_assembly(better)
    if finished:
        module.link_in(llvm.parse_assembly(tiles.definitions(finished)))
        for function in module.functions:
            if function.name in finished:
                function.linkage = "internal"
    return module


# ----------------------------------------------------------------------------------------------------------- load

_loading = threading.Lock()
_numbers = itertools.count()


@functools.cache
def _linker() -> Any:
    # Kernels may call functions of the C library's mathematics, which not every interpreter carries with it.
    for library in ("libm.so.6", "libm.dylib"):
        try:
            llvm.load_library_permanently(library)
            break
        except (RuntimeFault, RuntimeError):  # the latter are LLVM's
            continue
    return llvm.create_lljit_compiler(_target_machine(), suppress_errors=True)


def load(objects: Mapping[str, bytes]) -> dict[str, int]:
    """Link object code, given by the symbol it exports, into this process: symbol to address.

    Raises RuntimeFault when the code is broken or refers to a function that this process does not have.
    """
    if not objects:
        return {}
    with _loading:
        parts = llvm.JITLibraryBuilder().add_current_process()
        for symbol, code in objects.items():
            parts.add_object_img(code).export_symbol(symbol)
        try:
            library = parts.link(_linker(), f"kernels{next(_numbers)}")
        except RuntimeError as error:
            needed = {name for code in objects.values() for name in _undefined_symbols(code)}
            missing = sorted(name for name in needed if not llvm.address_of_symbol(name))
            if missing:
                raise RuntimeFault("kernels call functions that this process does not have: " + ", ".join(missing),
                                   why=str(error)) from error
            raise RuntimeFault("kernels cannot be linked", why=str(error)) from error
        addresses = {symbol: library[symbol] for symbol in objects}
        library.detach()  # never unloaded: addresses are handed out freely
        return addresses


def _undefined_symbols(code: bytes) -> list[str]:
    """The names that object code expects from elsewhere; none if it is not a 64-bit little-endian ELF file."""
    if code[:6] != b"\x7fELF\x02\x01":
        return []
    table_at, = struct.unpack_from("<Q", code, 0x28)
    entry_size, count = struct.unpack_from("<HH", code, 0x3A)
    sections = [struct.unpack_from("<IIQQQQIIQQ", code, table_at + i * entry_size) for i in range(count)]
    names = []
    for _, kind, _, _, start, size, strings, _, _, _ in sections:
        if kind == 2:  # the symbol table; `strings` is the section of its names
            for at in range(start, start + size, 24):
                name_at, _, _, section = struct.unpack_from("<IBBH", code, at)
                if section == 0 and name_at:
                    text_at = sections[strings][4] + name_at
                    names.append(code[text_at:code.index(b"\0", text_at)].decode())
    return names


# --------------------------------------------------------------------------------------------------------- vocabulary

VOCABULARY = ("graphc.codegen.primitives", "graphc.codegen.tiles", "graphc.codegen.vecmath", "graphc.codegen.randomness")
"""The modules whose words kernels use: each offers `jit_namespace()` and `numpy_namespace()`."""


COMPILER = ("graphc.runtime.numba_ir", "graphc.runtime.numba_range", "graphc.runtime.ordering", __name__)
"""The modules that turn a kernel's text into machine code."""


def compiled_words(source: str) -> Namespace:
    """What the free names of a kernel's text mean when it is compiled. Imports Numba."""
    return _words(source, "jit_namespace")


def interpreted_words(source: str) -> Namespace:
    """What the free names of a kernel's text mean when it is run as Python."""
    return _words(source, "numpy_namespace")


def _words(source: str, of: str) -> Namespace:
    # A module is imported only for a name that those before it do not have: most kernels need no vector mathematics.
    wanted = _global_names(compile(source, "<kernel>", "exec")) - {"range"}
    found: dict[str, Any] = {}
    for module in VOCABULARY:
        if wanted - found.keys():
            offered: Namespace = getattr(importlib.import_module(module), of)()
            found.update({name: offered[name] for name in wanted - found.keys() if name in offered})
    return found


def _global_names(code: CodeType) -> set[str]:
    inner = (constant for constant in code.co_consts if isinstance(constant, CodeType))
    return set(code.co_names).union(*map(_global_names, inner))


# ------------------------------------------------------------------------------------------------------------- worker

@no_collection()
def compile_source(source: str, name: str, signature: Signature, symbol: str) -> bytes:
    """`compile_kernel` with the words that kernels may use."""
    return compile_kernel(source, name, signature, compiled_words(source), symbol=symbol)


def serve(work: Callable[..., bytes]) -> None:
    """The body of a worker process: answer what is read from standard input until it ends.

    Pickles on both sides. First True when ready; then, for the arguments of `work`, which is `compile_source` or
    `object_code`, what it gives, or None where it fails: whoever asked does the same, to see the error.
    """
    answers, sys.stdout = sys.stdout.buffer, sys.stderr  # nothing that prints may disturb the answers
    work(*_NOTHING[work])  # loads what the first kernel would

    def answer(value: bytes | bool | None) -> None:
        pickle.dump(value, answers)
        answers.flush()

    answer(True)
    while True:
        try:
            arguments = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        try:
            answer(work(*arguments))
        except (RuntimeFault, RuntimeError):  # the latter are LLVM's
            answer(None)


_NOTHING: dict[Callable[..., bytes], tuple[Any, ...]] = {
    compile_source: ("def nothing(n):\n    pass\n", "nothing", ("i64",), "nothing"),
    object_code: (("define void @nothing() {\n  ret void\n}",), "nothing"),
}
"""Arguments of what a worker does, for a kernel that does nothing."""
