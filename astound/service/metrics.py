"""Counts and times of the service, in the text format of Prometheus."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from engine.records import Job, QueryResult, Stats

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4

_SECONDS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)


class Metrics:
    """The metrics of one service.

    Parameters
    ----------
    n_requests : callable
        Returns the number of queries that are answered or wait.
    """

    def __init__(self, n_requests: Callable[[], int]) -> None:
        self._registry = registry = CollectorRegistry()
        self._queries = Counter(
            "astound_queries", "Queries by their status.", ["status"], registry=registry
        )
        self._refusals = Counter(
            "astound_refusals", "Requests refused, by the code.", ["code"], registry=registry
        )
        self._seconds = Histogram(
            "astound_query_seconds",
            "Seconds of a query by step; `whole` includes waiting for a thread.",
            ["step"],
            buckets=_SECONDS,
            registry=registry,
        )
        queue = Gauge("astound_queue", "Queries running or waiting.", registry=registry)
        queue.set_function(n_requests)
        self._jobs = Gauge("astound_jobs", "Jobs by their status.", ["status"], registry=registry)
        self._tracks = Gauge("astound_tracks", "Tracks in the catalog.", registry=registry)
        self._track_seconds = Gauge(
            "astound_track_seconds", "Seconds of all tracks.", registry=registry
        )
        self._segments = Gauge("astound_segments", "Segments of all tracks.", registry=registry)
        self._bytes = Gauge("astound_shard_bytes", "Bytes of all shards.", registry=registry)

    def count_query(self, result: QueryResult, whole_s: float) -> None:
        """Count a query and its seconds."""
        self._queries.labels(result.status).inc()
        self._seconds.labels("whole").observe(whole_s)
        for step, time_ms in result.timings_ms.items():
            self._seconds.labels(step).observe(time_ms / 1000)

    def count_refusal(self, code: str) -> None:
        """Count a request that was refused."""
        self._refusals.labels(code).inc()

    def text(self, stats: Stats, jobs: Sequence[Job]) -> bytes:
        """Return all metrics, with the size of the catalog and the jobs that have not ended."""
        for status in ("queued", "running"):
            self._jobs.labels(status).set(sum(job.status == status for job in jobs))
        self._tracks.set(stats.n_tracks)
        self._track_seconds.set(stats.duration_s)
        self._segments.set(stats.n_segments)
        self._bytes.set(stats.n_bytes)
        return generate_latest(self._registry)
