from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest

from engine.config import AlignConfig
from engine.records import Vectors
from engine.search import alignment
from tests.engine.search.synthetic import (
    CONFIG,
    DIM,
    HOP_S,
    SEGMENT_S,
    TICK_S,
    TICKS_PER_HOP,
    candidates,
    excerpt,
    nearest,
    normalised,
    query_at_tempo,
    query_of,
    seeds,
    unit,
)


@pytest.fixture
def catalog(rng: np.random.Generator) -> dict[int, Vectors]:
    """Six tracks of unrelated segments; the last has a single one."""
    sizes = {5: 120, 6: 90, 7: 200, 8: 40, 20: 60, 21: 1}
    return {track: unit(rng, n) for track, n in sizes.items()}


@pytest.mark.parametrize("offset_s", [0.0, 3.0, 7.125, 10.3, 12.19, 25.06, 31.44])
@pytest.mark.parametrize("track", [5, 7])
def test_planted_offset_is_found_below_the_hop(
    catalog: dict[int, Vectors], rng: np.random.Generator, track: int, offset_s: float
) -> None:
    query = excerpt(catalog[track], offset_s, 40, rng)
    best = candidates(query, catalog)[0]
    assert best.track_id == track
    assert best.offset_s == pytest.approx(offset_s, abs=0.06)
    assert best.coverage > 0.9
    assert best.score > 0.5
    assert best.margin > 0.2


@pytest.mark.parametrize("offset_s", [-1.5, -0.8, 0.0, 57.0])
def test_query_that_reaches_beyond_the_track_keeps_its_offset(
    catalog: dict[int, Vectors], rng: np.random.Generator, offset_s: float
) -> None:
    best = candidates(excerpt(catalog[5], offset_s, 40, rng), catalog)[0]
    assert best.track_id == 5
    assert best.offset_s == pytest.approx(offset_s, abs=0.06)
    assert best.query_start_s == pytest.approx(max(-offset_s, 0), abs=0.3)
    assert best.query_end_s == pytest.approx(min(60.5 - offset_s, 40 * TICK_S + 0.875), abs=0.3)


def test_query_longer_than_the_track_covers_it(
    catalog: dict[int, Vectors], rng: np.random.Generator
) -> None:
    query = excerpt(catalog[8], -10.0, 400, rng)  # 50 s around a track of 20
    best = candidates(query, catalog)[0]
    assert best.track_id == 8
    assert best.offset_s == pytest.approx(-10.0, abs=0.06)
    assert best.query_start_s == pytest.approx(10.0, abs=0.3)
    assert best.query_end_s == pytest.approx(10.0 + 39 * HOP_S + SEGMENT_S, abs=0.3)
    assert best.coverage == pytest.approx(39 * TICKS_PER_HOP / 400, abs=0.02)


def test_track_of_one_segment_is_found(
    catalog: dict[int, Vectors], rng: np.random.Generator
) -> None:
    vectors = unit(rng, 9)
    vectors[4] = catalog[21][0]
    best = candidates(query_of(vectors), catalog)[0]
    assert best.track_id == 21
    assert best.offset_s == pytest.approx(-4 * TICK_S, abs=2 * TICK_S)


def test_score_is_at_most_1_although_stored_vectors_are_a_little_too_long(
    catalog: dict[int, Vectors], rng: np.random.Generator
) -> None:
    query = excerpt(catalog[7], 10.0, 40, rng, noise=0.0)
    longer = {track: 1.05 * vectors for track, vectors in catalog.items()}
    assert candidates(query, longer)[0].score == 1.0


def test_query_of_one_segment_is_found(
    catalog: dict[int, Vectors], rng: np.random.Generator
) -> None:
    best = candidates(excerpt(catalog[6], 20.0, 1, rng, noise=0.3), catalog)[0]
    assert best.track_id == 6
    assert best.offset_s == pytest.approx(20.0, abs=2 * TICK_S)


def test_silence_within_the_query_keeps_the_offset(
    catalog: dict[int, Vectors], rng: np.random.Generator
) -> None:
    query = excerpt(catalog[5], 12.0, 60, rng)
    query.embeddings[20:45] = 0
    best = candidates(query, catalog)[0]
    assert best.track_id == 5
    assert best.coverage == pytest.approx(1.0, abs=0.05)
    assert best.offset_s == pytest.approx(12.0, abs=0.06)
    assert best.score > 0.5
    assert best.query_end_s == query.duration_s


