"""From a kernel's Python text to LLVM IR: Numba, with a target of graphc's own. Loads Numba.

Numba's CPU target knows all of Python and NumPy; loading that takes longer than compiling ten kernels, and it is looked
through again at every call of an intrinsic. Kernels use numbers, pointers, `range` and intrinsics. So they are compiled
for a target that knows no more, by the passes that such functions need. The IR is what Numba's CPU target gives.
"""
from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from numba.core import codegen, compiler, cpu, fastmathpass, ir, types, typing
from numba.core.compiler_lock import global_compiler_lock
from numba.core.compiler_machinery import FunctionPass, PassManager, register_pass
from numba.core.cpu_options import FastMathOptions
from numba.core.descriptors import TargetDescriptor
from numba.core.errors import TypingError
from numba.core.target_extension import (
    CPU,
    dispatcher_registry,
    jit_registry,
    target_override,
    target_registry,
)
from numba.core.typed_passes import (
    AnnotateTypes,
    NativeLowering,
    NoPythonBackend,
    NopythonTypeInference,
)
from numba.core.untyped_passes import FixupArgs, IRProcessing, TranslateByteCode

from graphc.codegen.primitives import pointer_to
from graphc.runtime.numba_range import upward

FAST_MATH = frozenset({"contract"})
"""What every operation of a kernel may do: a*b + c in one rounding. Nothing else is relaxed."""

NAME = "graphc"

DTYPES = {"f32": types.float32, "f64": types.float64, "i32": types.int32, "i64": types.int64, "u8": types.uint8,
          "bool": types.boolean}


# ------------------------------------------------------------------------------------------------------------- target

class Kernel(CPU):
    """The target, as Numba names one: where a word is declared for any CPU, it is declared for kernels."""


class Typing(typing.Context):
    """The types of what kernels say: Numba's builtins but `range`, without NumPy, lists, sets and dictionaries."""

    def __init__(self) -> None:
        super().__init__()
        self._signatures: dict[Any, Any] = {}

    def resolve_value_type(self, val: Any) -> Any:
        """The type of what a name stands for."""
        return super().resolve_value_type(upward if val is range else val)

    def resolve_function_type(self, func: Any, args: Any, kws: Any) -> Any:
        """The signature of a call: looked for once for all equal ones, of which a kernel has many."""
        key = func, args, tuple(kws.items())
        if key not in self._signatures:
            self._signatures[key] = super().resolve_function_type(func, args, kws)
        return self._signatures[key]

    def load_additional_registries(self) -> None:
        """Nothing beside the builtins."""


