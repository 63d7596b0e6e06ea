"""Files in the bodies of requests, received within limits on bytes and pauses."""

from __future__ import annotations

import asyncio
import codecs
import os
import re
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from astound.service.schemas import RefusedError
from engine.config import ServiceConfig
from engine.errors import printable

UPLOADS = "uploads"
"""Folder of what is being received, in that of the catalog."""

LEFT_AFTER_S = 24 * 3600
"""Age of a file in it from which a killed service has left it, unless a job needs it."""

MAX_FILES = 1000
"""Files in one form."""

_MULTIPART = b"multipart/form-data"
UNNAMED = "upload"
"""Name of a file that the client gave none."""

_PIECE_BYTES = 1 << 19  # each is written in a thread, and changing to it takes time
_JSON_HEAD_BYTES = 256
_CONTROL = re.compile(rb"[\x00-\x08\x0e-\x1f]")  # not in JSON
_MAX_NAME = 1000
_MAX_STEM_BYTES, _MAX_SUFFIX_BYTES = 180, 20  # of the name of a file; systems take 255 in all

OpenFile = Callable[[str], IO[bytes] | None]
"""Opens the file for a part of a form by the name of the part; None to drop it."""


@dataclass(frozen=True)
class Upload:
    """A clip that was received.

    Parameters
    ----------
    path : str
        Of a temporary file.
    name : str
        As the client named it.
    """

    path: str
    name: str


def make_upload_folder(catalog: Path) -> Path | None:
    """Create the folder of uploads; remove the clips that a killed service left in it.

    Returns
    -------
    Path or None
        None if the catalog cannot be written.
    """
    folder = catalog / UPLOADS
    try:
        folder.mkdir(exist_ok=True)
        for file in folder.iterdir():
            if file.is_file() and time.time() - file.stat().st_mtime > LEFT_AFTER_S:
                file.unlink()
        return folder if os.access(folder, os.W_OK) else None
    except OSError:
        return None


@asynccontextmanager
async def received(
    request: Request, folder: Path | None, config: ServiceConfig
) -> AsyncIterator[Upload]:
    """Write the clip in a request's body to a temporary file, and remove it in the end.

    Parameters
    ----------
    request : Request
        Its body is a multipart form with the file `file`, or else the file itself.
    folder : Path or None
        Where to write it; that of temporary files if None.
    config : ServiceConfig

    Raises
    ------
    RefusedError
        The body is too large, stops coming, is no valid form, or the disk is full.
    """
    with ExitStack() as stack:
        with _storing():
            opened = tempfile.NamedTemporaryFile(dir=folder)  # noqa: SIM115 - the stack closes it
            file = stack.enter_context(opened)
            first = iter([file])
            names = await _receive(
                request, lambda _: next(first, None), config.max_upload_bytes, config.max_pause_s
            )
            file.flush()
        if len(names) != 1:
            reason = f"{len(names)} files in the form; send one clip as the file `file`"
            raise RefusedError(400, "invalid_request", reason)
        yield Upload(file.name, names[0])


async def receive_files(
    request: Request, folder: Path, config: ServiceConfig, name: str | None = None
) -> list[str]:
    """Write the files in a request's body into a folder, and sync them to the disk.

    Parameters
    ----------
    request : Request
        Its body is a multipart form with one or more files `file`, or else one file.
    folder : Path
        An empty one. The files get the names that the client gave them, as far as possible.
    config : ServiceConfig
    name : str, optional
        Of a file that is the whole body.

    Returns
    -------
    list of str
        Names of the files, in the order of the form.

    Raises
    ------
    RefusedError
        The body is too large, stops coming, is no valid form, has no or too many files, or the disk
        is full.
    """
    with _storing(), _Files(folder) as files:
        limits = config.max_job_upload_bytes, config.max_pause_s
        await _receive(request, files.open, *limits, name=name)
        await asyncio.to_thread(files.close)
    if not files.names:
        reason = "no file in the form; send one or more as the file `file`"
        raise RefusedError(400, "invalid_request", reason)
    if files.empty:
        raise RefusedError(400, "invalid_request", f"the file {files.empty[0]!r} is empty")
    return files.names


def is_json(request: Request) -> bool:
    """Return whether the body of a request is JSON, as its header says."""
    return request.headers.get("content-type", "").partition(";")[0].strip() == "application/json"


async def read_body(request: Request, max_bytes: int, config: ServiceConfig) -> bytes:
    """Read a small body into memory; RefusedError if it is too large or stops coming."""
    return b"".join([chunk async for chunk in _chunks(request, max_bytes, config.max_pause_s)])


async def _receive(
    request: Request,
    open_file: OpenFile,
    max_bytes: int,
    max_pause_s: float,
    *,
    name: str | None = None,
) -> list[str]:
    """Write the files in a body, and return the names that the client gave them."""
    kind, options = parse_options_header(request.headers.get("content-type"))
    form = _Form(options.get(b"boundary"), open_file) if kind == _MULTIPART else None
    write: Callable[[bytes], object]
    if form is not None:
        write = form.write
    else:
        file = open_file(name or UNNAMED)
        assert file is not None
        write = file.write
    is_first = form is None
    async for chunk in _chunks(request, max_bytes, max_pause_s):
        if is_first and _is_json_text(chunk):
            reason = "the body is JSON: send the header `content-type: application/json`"
            raise RefusedError(422, "invalid_request", f"invalid body: {reason}")
        is_first = False
        await asyncio.to_thread(write, chunk)
    return form.finish() if form else [UNNAMED]


