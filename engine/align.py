"""Hits to candidates: vote over (track, offset), then rescore the winners on stored vectors.

Offsets are counted in ticks of one query hop. Subtracting the query's own time from each hit and
voting is the idea of Wang (2003) and Chang et al. (2021); rescoring looks at the whole diagonal,
whether its hits were among the nearest or not.

Candidates are ranked by evidence, not by their mean cosine: noise drowns some segments of a query
and leaves others, so each counts by how far its cosine stands out above what any music in the
catalog reaches. In 0 dB of noise that found 34 of 37 five-second queries, the mean 30.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from engine.config import AlignConfig
from engine.records import NO_ADDRESS, Candidate, Fingerprint, Hits, Vectors, positions, track_ids

# How much a pair of segments says about a diagonal it misses by that many ticks.
_KERNEL = np.array([0.5, 1.0, 0.5])
_REACH = len(_KERNEL) // 2
# Ticks a diagonal is slid to either side of where its votes met.
_SLIDE = 2
# Two tracks that agree with each other this well hold the same audio; unrelated ones reach 0.8.
_SAME_AUDIO = 0.9
_TICK_BITS = 32
_TICK_BIAS = 1 << (_TICK_BITS - 1)


@dataclass(frozen=True)
class Diagonal:
    """Where votes met: a track and the offset in ticks, with the votes for it."""

    track_id: int
    ticks: int
    votes: int


def vote(hits: Hits, ticks_per_hop: int, config: AlignConfig) -> list[Diagonal]:
    """Find the diagonals that most hits lie on.

    Parameters
    ----------
    hits : Hits
        Of shape (n_queries, top_k); row i belongs to the query segment that starts at tick i.
    ticks_per_hop : int
        Query hops in one hop of the catalog.
    config : AlignConfig

    Returns
    -------
    list of Diagonal
        At most `config.max_candidates`, most votes first; diagonals of one track lie apart.
    """
    # The nearest neighbours of silence are chance: its cosines are all zero.
    valid = (hits.addresses != NO_ADDRESS) & (hits.cosines > 0)
    query, _ = np.nonzero(valid)
    addresses = hits.addresses[valid]
    ticks = positions(addresses) * ticks_per_hop - query
    keys = track_ids(addresses) << _TICK_BITS | (ticks + _TICK_BIAS)
    weights = hits.cosines[valid].astype(np.float64) ** config.vote_power
    cells, cell_of = np.unique(keys, return_inverse=True)
    heights = _smooth(cells, np.bincount(cell_of, weights, minlength=len(cells)).astype(float))
    return [
        Diagonal(
            track_id=cell >> _TICK_BITS,
            ticks=(cell & ((1 << _TICK_BITS) - 1)) - _TICK_BIAS,
            votes=len(np.unique(query[np.abs(keys - cell) <= _REACH])),
        )
        for cell in _peaks(cells, heights, config.max_candidates)
    ]


def sharpen(query: Fingerprint, config: AlignConfig) -> Vectors:
    """Take out of a query's embeddings part of what they all have in common.

    Steady noise and a room pull all segments of a query the same way, and so towards whatever
    music sounds like that. The longer the query, the surer it is that their mean is this pull and
    not the music: a share of ``t / (t + common_s)`` of it is subtracted. With it 71 %
    of 42 five-second queries in a room with 0 dB of noise were found, without it 52 %.

    Parameters
    ----------
    query : Fingerprint
    config : AlignConfig

    Returns
    -------
    float32 array of shape (n_segments, dim)
        Unit norm; still all zeros where a segment is silent.
    """
    audible = query.audible
    if not audible.any():
        return query.embeddings
    heard_s = audible.sum() * query.segment_hop_s
    common = query.embeddings[audible].mean(axis=0) * (heard_s / (heard_s + config.common_s))
    centred = query.embeddings - common.astype(np.float32)
    lengths = np.linalg.norm(centred, axis=1, keepdims=True)
    sharp = np.where(audible[:, None], centred / np.maximum(lengths, 1e-6), 0.0)
    return sharp.astype(np.float32)


def rescore(
    diagonals: Iterable[Diagonal],
    query: Fingerprint,
    sharp: Vectors,
    hits: Hits,
    reference: Reference,
    config: AlignConfig,
) -> list[Candidate]:
    """Weigh diagonals by the cosines of all their pairs of segments.

    Parameters
    ----------
    diagonals : iterable of Diagonal
    query : Fingerprint
        With the finer hop.
    sharp : float32 array of shape (n_segments, dim)
        Its sharpened embeddings, which the evidence comes from.
    hits : Hits
        Of these: the last of each tells what any music reaches.
    reference : Reference
    config : AlignConfig

    Returns
    -------
    list of Candidate
        One for each track, most evidence first, with their margins.
    """
    rater = _Rater(query, _background(hits, config.least_background), config)
    best: dict[int, Candidate] = {}
    for diagonal in diagonals:
        track = diagonal.track_id
        grid = _Grid.around(diagonal.ticks, query, reference.hop_s, reference.n_positions(track))
        if grid.last <= grid.first:
            continue
        stored = reference.vectors(track, grid.first, grid.last)
        candidate = rater.rate(diagonal, query.embeddings @ stored.T, sharp @ stored.T, grid)
        if track not in best or candidate.evidence > best[track].evidence:
            best[track] = candidate
    ranked = sorted(best.values(), key=lambda one: -one.evidence)
    return [_with_margin(candidate, ranked, query, reference) for candidate in ranked]


@dataclass(frozen=True)
class Reference:
    """How to look into the tracks.

    Parameters
    ----------
    hop_s : float
        Distance of their segments.
    n_positions : callable
        Number of segments of a track.
    vectors : callable
        Stored vectors of (track_id, first position, last position), the last one excluded.
    """

    hop_s: float
    n_positions: Callable[[int], int]
    vectors: Callable[[int, int, int], Vectors]


@dataclass(frozen=True)
class _Grid:
    """The stretch of a track around a diagonal, and the offset in ticks of each pair in it."""

    first: int
    last: int
    ticks_per_hop: int
    ticks: NDArray[np.int64]  # (n_queries, n_positions), relative to the diagonal

    @classmethod
    def around(cls, ticks: int, query: Fingerprint, hop_s: float, n_positions: int) -> _Grid:
        ticks_per_hop = round(hop_s / query.segment_hop_s)
        n_queries = len(query.embeddings)
        slack = _REACH + _SLIDE
        first = max(-(-(ticks - slack) // ticks_per_hop), 0)
        last = min((ticks + n_queries - 1 + slack) // ticks_per_hop + 1, n_positions)
        starts = np.arange(first, last) * ticks_per_hop
        offsets = starts[None] - np.arange(n_queries)[:, None] - ticks
        return cls(first, last, ticks_per_hop, offsets)


class _Rater:
    """Weighs diagonals for one query."""

    def __init__(
        self, query: Fingerprint, background: NDArray[np.float32], config: AlignConfig
    ) -> None:
        self.query, self.background, self.config = query, background, config
        self.audible = query.audible

    def rate(
        self, diagonal: Diagonal, cosines: Vectors, sharp_cosines: Vectors, grid: _Grid
    ) -> Candidate:
        """Slide the diagonal by single ticks to where the evidence is greatest."""
        query = self.query
        surprise = np.logaddexp(
            0, (sharp_cosines - self.background[:, None]) / self.config.evidence_scale
        )
        shifts = np.arange(-_SLIDE, _SLIDE + 1)
        full = max(self.audible.sum(), 1) * _KERNEL.sum() / grid.ticks_per_hop
        evidence = np.array([self._sum(surprise, grid.ticks - shift) / full for shift in shifts])
        peak = int(np.argmax(evidence))
        beside = grid.ticks - shifts[peak]
        agreeing = _agreement(cosines, beside, grid.ticks_per_hop, self.config.agreement)
        agreeing &= self.audible
        heard = np.flatnonzero(agreeing if agreeing.any() else self.audible)
        ticks = diagonal.ticks + shifts[peak] + _vertex(evidence, peak)
        end_s = heard[-1] * query.segment_hop_s + query.segment_s
        return Candidate(
            track_id=diagonal.track_id,
            offset_s=float(ticks * query.segment_hop_s),
            votes=diagonal.votes,
            evidence=float(evidence[peak]),
            score=self._sum(cosines, beside) / max(self._sum(np.ones_like(cosines), beside), 1e-9),
            coverage=float(agreeing.sum() / max(self.audible.sum(), 1)),
            query_start_s=float(heard[0] * query.segment_hop_s),
            query_end_s=float(min(end_s, query.duration_s)),
        )

    def _sum(self, values: NDArray[np.floating], ticks: NDArray[np.int64]) -> float:
        """Sum over the pairs close to the diagonal, the closest counting most."""
        near = (np.abs(ticks) <= _REACH) & self.audible[:, None]
        return float(values[near] @ _KERNEL[ticks[near] + _REACH])


def _background(hits: Hits, least: float) -> NDArray[np.float32]:
    """Cosine of the farthest neighbour of each query segment, shape (n_queries,)."""
    known = np.where(np.isfinite(hits.cosines), hits.cosines, np.inf)
    farthest = known.min(axis=1, initial=np.inf)
    return np.maximum(np.where(np.isfinite(farthest), farthest, least), least).astype(np.float32)


def _agreement(
    cosines: NDArray[np.float32], ticks: NDArray[np.int64], ticks_per_hop: int, threshold: float
) -> NDArray[np.bool_]:
    """Which query segments resemble the stored segment that the diagonal puts them closest to."""
    near = np.where(np.abs(ticks) <= max(ticks_per_hop // 2, _REACH), cosines, -1.0)
    return np.asarray(near.max(axis=1, initial=-1.0) >= threshold)


def _vertex(scores: NDArray[np.float64], peak: int) -> float:
    """Top of the parabola through a peak and its neighbours, in ticks from the peak."""
    if not 0 < peak < len(scores) - 1:
        return 0.0
    left, top, right = scores[peak - 1 : peak + 2]
    bend = left - 2 * top + right
    return float(0.5 * (left - right) / bend) if np.isfinite(bend) and bend < 0 else 0.0


def _with_margin(
    candidate: Candidate, ranked: list[Candidate], query: Fingerprint, reference: Reference
) -> Candidate:
    """Measure the lead over the best other track, unless that holds the very same audio.

    A single and an album, or a file and its re-encoding, must not make each other doubtful.
    """
    rival = next(
        (
            other.evidence
            for other in ranked
            if other.track_id != candidate.track_id
            and not _same_audio(candidate, other, query, reference)
        ),
        0.0,
    )
    return replace(candidate, margin=candidate.evidence - rival)


def _same_audio(one: Candidate, other: Candidate, query: Fingerprint, reference: Reference) -> bool:
    """Compare what two tracks store where the query lies in them."""
    starts = [round(at.offset_s / reference.hop_s) for at in (one, other)]
    ends = [
        reference.n_positions(at.track_id) - start
        for at, start in zip((one, other), starts, strict=True)
    ]
    first = max(0, -min(starts))
    last = min(max(int(query.duration_s / reference.hop_s), 1), *ends)
    if last <= first:
        return False
    stored, compared = (
        reference.vectors(at.track_id, start + first, start + last)
        for at, start in zip((one, other), starts, strict=True)
    )
    return float((stored * compared).sum(axis=1).mean()) >= _SAME_AUDIO


def _smooth(cells: NDArray[np.int64], values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Add to each cell what lies in the cells a few ticks beside it, if they exist."""
    out = np.zeros(len(cells))
    for shift, weight in zip(range(-_REACH, _REACH + 1), _KERNEL, strict=True):
        at = np.searchsorted(cells, cells + shift).clip(max=max(len(cells) - 1, 0))
        out += np.where(cells[at] == cells + shift, weight * values[at], 0.0)
    return out


def _peaks(cells: NDArray[np.int64], heights: NDArray[np.float64], n: int) -> list[int]:
    """Choose the highest cells that are no slope of a higher one."""
    taken: dict[int, None] = {}  # a set that remembers its order
    for at in np.argsort(-heights, kind="stable"):
        cell = int(cells[at])
        if any(cell + shift in taken for shift in range(-_SLIDE, _SLIDE + 1)):
            continue
        taken[cell] = None
        if len(taken) == n:
            break
    return list(taken)
