"""The models of a compiled folder, read back from its graph text, so that it can be verified without its model file."""

from __future__ import annotations

import json
from pathlib import Path

from ..errors import ArtifactError
from ..frontend.init import constant
from ..frontend.model import Module
from ..frontend.trace import Declaration
from ..graph import dtype as dtypes
from ..graph.graph import Variable
from ..graph.size import parse, size
from ..pipeline import Compilation, Options
from ..runtime.artifact import load
from ..runtime.kernels import split
from .certificate import EXACT, UNPROVED, Finding


def module_of(folder: Path) -> Module:
    """The traced module of a compiled folder. ArtifactError where the folder is not what was compiled."""
    compiled = load(folder)  # checks every digest
    manifest = json.loads((folder / "manifest.json").read_text())
    graphs = compiled.graph if len(compiled.entries) > 1 else {next(iter(compiled.entries)): compiled.graph}
    declared: dict[str, Declaration] = {}
    for name, array in compiled.params.items():
        dtype = dtypes.from_numpy(array.dtype)
        if dtype is None:
            raise ArtifactError(f"the parameter {name!r} of {folder} has the type {array.dtype}")
        variable = Variable(name, "param", dtype, tuple(map(size, array.shape)), compiled.params.trainable[name])
        declared[name] = Declaration(variable, constant(0.0), True, None)
    for name, (type_name, shape) in manifest["states"].items():
        variable = Variable(name, "state", dtypes.BY_NAME[type_name], tuple(map(parse, shape)))
        declared[name] = Declaration(variable, constant(0.0), True, None)
    used = {n: tuple(v.attr("name") for v in g.nodes if v.op in ("param", "state")) for n, g in graphs.items()}
    float_type = dtypes.BY_NAME[manifest["options"]["dtype"]]
    return Module(compiled.name, dict(graphs), {}, declared, used, float_type)


def kernels_agree(folder: Path, module: Module) -> Finding:
    """Does the folder run what was verified? Its kernels are compared with those that its graph is compiled to now."""
    options = json.loads((folder / "manifest.json").read_text())["options"]
    signatures = json.loads((folder / "programs.json").read_text())["signatures"]
    stored = split((folder / "kernels.py").read_text(), {n: tuple(s) for n, s in signatures.items()})
    compilation = Compilation(module, Options(options["target"], module.float_type.numpy.name))
    compilation.complete()
    known = {k.name for k in stored.values()}  # named by their content
    other = [n for n, k in compilation.book.kernels.items() if k.name not in known]
    if other:
        return Finding("artifact", folder.name, UNPROVED, f"other kernels than this graphc makes: {', '.join(other)}")
    return Finding("artifact", folder.name, EXACT, "the folder's kernels are those that were verified")
