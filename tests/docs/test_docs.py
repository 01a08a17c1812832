"""The documentation is true: its Python runs, its output blocks are what is printed now, its links and paths exist."""
import importlib.machinery
import importlib.util
import re
import shlex
import sys
import tomllib
from pathlib import Path

import pytest
import typer.main

from graphc.cli.app import app
from graphc.errors import extra

ROOT = Path(__file__).resolve().parents[2]


def _tool():
    """tools/update_docs, which is a program and has no .py."""
    loader = importlib.machinery.SourceFileLoader("update_docs", str(ROOT / "tools" / "update_docs"))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("update_docs", loader))
    sys.modules[module.__name__] = module  # dataclasses look their module up
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        loader.exec_module(module)
    finally:
        sys.dont_write_bytecode = before
    return module


update_docs = _tool()
PAGES = update_docs.pages()
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


@each_page
def test_what_a_page_shows_is_what_happens(page):
    _, problems = update_docs.run(page)
    assert not problems, "\n".join(map(str, problems)) + "\nrun tools/update_docs and read what has changed"


def written(folder, text):
    page = folder / "page.md"
    page.write_text(text)
    return page


def test_a_stale_block_is_named_and_then_replaced(tmp_path, capsys):
    page = written(tmp_path, "# Page\n\n```python\nprint(1 + 1)\n```\n\n<!-- output: python -->\n```text\n3\n```\n\nEnd.\n")
    before = page.read_text()
    assert update_docs.main(["--check", str(page)]) == 1
    assert "page.md:8: the output of `python` is no longer this" in capsys.readouterr().out
    assert page.read_text() == before
    assert update_docs.main([str(page)]) == 0
    assert page.read_text() == before.replace("```text\n3", "```text\n2")
    assert update_docs.main(["--check", str(page)]) == 0


def test_a_block_that_fails_is_named_and_what_it_printed_is_kept(tmp_path, capsys):
    page = written(tmp_path, "```python\nx = 1\nprint(x / 0)\n```\n\n<!-- output: python -->\n```text\nkept\n```\n")
    before = page.read_text()
    assert update_docs.main([str(page)]) == 1
    assert "page.md:2: the block fails at line 3: ZeroDivisionError" in capsys.readouterr().out
    assert page.read_text() == before


def test_a_command_must_do_as_the_page_says(tmp_path):
    page = written(tmp_path, "<!-- output: graphc info nowhere -->\n```text\n```\n\n<!-- output: ! graphc --help -->\n```text\n```\n")
    _, problems = update_docs.run(page)
    assert ["exits with 2" in problems[0].what, "exits with 0" in problems[1].what] == [True, True]


# -- links and paths ---------------------------------------------------------------------------------------------------
def without_blocks(text):
    return re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)


def headings(page):
    """The anchors of a page, as GitHub makes them."""
    found = set()
    for title in re.findall(r"^#+ (.*)$", without_blocks(page.read_text("utf-8")), re.MULTILINE):
        kept = re.sub(r"[^\w\- ]", "", re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title).lower())
        found.add(kept.strip().replace(" ", "-"))
    return found


@each_page
def test_relative_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", without_blocks(page.read_text("utf-8"))):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        place = (page.parent / path).resolve() if path else page
        assert place.is_relative_to(ROOT), f"{page.name} links to {target}, which leaves the project"
        assert place.exists(), f"{page.name} links to {target}, which does not exist"
        if anchor and place.suffix == ".md":
            assert anchor in headings(place), f"{page.name} links to {target}: {place.name} has no such heading"


@each_page
def test_named_files_exist(page):
    """`graphc/…`, `models/…`, `tools/…`, `docs/…`, `tests/…` in backquotes are files of the project."""
    for name in re.findall(r"`((?:graphc|models|tools|docs|tests|\.ci)/[\w./-]*)`", page.read_text("utf-8")):
        assert (ROOT / name).exists(), f"{page.name} names {name}, which does not exist"


def test_the_map_names_every_package():
    text = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    for part in sorted((ROOT / "graphc").iterdir()):
        if part.name.startswith("__") or (part.is_dir() and not any(part.glob("*.py"))):
            continue
        name = f"`graphc/{part.name}{'/' if part.is_dir() else ''}`"
        assert name in text, f"the map of docs/architecture.md does not name {name}"


def test_the_reference_names_every_function():
    import graphc as gc

    text = (ROOT / "docs" / "language.md").read_text("utf-8")
    names = set(gc.__all__) - {"Tensor", "GraphcError", "testing"}
    missing = sorted(n for n in names if not re.search(rf"(?<![\w]){re.escape(n)}(?![\w])", text))
    assert not missing, f"docs/language.md does not name {', '.join(missing)}"


def test_no_file_sends_to_the_package_index_for_graphc():
    """`graphc` there is another project; what is told is an extra of pyproject.toml, from a clone."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    told = set()
    for path in (p for name in ("README.md", "docs", "graphc", "models", "tools") for p in files(ROOT / name)):
        text = path.read_text("utf-8")
        assert not re.search(r"pip install\W+(-\S+ )*['\"]?graphc\b", text), path
        told |= set(re.findall(r"pip install -e '\.\[(\w+)\]'|\bextra\(['\"](\w+)['\"]\)", text))
    names = {name for pair in told for name in pair if name}
    assert {"plot", "data", "text", "cuda"} <= names <= set(extras)
    assert extra("plot") == "pip install -e '.[plot]' in graphc's folder"


def files(path):
    """A file, or the text files below a folder."""
    kept = {".py", ".md", ""}
    return [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file() and p.suffix in kept]


# -- the command line --------------------------------------------------------------------------------------------------
def commands(page):
    """The graphc commands of shell blocks, and of output blocks."""
    text = page.read_text("utf-8")
    blocks = re.findall(r"^```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("graphc ")]


@each_page
def test_commands_parse(page):
    group = typer.main.get_command(app)
    for words in commands(page):
        words = [w for w in words if w not in ("--help",)]
        command = group.commands[words[0]]
        command.make_context(words[0], words[1:])  # raises where an option is unknown
