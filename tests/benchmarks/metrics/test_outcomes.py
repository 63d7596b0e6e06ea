from __future__ import annotations

import pytest

from benchmarks.metrics.outcomes import Outcome, calibration, summarise


def unanswered(**answer: object) -> Outcome:
    question = {"query_id": "q", "cell": "clean 5 s", "true_track": "a", "true_start_s": 10.0}
    return Outcome(**({"present": True} | question | answer))  # type: ignore[arg-type]


def answered(rank: int | None, error_s: float | None = None, **more: object) -> Outcome:
    return unanswered(rank=rank, answer="a" if rank == 1 else "b", offset_error_s=error_s, **more)


def test_hit_rates_count_all_present_queries() -> None:
    outcomes = [
        answered(1, 0.25),
        answered(1, -0.4),
        answered(1, 0.6),
        answered(2),
        unanswered(),
    ]
    present = summarise("c", outcomes).present
    assert present is not None
    assert (present.hit_rate.n_yes, present.hit_rate.n) == (3, 5)
    assert (present.exact.n_yes, present.exact.n) == (1, 5)
    assert (present.near.n_yes, present.near.n) == (2, 5)
    assert (present.exact_of_hits.n_yes, present.exact_of_hits.n) == (1, 3)
    assert present.median_offset_error_s == pytest.approx(0.4)
    assert present.mean_reciprocal_rank == pytest.approx((3 + 0.5) / 5)


def test_accepted_and_right_are_counted_separately() -> None:
    outcomes = [
        answered(1, 0.0, accepted=True),
        answered(1, 0.0, accepted=False),
        answered(3, accepted=True),
        answered(None, accepted=True),
        unanswered(present=False, answer="b", accepted=True),
        unanswered(present=False, answer="b"),
    ]
    metrics = summarise("c", outcomes)
    assert metrics.present is not None
    assert metrics.absent is not None
    assert metrics.present.accepted.n_yes == 3
    assert metrics.present.found.n_yes == 1
    assert metrics.present.wrong_accept.n_yes == 2
    assert (metrics.present.kept.n_yes, metrics.present.kept.n) == (1, 2)
    assert (metrics.absent.false_accept_rate.n_yes, metrics.absent.false_accept_rate.n) == (1, 2)


def test_metrics_without_queries_are_none() -> None:
    assert summarise("c", [unanswered(present=False)]).present is None
    assert summarise("c", [unanswered()]).absent is None


def test_metrics_of_hits_without_hits_are_none() -> None:
    present = summarise("c", [unanswered(error="silent")]).present
    assert present is not None
    assert present.exact_of_hits.value is None
    assert present.median_offset_error_s is None
    assert present.n_errors == 1


def test_calibration_error_weights_bins_by_count() -> None:
    outcomes = [answered(1, 0.0, confidence=0.95)] * 3 + [answered(2, confidence=0.95)]
    outcomes += [unanswered(present=False, answer="b", confidence=0.25)] * 4
    found = calibration(outcomes)
    assert found.expected_error == pytest.approx((4 * 0.20 + 4 * 0.25) / 8)
    assert [b.n for b in found.bins] == [0, 0, 4, 0, 0, 0, 0, 0, 0, 4]


def test_calibration_ignores_queries_without_answer() -> None:
    assert calibration([unanswered()]).expected_error is None
