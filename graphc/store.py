"""What was worked out once, kept in files by content: compiled kernels, partial derivatives.

A name is a hash of all that the content depends on, with a suffix that says what it is. Equal content of different
models is one file, and nothing ever needs to be invalidated. A file holds a digest of its content, so a damaged one is
noticed and made anew.
"""
from __future__ import annotations

import hashlib
import os
import tempfile
import warnings
from contextlib import suppress
from pathlib import Path

_MAGIC = b"graphc-store-1\n"

_kept: dict[str, bytes] = {}  # what could not be written, so that it is not worked out twice
_warned = False


def folder() -> Path:
    """Where the files are: $GRAPHC_CACHE_DIR, else `graphc` in the user's cache folder."""
    chosen = os.environ.get("GRAPHC_CACHE_DIR")
    if chosen:
        return Path(chosen)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "graphc"


def _path(name: str) -> Path:
    return folder() / name[:2] / name


def get(name: str) -> bytes | None:
    """The content of a name, or None. A damaged file is removed and counts as absent."""
    if name in _kept:
        return _kept[name]
    path = _path(name)
    try:
        whole = path.read_bytes()
    except OSError:
        return None
    header = len(_MAGIC) + hashlib.sha256().digest_size
    digest, content = whole[len(_MAGIC):header], whole[header:]
    if whole.startswith(_MAGIC) and hashlib.sha256(content).digest() == digest:
        return content
    with suppress(OSError):
        path.unlink()
    return None


def put(name: str, content: bytes) -> None:
    """Keep content under a name. A folder that cannot be written is warned of once; the content is kept in memory."""
    path = _path(name)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Written beside its place and moved there: no other process ever sees half a file.
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=name[:8], suffix=".part")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(_MAGIC + hashlib.sha256(content).digest() + content)
            os.replace(temporary, path)
        except BaseException:
            with suppress(OSError):
                os.unlink(temporary)
            raise
    except OSError as error:
        _kept[name] = content
        _warn(error)


def _warn(error: OSError) -> None:
    global _warned
    if not _warned:
        _warned = True
        warnings.warn(f"what is compiled cannot be kept in {folder()} ({error}); the next process compiles it again. "
                      "Set GRAPHC_CACHE_DIR to a folder that can be written.", RuntimeWarning, stacklevel=3)
