"""Show passages in the plane of clip time and track time: their evidence, and why they end.

A passage ends with the clip or with the track, where another passage agrees better, or where clip
and track no longer agree.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from engine.records import Candidate, Fingerprint, TrackReader, Vectors
from engine.search.extension import Alignment, measured
from engine.search.line import Floats, Line, LineTracer

EndReason = Literal["clip", "track", "silence", "passage", "disagreement"]
"""What lies beyond an end: nothing of the clip, nothing of the track, silence, a passage that
agrees better, or none that does."""

Side = Literal["start", "end"]

# A trace reaches this far beyond its passage. An end is judged by the segments up to the second of
# these beyond it, without those that still contain some of the passage.
_AROUND_S, _BEYOND_S = 3.0, 1.0
_MAX_ROWS, _MAX_COLUMNS = 600, 400
# Part of the track that is shown around its passages: seconds, and share of their length.
_PAD_S, _PAD_SHARE = 5.0, 0.1


@dataclass(frozen=True, kw_only=True)
class Trace:
    """Cosines of clip and track along the line of a passage, and for some seconds beyond it.

    Parameters
    ----------
    query_s : float64 array of shape (n_segments,)
        Middles of the segments, in the clip.
    reference_s : float64 array of shape (n_segments,)
        Where they lie in the track.
    similarity : float64 array of shape (n_segments,)
        In [-1, 1]; NaN where the segment is silent or the line is outside of the track.
    in_track : bool array of shape (n_segments,)
    min_similarity : float
        Mean of the levels on the line and beside it: a segment counts for the passage from here on.
    segment_s : float
        Length of a segment, in the clip.
    start_s, end_s : float
        Borders of the passage in the clip.
    """

    query_s: Floats
    reference_s: Floats
    similarity: Floats
    in_track: NDArray[np.bool_]
    min_similarity: float
    segment_s: float
    start_s: float
    end_s: float

    def later(self, start_s: float) -> Trace:
        """Return it with the times of a recording in which its clip begins at `start_s`."""
        return replace(
            self,
            query_s=self.query_s + start_s,
            start_s=self.start_s + start_s,
            end_s=self.end_s + start_s,
        )

    @property
    def inside(self) -> NDArray[np.bool_]:
        """Which segments have their middle in the passage."""
        return np.asarray((self.query_s >= self.start_s) & (self.query_s <= self.end_s))

    def mean_similarity(self, first_s: float, last_s: float) -> float:
        """Return the mean similarity between two times of the clip; NaN if there is none."""
        near = self.similarity[(self.query_s >= first_s) & (self.query_s <= last_s)]
        audible = near[~np.isnan(near)]
        return float(audible.mean()) if len(audible) else float("nan")


@dataclass(frozen=True, kw_only=True)
class PassageEnd:
    """Why a passage begins or ends where it does.

    Parameters
    ----------
    side : {"start", "end"}
    reason : str
        What lies beyond: see :data:`EndReason`.
    similarity : float or None
        Mean cosine along the line in the second beyond; None without any.
    rank : int or None
        Of the passage that agrees better, if that is the reason.
    """

    side: Side
    reason: EndReason
    similarity: float | None = None
    rank: int | None = None

    @property
    def text(self) -> str:
        """The reason in words."""
        beyond = {"start": "before", "end": "after"}[self.side]
        if self.reason in ("clip", "track"):
            return f"{self.side} of the {self.reason}"
        if self.reason == "passage":
            return f"passage {self.rank} agrees better"
        if self.reason == "silence":
            return f"silence {beyond}"
        return f"less agreement {beyond} ({self.similarity:.2f})"


@dataclass(frozen=True, kw_only=True)
class CosinePlane:
    """Cosines of all segments of a clip with those of a part of a track.

    Parameters
    ----------
    values : float32 array of shape (n_rows, n_columns)
        Rows are times of the clip, columns of the track. Where there are many, each is the
        greatest of a few that lie next to each other.
    query_s, reference_s : float64 array of shape (n_rows,), (n_columns,)
        Middles of the rows and columns in the clip and in the track, rising.
    """

    values: Vectors
    query_s: Floats
    reference_s: Floats

    def later(self, start_s: float) -> CosinePlane:
        """Return it with the times of a recording in which its clip begins at `start_s`."""
        return replace(self, query_s=self.query_s + start_s)


def trace(candidate: Candidate, query: Fingerprint, tracks: TrackReader) -> Trace:
    """Compare clip and track along a candidate's line.

    Parameters
    ----------
    candidate : Candidate
    query : Fingerprint
        Fingerprint of the clip played at the speed `candidate.resampled`.
    tracks : TrackReader

    Returns
    -------
    Trace
        Its times are those of the clip at its own speed.
    """
    tracer, speed = LineTracer(query, tracks), candidate.resampled
    line = Line(
        track_id=candidate.track_id,
        query_s=0.0,
        reference_s=candidate.offset_s,
        speed=candidate.speed * speed,
    )
    query_s, cosines = tracer.middles_s * speed, tracer.cosines(line)
    borders_s = candidate.query_start_s, candidate.query_end_s
    first = int(np.searchsorted(query_s[:-1], borders_s[0]))
    last = max(int(np.searchsorted(query_s, borders_s[1], side="right")), first + 1)
    alignment = Alignment(
        line=line, first=first, last=last, level=0.0, upper_level=0.0,
        chance=tracer.chance(line, first, last),
    )  # fmt: skip
    is_outside = cosines == -1.0
    similarity = np.where(is_outside, np.nan, cosines)
    begins_s, finishes_s = (at_s * speed for at_s in tracer.extent(line))
    in_track = (query_s >= begins_s) & (query_s <= finishes_s) & ~is_outside
    min_similarity = measured(alignment, first, last, similarity[first:last]).min_cosine
    near = slice(
        *np.searchsorted(query_s, (borders_s[0] - _AROUND_S, borders_s[1] + _AROUND_S)).tolist()
    )
    return Trace(
        query_s=query_s[near],
        reference_s=candidate.offset_s + candidate.speed * query_s[near],
        similarity=similarity[near],
        in_track=in_track[near],
        min_similarity=min_similarity,
        segment_s=query.segment_s * speed,
        start_s=borders_s[0],
        end_s=borders_s[1],
    )


def passage_end(one: Trace, side: Side, others: Sequence[tuple[int, Trace]]) -> PassageEnd:
    """Find out why a passage begins or ends where it does.

    Parameters
    ----------
    one : Trace
    side : {"start", "end"}
    others : sequence of (int, Trace)
        Ranks and traces of the other passages of the clip.

    Returns
    -------
    PassageEnd
    """
    beyond = _beyond(one, side)
    if not beyond.any():
        return PassageEnd(side=side, reason="clip")
    if not one.in_track[beyond].any():
        return PassageEnd(side=side, reason="track")
    times_s = one.query_s[beyond]
    span_s = float(times_s.min()), float(times_s.max())
    similarity = one.mean_similarity(*span_s)
    if np.isnan(similarity):
        return PassageEnd(side=side, reason="silence")
    middle_s = sum(span_s) / 2
    better = [
        (other.mean_similarity(*span_s), -rank)
        for rank, other in others
        if other.start_s <= middle_s <= other.end_s and other.mean_similarity(*span_s) > similarity
    ]
    if better:
        rank = -max(better)[1]
        return PassageEnd(side=side, reason="passage", similarity=similarity, rank=rank)
    return PassageEnd(side=side, reason="disagreement", similarity=similarity)


def _beyond(one: Trace, side: Side) -> NDArray[np.bool_]:
    """Segments in the second beyond an end, if possible without any of the passage."""
    is_start = side == "start"
    distances_s = one.start_s - one.query_s if is_start else one.query_s - one.end_s
    half_s = one.segment_s / 2
    near = (distances_s > 0) & (distances_s <= half_s + _BEYOND_S)
    clear = near & (distances_s >= half_s)
    return np.asarray(clear if clear.any() else near)


def cosine_plane(
    query: Fingerprint, tracks: TrackReader, candidates: Sequence[Candidate]
) -> CosinePlane:
    """Compare a whole clip with the part of a track around its passages.

    Parameters
    ----------
    query : Fingerprint
        Fingerprint of the clip played at the speed `candidates[0].resampled`.
    tracks : TrackReader
    candidates : sequence of Candidate
        Of one track.

    Returns
    -------
    CosinePlane
        Its times are those of the clip at its own speed.
    """
    track_id, half_s = candidates[0].track_id, query.segment_s / 2
    ends_s = np.array(
        [
            one.offset_s + one.speed * at_s
            for one in candidates
            for at_s in (one.query_start_s, one.query_end_s)
        ]
    )
    pad_s = max(_PAD_S, _PAD_SHARE * float(np.ptp(ends_s)))
    n_stored = tracks.n_positions(track_id)
    first = int(np.clip((ends_s.min() - pad_s) / tracks.hop_s, 0, n_stored - 1))
    last = int(np.clip((ends_s.max() + pad_s) / tracks.hop_s, first + 1, n_stored))
    stored = tracks.vectors(track_id, first, last)
    rows = _groups(len(query.embeddings), _MAX_ROWS)
    columns = _groups(len(stored), _MAX_COLUMNS)
    values = np.stack([(query.embeddings[a:b] @ stored.T).max(axis=0) for a, b in pairwise(rows)])
    middles = [np.array([(a + b - 1) / 2 for a, b in pairwise(edges)]) for edges in (rows, columns)]
    return CosinePlane(
        values=np.maximum.reduceat(values, columns[:-1], axis=1),
        query_s=(middles[0] * query.segment_hop_s + half_s) * candidates[0].resampled,
        reference_s=(first + middles[1]) * tracks.hop_s + half_s,
    )


def _groups(n: int, n_most: int) -> list[int]:
    """Edges of at most so many groups of consecutive numbers up to n."""
    return [int(edge) for edge in np.linspace(0, n, min(n, n_most) + 1).round()]
