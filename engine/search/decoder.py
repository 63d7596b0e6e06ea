"""Decode along which of several lines a recording follows a track, segment by segment.

A hidden Markov model with a state for each line, and one for none of them. The cosines are
normally distributed about the level of the passage on a line, and about that of chance beside it
(Viterbi 1967). Beginning, ending and changing the line cost, except at the ends of the recording.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.search.line import CHANCE, Floats

CORRELATION_S = 0.45
"""Time in which the cosines of consecutive segments are correlated."""

# Standard deviation of cosines about either level.
_DEVIATION = 0.2
# Costs in units of the logarithm of the likelihood.
_BORDER_COST, _CHANGE_COST = 4.0, 7.0

NO_LINE = -1


class Stretch(NamedTuple):
    """Segments first..last, the last one excluded, that follow a line, by its number."""

    line: int
    first: int
    last: int


def log_likelihoods(
    cosines: Floats, level: float, hop_s: float, chance: float | Floats = CHANCE
) -> Floats:
    """Compute how much more likely each cosine is on a line than beside it.

    Parameters
    ----------
    cosines : float64 array
        NaN where a segment is silent, which counts nothing.
    level : float
        Mean cosine on the line.
    hop_s : float
        Distance of the segments, which are not independent of each other.
    chance : float or float64 array like `cosines`
        Mean cosine beside the line; below the level.

    Returns
    -------
    float64 array of the same shape
    """
    excess = np.nan_to_num(cosines - (level + chance) / 2)
    scale = (level - chance) / _DEVIATION**2 * min(hop_s / CORRELATION_S, 1.0)
    return np.asarray(excess * scale)


def best_stretch(scores: Floats) -> tuple[int, int, float]:
    """Find the consecutive segments with the greatest sum, of which each border costs.

    Parameters
    ----------
    scores : float64 array of shape (n_segments,)

    Returns
    -------
    first, last : int
        The last segment is excluded; equal if nothing is worth its borders.
    gain : float
    """
    sums = np.concatenate([[0.0], np.cumsum(scores)])
    starts, ends = sums.copy(), sums.copy()
    starts[1:] += _BORDER_COST
    ends[:-1] -= _BORDER_COST
    gains = ends - np.minimum.accumulate(starts)
    last = int(gains.argmax())
    if gains[last] <= 0:
        return 0, 0, 0.0
    return int(starts[: last + 1].argmin()), last, float(gains[last])


def least_path(costs: Floats, n_cuts: int) -> tuple[float, list[Stretch]]:
    """Find the lines of least cost for all segments, with so many changes at most.

    Parameters
    ----------
    costs : float64 array of shape (n_lines, n_segments)
    n_cuts : int

    Returns
    -------
    total : float
    path : list of Stretch
        In order.
    """
    sums = np.cumsum(np.pad(costs, ((0, 0), (1, 0))), axis=1)
    totals, steps = sums, []
    for _ in range(n_cuts):
        entered = totals.min(axis=0) - sums
        least = np.minimum.accumulate(entered, axis=1)
        places = np.where(entered <= least, np.arange(sums.shape[1]), 0)
        steps.append((np.maximum.accumulate(places, axis=1), totals.argmin(axis=0)))
        totals = least + sums
    line, last, path = int(totals[:, -1].argmin()), costs.shape[1], list[Stretch]()
    for cuts, lines in reversed(steps):
        first = int(cuts[line, last])
        path.append(Stretch(line, first, last))
        line, last = int(lines[first]), first
    path.append(Stretch(line, 0, last))
    return float(totals[:, -1].min()), [one for one in reversed(path) if one.last > one.first]


def decode(scores: Floats) -> list[Stretch]:
    """Find the most likely lines of all segments.

    Parameters
    ----------
    scores : float64 array of shape (n_lines, n_segments)

    Returns
    -------
    list of Stretch
        In order, without those that follow no line.
    """
    n_lines, n_segments = scores.shape
    gains = np.vstack([scores, np.zeros(n_segments)])  # the last state is none of the lines
    costs = np.full((n_lines + 1, n_lines + 1), _CHANGE_COST)
    costs[-1] = costs[:, -1] = _BORDER_COST
    np.fill_diagonal(costs, 0.0)
    before = np.zeros((n_segments, n_lines + 1), np.int64)
    value = gains[:, 0]
    for segment in range(1, n_segments):
        reached = value[:, None] - costs
        before[segment] = reached.argmax(axis=0)
        value = reached.max(axis=0) + gains[:, segment]
    path = np.zeros(n_segments, np.int64)
    path[-1] = value.argmax()
    for segment in range(n_segments - 1, 0, -1):
        path[segment - 1] = before[segment, path[segment]]
    return stretches(np.where(path == n_lines, NO_LINE, path))


def stretches(path: NDArray[np.int64]) -> list[Stretch]:
    """Group consecutive segments of one line, without those of NO_LINE."""
    edges = [0, *(np.flatnonzero(np.diff(path)) + 1).tolist(), len(path)]
    return [
        Stretch(int(path[first]), first, last)
        for first, last in pairwise(edges)
        if last > first and path[first] != NO_LINE
    ]
