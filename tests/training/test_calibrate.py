from __future__ import annotations

import pytest

from engine.records import Candidate
from training.calibrate import _Answer, _fit


def answer(evidence: float, *, is_known: bool) -> _Answer:
    candidate = Candidate(
        track_id=1,
        offset_s=0.0,
        votes=5,
        evidence=evidence,
        score=0.5,
        coverage=1.0,
        query_start_s=0.0,
        query_end_s=5.0,
    )
    return _Answer((candidate,), 1.5, 1, is_known)


RIGHT = [answer(0.8 + k / 1000, is_known=True) for k in range(50)]
ABSENT = [answer(0.3 + k / 1000, is_known=False) for k in range(200)]


def test_threshold_parts_the_right_from_the_absent() -> None:
    curve = _fit([*RIGHT, *ABSENT], "abc")
    assert curve.recipe_id == "abc"
    right, absent = ([one.confidence(curve) for one in some] for some in (RIGHT, ABSENT))
    assert min(right) > curve.min_confidence
    n_accepted = sum(one >= curve.min_confidence for one in absent)
    assert n_accepted / len(absent) <= 0.015
    assert n_accepted > 0


@pytest.mark.parametrize("answers", [RIGHT, ABSENT], ids=["all right", "none right"])
def test_one_sided_answers_still_give_a_curve(answers: list[_Answer]) -> None:
    assert 0 <= _fit(answers, "abc").min_confidence <= 1
