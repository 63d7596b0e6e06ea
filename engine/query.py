"""From a query's fingerprint to candidates: search, vote, rescore."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from engine import align
from engine.config import AlignConfig, SearchConfig
from engine.index import Index
from engine.margin import with_margins
from engine.records import Candidate, Fingerprint, Reference
from engine.vote import vote

T = TypeVar("T")


class Stopwatch:
    """Milliseconds spent in each step of a query; a step inside another stops the outer one."""

    def __init__(self) -> None:
        self.timings_ms: dict[str, float] = {}
        self._step: str | None = None
        self._since = 0.0

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Count the time spent inside the ``with`` block to a step."""
        outer = self._step
        self._switch(name)
        try:
            yield
        finally:
            self._switch(outer)

    def watch(self, name: str, items: Iterable[T]) -> Iterator[T]:
        """Pass items on, counting the time it takes to get them to a step."""
        iterator = iter(items)
        while True:
            with self.step(name):
                try:
                    item = next(iterator)
                except StopIteration:
                    return
            yield item

    def _switch(self, name: str | None) -> None:
        now = time.perf_counter()
        if self._step is not None:
            spent = self.timings_ms.get(self._step, 0.0) + (now - self._since) * 1000
            self.timings_ms[self._step] = round(spent, 3)
        self._step, self._since = name, now


def find(
    query: Fingerprint,
    index: Index,
    reference_hop_s: float,
    search: SearchConfig,
    alignment: AlignConfig,
    stopwatch: Stopwatch,
) -> list[Candidate]:
    """Find the tracks a query may come from.

    Parameters
    ----------
    query : Fingerprint
        The catalog's hop must be a multiple of its hop.
    index : Index
    reference_hop_s : float
        The catalog's hop.
    search : SearchConfig
    alignment : AlignConfig
    stopwatch : Stopwatch
        Is told the time of the steps "search" and "align".

    Returns
    -------
    list of Candidate
        One for each track, best first.
    """
    sharp = align.sharpen(query, alignment)
    with stopwatch.step("search"):
        hits = index.search(sharp, search.top_k)
    with stopwatch.step("align"):
        diagonals = vote(hits, round(reference_hop_s / query.segment_hop_s), alignment)
        reference = Reference(reference_hop_s, index.n_positions, index.vectors)
        candidates = align.rescore(diagonals, query, sharp, hits, reference, alignment)
        return with_margins(candidates, query.duration_s, reference)
