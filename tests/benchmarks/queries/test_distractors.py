from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from benchmarks.queries.distractors import Distractors, Paths, compare_with_real, nearest_cosines
from engine.errors import ConfigError
from engine.records import Vectors

DIM = 16
N_TRACKS = 40
N_SEGMENTS = 120


def drifting(rng: np.random.Generator, n_tracks: int, n_segments: int) -> list[Vectors]:
    """Draw tracks that change slowly, each around four of ten centres."""
    places = np.random.default_rng(99).normal(size=(10, DIM))
    tracks = []
    for _ in range(n_tracks):
        own = places[rng.integers(10, size=4)]
        noise = rng.normal(size=(n_segments, DIM))
        for before, after in pairwise(noise):
            after[:] = 0.8 * before + 0.6 * after
        track = np.repeat(own, n_segments // 4, axis=0) + 0.4 * noise
        tracks.append((track / np.linalg.norm(track, axis=1, keepdims=True)).astype(np.float32))
    return tracks


@pytest.fixture(scope="module")
def music() -> list[Vectors]:
    return drifting(np.random.default_rng(1), N_TRACKS, N_SEGMENTS)


@pytest.fixture(scope="module")
def distractors(music: list[Vectors]) -> Distractors:
    return Distractors.fit(music, seed=1)


def neighbouring(tracks: Vectors) -> float:
    return float((tracks[:, 1:] * tracks[:, :-1]).sum(axis=-1).mean())


def test_tracks_have_unit_norm_and_shape(distractors: Distractors) -> None:
    tracks = distractors.tracks(3, 50, np.random.default_rng(0))
    assert tracks.shape == (3, 50, DIM)
    assert tracks.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(tracks, axis=-1), 1, atol=1e-5)


def test_same_seed_gives_same_tracks(music: list[Vectors], distractors: Distractors) -> None:
    again = Distractors.fit(music, seed=1).tracks(2, 20, np.random.default_rng(5))
    np.testing.assert_array_equal(again, distractors.tracks(2, 20, np.random.default_rng(5)))
    other = distractors.tracks(2, 20, np.random.default_rng(6))
    assert not np.array_equal(again, other)


def test_neighbouring_segments_are_as_similar_as_real_ones(
    music: list[Vectors], distractors: Distractors
) -> None:
    synthetic = distractors.tracks(N_TRACKS, N_SEGMENTS, np.random.default_rng(0))
    shuffled = synthetic.reshape(-1, DIM)[
        np.random.default_rng(0).permutation(synthetic[..., 0].size)
    ]
    real = neighbouring(np.stack(music))
    assert neighbouring(synthetic) == pytest.approx(real, abs=0.05)
    assert neighbouring(shuffled.reshape(synthetic.shape)) < real - 0.3
    jumping = replace(distractors, drift=0.0).tracks(N_TRACKS, N_SEGMENTS, np.random.default_rng(0))
    assert neighbouring(jumping) < neighbouring(synthetic) - 0.03


def test_drift_does_not_change_the_density(distractors: Distractors) -> None:
    centres = distractors.clusters.means
    centres = centres / np.linalg.norm(centres, axis=1, keepdims=True)
    spreads = [
        float((replace(distractors, drift=drift).tracks(40, 100, rng) @ centres.T).max(-1).mean())
        for drift, rng in ((0.0, np.random.default_rng(0)), (0.8, np.random.default_rng(0)))
    ]
    assert spreads[0] == pytest.approx(spreads[1], abs=0.005)


def test_synthetic_music_is_about_as_near_to_queries_as_real_music(
    music: list[Vectors], distractors: Distractors
) -> None:
    queries = np.concatenate(drifting(np.random.default_rng(2), 20, N_SEGMENTS))[::10]
    rows = compare_with_real({"clean": queries}, music, distractors, seed=3, sizes=(4000, 10**6))
    assert [(row.n_segments, row.rank) for row in rows] == [
        (n, rank) for n in (4000, N_TRACKS * N_SEGMENTS) for rank in (1, 10, 50)
    ]
    for row in rows:
        assert abs(row.difference) < 0.05
        assert row.real[1] == pytest.approx(row.made_up[1], abs=0.06)


def test_comparison_shows_music_that_is_too_far_off(music: list[Vectors]) -> None:
    queries = np.concatenate(drifting(np.random.default_rng(2), 5, N_SEGMENTS))[::10]
    random = np.random.default_rng(0).normal(size=(N_TRACKS, N_SEGMENTS, DIM)).astype(np.float32)
    elsewhere = [one / np.linalg.norm(one, axis=1, keepdims=True) for one in random]
    foreign = Distractors.fit(elsewhere, seed=1)
    rows = compare_with_real({"clean": queries}, music, foreign, seed=3, sizes=(1000,))
    assert all(row.difference < -0.1 for row in rows)


def test_walk_stays_within_one_track_and_follows_its_order() -> None:
    labels = np.array([0, 1, 2, 0, 1, 2, 3, 4, 3, 4])
    paths = Paths.along(labels, [6, 4])
    walks = paths.walk(50, 30, np.random.default_rng(0)).T
    for walk in walks:
        first = walk[0] < 3
        assert set(walk) == ({0, 1, 2} if first else {3, 4})
        n_kinds = 3 if first else 2
        steps = np.diff(walk) % n_kinds
        assert set(steps) == {1}


def test_fit_ignores_silence(music: list[Vectors]) -> None:
    silent = np.zeros((30, DIM), np.float32)
    with_silence = [np.concatenate([silent, track]) for track in music]
    synthetic = Distractors.fit(with_silence, seed=1).tracks(2, 20, np.random.default_rng(5))
    expected = Distractors.fit(music, seed=1).tracks(2, 20, np.random.default_rng(5))
    np.testing.assert_array_equal(synthetic, expected)


def test_fit_too_little_music_is_refused(music: list[Vectors]) -> None:
    with pytest.raises(ConfigError, match="too little"):
        Distractors.fit([music[0][:60]], seed=1)


def test_nearest_cosines_equal_brute_force(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    queries, stored = rng.normal(size=(5, DIM)), rng.normal(size=(300, DIM))
    monkeypatch.setattr("benchmarks.queries.distractors._BLOCK", 70)
    found = nearest_cosines(queries.astype(np.float32), stored.astype(np.float32), 10)
    expected = -np.sort(-(queries @ stored.T), axis=1)[:, :10]
    np.testing.assert_allclose(found, expected, rtol=1e-4)
