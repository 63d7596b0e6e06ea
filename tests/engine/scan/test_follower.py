from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.config import ScanConfig
from engine.scan.follower import _DECAY, _MAX_DROP, _SPEED_PRIOR_S2, TrackFollower, _LineFit, _Run
from engine.scan.records import WINDOW_S, Floats, Line, WindowMatch

CONFIG = ScanConfig()
HOP_S = 0.25
TRUTH = Line(track_id=1, time_s=0.0, reference_s=100.0)


@dataclass
class Recording:
    """A tracer of a recording whose cosines along TRUTH are known."""

    cosine_at: Sequence[tuple[float, float, float]]
    """Start, end and cosine of stretches; 0.2 elsewhere."""
    line: Line = TRUTH
    received_s: float = 1e9
    hop_s: float = HOP_S
    calls: list[tuple[float, float]] = field(default_factory=list)

    def trace(self, line: Line, start_s: float, end_s: float) -> tuple[Floats, Floats]:
        self.calls.append((start_s, end_s))
        first = np.ceil(max(start_s, 0.0) / HOP_S)
        last = np.ceil(min(end_s, self.received_s) / HOP_S)
        middles_s = np.arange(first, last, dtype=np.float64) * HOP_S
        cosines = np.full(len(middles_s), 0.2)
        for begin_s, stop_s, cosine in self.cosine_at:
            cosines[(middles_s >= begin_s) & (middles_s < stop_s)] = cosine
        apart_s = [abs(line.at(t) - self.line.at(t)) for t in middles_s]
        return middles_s, np.where(np.array(apart_s) < 0.4, cosines, 0.2)

    def track_similarity(self, line: Line, other: Line, start_s: float, end_s: float) -> float:
        raise AssertionError("a follower compares no tracks")


def match_at(time_s: float, confidence: float = 0.99, line: Line = TRUTH) -> WindowMatch:
    at = replace(line, time_s=time_s, reference_s=line.at(time_s))
    return WindowMatch(line=at, confidence=confidence)


def followed(recording: Recording, seed_s: float, until_s: float, step_s: float) -> TrackFollower:
    follower = TrackFollower(match_at(seed_s), recording, CONFIG, seed_s)
    for position_s in np.arange(seed_s + step_s, until_s + step_s, step_s):
        if not follower.has_ended:
            follower.extend(float(position_s))
    return follower


# -- runs of segments ------------------------------------------------------------------------


def brute_force_edge(cosines: Sequence[float], min_cosine: float) -> tuple[int, float, bool]:
    """Length and sum of the best run, and whether it has ended, segment by segment."""
    total, best, n_best = 0.0, 0.0, 0
    for n, cosine in enumerate(cosines, 1):
        total += 0.0 if np.isnan(cosine) else cosine - min_cosine
        if best - total > _MAX_DROP:
            return n_best, best, True
        if total > best:
            best, n_best = total, n
    return n_best, best, False


cosines_strategy = st.lists(
    st.one_of(st.floats(-1.0, 1.0), st.just(float("nan"))), min_size=1, max_size=120
)


@given(cosines_strategy, st.lists(st.integers(1, 17), min_size=1, max_size=200))
@settings(deadline=None, max_examples=200)
def test_run_is_the_same_in_any_chunks_and_as_brute_force_finds_it(
    cosines: list[float], sizes: list[int]
) -> None:
    run = _Run(0.0, 0.45)
    edges_s: Floats = np.arange(1, len(cosines) + 1, dtype=np.float64) * HOP_S
    first = 0
    for size in [*sizes, len(cosines)]:
        part = slice(first, first + size)
        run.extend(edges_s[part], np.array(cosines)[part])
        first += size
    n_best, best, has_ended = brute_force_edge(cosines, 0.45)
    assert run.edge_s == pytest.approx(n_best * HOP_S)
    assert run.gain == pytest.approx(best, abs=1e-9)
    assert run.has_ended == has_ended
    inside = [one for one in cosines[:n_best] if not np.isnan(one)]
    assert run.n_segments == len(inside)
    assert run.score == pytest.approx(np.mean(inside) if inside else 0.0, abs=1e-9)


def test_run_says_whether_it_has_become_longer() -> None:
    run = _Run(0.0, 0.45)
    edges_s: Floats = np.arange(1, 5, dtype=np.float64) * HOP_S
    assert run.extend(edges_s, np.full(4, 0.9))
    assert not run.extend(edges_s + 1, np.full(4, 0.2))
    assert run.extend(edges_s + 2, np.full(4, 0.9))
    assert run.n_segments == 12  # the gap belongs to it now


# -- the line through windows ----------------------------------------------------------------


@given(st.integers(0, 10**6), st.integers(1, 12))
@settings(deadline=None, max_examples=60)
def test_line_is_the_weighted_least_squares_of_all_windows(seed: int, n_windows: int) -> None:
    """Compared with a solver that takes all windows at once."""
    rng = np.random.default_rng(seed)
    times_s = 10.0 + np.cumsum(rng.uniform(2, 12, n_windows))
    references_s = 50.0 + 1.03 * times_s + rng.normal(0, 0.3, n_windows)
    confidences = rng.uniform(0.2, 0.99, n_windows)
    speeds = rng.uniform(0.97, 1.05, n_windows)
    windows = [
        WindowMatch(
            line=Line(track_id=1, time_s=float(t), reference_s=float(r), speed=float(v)),
            confidence=float(c),
        )
        for t, r, v, c in zip(times_s, references_s, speeds, confidences, strict=True)
    ]
    fit = _LineFit(windows[0])
    lines = [fit.add(window) for window in windows]
    weights = np.sqrt(_DECAY ** np.arange(n_windows)[::-1])
    prior = np.sqrt(_SPEED_PRIOR_S2)
    t = times_s - times_s[0]
    rows = np.stack([weights, weights * t], axis=1)
    system = np.concatenate([rows, [[0.0, prior]]])
    wanted = np.append(weights * references_s, prior * speeds[confidences.argmax()])
    start_s, speed = np.linalg.lstsq(system, wanted, rcond=None)[0]
    assert lines[-1].speed == pytest.approx(speed, rel=1e-6)
    assert lines[-1].at(times_s[0]) == pytest.approx(start_s, abs=1e-6)


