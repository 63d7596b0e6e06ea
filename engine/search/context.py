"""What every search takes besides the query: index, settings and stopwatch."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

from engine.config import AlignConfig, SearchConfig
from engine.protocol import VectorIndex
from engine.records import TrackReader

T = TypeVar("T")


class Stopwatch:
    """Measure the time each step of a query takes, for one thread.

    A step inside another step is not counted to the outer one.
    """

    def __init__(self) -> None:
        self.timings_ms: dict[str, float] = {}
        self._step: str | None = None
        self._since = 0.0

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Add the time spent inside the ``with`` block to a step."""
        outer = self._step
        self._switch(name)
        try:
            yield
        finally:
            self._switch(outer)

    def watch(self, name: str, items: Iterable[T]) -> Iterator[T]:
        """Yield items, adding the time spent on producing them to a step."""
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


@dataclass(frozen=True, kw_only=True)
class SearchContext:
    """An index with the settings it is searched with.

    Use :func:`dataclasses.replace` to search another index or with other settings, and to give
    each thread a stopwatch of its own.

    Parameters
    ----------
    index : VectorIndex
    reference_hop_s : float
        Distance of the stored segments in seconds.
    search : SearchConfig
    alignment : AlignConfig
    n_voting_neighbours : int
        Nearest neighbours of each segment that vote, if more than `search.k`.
    stopwatch : Stopwatch
        Measures the steps "decode", "encode", "search" and "align".
    """

    index: VectorIndex
    reference_hop_s: float
    search: SearchConfig = field(default_factory=SearchConfig)
    alignment: AlignConfig = field(default_factory=AlignConfig)
    n_voting_neighbours: int = 0
    stopwatch: Stopwatch = field(default_factory=Stopwatch)

    @property
    def tracks(self) -> TrackReader:
        """Read access to the vectors of the index's tracks."""
        return TrackReader(self.reference_hop_s, self.index.n_positions, self.index.vectors)
