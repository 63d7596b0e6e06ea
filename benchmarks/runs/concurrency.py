"""Many askers of one open catalog, each a thread that asks again as soon as it is answered."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

import astound
from astound.catalog import Catalog
from benchmarks.runs.cold_start import Opening
from engine.records import Match, QueryResult

N_ASKERS = (1, 2, 4, 8, 16, 32, 64)
N_EACH = 4
"""Queries of each asker, at least."""
_N_WARM_UP = 3

Answer = tuple[str, tuple[Match, ...]]
"""Status and matches: what must not depend on who else is asking."""


def answer(result: QueryResult) -> Answer:
    """Leave out what differs from time to time."""
    return result.status, tuple(result.matches)


def ask(
    opening: Opening, clips: Sequence[Path], alone: Sequence[Answer], n_askers: int, n_queries: int
) -> dict[str, Any]:
    """Open a catalog and let several ask at once. Call it in a process of its own.

    Parameters
    ----------
    opening : Opening
    clips : sequence of Path
    alone : sequence of Answer
        What each of the clips was answered when nobody else asked.
    n_askers, n_queries : int
        The queries are those of all askers together; clips are asked for again when they run out.

    Returns
    -------
    dict
        What :func:`crowd` gives.
    """
    with astound.open(**opening.options()) as catalog:
        for clip in clips[:_N_WARM_UP]:
            catalog.query(clip)
        return crowd(catalog, clips, alone, n_askers, n_queries)


def crowd(
    catalog: Catalog,
    clips: Sequence[Path],
    alone: Sequence[Answer],
    n_askers: int,
    n_queries: int,
) -> dict[str, Any]:
    """Let several threads ask one open catalog.

    Parameters
    ----------
    catalog : Catalog
    clips, alone, n_askers, n_queries
        As in :func:`ask`.

    Returns
    -------
    dict
        n_askers; n, how many queries; queries_per_s; p50_ms, p95_ms and p99_ms of their latency;
        cpu_ms, processor time of this process for each; n_different, how many were answered
        otherwise than alone.
    """

    def ask_one(number: int) -> tuple[float, bool]:
        which = number % len(clips)
        began = time.perf_counter()
        result = catalog.query(clips[which])
        return (time.perf_counter() - began) * 1000, answer(result) == alone[which]

    n_all = max(n_queries, N_EACH * n_askers)
    began, cpu_began = time.perf_counter(), time.process_time()
    with ThreadPoolExecutor(n_askers) as askers:
        done = list(askers.map(ask_one, range(n_all)))
    wall_s, cpu_s = time.perf_counter() - began, time.process_time() - cpu_began
    p50, p95, p99 = np.percentile([taken_ms for taken_ms, _ in done], [50, 95, 99]).tolist()
    return {
        "n_askers": n_askers,
        "n": n_all,
        "queries_per_s": n_all / wall_s,
        "p50_ms": p50,
        "p95_ms": p95,
        "p99_ms": p99,
        "cpu_ms": 1000 * cpu_s / n_all,
        "n_different": sum(not same for _, same in done),
    }