def test_silence_within_the_track_keeps_the_offset(
    catalog: dict[int, Vectors], rng: np.random.Generator
) -> None:
    query = excerpt(catalog[5], 12.0, 60, rng)
    catalog[5][28:33] = 0
    best = candidates(query, catalog)[0]
    assert best.track_id == 5
    assert best.offset_s == pytest.approx(12.0, abs=0.06)
    assert 0.5 < best.coverage < 0.8


def test_repeated_passage_gives_one_of_its_places(
    catalog: dict[int, Vectors], rng: np.random.Generator
) -> None:
    catalog[7][100:140] = catalog[7][20:60]
    best = candidates(excerpt(catalog[7], 14.0, 40, rng), catalog)[0]
    assert best.track_id == 7
    assert min(abs(best.offset_s - place) for place in (14.0, 54.0)) < 0.06


def test_two_halves_of_two_tracks_give_two_candidates(
    catalog: dict[int, Vectors], rng: np.random.Generator
) -> None:
    first = excerpt(catalog[5], 10.0, 40, rng).embeddings
    second = excerpt(catalog[6], 30.0, 40, rng).embeddings
    found = candidates(query_of(np.concatenate([first, second])), catalog)[:2]
    by_track = {one.track_id: one for one in found}
    assert by_track.keys() == {5, 6}
    assert by_track[5].offset_s == pytest.approx(10.0, abs=0.06)
    assert by_track[6].offset_s == pytest.approx(25.0, abs=0.06)
    assert by_track[5].query_end_s == pytest.approx(40 * TICK_S + SEGMENT_S, abs=0.3)
    assert by_track[6].query_start_s == pytest.approx(40 * TICK_S, abs=0.3)
    assert all(one.coverage == pytest.approx(0.5, abs=0.05) for one in found)


def test_candidates_are_one_per_track_by_falling_evidence(
    catalog: dict[int, Vectors], rng: np.random.Generator
) -> None:
    found = candidates(excerpt(catalog[5], 10.0, 40, rng), catalog)
    assert len({one.track_id for one in found}) == len(found) > 2
    assert all(a.evidence >= b.evidence for a, b in itertools.pairwise(found))


@pytest.mark.parametrize("max_pairs", [1, 3_000, 10_000])
def test_diagonals_scored_in_batches_score_as_one_by_one(
    catalog: dict[int, Vectors],
    rng: np.random.Generator,
    monkeypatch: pytest.MonkeyPatch,
    max_pairs: int,
) -> None:
    query = excerpt(catalog[5], 10.0, 40, rng)
    in_one_batch = candidates(query, catalog)
    monkeypatch.setattr(alignment, "_MAX_PAIRS", max_pairs)
    in_batches = candidates(query, catalog)
    assert [one.track_id for one in in_batches] == [one.track_id for one in in_one_batch]
    for one, other in zip(in_batches, in_one_batch, strict=True):
        assert one.evidence == pytest.approx(other.evidence, abs=1e-5)
        assert one.offset_s == pytest.approx(other.offset_s, abs=1e-4)


def test_line_that_two_diagonals_reach_keeps_its_offset_between_hops() -> None:
    line = alignment._Line(1, 300.0, 1.0, 5)
    at_last_shift = alignment._ScoredLine(line, 0.5000001, 0.0)
    inside = alignment._ScoredLine(line, 0.5, 0.2)
    elsewhere = alignment._ScoredLine(alignment._Line(1, 310.0, 1.0, 5), 0.4, 0.3)
    assert alignment._best_diagonal([elsewhere, at_last_shift, inside]) is inside


def test_max_tracks_keeps_those_with_most_evidence(
    catalog: dict[int, Vectors], rng: np.random.Generator
) -> None:
    query = excerpt(catalog[5], 10.0, 40, rng)
    every = candidates(query, catalog)
    few = candidates(query, catalog, config=AlignConfig(max_tracks=2))
    assert [one.track_id for one in few] == [one.track_id for one in every[:2]]


def test_few_clear_segments_have_more_evidence_than_many_weak_ones(
    catalog: dict[int, Vectors], rng: np.random.Generator
) -> None:
    """Noise masks three quarters of a query; another track resembles all of it a little."""
    query = excerpt(catalog[5], 10.0, 40, rng, noise=0.1)
    query.embeddings[10:] = unit(rng, 30)
    catalog[6][40:50] = normalised(0.6 * query.embeddings[::4] + unit(rng, 10))
    first, second = candidates(query, catalog)[:2]
    assert (first.track_id, second.track_id) == (5, 6)
    assert first.offset_s == pytest.approx(10.0, abs=0.06)
    assert first.score < second.score


def test_evidence_of_unrelated_music_is_small(
    catalog: dict[int, Vectors], rng: np.random.Generator
) -> None:
    known = candidates(excerpt(catalog[5], 10.0, 40, rng), catalog)[0]
    unknown = candidates(query_of(unit(rng, 40)), catalog)
    assert unknown
    assert all(0 <= one.evidence < 0.4 * known.evidence for one in unknown)


