"""Shares with confidence intervals, and the reliability of confidences."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_Z_95 = 1.959964
_N_BINS = 10


@dataclass(frozen=True, kw_only=True)
class Share:
    """A share with its 95 % Wilson interval; its values are None if nothing was counted."""

    n_yes: int
    n: int
    value: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True, kw_only=True)
class Bin:
    """Answers of similar confidence: their mean confidence and the share of right ones."""

    low: float
    high: float
    n: int
    mean_confidence: float | None
    share_right: float | None


@dataclass(frozen=True, kw_only=True)
class Reliability:
    """Expected calibration error over ten bins of equal width; None without answers.

    It depends on the share of queries of music that is not in the catalog.
    """

    expected_error: float | None
    bins: tuple[Bin, ...]


def share(flags: Iterable[bool]) -> Share:
    """Compute a share and its 95 % interval (Wilson 1927)."""
    counted = list(flags)
    n_yes, n = sum(counted), len(counted)
    if n == 0:
        return Share(n_yes=0, n=0, value=None, low=None, high=None)
    p, z2 = n_yes / n, _Z_95**2
    centre = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = _Z_95 * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    low, high = max(centre - half, 0.0), min(centre + half, 1.0)
    return Share(n_yes=n_yes, n=n, value=p, low=low, high=high)


def reliability(confidences: NDArray[np.float64], right: NDArray[np.bool_]) -> Reliability:
    """Compare confidences with the share of right answers (Guo et al. 2017, arXiv 1706.04599).

    Parameters
    ----------
    confidences : float64 array of shape (n,), in [0, 1]
    right : bool array of shape (n,)

    Returns
    -------
    Reliability
    """
    places = np.minimum((confidences * _N_BINS).astype(np.int64), _N_BINS - 1)
    bins = tuple(_bin(i, confidences[places == i], right[places == i]) for i in range(_N_BINS))
    gaps = [
        one.n * abs(one.mean_confidence - one.share_right)
        for one in bins
        if one.mean_confidence is not None and one.share_right is not None
    ]
    return Reliability(expected_error=sum(gaps) / len(right) if len(right) else None, bins=bins)


def _bin(i: int, confidences: NDArray[np.float64], right: NDArray[np.bool_]) -> Bin:
    n = len(right)
    return Bin(
        low=i / _N_BINS,
        high=(i + 1) / _N_BINS,
        n=n,
        mean_confidence=float(confidences.mean()) if n else None,
        share_right=float(right.mean()) if n else None,
    )
