"""File systems for tests of full disks and missing write rights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from benchmarks.runs import disks
from engine.errors import AstoundError


@contextmanager
def mounted(folder: Path, *options: str) -> Iterator[Path]:
    """Mount a file system on a new folder; skip the test where that is not allowed.

    Parameters
    ----------
    folder : Path
    options : str
        Arguments of mount(8) before the folder.
    """
    with ExitStack() as stack:
        try:
            stack.enter_context(disks.mounted(folder, *options))
        except AstoundError as error:
            pytest.skip(str(error))
        yield folder
