"""tools/check_imports.py finds every kind of violation: each is planted in a small tree and seen."""
import importlib.util
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TOOL = ROOT / "tools" / "check_imports.py"

# A tree in miniature that keeps every rule.
CLEAN = {
    "__init__.py": """
        def __getattr__(name):
            from graphc.pipeline import compile
            return compile
        """,
    "errors.py": "class GraphcError(Exception): pass",
    "graph/__init__.py": "from graphc.graph.node import Node",
    "graph/size.py": "from graphc.errors import GraphcError",
    "graph/node.py": "from . import size",
    "ops/__init__.py": "import graphc.graph.size",
    "frontend/__init__.py": "from graphc import ops",
    "nn/__init__.py": "from graphc.frontend import ops",
    "lowering/__init__.py": "",
    "lowering/ir.py": "from ..graph.size import GraphcError",
    "lowering/clusters.py": "from graphc.lowering import ir",
    "codegen/__init__.py": "",
    "codegen/cpu.py": "from graphc.lowering.ir import Loop",
    "codegen/primitives.py": "import math",
    "runtime/__init__.py": """
        from graphc.errors import GraphcError

        def launch():
            import numba
            from graphc.codegen import primitives
        """,
    "pipeline.py": "from graphc import lowering, nn, runtime\n\ndef compile(): ...",
    "cli/__init__.py": "def main():\n    import graphc.pipeline",
    "__main__.py": "from graphc.cli import main",
}


@pytest.fixture
def check(tmp_path):
    """Runs the tool over the clean tree with some files changed; gives the exit code and the lines printed."""
    def run(*arguments, **changed):
        for name, text in {**CLEAN, **changed}.items():
            path = tmp_path / "graphc" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(textwrap.dedent(text).strip() + "\n")
        r = subprocess.run([sys.executable, str(TOOL), str(tmp_path), *arguments], capture_output=True, text=True)
        assert not r.stderr, r.stderr
        return r.returncode, r.stdout.splitlines()
    return run


def test_a_clean_tree_is_one_line(check):
    code, lines = check("--no-run")
    assert code == 0
    assert lines == [f"imports: {len(CLEAN)} modules, each imports only what its place allows"]


@pytest.mark.parametrize("file,text,line,why", [
    ("errors.py", "import graphc.graph.size", 1, "errors may not import graphc.graph.size"),
    ("graph/size.py", "import math\n\nfrom graphc.ops import add", 3, "graph may not import graphc.ops"),
    ("ops/__init__.py", "from ..frontend import value", 1, "ops may not import graphc.frontend"),
    ("nn/__init__.py", "from graphc.graph import Node", 1, "nn may not import graphc.graph"),
    ("lowering/clusters.py", "from graphc import codegen", 1, "lowering may not import graphc.codegen"),
    ("codegen/cpu.py", "from graphc.lowering import clusters", 1, "codegen may not import graphc.lowering.clusters"),
    ("codegen/cpu.py", "import graphc.runtime", 1, "codegen may not import graphc.runtime"),
    ("runtime/__init__.py", "from graphc.graph.node import Node", 1, "runtime may not import graphc.graph.node"),
    ("pipeline.py", "from graphc.cli import main", 1, "pipeline may not import graphc.cli"),
    ("__main__.py", "import graphc.pipeline", 1, "__main__ may not import graphc.pipeline"),
    ("frontend/__init__.py", "import graphc as gc", 1, "frontend imports the package itself"),
    ("extra/__init__.py", "", 1, "graphc.extra has no row"),
    ("frontend/__init__.py", "import typing\nif typing.TYPE_CHECKING:\n    from graphc.pipeline import x", 3,
     "frontend may not import graphc.pipeline"),
    ("frontend/__init__.py", "import importlib\nimportlib.import_module('graphc.pipeline')", 2,
     "frontend may not import graphc.pipeline"),
])
def test_an_import_against_the_table(check, file, text, line, why):
    code, lines = check("--no-run", **{file: text})
    assert code == 1
    assert any(found.startswith(f"graphc/{file}:{line}: {why}") for found in lines), lines


