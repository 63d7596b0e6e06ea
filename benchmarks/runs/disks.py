"""Small file systems, to be filled."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

from engine.errors import AstoundError

_BLOCK_BYTES = 512


@contextmanager
def mounted(folder: Path, *options: str) -> Iterator[Path]:
    """Mount a file system on a new folder.

    Parameters
    ----------
    folder : Path
    options : str
        Arguments of mount(8) before the folder.

    Raises
    ------
    AstoundError
        This process has no right to mount.
    """
    folder.mkdir()
    try:
        subprocess.run(["mount", *options, str(folder)], capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise AstoundError("mounting a file system is not allowed here") from error
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)  # files may be open yet


def small_disk(folder: Path, n_bytes: int) -> AbstractContextManager[Path]:
    """Mount a file system of a size in memory on a new folder."""
    return mounted(folder, "-t", "tmpfs", "-o", f"size={n_bytes}", "tmpfs")


def fill(disk: Path, n_free: int = 0) -> Path:
    """Write a file that leaves about this many bytes free on a disk."""
    filler = disk / "filler"
    with suppress(OSError), filler.open("wb", buffering=0) as file:
        while file.write(bytes(_BLOCK_BYTES)):
            pass
    if n_free:
        with filler.open("r+b") as file:
            file.truncate(max(filler.stat().st_size - n_free, 0))
    return filler
