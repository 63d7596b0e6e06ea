"""Diagonals to candidates: rescore them on the stored vectors, and tilt the best ones.

Rescoring looks at a whole diagonal, whether its hits were among the nearest or not. Where the tempo
differs from the track's, what agrees lies on a tilted line ``t_ref = speed * t_query + offset``; a
diagonal catches a part of it, which is where the search for the line begins.

Candidates are ranked by evidence, not by their mean cosine: noise drowns some segments of a query
and leaves others, so each counts by how far its cosine stands out above what any music in the
catalog reaches. In 0 dB of noise that found 34 of 37 five-second queries, the mean 30.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from engine.config import AlignConfig
from engine.records import Candidate, Diagonal, Fingerprint, Hits, Reference, Vectors

Floats = NDArray[np.float64]

# A stored segment counts the less the farther a line passes it by, and not at all from here on.
_REACH_HOPS = 0.5
# How far a diagonal is slid to either side of where its votes met, and in what steps.
_SLIDE_HOPS = 0.5
_STEP_HOPS = 0.25
# A diagonal is tilted to at most so many lines to either side.
_MAX_TILTS = 20
# With fewer, the query is too short to tell a line from a diagonal.
_MIN_TILTS = 2
# Up to this length tilted lines count no more than the configuration says. Of 25 clips of 10 s
# whose tempo had been changed by 8 %, 17 (slower) and 21 (faster) had their right times with the
# same weight at any length, 23 and 25 with one that rises; of clips of 3 and 5 s fewer have.
_SHORT_S = 5.0
# Segments of a long query that the first look at tilted lines is restricted to.
_MAX_TILTED_SEGMENTS = 96
# Another line of the same track is told of from this share of the best one's evidence on, and this
# far from those told already. Of 88 clips of music of games, clean and in 5 and 0 dB of noise, the
# right line was the best of 83 and so told of for the other 5; 72 had none. With 0.95 one of the 5
# was missed; with 0.8 60 had none.
_AS_GOOD = 0.9
_APART_S = 1.0
# Pairs of segments that are compared at once.
_MAX_PAIRS = 1_000_000


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
    share = query.heard_s / (query.heard_s + config.common_s)
    common = query.embeddings[audible].mean(axis=0) * share
    centred = query.embeddings - common.astype(np.float32)
    lengths = np.linalg.norm(centred, axis=1, keepdims=True)
    sharp = np.where(audible[:, None], centred / np.maximum(lengths, 1e-6), 0.0)
    return sharp.astype(np.float32)


def rescore(
    diagonals: Sequence[Diagonal],
    query: Fingerprint,
    sharp: Vectors,
    hits: Hits,
    reference: Reference,
    config: AlignConfig,
) -> list[Candidate]:
    """Weigh diagonals by the cosines of all their pairs of segments, and tilt the best.

    Parameters
    ----------
    diagonals : sequence of Diagonal
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
        One for each track, without their margins.
    """
    rater = _Rater(query, sharp, _background(hits, config.least_background), reference, config)
    rated: dict[int, list[_Rated]] = defaultdict(list)
    for first in range(0, len(diagonals), rater.n_together):
        for one in rater.upright(diagonals[first : first + rater.n_together]):
            rated[one.line.track_id].append(one)
    best = [max(of_track, key=lambda one: one.evidence) for of_track in rated.values()]
    ranked = sorted(best, key=lambda one: -one.evidence)[: config.max_tracks]
    ranked[: config.n_tilted] = map(rater.tilted, ranked[: config.n_tilted])
    return [rater.describe(one, rater.elsewhere(one, rated[one.line.track_id])) for one in ranked]


def on_line(candidate: Candidate, query: Fingerprint, hop_s: float) -> Floats:
    """Find where in its track each segment of a query lies.

    Parameters
    ----------
    candidate : Candidate
    query : Fingerprint
        Of the query played `candidate.resampled` times as fast.
    hop_s : float
        The catalog's.

    Returns
    -------
    float64 array of shape (n_segments,)
        Positions in segment hops of the catalog; beyond the track where the query is.
    """
    slope = candidate.speed * candidate.resampled
    start_s = candidate.offset_s + (slope - 1) * query.segment_s / 2
    return np.asarray((start_s + slope * query.starts_s) / hop_s)


def mean_cosine(candidate: Candidate, query: Fingerprint, reference: Reference) -> float:
    """Say how alike a query and a track are along a line, as `Candidate.score` does.

    Parameters
    ----------
    candidate : Candidate
    query : Fingerprint
        Of the query played `candidate.resampled` times as fast.
    reference : Reference

    Returns
    -------
    float
        In [-1, 1]; 0 if no segment lies within the track.
    """
    at = on_line(candidate, query, reference.hop_s)
    n_stored = reference.n_positions(candidate.track_id)
    first, last = (int(np.clip(np.rint(one), 0, n_stored)) for one in (at.min(), at.max() + 1))
    if last <= first:
        return 0.0
    cosines = query.embeddings @ reference.vectors(candidate.track_id, first, last).T
    return _mean_along(cosines, at, first, query.audible)


@dataclass(frozen=True)
class _Line:
    """Where in a track a query lies: its middle, in hops of the track, and hops per query hop."""

    track_id: int
    middle: float
    slope: float
    votes: int


@dataclass(frozen=True)
class _Rated:
    """A line with its evidence, and how far beside it the evidence peaks."""

    line: _Line
    evidence: float
    nudge: float


class _Rater:
    """Weighs lines for one query; inside, all time is counted in hops of the reference."""

    def __init__(
        self,
        query: Fingerprint,
        sharp: Vectors,
        background: NDArray[np.float32],
        reference: Reference,
        config: AlignConfig,
    ) -> None:
        self.query, self.sharp, self.background = query, sharp, background
        self.reference, self.config = reference, config
        self.hop = query.segment_hop_s / reference.hop_s
        self.steps: Floats = (
            np.arange(len(sharp), dtype=np.float64) - (len(sharp) - 1) / 2
        ) * self.hop
        self.audible = query.audible
        self.every = -(-len(sharp) // _MAX_TILTED_SEGMENTS)
        # What the weights of a segment are on average, wherever the stored ones lie.
        self.full = _weight(np.arange(0, 1, self.hop)).mean()

    @property
    def n_together(self) -> int:
        """How many diagonals are weighed at once, so that it takes some megabytes at most."""
        n_positions = int(len(self.steps) * self.hop) + 2
        return max(_MAX_PAIRS // (len(self.steps) * n_positions), 1)

    @property
    def tilted_weight(self) -> float:
        """What tilted lines count: the longer the query, the less of their lead is chance."""
        discount = (1 - self.config.tilted_weight) * min(_SHORT_S / self.query.duration_s, 1.0)
        return 1 - discount

    def upright(self, diagonals: Sequence[Diagonal]) -> list[_Rated]:
        """Rate diagonals, slid a little; those outside of their tracks are left out."""
        slides = np.arange(-_SLIDE_HOPS, _SLIDE_HOPS + _STEP_HOPS, _STEP_HOPS)
        lines = [
            _Line(one.track_id, one.ticks * self.hop - float(self.steps[0]), 1.0, one.votes)
            for one in diagonals
        ]
        middles = np.array([line.middle for line in lines])
        at = middles[:, None, None] + slides[:, None] + self.steps
        read = [self._stored(line.track_id, its) for line, its in zip(lines, at, strict=True)]
        # One behind the other, and what no longer belongs to a line's own track is out of reach.
        ends = np.cumsum([len(stored) for _, stored in read])
        if not ends[-1]:
            return []
        starts = np.array([0, *ends[:-1]])
        firsts = np.array([first for first, _ in read]) - starts
        surprise = self._surprise(np.concatenate([stored for _, stored in read]), slice(None))
        bounds = starts[:, None, None], ends[:, None, None]
        evidence = self._evidence(surprise, at, firsts[:, None, None], slice(None), bounds)
        return [
            self._best(line, np.ones(1), slides, its[None])
            for line, its, n_stored in zip(lines, evidence, ends - starts, strict=True)
            if n_stored
        ]

    def rate(self, line: _Line, slopes: Floats, slides: Floats, every: int = 1) -> _Rated | None:
        """Choose the slope and the slide that bring most evidence; None outside of the track."""
        rows = slice(None, None, every)
        at = line.middle + slides[:, None] + slopes[:, None, None] * self.steps[rows]
        first, stored = self._stored(line.track_id, at)
        if not len(stored):
            return None
        evidence = self._evidence(self._surprise(stored, rows), at, first, rows)
        return self._best(line, slopes, slides, evidence)

    def _surprise(self, stored: Vectors, rows: slice) -> Vectors:
        """How far segments of the query stand out beside each stored one, 0 and above."""
        excess = self.sharp[rows] @ stored.T - self.background[rows, None]
        excess /= np.float32(self.config.evidence_scale)
        # As np.logaddexp(0, excess), which takes twelve times as long.
        return np.asarray(np.maximum(excess, 0) + np.log1p(np.exp(-np.abs(excess))))

    def _evidence(
        self,
        surprise: Vectors,
        at: Floats,
        first: int | NDArray[np.int64],
        rows: slice,
        bounds: tuple[NDArray[np.int64], NDArray[np.int64]] | None = None,
    ) -> Floats:
        values = _along(surprise, at, first, bounds) * self.audible[rows]
        return np.asarray(values.sum(axis=-1) / (max(self.audible[rows].sum(), 1) * self.full))

    def _best(self, line: _Line, slopes: Floats, slides: Floats, evidence: Floats) -> _Rated:
        turn, slide = np.unravel_index(int(evidence.argmax()), evidence.shape)
        best = replace(line, middle=line.middle + float(slides[slide]), slope=float(slopes[turn]))
        nudge = vertex(evidence[turn], int(slide)) * float(slides[1] - slides[0])
        return _Rated(best, float(evidence[turn, slide]), nudge)

    def tilted(self, upright: _Rated) -> _Rated:
        """Turn a diagonal to the line with most evidence, unless it has hardly more.

        As many lines are tried, what one of them has counts less than what a diagonal has.
        """
        span = 2 * float(self.steps[-1])
        spacing = _STEP_HOPS / max(span / 2, 1e-9)
        if (n_tilts := int(self.config.max_tilt / spacing)) < _MIN_TILTS:
            return upright
        turns = np.linspace(-1, 1, 2 * min(n_tilts, _MAX_TILTS) + 1) * self.config.max_tilt
        slides = self._slides(self.config.max_tilt)
        rated = self.rate(upright.line, 1 + turns, slides, self.every)
        for zoom in (1.0, 0.25):
            if rated is not None and rated.line.slope != 1.0:
                around = rated.line.slope + np.linspace(-zoom, zoom, 9) * (turns[1] - turns[0])
                rated = self.rate(rated.line, around, np.linspace(-1, 1, 9) * zoom * _STEP_HOPS)
        if rated is None or rated.line.slope == 1.0:
            return upright
        evidence = rated.evidence * self.tilted_weight
        return replace(rated, evidence=evidence) if evidence > upright.evidence else upright

    def elsewhere(self, best: _Rated, diagonals: Iterable[_Rated]) -> tuple[float, ...]:
        """How far from a line lie others of its track that have nearly the same evidence."""
        apart = _APART_S / self.reference.hop_s
        least = _AS_GOOD * best.evidence
        if best.line.slope != 1.0:  # a diagonal catches a part of such a line
            least /= self.tilted_weight
            slides = self._slides(abs(best.line.slope - 1))
            slope = np.array([best.line.slope])
            again = (self.rate(one.line, slope, slides, self.every) for one in diagonals)
            diagonals = filter(None, again)
        found: list[float] = []
        for one in sorted(diagonals, key=lambda one: -one.evidence):
            beside = one.line.middle + one.nudge - best.line.middle - best.nudge
            if one.evidence >= least and all(abs(beside - at) > apart for at in (0.0, *found)):
                found.append(beside)
        return tuple(found)

    def describe(self, rated: _Rated, elsewhere: Iterable[float] = ()) -> Candidate:
        """Say where a line lies and how well the query agrees along it."""
        query, line = self.query, rated.line
        at: Floats = line.middle + line.slope * self.steps
        first, stored = self._stored(line.track_id, at)
        cosines = query.embeddings @ stored.T
        agreeing = self.audible & (_beside(cosines, at, first) >= self.config.agreement)
        heard = np.flatnonzero(agreeing if agreeing.any() else self.audible)
        # Segments that sound alike have their middles, not their starts, on the line of time.
        start_s = (at[0] + rated.nudge) * self.reference.hop_s
        offset_s = float(start_s - (line.slope - 1) * query.segment_s / 2)
        end_s = heard[-1] * query.segment_hop_s + query.segment_s
        return Candidate(
            track_id=line.track_id,
            offset_s=offset_s,
            votes=line.votes,
            evidence=rated.evidence,
            score=_mean_along(cosines, at, first, self.audible),
            coverage=float(agreeing.sum() / max(self.audible.sum(), 1)),
            query_start_s=float(heard[0] * query.segment_hop_s),
            query_end_s=float(min(end_s, query.duration_s)),
            speed=line.slope,
            also=tuple(offset_s + far * self.reference.hop_s for far in elsewhere),
        )

    def _slides(self, tilt: float) -> Floats:
        """Slides that bring a line back to its diagonal wherever in the query they agree."""
        reach = np.ceil(tilt * float(self.steps[-1]) / _STEP_HOPS) * _STEP_HOPS
        return np.arange(-reach, reach + _STEP_HOPS, _STEP_HOPS)

    def _stored(self, track_id: int, at: Floats) -> tuple[int, Vectors]:
        """Read the vectors of a track that lie at or beside positions."""
        first = max(int(np.floor(at.min())), 0)
        last = min(int(np.ceil(at.max())) + 1, self.reference.n_positions(track_id))
        if last <= first:
            return first, np.zeros((0, self.sharp.shape[1]), np.float32)
        return first, self.reference.vectors(track_id, first, last)


def _weight(distance: Floats) -> Floats:
    """How much a stored segment says about a line that misses it by some hops."""
    return np.maximum(1 - np.abs((distance + 0.5) % 1 - 0.5) / _REACH_HOPS, 0)


def _along(
    values: NDArray[np.floating],
    at: Floats,
    first: int | NDArray[np.int64],
    bounds: tuple[NDArray[np.int64], NDArray[np.int64]] | None = None,
) -> Floats:
    """Weighted values of the stored segments next to a line.

    Parameters
    ----------
    values : array of shape (n_queries, n_positions)
        Of the positions from `first` on.
    at : float64 array of shape (..., n_queries)
        Positions of the query's segments on one or more lines.
    first : int or int64 array that broadcasts with `at`
    bounds : pair of int64 arrays that broadcast with `at`, optional
        Columns of `values` that a line may reach, the last one excluded; all by default.
    """
    n_queries, n_positions = values.shape
    lowest, beyond = bounds or (0, n_positions)
    near = np.rint(at).astype(np.int64) - first
    inside = (near >= lowest) & (near < beyond)
    found = values[np.arange(n_queries), near.clip(0, max(n_positions - 1, 0))]
    return np.asarray(np.where(inside, found * _weight(at), 0.0), np.float64)


def _mean_along(cosines: Vectors, at: Floats, first: int, audible: NDArray[np.bool_]) -> float:
    weights = _along(np.ones_like(cosines), at, first)[audible].sum()
    return float(_along(cosines, at, first)[audible].sum() / max(weights, 1e-9))


def _beside(cosines: Vectors, at: Floats, first: int) -> Floats:
    """Cosine of each query segment and the stored one nearest to the line, -1 without one.

    Where the line runs midway between two, the greater one.
    """
    n_queries, n_positions = cosines.shape
    out = np.full(n_queries, -1.0)
    for near in (np.ceil(at - 0.5), np.floor(at + 0.5)):
        column = near.astype(np.int64) - first
        found = cosines[np.arange(n_queries), column.clip(0, n_positions - 1)]
        out = np.maximum(out, np.where((column >= 0) & (column < n_positions), found, -1.0))
    return out


def _background(hits: Hits, least: float) -> NDArray[np.float32]:
    """Cosine of the farthest neighbour of each query segment, shape (n_queries,)."""
    known = np.where(np.isfinite(hits.cosines), hits.cosines, np.inf)
    farthest = known.min(axis=1, initial=np.inf)
    return np.maximum(np.where(np.isfinite(farthest), farthest, least), least).astype(np.float32)


def vertex(scores: Floats, peak: int) -> float:
    """Find the top of the parabola through a peak and its neighbours, in steps from the peak.

    Parameters
    ----------
    scores : float array of shape (n,)
    peak : int

    Returns
    -------
    float
        0 at either end, and where they do not bend down.
    """
    if not 0 < peak < len(scores) - 1:
        return 0.0
    left, top, right = scores[peak - 1 : peak + 2]
    bend = left - 2 * top + right
    return float(0.5 * (left - right) / bend) if np.isfinite(bend) and bend < 0 else 0.0
