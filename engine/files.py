"""Atomic writes: a file is written under another name, synced to disk, then renamed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PARTIAL_SUFFIX = ".partial"


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
        The file cannot be written.
    """
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


def sync(path: Path) -> None:
    """Flush a file, or the entries of a folder, to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
