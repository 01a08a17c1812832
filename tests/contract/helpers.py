"""What the contract's tests share: a NumPy reference, model builders, the command line."""
import json
import os
import re
import subprocess
import sys

import numpy as np
import scipy.special

import graphc as gc


class _Reference:
    """NumPy under the names of the DSL; nothing here is derived from graphc."""

    sigmoid = staticmethod(scipy.special.expit)
    erf = staticmethod(scipy.special.erf)
    softmax = staticmethod(lambda x, axis=-1: scipy.special.softmax(x, axis=axis))
    log_softmax = staticmethod(lambda x, axis=-1: scipy.special.log_softmax(x, axis=axis))
    logsumexp = staticmethod(lambda x, axis=-1: scipy.special.logsumexp(x, axis=axis))
    relu = staticmethod(lambda x: np.maximum(x, 0))
    concat = staticmethod(lambda arrays, axis=0: np.concatenate(arrays, axis))
    const = staticmethod(np.asarray)

    def __getattr__(self, name):
        return getattr(np, name)


REFERENCE = _Reference()


def build(table, *annotations, **options):
    """Compile `table(gc, a, b, …)`, a dict of named outputs over inputs a, b, c, d with these annotations."""
    kinds = (*annotations, None, None, None, None)[:4]
    if len(annotations) == 1:
        @gc.model
        def net(a: kinds[0]):
            return gc.outputs(**table(gc, a))
    elif len(annotations) == 2:
        @gc.model
        def net(a: kinds[0], b: kinds[1]):
            return gc.outputs(**table(gc, a, b))
    elif len(annotations) == 3:
        @gc.model
        def net(a: kinds[0], b: kinds[1], c: kinds[2]):
            return gc.outputs(**table(gc, a, b, c))
    else:
        @gc.model
        def net(a: kinds[0], b: kinds[1], c: kinds[2], d: kinds[3]):
            return gc.outputs(**table(gc, a, b, c, d))
    return gc.compile(net, **options)


def reference(table, *arrays):
    """The same table over NumPy arrays."""
    with np.errstate(all="ignore"):
        return {name: np.asarray(value) for name, value in table(REFERENCE, *arrays).items()}


def same(got, want, rtol=1e-12, atol=1e-13, dtype=True):
    """Every output has the reference's shape, kind and values; NaN and infinities in the same places."""
    assert set(got) == set(want)
    wrong = []
    for name, value in want.items():
        mine = np.asarray(got[name])
        try:
            assert mine.shape == value.shape, f"shape {mine.shape}, not {value.shape}"
            assert not dtype or mine.dtype.kind == value.dtype.kind, f"type {mine.dtype}, not {value.dtype}"
            np.testing.assert_allclose(mine, value, rtol=rtol, atol=atol)
        except AssertionError as error:
            wrong.append(f"{name}: {error}")
    assert not wrong, "\n".join(wrong)


def check(table, annotations, *arrays, rtol=1e-12, atol=1e-13, compile_dtype="float64"):
    """Compile the table, run it on the arrays and compare it with NumPy."""
    m = build(table, *annotations, dtype=compile_dtype)
    same(m.forward(*arrays), reference(table, *arrays), rtol, atol)
    return m


ENVIRONMENT = {"NO_COLOR": "1", "TERM": "dumb", "COLUMNS": "200", "PYTHONIOENCODING": "utf-8", "MPLBACKEND": "Agg"}


def cli(*arguments, cwd):
    """Run `python -m graphc …` in the folder `cwd`."""
    return subprocess.run([sys.executable, "-m", "graphc", *map(str, arguments)], capture_output=True, text=True,
                          cwd=cwd, env={**os.environ, **ENVIRONMENT}, stdin=subprocess.DEVNULL, timeout=120)


def python(code, *arguments, cwd):
    """Run Python code in a process of its own."""
    return subprocess.run([sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True,
                          cwd=cwd, env={**os.environ, **ENVIRONMENT}, timeout=120)


_HELP = {}


def option(command, *names, cwd="."):
    """The first of these option names that `graphc COMMAND --help` knows; fails when it knows none."""
    if command not in _HELP:
        _HELP[command] = cli(command, "--help", cwd=cwd).stdout
    for name in names:
        if re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", _HELP[command]):
            return name
    raise AssertionError(f"graphc {command} --help names none of {', '.join(names)}:\n{_HELP[command]}")


def takes_value(command, name):
    """Whether the help shows a value after the option (`--resume PATH`), or a bare flag."""
    option(command, name)
    return bool(re.search(rf"(?<![\w-]){re.escape(name)}(?:\s*,?\s*-\w)?[ =]+(?:<\w+>|\[?[A-Z]{{3,}}\b)", _HELP[command]))


def snapshot(folder):
    """Every file under a folder with its bytes (Python's own bytecode left out)."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*"))
            if p.is_file() and "__pycache__" not in p.parts}


def documents(text):
    """The JSON in an output: one document, or one to a line."""
    try:
        return [json.loads(text)]
    except ValueError:
        found = []
        for line in text.splitlines():
            if line.strip().startswith(("{", "[")):
                found.append(json.loads(line))
        return found


def numbers_under(document, wanted):
    """All numbers in a JSON document under keys whose path contains `wanted`, in order."""
    found = []

    def walk(value, path):
        if isinstance(value, dict):
            for key, inner in value.items():
                walk(inner, f"{path}/{key}")
        elif isinstance(value, list):
            for inner in value:
                walk(inner, path)
        elif isinstance(value, (int, float)) and not isinstance(value, bool) and wanted in path:
            found.append(float(value))
    walk(document, "")
    return found