# -- tracks ----------------------------------------------------------------------------------


@pytest.mark.parametrize("step_s", [0.5, 4.0, 200.0])
def test_start_and_end_do_not_depend_on_the_window_or_the_steps(step_s: float) -> None:
    for seed_s in (36.0, 60.0, 88.0):
        follower = followed(Recording([(32.0, 95.0, 0.9)]), seed_s, 150.0, step_s)
        follower.trim()
        span = follower.span()
        assert (span.start_s, span.end_s) == pytest.approx((32.0, 95.0), abs=2 * HOP_S)
        assert (span.reference_start_s, span.reference_end_s) == pytest.approx(
            (100.0 + span.start_s, 100.0 + span.end_s), abs=1e-6
        )
        assert span.score == pytest.approx(0.9, abs=0.02)
        assert span.speed == pytest.approx(1.0)


@pytest.mark.parametrize(("gap_s", "is_one"), [(3.0, True), (8.0, False)])
def test_gap_ends_a_track_when_the_sum_falls_too_far(gap_s: float, is_one: bool) -> None:
    recording = Recording([(10.0, 50.0, 0.9), (50.0 + gap_s, 90.0, 0.9)])
    follower = followed(recording, 20.0, 100.0, 4.0)
    assert follower.end_s == pytest.approx(90.0 if is_one else 50.0, abs=2 * HOP_S)


def test_silence_ends_a_track_after_the_longest_gap() -> None:
    recording = Recording([(10.0, 50.0, 0.9), (50.0, 200.0, float("nan"))])
    in_gap, after_gap = (
        followed(recording, 20.0, 50.0 + CONFIG.max_gap_s + more_s, 1.0) for more_s in (-1, 1)
    )
    assert (in_gap.has_ended, after_gap.has_ended) == (False, True)
    assert after_gap.end_s == pytest.approx(50.0, abs=2 * HOP_S)


def test_fading_edges_are_trimmed() -> None:
    recording = Recording([(20.0, 30.0, 0.55), (30.0, 70.0, 0.9), (70.0, 80.0, 0.55)])
    follower = followed(recording, 50.0, 120.0, 4.0)
    assert follower.end_s == pytest.approx(80.0, abs=2 * HOP_S)
    follower.trim()
    assert (follower.start_s, follower.end_s) == pytest.approx((30.0, 70.0), abs=2 * HOP_S)


def test_extend_traces_only_new_audio() -> None:
    recording = Recording([(0.0, 100.0, 0.9)])
    follower = TrackFollower(match_at(20.0), recording, CONFIG, 20.0)
    follower.extend(24.0)
    recording.calls.clear()
    follower.extend(28.0)
    assert recording.calls == [(24.0, 28.0)]


@pytest.mark.parametrize(
    ("apart_s", "doubt"), [(WINDOW_S, 0.1 * 0.1), (WINDOW_S / 2, 0.1 * 0.1**0.5), (0.0, 0.1)]
)
def test_overlapping_windows_add_less_confidence(apart_s: float, doubt: float) -> None:
    follower = TrackFollower(match_at(40.0, 0.9), Recording([(0.0, 90.0, 0.9)]), CONFIG, 44.0)
    follower.update(match_at(40.0 + apart_s, 0.9))
    assert follower.span().confidence == pytest.approx(1 - doubt)


def test_windows_far_beside_the_line_are_distant() -> None:
    follower = TrackFollower(match_at(40.0), Recording([(0.0, 90.0, 0.9)]), CONFIG, 44.0)

    def distance(time_s: float, beside_s: float) -> float:
        line = match_at(time_s).line
        return follower.distance(replace(line, reference_s=line.reference_s + beside_s))

    assert distance(40.0, 0.0) == 0.0
    assert distance(40.0, 0.4) < 1 < distance(40.0, 0.6)
    assert distance(48.0, 0.6) < 1  # with one window, the speed is uncertain
    for time_s in (48.0, 56.0, 64.0):
        follower.update(match_at(time_s))
    assert distance(72.0, 0.6) > 1
    assert distance(72.0, 0.4) < 1


def test_speed_is_that_of_the_windows() -> None:
    faster = replace(TRUTH, speed=1.06)
    recording = Recording([(10.0, 80.0, 0.9)], line=faster)
    follower = TrackFollower(match_at(20.0, line=faster), recording, CONFIG, 24.0)
    for time_s in (28.0, 36.0, 44.0, 52.0):
        follower.extend(time_s)
        follower.update(match_at(time_s, line=faster))
    follower.extend(110.0)
    follower.trim()
    assert follower.span().speed == pytest.approx(1.06, abs=0.005)
    assert follower.span().end_s == pytest.approx(80.0, abs=2 * HOP_S)
