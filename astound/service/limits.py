"""What a request may take: a place among the queries, and space for its clip on the disk."""

from __future__ import annotations

import asyncio
import math
import os
import tempfile
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypeVar

from fastapi.routing import APIRoute
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Message, Receive

from astound.service.schemas import RefusedError
from engine.config import ServiceConfig
from engine.errors import printable

T = TypeVar("T")

UPLOADS = "uploads"
"""Folder of the clips that are being received, in that of the catalog."""

_MAX_JSON_BYTES = 64_000
_RETRY_AFTER_S = 1
_LEFT_AFTER_S = 24 * 3600
_MULTIPART = b"multipart/form-data"
_UNNAMED = "upload"
_PIECE_BYTES = 1 << 19  # each is written in a thread, and changing to it takes time
_MAX_NAME = 1000
_MAX_CLIENTS = 10_000  # from then on, those that may send a full minute's worth are dropped


class QueryQueue:
    """Threads that answer queries, and a bounded number of requests that wait for one.

    Parameters
    ----------
    config : ServiceConfig
    """

    def __init__(self, config: ServiceConfig) -> None:
        self._pool = ThreadPoolExecutor(config.n_threads, "query")
        self._n_most = config.n_threads + config.max_waiting
        self._n_most_per_client = config.max_per_client
        self._clients: Counter[str] = Counter()

    @property
    def n_requests(self) -> int:
        """Number of requests that are answered or wait."""
        return self._clients.total()

    @contextmanager
    def place(self, client: str) -> Iterator[None]:
        """Take a place in the queue, before anything of the request's body is read.

        Raises
        ------
        RefusedError
            The queue, or the client's part of it, is full.
        """
        if self.n_requests >= self._n_most:
            raise RefusedError(503, "overloaded", "too many requests at once", _RETRY_AFTER_S)
        if self._clients[client] >= self._n_most_per_client:
            reason = f"more than {self._n_most_per_client} requests of one client at once"
            raise RefusedError(429, "too_many_requests", reason, _RETRY_AFTER_S)
        self._clients[client] += 1
        try:
            yield
        finally:
            self._clients[client] -= 1
            if not self._clients[client]:
                del self._clients[client]

    async def run(self, function: Callable[[], T], request: Request) -> T:
        """Call a function in one of the threads.

        Parameters
        ----------
        function : callable
        request : Request
            Whose body has been read, if it is needed.

        Raises
        ------
        ClientDisconnect
            The client has gone before a thread was free; the function was not called.
        """
        work = self._pool.submit(function)
        result = asyncio.wrap_future(work)
        leaving = asyncio.create_task(_departure(request))
        try:
            await asyncio.wait((result, leaving), return_when=asyncio.FIRST_COMPLETED)
            if not result.done() and work.cancel():
                raise ClientDisconnect
            return await result
        finally:
            leaving.cancel()
            work.cancel()

    def close(self) -> None:
        """Wait for the functions that run; those that wait are not called."""
        self._pool.shutdown(cancel_futures=True)


async def _departure(request: Request) -> None:
    """Wait until the client has gone."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


class RateLimit:
    """Bounds the requests of each client per minute; a minute's worth may come at once.

    Parameters
    ----------
    per_minute : float or None
        Any number if None.
    clock_s : callable
        Returns a time in seconds.
    """

    def __init__(
        self, per_minute: float | None, clock_s: Callable[[], float] = time.monotonic
    ) -> None:
        self._pause_s = 60.0 / per_minute if per_minute else 0.0
        self._burst_s = max(60.0 - self._pause_s, 0.0)
        self._clock_s = clock_s
        self._free_s: dict[str, float] = {}  # when all requests so far are paid for
        self._lock = threading.Lock()

    def count(self, client: str) -> None:
        """Count a request; RefusedError if there were too many."""
        if not self._pause_s:
            return
        now_s = self._clock_s()
        with self._lock:
            if len(self._free_s) >= _MAX_CLIENTS:
                self._free_s = {key: at for key, at in self._free_s.items() if at > now_s}
            free_s = max(self._free_s.get(client, now_s), now_s)
            wait_s = free_s - now_s - self._burst_s
            if wait_s <= 0:
                self._free_s[client] = free_s + self._pause_s
                return
        reason = f"more than {60 / self._pause_s:g} requests of one client in a minute"
        raise RefusedError(429, "rate_exceeded", reason, math.ceil(wait_s))


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


class JsonRoute(APIRoute):
    """A route whose body is JSON, which may have 64 kB."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the handler of a request."""
        handle = super().get_route_handler()

        async def limited(request: Request) -> Response:
            return await handle(Request(request.scope, _limited(request.receive)))

        return limited


