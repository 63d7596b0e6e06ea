"""Concurrent queries: several threads query one open catalog, each without a pause."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

import astound
from astound.catalog import Catalog
from benchmarks.runs.cold_start import OpenOptions
from engine.records import Match, QueryResult

N_THREADS = (1, 2, 4, 8, 16, 32, 64)
MIN_QUERIES = 4
"""Minimum number of queries per thread."""
_N_WARM_UP = 3

Answer = tuple[str, tuple[Match, ...]]
"""Status and matches, which must not depend on concurrent queries."""


def answer(result: QueryResult) -> Answer:
    """Reduce a result to its answer, without timings."""
    return result.status, tuple(result.matches)


def open_and_run(
    options: OpenOptions,
    clips: Sequence[Path],
    expected: Sequence[Answer],
    n_threads: int,
    n_queries: int,
) -> dict[str, Any]:
    """Open a catalog and run concurrent queries. To be called in a process of its own.

    Parameters
    ----------
    options : OpenOptions
    clips, expected, n_threads, n_queries
        As in :func:`run`.

    Returns
    -------
    dict
        The result of :func:`run`.
    """
    with astound.open(**options.arguments()) as catalog:
        for clip in clips[:_N_WARM_UP]:
            catalog.query(clip)
        return run(catalog, clips, expected, n_threads, n_queries)


def run(
    catalog: Catalog,
    clips: Sequence[Path],
    expected: Sequence[Answer],
    n_threads: int,
    n_queries: int,
) -> dict[str, Any]:
    """Query one open catalog from several threads.

    Parameters
    ----------
    catalog : Catalog
    clips : sequence of Path
        Used in turn.
    expected : sequence of Answer
        Answer to each clip without concurrent queries.
    n_threads : int
    n_queries : int
        Number of queries of all threads together; at least MIN_QUERIES per thread are run.

    Returns
    -------
    dict
        n_askers, the number of threads; n, the number of queries; queries_per_s; p50_ms, p95_ms and
        p99_ms of the latency; cpu_ms, processor time of this process per query; n_different, the
        number of answers that differ from the expected ones.
    """

    def query(number: int) -> tuple[float, bool]:
        i = number % len(clips)
        start = time.perf_counter()
        result = catalog.query(clips[i])
        return (time.perf_counter() - start) * 1000, answer(result) == expected[i]

    n_all = max(n_queries, MIN_QUERIES * n_threads)
    start, cpu_start = time.perf_counter(), time.process_time()
    with ThreadPoolExecutor(n_threads) as threads:
        done = list(threads.map(query, range(n_all)))
    wall_s, cpu_s = time.perf_counter() - start, time.process_time() - cpu_start
    p50, p95, p99 = np.percentile([taken_ms for taken_ms, _ in done], [50, 95, 99]).tolist()
    return {
        "n_askers": n_threads,
        "n": n_all,
        "queries_per_s": n_all / wall_s,
        "p50_ms": p50,
        "p95_ms": p95,
        "p99_ms": p99,
        "cpu_ms": 1000 * cpu_s / n_all,
        "n_different": sum(not same for _, same in done),
    }