def _is_json_text(chunk: bytes) -> bool:
    """Return whether a body begins as JSON, and as no audio does: cut MP3 may begin with any byte.

    The header does not decide: by default, curl gives both the content type of a form.
    """
    text = chunk[:_JSON_HEAD_BYTES].lstrip()
    if text[:1] not in (b"{", b"["):
        return False
    try:
        codecs.getincrementaldecoder("utf-8")().decode(text)
    except UnicodeDecodeError:
        return False
    return not _CONTROL.search(text)


@contextmanager
def _storing() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = f"cannot store the upload: {error.strerror or error}"
        raise RefusedError(507, "insufficient_storage", reason) from error


async def _chunks(request: Request, max_bytes: int, max_pause_s: float) -> AsyncIterator[bytes]:
    """Read the body in large pieces; RefusedError once it is too large or pauses for too long."""
    if int(request.headers.get("content-length") or 0) > max_bytes:
        raise _too_large(max_bytes)
    n_bytes, piece = 0, b""
    body = request.stream()
    while True:
        try:
            async with asyncio.timeout(max_pause_s):
                chunk = await anext(body, None)
        except TimeoutError as error:
            reason = f"no byte of the body came for {max_pause_s:g} s"
            raise RefusedError(408, "timeout", reason) from error
        if chunk is None:
            break
        n_bytes += len(chunk)
        if n_bytes > max_bytes:
            raise _too_large(max_bytes)
        piece += chunk
        if len(piece) >= _PIECE_BYTES:
            yield piece
            piece = b""
    if piece:
        yield piece


def _too_large(max_bytes: int) -> RefusedError:
    reason = f"larger than {max_bytes / 1e6:g} MB; send a part of it"
    return RefusedError(413, "body_too_large", reason)


class _Files:
    """Creates files in a folder under names that are safe and not taken.

    Parameters
    ----------
    folder : Path

    Attributes
    ----------
    names : list of str
        Of the files so far.
    empty : list of str
        Those of them without content.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file: IO[bytes] | None = None
        self.names: list[str] = []
        self.empty: list[str] = []

    def __enter__(self) -> _Files:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def open(self, name: str) -> IO[bytes]:
        """Create the next file, and close the one before."""
        self.close()
        if len(self.names) == MAX_FILES:
            reason = f"more than {MAX_FILES} files in the form; send several forms"
            raise RefusedError(400, "invalid_request", reason)
        stem, suffix = file_name(name)
        free, number = stem + suffix, 1
        while free in self.names:
            number += 1
            free = f"{stem} ({number}){suffix}"
        self.names.append(free)
        self._file = (self._folder / free).open("xb")
        return self._file

    def close(self) -> None:
        """Sync the last file to the disk, and close it."""
        if self._file is not None:
            file, self._file = self._file, None
            with file:
                if not file.tell():
                    self.empty.append(self.names[-1])
                file.flush()
                os.fsync(file.fileno())


def file_name(name: str) -> tuple[str, str]:
    """Return stem and suffix of a file name that any system takes, similar to one of a client."""
    last = re.split(r"[/\\]", name)[-1]
    clean = "".join(c for c in last if c.isprintable() and c not in ':*?"<>|').strip()
    stem, suffix = os.path.splitext(clean)
    stem = _shortened(stem, _MAX_STEM_BYTES)
    return (stem if stem.strip(".") else UNNAMED), _shortened(suffix, _MAX_SUFFIX_BYTES)


def _shortened(text: str, n_bytes: int) -> str:
    return text.encode()[:n_bytes].decode(errors="ignore")


class _Form:
    """Writes the files `file` of a multipart form.

    Parameters
    ----------
    boundary : bytes or None
        As the request names it.
    open_file : OpenFile
        Called for each of them.
    """

    def __init__(self, boundary: bytes | None, open_file: OpenFile) -> None:
        self._open_file = open_file
        self._file: IO[bytes] | None = None
        self._names: list[str] = []
        self._field, self._value = b"", b""
        self._disposition: dict[bytes, bytes] = {}
        self._is_complete = False
        with _valid_form():
            self._parser = MultipartParser(
                boundary or b"",
                {
                    "on_part_begin": self._begin_part,
                    "on_header_field": self._add_field,
                    "on_header_value": self._add_value,
                    "on_header_end": self._end_header,
                    "on_headers_finished": self._end_headers,
                    "on_part_data": self._write_part,
                    "on_end": self._end,
                },
            )

    def write(self, chunk: bytes) -> None:
        """Parse the next bytes of the body."""
        with _valid_form():
            self._parser.write(chunk)

    def finish(self) -> list[str]:
        """Return the names of the files as the client gave them; RefusedError if it ends early."""
        if not self._is_complete:
            raise RefusedError(400, "invalid_request", "invalid form: it ends early")
        return self._names

    def _begin_part(self) -> None:
        self._disposition, self._file = {}, None

    def _add_field(self, data: bytes, start: int, end: int) -> None:
        self._field += data[start:end]

    def _add_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _end_header(self) -> None:
        if self._field.lower() == b"content-disposition":
            _, self._disposition = parse_options_header(self._value.decode("latin-1"))
        self._field, self._value = b"", b""

    def _end_headers(self) -> None:
        if self._disposition.get(b"name") == b"file" and b"filename" in self._disposition:
            name = self._disposition[b"filename"].decode("utf-8", "surrogateescape")
            self._names.append(printable(name)[:_MAX_NAME] or UNNAMED)
            self._file = self._open_file(self._names[-1])

    def _write_part(self, data: bytes, start: int, end: int) -> None:
        if self._file is not None:
            self._file.write(data[start:end])

    def _end(self) -> None:
        self._is_complete = True


@contextmanager
def _valid_form() -> Iterator[None]:
    try:
        yield
    except FormParserError as error:
        raise RefusedError(400, "invalid_request", f"invalid form: {error}") from error
