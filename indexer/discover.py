"""Find the audio files in paths given by the user."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from engine.audio.walk import audio_files
from engine.errors import printable
from indexer.report import Failure


@dataclass(frozen=True)
class FoundFile:
    """A file to ingest; size and time of change tell later whether it was touched.

    Parameters
    ----------
    path : str
        Absolute.
    n_bytes, modified_ns : int
    """

    path: str
    n_bytes: int
    modified_ns: int


def discover(paths: Iterable[str | os.PathLike[str]]) -> Iterator[FoundFile | Failure]:
    """Find the audio files in files and folders.

    Parameters
    ----------
    paths : iterable of path-like
        A file is accepted whatever its name. A folder is searched with
        :func:`engine.audio.walk.audio_files`.

    Yields
    ------
    FoundFile or Failure
        Each file once. A Failure stands for a path that is missing, unreadable or no regular file.
    """
    seen: set[str] = set()
    for given in paths:
        for path in _expand(os.path.abspath(given)):
            if isinstance(path, Failure):
                yield path
            elif path not in seen:
                seen.add(path)
                yield _stat(path)


def _expand(path: str) -> Iterator[str | Failure]:
    if not os.path.isdir(path):
        yield path
        return
    failures: list[Failure] = []
    yield from audio_files(path, lambda error: failures.append(_failure(error)))
    yield from failures


def _stat(path: str) -> FoundFile | Failure:
    try:
        status = os.stat(path)
    except OSError as error:
        return _failure(error)
    except ValueError:
        return Failure(printable(path), "NUL byte in the name; no file has one")
    if not stat.S_ISREG(status.st_mode):  # reading a pipe or a device may never end
        return Failure(path, "not a regular file")
    return FoundFile(path, status.st_size, status.st_mtime_ns)


def _failure(error: OSError) -> Failure:
    return Failure(printable(error.filename), error.strerror or str(error))
