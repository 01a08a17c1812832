"""What is often written in place of the DSL, found in the line that failed, and how it is written here."""

from __future__ import annotations

import ast
import inspect
import linecache
import sys
from collections.abc import Mapping
from difflib import get_close_matches
from itertools import islice
from types import CodeType, FrameType, ModuleType, TracebackType
from typing import Any

PACKAGE = __name__.partition(".")[0]


def explained(error: Exception, entry: TracebackType) -> tuple[str | None, str | None]:
    """(what is wrong, how to mend it) of an error, None where nothing better is known than what the error says.

    entry: that of the error's traceback for the line of the model.
    """
    frame = entry.tb_frame
    node, call = _found(frame.f_code, entry.tb_lasti)
    if isinstance(error, AttributeError):
        if isinstance(error.obj, ModuleType) and _ours(error.obj.__name__):
            return None, _near(error, node, frame)
        if _is_tensor(error.obj):
            return None, _as_function(error, call, frame)
    elif isinstance(error, TypeError) and isinstance(node, ast.Call):
        function = _value(node.func, frame)
        if inspect.isfunction(function) and _ours(function.__module__):
            return None, f"the signature is {ast.unparse(node.func)}{_signature(function)}"
        below = entry.tb_next  # an error of a Python function's own lines is no error of the call
        if "Tensor" in str(error) and (below is None or _of_numpy(below.tb_frame)):
            return _foreign(node, frame)
    return None, None


def of_numpy(frame: FrameType | None) -> tuple[str, str]:
    """(what, how) where NumPy, called from a frame of the model, asks for a tensor's numbers."""
    node = _found(frame.f_code, frame.f_lasti)[0] if frame else None
    if frame is None or not isinstance(node, ast.Call):
        return "NumPy does not work on a tensor", "use graphc's function of the same name: gc.exp, not np.exp"
    return _foreign(node, frame)


def _foreign(call: ast.Call, frame: FrameType) -> tuple[str, str]:
    """The call of a function that is none of graphc's."""
    name = call.func.attr if isinstance(call.func, ast.Attribute) else ast.unparse(call.func)
    alias, names = _package(frame)
    what = f"{ast.unparse(call.func)} does not work on a tensor"
    if name in names:
        return what, f"write {alias}.{name}({_arguments(call)})"
    near = get_close_matches(name, names, 1, 0.7)
    return what, f"did you mean {alias}.{near[0]}?" if near else "use graphc's functions and operators"


def _as_function(error: AttributeError, call: ast.Call | None, frame: FrameType) -> str:
    """A method that a tensor does not have: x.sum(axis=1) is gc.sum(x, axis=1)."""
    alias, names = _package(frame)
    if error.name not in names:
        return f"a tensor has shape, dtype, ndim and T; all else is a function, such as {alias}.sum(x)"
    if call is None or not isinstance(call.func, ast.Attribute):
        return f"write {alias}.{error.name}(x)"
    rest = _arguments(call)
    return f"write {alias}.{error.name}({ast.unparse(call.func.value)}{', ' if rest else ''}{rest})"


def _near(error: AttributeError, node: ast.AST | None, frame: FrameType) -> str | None:
    """A name that a module of graphc does not have: that of another, or one spelt nearly so."""
    alias, names = _package(frame)
    nn = sys.modules[PACKAGE].nn
    for module, known in ((alias, names), (f"{alias}.nn", _public(nn))):
        if error.name in known:
            return f"did you mean {module}.{error.name}?"
    assert isinstance(error.obj, ModuleType)
    near = get_close_matches(error.name or "", _public(error.obj), 1)
    module = ast.unparse(node.value) if isinstance(node, ast.Attribute) else alias
    return f"did you mean {module}.{near[0]}?" if near else None


def _signature(function: Any) -> str:
    """The parameters with their defaults, without types."""
    signature = inspect.signature(function)
    plain = [p.replace(annotation=p.empty) for p in signature.parameters.values()]
    return str(signature.replace(parameters=plain, return_annotation=signature.empty))


def _arguments(call: ast.Call) -> str:
    given = [ast.unparse(a) for a in call.args]
    given += [f"{k.arg}={ast.unparse(k.value)}" if k.arg else f"**{ast.unparse(k.value)}" for k in call.keywords]
    return ", ".join(given)


# -- the line that failed --------------------------------------------------------------------------------------------
def _found(code: CodeType, at: int) -> tuple[ast.AST | None, ast.Call | None]:
    """(the expression that an instruction belongs to, the call whose function it is); None where the text is not known."""
    span = next(islice(code.co_positions(), at // 2, None), None)
    linecache.checkcache(code.co_filename)
    try:
        tree = ast.parse("".join(linecache.getlines(code.co_filename)))
    except SyntaxError:
        return None, None
    node, call = None, None
    for candidate in ast.walk(tree):
        if isinstance(candidate, ast.expr) and _span(candidate) == span:
            node = candidate
        if isinstance(candidate, ast.Call) and span in (_span(candidate), _span(candidate.func)):
            call = candidate
    return node, call


def _span(node: ast.expr) -> tuple[int, int | None, int, int | None]:
    return node.lineno, node.end_lineno, node.col_offset, node.end_col_offset


def _value(node: ast.expr, frame: FrameType) -> Any:
    """What a dotted name stands for in a frame; None where it is no name, or nothing that a module has."""
    if isinstance(node, ast.Name):
        scopes: tuple[Mapping[str, Any], ...] = (frame.f_locals, frame.f_globals, frame.f_builtins)
        return next((s[node.id] for s in scopes if node.id in s), None)
    if isinstance(node, ast.Attribute) and isinstance(module := _value(node.value, frame), ModuleType):
        return getattr(module, node.attr, None)
    return None


# -- whose it is -----------------------------------------------------------------------------------------------------
def _package(frame: FrameType) -> tuple[str, list[str]]:
    """(graphc's name in a frame, its public names)"""
    package = sys.modules[PACKAGE]
    alias = next((n for n, value in frame.f_globals.items() if value is package), "gc")
    return alias, _public(package)


def _public(module: ModuleType) -> list[str]:
    return list(getattr(module, "__all__", [n for n in vars(module) if not n.startswith("_")]))


def _ours(module: str | None) -> bool:
    return module is not None and module.partition(".")[0] == PACKAGE


def _of_numpy(frame: FrameType) -> bool:
    return str(frame.f_globals.get("__name__", "")).partition(".")[0] == "numpy"


def _is_tensor(value: object) -> bool:
    return type(value).__name__ == "Tensor" and _ours(type(value).__module__)
