"""What requests may take: a place among the queries."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Coroutine, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from astound.service.access import client_host
from astound.service.schemas import RefusedError
from engine.config import ServiceConfig

T = TypeVar("T")

_MAX_JSON_BYTES = 64_000
_MAX_CLIENTS = 10_000  # from then on, those that may send a full minute's worth are dropped
_RETRY_AFTER_S = 1


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
        self._ending = asyncio.Event()
        self._unfinished: set[Future[Any]] = set()

    @property
    def n_requests(self) -> int:
        """Number of requests that are answered or wait."""
        return self._clients.total()

    def require_room(self, client: str) -> None:
        """Refuse a request if the queue, or the client's part of it, is full.

        Raises
        ------
        RefusedError
        """
        if self.n_requests >= self._n_most:
            raise RefusedError(503, "overloaded", "too many requests at once", _RETRY_AFTER_S)
        if self._clients[client] >= self._n_most_per_client:
            reason = f"more than {self._n_most_per_client} requests of one client at once"
            raise RefusedError(429, "too_many_requests", reason, _RETRY_AFTER_S)

    @contextmanager
    def place(self, client: str) -> Iterator[None]:
        """Take a place in the queue, before anything of the request's body is read.

        Raises
        ------
        RefusedError
            The queue, or the client's part of it, is full.
        """
        self.require_room(client)
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
        RefusedError
            The service ends before the function does.
        """
        work = self._pool.submit(function)
        self._unfinished.add(work)
        work.add_done_callback(self._unfinished.discard)
        result = asyncio.wrap_future(work)
        leaving = asyncio.create_task(_departure(request))
        ending = asyncio.create_task(self._ending.wait())
        try:
            await _first(result, leaving, ending)
            if leaving.done() and not result.done() and work.cancel():
                raise ClientDisconnect
            await _first(result, ending)
            if not result.done():
                raise RefusedError(503, "not_ready", "the service is ending", _RETRY_AFTER_S)
            return await result
        finally:
            for waiting in (leaving, ending, result):
                waiting.cancel()

    def give_up(self) -> None:
        """Refuse the requests that are answered or wait; call it in the event loop."""
        self._ending.set()

    def close(self) -> None:
        """Wait for the functions that run, unless they were given up; no other is called."""
        self._pool.shutdown(wait=not self._ending.is_set(), cancel_futures=True)

    @property
    def is_running(self) -> bool:
        """Whether a function runs, such as one that was given up."""
        return bool(self._unfinished)


class QueryAdmission:
    """Middleware that refuses a query if there is no room, before its key or body is read.

    It stands before the routes so that a flood of refusals costs little: resolving a route and its
    dependencies takes as long as all the rest of a refusal.

    Parameters
    ----------
    app : ASGI application
    queue : QueryQueue
    paths : collection of str
        Those to which queries are posted.
    on_refusal : callable
        Makes the response.
    """

    def __init__(
        self,
        app: ASGIApp,
        queue: QueryQueue,
        paths: Collection[str],
        on_refusal: Callable[[Request, RefusedError], Response],
    ) -> None:
        self.app, self._queue, self._paths, self._on_refusal = app, queue, paths, on_refusal

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        app = self.app
        is_post = scope["type"] == "http" and scope["method"] == "POST"
        if is_post and route_path(scope) in self._paths:
            request = Request(scope)
            host = "" if request.headers.get("authorization") else client_host(request)
            try:
                self._queue.require_room(host)
            except RefusedError as error:
                app = self._on_refusal(request, error)
        await app(scope, receive, send)


def route_path(scope: Scope) -> str:
    """Return the path of a request below the prefix of a proxy."""
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", ""))


async def _first(*waiting: asyncio.Future[Any]) -> None:
    await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)


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