def _limited(receive: Receive) -> Receive:
    n_bytes = 0

    async def limited() -> Message:
        nonlocal n_bytes
        message = await receive()
        n_bytes += len(message.get("body", b""))
        if n_bytes > _MAX_JSON_BYTES:
            reason = f"larger than {_MAX_JSON_BYTES / 1e3:g} kB; send less at once"
            raise HTTPException(413, reason)  # of its kind, FastAPI passes on no other
        return message

    return limited


def make_upload_folder(catalog: Path) -> Path | None:
    """Create the folder of uploads; remove those that a killed service left a day ago or earlier.

    Returns
    -------
    Path or None
        None if the catalog cannot be written.
    """
    folder = catalog / UPLOADS
    try:
        folder.mkdir(exist_ok=True)
        for file in folder.iterdir():
            if time.time() - file.stat().st_mtime > _LEFT_AFTER_S:
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
        try:
            opened = tempfile.NamedTemporaryFile(dir=folder)  # noqa: SIM115 - the stack closes it
            file = stack.enter_context(opened)
            kind, options = parse_options_header(request.headers.get("content-type"))
            form = _Form(options.get(b"boundary"), file) if kind == _MULTIPART else None
            async for chunk in _chunks(request, config):
                await asyncio.to_thread(form.write if form else file.write, chunk)
            file.flush()
        except OSError as error:
            reason = f"cannot store the clip: {error.strerror or error}"
            raise RefusedError(507, "insufficient_storage", reason) from error
        yield Upload(file.name, form.finish() if form else _UNNAMED)


async def _chunks(request: Request, config: ServiceConfig) -> AsyncIterator[bytes]:
    """Read the body in large pieces; RefusedError once it is too large or pauses for too long."""
    n_bytes = int(request.headers.get("content-length") or 0)
    if n_bytes > config.max_upload_bytes:
        raise _too_large(config)
    n_bytes, piece = 0, b""
    body = request.stream()
    while True:
        try:
            async with asyncio.timeout(config.max_pause_s):
                chunk = await anext(body, None)
        except TimeoutError as error:
            reason = f"no byte of the body came for {config.max_pause_s:g} s"
            raise RefusedError(408, "timeout", reason) from error
        if chunk is None:
            break
        n_bytes += len(chunk)
        if n_bytes > config.max_upload_bytes:
            raise _too_large(config)
        piece += chunk
        if len(piece) >= _PIECE_BYTES:
            yield piece
            piece = b""
    if piece:
        yield piece


def _too_large(config: ServiceConfig) -> RefusedError:
    reason = f"larger than {config.max_upload_bytes / 1e6:g} MB; send a part of it"
    return RefusedError(413, "body_too_large", reason)


class _Form:
    """Writes the file `file` of a multipart form to an open file.

    Parameters
    ----------
    boundary : bytes or None
        As the request names it.
    file : binary file
    """

    def __init__(self, boundary: bytes | None, file: IO[bytes]) -> None:
        self._file = file
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

    def finish(self) -> str:
        """Return the name of the file; RefusedError unless there was exactly one."""
        if not self._is_complete:
            raise RefusedError(400, "invalid_request", "invalid form: it ends early")
        if len(self._names) != 1:
            reason = f"{len(self._names)} files in the form; send one clip as the file `file`"
            raise RefusedError(400, "invalid_request", reason)
        return self._names[0][:_MAX_NAME] or _UNNAMED

    def _begin_part(self) -> None:
        self._disposition = {}

    def _add_field(self, data: bytes, start: int, end: int) -> None:
        self._field += data[start:end]

    def _add_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _end_header(self) -> None:
        if self._field.lower() == b"content-disposition":
            _, self._disposition = parse_options_header(self._value.decode("latin-1"))
        self._field, self._value = b"", b""

    def _end_headers(self) -> None:
        if self._is_file():
            name = self._disposition[b"filename"].decode("utf-8", "surrogateescape")
            self._names.append(printable(name))

    def _is_file(self) -> bool:
        return self._disposition.get(b"name") == b"file" and b"filename" in self._disposition

    def _write_part(self, data: bytes, start: int, end: int) -> None:
        if self._is_file() and len(self._names) == 1:
            self._file.write(data[start:end])

    def _end(self) -> None:
        self._is_complete = True


@contextmanager
def _valid_form() -> Iterator[None]:
    try:
        yield
    except FormParserError as error:
        raise RefusedError(400, "invalid_request", f"invalid form: {error}") from error
