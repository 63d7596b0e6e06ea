from __future__ import annotations

import numpy as np
import pytest

from benchmarks.queries.datasets import RATE
from benchmarks.queries.timeline import CUT_S, Timeline


def level(seconds: float, value: float) -> np.ndarray:
    return np.full(round(seconds * RATE), value, np.float32)


def test_border_of_a_fade_is_its_middle() -> None:
    timeline = Timeline()
    timeline.append(level(5, 1), "a", 10.0)
    timeline.append(level(4, 1), "b", 20.0, speed=1.1, fade_s=1.0)
    first, second = timeline.pieces
    assert timeline.duration_s == 8.0
    assert (first.query_start_s, first.query_end_s) == (0.0, 4.5)
    assert (second.query_start_s, second.query_end_s) == (4.5, 8.0)
    assert second.reference_start_s == pytest.approx(20.0 + 1.1 / 2)
    assert second.reference_at(np.array([4.0]))[0] == pytest.approx(20.0)


def test_fade_keeps_the_power_of_unrelated_sound() -> None:
    rng = np.random.default_rng(0)
    timeline = Timeline()
    for _ in range(2):
        timeline.append(rng.normal(0, 1, 4 * RATE).astype(np.float32), fade_s=2.0)
    middle = timeline.waveform[round(2.5 * RATE) : round(3.5 * RATE)]
    assert np.std(middle) == pytest.approx(1.0, abs=0.05)


def test_stretch_without_a_track_ends_the_piece_before_it() -> None:
    timeline = Timeline()
    timeline.append(level(2, 0.1), "a")
    timeline.append(level(3, 0.2))
    timeline.append(level(1, 0.3), "b")
    assert [piece.track for piece in timeline.pieces] == ["a", "b"]
    assert timeline.pieces[0].query_end_s == pytest.approx(2 - CUT_S / 2)
    assert timeline.pieces[1].query_start_s == pytest.approx(5 - 1.5 * CUT_S)
    assert timeline.pieces[1].query_end_s == pytest.approx(timeline.duration_s)
