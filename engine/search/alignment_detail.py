"""Show where a query agrees with one track: votes, and cosines along a line."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.config import AlignConfig
from engine.records import (
    NO_ADDRESS,
    Candidate,
    Fingerprint,
    Hits,
    TrackReader,
    positions,
    track_ids,
)
from engine.search.alignment import positions_on_line

Floats = NDArray[np.float64]

_NEAR_S = 2.0
_N_BINS = 60
_MIN_BIN_S = 1.0


@dataclass(frozen=True, kw_only=True)
class VoteHistogram:
    """Number of query segments that vote for each offset in the track.

    Parameters
    ----------
    bin_s : float
        Width of a bin.
    offsets_s : float64 array of shape (n_bins,), rising
        Middles of the bins.
    counts : int64 array of shape (n_bins,)
    """

    bin_s: float
    offsets_s: Floats
    counts: NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class AlignmentDetail:
    """How query and track agree along one line, segment by segment.

    Parameters
    ----------
    query_s : float64 array of shape (n_segments,)
        Starts of the query's segments, in the time of the clip at its own speed.
    reference_s : float64 array of shape (n_segments,)
        Where they lie in the track.
    similarity : float64 array of shape (n_segments,)
        Cosine with the stored segment beside the line, in [-1, 1]; nan where the segment is silent
        or the line is outside of the track.
    agrees : bool array of shape (n_segments,)
        Whether the similarity is `AlignConfig.min_cosine` or more.
    n_neighbours : int64 array of shape (n_segments,)
        Number of nearest neighbours of each segment that belong to this track.
    votes : bool array of shape (n_segments,)
        Whether one of them lies on the line.
    votes_near, votes_in_track : VoteHistogram
        Around the line's offset, in steps of the query's hop; and over the whole track.
    """

    query_s: Floats
    reference_s: Floats
    similarity: Floats
    agrees: NDArray[np.bool_]
    n_neighbours: NDArray[np.int64]
    votes: NDArray[np.bool_]
    votes_near: VoteHistogram
    votes_in_track: VoteHistogram


def alignment_detail(
    candidate: Candidate,
    query: Fingerprint,
    hits: Hits,
    tracks: TrackReader,
    config: AlignConfig,
    start_s: float = 0.0,
) -> AlignmentDetail:
    """Compare query and track along a candidate's line.

    Parameters
    ----------
    candidate : Candidate
    query : Fingerprint
        Fingerprint of the query played at the speed `candidate.resampled`.
    hits : Hits
        Nearest neighbours of its segments in the whole catalog.
    tracks : TrackReader
    config : AlignConfig
    start_s : float
        Where in the clip the query begins.

    Returns
    -------
    AlignmentDetail
        Its times are those of the clip.
    """
    # Until the result is made, times are those of the query as it is played.
    track_id, hop_s = candidate.track_id, tracks.hop_s
    at = positions_on_line(candidate, query, hop_s)
    n_stored = tracks.n_positions(track_id)
    similarity = _similarity(query, at, tracks, track_id)
    rows, stored_at = _neighbours_in_track(hits, track_id)
    offset_s = candidate.offset_s - candidate.speed * start_s
    voted_s = offset_s + (stored_at - at[rows]) * hop_s
    on_line = np.abs(stored_at - at[rows]) <= 0.5
    near_s = offset_s - _NEAR_S, offset_s + _NEAR_S
    return AlignmentDetail(
        query_s=start_s + query.starts_s * candidate.resampled,
        reference_s=at * hop_s,
        similarity=similarity,
        agrees=np.nan_to_num(similarity, nan=-1.0) >= config.min_cosine,
        n_neighbours=np.bincount(rows, minlength=len(at)),
        votes=np.bincount(rows[on_line], minlength=len(at)) > 0,
        votes_near=_histogram(voted_s, rows, *near_s, query.segment_hop_s),
        votes_in_track=_histogram_of_track(voted_s, rows, n_stored * hop_s),
    )


def _similarity(query: Fingerprint, at: Floats, tracks: TrackReader, track_id: int) -> Floats:
    """Cosine with the stored segment nearest to the line; of two as near, the greater one."""
    n_stored = tracks.n_positions(track_id)
    first = int(np.clip(np.floor(at.min()), 0, n_stored - 1))
    last = int(np.clip(np.ceil(at.max()) + 1, first + 1, n_stored))
    stored = tracks.vectors(track_id, first, last)
    out = np.full(len(at), np.nan)
    for nearest in (np.ceil(at - 0.5), np.floor(at + 0.5)):
        column = nearest.astype(np.int64) - first
        inside = (column >= 0) & (column < len(stored)) & query.audible
        beside = stored[column[inside]]
        out[inside] = np.fmax(out[inside], (query.embeddings[inside] * beside).sum(axis=1))
    return out


def _neighbours_in_track(hits: Hits, track_id: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Query segments with a neighbour in a track, and the positions of those neighbours."""
    valid = (hits.addresses != NO_ADDRESS) & (hits.cosines > 0)
    rows, columns = np.nonzero(valid & (track_ids(hits.addresses) == track_id))
    return rows, positions(hits.addresses[rows, columns])


def _histogram(
    offsets_s: Floats, rows: NDArray[np.int64], first_s: float, last_s: float, bin_s: float
) -> VoteHistogram:
    """Count the query segments that vote for each bin; one bin lies midway of first and last."""
    n_half = max(math.ceil((last_s - first_s) / 2 / bin_s - 1e-6), 1)
    steps = np.arange(-n_half, n_half + 1, dtype=np.float64)
    middles = (first_s + last_s) / 2 + steps * bin_s
    bins = np.rint((offsets_s - middles[0]) / bin_s).astype(np.int64)
    inside = (bins >= 0) & (bins < len(middles))
    pairs = np.unique(np.stack([bins[inside], rows[inside]]), axis=1)
    counts = np.bincount(pairs[0], minlength=len(middles))
    return VoteHistogram(bin_s=bin_s, offsets_s=middles, counts=counts)


def _histogram_of_track(
    offsets_s: Floats, rows: NDArray[np.int64], duration_s: float
) -> VoteHistogram:
    first_s = min(0.0, float(offsets_s.min(initial=0.0)))
    last_s = max(duration_s, float(offsets_s.max(initial=0.0)))
    bin_s = max(math.ceil((last_s - first_s) / _N_BINS), _MIN_BIN_S)
    return _histogram(offsets_s, rows, first_s, last_s, bin_s)
