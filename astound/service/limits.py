"""What requests may take: a place among the queries."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

from astound.service.schemas import RefusedError
from engine.config import ServiceConfig

T = TypeVar("T")

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
            raise RefusedError(503, "overloaded", "too many queries at once", _RETRY_AFTER_S)
        if self._clients[client] >= self._n_most_per_client:
            reason = f"more than {self._n_most_per_client} queries of one client at once"
            raise RefusedError(429, "too_many_requests", reason, _RETRY_AFTER_S)
        self._clients[client] += 1
        try:
            yield
        finally:
            self._clients[client] -= 1
            if not self._clients[client]:
                del self._clients[client]

    async def run(self, function: Callable[[], T]) -> T:
        """Call a function in one of the threads."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, function)

    def close(self) -> None:
        """Wait for the queries that run."""
        self._pool.shutdown()
