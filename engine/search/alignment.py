"""Score diagonals on the stored vectors, and fit tilted lines to the best ones.

A diagonal is scored as a whole, whether its hits were among the nearest neighbours or not. If the
tempo of query and track differs, they agree along a tilted line ``t_ref = speed * t_query +
offset``. A diagonal covers a part of that line, and the search for the line begins there.

Candidates are ranked by evidence instead of by their mean cosine: noise masks some segments of a
query and leaves others, so each segment counts by how far its cosine exceeds the background, which
is what unrelated music in the catalog reaches (docs/measurements.md#search).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from engine.config import AlignConfig
from engine.records import Candidate, Diagonal, Fingerprint, Hits, TrackReader, Vectors
from engine.search.line import parabola_vertex

Floats = NDArray[np.float64]

# Cosine that unrelated music reaches in any catalog of some size. A small one contains none that
# close, and without this limit anything would exceed its background.
MIN_BACKGROUND = 0.7
# Excess of a cosine over the background that counts as one unit of evidence.
_EVIDENCE_SCALE = 0.2
# Length of a query that has half of its mean removed; see remove_mean.
_MEAN_REMOVAL_S = 4.0

# Distance from a line, in hops, at which the weight of a stored segment is 0.
_REACH_HOPS = 0.5
# A diagonal is shifted this far to either side of where its votes met, in these steps.
_SHIFT_HOPS = 0.5
_STEP_HOPS = 0.25
# Slopes tried to either side of a diagonal. With fewer than the minimum, the query is too short to
# distinguish a line from a diagonal.
_MAX_SLOPES = 20
_MIN_SLOPES = 2
# If the best line has a lower mean cosine, tracks are compared along steep lines as well: so many
# tracks with so many slopes from half to twice the tempo, and only by queries of some length.
_CLEAR_SCORE, _N_STEEP, _MIN_STEEP_S = 0.9, 3, 4.5
_STEEP_SLOPES = np.geomspace(0.5, 2.0, 61)
# Up to this length of the query, the evidence of tilted lines is multiplied by
# AlignConfig.tilted_weight, and by more in longer ones; docs/measurements.md#search.
_SHORT_S = 5.0
# Segments of a long query in the first, coarse search for tilted lines.
_MAX_COARSE_SEGMENTS = 96
# Report a second position if its evidence is at least this fraction of the best, and if it is at
# least this far from all reported ones; docs/measurements.md#search.
_MIN_EVIDENCE_RATIO = 0.9
_MIN_DISTANCE_S = 1.0
# Candidates of a query that are measured however small their evidence; any other one must have this
# fraction of the best evidence.
_N_MEASURED, _MIN_MEASURED_RATIO = 12, 0.5
# What the track itself loses backwards counts as at least this much; docs/measurements.md#search.
_MIN_LOSS = 0.2
# Pairs of segments that are compared at once: their cosines stay in the processor's cache.
_MAX_PAIRS = 100_000
# Evidence of a promising diagonal over that of one that is there by chance, and that of a tilted
# line over another's. Tilting multiplies that of a chance one by so much at most;
# docs/measurements.md#passages.
_MIN_LEAD, _MIN_TILTED_LEAD, _MAX_CHANCE_LEAD = 1.2, 1.4, 3.0


class _HasEvidence(Protocol):
    @property
    def evidence(self) -> float: ...


_Evident = TypeVar("_Evident", bound=_HasEvidence)


def remove_mean(query: Fingerprint) -> Vectors:
    """Subtract a part of the mean from the embeddings of a query.

    Steady noise and a room shift all segments of a query in the same direction, and so towards any
    music that sounds like them. The longer the query, the more of its mean is this shift and not
    the music, so ``t / (t + 4 s)`` of it is subtracted; docs/measurements.md#search.

    Parameters
    ----------
    query : Fingerprint

    Returns
    -------
    float32 array of shape (n_segments, dim)
        Unit norm; all zeros where a segment is silent.
    """
    audible = query.audible
    if not audible.any():
        return query.embeddings
    share = query.audible_s / (query.audible_s + _MEAN_REMOVAL_S)
    mean = query.embeddings[audible].mean(axis=0) * share
    centred = query.embeddings - mean.astype(np.float32)
    lengths = np.linalg.norm(centred, axis=1, keepdims=True)
    normalised = np.where(audible[:, None], centred / np.maximum(lengths, 1e-6), 0.0)
    return normalised.astype(np.float32)


def rescore(
    diagonals: Sequence[Diagonal],
    query: Fingerprint,
    centred: Vectors,
    hits: Hits,
    tracks: TrackReader,
    config: AlignConfig,
) -> list[Candidate]:
    """Score diagonals by the cosines of all their pairs of segments, and tilt the best ones.

    Parameters
    ----------
    diagonals : sequence of Diagonal
    query : Fingerprint
        With the finer hop.
    centred : float32 array of shape (n_segments, dim)
        Its embeddings after :func:`remove_mean`, which the evidence is computed from.
    hits : Hits
        Nearest neighbours of `centred`; the last one of each segment gives its background.
    tracks : TrackReader
    config : AlignConfig

    Returns
    -------
    list of Candidate
        One for each track, most evidence first, without their margins. Beyond the first few, those
        with much less evidence than the best are left out.
    """
    scorer = _LineScorer(query, centred, background(hits), tracks, config)
    ranked = sorted(scorer.tilt(scorer.rank(diagonals)), key=_evidence, reverse=True)
    return [
        scorer.candidate(one)
        for rank, one in enumerate(ranked)
        if rank < _N_MEASURED or one.evidence > _MIN_MEASURED_RATIO * ranked[0].evidence
    ]


def rescore_seeds(
    diagonals: Sequence[Diagonal],
    query: Fingerprint,
    centred: Vectors,
    hits: Hits,
    tracks: TrackReader,
    config: AlignConfig,
) -> list[Candidate]:
    """Score diagonals as :func:`rescore` does, and return the promising ones beside tilted lines.

    Returns
    -------
    list of Candidate
        Promising diagonals, one for each track, then promising lines of the best ones tilted.
    """
    scorer = _LineScorer(query, centred, background(hits), tracks, config)
    straight = scorer.rank(diagonals)
    n = config.max_tracks - 1
    chance = straight[n].evidence if len(straight) > n else 0.0
    lines = scorer.tilt(straight)[: config.n_tilted]
    by_chance = min(lines, key=_evidence).evidence if len(lines) == config.n_tilted else 0.0
    least = min(_MIN_TILTED_LEAD * by_chance, _MAX_CHANCE_LEAD * chance)
    tilted = [one for one in lines if one.line.slope != 1.0 and one.evidence > least]
    return [scorer.candidate(one) for one in promising(straight, n) + tilted]


def promising(ranked: Sequence[_Evident], n: int) -> list[_Evident]:
    """Return the first one, and those of the first n that stand out from the next one.

    Parameters
    ----------
    ranked : sequence of Candidate or the like
        Most evidence first.
    n : int
    """
    chance = _MIN_LEAD * ranked[n].evidence if len(ranked) > n else 0.0
    return list(ranked[:1]) + [one for one in ranked[1:n] if one.evidence > chance]


def positions_on_line(candidate: Candidate, query: Fingerprint, hop_s: float) -> Floats:
    """Compute where in its track each segment of a query lies.

    Parameters
    ----------
    candidate : Candidate
    query : Fingerprint
        Fingerprint of the query played at the speed `candidate.resampled`.
    hop_s : float
        Distance of the stored segments.

    Returns
    -------
    float64 array of shape (n_segments,)
        Positions in hops of the catalog; outside of the track if the query is.
    """
    slope = candidate.speed * candidate.resampled
    start_s = candidate.offset_s + (slope - 1) * query.segment_s / 2
    return np.asarray((start_s + slope * query.starts_s) / hop_s)


def mean_cosine(candidate: Candidate, query: Fingerprint, tracks: TrackReader) -> float:
    """Compute the mean cosine of query and track along a line, as `Candidate.score` is.

    Parameters
    ----------
    candidate : Candidate
    query : Fingerprint
        Fingerprint of the query played at the speed `candidate.resampled`.
    tracks : TrackReader

    Returns
    -------
    float
        In [-1, 1]; 0 if no segment lies within the track.
    """
    at = positions_on_line(candidate, query, tracks.hop_s)
    n_stored = tracks.n_positions(candidate.track_id)
    first, last = (int(np.clip(np.rint(edge), 0, n_stored)) for edge in (at.min(), at.max() + 1))
    if last <= first:
        return 0.0
    cosines = query.embeddings @ tracks.vectors(candidate.track_id, first, last).T
    return _mean_along(cosines, at, first, query.audible)


@dataclass(frozen=True)
class _Line:
    """Position of the middle of a query in a track, in hops of the track, and hops per query hop.

    `votes` are those of the diagonal it was made from.
    """

    track_id: int
    middle: float
    slope: float
    votes: int


@dataclass(frozen=True)
class _ScoredLine:
    """A line with its evidence, and the distance in hops to the peak of the evidence beside it."""

    line: _Line
    evidence: float
    subhop: float


def _evidence(scored: _ScoredLine) -> float:
    return scored.evidence


def _best_diagonal(scored: Sequence[_ScoredLine]) -> _ScoredLine:
    """Choose the diagonal of a track with most evidence.

    Several may be shifted to one line. Where that is the last shift, the peak beside it is unknown.
    """
    best = max(scored, key=_evidence)
    same = (one for one in scored if one.line.middle == best.line.middle)
    return max(same, key=lambda one: abs(one.subhop))


class _LineScorer:
    """Scores lines for one query; all times inside are in hops of the catalog."""

    def __init__(
        self,
        query: Fingerprint,
        centred: Vectors,
        background: NDArray[np.float32],
        tracks: TrackReader,
        config: AlignConfig,
    ) -> None:
        self.query, self.centred, self.background = query, centred, background
        self.tracks, self.config = tracks, config
        self.hop = query.segment_hop_s / tracks.hop_s
        n_segments = len(centred)
        # Positions of the segments relative to the middle of the query.
        self.steps: Floats = (
            np.arange(n_segments, dtype=np.float64) - (n_segments - 1) / 2
        ) * self.hop
        self.audible = query.audible
        self.coarse_step = -(-n_segments // _MAX_COARSE_SEGMENTS)
        # Mean weight of a segment over all positions between two stored ones.
        between = np.arange(0, 1, self.hop)
        self.mean_weight = _weight(between - np.rint(between)).mean()
        self.scored: dict[int, list[_ScoredLine]] = defaultdict(list)  # diagonals of each track

    @property
    def tilted_weight(self) -> float:
        """Factor of the evidence of tilted lines; the longer the query, the nearer to 1."""
        discount = (1 - self.config.tilted_weight) * min(_SHORT_S / self.query.duration_s, 1.0)
        return 1 - discount

    def rank(self, diagonals: Sequence[Diagonal]) -> list[_ScoredLine]:
        """Score diagonals, and keep the best one of each of `max_tracks` tracks."""
        for one in self.score_diagonals(diagonals):
            self.scored[one.line.track_id].append(one)
        best = [_best_diagonal(of_track) for of_track in self.scored.values()]
        return sorted(best, key=_evidence, reverse=True)[: self.config.max_tracks]

    def tilt(self, ranked: Sequence[_ScoredLine]) -> list[_ScoredLine]:
        """Turn the best diagonals to the lines with most evidence."""
        n, lines = self.config.n_tilted, list(ranked)
        lines[:n] = self.fit_slopes(lines[:n])
        if lines and n and self.is_unclear(max(lines, key=_evidence)):
            lines[:_N_STEEP] = self.fit_steep_slopes(lines[:_N_STEEP])
        return lines

    def score_diagonals(self, diagonals: Sequence[Diagonal]) -> list[_ScoredLine]:
        """Score diagonals at their best shift; leave out those outside of their tracks."""
        lines = [
            _Line(one.track_id, one.ticks * self.hop - float(self.steps[0]), 1.0, one.votes)
            for one in diagonals
        ]
        shifts = np.arange(-_SHIFT_HOPS, _SHIFT_HOPS + _STEP_HOPS, _STEP_HOPS)
        return [one for one in self._best_lines(lines, np.ones(1), shifts) if one.evidence > 0]

    def fit_slopes(self, diagonals: Sequence[_ScoredLine]) -> list[_ScoredLine]:
        """Turn diagonals to the lines with most evidence, unless these have hardly more.

        Many lines are tried, so the evidence of the best one is multiplied by `tilted_weight`.
        """
        max_tilt = self.config.max_tilt
        spacing = _STEP_HOPS / max(float(self.steps[-1]), 1e-9)
        if (n_slopes := int(max_tilt / spacing)) < _MIN_SLOPES:
            return list(diagonals)
        tilts = np.linspace(-1, 1, 2 * min(n_slopes, _MAX_SLOPES) + 1) * max_tilt
        return self._fit(diagonals, 1 + tilts)

    def is_unclear(self, scored: _ScoredLine) -> bool:
        """Whether a steep line may agree better; a short query agrees with some by chance."""
        if self.query.duration_s < _MIN_STEEP_S:
            return False
        at: Floats = scored.line.middle + scored.line.slope * self.steps
        first, stored = self._stored(scored.line.track_id, at)
        cosines = self.query.embeddings @ stored.T
        return _mean_along(cosines, at, first, self.audible) < _CLEAR_SCORE

    def fit_steep_slopes(self, scored: Sequence[_ScoredLine]) -> list[_ScoredLine]:
        """Turn lines to any from half to twice the tempo, unless these have hardly more."""
        return self._fit(scored, _STEEP_SLOPES)

    def _fit(self, scored: Sequence[_ScoredLine], slopes: Floats) -> list[_ScoredLine]:
        """Turn lines to the slopes with most evidence, less what the choice of slopes brings."""
        shifts = self._shifts(float(np.abs(slopes - 1).max()))
        spacing = float(np.diff(slopes).max())
        found = self._best_lines([one.line for one in scored], slopes, shifts, self.coarse_step)
        best = dict(enumerate(found))
        for zoom in (1.0, 0.25):
            best = {n: one for n, one in best.items() if one.line.slope != 1.0}
            lines = [one.line for one in best.values()]
            around = np.array([[one.slope] for one in lines]).reshape(-1, 1)
            slopes = around + np.linspace(-zoom, zoom, 9) * spacing
            shifts = np.linspace(-1, 1, 9) * zoom * _STEP_HOPS
            best = dict(zip(best, self._best_lines(lines, slopes, shifts), strict=True))
        fitted = list(scored)
        for n, one in best.items():
            evidence = one.evidence * self.tilted_weight
            if one.line.slope != 1.0 and evidence > scored[n].evidence:
                fitted[n] = replace(one, evidence=evidence)
        return fitted

    def other_places(self, best: _ScoredLine) -> tuple[float, ...]:
        """Distances from a line to others of its track with nearly the same evidence, in hops."""
        diagonals = self.scored[best.line.track_id]
        min_distance = _MIN_DISTANCE_S / self.tracks.hop_s
        min_evidence = _MIN_EVIDENCE_RATIO * best.evidence
        if best.line.slope != 1.0:  # score the other places along the same slope
            min_evidence /= self.tilted_weight
            shifts = self._shifts(abs(best.line.slope - 1))
            lines = [one.line for one in diagonals]
            slopes = np.array([best.line.slope])
            diagonals = self._best_lines(lines, slopes, shifts, self.coarse_step)
        places: list[float] = []
        for one in sorted(diagonals, key=_evidence, reverse=True):
            distance = one.line.middle + one.subhop - best.line.middle - best.subhop
            is_apart = all(abs(distance - place) > min_distance for place in (0.0, *places))
            if one.evidence >= min_evidence and is_apart:
                places.append(distance)
        return tuple(places)

    def candidate(self, scored: _ScoredLine) -> Candidate:
        """Measure how well query and track agree along a line."""
        query, line = self.query, scored.line
        at: Floats = line.middle + line.slope * self.steps
        # The reversed lines that cross it lie up to a length of the query farther to both sides.
        reach = line.slope * float(self.steps[-1])
        around = line.middle + np.array([-3.0, 3.0]) * reach
        first, stored = self._stored(line.track_id, around)
        cosines = query.embeddings @ stored.T
        agrees = self.audible & (_beside(cosines, at, first) >= self.config.min_cosine)
        covered = np.flatnonzero(agrees if agrees.any() else self.audible)
        # Segments that agree have the same middle, not the same start.
        start_s = (at[0] + scored.subhop) * self.tracks.hop_s
        offset_s = float(start_s - (line.slope - 1) * query.segment_s / 2)
        end_s = covered[-1] * query.segment_hop_s + query.segment_s
        places = self.other_places(scored)
        return Candidate(
            track_id=line.track_id,
            offset_s=offset_s,
            votes=line.votes,
            evidence=scored.evidence,
            score=_mean_along(cosines, at, first, self.audible),
            coverage=float(agrees.sum() / max(self.audible.sum(), 1)),
            query_start_s=float(covered[0] * query.segment_hop_s),
            query_end_s=float(min(end_s, query.duration_s)),
            direction=self._direction(at, reach, first, stored),
            speed=line.slope,
            also=tuple(offset_s + distance * self.tracks.hop_s for distance in places),
        )

    def _direction(self, at: Floats, reach: float, first: int, stored: Vectors) -> float:
        """Compare the evidence on a line with the best one on lines of opposite slope.

        Noise lowers both, and steady sound has the same on both. So their difference is divided by
        what it would be for the track itself.
        """
        rows = np.flatnonzero(self.audible)
        shifts = np.arange(-2 * reach, 2 * reach + _STEP_HOPS, _STEP_HOPS)
        # Every other segment may lie midway between stored ones, so the line itself needs all.
        few = rows[:: self.coarse_step]
        mirrored = shifts[:, None] + at[::-1][few]
        forwards = float(self._mean(self._pair_evidence(stored, rows), at[rows], first))
        of_shifts = self._mean(self._pair_evidence(stored, few), mirrored, first)
        best = int(of_shifts.argmax())
        backwards = float(of_shifts[best])
        nearest = np.rint(at[few]).astype(np.int64) - first
        played = stored[nearest.clip(0, len(stored) - 1)]
        same = float(self._mean(played @ stored.T, mirrored[best], first))
        loss = max(forwards, backwards, 1e-9) * (1 - same)
        return (forwards - backwards) / (loss + _MIN_LOSS)

    def _mean(self, values: Vectors, at: Floats, first: int) -> Floats:
        """Mean of values along lines, shape (...); what is outside of the track counts as 0."""
        sums, weights = (one.sum(axis=-1) for one in _along(values, at, first))
        return np.asarray(sums / np.maximum(weights, max(len(values) * self.mean_weight, 1)))

    def _best_lines(
        self, lines: Sequence[_Line], slopes: Floats, shifts: Floats, step: int = 1
    ) -> list[_ScoredLine]:
        """Choose the slope and shift of each line with the most evidence.

        Parameters
        ----------
        lines : sequence of _Line
        slopes : float64 array of shape (n_slopes,) or (n_lines, n_slopes)
        shifts : float64 array of shape (n_shifts,)
        step : int
            Every step-th segment is compared.

        Returns
        -------
        list of _ScoredLine
            Without evidence where a line is outside of its track.
        """
        slopes = np.broadcast_to(slopes, (len(lines), slopes.shape[-1]))
        n_segments = len(self.steps[::step])
        length = float(slopes.max(initial=1.0)) * len(self.steps) * self.hop + float(np.ptp(shifts))
        per_line = n_segments * max(slopes.shape[-1] * len(shifts), int(length) + 2)
        size = max(_MAX_PAIRS // per_line, 1)
        return [
            best
            for first in range(0, len(lines), size)
            for best in self._best_of(
                lines[first : first + size], slopes[first : first + size], shifts, step
            )
        ]

    def _best_of(
        self, lines: Sequence[_Line], slopes: Floats, shifts: Floats, step: int
    ) -> list[_ScoredLine]:
        """Choose as :meth:`_best_lines` does, all at once."""
        evidence = self._evidence(lines, slopes, shifts, slice(None, None, step))
        best = evidence.reshape(len(lines), -1).argmax(axis=1)
        turns, moves = np.unravel_index(best, evidence.shape[1:])
        spacing = float(shifts[1] - shifts[0])
        return [
            _ScoredLine(
                _Line(
                    line.track_id, line.middle + shifts[move].item(), of[turn].item(), line.votes
                ),
                float(values[turn, move]),
                parabola_vertex(values[turn], int(move)) * spacing,
            )
            for line, of, values, turn, move in zip(
                lines, slopes, evidence, turns, moves, strict=True
            )
        ]

    def _evidence(
        self, lines: Sequence[_Line], slopes: Floats, shifts: Floats, rows: slice
    ) -> Floats:
        """Mean evidence of the audible segments, shape (n_lines, n_slopes, n_shifts)."""
        middles = np.array([line.middle for line in lines])[:, None, None, None]
        at = middles + shifts[:, None] + slopes[:, :, None, None] * self.steps[rows]
        stored = [self._stored(line.track_id, of) for line, of in zip(lines, at, strict=True)]
        # The vectors of all lines are concatenated; the bounds keep each line within its own track.
        ends = np.cumsum([len(vectors) for _, vectors in stored])
        if not ends[-1]:
            return np.zeros(at.shape[:-1])
        starts = np.array([0, *ends[:-1]])
        firsts, lowest, beyond = (
            bounds[:, None, None, None]
            for bounds in (np.array([first for first, _ in stored]) - starts, starts, ends)
        )
        pairs = self._pair_evidence(np.concatenate([vectors for _, vectors in stored]), rows)
        audible = self.audible[rows]
        sums = _along(pairs, at, firsts, (lowest, beyond))[0] @ audible.astype(np.float64)
        return np.asarray(sums / (max(audible.sum(), 1) * self.mean_weight))

    def _pair_evidence(self, stored: Vectors, rows: slice | NDArray[np.intp]) -> Vectors:
        """Softplus of each pair's excess over the background, shape (n_queries, n_stored)."""
        excess = self.centred[rows] @ stored.T - self.background[rows, None]
        excess /= np.float32(_EVIDENCE_SCALE)
        # The same as np.logaddexp(0, excess), twelve times as fast.
        return np.asarray(np.maximum(excess, 0) + np.log1p(np.exp(-np.abs(excess))))

    def _shifts(self, tilt: float) -> Floats:
        """Shifts at which a tilted line meets its diagonal anywhere within the query."""
        reach = np.ceil(tilt * float(self.steps[-1]) / _STEP_HOPS) * _STEP_HOPS
        return np.arange(-reach, reach + _STEP_HOPS, _STEP_HOPS)

    def _stored(self, track_id: int, at: Floats) -> tuple[int, Vectors]:
        """Read the vectors of a track at and beside positions, from the first one returned on."""
        first = max(int(np.floor(at.min())), 0)
        last = min(int(np.ceil(at.max())) + 1, self.tracks.n_positions(track_id))
        if last <= first:
            return first, np.zeros((0, self.centred.shape[1]), np.float32)
        return first, self.tracks.vectors(track_id, first, last)


