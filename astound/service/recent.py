"""The latest queries of a service, in memory only, and none of their audio."""

from __future__ import annotations

from collections import deque
from datetime import UTC, datetime

from astound.results import JsonObject, record_object
from astound.service.schemas import MAX_QUERIES
from astound.service.uploads import UNNAMED
from engine.errors import printable
from engine.records import QueryResult

_OF_A_MATCH = ("track_id", "title", "artist", "path", "confidence")


class RecentQueries:
    """What was answered lately."""

    def __init__(self) -> None:
        self._queries: deque[JsonObject] = deque(maxlen=MAX_QUERIES)

    def add(self, result: QueryResult, elapsed_s: float) -> None:
        """Add a query, and the seconds from the request to the answer."""
        match = record_object(result.best) if result.best else None
        self._queries.appendleft(
            {
                "answered_at": datetime.now(UTC).isoformat(timespec="seconds"),
                "name": None if result.query == UNNAMED else printable(result.query),
                "status": result.status,
                "duration_s": result.duration_s,
                "elapsed_s": round(elapsed_s, 3),
                "best": match and {key: match[key] for key in _OF_A_MATCH},
            }
        )

    def latest(self, n_most: int) -> list[JsonObject]:
        """Return the objects of the latest queries, the last one first."""
        return list(self._queries)[:n_most]
