"""Lines along which a recording and a track agree: the cosines along them, and their best fit.

A segment of the recording lies anywhere between two stored ones, half a second apart or so. It is
compared with the vector interpolated between these, so that its cosine does not depend on where it
falls.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from engine.records import Fingerprint, TrackReader, Vectors

Floats = NDArray[np.float64]

CHANCE = 0.15
"""Mean cosine of unrelated music; docs/measurements.md#passages."""

MIN_SQUARED_ANGLE = 0.02
"""Squared angles below this differ by rounding; docs/measurements.md#search."""

# Shifts at which a recording and a track that it comes from agree by chance, in seconds.
_CHANCE_SHIFTS_S = np.array([-2.9, -1.7, 1.7, 2.9])

# Shifts of a line that are compared, in hops of the track; each block of a second finds its own.
_SHIFTS = np.linspace(-0.75, 0.75, 7)
_BLOCK_S = 1.0
# Weight of a block whose best shift is the first or the last: the true one lies beyond.
_EDGE_WEIGHT = 0.05
# Expected error of the shift of a block, and of a slope.
_SHIFT_ERROR_S, _SLOPE_ERROR = 0.03, 0.1
_SPEEDS = (0.45, 2.2)
# The less a block agrees, the larger the error of its shift: power of how far it exceeds chance.
_WEIGHT_POWER = 4
_MIN_WEIGHT = 1e-6
_PRIOR_SPREAD_S2 = (_SHIFT_ERROR_S / _SLOPE_ERROR) ** 2
_N_REWEIGHTED = 3
_FEW_BLOCKS = 1.5
# A stored segment is looked for this far to both sides of a line, and found for as many at least;
# docs/measurements.md#search.
_STORED_REACH_S, _MIN_STORED = 0.35, 3
# A slope is another one than 1 from this many standard errors on.
_MIN_DEVIATIONS = 3.0


@dataclass(frozen=True, kw_only=True)
class Line:
    """Alignment of a track with a recording: a moment that both share, and a slope.

    Parameters
    ----------
    track_id : int
    query_s, reference_s : float
        A moment of the recording, and the moment of the track that sounds then.
    speed : float
        Reference seconds per second of the recording.
    """

    track_id: int
    query_s: float
    reference_s: float
    speed: float = 1.0

    def at(self, query_s: float) -> float:
        """Return the time in the track at a time of the recording, in seconds."""
        return self.reference_s + self.speed * (query_s - self.query_s)

    def distance_s(self, other: Line, query_s: float) -> float:
        """Return the distance to another line at a time of the recording, in reference seconds."""
        return abs(self.at(query_s) - other.at(query_s))


