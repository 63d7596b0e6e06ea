"""Find the tracks of a catalog that contain the same recording, by their stored vectors.

Some segments of each track are searched among all others, and their hits vote for tracks and
offsets as those of a query do. The few tracks with votes are compared in full. The cost grows with
the catalog as that of its searches does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.compare.passages import (
    Span,
    length_s,
    merge_spans,
    passages,
    query_span,
    reference_span,
    shared_s,
)
from engine.config import MIN_SHARED_S, DedupConfig
from engine.protocol import VectorIndex
from engine.records import (
    NO_ADDRESS,
    Duplicate,
    DuplicateKind,
    Fingerprint,
    Hits,
    Passage,
    positions,
    track_ids,
)

# Two tracks are full duplicates if this share of what is audible in either lies in the other along
# one line.
_FULL_SHARE = 0.9
# Segments that are searched in each shortest passage; in each track, for full duplicates only.
_N_PROBES = 6
_N_FULL_PROBES = 32
# Neighbours of each of these segments: many, because a track's own repetitions are nearest.
_K = 64
# Other tracks that a track is compared with at most.
_MAX_CANDIDATES = 20

# A hit votes with what its cosine exceeds this by; unrelated music reaches 0.8.
_MIN_HIT_COSINE = 0.7
# Least votes on one diagonal; docs/measurements.md#compared-recordings.
_MIN_VOTES = 0.6
# Offsets that share a cell: those of a copy at another speed, or off the grid, differ.
_CELL = 2
_OFFSET_BITS = 32
_OFFSET_BIAS = 1 << (_OFFSET_BITS - 1)

# Least score of a passage by its length in seconds; docs/measurements.md#compared-recordings.
_LENGTHS_S = (10.0, 40.0)
_MIN_SCORES = (0.85, 0.74)
# Least score of a copy by the difference of its speed to 1. Another mix of the same piece, at the
# same speed, has about 0.8.
_SPEED_CHANGES = (0.015, 0.03)
_MIN_COPY_SCORES = (0.85, 0.74)


@dataclass(frozen=True, kw_only=True)
class DuplicateFinder:
    """Finds the duplicates in an index.

    Parameters
    ----------
    index : VectorIndex
    segment_hop_s, segment_s : float
        Distance and length of the stored segments.
    durations_s : mapping
        Length of each track by its id.
    config : DedupConfig
    """

    index: VectorIndex
    segment_hop_s: float
    segment_s: float
    durations_s: Mapping[int, float]
    config: DedupConfig

    def find(self, on_progress: Callable[[int, int], None]) -> Iterator[Duplicate]:
        """Compare each track with those that its segments are found in.

        Parameters
        ----------
        on_progress : callable
            Called after each track with the number of tracks done and in total.

        Yields
        ------
        Duplicate
            As they are found; each pair of tracks once.
        """
        compared: set[tuple[int, int]] = set()
        ids = self.index.track_ids
        for n_done, track_id in enumerate(ids, 1):
            for other_id in self._candidates(track_id):
                pair = min(track_id, other_id), max(track_id, other_id)
                if pair not in compared and (duplicate := self._compare(*pair)):
                    yield duplicate
                compared.add(pair)
            on_progress(n_done, len(ids))

    def audible_s(self, duplicates: Iterable[Duplicate]) -> dict[int, float]:
        """Return how many seconds are audible of each track in some duplicates, by its id."""
        ids = {track_id for pair in duplicates for track_id in (pair.first_id, pair.second_id)}
        return {track_id: self._fingerprint(track_id).audible_s for track_id in ids}

    def _candidates(self, track_id: int) -> list[int]:
        """Find the tracks that segments of one are found in."""
        stored = self.index.vectors(track_id, 0, self.index.n_positions(track_id))
        probes = np.arange(0, len(stored), self._probe_step(len(stored)))
        probes = probes[stored[probes].any(axis=1)]
        hits = self.index.search(stored[probes], _K)
        return _tracks_by_votes(hits, probes, track_id)[:_MAX_CANDIDATES]

    def _probe_step(self, n_segments: int) -> int:
        if self.config.full_only:
            return max(n_segments // _N_FULL_PROBES, 1)
        return max(self._min_match_length // _N_PROBES, 1)

    @property
    def _min_match_length(self) -> int:
        return self._n_within(self.config.min_length_s)

    def _n_within(self, length_s: float) -> int:
        """Segments within a passage, wherever it lies between the stored ones."""
        return max(int((length_s - self.segment_s) / self.segment_hop_s), 1)

    def _compare(self, first_id: int, second_id: int) -> Duplicate | None:
        first, second = self._fingerprint(first_id), self._fingerprint(second_id)
        shortest_s = min(MIN_SHARED_S, self.config.min_length_s)
        found = passages(first, second, self._n_within(shortest_s))
        found = [passage for passage in found if self._is_accepted(passage)]
        if not any(self._is_long(passage) for passage in found):
            return None
        best = max(found, key=lambda one: one.score * length_s(query_span(one)))
        kind: DuplicateKind = "full" if _is_copy(best) else "version"
        shared = [best]
        shares = _shares(shared, first, second)
        if min(shares) < _FULL_SHARE:
            kind, shared = "part", found
            shares = _shares(shared, first, second)
        if self.config.full_only and kind != "full":
            return None
        return Duplicate(
            kind=kind,
            first_id=first_id,
            second_id=second_id,
            first_share=shares[0],
            second_share=shares[1],
            passages=tuple(shared),
        )

    def _is_accepted(self, passage: Passage) -> bool:
        min_score = np.interp(length_s(query_span(passage)), _LENGTHS_S, _MIN_SCORES)
        is_near = abs(passage.speed - 1) <= self.config.max_speed_change
        return bool(is_near and passage.score >= min_score)

    def _is_long(self, passage: Passage) -> bool:
        return length_s(query_span(passage)) >= self._min_match_length * self.segment_hop_s

    def _fingerprint(self, track_id: int) -> Fingerprint:
        stored = self.index.vectors(track_id, 0, self.index.n_positions(track_id))
        return Fingerprint(
            embeddings=stored,
            clip_embeddings=stored[:0],
            segment_hop_s=self.segment_hop_s,
            segment_s=self.segment_s,
            duration_s=self.durations_s[track_id],
            recipe_id="",  # the same for all tracks of a catalog
        )


def _tracks_by_votes(hits: Hits, probes: NDArray[np.int64], track_id: int) -> list[int]:
    """Tracks with enough votes on one diagonal, most votes first, without the track itself."""
    tracks = track_ids(hits.addresses)
    votes = hits.cosines - _MIN_HIT_COSINE
    valid = (hits.addresses != NO_ADDRESS) & (tracks != track_id) & (votes > 0)
    offsets = (positions(hits.addresses) - probes[:, None])[valid]
    most: dict[int, float] = {}
    for shift in range(_CELL):  # so that two adjacent offsets share a cell once
        cells = tracks[valid] << _OFFSET_BITS | ((offsets + shift) // _CELL + _OFFSET_BIAS)
        keys, cell_of = np.unique(cells, return_inverse=True)
        heights = np.bincount(cell_of, votes[valid], len(keys))
        for at in np.flatnonzero(heights >= _MIN_VOTES):
            other_id = int(keys[at] >> _OFFSET_BITS)
            most[other_id] = max(most.get(other_id, 0.0), float(heights[at]))
    return sorted(most, key=lambda other_id: (-most[other_id], other_id))


def _is_copy(passage: Passage) -> bool:
    min_score = np.interp(abs(passage.speed - 1), _SPEED_CHANGES, _MIN_COPY_SCORES)
    return bool(passage.score >= min_score)


def _shares(
    shared: Sequence[Passage], first: Fingerprint, second: Fingerprint
) -> tuple[float, float]:
    """Return the shares of two recordings that passages cover."""
    return _share(map(query_span, shared), first), _share(map(reference_span, shared), second)


def _share(spans: Iterable[Span], fingerprint: Fingerprint) -> float:
    """Share of a recording, from its first to its last audible segment, that lies in spans."""
    starts_s = fingerprint.starts_s[fingerprint.audible]
    end_s = min(float(starts_s[-1]) + fingerprint.segment_s, fingerprint.duration_s)
    audible = float(starts_s[0]), end_s
    return sum(shared_s(audible, span) for span in merge_spans(spans)) / length_s(audible)
