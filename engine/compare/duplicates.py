"""Tracks of a catalog that hold the same recording, found by their stored vectors alone.

Some segments of each track are searched among all others and vote for tracks and offsets, as those
of a query do. The few tracks with votes are compared with it in full. What that costs grows with
the catalog as its searches do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from engine.compare.passages import (
    Span,
    joined,
    passages,
    query_span,
    reference_span,
    shared_s,
    told,
)
from engine.config import DedupConfig
from engine.protocol import VectorIndex
from engine.records import (
    NO_ADDRESS,
    Cluster,
    Duplicate,
    DuplicateKind,
    Fingerprint,
    Hits,
    Passage,
    positions,
    track_ids,
)

# A hit speaks for a track by what its cosine has above this; unrelated music reaches 0.8.
_CLOSE = 0.7
# What hits on one diagonal must have gathered. Of 459 tracks 59 pairs have more, 449 two thirds of
# it; eight seconds in common, a quarter of a second off the grid, give 0.9.
_LEAST_VOTES = 0.6
# Segments whose offsets fall together, as those of a copy at another speed or off the grid do.
_CELL = 2
_OFFSET_BITS = 32
_OFFSET_BIAS = 1 << (_OFFSET_BITS - 1)

# A passage this long (seconds) is believed from this score on. Copies a quarter of a second off the
# grid have 0.86 or more, those 3 % too slow 0.76; different music reaches 0.80 for some seconds and
# 0.71 for half a minute.
_LENGTHS_S = (10.0, 40.0)
_SCORES = (0.85, 0.74)
# A copy runs this far (least and most) from the speed of 1 with these scores at least. Another mix
# of the same piece, at the same speed, has about 0.8.
_CHANGES = (0.015, 0.03)
_COPY_SCORES = (0.85, 0.74)
# A copy that is padded or runs slower is as long as this, and no better.
_AS_LONG = 0.95
# A segment agrees with the one beside it from this cosine on.
_AGREEMENT = 0.55


@dataclass(frozen=True, kw_only=True)
class Duplicates:
    """Looks for duplicates in an index.

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
            Told the number of tracks done and of all tracks, after each.

        Yields
        ------
        Duplicate
            As they are found; each pair of tracks once.
        """
        compared: set[tuple[int, int]] = set()
        every = self.index.track_ids
        for n_done, track_id in enumerate(every, 1):
            for other_id in self._candidates(track_id):
                pair = min(track_id, other_id), max(track_id, other_id)
                if pair not in compared and (found := self._compare(*pair)):
                    yield found
                compared.add(pair)
            on_progress(n_done, len(every))

    def _candidates(self, track_id: int) -> list[int]:
        """Find the tracks that segments of one are found in."""
        stored = self.index.vectors(track_id, 0, self.index.n_positions(track_id))
        probes = np.arange(0, len(stored), self._step(len(stored)))
        probes = probes[stored[probes].any(axis=1)]
        hits = self.index.search(stored[probes], self.config.k)
        return _most_votes(hits, probes, track_id)[: self.config.n_candidates]

    def _step(self, n_segments: int) -> int:
        if self.config.full_only:
            return max(n_segments // self.config.n_full_probes, 1)
        return max(self._n_least // self.config.n_probes, 1)

    @property
    def _n_least(self) -> int:
        """Segments that surely lie in the shortest passage, wherever the grid puts them."""
        return max(int((self.config.min_length_s - self.segment_s) / self.segment_hop_s), 1)

    def _compare(self, first_id: int, second_id: int) -> Duplicate | None:
        first, second = self._fingerprint(first_id), self._fingerprint(second_id)
        found = [one for one in passages(first, second, self._n_least) if self._believed(one)]
        if not found:
            return None
        best = max(found, key=lambda one: one.score * _length_s(query_span(one)))
        lines = _agreeing(first, second, best), _agreeing(second, first, _turned(best))
        shares = [
            float(agrees.sum() / one.audible.sum())
            for agrees, one in zip(lines, (first, second), strict=True)
        ]
        kind: DuplicateKind = "full" if _is_copy(best) else "version"
        if min(shares) >= self.config.full_share:
            shared = [_between(_reach(lines[0], first), _reach(lines[1], second), best)]
        else:
            kind, shared = "part", told(found)
            shares = [
                _share(map(side, shared), one)
                for side, one in ((query_span, first), (reference_span, second))
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

    def _believed(self, passage: Passage) -> bool:
        least = np.interp(_length_s(query_span(passage)), _LENGTHS_S, _SCORES)
        is_near = abs(passage.speed - 1) <= self.config.max_speed_change
        return bool(is_near and passage.score >= least)

    def _fingerprint(self, track_id: int) -> Fingerprint:
        stored = self.index.vectors(track_id, 0, self.index.n_positions(track_id))
        return Fingerprint(
            embeddings=stored,
            clip_embeddings=stored[:0],
            segment_hop_s=self.segment_hop_s,
            segment_s=self.segment_s,
            duration_s=self.durations_s[track_id],
            recipe_id="",  # all of one catalog's
        )


def clusters(found: list[Duplicate], durations_s: Mapping[int, float]) -> list[Cluster]:
    """Join full duplicates, and choose whom to keep.

    Parameters
    ----------
    found : list of Duplicate
        Of any kind.
    durations_s : mapping
        Length of each track by its id.

    Returns
    -------
    list of Cluster
        By the earliest id in each.
    """
    members: dict[int, set[int]] = {}
    for one in found:
        if one.kind == "full":
            pair = one.first_id, one.second_id
            together = set(pair).union(*(members.get(track_id, ()) for track_id in pair))
            members |= dict.fromkeys(together, together)
    distinct = {min(together): together for together in members.values()}
    made = []
    for _, together in sorted(distinct.items()):
        long_s = _AS_LONG * max(durations_s[track_id] for track_id in together)
        keeper = min(track_id for track_id in together if durations_s[track_id] >= long_s)
        made.append(Cluster(keeper_id=keeper, other_ids=tuple(sorted(together - {keeper}))))
    return made


def _most_votes(hits: Hits, probes: NDArray[np.int64], track_id: int) -> list[int]:
    """Tracks with enough votes on one diagonal, most votes first, without the track itself."""
    tracks = track_ids(hits.addresses)
    votes = hits.cosines - _CLOSE
    valid = (hits.addresses != NO_ADDRESS) & (tracks != track_id) & (votes > 0)
    offsets = (positions(hits.addresses) - probes[:, None])[valid]
    most: dict[int, float] = {}
    for shift in range(_CELL):  # so that no two neighbours are always in different cells
        cells = tracks[valid] << _OFFSET_BITS | ((offsets + shift) // _CELL + _OFFSET_BIAS)
        keys, cell_of = np.unique(cells, return_inverse=True)
        heights = np.bincount(cell_of, votes[valid], len(keys))
        for at in np.flatnonzero(heights >= _LEAST_VOTES):
            found = int(keys[at] >> _OFFSET_BITS)
            most[found] = max(most.get(found, 0.0), float(heights[at]))
    return sorted(most, key=lambda one: (-most[one], one))


def _is_copy(passage: Passage) -> bool:
    return bool(passage.score >= np.interp(abs(passage.speed - 1), _CHANGES, _COPY_SCORES))


def _between(query: Span, reference: Span, like: Passage) -> Passage:
    """Make a passage of two stretches, as clear and as fast as another one."""
    return Passage(
        query_start_s=query[0],
        query_end_s=query[1],
        reference_start_s=reference[0],
        reference_end_s=reference[1],
        score=like.score,
        speed=like.speed,
    )


def _turned(passage: Passage) -> Passage:
    """Let a passage's query and reference change places."""
    turned = _between(reference_span(passage), query_span(passage), passage)
    return replace(turned, speed=1 / passage.speed)


def _agreeing(query: Fingerprint, reference: Fingerprint, passage: Passage) -> NDArray[np.bool_]:
    """Follow a passage's line through all of its query.

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
    return inside & (best >= _AGREEMENT)


def _reach(chosen: NDArray[np.bool_], one: Fingerprint) -> Span:
    """When the first of some segments begins and the last of them ends."""
    starts_s = one.starts_s[chosen]
    return float(starts_s[0]), min(float(starts_s[-1]) + one.segment_s, one.duration_s)


def _share(spans: Iterator[Span], one: Fingerprint) -> float:
    """How much of a recording, from its first audible segment to its last, lies in stretches."""
    heard = _reach(one.audible, one)
    return sum(shared_s(heard, span) for span in joined(spans)) / _length_s(heard)


def _length_s(span: Span) -> float:
    return span[1] - span[0]
