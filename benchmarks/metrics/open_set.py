"""Known or unknown music: false accept and false reject rates of each threshold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.metrics.bootstrap import Bootstrap
from benchmarks.metrics.outcomes import Outcome, Share

ONE_PERCENT = 0.01


@dataclass(frozen=True, kw_only=True)
class OperatingPoint:
    """Error rates at one threshold.

    Parameters
    ----------
    threshold : float
        Confidence from which on an answer is accepted.
    false_accept_rate : Share
        Queries of absent music that get any match.
    false_reject_rate : Share
        Queries of present music that do not get the right match: it is below the threshold, or
        another track is best.
    """

    threshold: float
    false_accept_rate: Share
    false_reject_rate: Share


@dataclass(frozen=True, kw_only=True)
class OpenSet:
    """The default threshold, the lowest one with at most 1 % of false accepts, and the curve.

    Parameters
    ----------
    default, one_percent : OperatingPoint
    curve : tuple of (threshold, false accept rate, false reject rate)
        By threshold, ascending.
    """

    default: OperatingPoint
    one_percent: OperatingPoint
    curve: tuple[tuple[float, float, float], ...]


def open_set(outcomes: Sequence[Outcome], min_confidence: float, seed: int = 0) -> OpenSet | None:
    """Compute the error rates over all thresholds.

    Parameters
    ----------
    outcomes : sequence of Outcome
    min_confidence : float
        The default threshold.
    seed : int
        Seed of the bootstrap.

    Returns
    -------
    OpenSet or None
        None unless there are queries of both present and absent music.
    """
    present = [o for o in outcomes if o.present]
    absent = [o for o in outcomes if not o.present]
    if not present or not absent:
        return None
    return OpenSet(
        default=_point(present, absent, min_confidence, seed),
        one_percent=_point(present, absent, _one_percent(absent), seed),
        curve=_curve(_right(present), _answered(absent)),
    )


def _right(present: Sequence[Outcome]) -> NDArray[np.float64]:
    """Return the confidence of each right best answer, -1 without one."""
    return np.array([o.confidence if o.hit else -1.0 for o in present])


def _answered(absent: Sequence[Outcome]) -> NDArray[np.float64]:
    return np.array([o.confidence if o.answer is not None else -1.0 for o in absent])


def _one_percent(absent: Sequence[Outcome]) -> float:
    highest = np.sort(_answered(absent))[::-1]
    return max(float(np.nextafter(highest[int(ONE_PERCENT * len(absent))], 2.0)), 0.0)


def _point(
    present: Sequence[Outcome], absent: Sequence[Outcome], threshold: float, seed: int
) -> OperatingPoint:
    accepts = (_answered(absent) >= threshold).tolist()
    rejects = (_right(present) < threshold).tolist()
    return OperatingPoint(
        threshold=threshold,
        false_accept_rate=Bootstrap([o.true_track for o in absent], seed).share(accepts),
        false_reject_rate=Bootstrap([o.true_track for o in present], seed).share(rejects),
    )


def _curve(
    right: NDArray[np.float64], unknown: NDArray[np.float64]
) -> tuple[tuple[float, float, float], ...]:
    thresholds = np.unique(np.concatenate([[0.0, 1.0], np.round([*right, *unknown], 3)]))
    return tuple(
        (float(t), float(np.mean(unknown >= t)), float(np.mean(right < t)))
        for t in thresholds[thresholds >= 0]
    )
