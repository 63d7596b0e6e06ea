from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from engine.errors import AudioTooShortError, SilentAudioError
from engine.records import Candidate
from engine.search.calibration import N_FEATURES, Calibration
from engine.search.explanation import REASONS, Rule, costs_of, decide, unsearchable

CURVE = Calibration(
    recipe_id="recipe",
    weights=(-9.1, 5.4, 7.5, -9.6, -1.6, 2.6, -1.5, 0.0, 0.0),
    min_confidence=0.75,
)
SURE = Candidate(
    track_id=1, offset_s=3.0, votes=20, evidence=1.1, score=0.95, coverage=1.0,
    query_start_s=0.0, query_end_s=8.0, margin=0.9, others=0.2, direction=1.0,
)  # fmt: skip
FAULTS = {
    "evidence": (replace(SURE, evidence=0.24, margin=0.02, others=0.21, score=0.5), 8.0),
    "margin": (replace(SURE, evidence=0.6, margin=0.0, others=0.26, score=0.5), 8.0),
    "others": (replace(SURE, evidence=0.9, margin=0.1, others=0.7), 8.0),
    "too_short": (replace(SURE, evidence=0.75, margin=0.05, others=0.68, score=0.9), 0.9),
}
"""Candidates with one weak term, and the audible seconds of their queries."""


def judged(candidate: Candidate, curve: Calibration, audible_s: float = 8.0) -> Candidate:
    confidence = curve.confidence(candidate, audible_s)
    return replace(candidate, confidence=confidence, audible_s=audible_s)


def test_plain_match_is_accepted_without_costs() -> None:
    decision = decide(judged(SURE, CURVE), CURVE, 0.75)
    assert (decision.accepted, decision.rule) == (True, "accepted")
    assert decision.confidence == CURVE.confidence(SURE, 8.0)
    assert decision.costs == ()


@pytest.mark.parametrize("fault", FAULTS)
def test_term_that_costs_most_is_named(fault: str) -> None:
    candidate, audible_s = FAULTS[fault]
    decision = decide(judged(candidate, CURVE, audible_s), CURVE, 0.75)
    assert (decision.accepted, decision.rule) == (False, fault)
    assert decision.reason.startswith(REASONS[decision.rule])
    assert f"{decision.confidence:.3f}, 0.750 is needed" in decision.reason
    assert [one.logit for one in decision.costs] == sorted(
        (one.logit for one in decision.costs), reverse=True
    )


@pytest.mark.parametrize(
    ("rule", "lacking", "plain", "weight"),
    [
        ("speed", replace(SURE, resampled=1.06), 1.0, (6, -1.0)),
        ("score", replace(SURE, score=0.2), 0.9, (5, 1.0)),
        ("direction", replace(SURE, direction=-0.5), 0.5, (7, 1.0)),
    ],
)
def test_term_with_the_only_weight_is_named(
    rule: str, lacking: Candidate, plain: float, weight: tuple[int, float]
) -> None:
    weights = [0.0] * N_FEATURES
    weights[weight[0]] = weight[1]
    curve = replace(CURVE, weights=tuple(weights))
    (cost,) = costs_of(lacking, 8.0, curve)
    assert (cost.rule, cost.plain) == (rule, plain)
    found = {"speed": lacking.resampled, "score": lacking.score, "direction": lacking.direction}
    assert cost.found == found[rule]
    assert decide(judged(lacking, curve), curve, 0.999).rule == rule


def test_cost_is_the_difference_of_logits() -> None:
    """Compared with confidences of candidates that differ in one term."""

    def logit(candidate: Candidate) -> float:
        p = CURVE.confidence(candidate, 8.0)
        return float(np.log(p / (1 - p)))

    doubtful = replace(SURE, evidence=0.5, score=0.7, margin=0.1, others=0.3)
    costs = {one.rule: one.logit for one in costs_of(doubtful, 8.0, CURVE)}
    without: dict[Rule, Candidate] = {
        "evidence": replace(doubtful, evidence=1.0, margin=0.6),
        "margin": replace(doubtful, margin=0.5),
        "others": replace(doubtful, others=0.0),
        "score": replace(doubtful, score=0.9),
    }
    assert costs.keys() == without.keys()
    for rule, better in without.items():
        assert costs[rule] == pytest.approx(logit(better) - logit(doubtful), abs=1e-6)


def test_no_candidate_has_no_neighbours() -> None:
    decision = decide(None, CURVE, 0.75)
    assert (decision.accepted, decision.rule, decision.confidence) == (False, "no_neighbours", 0.0)
    assert decision.reason == REASONS["no_neighbours"]


def test_threshold_above_1_rejects_for_lack_of_evidence() -> None:
    decision = decide(judged(SURE, CURVE), CURVE, 1.1)
    assert (decision.accepted, decision.rule) == (False, "evidence")


def test_query_that_cannot_be_searched_is_silent_or_too_short() -> None:
    silent = unsearchable("a.wav", 5.0, SilentAudioError("a.wav", "silent"), 0.75)
    short = unsearchable("a.wav", 0.3, AudioTooShortError("a.wav", 0.3, 0.9), 0.75)
    assert (silent.decision.rule, short.decision.rule) == ("silent", "too_short")
    assert (silent.examined, silent.match, silent.nearest) == (None, None, ())
    assert (short.duration_s, short.audible_s) == (0.3, 0.0)
