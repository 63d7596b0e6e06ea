"""Lines of synthetic tracks: cosines between stored vectors, and fits of shift and slope."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.records import Fingerprint, Vectors
from engine.search.line import Line, LineTracer, parabola_vertex, snapped
from tests.engine.search.synthetic import (
    HOP_S,
    SEGMENT_S,
    TICK_S,
    excerpt,
    query_at_tempo,
    query_of,
    reader,
    unit,
)

NEARLY_SILENT = 2.0  # no cosine


def tracer(query: Fingerprint, track: Vectors) -> LineTracer:
    return LineTracer(query, reader({7: track}))


def line_through(query_s: float, reference_s: float, speed: float = 1.0) -> Line:
    return Line(track_id=7, query_s=query_s, reference_s=reference_s, speed=speed)


def cosine_at(query: Vectors, track: Vectors, start_s: float) -> float:
    """Cosine of a segment with the track from a time on, one number after the other."""
    at = start_s / HOP_S
    if not query.any():
        return float("nan")
    if not -0.5 < at < len(track) - 0.5:
        return -1.0
    low = int(np.floor(at))
    pair = (track[min(max(low + k, 0), len(track) - 1)].astype(float) for k in (0, 1))
    between = sum(share * one for share, one in zip((1 - at + low, at - low), pair, strict=True))
    length = float(np.linalg.norm(between))
    # Rounding decides the direction of what is next to silent.
    return float(query.astype(float) @ between) / length if length > 1e-3 else NEARLY_SILENT


# -- diagonals ---------------------------------------------------------------------------------


@pytest.mark.parametrize("first_s", [-2.0, 0.0, 7.3, 11.0])
def test_diagonal_is_the_line_with_the_greatest_mean_cosine(
    first_s: float, rng: np.random.Generator
) -> None:
    """Of all whole positions of the track, also where the query begins before it or ends after."""
    track = unit(rng, 30)
    query = excerpt(track, first_s, 33, rng)
    found, end = tracer(query, track).diagonals(7, [(4, 33), (17, 33)])
    sums = {
        place: sum(
            float(query.embeddings[row] @ track[place + number])
            for number, row in enumerate(range(4, 33, 4))
            if 0 <= place + number < 30
        )
        for place in range(-8, 30)
    }
    assert end.at(0.0) == pytest.approx(first_s, abs=HOP_S)
    assert (found.track_id, found.query_s, found.speed) == (7, 4 * TICK_S, 1.0)
    assert found.reference_s == max(sums, key=sums.__getitem__) * HOP_S
    assert found.at(0.0) == pytest.approx(first_s, abs=HOP_S)


# -- cosines -----------------------------------------------------------------------------------


@settings(max_examples=100)
@given(
    seed=st.integers(0, 10**6),
    offset_s=st.floats(-6.0, 20.0),
    speed=st.floats(0.7, 1.4),
    first=st.integers(0, 30),
)
def test_cosines_are_those_of_interpolated_vectors(
    seed: int, offset_s: float, speed: float, first: int
) -> None:
    rng = np.random.default_rng(seed)
    track, vectors = unit(rng, 30), unit(rng, 40)
    track[4:7] = vectors[10:12] = 0
    made = tracer(query_of(vectors), track)
    # A line leads from the middle of a segment to the middle of another one.
    line = line_through(SEGMENT_S / 2, offset_s + SEGMENT_S / 2, speed)
    starts_s = offset_s + speed * np.arange(40) * TICK_S
    expected = [cosine_at(*pair) for pair in zip(vectors, [track] * 40, starts_s, strict=True)]
    known = np.array(expected[first:]) != NEARLY_SILENT
    found = made.cosines(line, first)
    assert found[known] == pytest.approx(np.array(expected[first:])[known], abs=1e-5, nan_ok=True)


def test_segment_between_two_stored_ones_agrees_wholly(rng: np.random.Generator) -> None:
    track = unit(rng, 60)
    for offset_s in (5.0, 5.1, 5.25, 5.4):
        made = tracer(excerpt(track, offset_s, 40, rng, noise=0.0), track)
        exact = made.cosines(line_through(0.0, offset_s))
        assert exact == pytest.approx(np.ones(40), abs=1e-5)


def test_outside_of_the_track_the_cosine_is_minus_1(rng: np.random.Generator) -> None:
    track = unit(rng, 20)  # segments from 0 to 9.5 s, the last one ends at 10.5 s
    made = tracer(query_of(unit(rng, 160)), track)
    cosines = made.cosines(line_through(0.0, -4.0))
    starts_s = np.arange(160) * TICK_S - 4.0
    inside = (starts_s > -HOP_S / 2) & (starts_s < 9.5 + HOP_S / 2)
    assert (cosines[~inside] == -1).all()
    assert (cosines[inside] > -1).all()
    assert (made.cosines(line_through(0.0, 300.0)) == -1).all()
    assert (made.cosines(line_through(0.0, -300.0)) == -1).all()


def test_silence_is_not_a_number_even_outside_of_the_track(rng: np.random.Generator) -> None:
    vectors = unit(rng, 40)
    vectors[5:9] = vectors[30:] = 0
    cosines = tracer(query_of(vectors), unit(rng, 6)).cosines(line_through(0.0, 0.0))
    assert np.flatnonzero(np.isnan(cosines)).tolist() == [5, 6, 7, 8, *range(30, 40)]
    assert (cosines[25:30] == -1).all()


def test_cosines_of_no_segments_are_empty(rng: np.random.Generator) -> None:
    made = tracer(query_of(unit(rng, 10)), unit(rng, 10))
    assert made.cosines(line_through(0.0, 0.0), 4, 4).shape == (0,)


@pytest.mark.parametrize("speed", [0.8, 1.0, 1.25])
def test_extent_is_where_the_track_begins_and_ends_in_the_query(
    rng: np.random.Generator, speed: float
) -> None:
    made = tracer(query_of(unit(rng, 40)), unit(rng, 19))  # 10 s
    line = line_through(30.0, 4.0, speed)
    assert [line.at(time_s) for time_s in made.extent(line)] == pytest.approx([0.0, 10.0])


# -- fits --------------------------------------------------------------------------------------


@pytest.mark.parametrize("shift_s", [-0.3, -0.1, 0.0, 0.17, 0.3])
@pytest.mark.parametrize("n_segments", [16, 40, 160])
def test_fit_finds_a_shift(shift_s: float, n_segments: int, rng: np.random.Generator) -> None:
    track = unit(rng, 200)
    made = tracer(excerpt(track, 20.3, n_segments, rng, noise=0.5), track)
    near, error = made.fit(line_through(0.0, 20.3 + shift_s), 0, n_segments)
    found = snapped(near, error)
    assert found.speed == 1.0
    assert found.at(0.0) == pytest.approx(20.3, abs=0.05)


@pytest.mark.parametrize("speed", [0.97, 0.985, 0.995, 1.005, 1.015, 1.03])
@pytest.mark.parametrize("n_segments", [240, 480])
def test_fit_finds_a_slope(speed: float, n_segments: int, rng: np.random.Generator) -> None:
    """From a straight line: windows are doubled, as no block may be farther than a hop away."""
    track = unit(rng, 400)
    middle_s = ((n_segments - 1) * TICK_S + SEGMENT_S) / 2
    made = tracer(query_at_tempo(track, 60.0, speed, n_segments, rng, noise=0.5), track)
    line, error = line_through(middle_s, 60.1), 1.0
    for n in (64, 128, n_segments):
        first = (n_segments - n) // 2
        line, error = made.fit(line, first, first + n, line.speed)
    found, end_s = snapped(line, error), 2 * middle_s
    assert found.speed == pytest.approx(speed, abs=0.001)
    for time_s in (0.0, middle_s, end_s):
        assert found.at(time_s) == pytest.approx(60.0 + speed * (time_s - middle_s), abs=0.1)


def test_slope_errors_are_those_of_repeated_fits() -> None:
    """Three standard errors contain nearly all slopes, and are no wider than they need to be."""
    deviations = []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        track = unit(rng, 200)
        made = tracer(excerpt(track, 20.3, 120, rng, noise=0.8), track)
        fitted, error = made.fit(line_through(0.0, 20.4), 0, 120)
        deviations.append((fitted.speed - 1) / error)
    assert np.mean(np.abs(deviations) < 3) >= 0.95
    assert np.std(deviations) > 0.2


@pytest.mark.parametrize("n_segments", [8, 12, 20, 40, 120])
def test_slope_that_cannot_be_told_from_1_is_1(n_segments: int) -> None:
    n_straight = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        track = unit(rng, 200)
        made = tracer(excerpt(track, 20.3, n_segments, rng, noise=0.8), track)
        near = line_through(0.0, 20.4)
        n_straight += snapped(*made.fit(near, 0, n_segments)).speed == 1.0
    assert n_straight >= 19


def test_snapped_line_keeps_the_moment_and_a_slope_that_is_another() -> None:
    line = line_through(12.0, 40.0, 1.01)
    assert snapped(line, 0.004) == line_through(12.0, 40.0)
    assert snapped(line, 0.003) == line


def test_fit_is_robust_to_a_part_that_is_something_else(rng: np.random.Generator) -> None:
    track = unit(rng, 200)
    query = excerpt(track, 20.3, 120, rng, noise=0.3)
    # Two of fifteen seconds agree with a place 0.4 s farther on.
    query.embeddings[100:116] = excerpt(track, 20.7 + 100 * TICK_S, 16, rng, 0.0).embeddings
    found = snapped(*tracer(query, track).fit(line_through(0.0, 20.3), 0, 120))
    assert found.at(0.0) == pytest.approx(20.3, abs=0.05)
    assert found.speed == pytest.approx(1.0, abs=0.003)


@pytest.mark.parametrize("reference_s", [20.0, 300.0])
def test_fit_to_nothing_keeps_the_line(reference_s: float, rng: np.random.Generator) -> None:
    """The query is silent, or lies outside of the track."""
    vectors = unit(rng, 40) if reference_s > 200 else np.zeros_like(unit(rng, 40))
    line = line_through(0.0, reference_s, 1.02)
    fitted, error = tracer(query_of(vectors), unit(rng, 100)).fit(line, 0, 40)
    assert (fitted, error > 0.02) == (line, True)


@pytest.mark.parametrize("speed", [0.85, 0.97, 1.0, 1.04, 1.15])
@pytest.mark.parametrize("first", [0, 7])
def test_stored_segments_find_the_slope(speed: float, first: int, rng: np.random.Generator) -> None:
    track, n_segments = unit(rng, 200), 24
    middle_s = ((n_segments - 1) * TICK_S + SEGMENT_S) / 2
    made = tracer(query_at_tempo(track, 60.0, speed, n_segments, rng, noise=0.1), track)
    found, error = made.fit_stored(line_through(middle_s, 60.1), first, n_segments)
    found, error = made.fit_stored(found, first, n_segments)
    assert found.speed == pytest.approx(speed, abs=0.03)
    assert abs(found.speed - speed) < 3 * error
    assert found.at(middle_s) == pytest.approx(60.0, abs=0.05)


@pytest.mark.parametrize("reference_s", [20.0, 300.0])
@pytest.mark.parametrize("n_segments", [1, 2, 40])
def test_too_few_stored_segments_keep_the_line(
    reference_s: float, n_segments: int, rng: np.random.Generator
) -> None:
    """The query is silent, outside of the track, or too short."""
    vectors = unit(rng, n_segments)
    if reference_s < 200 and n_segments == 40:
        vectors = np.zeros_like(vectors)
    line = line_through(0.0, reference_s, 1.02)
    made = tracer(query_of(vectors), unit(rng, 100))
    for first, last in ((0, n_segments), (1, 1), (1, 0)):
        fitted, error = made.fit_stored(line, first, last)
        assert (fitted, error > 0.02) == (line, True)


# -- the top of a parabola ----------------------------------------------------------------------


@given(top=st.floats(-0.5, 0.5), bend=st.floats(0.01, 10.0))
def test_vertex_of_a_parabola_is_its_top(top: float, bend: float) -> None:
    scores = 3.0 - bend * (np.arange(-2.0, 3.0) - top) ** 2
    assert parabola_vertex(scores, 2) == pytest.approx(top, abs=1e-6)


@pytest.mark.parametrize("scores", [[1.0, 1.0, 1.0], [2.0, 1.0, 2.0], [0.0, np.nan, 1.0]])
def test_no_peak_has_its_vertex_in_the_middle(scores: list[float]) -> None:
    assert parabola_vertex(np.array(scores), 1) == 0.0


@pytest.mark.parametrize("peak", [0, 2])
def test_peak_at_either_end_stays_there(peak: int) -> None:
    assert parabola_vertex(np.array([3.0, 1.0, 3.0]), peak) == 0.0
