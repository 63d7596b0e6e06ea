"""First answers to requests that a client may repeat, so that nothing is done twice."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable

from starlette.responses import Response

from astound.service.schemas import RefusedError

_N_KEPT = 1000
_N_BYTES_KEPT = 16_000_000


class FirstAnswers:
    """The latest answers to requests with a header Idempotency-Key, in bounded memory."""

    def __init__(self) -> None:
        self._entries: OrderedDict[Hashable, _Entry] = OrderedDict()
        self._lock = threading.Lock()

    def once(self, key: Hashable, content: Hashable, answer: Callable[[], Response]) -> Response:
        """Answer a request, or return the first answer to the same one.

        A request that fails may be sent again.

        Parameters
        ----------
        key : hashable
            The client and its key.
        content : hashable
            What is requested.
        answer : callable
            Makes the first answer.

        Raises
        ------
        RefusedError
            The client has used the key for another request.
        """
        with self._lock:
            entry = self._entries.setdefault(key, _Entry(content))
            self._drop_oldest()
        if entry.content != content:
            reason = "the Idempotency-Key belongs to another request; choose a new one"
            raise RefusedError(422, "idempotency_key_reused", reason)
        with entry.lock:  # a repetition waits for the first answer
            if entry.response is None:
                entry.response = answer()
        return entry.response

    def _drop_oldest(self) -> None:
        n_bytes = sum(entry.n_bytes for entry in self._entries.values())
        while len(self._entries) > _N_KEPT or n_bytes > _N_BYTES_KEPT:
            n_bytes -= self._entries.popitem(last=False)[1].n_bytes


class _Entry:
    def __init__(self, content: Hashable) -> None:
        self.content = content
        self.lock = threading.Lock()
        self.response: Response | None = None

    @property
    def n_bytes(self) -> int:
        return len(self.response.body) if self.response else 0