def test_silent_query_gives_nothing(catalog: dict[int, Vectors]) -> None:
    assert candidates(query_of(np.zeros((20, DIM), np.float32)), catalog) == []


def test_votes_silence_has_none(catalog: dict[int, Vectors], rng: np.random.Generator) -> None:
    query = excerpt(catalog[5], 10.0, 40, rng)
    query.embeddings[10:] = 0
    assert candidates(query, catalog)[0].votes <= 10


DIAGONALS = AlignConfig(n_tilted=0)


@pytest.mark.parametrize(
    ("n_segments", "speed"),
    [(33, 0.8), (33, 1.2), (73, 0.8), (73, 0.93), (73, 1.08), (73, 1.2), (300, 0.95), (300, 1.08)],
)
def test_planted_line_is_found_with_its_speed_and_offset(
    catalog: dict[int, Vectors], rng: np.random.Generator, speed: float, n_segments: int
) -> None:
    query = query_at_tempo(catalog[7], 47.3, speed, n_segments, rng)
    best = candidates(query, catalog)[0]
    assert best.track_id == 7
    assert best.speed == pytest.approx(speed, abs=0.25 / query.duration_s)
    assert best.offset_s + best.speed * query.duration_s / 2 == pytest.approx(47.3, abs=0.08)
    assert best.coverage > 0.85
    assert (best.query_start_s, best.query_end_s) == pytest.approx((0, query.duration_s), abs=0.3)


@pytest.mark.parametrize("speed", [0.55, 0.65, 1.4, 1.6, 1.9])
def test_steep_line_is_found(
    catalog: dict[int, Vectors], rng: np.random.Generator, speed: float
) -> None:
    query = query_at_tempo(catalog[7], 47.3, speed, 73, rng)
    best = candidates(query, catalog)[0]
    assert best.track_id == 7
    assert best.speed == pytest.approx(speed, abs=0.05)


@pytest.mark.parametrize("speed", [0.55, 1.0, 1.6])
def test_right_line_is_a_seed(
    catalog: dict[int, Vectors], rng: np.random.Generator, speed: float
) -> None:
    found = seeds(query_at_tempo(catalog[7], 47.3, speed, 73, rng), catalog, n_seeds=4)
    assert any(one.track_id == 7 and one.speed == pytest.approx(speed, abs=0.05) for one in found)