def background(hits: Hits) -> NDArray[np.float32]:
    """Return the cosine that unrelated music reaches: that of the farthest neighbour, or more.

    Parameters
    ----------
    hits : Hits

    Returns
    -------
    float32 array of shape (n_queries,)
    """
    cosines = np.where(np.isfinite(hits.cosines), hits.cosines, np.inf)
    farthest = cosines.min(axis=1, initial=np.inf)
    farthest = np.where(np.isfinite(farthest), farthest, MIN_BACKGROUND)
    return np.maximum(farthest, MIN_BACKGROUND).astype(np.float32)


def _weight(distances: Floats) -> Floats:
    """Weight of a stored segment so many hops from a position: 1 on it, 0 half a hop away."""
    return np.maximum(1 - np.abs(distances) / _REACH_HOPS, 0)


def _along(
    values: NDArray[np.floating],
    at: Floats,
    first: int | NDArray[np.int64],
    bounds: tuple[NDArray[np.int64], NDArray[np.int64]] | None = None,
) -> tuple[Floats, Floats]:
    """Values of the stored segments nearest to a line, and their weights.

    Parameters
    ----------
    values : array of shape (n_queries, n_positions)
        Of the positions from `first` on.
    at : float64 array of shape (..., n_queries)
        Positions of the query's segments on one or more lines.
    first : int or int64 array that broadcasts with `at`
    bounds : pair of int64 arrays that broadcast with `at`, optional
        Columns of `values` that a line may reach, the last one excluded; all by default.

    Returns
    -------
    values, weights : float64 arrays of shape (..., n_queries)
        The values are multiplied by the weights, which are 0 outside of the bounds.
    """
    n_queries, n_positions = values.shape
    lowest, beyond = bounds or (0, n_positions)
    nearest = np.rint(at)
    columns = nearest.astype(np.int64) - first
    inside = (columns >= lowest) & (columns < beyond)
    weights = _weight(at - nearest) * inside
    on_line = values[np.arange(n_queries), columns.clip(0, max(n_positions - 1, 0))]
    return on_line * weights, weights


def _mean_along(cosines: Vectors, at: Floats, first: int, audible: NDArray[np.bool_]) -> float:
    values, weights = _along(cosines, at, first)
    mean = values[..., audible].sum() / max(weights[..., audible].sum(), 1e-9)
    return float(min(mean, 1.0))  # vectors that are stored in few bits may be a little too long


def _beside(cosines: Vectors, at: Floats, first: int) -> Floats:
    """Cosine of each query segment with the stored one nearest to the line, -1 without one.

    If the line runs midway between two, it is the greater one.
    """
    n_queries, n_positions = cosines.shape
    out = np.full(n_queries, -1.0)
    for nearest in (np.ceil(at - 0.5), np.floor(at + 0.5)):
        column = nearest.astype(np.int64) - first
        beside = cosines[np.arange(n_queries), column.clip(0, n_positions - 1)]
        out = np.maximum(out, np.where((column >= 0) & (column < n_positions), beside, -1.0))
    return out
