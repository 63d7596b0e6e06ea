"""Outcomes of single queries, and the metrics of a cell computed from them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import numpy as np

from astound.evaluation.statistics import Reliability, reliability
from astound.evaluation.statistics import Share as Share
from astound.evaluation.statistics import share as share
from benchmarks.metrics.bootstrap import Bootstrap, Interval
from benchmarks.queries.conditions import Cell
from benchmarks.queries.questions import Question
from engine.errors import AudioError
from engine.records import QueryResult

EXACT_S, NEAR_S = 0.25, 0.5
"""Offset errors up to which an answer is exact and near, in seconds."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """A query with its ground truth and its answer.

    Parameters
    ----------
    query_id, cell : str
    present : bool
        Whether the true track is in the catalog.
    true_track, true_start_s : str, float
        Name of the track, and the query's start in it.
    rank : int or None
        Rank of the true track among the answers; None if it is not among them.
    answer, answer_offset_s : str or None, float or None
        Best answer; None without any.
    offset_error_s : float or None
        Answered minus true offset; None unless the best answer is the true track.
    score, confidence, margin, coverage : float
        Of the best answer; 0 without one.
    votes : int
    accepted : bool
        Whether the best answer passes the catalog's default threshold.
    error : str or None
        Why the query failed.
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
        """Whether it is a hit with an offset error of at most `tolerance_s`."""
        return self.offset_error_s is not None and abs(self.offset_error_s) <= tolerance_s


@dataclass(frozen=True, kw_only=True)
class PresentMetrics:
    """Metrics of queries whose track is in the catalog.

    All intervals are 95 % intervals by resampling tracks.

    Parameters
    ----------
    hit_rate : Share
        The best answer is the true track, at any confidence.
    exact, near : Share
        Hits with an offset error of at most 0.25 s, 0.5 s. If a passage repeats within the track,
        its other occurrence counts as wrong.
    exact_of_hits : Share
    median_offset_error_s : float or None
        Absolute error of the hits.
    median_offset_error_interval_s : (float, float) or None
    mean_reciprocal_rank : float or None
    mean_reciprocal_rank_interval : (float, float) or None
    accepted : Share
        The best answer passes the default threshold.
    found, wrong_accept : Share
        The best answer passes and is right; passes and is wrong.
    kept : Share
        Hits that pass, as a fraction of the hits.
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
    """Metrics of queries of music that is not in the catalog."""

    false_accept_rate: Share
    n_errors: int


@dataclass(frozen=True, kw_only=True)
class CellMetrics:
    """Metrics of one cell; present or absent is None without such queries."""

    cell: str
    present: PresentMetrics | None
    absent: AbsentMetrics | None


def unanswered(question: Question, cell: Cell) -> Outcome:
    """Return the query of a question in a cell, without an answer."""
    cut = question.excerpt.cut
    return Outcome(
        query_id=question.query_id,
        cell=cell.name,
        present=question.kind == "present",
        true_track=cut.path.name,
        true_start_s=cut.start_s,
    )


def run_query(
    unanswered: Outcome,
    query: Callable[[], QueryResult],
    true_id: int | None,
    min_confidence: float,
) -> Outcome:
    """Run a query and judge its answer; audio that cannot be used becomes the outcome's error.

    Parameters
    ----------
    unanswered : Outcome
        The query without an answer.
    query : callable
        Returns all candidates, at any confidence.
    true_id : int or None
        Id of the true track; None if the catalog does not contain it.
    min_confidence : float
        Confidence from which on an answer is accepted.
    """
    try:
        result = query()
    except AudioError as error:
        return replace(unanswered, error=str(error))
    best = result.best
    if best is None:
        return replace(unanswered, error=(result.error or {}).get("message"))
    ranks = [i for i, match in enumerate(result.matches, 1) if match.track_id == true_id]
    hit = best.track_id == true_id
    return replace(
        unanswered,
        rank=ranks[0] if ranks else None,
        answer=Path(best.path).name,
        answer_offset_s=best.offset_s,
        offset_error_s=best.offset_s - unanswered.true_start_s if hit else None,
        score=best.score,
        confidence=best.confidence,
        margin=best.margin,
        coverage=best.coverage,
        votes=best.votes,
        accepted=best.confidence >= min_confidence,
    )


def by_cell(outcomes: Iterable[Outcome]) -> dict[str, list[Outcome]]:
    """Group outcomes by the names of their cells, in order of appearance."""
    groups: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        groups.setdefault(outcome.cell, []).append(outcome)
    return groups


def summarise(cell: str, outcomes: Sequence[Outcome], seed: int = 0) -> CellMetrics:
    """Compute the metrics of one cell, or of any other set of outcomes.

    Parameters
    ----------
    cell : str
        Name of the set.
    outcomes : sequence of Outcome
    seed : int
        Seed of the bootstrap.
    """
    present = [o for o in outcomes if o.present]
    absent = [o for o in outcomes if not o.present]
    return CellMetrics(
        cell=cell,
        present=_present(present, seed) if present else None,
        absent=_absent(absent, seed) if absent else None,
    )


def _present(outcomes: Sequence[Outcome], seed: int) -> PresentMetrics:
    bootstrap = Bootstrap([o.true_track for o in outcomes], seed)
    hits = [o.hit for o in outcomes]
    exact = [o.within(EXACT_S) for o in outcomes]
    accepted = [o.accepted for o in outcomes]
    reciprocals = [1 / o.rank if o.rank else 0.0 for o in outcomes]
    errors_s = [None if o.offset_error_s is None else abs(o.offset_error_s) for o in outcomes]
    known_s = [error for error in errors_s if error is not None]
    return PresentMetrics(
        hit_rate=bootstrap.share(hits),
        exact=bootstrap.share(exact),
        near=bootstrap.share([o.within(NEAR_S) for o in outcomes]),
        exact_of_hits=bootstrap.share(exact, hits),
        median_offset_error_s=median(known_s) if known_s else None,
        median_offset_error_interval_s=bootstrap.median(errors_s),
        mean_reciprocal_rank=sum(reciprocals) / len(outcomes),
        mean_reciprocal_rank_interval=bootstrap.mean(reciprocals, np.ones(len(outcomes))),
        accepted=bootstrap.share(accepted),
        found=bootstrap.share([o.accepted and o.hit for o in outcomes]),
        wrong_accept=bootstrap.share([o.accepted and not o.hit for o in outcomes]),
        kept=bootstrap.share(accepted, hits),
        n_errors=sum(o.error is not None for o in outcomes),
    )


def _absent(outcomes: Sequence[Outcome], seed: int) -> AbsentMetrics:
    bootstrap = Bootstrap([o.true_track for o in outcomes], seed)
    return AbsentMetrics(
        false_accept_rate=bootstrap.share([o.accepted for o in outcomes]),
        n_errors=sum(o.error is not None for o in outcomes),
    )


def calibration(outcomes: Iterable[Outcome]) -> Reliability:
    """Compute how well the confidences of all best answers, accepted or not, are calibrated."""
    answered = [o for o in outcomes if o.answer is not None]
    right = np.array([o.present and o.hit for o in answered], dtype=bool)
    return reliability(np.array([o.confidence for o in answered], dtype=float), right)
