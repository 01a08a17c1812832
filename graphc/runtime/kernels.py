"""The generated source of a model: a module of kernel functions, split into what is compiled.

The text in the folder is what runs. Each function is brought to a canonical form, without comments and with its own
names replaced, so that equal structures share one compilation, within a model and across models.
"""

from __future__ import annotations

import ast
import hashlib
import re
from collections.abc import Iterable, Mapping

from ..errors import ArtifactError
from .cache import KernelSource


def canonical(function: ast.FunctionDef, signature: tuple[str, ...]) -> KernelSource:
    """A kernel with its parameters renamed in the order of their appearance. The tree is used up."""
    names = _names([a.arg for a in function.args.args], signature)
    function.body = (function.body[1:] if ast.get_docstring(function) is not None else function.body) or [ast.Pass()]
    for node in ast.walk(function):
        if isinstance(node, ast.Name):
            node.id = names.get(node.id, node.id)
        elif isinstance(node, ast.arg):
            node.arg = names[node.arg]
    function.name = "kernel"
    text = ast.unparse(function) + "\n"
    # named by its content, so that different kernels of one name never meet
    name = f"kernel_{hashlib.sha256(f'{signature}{text}'.encode()).hexdigest()[:12]}"
    return KernelSource(name, text.replace("def kernel(", f"def {name}(", 1), signature)


def _names(parameters: Iterable[str], signature: tuple[str, ...]) -> dict[str, str]:
    """What a kernel's parameters are called in its canonical form."""
    arrays = sum(kind.endswith("*") for kind in signature)
    return {name: f"a{i}" if i < arrays else f"n{i - arrays}" for i, name in enumerate(parameters)}


def canonical_of(text: str, signature: tuple[str, ...]) -> KernelSource:
    """The canonical form of a text that holds one kernel."""
    (function,) = (f for f in ast.parse(text).body if isinstance(f, ast.FunctionDef))
    return canonical(function, signature)


_NAME = re.compile(r"(?<![\w.])[^\W\d]\w*")  # no attribute, and no exponent of a number


def outline(text: str, signature: tuple[str, ...]) -> str:
    """A kernel's text, as graphc prints it, without its name, docstring and lines of comment, its parameters renamed.

    Kernels of equal outlines have the same canonical form; it is found without reading the text as Python.
    """
    parameters = text[text.index("(") + 1 : text.index("):")]
    names = _names(filter(None, parameters.split(", ")), signature)
    body = text[text.index("):") + 2 :]
    if body.lstrip().startswith('"""'):
        body = body.split('"""', 2)[2]
    lines = (line for line in body.splitlines() if line.strip() and not line.lstrip().startswith("#"))
    plain = "\n".join((f"def kernel({parameters}):", *lines)) + "\n"
    return _NAME.sub(lambda name: names.get(name[0], name[0]), plain)


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
