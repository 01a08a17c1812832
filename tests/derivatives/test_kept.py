"""Partials that are kept between processes: the same as derived ones, and never those of another row or rule."""
from __future__ import annotations

import subprocess
import sys
import textwrap
from dataclasses import replace

import pytest

from graphc import store
from graphc.derivatives import partials
from graphc.graph import scalar as sc
from graphc.graph.dtype import f32, f64
from graphc.graph.text import parse_scalar
from graphc.ops.elementwise import ROWS

ALL = [(name, k) for name, row in ROWS.items() for k in range(row.arity)]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A folder of the test's own, and a process that knows no template yet."""
    monkeypatch.setenv("GRAPHC_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(store, "_kept", {})
    partials.template.cache_clear()
    yield tmp_path / "cache"
    partials.template.cache_clear()


@pytest.mark.parametrize("dtype", [f32, f64], ids=str)
def test_what_is_kept_is_what_is_derived(folder, dtype, monkeypatch):
    derived = {key: partials.template(*key, dtype) for key in ALL}
    assert len(list(folder.rglob("*.partial"))) == len(ALL)  # no two share a name
    partials.template.cache_clear()
    monkeypatch.setattr(partials, "_template", lambda *_: pytest.fail("nothing is derived again"))
    for key in ALL:
        assert partials.template(*key, dtype) is derived[key]  # interned: the very same expression


def test_text_of_every_template_reads_back():
    for key in ALL:
        found = partials._template(*key, f32)
        assert parse_scalar(sc.to_text(found)) is found


def test_next_process_loads_no_sympy(folder):
    partials.template("tanh", 0, f32)
    script = """
        import sys
        from graphc.derivatives import partials
        from graphc.graph.dtype import f32
        print(partials.template("tanh", 0, f32))
        assert "sympy" not in sys.modules and "networkx" not in sys.modules
    """
    ran = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=True, capture_output=True, text=True)
    assert ran.stdout.strip() == str(partials.template("tanh", 0, f32))


def test_the_first_template_keeps_those_of_all_rows(folder):
    """A later process with another operation needs no SymPy."""
    partials.template("tanh", 0, f32)
    assert len(list(folder.rglob("*.partial"))) == len(ALL)
    script = """
        import sys
        from graphc.derivatives import partials
        from graphc.graph.dtype import f32
        print(partials.template("div", 1, f32))
        assert "sympy" not in sys.modules
    """
    ran = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=True, capture_output=True, text=True)
    assert ran.stdout.strip() == str(partials._template("div", 1, f32))


def test_damaged_entry_is_derived_again(folder):
    right = partials.template("sigmoid", 0, f32)
    path = next(folder.rglob(partials._kept_as(ROWS["sigmoid"], 0, f32)))
    path.write_bytes(path.read_bytes()[:-2])
    partials.template.cache_clear()
    assert partials.template("sigmoid", 0, f32) is right
    assert path.exists()


def test_another_rule_in_place_of_ours_is_neither_kept_nor_given_what_is_kept(folder, monkeypatch):
    right = partials.template("tanh", 0, f32)
    partials.template.cache_clear()
    real = partials.partial
    with monkeypatch.context() as patch:
        patch.setattr(partials, "partial", lambda name, k: 2 * real(name, k))
        wrong = partials.template("tanh", 0, f32)
        partials.template("exp", 0, f32)
    assert wrong is not right
    assert len(list(folder.rglob("*.partial"))) == len(ALL)
    partials.template.cache_clear()
    assert partials.template("tanh", 0, f32) is right


CHANGES = {
    "its mathematics": {"math": ROWS["exp"].math},
    "its stable form": {"stable": {0: lambda x, y: 1 - y * y}},
    "whether it goes through the output": {"reuse": False},
    "whether it has a derivative": {"differentiable": False},
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_name_depends_on_the_row(change):
    row = ROWS["tanh"]
    assert partials._kept_as(replace(row, **change), 0, f32) != partials._kept_as(row, 0, f32)


def test_name_depends_on_all_else(monkeypatch):
    row = ROWS["mul"]
    names = {partials._kept_as(row, 0, f32), partials._kept_as(row, 1, f32), partials._kept_as(row, 0, f64)}
    version = partials._version()
    for i in range(len(version)):
        changed = [*version[:i], version[i] + "x", *version[i + 1:]]
        monkeypatch.setattr(partials, "_version", lambda changed=changed: changed)
        names.add(partials._kept_as(row, 0, f32))
    assert len(names) == 3 + len(version) == 8  # SymPy, and four modules


def test_row_that_no_file_states_is_not_kept(folder):
    scope: dict = {}
    exec(compile("half = lambda x: x / 2", "<typed in>", "exec"), scope)
    assert partials._kept_as(replace(ROWS["tanh"], math=scope["half"]), 0, f32) is None
