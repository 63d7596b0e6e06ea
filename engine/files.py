"""Files that are whole or not there: written under another name, synced and renamed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PARTIAL_SUFFIX = ".partial"


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Write a file so that a crash leaves the old one or the new one, never a part of it.

    Parameters
    ----------
    path : Path
        Where the file shall be; an earlier one is replaced when the ``with`` block ends.

    Yields
    ------
    Path
        The file to write, in the same folder. It is removed if the block raises.

    Raises
    ------
    OSError
        The file cannot be written.
    """
    partial = path.with_name(path.name + PARTIAL_SUFFIX)
    try:
        yield partial
        sync(partial)
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    sync(path.parent)


def sync(path: Path) -> None:
    """Wait until a file or the entries of a folder are on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
