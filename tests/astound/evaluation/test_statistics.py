from __future__ import annotations

import numpy as np
import pytest

from astound.evaluation.statistics import reliability, share


@pytest.mark.parametrize(
    ("n_yes", "n", "low", "high"),
    # Newcombe 1998, table I, method 3.
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (29, 29, 0.8830, 1),
    ],
)
def test_interval_is_wilsons(n_yes: int, n: int, low: float, high: float) -> None:
    counted = share([True] * n_yes + [False] * (n - n_yes))
    assert counted.value == pytest.approx(n_yes / n)
    assert counted.low == pytest.approx(low, abs=1e-4)
    assert counted.high == pytest.approx(high, abs=1e-4)


def test_share_of_nothing_is_open() -> None:
    assert (share([]).n, share([]).value) == (0, None)


def test_error_of_answers_as_right_as_they_claim_is_about_0(rng: np.random.Generator) -> None:
    confidences = rng.beta(0.4, 0.4, 100_000)
    found = reliability(confidences, rng.random(100_000) < confidences)
    assert found.expected_error is not None
    assert found.expected_error < 0.01
    assert sum(one.n for one in found.bins) == 100_000


def test_error_of_answers_that_claim_too_much_is_the_gap(rng: np.random.Generator) -> None:
    confidences = rng.uniform(0.3, 1.0, 100_000)
    found = reliability(confidences, rng.random(100_000) < confidences - 0.2)
    assert found.expected_error == pytest.approx(0.2, abs=0.01)


def test_error_weighs_bins_by_count() -> None:
    found = reliability(np.array([0.95] * 4 + [0.25] * 4), np.array([True] * 3 + [False] * 5))
    assert found.expected_error == pytest.approx((4 * 0.20 + 4 * 0.25) / 8)
    assert [one.n for one in found.bins] == [0, 0, 4, 0, 0, 0, 0, 0, 0, 4]


def test_full_confidence_falls_into_the_last_bin() -> None:
    assert reliability(np.ones(1), np.ones(1, bool)).bins[-1].share_right == 1.0


def test_bins_hold_what_lies_between_their_bounds(rng: np.random.Generator) -> None:
    confidences = rng.random(1000)
    for one in reliability(confidences, confidences > 0.5).bins:
        assert one.mean_confidence is not None
        assert one.low <= one.mean_confidence < one.high
        assert one.share_right == (1.0 if one.low >= 0.5 else 0.0)


def test_no_answers_have_no_error() -> None:
    assert reliability(np.zeros(0), np.zeros(0, bool)).expected_error is None
