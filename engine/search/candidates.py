"""From a query's fingerprint to candidates: search, vote, rescore."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TypeVar

import numpy as np

from engine.config import AlignConfig, SearchConfig
from engine.records import Candidate, Fingerprint, Reference
from engine.search.alignment import rescore, sharpen
from engine.search.voting import vote
from engine.vectors.index import Index

T = TypeVar("T")

# Pairs of a query segment and a stored one that an exhaustive look votes with, to bound memory.
_MAX_PAIRS = 10_000_000
# Two tracks that agree with each other this well hold the same audio; unrelated ones reach 0.8.
_SAME_AUDIO = 0.9
_N_OTHERS = 10


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


def find(  # noqa: PLR0913 - what a catalog is asked with, one each
    query: Fingerprint,
    index: Index,
    reference_hop_s: float,
    search: SearchConfig,
    alignment: AlignConfig,
    stopwatch: Stopwatch,
    within: Index | None = None,
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
    within : Index, optional
        The same, narrowed to the tracks that may be found. All their segments are looked at, not
        only the nearest, while `index` still tells what any music reaches.

    Returns
    -------
    list of Candidate
        One for each track, best first.
    """
    sharp = sharpen(query, alignment)
    with stopwatch.step("search"):
        voters = index.search(
            sharp,
            max(search.top_k, search.n_voters or 0),
            n_rescored=search.n_rescored,
            n_probe=search.n_probe,
        )
        hits, tracks = voters.first(search.top_k), index
        if within is not None:
            tracks = within
            n_all = min(within.n_segments, max(_MAX_PAIRS // len(sharp), search.top_k))
            voters = within.search(sharp, n_all)
    with stopwatch.step("align"):
        diagonals = vote(voters, round(reference_hop_s / query.segment_hop_s), alignment)
        reference = Reference(reference_hop_s, tracks.n_positions, tracks.vectors)
        candidates = rescore(diagonals, query, sharp, hits, reference, alignment)
        return with_margins(candidates, query.duration_s, reference)


def with_margins(
    candidates: Iterable[Candidate], duration_s: float, reference: Reference
) -> list[Candidate]:
    """Sort candidates by their evidence, and measure each one's lead over the other tracks.

    A track that holds the very same audio is passed over: a single and an album, or a file and
    its re-encoding, must not make each other doubtful.

    Parameters
    ----------
    candidates : iterable of Candidate
        One for each track.
    duration_s : float
        Length of the query.
    reference : Reference

    Returns
    -------
    list of Candidate
        Most evidence first.
    """
    ranked = sorted(candidates, key=lambda one: -one.evidence)
    return [_with_margin(candidate, ranked, duration_s, reference) for candidate in ranked]


def _with_margin(
    candidate: Candidate, ranked: Sequence[Candidate], duration_s: float, reference: Reference
) -> Candidate:
    rival = next(
        (
            other.evidence
            for other in ranked
            if other.track_id != candidate.track_id
            and not _same_audio(candidate, other, duration_s, reference)
        ),
        0.0,
    )
    others = [one.evidence for one in ranked[: _N_OTHERS + 1] if one is not candidate]
    return replace(
        candidate,
        margin=candidate.evidence - rival,
        others=float(np.mean(others[:_N_OTHERS])) if others else 0.0,
    )


def _same_audio(one: Candidate, other: Candidate, duration_s: float, reference: Reference) -> bool:
    """Compare what two tracks store where the query lies in them."""
    # Two speeds that differ by chance agree best in the middle.
    bent_s = [(at.speed - 1) * duration_s / 2 for at in (one, other)]
    starts = [
        round((at.offset_s + bent) / reference.hop_s)
        for at, bent in zip((one, other), bent_s, strict=True)
    ]
    ends = [
        reference.n_positions(at.track_id) - start
        for at, start in zip((one, other), starts, strict=True)
    ]
    first = max(0, -min(starts))
    last = min(max(int(duration_s / reference.hop_s), 1), *ends)
    if last <= first:
        return False
    stored, compared = (
        reference.vectors(at.track_id, start + first, start + last)
        for at, start in zip((one, other), starts, strict=True)
    )
    return float((stored * compared).sum(axis=1).mean()) >= _SAME_AUDIO