@dataclass(frozen=True)
class LineTracer:
    """Compares a recording with tracks along lines.

    Parameters
    ----------
    query : Fingerprint
    tracks : TrackReader
    """

    query: Fingerprint
    tracks: TrackReader

    @property
    def middles_s(self) -> Floats:
        """Middles of the query's segments, float64 array of shape (n_segments,)."""
        return np.asarray(self.query.starts_s + self.query.segment_s / 2)

    def cosines(self, line: Line, first: int = 0, last: int | None = None) -> Floats:
        """Compute the cosine of each of the query's segments first..last with the track.

        Returns
        -------
        float64 array of shape (n_segments,)
            NaN where a segment is silent, -1 outside of the track.
        """
        return self._beside(line, first, last, np.zeros(1))[:, 0]

    def chance(self, line: Line, first: int, last: int) -> float:
        """Return the mean cosine that the segments first..last reach beside a line.

        It is at least that of unrelated music, and higher in music made of loops and in speech.
        """
        cosines = self.cosines_beside(line, first, last)
        counted = cosines[:, ~np.isnan(cosines).all(axis=0)]
        means = np.nanmean(counted, axis=0)
        return max(float(np.median(means)), CHANCE) if len(means) else CHANCE

    def cosines_beside(self, line: Line, first: int, last: int) -> Floats:
        """Compute the cosines of the segments first..last some seconds beside a line.

        Returns
        -------
        float64 array of shape (last - first, n_shifts)
            NaN where a segment is silent, and outside of the track.
        """
        vectors, at = self.query.embeddings[first:last], self._positions(line, first, last)
        places = np.rint(at[:, None] + _CHANCE_SHIFTS_S / self.tracks.hop_s).astype(np.int64)
        lowest, stored = self._stored(line, places)
        if not len(stored):
            return np.full(places.shape, np.nan)
        columns = places - lowest
        cosines = np.einsum("nd,nkd->nk", vectors, stored[columns.clip(0, len(stored) - 1)])
        cosines[(columns < 0) | (columns >= len(stored))] = np.nan
        cosines[np.logical_not(vectors.any(axis=1))] = np.nan
        return np.asarray(cosines, np.float64)

    def extent(self, line: Line) -> tuple[float, float]:
        """Return where the stored segments of the track begin and end in the query, in seconds."""
        n_stored = self.tracks.n_positions(line.track_id)
        length_s = (n_stored - 1) * self.tracks.hop_s + self.query.segment_s
        start_s = line.query_s - line.reference_s / line.speed
        return start_s, start_s + length_s / line.speed

    def diagonals(self, track_id: int, parts: Iterable[tuple[int, int]]) -> Iterator[Line]:
        """Find the line with slope 1 on which each part of the query agrees best with a track.

        They are as precise as the hop of the catalog; see :meth:`fit`.

        Parameters
        ----------
        track_id : int
            All its vectors are read, once.
        parts : iterable of (int, int)
            Segments first..last of the query, the last one excluded.

        Yields
        ------
        Line
            One for each part.
        """
        step = max(round(self.tracks.hop_s / self.query.segment_hop_s), 1)
        stored = self.tracks.vectors(track_id, 0, self.tracks.n_positions(track_id))
        for first, last in parts:
            vectors = self.query.embeddings[first:last:step]
            n_places = len(vectors) + len(stored)
            cosines = np.pad(vectors @ stored.T, ((0, 0), (len(vectors), len(vectors))))
            sums = sum(of_one[row : row + n_places] for row, of_one in enumerate(cosines))
            place = int(np.argmax(sums)) - len(vectors)
            yield Line(
                track_id=track_id,
                query_s=float(self.query.starts_s[first]),
                reference_s=place * self.tracks.hop_s,
            )

    def fit(self, line: Line, first: int, last: int, speed: float = 1.0) -> tuple[Line, float]:
        """Move and turn a line to where the segments first..last agree best.

        Each block of a second finds its own shift. The line is fitted to these by least squares
        that are robust to outliers.

        Parameters
        ----------
        line : Line
        first, last : int
            The last segment is excluded.
        speed : float
            Slope that is expected.

        Returns
        -------
        line : Line
        slope_error : float
            Standard error of its slope, made larger if it is estimated from few blocks, much as
            by Student's t.
        """
        times_s, shifts_s, weights = self._shifts(line, first, last)
        if weights.sum() < _MIN_WEIGHT:
            return line, _SLOPE_ERROR
        return _turned(line, times_s, shifts_s, weights, speed)

    def fit_stored(self, line: Line, first: int, last: int) -> tuple[Line, float]:
        """Move and turn a line to where the stored segments of the track agree best.

        Each of them finds the moment of the segments first..last that agrees most. That is more
        precise than :meth:`fit` for a query with a hop of about 0.06 s.

        Parameters
        ----------
        line : Line
        first, last : int
            The last segment is excluded.

        Returns
        -------
        line : Line
            As it was if too few stored segments find their moment.
        slope_error : float
        """
        if last <= first:
            return line, _SLOPE_ERROR
        times_s, at_s, weights = self._moments(line, first, last)
        if np.count_nonzero(weights) < _MIN_STORED:
            return line, _SLOPE_ERROR
        shifts_s = at_s - line.reference_s - line.speed * (times_s - line.query_s)
        return _turned(line, times_s, shifts_s, weights / weights.mean(), line.speed)

    def _moments(self, line: Line, first: int, last: int) -> tuple[Floats, Floats, Floats]:
        """Find the moment that each stored segment agrees with most, in both, and its weight."""
        query, hop_s = self.query, self.query.segment_hop_s
        vectors, at = query.embeddings[first:last], self._positions(line, first, last)
        lowest, stored = self._stored(line, np.rint(at).astype(np.int64))
        reach = round(_STORED_REACH_S / hop_s)
        rows = np.interp(np.arange(lowest, lowest + len(stored)), at, np.arange(len(at)))
        near = np.rint(rows).astype(np.int64)[:, None] + np.arange(-reach, reach + 1)
        rows_near = near.clip(0, len(at) - 1)
        is_usable = np.logical_and(near == rows_near, vectors[rows_near].any(axis=2))
        cosines = np.einsum("nd,nkd->nk", stored, vectors[rows_near])
        angles = np.where(is_usable, squared_angle(cosines), np.inf)
        peaks = angles.argmin(axis=1).clip(1, 2 * reach - 1)
        before, least, after = np.take_along_axis(angles, peaks[:, None] + [-1, 0, 1], axis=1).T
        inner = np.flatnonzero(np.isfinite(before) & np.isfinite(after) & (least <= before))
        inner = inner[least[inner] <= after[inner]]
        steps = [parabola_vertex(-angles[one], int(peaks[one])) for one in inner]
        times_s = self.middles_s[first:last][near[inner, peaks[inner]]] + np.array(steps) * hop_s
        bends = (before + after)[inner] - 2 * least[inner]
        weights = np.sqrt(bends / np.maximum(least[inner], MIN_SQUARED_ANGLE))
        at_s = (lowest + inner) * self.tracks.hop_s + query.segment_s / 2
        return times_s, np.asarray(at_s), np.asarray(weights, np.float64)

    def _shifts(self, line: Line, first: int, last: int) -> tuple[Floats, Floats, Floats]:
        """Find the shift of each block: its middle, its shift in seconds, and its weight."""
        cosines = self._beside(line, first, last, _SHIFTS)
        usable = np.all(cosines > -1, axis=1)  # False for NaN too
        n_blocks = max(round((last - first) * self.query.segment_hop_s / _BLOCK_S), 1)
        block = np.linspace(0, n_blocks, last - first, endpoint=False).astype(np.int64)[usable]
        n_usable = np.bincount(block, minlength=n_blocks)
        filled = np.flatnonzero(n_usable)
        starts = np.searchsorted(block, filled)
        if not len(filled):
            return np.zeros(0), np.zeros(0), np.zeros(0)
        means = np.add.reduceat(cosines[usable], starts) / n_usable[filled, None]
        times_s = np.add.reduceat(self.middles_s[first:last][usable], starts) / n_usable[filled]
        peaks = means.argmax(axis=1)
        steps = peaks + np.array([parabola_vertex(*one) for one in zip(means, peaks, strict=True)])
        shifts = np.interp(steps, np.arange(len(_SHIFTS)), _SHIFTS)
        excess = np.maximum(means.max(axis=1) - CHANCE, 0.0) / (1 - CHANCE)
        is_inner = (peaks > 0) & (peaks < len(_SHIFTS) - 1)
        weights = excess**_WEIGHT_POWER * np.where(is_inner, 1.0, _EDGE_WEIGHT)
        return times_s, shifts * self.tracks.hop_s, weights

    def _beside(self, line: Line, first: int, last: int | None, shifts: Floats) -> Floats:
        """Cosines along a line and lines beside it, shape (n_segments, n_shifts)."""
        vectors, at = self.query.embeddings[first:last], self._positions(line, first, last)
        places = at[:, None] + shifts
        lower = np.floor(places).astype(np.int64)
        lowest, stored = self._stored(line, lower)
        if not len(stored):
            out = np.full(places.shape, -1.0)
        else:
            out = _interpolated(vectors, stored, places - lowest, lower - lowest)
        out[~vectors.any(axis=1)] = np.nan
        return out

    def _positions(self, line: Line, first: int, last: int | None) -> Floats:
        """Positions in the track of the segments first..last on a line, in hops."""
        middles_s = self.middles_s[first:last]
        reference_s = line.reference_s + line.speed * (middles_s - line.query_s)
        return np.asarray((reference_s - self.query.segment_s / 2) / self.tracks.hop_s)

    def _stored(self, line: Line, at: NDArray[np.int64]) -> tuple[int, Vectors]:
        """Read the vectors of a track at positions and the one after, from the first on."""
        n_stored = self.tracks.n_positions(line.track_id)
        lowest = max(int(at.min(initial=n_stored)), 0)
        beyond = max(min(int(at.max(initial=-2)) + 2, n_stored), lowest)
        return lowest, self.tracks.vectors(line.track_id, lowest, beyond)