@pytest.mark.parametrize("seed", range(4))
def test_tilted_lines_of_unknown_music_are_no_seeds(seed: int) -> None:
    rng = np.random.default_rng(seed)

    def drifting(n_segments: int) -> Vectors:
        """Segments that change slowly: tilting a line by chance brings some evidence."""
        corners = unit(rng, n_segments // 8 + 2)
        at = np.linspace(0, len(corners) - 1.01, n_segments)
        first, share = at.astype(int), (at % 1)[:, None]
        between = corners[first] * (1 - share) + corners[first + 1] * share
        return normalised(between + 0.3 * unit(rng, n_segments))

    tracks = {track: drifting(200) for track in range(8)}
    found = seeds(query_of(drifting(73)), tracks, n_seeds=4)
    assert found
    assert {one.speed for one in found} == {1.0}


def test_direction_of_a_reversed_track_is_negative(
    catalog: dict[int, Vectors], rng: np.random.Generator
) -> None:
    # Segments of music resemble their neighbours, so that a line crosses the reversed one.
    shifted = [np.roll(catalog[7], shift, axis=0) for shift in range(8)]
    catalog[7] = normalised(np.sum(shifted, axis=0))
    query = excerpt(catalog[7], 20.0, 73, rng)
    forwards = candidates(query, catalog)[0]
    assert forwards.track_id == 7
    assert forwards.direction > 0.5
    reverse = replace(query, embeddings=query.embeddings[::-1].copy())
    backwards = next(one for one in candidates(reverse, catalog) if one.track_id == 7)
    assert backwards.direction < -0.2


def test_direction_does_not_shrink_in_noise(
    catalog: dict[int, Vectors], rng: np.random.Generator
) -> None:
    shifted = [np.roll(catalog[7], shift, axis=0) for shift in range(8)]
    catalog[7] = normalised(np.sum(shifted, axis=0))
    clean, noisy = (
        candidates(excerpt(catalog[7], 20.0, 73, rng, noise=noise), catalog)[0]
        for noise in (0.0, 1.5)
    )
    assert clean.track_id == noisy.track_id == 7
    assert noisy.score < 0.6 < 0.95 < clean.score
    assert noisy.direction > 0.55 * clean.direction


@pytest.mark.parametrize("offset_s", [20.0, 20.125, 20.25, 20.375])
def test_direction_of_a_long_query_does_not_depend_on_where_stored_segments_begin(
    catalog: dict[int, Vectors], rng: np.random.Generator, offset_s: float
) -> None:
    best = candidates(excerpt(catalog[7], offset_s, 300, rng), catalog)[0]
    assert best.track_id == 7
    assert best.direction > 0.5


def test_steady_sound_has_no_direction(
    catalog: dict[int, Vectors], rng: np.random.Generator
) -> None:
    catalog[7][50:110] = normalised(catalog[7][50] + 0.1 * unit(rng, 60))
    best = candidates(excerpt(catalog[7], 40.0, 73, rng, noise=0.8), catalog)[0]
    assert best.track_id == 7
    assert best.direction == pytest.approx(0, abs=0.1)


def test_line_has_more_evidence_than_a_diagonal(
    catalog: dict[int, Vectors], rng: np.random.Generator
) -> None:
    query = query_at_tempo(catalog[7], 47.3, 1.15, 73, rng)
    diagonal = candidates(query, catalog, config=DIAGONALS)[0]
    tilted = candidates(query, catalog)[0]
    assert diagonal.speed == 1.0
    assert tilted.evidence > 1.3 * diagonal.evidence
    assert tilted.margin > 1.3 * diagonal.margin


@pytest.mark.parametrize("offset_s", [3.0, 10.3, 31.44])
def test_unchanged_query_keeps_its_candidates_and_speed(
    catalog: dict[int, Vectors], rng: np.random.Generator, offset_s: float
) -> None:
    query = excerpt(catalog[7], offset_s, 73, rng)
    diagonal, free = (candidates(query, catalog, config=one)[0] for one in (DIAGONALS, CONFIG))
    assert free.speed == 1.0
    assert (free.offset_s, free.evidence) == (diagonal.offset_s, diagonal.evidence)


def test_query_too_short_for_a_line_keeps_its_diagonal(
    catalog: dict[int, Vectors], rng: np.random.Generator
) -> None:
    query = query_at_tempo(catalog[7], 47.3, 1.2, 9, rng)
    assert candidates(query, catalog) == candidates(query, catalog, config=DIAGONALS)


def test_line_with_hardly_more_evidence_is_not_preferred(
    catalog: dict[int, Vectors], rng: np.random.Generator
) -> None:
    query = query_at_tempo(catalog[7], 47.3, 1.08, 73, rng)
    assert candidates(query, catalog)[0].speed != 1.0
    strict = AlignConfig(tilted_weight=0.2)
    assert candidates(query, catalog, config=strict)[0].speed == 1.0


def test_tilted_weight_is_nearer_to_1_in_longer_queries(
    catalog: dict[int, Vectors], rng: np.random.Generator
) -> None:
    strict = AlignConfig(tilted_weight=0.75)
    speeds = [
        candidates(query_at_tempo(catalog[7], 20.3, 1.08, n, rng), catalog, config=strict)[0].speed
        for n in (40, 160)
    ]
    assert speeds == [1.0, pytest.approx(1.08, abs=0.01)]


@pytest.mark.parametrize("offset_s", [-1.5, 10.3, 57.0])
def test_evidence_is_the_sum_over_all_pairs_near_a_diagonal(
    catalog: dict[int, Vectors], rng: np.random.Generator, offset_s: float
) -> None:
    """Against a loop over all pairs and all offsets of the track."""
    query = excerpt(catalog[5], offset_s, 40, rng)
    query.embeddings[7:12] = 0
    hits = nearest(query, catalog)
    background = np.maximum(hits.cosines[:, -1], alignment.MIN_BACKGROUND)
    cosines = query.embeddings @ catalog[5].T
    sums: dict[int, float] = {}
    for i in np.flatnonzero(query.audible):
        for position in range(len(catalog[5])):
            evidence = np.log1p(np.exp((cosines[i, position] - background[i]) / 0.2))
            for miss, weight in ((-1, 0.5), (0, 1.0), (1, 0.5)):
                ticks = position * TICKS_PER_HOP - int(i) + miss
                sums[ticks] = sums.get(ticks, 0.0) + weight * float(evidence)
    best = max(sums, key=sums.__getitem__)
    found = candidates(query, catalog, config=DIAGONALS)[0]
    assert found.evidence == pytest.approx(sums[best] / (query.audible.sum() / 2), rel=1e-4)
    assert found.offset_s == pytest.approx(best * TICK_S, abs=TICK_S / 2)
