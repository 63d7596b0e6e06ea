from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from engine.config import AlignConfig, SearchConfig
from engine.records import Fingerprint
from engine.search.candidates import Stopwatch, find
from engine.vectors.index import Index
from engine.vectors.shard import write_shard
from engine.vectors.storage import LocalStorage

DIM = 64
SEARCH = SearchConfig()

Tracks = dict[int, NDArray[np.float64]]


def fingerprint(embeddings: NDArray[Any], hop_s: float) -> Fingerprint:
    return Fingerprint(
        embeddings=embeddings.astype(np.float32),
        clip_embeddings=embeddings[:1].astype(np.float32),
        segment_hop_s=hop_s,
        segment_s=1.0,
        duration_s=(len(embeddings) - 1) * hop_s + 1.0,
        recipe_id="recipe",
    )


def smooth(rng: np.random.Generator, n_ticks: int) -> NDArray[np.float64]:
    """A track at the query's hop whose embeddings change over about a second."""
    steps = rng.standard_normal((n_ticks + 8, DIM))
    vectors = np.stack([steps[i : i + 8].sum(axis=0) for i in range(n_ticks)])
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.fixture
def tracks(rng: np.random.Generator) -> Tracks:
    return {track: smooth(rng, 400) for track in range(1, 9)}


@pytest.fixture
def index(tmp_path: Path, tracks: Tracks) -> Index:
    """Two shards of four tracks, every fourth tick stored."""
    shards, placements = LocalStorage(tmp_path), []
    for ids in (range(1, 5), range(5, 9)):
        written = write_shard(shards, [fingerprint(tracks[i][::4], 0.5) for i in ids])
        placements += written.placements(ids)
    return Index(shards, placements, "recipe")


@pytest.mark.parametrize("track", range(1, 9))
def test_find_noisy_excerpt_gives_its_track_and_offset(
    index: Index, tracks: Tracks, rng: np.random.Generator, track: int
) -> None:
    first = int(rng.integers(0, 350))
    noisy = tracks[track][first : first + 40] + 0.08 * rng.standard_normal((40, DIM))
    noisy /= np.linalg.norm(noisy, axis=1, keepdims=True)
    found = find(fingerprint(noisy, 0.125), index, 0.5, SEARCH, AlignConfig(), Stopwatch())
    assert found[0].track_id == track
    assert found[0].offset_s == pytest.approx(first * 0.125, abs=0.06)
    assert found[0].margin > 0.2


def test_find_unknown_music_scores_low(index: Index, rng: np.random.Generator) -> None:
    query = fingerprint(smooth(rng, 80), 0.125)
    found = find(query, index, 0.5, SEARCH, AlignConfig(), Stopwatch())
    assert all(one.score < 0.4 for one in found)
    assert all(one.evidence < 1 for one in found)


def test_find_in_an_empty_catalog_gives_nothing(tmp_path: Path, rng: np.random.Generator) -> None:
    empty = Index(LocalStorage(tmp_path), [], "recipe")
    query = fingerprint(smooth(rng, 40), 0.125)
    assert find(query, empty, 0.5, SEARCH, AlignConfig(), Stopwatch()) == []


@pytest.mark.parametrize("n_segments", [3, 12])
def test_find_in_a_catalog_of_less_than_top_k_segments_works(
    tmp_path: Path, rng: np.random.Generator, n_segments: int
) -> None:
    music = smooth(rng, 100)
    shards = LocalStorage(tmp_path)
    written = write_shard(shards, [fingerprint(music[: 4 * n_segments : 4], 0.5)])
    tiny = Index(shards, written.placements([1]), "recipe")
    query = fingerprint(music[:24], 0.125)
    (only,) = find(query, tiny, 0.5, SEARCH, AlignConfig(), Stopwatch())
    assert only.offset_s == pytest.approx(0, abs=0.125)
    assert 0 < only.evidence < 50
    assert only.margin == only.evidence


def test_find_tells_the_time_of_its_steps(index: Index, tracks: Tracks) -> None:
    stopwatch = Stopwatch()
    query = fingerprint(tracks[1][:40], 0.125)
    find(query, index, 0.5, SEARCH, AlignConfig(), stopwatch)
    assert stopwatch.timings_ms.keys() == {"search", "align"}
    assert all(spent > 0 for spent in stopwatch.timings_ms.values())


def test_stopwatch_adds_up_even_when_a_step_fails() -> None:
    stopwatch = Stopwatch()
    for error in (None, KeyError()):
        with contextlib.suppress(KeyError), stopwatch.step("decode"):
            time.sleep(0.01)
            if error:
                raise error
    assert stopwatch.timings_ms["decode"] >= 20
