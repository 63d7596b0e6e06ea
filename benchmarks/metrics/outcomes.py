"""From the outcomes of single queries to shares with intervals. Pure: no audio, no files."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import numpy as np

from astound.evaluation.statistics import Reliability, reliability
from astound.evaluation.statistics import Share as Share
from astound.evaluation.statistics import share as share
from benchmarks.metrics.bootstrap import Bootstrap, Interval
from engine.records import QueryResult

EXACT_S = 0.25
NEAR_S = 0.5


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What was asked, and what came back.

    Parameters
    ----------
    query_id, cell : str
    present : bool
        Whether the true track is in the catalog.
    true_track, true_start_s : str, float
        Name of the track and where in it the query's second 0 lies.
    rank : int or None
        Rank of the true track among the answers; None where it is not among them.
    answer, answer_offset_s : str or None, float or None
        Best answer; None where there is none at all.
    offset_error_s : float or None
        Answered minus true offset; None unless the best answer is the true track.
    score, confidence, margin, coverage : float
        Of the best answer, 0 without one.
    votes : int
    accepted : bool
        Whether the best answer passes the catalog's default threshold.
    error : str or None
        Why the query could not be answered.
    """

    query_id: str
    cell: str
    present: bool
    true_track: str
    true_start_s: float
    rank: int | None = None
    answer: str | None = None
    answer_offset_s: float | None = None
    offset_error_s: float | None = None
    score: float = 0.0
    confidence: float = 0.0
    margin: float = 0.0
    coverage: float = 0.0
    votes: int = 0
    accepted: bool = False
    error: str | None = None

    @property
    def hit(self) -> bool:
        """Whether the best answer is the true track."""
        return self.rank == 1

    def within(self, tolerance_s: float) -> bool:
        """Whether it is a hit whose offset is right within a tolerance."""
        return self.offset_error_s is not None and abs(self.offset_error_s) <= tolerance_s


@dataclass(frozen=True, kw_only=True)
class PresentMetrics:
    """Queries whose track is in the catalog; all intervals hold 95 %, by tracks drawn again.

    Parameters
    ----------
    hit_rate : Share
        The best answer is the true track, whatever its confidence.
    exact, near : Share
        And its offset is right within 0.25 s, 0.5 s. A passage that the track repeats counts as
        wrong when the answer is its other occurrence.
    exact_of_hits : Share
    median_offset_error_s : float or None
        Of the hits, without sign.
    median_offset_error_interval_s : (float, float) or None
    mean_reciprocal_rank : float or None
    mean_reciprocal_rank_interval : (float, float) or None
    accepted : Share
        The best answer passes the default threshold.
    found, wrong_accept : Share
        It passes and is right; it passes and is wrong.
    kept : Share
        Of the hits, those that pass.
    n_errors : int
    """

    hit_rate: Share
    exact: Share
    near: Share
    exact_of_hits: Share
    median_offset_error_s: float | None
    median_offset_error_interval_s: Interval | None
    mean_reciprocal_rank: float | None
    mean_reciprocal_rank_interval: Interval | None
    accepted: Share
    found: Share
    wrong_accept: Share
    kept: Share
    n_errors: int


@dataclass(frozen=True, kw_only=True)
class AbsentMetrics:
    """Queries of music the catalog does not know."""

    false_accept_rate: Share
    n_errors: int


@dataclass(frozen=True, kw_only=True)
class CellMetrics:
    """Both halves of one cell; a half without queries is None."""

    cell: str
    present: PresentMetrics | None
    absent: AbsentMetrics | None


def outcome(
    asked: Outcome, result: QueryResult, true_id: int | None, min_confidence: float
) -> Outcome:
    """Hold the answer against the truth.

    Parameters
    ----------
    asked : Outcome
        The question.
    result : QueryResult
        All candidates, whatever their confidence.
    true_id : int or None
        The true track, None if the catalog does not know it.
    min_confidence : float
        Confidence from which on an answer is accepted.
    """
    best = result.best
    if best is None:
        return replace(asked, error=(result.error or {}).get("message"))
    ranks = [i for i, match in enumerate(result.matches, 1) if match.track_id == true_id]
    hit = best.track_id == true_id
    return replace(
        asked,
        rank=ranks[0] if ranks else None,
        answer=Path(best.path).name,
        answer_offset_s=best.offset_s,
        offset_error_s=best.offset_s - asked.true_start_s if hit else None,
        score=best.score,
        confidence=best.confidence,
        margin=best.margin,
        coverage=best.coverage,
        votes=best.votes,
        accepted=best.confidence >= min_confidence,
    )


def summarise(cell: str, outcomes: Sequence[Outcome], seed: int = 0) -> CellMetrics:
    """Measure one cell, or any other set of outcomes under a name of its own.

    Parameters
    ----------
    cell : str
    outcomes : sequence of Outcome
    seed : int
        Of the intervals.
    """
    present = [o for o in outcomes if o.present]
    absent = [o for o in outcomes if not o.present]
    return CellMetrics(
        cell=cell,
        present=_present(present, seed) if present else None,
        absent=_absent(absent, seed) if absent else None,
    )


def _present(outcomes: Sequence[Outcome], seed: int) -> PresentMetrics:
    drawn = Bootstrap([o.true_track for o in outcomes], seed)
    hits = [o.hit for o in outcomes]
    exact = [o.within(EXACT_S) for o in outcomes]
    accepted = [o.accepted for o in outcomes]
    reciprocals = [1 / o.rank if o.rank else 0.0 for o in outcomes]
    errors_s = [None if o.offset_error_s is None else abs(o.offset_error_s) for o in outcomes]
    known_s = [error for error in errors_s if error is not None]
    return PresentMetrics(
        hit_rate=drawn.share(hits),
        exact=drawn.share(exact),
        near=drawn.share([o.within(NEAR_S) for o in outcomes]),
        exact_of_hits=drawn.share(exact, hits),
        median_offset_error_s=median(known_s) if known_s else None,
        median_offset_error_interval_s=drawn.median(errors_s),
        mean_reciprocal_rank=sum(reciprocals) / len(outcomes),
        mean_reciprocal_rank_interval=drawn.mean(reciprocals, np.ones(len(outcomes))),
        accepted=drawn.share(accepted),
        found=drawn.share([o.accepted and o.hit for o in outcomes]),
        wrong_accept=drawn.share([o.accepted and not o.hit for o in outcomes]),
        kept=drawn.share(accepted, hits),
        n_errors=sum(o.error is not None for o in outcomes),
    )


def _absent(outcomes: Sequence[Outcome], seed: int) -> AbsentMetrics:
    drawn = Bootstrap([o.true_track for o in outcomes], seed)
    return AbsentMetrics(
        false_accept_rate=drawn.share([o.accepted for o in outcomes]),
        n_errors=sum(o.error is not None for o in outcomes),
    )


def calibration(outcomes: Iterable[Outcome]) -> Reliability:
    """Compare the confidence of all best answers, accepted or not, with their being right."""
    answered = [o for o in outcomes if o.answer is not None]
    right = np.array([o.present and o.hit for o in answered], dtype=bool)
    return reliability(np.array([o.confidence for o in answered], dtype=float), right)