def _turned(
    line: Line, times_s: Floats, shifts_s: Floats, weights: Floats, speed: float
) -> tuple[Line, float]:
    """Fit a line to shifts at some times; see :meth:`LineTracer.fit`."""
    robust = weights
    for _ in range(_N_REWEIGHTED):
        middle_s, shift_s = (float(np.average(x, weights=robust)) for x in (times_s, shifts_s))
        spread = float((robust * (times_s - middle_s) ** 2).sum())
        spread += _PRIOR_SPREAD_S2
        products = robust * (times_s - middle_s) * (shifts_s - shift_s)
        prior = _PRIOR_SPREAD_S2 * (speed - line.speed)
        turn = (float(products.sum()) + prior) / spread
        rest_s = shifts_s - shift_s - turn * (times_s - middle_s)
        robust = weights / (1 + (rest_s / (2 * _SHIFT_ERROR_S)) ** 2)
    fitted = Line(
        track_id=line.track_id,
        query_s=middle_s,
        reference_s=line.at(middle_s) + shift_s,
        speed=float(np.clip(line.speed + turn, *_SPEEDS)),
    )
    # The prior counts as two more blocks.
    squares = float((robust * rest_s**2).sum()) + 2 * _SHIFT_ERROR_S**2
    error = float(np.sqrt(squares / (robust.sum() * spread)))
    n_blocks = float(robust.sum() ** 2 / (robust**2).sum())  # of those that count (Kish 1965)
    return fitted, error * (1 + _FEW_BLOCKS / n_blocks)


