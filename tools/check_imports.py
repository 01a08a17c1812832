#!/usr/bin/env python3
"""Keep the direction of imports inside graphc.

Data flows one way through the compiler, so no stage may import its producer or its consumer. TABLE says who
may import whom; everything here is read with `ast`, so a broken tree can be checked too. It finds

- an import against the table, also one for typing only: knowing a type is knowing its owner;
- an import of graphc inside a function (a cycle in hiding) that LAZY does not list with a reason;
- a cycle of modules that import each other while they load;
- a way by which loading graphc or its run time would load SymPy, networkx or Numba.

The last is also tried in a fresh interpreter. Usage: python tools/check_imports.py [ROOT] [--no-run]
"""
from __future__ import annotations

import argparse
import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PACKAGE = "graphc"


@dataclass(frozen=True)
class Row:
    """`name` stands for graphc.name and all below it; it may import itself and what `may` names."""
    name: str
    may: tuple[str, ...]
    why: str


STAGE = ("errors", "graph", "symbolic", "ops")
BELOW_PIPELINE = (*STAGE, "frontend", "nn", "derivatives", "passes", "lowering", "codegen", "runtime")
BELOW_TOP = (*BELOW_PIPELINE, "assembly", "pipeline")

# In order: a row names only rows above it, so the table itself has no cycle.
TABLE = (
    Row("errors", (), "every stage raises them, so they know none"),
    Row("store", (), "it keeps content by name and does not know what it is"),
    Row("vocabulary", ("errors",), "it knows texts and numbers, no model"),
    Row("graph", ("errors",), "types, sizes and nodes are the vocabulary of every stage"),
    Row("symbolic", ("errors", "graph"), "formulas know values and sizes, not the operations made of them"),
    Row("ops", ("errors", "graph", "symbolic"), "a row is mathematics and knows no stage that uses it"),
    Row("frontend", STAGE, "it makes a graph and does not know what becomes of it"),
    Row("nn", ("errors", "frontend"), "layers are written only in the DSL, as a user would write them"),
    Row("derivatives", (*STAGE, "store"), "a stage knows the graph and the rows, not its neighbours"),
    Row("passes", STAGE, "a stage knows the graph and the rows, not its neighbours"),
    Row("lowering", STAGE, "a stage knows the graph and the rows, not its neighbours"),
    Row("codegen", ("errors", "graph", "symbolic", "lowering.ir", "lowering.cells"),
        "a printer sees the Kernel IR, and what its iterations touch, not how it was made"),
    Row("runtime", ("errors", "store", "vocabulary", "graph.size", "graph.dtype",
                    "codegen.host", "codegen.primitives", "codegen.randomness", "codegen.tiles",
                    "codegen.vecmath"),
        "a compiled model runs without the compiler"),
    Row("assembly", ("errors", "graph", "symbolic", "lowering", "codegen", "runtime"),
        "it turns what lowering made into what the runtime runs"),
    Row("pipeline", (*BELOW_PIPELINE, "assembly"), "the one place that knows all the stages"),
    Row("verify", BELOW_TOP, "it checks what the whole pipeline made; no stage knows it"),
    Row("render", (*STAGE, "runtime", "pipeline"), "pictures are made of graphs; no stage knows them"),
    Row("explain", (*BELOW_TOP, "render.names"), "a derivation is told of a traced graph; no stage knows it"),
    Row("generation", ("errors", "vocabulary", "runtime"), "text comes from a compiled model, without the compiler"),
    Row("train", (*BELOW_TOP, "vocabulary"), "on top: nothing below knows it"),
    Row("interop", BELOW_TOP, "on top: nothing below knows it"),
    Row("testing", (*BELOW_TOP, "verify"), "on top: nothing below knows it"),
    Row("cli", (*BELOW_TOP, "verify", "render", "explain", "train", "interop", "testing", "generation", "vocabulary"),
        "on top: nothing below knows it"),
    Row("__main__", ("cli",), "`python -m graphc` is the command line and nothing else"),
)


@dataclass(frozen=True)
class Lazy:
    """An import inside a function that is allowed: in `module` (and below), of `targets`, for a reason.

    It may name what TABLE does not. `inside`, when given, is the one function that may do it.
    """
    module: str
    targets: tuple[str, ...]
    why: str
    inside: str = ""


LAZY = (
    Lazy(PACKAGE, (PACKAGE,), "PEP 562: graphc's names load their modules when first used", inside="__getattr__"),
    Lazy("graphc.cli", (PACKAGE,), "a command loads what it needs when it runs: --help answers at once"),
    Lazy("graphc.runtime", ("graphc.codegen.primitives", "graphc.codegen.vecmath", "graphc.runtime.numba_ir"),
         "they load Numba, which only the first kernel needs"),
    Lazy("graphc.codegen.vecmath", ("graphc.codegen.vecmath.intrinsics",),
         "the intrinsics load Numba, which only a kernel that calls one needs"),
    Lazy("graphc.testing.plugin", ("graphc.testing.check",),
         "pytest loads the plugin in every project; the compiler only where a model is checked", inside="runtest"),
    Lazy("graphc.runtime.artifact", ("graphc.graph.text",),
         "a graph loads networkx, which only someone who looks at it needs", inside="_graphs"),
    *(Lazy(module, ("graphc.render.notebook",), "a notebook shows a picture, made only when someone looks", inside=hook)
      for module in ("graphc.graph.graph", "graphc.runtime.model") for hook in ("_repr_svg_", "_repr_html_")),
)

