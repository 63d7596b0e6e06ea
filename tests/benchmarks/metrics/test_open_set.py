from __future__ import annotations

import numpy as np
import pytest

from benchmarks.metrics.open_set import open_set
from benchmarks.metrics.outcomes import Outcome


def asked(present: bool, confidence: float, rank: int | None = 1) -> Outcome:
    return Outcome(
        query_id="q", cell="c", present=present, true_track=f"{confidence}", true_start_s=0.0,
        rank=rank if present else None, answer="a", confidence=confidence,
    )  # fmt: skip


RNG = np.random.default_rng(3)
PRESENT = [asked(True, c, 1 if RNG.random() < 0.9 else 2) for c in RNG.beta(5, 1, 300).tolist()]
ABSENT = [asked(False, c) for c in RNG.beta(1, 6, 200).tolist()]


def rates(threshold: float) -> tuple[float, float]:
    accepts = sum(o.confidence >= threshold for o in ABSENT) / len(ABSENT)
    rights = sum(o.hit and o.confidence >= threshold for o in PRESENT) / len(PRESENT)
    return accepts, 1 - rights


def test_curve_equals_counted_rates() -> None:
    found = open_set(PRESENT + ABSENT, 0.5)
    assert found is not None
    for threshold, accepts, rejects in found.curve[::7]:
        assert (accepts, rejects) == pytest.approx(rates(threshold))
    assert found.curve[0][0] == 0.0
    assert found.curve[-1][0] == 1.0
    assert found.default.false_accept_rate.value == pytest.approx(rates(0.5)[0])
    assert found.default.false_reject_rate.value == pytest.approx(rates(0.5)[1])


def test_one_percent_threshold_is_the_lowest() -> None:
    found = open_set(PRESENT + ABSENT, 0.5)
    assert found is not None
    assert found.one_percent.false_accept_rate.n_yes == 2  # of 200
    below = np.nextafter(found.one_percent.threshold, 0.0)
    assert rates(float(below))[0] > 0.01


def test_without_present_or_absent_queries_is_none() -> None:
    assert open_set(PRESENT, 0.5) is None
    assert open_set(ABSENT, 0.5) is None
