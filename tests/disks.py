"""File systems for tests of full disks and missing write rights."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def mounted(folder: Path, *options: str) -> Iterator[Path]:
    """Mount a file system on a new folder; skip the test where that is not allowed.

    Parameters
    ----------
    folder : Path
    options : str
        Arguments of mount(8) before the folder.
    """
    folder.mkdir()
    try:
        subprocess.run(["mount", *options, str(folder)], capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("mounting a file system is not allowed")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)