# Loading one of these modules loads none of those libraries.
LIGHT = ("graphc", "graphc.runtime")
HEAVY = ("sympy", "networkx", "numba")


@dataclass(frozen=True)
class Import:
    line: int
    target: str
    when: str           # "load", "call" (inside a function) or "typing" (never runs)
    function: str = ""  # the innermost function around it


@dataclass(frozen=True)
class Module:
    name: str
    path: Path
    imports: tuple[Import, ...]


@dataclass(frozen=True, order=True)
class Violation:
    path: str
    line: int
    why: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.why}"


# --- reading -----------------------------------------------------------------------------------------------

def read_tree(root: Path) -> dict[str, Module]:
    """All modules of graphc under `root`, by dotted name."""
    names = {}
    for path in sorted((root / PACKAGE).rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return {name: Module(name, path, tuple(_imports(name, path, set(names)))) for name, path in names.items()}


def _imports(name: str, path: Path, modules: set[str]) -> Iterator[Import]:
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    todo: list[tuple[ast.AST, str, str]] = [(ast.parse(path.read_text("utf-8"), str(path)), "load", "")]
    while todo:
        node, when, function = todo.pop()
        for target in _targets(node, package, modules):
            yield Import(getattr(node, "lineno", 1), target, when, function)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            # Decorators, defaults and annotations run when the module loads; the body when it is called.
            todo += [(n, when, function) for n in ast.iter_child_nodes(node) if n not in node.body]
            todo += [(n, when if when == "typing" else "call", node.name) for n in node.body]
        elif isinstance(node, ast.If) and _is_type_checking(node.test):
            todo += [(n, "typing", function) for n in node.body] + [(n, when, function) for n in node.orelse]
        else:
            todo += [(n, when, function) for n in ast.iter_child_nodes(node)]


def _is_type_checking(test: ast.expr) -> bool:
    name = test.attr if isinstance(test, ast.Attribute) else getattr(test, "id", "")
    return name == "TYPE_CHECKING"


def _targets(node: ast.AST, package: str, modules: set[str]) -> Iterator[str]:
    """Dotted names that this one node imports; of `from a import b`, a.b where that is a module, else a."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        base = _absolute("." * node.level + (node.module or ""), package)
        full = (f"{base}.{alias.name}" for alias in node.names)
        yield from dict.fromkeys(target if target in modules else base for target in full)
    elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
        called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if called in ("import_module", "__import__") and isinstance(node.args[0].value, str):
            yield _absolute(node.args[0].value, package)


def _absolute(dotted: str, package: str) -> str:
    name = dotted.lstrip(".")
    level = len(dotted) - len(name)
    if not level:
        return name
    base = package.split(".")[: len(package.split(".")) - level + 1]
    return ".".join([*base, *([name] if name else [])])


# --- checking ----------------------------------------------------------------------------------------------

def check(root: Path) -> tuple[list[Violation], int]:
    """What is wrong in the tree under `root`, read only, and the number of modules read."""
    try:
        modules = read_tree(root)
    except SyntaxError as error:
        path = _relative(Path(error.filename or "?"), root)
        return [Violation(path, error.lineno or 1, f"cannot be read: {error.msg}")], 0
    found = {v for module in modules.values() for v in _directions(module, root)}
    edges = {name: _loads(module, modules) for name, module in modules.items()}
    found.update(_cycles(modules, edges, root))
    found.update(_heavy(modules, edges, root))
    return sorted(found), len(modules)


def _directions(module: Module, root: Path) -> Iterator[Violation]:
    path = _relative(module.path, root)
    row = _row(module.name)
    if row is None and module.name != PACKAGE:
        yield Violation(path, 1, f"{module.name} has no row in the table of tools/check_imports.py")
        return
    for imp in module.imports:
        if not _within(imp.target, PACKAGE):
            continue
        if imp.when == "call":
            if any(_lazy_allows(lazy, module.name, imp) for lazy in LAZY):
                continue
            yield Violation(path, imp.line, f"imports {imp.target} inside {imp.function}(): a cycle in hiding; "
                                            "import it at the top, or list it in LAZY with a reason")
        if row is None:     # graphc/__init__.py stands above all
            continue
        if imp.target == PACKAGE:
            yield Violation(path, imp.line, f"{row.name} imports the package itself, which knows everything; "
                                            "import the module that is meant")
        elif not any(_within(imp.target, f"{PACKAGE}.{name}") for name in (row.name, *row.may)):
            may = ", ".join(row.may) or "nothing"
            yield Violation(path, imp.line, f"{row.name} may not import {imp.target} ({row.why}); it may import: {may}")


def _row(module: str) -> Row | None:
    fitting = [row for row in TABLE if _within(module, f"{PACKAGE}.{row.name}")]
    return max(fitting, key=lambda row: len(row.name), default=None)


def _lazy_allows(lazy: Lazy, module: str, imp: Import) -> bool:
    if lazy.module == PACKAGE:
        fits = module == PACKAGE
    else:
        fits = _within(module, lazy.module)
    return fits and lazy.inside in ("", imp.function) and any(_within(imp.target, t) for t in lazy.targets)


def _loads(module: Module, modules: dict[str, Module]) -> dict[str, int]:
    """What loading `module` loads, each with its line: modules of graphc (the packages around one too, but not
    those around `module` itself, which are loading already) and the top names of other libraries."""
    out: dict[str, int] = {}
    around = {module.name, *_ancestors(module.name)}
    for imp in sorted(module.imports, key=lambda imp: imp.line):
        if imp.when != "load":
            continue
        if not _within(imp.target, PACKAGE):
            out.setdefault(imp.target.partition(".")[0], imp.line)
            continue
        for name in (*_ancestors(imp.target), imp.target):
            if name in modules and (name not in around or name == imp.target):
                out.setdefault(name, imp.line)
    return out


def _cycles(modules: dict[str, Module], edges: dict[str, dict[str, int]], root: Path) -> Iterator[Violation]:
    """One violation for each group of modules that load each other: its shortest cycle from its first module."""
    told: set[str] = set()
    for name in sorted(modules):
        path = None if name in told else _path(edges, list(edges[name]), {name})
        if path is None:
            continue
        told.update(path)
        line = edges[name][path[0]]
        yield Violation(_relative(modules[name].path, root), line, "a cycle of imports: " + " → ".join([name, *path]))


def _heavy(modules: dict[str, Module], edges: dict[str, dict[str, int]], root: Path) -> Iterator[Violation]:
    for light in LIGHT:
        if light not in modules:
            continue
        for library in HEAVY:
            path = _path(edges, [*_ancestors(light), light], {library})
            if path is None:
                continue
            last = path[-2]
            yield Violation(_relative(modules[last].path, root), edges[last][library],
                            f"loads {library}, and `import {light}` comes to it: {' → '.join(path)}")


def _path(edges: dict[str, dict[str, int]], starts: list[str], goals: set[str]) -> list[str] | None:
    """A shortest path from one of `starts` to one of `goals`, both ends included."""
    queue = [[start] for start in starts]
    seen = set(starts)
    for path in queue:
        if path[-1] in goals:
            return path
        for name in edges.get(path[-1], {}):
            if name not in seen:
                seen.add(name)
                queue.append([*path, name])
    return None


def check_by_running(root: Path) -> list[Violation]:
    """Import each module of LIGHT in a fresh interpreter and look at what came with it."""
    found = []
    for light in LIGHT:
        folder = root.joinpath(*light.split("."))
        file = next((f for f in (folder / "__init__.py", folder.with_suffix(".py")) if f.exists()), None)
        if file is None:
            continue
        code = (f"import sys; sys.path.insert(0, {str(root)!r}); import {light}; "
                f"print(*[name for name in {HEAVY!r} if name in sys.modules])")
        run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root, check=False)
        if run.returncode != 0:
            last = (run.stderr.strip().splitlines() or ["no message"])[-1]
            found.append(Violation(_relative(file, root), 1, f"`import {light}` fails: {last}"))
        elif run.stdout.strip():
            names = ", ".join(run.stdout.split())
            found.append(Violation(_relative(file, root), 1, f"`import {light}` loads {names} when it runs"))
    return found


def _within(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(prefix + ".")


def _ancestors(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[:n]) for n in range(1, len(parts))]


def _relative(path: Path, root: Path) -> str:
    return str(path.relative_to(root)) if path.is_relative_to(root) else str(path)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Keep the direction of imports inside graphc.")
    parser.add_argument("root", nargs="?", type=Path, default=Path(__file__).resolve().parent.parent,
                        help="the folder that holds graphc/ (default: this project)")
    parser.add_argument("--no-run", action="store_true", help="read only; do not import graphc in a fresh interpreter")
    args = parser.parse_args(argv)
    root = args.root.resolve()
    if not (root / PACKAGE).is_dir():
        parser.error(f"{root} holds no folder {PACKAGE}")
    found, count = check(root)
    if not found and not args.no_run:
        found = check_by_running(root)
    for violation in found:
        print(violation)
    if found:
        print(f"imports: {len(found)} violation{'s' if len(found) > 1 else ''} in {count} modules")
        return 1
    print(f"imports: {count} modules, each imports only what its place allows")
    return 0


if __name__ == "__main__":
    sys.exit(main())
