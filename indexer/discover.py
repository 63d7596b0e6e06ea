"""Paths as a person gives them to the files meant by them."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from engine.audio.decode import EXTENSIONS
from engine.errors import printable
from indexer.report import Failure


@dataclass(frozen=True)
class FoundFile:
    """A file to ingest, recognisable later by its size and time of change.

    Parameters
    ----------
    path : str
        Absolute.
    n_bytes, modified_ns : int
    """

    path: str
    n_bytes: int
    modified_ns: int


def scan(paths: Iterable[str | os.PathLike[str]]) -> Iterator[FoundFile | Failure]:
    """Find the audio files among paths.

    Parameters
    ----------
    paths : iterable of path-like
        A file is taken whatever its name; a folder is searched through all its subfolders for
        files with an ending that audio or video has, in the order of their names.

    Yields
    ------
    FoundFile or Failure
        Each file once. What is missing, no regular file, may not be read or has a name that is not
        UTF-8 is a Failure.
    """
    seen: set[str] = set()
    for given in paths:
        for path in _expand(os.path.abspath(given)):
            if isinstance(path, Failure):
                yield path
            elif path not in seen:
                seen.add(path)
                yield _examine(path)


def _expand(path: str) -> Iterator[str | Failure]:
    if not os.path.isdir(path):
        yield path
        return
    failures: list[Failure] = []
    for folder, subfolders, names in os.walk(
        path, onerror=lambda error: failures.append(_unreadable(error))
    ):
        subfolders.sort()
        for name in sorted(names):
            if Path(name).suffix[1:].lower() in EXTENSIONS:
                yield os.path.join(folder, name)
    yield from failures


def _examine(path: str) -> FoundFile | Failure:
    if printable(path) != path:
        return Failure(printable(path), "its name is not valid UTF-8; rename it")
    try:
        status = os.stat(path)
    except OSError as error:
        return _unreadable(error)
    if not stat.S_ISREG(status.st_mode):  # a pipe or a device may never end
        return Failure(path, "not a regular file")
    return FoundFile(path, status.st_size, status.st_mtime_ns)


def _unreadable(error: OSError) -> Failure:
    return Failure(printable(error.filename), error.strerror or str(error))