@pytest.mark.parametrize("file,text,line", [
    ("ops/__init__.py", "def f():\n    from graphc.graph import size", 2),
    ("ops/__init__.py", "class Row:\n    def f(self):\n        import graphc.graph", 3),
    ("ops/__init__.py", "import importlib\ndef f():\n    importlib.import_module('graphc.graph')", 3),
    ("ops/__init__.py", "import importlib\ndef f():\n    importlib.import_module('..graph', __package__)", 3),
    ("runtime/__init__.py", "def f():\n    from graphc.codegen import cpu", 2),
    ("__init__.py", "def compile():\n    from graphc import pipeline", 2),
])
def test_an_import_inside_a_function(check, file, text, line):
    code, lines = check("--no-run", **{file: text})
    assert code == 1
    assert any(found.startswith(f"graphc/{file}:{line}: imports graphc.") and "a cycle in hiding" in found
               for found in lines), lines


def test_a_cycle_of_modules(check):
    code, lines = check("--no-run", **{"lowering/ir.py": "from graphc.lowering.clusters import x"})
    assert code == 1
    cycle = "graphc.lowering.clusters → graphc.lowering.ir → graphc.lowering.clusters"
    assert lines[0] == f"graphc/lowering/clusters.py:1: a cycle of imports: {cycle}"
    assert lines[1:] == [f"imports: 1 violation in {len(CLEAN)} modules"]


def test_a_cycle_through_a_package(check):
    code, lines = check("--no-run", **{"graph/node.py": "from graphc.graph import Node"})
    assert code == 1
    assert "graphc.graph → graphc.graph.node → graphc.graph" in lines[0]


def test_an_import_for_typing_makes_no_cycle(check):
    typing = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from graphc.lowering.clusters import x"
    assert check("--no-run", **{"lowering/ir.py": typing})[0] == 0


def test_a_heavy_library_on_the_way_to_the_run_time(check):
    changed = {"runtime/__init__.py": "from graphc.graph.size import x", "graph/node.py": "import networkx as nx"}
    code, lines = check("--no-run", **changed)
    assert code == 1
    way = "graphc.runtime → graphc.graph → graphc.graph.node → networkx"
    assert lines[0] == f"graphc/graph/node.py:1: loads networkx, and `import graphc.runtime` comes to it: {way}"


def test_what_reading_cannot_see_is_seen_by_running(check, tmp_path):
    for library in ("numpy_like", "sympy"):
        (tmp_path / f"{library}.py").write_text("import sympy\n" if library == "numpy_like" else "")
    code, lines = check(**{"runtime/__init__.py": "import numpy_like"})
    assert code == 1
    assert lines[0] == "graphc/runtime/__init__.py:1: `import graphc.runtime` loads sympy when it runs"


def test_a_module_that_fails_is_told(check):
    code, lines = check(**{"runtime/__init__.py": "raise RuntimeError('no')"})
    assert code == 1
    assert lines[0] == "graphc/runtime/__init__.py:1: `import graphc.runtime` fails: RuntimeError: no"


def test_a_file_that_cannot_be_parsed_is_told(check):
    code, lines = check("--no-run", **{"ops/__init__.py": "x = 1\ndef ("})
    assert code == 1
    assert lines[0].startswith("graphc/ops/__init__.py:2: cannot be read")


def test_the_table_itself_points_one_way():
    spec = importlib.util.spec_from_file_location("check_imports", TOOL)
    tool = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = tool
    spec.loader.exec_module(tool)
    above = []
    for row in tool.TABLE:
        assert all(name.partition(".")[0] in above for name in row.may), row.name
        assert row.why
        above.append(row.name)


def test_this_project_keeps_the_rules():
    r = subprocess.run([sys.executable, str(TOOL)], capture_output=True, text=True)
    assert r.returncode == 0, r.stdout
