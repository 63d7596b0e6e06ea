"""Where a query agrees with one track: votes, similarity and cosines along a line."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from engine.config import AlignConfig
from engine.records import (
    NO_ADDRESS,
    Candidate,
    Fingerprint,
    Hits,
    Reference,
    Vectors,
    positions,
    track_ids,
)
from engine.search.alignment import on_line

Floats = NDArray[np.float64]

_NEAR_S = 2.0
_N_BINS = 60
_LEAST_BIN_S = 1.0
# What a picture of cosines shows beside the line, and at most of segments to either side.
_PAD_S = 5.0
_MAX_SHOWN = 400


@dataclass(frozen=True, kw_only=True)
class Votes:
    """How many query segments have a near neighbour in the track, by the offset they vote for.

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
class Cosines:
    """Cosines of query and reference around a line, thinned if there are many.

    Parameters
    ----------
    values : float32 array of shape (n_rows, n_columns)
        Rows are segments of the query, columns of the reference.
    query_s, reference_s : float64 array of shape (n_rows,), (n_columns,)
        When they begin; those of the reference count from the track's beginning.
    """

    values: Vectors
    query_s: Floats
    reference_s: Floats


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """Where a query agrees with a track along one line.

    Parameters
    ----------
    starts_s : float64 array of shape (n_segments,)
        When the query's segments begin, in the time of the clip as it is.
    reference_s : float64 array of shape (n_segments,)
        Where they lie in the track.
    similarity : float64 array of shape (n_segments,)
        Cosine with the stored segment beside the line, in [-1, 1]; nan where the segment is silent
        or the line is outside of the track.
    agrees : bool array of shape (n_segments,)
        Which reach `AlignConfig.agreement`.
    n_neighbours : int64 array of shape (n_segments,)
        How many of each one's nearest segments of the catalog are this track's.
    votes : bool array of shape (n_segments,)
        Whether one of them lies on the line.
    near, whole : Votes
        Around the line's offset, in steps of the query's hop; and over the whole track.
    cosines : Cosines
    """

    starts_s: Floats
    reference_s: Floats
    similarity: Floats
    agrees: NDArray[np.bool_]
    n_neighbours: NDArray[np.int64]
    votes: NDArray[np.bool_]
    near: Votes
    whole: Votes
    cosines: Cosines


def agreement(
    candidate: Candidate,
    query: Fingerprint,
    hits: Hits,
    reference: Reference,
    config: AlignConfig,
    start_s: float = 0.0,
) -> Agreement:
    """Follow a candidate's line through query and track.

    Parameters
    ----------
    candidate : Candidate
    query : Fingerprint
        Of the query played `candidate.resampled` times as fast.
    hits : Hits
        Of it, in the whole catalog.
    reference : Reference
    config : AlignConfig
    start_s : float
        Where in the clip the query begins.

    Returns
    -------
    Agreement
        Its times are those of the clip.
    """
    # Inside, time is that of the query as it was played.
    track_id, hop_s = candidate.track_id, reference.hop_s
    at = on_line(candidate, query, hop_s)
    n_stored = reference.n_positions(track_id)
    similarity = _similarity(query, at, reference, track_id)
    rows, stored_at = _of_track(hits, track_id)
    offset_s = candidate.offset_s - candidate.speed * start_s
    voted_s = offset_s + (stored_at - at[rows]) * hop_s
    beside = np.abs(stored_at - at[rows]) <= 0.5
    starts_s = start_s + query.starts_s * candidate.resampled
    cosines = _cosines(query, at, reference, track_id)
    return Agreement(
        starts_s=starts_s,
        reference_s=at * hop_s,
        similarity=similarity,
        agrees=np.nan_to_num(similarity, nan=-1.0) >= config.agreement,
        n_neighbours=np.bincount(rows, minlength=len(at)),
        votes=np.bincount(rows[beside], minlength=len(at)) > 0,
        near=_votes(voted_s, rows, offset_s - _NEAR_S, offset_s + _NEAR_S, query.segment_hop_s),
        whole=_over_track(voted_s, rows, n_stored * hop_s),
        cosines=replace(cosines, query_s=start_s + cosines.query_s * candidate.resampled),
    )


def _similarity(query: Fingerprint, at: Floats, reference: Reference, track_id: int) -> Floats:
    """Cosine with the stored segment next to the line; of two as near, the greater one."""
    n_stored = reference.n_positions(track_id)
    first = int(np.clip(np.floor(at.min()), 0, n_stored - 1))
    last = int(np.clip(np.ceil(at.max()) + 1, first + 1, n_stored))
    stored = reference.vectors(track_id, first, last)
    out = np.full(len(at), np.nan)
    for near in (np.ceil(at - 0.5), np.floor(at + 0.5)):
        column = near.astype(np.int64) - first
        inside = (column >= 0) & (column < len(stored)) & query.audible
        beside = stored[column[inside]]
        out[inside] = np.fmax(out[inside], (query.embeddings[inside] * beside).sum(axis=1))
    return out


def _of_track(hits: Hits, track_id: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Query segments that have a neighbour in a track, and the positions of those."""
    valid = (hits.addresses != NO_ADDRESS) & (hits.cosines > 0)
    rows, columns = np.nonzero(valid & (track_ids(hits.addresses) == track_id))
    return rows, positions(hits.addresses[rows, columns])


def _votes(
    offsets_s: Floats, rows: NDArray[np.int64], first_s: float, last_s: float, bin_s: float
) -> Votes:
    """Count the query segments that vote for each bin; one in the middle of first and last."""
    n_half = max(math.ceil((last_s - first_s) / 2 / bin_s - 1e-6), 1)
    steps = np.arange(-n_half, n_half + 1, dtype=np.float64)
    middles = (first_s + last_s) / 2 + steps * bin_s
    bins = np.rint((offsets_s - middles[0]) / bin_s).astype(np.int64)
    inside = (bins >= 0) & (bins < len(middles))
    pairs = np.unique(np.stack([bins[inside], rows[inside]]), axis=1)
    counts = np.bincount(pairs[0], minlength=len(middles))
    return Votes(bin_s=bin_s, offsets_s=middles, counts=counts)


def _over_track(offsets_s: Floats, rows: NDArray[np.int64], duration_s: float) -> Votes:
    first_s = min(0.0, float(offsets_s.min(initial=0.0)))
    last_s = max(duration_s, float(offsets_s.max(initial=0.0)))
    bin_s = max(math.ceil((last_s - first_s) / _N_BINS), _LEAST_BIN_S)
    return _votes(offsets_s, rows, first_s, last_s, bin_s)


def _cosines(query: Fingerprint, at: Floats, reference: Reference, track_id: int) -> Cosines:
    n_stored, pad = reference.n_positions(track_id), _PAD_S / reference.hop_s
    first = int(np.clip(np.floor(at.min() - pad), 0, n_stored - 1))
    last = int(np.clip(np.ceil(at.max() + pad) + 1, first + 1, n_stored))
    rows = slice(None, None, -(-len(at) // _MAX_SHOWN))
    columns = slice(None, None, -(-(last - first) // _MAX_SHOWN))
    stored = reference.vectors(track_id, first, last)[columns]
    return Cosines(
        values=query.embeddings[rows] @ stored.T,
        query_s=query.starts_s[rows],
        reference_s=np.arange(first, last, dtype=np.float64)[columns] * reference.hop_s,
    )
