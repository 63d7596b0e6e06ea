"""Find the tracks of a catalog that contain the same recording, by their stored vectors.

Some segments of each track are searched among all others, and their hits vote for tracks and
offsets as those of a query do. The few tracks with votes are compared in full. The cost grows with
the catalog as that of its searches does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from engine.compare.passages import (
    MIN_COSINE,
    Span,
    drop_covered,
    length_s,
    merge_spans,
    passages,
    query_span,
    reference_span,
    shared_s,
)
from engine.config import DedupConfig
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
        """Segments within the shortest passage, wherever it lies between the stored ones."""
        return max(int((self.config.min_length_s - self.segment_s) / self.segment_hop_s), 1)

    def _compare(self, first_id: int, second_id: int) -> Duplicate | None:
        first, second = self._fingerprint(first_id), self._fingerprint(second_id)
        found = passages(first, second, self._min_match_length)
        found = [passage for passage in found if self._is_accepted(passage)]
        if not found:
            return None
        best = max(found, key=lambda one: one.score * length_s(query_span(one)))
        along = _agreeing(first, second, best), _agreeing(second, first, _swapped(best))
        shares = [
            float(agrees.sum() / fingerprint.audible.sum())
            for agrees, fingerprint in zip(along, (first, second), strict=True)
        ]
        kind: DuplicateKind = "full" if _is_copy(best) else "version"
        if min(shares) >= _FULL_SHARE:
            shared = [_between(_extent(along[0], first), _extent(along[1], second), best)]
        else:
            kind, shared = "part", drop_covered(found)
            shares = [
                _share(map(query_span, shared), first),
                _share(map(reference_span, shared), second),
            ]
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


def _between(query: Span, reference: Span, like: Passage) -> Passage:
    """Make a passage of two spans with the score and speed of another one."""
    return Passage(
        query_start_s=query[0],
        query_end_s=query[1],
        reference_start_s=reference[0],
        reference_end_s=reference[1],
        score=like.score,
        speed=like.speed,
    )


def _swapped(passage: Passage) -> Passage:
    """Swap the query and the reference of a passage."""
    swapped = _between(reference_span(passage), query_span(passage), passage)
    return replace(swapped, speed=1 / passage.speed)


def _agreeing(query: Fingerprint, reference: Fingerprint, passage: Passage) -> NDArray[np.bool_]:
    """Follow the line of a passage through the whole query.

    Returns
    -------
    bool array of shape (n_segments,)
        Which segments agree with one beside the line; silent ones never do.
    """
    offset_s = sum(reference_span(passage)) / 2 - passage.speed * sum(query_span(passage)) / 2
    on_line = (passage.speed * query.starts_s + offset_s) / reference.segment_hop_s
    nearest = np.rint(on_line).astype(np.int64)
    last = len(reference.embeddings) - 1
    best = np.full(len(nearest), -1.0)
    for beside in (-1, 0, 1):
        stored = reference.embeddings[(nearest + beside).clip(0, last)]
        best = np.maximum(best, np.einsum("nd,nd->n", query.embeddings, stored))
    inside: NDArray[np.bool_] = (nearest >= 0) & (nearest <= last)
    return inside & (best >= MIN_COSINE)


def _extent(selected: NDArray[np.bool_], fingerprint: Fingerprint) -> Span:
    """Start of the first and end of the last of some segments."""
    starts_s = fingerprint.starts_s[selected]
    end_s = min(float(starts_s[-1]) + fingerprint.segment_s, fingerprint.duration_s)
    return float(starts_s[0]), end_s


def _share(spans: Iterable[Span], fingerprint: Fingerprint) -> float:
    """Share of a recording, from its first to its last audible segment, that lies in spans."""
    audible = _extent(fingerprint.audible, fingerprint)
    return sum(shared_s(audible, span) for span in merge_spans(spans)) / length_s(audible)