class Target(cpu.CPUContext):
    """The IR of what kernels say: arithmetic, comparisons, `range`, and the intrinsics."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._functions: dict[Any, Any] = {}

    def load_additional_registries(self) -> None:
        """Beside the builtins only what fills their registry as it is imported."""
        from numba.cpython import builtins, numbers  # noqa: F401

    def get_function(self, fn: Any, sig: Any, _firstcall: bool = True) -> Any:
        """What emits a call, put together once for all equal ones."""
        key = fn, sig
        if key not in self._functions:
            self._functions[key] = super().get_function(fn, sig, _firstcall)
        return self._functions[key]

    def post_lowering(self, mod: Any, library: Any) -> None:
        """Put the fast-math flags on. Numba also links its reference counting; kernels own nothing."""
        fastmathpass.rewrite_module(mod, self.fastmath)


class Descriptor(TargetDescriptor):
    """The two contexts, made when they are first asked for."""

    options = cpu.CPUTargetOptions

    @functools.cached_property
    def typing_context(self) -> Typing:
        """The context that types kernels."""
        return Typing()

    @functools.cached_property
    def target_context(self) -> Target:
        """The context that emits them."""
        return Target(self.typing_context, NAME)


class Dispatcher:
    """Where Numba looks for the contexts of a target."""

    targetdescr = Descriptor(NAME)


target_registry[NAME] = Kernel
dispatcher_registry[target_registry[NAME]] = Dispatcher
# Numba asks for a decorator before it asks whether one of its own functions, written in Python, fits: none does.
jit_registry[target_registry[NAME]] = jit_registry[CPU]


@register_pass(mutates_CFG=False, analysis_only=True)
class OneType(FunctionPass):
    """Check that a name has the same type wherever it is assigned. Of several Numba makes one that holds them all, and
    computes in float64 where a kernel says float32."""

    _name = "one_type"

    def __init__(self) -> None:
        super().__init__()

    def run_pass(self, state: Any) -> bool:
        """Raise TypingError for the first assignment of another type."""
        for assigned in (a for block in state.func_ir.blocks.values() for a in block.find_insts(ir.Assign)):
            kind, given = (types.unliteral(t) for t in (state.typemap[assigned.target.name], self._given(state, assigned)))
            if given != kind:
                raise TypingError(f"{assigned.target.name} is {kind}, but {given} here", loc=assigned.loc)
        return False

    @staticmethod
    def _given(state: Any, assigned: Any) -> Any:
        """The type of an assigned value; that of the name where Numba only tells that one."""
        value = assigned.value
        if isinstance(value, ir.Const):
            return state.typingctx.resolve_value_type(value.value)
        if isinstance(value, ir.Var):
            return state.typemap[value.name]
        call = state.calltypes.get(value) if isinstance(value, ir.Expr) else None
        return state.typemap[assigned.target.name] if call is None else call.return_type


class Pipeline(compiler.CompilerBase):
    """Numba's passes for a function of straight loops: no closures, no `with`, no arrays, nothing to inline, nothing
    counted whose end would have to be found (which IRLegalization does), and no name whose uses would have to be told
    apart to be typed (ReconstructSSA). LLVM does the latter anyway."""

    PASSES = (TranslateByteCode, FixupArgs, IRProcessing, NopythonTypeInference, OneType, AnnotateTypes, NativeLowering,
              NoPythonBackend)

    def define_pipelines(self) -> list[PassManager]:
        """The one list of passes."""
        manager = PassManager("kernel")
        for step in self.PASSES:
            manager.add_pass(step, step.__name__)
        manager.finalize()
        return [manager]


class Collected(codegen.JITCodeLibrary):
    """A library that keeps the IR instead of compiling it."""

    def __init__(self, owner: Any, name: str) -> None:
        super().__init__(owner, name)
        self.texts: list[str] = []
        self.linked: list[Any] = []

    def add_ir_module(self, module: Any) -> None:
        """Keep the text of a module."""
        self.texts.append(str(module))

    def add_linking_library(self, library: Any) -> None:
        """Keep a library that the function needs."""
        self.linked.append(library)

    def finalize(self) -> None:
        """Nothing more is compiled."""
        self._finalized = True


# ------------------------------------------------------------------------------------------------------------ compile

def numba_ir(function: Callable[..., Any], name: str, signature: tuple[str, ...]) -> tuple[list[str], str]:
    """The LLVM modules that make up a kernel, as text, and the name of its function there.

    Raises what Numba and llvmlite raise for a function that is no kernel.
    """
    flags: Any = compiler.Flags()
    flags.no_compile = True
    flags.no_cpython_wrapper = True
    flags.no_cfunc_wrapper = True
    flags.no_rewrites = True
    flags.noalias = True
    flags.error_model = "numpy"
    flags.fastmath = FastMathOptions(set(FAST_MATH))

    parameters = tuple(pointer_to(DTYPES[t[:-1]]) if t.endswith("*") else DTYPES[t] for t in signature)
    contexts = Dispatcher.targetdescr
    library = Collected(contexts.target_context.codegen(), name)
    with global_compiler_lock, target_override(NAME):
        result = compiler.compile_extra(contexts.typing_context, contexts.target_context, function, parameters,
                                        types.none, flags, {}, library=library, pipeline_class=Pipeline)
    used = [str(other._get_module_for_linking()) for other in library.linked]
    return library.texts + used, result.fndesc.llvm_func_name
