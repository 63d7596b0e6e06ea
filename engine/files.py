"""Atomic writes, and paths as text.

A file is written under another name, synced to disk, then renamed.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import quote, unquote_to_bytes

from engine.errors import printable

PARTIAL_SUFFIX = ".partial"
_URL = "file://"


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Write a file so that a crash leaves the old file or the new one, never a part.

    Parameters
    ----------
    path : Path
        The file to create or replace; replaced when the ``with`` block ends without an error.

    Yields
    ------
    Path
        The file to write, in the same folder. It does not exist yet, and is removed if the block
        raises.

    Raises
    ------
    OSError
        The file cannot be written, or the path is that of a device, a pipe or a folder.
    """
    if path.exists():
        require_regular(path)  # a rename would replace a device such as /dev/null
    partial = path.with_name(path.name + PARTIAL_SUFFIX)
    partial.unlink(missing_ok=True)  # of a process that was killed
    try:
        yield partial
        sync(partial)
        partial.replace(path)
    except BaseException:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        raise
    sync(path.parent)


def require_regular(path: Path) -> None:
    """Raise OSError unless a path is that of a regular file; reading a device may never end."""
    mode = path.stat().st_mode
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "not a regular file", str(path))


def sync(path: Path) -> None:
    """Flush a file, or the entries of a folder, to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def is_path(path: str) -> bool:
    """Decide whether a file can have this path at all."""
    try:
        return b"\0" not in os.fsencode(path)
    except UnicodeEncodeError:  # a surrogate that stands for no byte
        return False


def path_to_text(path: str) -> str:
    """Convert a path to text that is valid UTF-8.

    Parameters
    ----------
    path : str
        Bytes that are not valid UTF-8 are surrogates, as in Python's names of files.

    Returns
    -------
    str
        The path itself, or a ``file://`` URL if it is not valid UTF-8.
    """
    is_text = printable(path) == path and not path.startswith(_URL)
    return path if is_text else _URL + quote(os.fsencode(path))


def path_from_text(text: str) -> str:
    """Convert the text of :func:`path_to_text` back to the path."""
    if not text.startswith(_URL):
        return text
    return os.fsdecode(unquote_to_bytes(text.removeprefix(_URL)))
