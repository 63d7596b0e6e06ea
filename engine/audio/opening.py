"""Open what may hold a recording: a file, a pipe, an open file; refuse what is none of these."""

from __future__ import annotations

import errno
import io
import os
import select
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO, Any, BinaryIO

from engine.errors import AudioError

MAX_SPOOLED_BYTES = 8 << 30
"""The longest pipe or open file that is read: half a day of CD quality without compression."""

_WRITER_WAIT_S = 1.5
_IDLE_S = 60.0
_CHUNK_BYTES = 1 << 20
# Paths that name another file in another process.
_OWN_PATHS = ("/dev/stdin", "/dev/fd/", "/proc/")
# Temporary files with a copy of a pipe or an open file.
_copies: set[str] = set()


@contextmanager
def opened(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Open a file to read and seek in; a pipe is copied to a temporary file first.

    Parameters
    ----------
    path : path-like

    Yields
    ------
    binary file

    Raises
    ------
    AudioError
        It is a folder, a device, a socket, or a pipe that nothing writes to.
    OSError
        It cannot be opened.
    """
    if _is_pipe(path):
        with tempfile.TemporaryFile(prefix="astound-") as copy:
            _copy_pipe(path, copy)
            copy.seek(0)
            yield copy
    else:
        with open(path, "rb") as file:
            yield file


@contextmanager
def as_path(source: Any) -> Iterator[str]:
    """Give a recording a path that another process can open.

    Parameters
    ----------
    source : path-like or binary file
        An open file is read from its beginning if it can seek.

    Yields
    ------
    str
        Absolute; that of a temporary file for pipes and open files.

    Raises
    ------
    AudioError, OSError
        As :func:`opened`.
    """
    if isinstance(source, (str, os.PathLike)) and not needs_copy(source):
        yield os.path.abspath(source)
        return
    with tempfile.NamedTemporaryFile(prefix="astound-") as copy:
        _copies.add(copy.name)
        try:
            if isinstance(source, (str, os.PathLike)):
                with opened(source) as file:
                    _copy(file, copy, source)
            else:
                if source.seekable():
                    source.seek(0)
                _copy(source, copy, name_of(source))
            copy.flush()
            yield copy.name
        finally:
            _copies.discard(copy.name)


def delete_copies() -> None:
    """Delete the temporary files of all threads, before the process ends without waiting."""
    for path in list(_copies):
        with suppress(OSError):
            os.unlink(path)


@contextmanager
def named(name: str) -> Iterator[None]:
    """Convert errors of a recording to AudioError with its name."""
    try:
        yield
    except AudioError as error:
        if error.source == name:
            raise
        raise AudioError(name, error.reason) from error
    except OSError as error:
        raise AudioError(name, error.strerror or str(error)) from error
    except ValueError as error:  # a zero byte in the path
        raise AudioError(name, str(error)) from error


def needs_copy(path: str | os.PathLike[str]) -> bool:
    """Decide whether only this process can read a path, and only once."""
    return os.fspath(path).startswith(_OWN_PATHS) or _is_pipe(path)


def name_of(file: Any) -> str:
    """Name of an open file in results and errors."""
    name = getattr(file, "name", None)
    return name if isinstance(name, str) else "open file"


def _is_pipe(path: str | os.PathLike[str]) -> bool:
    """Decide whether a path is a pipe; AudioError if it is no file at all."""
    mode = os.stat(path).st_mode
    if stat.S_ISDIR(mode):
        raise AudioError(path, "a folder, not a file")
    if stat.S_ISSOCK(mode):
        raise AudioError(path, "a socket, not a file")
    if stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
        raise AudioError(path, "a device, not a file")
    return stat.S_ISFIFO(mode)


def _copy_pipe(path: str | os.PathLike[str], copy: IO[bytes]) -> None:
    # Without O_NONBLOCK opening waits for a writer for ever.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    with open(descriptor, "rb", buffering=0) as pipe:
        _wait_for_writer(path, pipe, copy)
        _copy(_Patient(path, pipe), copy, path)


def _wait_for_writer(path: str | os.PathLike[str], pipe: io.FileIO, copy: IO[bytes]) -> None:
    """Copy the first bytes; a pipe without any writer reads as empty."""
    deadline = time.monotonic() + _WRITER_WAIT_S
    while time.monotonic() < deadline:
        content: bytes | None = pipe.read(_CHUNK_BYTES)
        if content is None:  # a writer is there and has not written yet
            return
        if content:
            copy.write(content)
            return
        time.sleep(0.02)
    raise AudioError(path, "nothing writes to this pipe")


class _Patient:
    """Reads a pipe that is not blocking as if it were, as long as its writer does not fall asleep.

    Parameters
    ----------
    path : path-like
        For the error.
    pipe : binary file
    """

    def __init__(self, path: str | os.PathLike[str], pipe: io.FileIO) -> None:
        self._path, self._pipe = path, pipe

    def read(self, n_bytes: int) -> bytes:
        content: bytes | None
        while (content := self._pipe.read(n_bytes)) is None:
            if not select.select([self._pipe], [], [], _IDLE_S)[0]:
                raise AudioError(self._path, f"nothing was written to this pipe for {_IDLE_S:g} s")
        return content


def _copy(source: Any, copy: IO[bytes], name: str | os.PathLike[str]) -> None:
    n_bytes = copy.tell()
    while content := source.read(_CHUNK_BYTES):
        n_bytes += len(content)
        if n_bytes > MAX_SPOOLED_BYTES:
            raise AudioError(
                name, f"longer than {MAX_SPOOLED_BYTES >> 30} GiB; save it to a file and add that"
            )
        _write(copy, content)


def _write(copy: IO[bytes], content: bytes) -> None:
    try:
        copy.write(content)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            folder = tempfile.gettempdir()
            error.strerror = f"no space left in {folder} for a copy of it; set TMPDIR"
        raise