def snapped(line: Line, slope_error: float, speed_error: float = 0.0) -> Line:
    """Return the line with slope 1 if its slope cannot be distinguished from that.

    Parameters
    ----------
    line : Line
    slope_error : float
        Standard error of its slope.
    speed_error : float
        Standard error of the slope that is expected. If it is not 0, the result is the mean of both
        slopes by their errors.
    """
    error = float(np.hypot(slope_error, speed_error))
    if abs(line.speed - 1) >= _MIN_DEVIATIONS * error:
        return line
    return replace(line, speed=1 + (line.speed - 1) * (speed_error / error) ** 2)


def squared_angle(cosines: ArrayLike) -> Floats:
    """Return the squares of the angles of cosines, which lie on a parabola around the best one.

    Parameters
    ----------
    cosines : float array of any shape

    Returns
    -------
    float64 array of the same shape
    """
    return np.asarray(np.square(np.arccos(np.clip(cosines, -1.0, 1.0))), np.float64)


def parabola_vertex(scores: Floats, peak: int) -> float:
    """Find the top of the parabola through a peak and its neighbours, in steps from the peak.

    Parameters
    ----------
    scores : float array of shape (n,)
    peak : int

    Returns
    -------
    float
        0 at either end, and where the three points do not bend down.
    """
    if not 0 < peak < len(scores) - 1:
        return 0.0
    left, top, right = scores[peak - 1 : peak + 2]
    bend = left - 2 * top + right
    return float(0.5 * (left - right) / bend) if np.isfinite(bend) and bend < 0 else 0.0


def _interpolated(
    vectors: Vectors, stored: Vectors, at: Floats, lower: NDArray[np.int64]
) -> Floats:
    """Cosines with the vectors between stored ones; half a hop beyond these, with the last.

    Parameters
    ----------
    vectors : float32 array of shape (n, dim)
    stored : float32 array of shape (n_stored, dim)
    at : float64 array of shape (n, n_places)
        Positions among the stored vectors.
    lower : int64 array of shape (n, n_places)
        The whole positions below.
    """
    last = len(stored) - 1
    share = at - lower
    # The product of each vector with the few stored ones that its places lie between.
    base = lower.min(axis=1)
    columns = base[:, None] + np.arange(int((lower.max(axis=1) - base).max()) + 2)
    products = np.einsum("nd,nkd->nk", vectors, stored[columns.clip(0, last)])
    # Norms of what lies between: silent segments are zeros.
    norms = np.einsum("nd,nd->n", stored, stored)
    angles = np.append(np.einsum("nd,nd->n", stored[:-1], stored[1:]), norms[-1])
    one = np.take_along_axis(products, lower - base[:, None], axis=1)
    two = np.take_along_axis(products, lower - base[:, None] + 1, axis=1)
    first_norm, last_norm = norms[lower.clip(0, last)], norms[(lower + 1).clip(0, last)]
    angle = np.where(lower < 0, norms[0], angles[lower.clip(0, last)])
    squares = (1 - share) ** 2 * first_norm + share**2 * last_norm
    squares += 2 * share * (1 - share) * angle
    cosines = ((1 - share) * one + share * two) / np.sqrt(np.maximum(squares, 1e-9))
    return np.where((at > -0.5) & (at < last + 0.5), cosines, -1.0)
