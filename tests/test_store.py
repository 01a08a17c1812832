"""Files by content: what is put is got, damage and absence are the same, and no folder is needed."""
from __future__ import annotations

import errno
import os
import shutil
import tempfile
import threading
import warnings

import pytest

from graphc import store
from graphc.store import get, put

NAME, OTHER = "ab" * 32 + ".o", "ac" * 32 + ".partial"


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A folder of the test's own, and a process that has kept nothing yet."""
    monkeypatch.setenv("GRAPHC_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(store, "_kept", {})
    monkeypatch.setattr(store, "_warned", False)
    return tmp_path / "cache"


def files(folder):
    return sorted(p.name for p in folder.rglob("*") if p.is_file())


def test_put_and_get(folder):
    assert get(NAME) is None
    for content in (b"code", b"", bytes(range(256)) * 300):
        put(NAME, content)
        assert get(NAME) == content
    put(OTHER, b"text")
    assert (get(NAME), get(OTHER)) == (bytes(range(256)) * 300, b"text")
    assert files(folder) == [NAME, OTHER]


@pytest.mark.parametrize("damage", [lambda b: b[:-1], lambda b: b + b"x", lambda b: b"", lambda b: b"other" + b[5:],
                                    lambda b: b[:20], lambda b: b[:-3] + bytes([b[-3] ^ 1]) + b[-2:]])
def test_damaged_file_is_dropped(folder, damage):
    put(NAME, b"some content")
    path, = folder.rglob("*.o")
    path.write_bytes(damage(path.read_bytes()))
    assert get(NAME) is None
    assert not path.exists()
    put(NAME, b"new")
    assert get(NAME) == b"new"


def test_something_else_in_the_place_of_a_file_counts_as_absent(folder):
    (folder / NAME[:2] / NAME).mkdir(parents=True)
    assert get(NAME) is None
    with pytest.warns(RuntimeWarning):
        put(NAME, b"content")
    assert get(NAME) == b"content"
    assert files(folder) == []


def test_folder_that_cannot_be_written_warns_once(folder):
    folder.write_text("a file in the place of the folder")
    assert get(NAME) is None
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        put(NAME, b"one")
        put(OTHER, b"two")
    assert [w.category for w in caught] == [RuntimeWarning]
    text = str(caught[0].message)
    assert text.startswith(f"what is compiled cannot be kept in {folder} (")
    assert text.endswith("; the next process compiles it again. Set GRAPHC_CACHE_DIR to a folder that can be written.")
    assert (get(NAME), get(OTHER)) == (b"one", b"two")  # kept in memory
    assert folder.read_text() == "a file in the place of the folder"


@pytest.mark.parametrize("call", ["write", "replace"])
def test_full_disk(folder, monkeypatch, call):
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def fail(*_):
        raise full

    if call == "replace":
        monkeypatch.setattr(os, "replace", fail)
    else:
        real = os.fdopen

        class Full:
            def __init__(self, handle, mode):
                self.file = real(handle, mode)

            def __enter__(self):
                return self

            def __exit__(self, *_):
                self.file.close()

            def write(self, data):
                self.file.write(data[: len(data) // 2])
                raise full

        monkeypatch.setattr(os, "fdopen", Full)
    with pytest.warns(RuntimeWarning, match="No space left on device"):
        put(NAME, b"content")
    assert get(NAME) == b"content"
    assert files(folder) == []  # no half file is left, under any name


def test_interrupted_write_leaves_nothing(folder, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        put(NAME, b"content")
    assert files(folder) == [] and get(NAME) is None


def test_folder_deleted_while_running(folder, monkeypatch):
    put(NAME, b"one")
    shutil.rmtree(folder)
    assert get(NAME) is None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        put(NAME, b"two")  # it is made again
    assert get(NAME) == b"two"

    real = tempfile.mkstemp

    def late(*arguments, **options):  # deleted between the look and the write
        shutil.rmtree(folder)
        return real(*arguments, **options)

    monkeypatch.setattr(tempfile, "mkstemp", late)
    with pytest.warns(RuntimeWarning):
        put(OTHER, b"three")
    assert get(OTHER) == b"three"


def test_readers_never_see_half_a_file(folder):
    """Writers of one name side by side, as processes that compile one model are."""
    contents = [bytes([i]) * 200_000 for i in range(4)]
    put(NAME, contents[0])
    wrong, done = [], threading.Event()

    def write(content):
        while not done.is_set():
            put(NAME, content)

    writers = [threading.Thread(target=write, args=(c,)) for c in contents]
    for writer in writers:
        writer.start()
    try:
        for _ in range(300):
            found = get(NAME)
            if found not in contents:
                wrong.append(found)
    finally:
        done.set()
        for writer in writers:
            writer.join()
    assert wrong == []
    assert files(folder) == [NAME]


def test_folder_default(monkeypatch, tmp_path):
    monkeypatch.delenv("GRAPHC_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert store.folder() == tmp_path / "graphc"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert store.folder() == tmp_path / ".cache" / "graphc"
