"""Confidence intervals for queries that are correlated within a track.

Tracks are resampled with all their queries (cluster bootstrap: Davison and Hinkley 1997,
section 3.8). `scipy.stats.bootstrap` resamples single observations only, and has no rule for
resamples in which nothing is counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from astound.evaluation.statistics import Share, share

N_RESAMPLES = 2000
_PERCENTILES = (2.5, 97.5)

Interval = tuple[float, float]


class Bootstrap:
    """Resample the tracks of queries.

    Parameters
    ----------
    tracks : sequence of str
        The track of each query, not empty.
    seed : int
        Seed of the resampling.
    """

    def __init__(self, tracks: Sequence[str], seed: int = 0) -> None:
        names, self._track_of = np.unique(np.asarray(tracks, dtype=str), return_inverse=True)
        self.n_tracks = n = len(names)
        rng = np.random.default_rng(seed)
        self._weights = rng.multinomial(n, np.full(n, 1 / n), size=N_RESAMPLES)

    def share(self, flags: Sequence[bool], among: Sequence[bool] | None = None) -> Share:
        """Compute a share and its 95 % interval.

        If all queries agree, resampling shows no variance; the interval is then Wilson's for one
        query a track.

        Parameters
        ----------
        flags : sequence of bool
            One for each query.
        among : sequence of bool, optional
            Queries to count; all by default.
        """
        counted = np.ones(len(flags), bool) if among is None else np.asarray(among, bool)
        positive = np.asarray(flags, bool) & counted
        result = share(positive[counted].tolist())
        if result.value is None:
            return result
        if result.n_yes in (0, result.n):
            n_tracks = len(np.unique(self._track_of[counted]))
            per_track = share([bool(result.n_yes)] * n_tracks)
            return replace(result, low=per_track.low, high=per_track.high)
        interval = self.mean(positive, counted)
        assert interval is not None
        return replace(result, low=interval[0], high=interval[1])

    def mean(self, values: ArrayLike, among: ArrayLike) -> Interval | None:
        """Compute the 95 % interval of the mean over the queries `among`; None without any."""
        counted = np.asarray(among, np.float64)
        if not counted.any():
            return None
        numerators = self._weights @ self._by_track(np.asarray(values, np.float64) * counted)
        denominators = self._weights @ self._by_track(counted)
        drawn = denominators > 0
        return _interval(numerators[drawn] / denominators[drawn])

    def median(self, values: Sequence[float | None]) -> Interval | None:
        """Compute the 95 % interval of the median of the values that are not None; None without."""
        return self.quantile(values, 0.5)

    def quantile(self, values: Sequence[float | None], share: float) -> Interval | None:
        """Compute the 95 % interval of a quantile of the values that are not None; None without.

        Parameters
        ----------
        values : sequence of (float or None)
            One for each query.
        share : float
            The quantile, in (0, 1].
        """
        known = np.array([value is not None for value in values], bool)
        if not known.any():
            return None
        filled = np.array([value for value in values if value is not None])
        order = np.argsort(filled, kind="stable")
        cumulated = np.cumsum(self._weights[:, self._track_of[known][order]], axis=1)
        drawn = cumulated[:, -1] > 0
        positions = np.argmax(cumulated[drawn] >= share * cumulated[drawn, -1:], axis=1)
        return _interval(filled[order][positions])

    def _by_track(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        sums = np.bincount(self._track_of, values, minlength=self.n_tracks)
        return np.asarray(sums, np.float64)


def _interval(drawn: NDArray[np.float64]) -> Interval:
    low, high = np.percentile(drawn, _PERCENTILES)
    return float(low), float(high)
