"""The generated source of a model: a module of kernel functions, split into what is compiled.

The text in the folder is what runs. Each function is brought to a canonical form, without comments and with its own
names replaced, so that equal structures share one compilation, within a model and across models.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Mapping

from ..errors import ArtifactError
from .cache import KernelSource


def canonical(function: ast.FunctionDef, signature: tuple[str, ...]) -> KernelSource:
    """A kernel with its parameters and locals renamed in the order of their appearance."""
    arrays = sum(kind.endswith("*") for kind in signature)
    names = {a.arg: f"a{i}" if i < arrays else f"n{i - arrays}" for i, a in enumerate(function.args.args)}

    class Rename(ast.NodeTransformer):
        def visit_Name(self, node: ast.Name) -> ast.Name:
            return ast.copy_location(ast.Name(names.get(node.id, node.id), node.ctx), node)

        def visit_arg(self, node: ast.arg) -> ast.arg:
            return ast.copy_location(ast.arg(names[node.arg]), node)

    body = function.body[1:] if ast.get_docstring(function) is not None else function.body
    plain = ast.FunctionDef(name="kernel", args=function.args, body=body or [ast.Pass()], decorator_list=[])
    text = ast.unparse(ast.fix_missing_locations(Rename().visit(plain))) + "\n"
    # named by its content, so that different kernels of one name never meet
    name = f"kernel_{hashlib.sha256(f'{signature}{text}'.encode()).hexdigest()[:12]}"
    return KernelSource(name, text.replace("def kernel(", f"def {name}(", 1), signature)


def canonical_of(text: str, signature: tuple[str, ...]) -> KernelSource:
    """The canonical form of a text that holds one kernel."""
    (function,) = (f for f in ast.parse(text).body if isinstance(f, ast.FunctionDef))
    return canonical(function, signature)


def split(text: str, signatures: Mapping[str, tuple[str, ...]]) -> dict[str, KernelSource]:
    """The kernels of a source text by name. ArtifactError where the text is no Python or a kernel is missing."""
    try:
        functions = {f.name: f for f in ast.parse(text).body if isinstance(f, ast.FunctionDef)}
    except SyntaxError as error:
        raise ArtifactError(f"the generated source cannot be read: {error}", how="compile the model again") from error
    missing = [name for name in signatures if name not in functions]
    if missing:
        raise ArtifactError(f"the generated source has no kernel {missing[0]!r}", how="compile the model again")
    return {name: canonical(functions[name], signature) for name, signature in signatures.items()}
