"""How sure a measured value is, when excerpts of one track stand or fall together.

Not queries but tracks are drawn again, with all their queries (a cluster bootstrap: Davison and
Hinkley 1997, section 3.8). Pure: no audio, no files.
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
    """Draws the tracks of some queries again, many times.

    Parameters
    ----------
    tracks : sequence of str
        The track of each query; one at least.
    seed : int
        The same seed gives the same intervals.
    """

    def __init__(self, tracks: Sequence[str], seed: int = 0) -> None:
        names, self._track_of = np.unique(np.asarray(tracks, dtype=str), return_inverse=True)
        self.n_tracks = n = len(names)
        rng = np.random.default_rng(seed)
        self._weights = rng.multinomial(n, np.full(n, 1 / n), size=N_RESAMPLES)

    def share(self, flags: Sequence[bool], among: Sequence[bool] | None = None) -> Share:
        """Count a share and its 95 % interval.

        Where all queries agree there is nothing to draw: the interval is then Wilson's, for as
        many independent queries as there are tracks.

        Parameters
        ----------
        flags : sequence of bool
            One for each query.
        among : sequence of bool, optional
            Which queries count; all by default.
        """
        counted = np.ones(len(flags), bool) if among is None else np.asarray(among, bool)
        yes = np.asarray(flags, bool) & counted
        found = share(yes[counted].tolist())
        if found.value is None:
            return found
        if found.n_yes in (0, found.n):
            n_tracks = len(np.unique(self._track_of[counted]))
            fewer = share([bool(found.n_yes)] * n_tracks)
            return replace(found, low=fewer.low, high=fewer.high)
        interval = self.mean(yes, counted)
        assert interval is not None
        return replace(found, low=interval[0], high=interval[1])

    def mean(self, values: ArrayLike, among: ArrayLike) -> Interval | None:
        """Give the 95 % interval of the mean over the queries that count; None without any."""
        counted = np.asarray(among, np.float64)
        if not counted.any():
            return None
        tops = self._weights @ self._by_track(np.asarray(values, np.float64) * counted)
        bottoms = self._weights @ self._by_track(counted)
        drawn = bottoms > 0
        return _interval(tops[drawn] / bottoms[drawn])

    def median(self, values: Sequence[float | None]) -> Interval | None:
        """Give the 95 % interval of the median of those that are not None; None without any."""
        known = np.array([value is not None for value in values], bool)
        if not known.any():
            return None
        filled = np.array([value for value in values if value is not None])
        order = np.argsort(filled, kind="stable")
        heaped = np.cumsum(self._weights[:, self._track_of[known][order]], axis=1)
        drawn = heaped[:, -1] > 0
        places = np.argmax(heaped[drawn] * 2 >= heaped[drawn, -1:], axis=1)
        return _interval(filled[order][places])

    def _by_track(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        sums = np.bincount(self._track_of, values, minlength=self.n_tracks)
        return np.asarray(sums, np.float64)


def _interval(drawn: NDArray[np.float64]) -> Interval:
    low, high = np.percentile(drawn, _PERCENTILES)
    return float(low), float(high)
