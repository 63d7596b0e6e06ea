from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from engine.config import AlignConfig, SearchConfig
from engine.records import Fingerprint, Vectors
from engine.search.candidates import find_candidates
from engine.search.context import SearchContext
from engine.vectors.index import Index
from engine.vectors.shard import write_shard
from engine.vectors.storage import LocalStorage
from tests.engine.search.synthetic import candidates, excerpt, unit

DIM = 64

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


def context(index: Index) -> SearchContext:
    return SearchContext(index=index, reference_hop_s=0.5)


def smooth(rng: np.random.Generator, n_ticks: int) -> NDArray[np.float64]:
    """Embeddings at the query's hop that change within about a second."""
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
def test_find_candidates_noisy_excerpt_gives_its_track_and_offset(
    index: Index, tracks: Tracks, rng: np.random.Generator, track: int
) -> None:
    first = int(rng.integers(0, 350))
    noisy = tracks[track][first : first + 40] + 0.08 * rng.standard_normal((40, DIM))
    noisy /= np.linalg.norm(noisy, axis=1, keepdims=True)
    found = find_candidates(fingerprint(noisy, 0.125), context(index))
    assert found[0].track_id == track
    assert found[0].offset_s == pytest.approx(first * 0.125, abs=0.06)
    assert found[0].margin > 0.2


def test_find_candidates_unknown_music_scores_low(index: Index, rng: np.random.Generator) -> None:
    query = fingerprint(smooth(rng, 80), 0.125)
    found = find_candidates(query, context(index))
    assert all(one.score < 0.4 for one in found)
    assert all(one.evidence < 1 for one in found)


def test_track_with_all_neighbours_has_one_more_search_for_rivals(
    index: Index, tracks: Tracks
) -> None:
    one_neighbour = SearchContext(
        index=index,
        reference_hop_s=0.5,
        search=SearchConfig(k=1),
        alignment=AlignConfig(max_candidates=1),
    )
    query = fingerprint(tracks[3][80:120], 0.125)
    found = find_candidates(query, one_neighbour)
    assert found[0].track_id == 3
    assert len(found) == 2
    assert found[0].others == found[1].evidence > 0
    alone = replace(one_neighbour, index=index.among({3}))
    assert [one.track_id for one in find_candidates(query, alone)] == [3]


def test_find_candidates_in_an_empty_catalog_gives_nothing(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    empty = Index(LocalStorage(tmp_path), [], "recipe")
    query = fingerprint(smooth(rng, 40), 0.125)
    assert find_candidates(query, context(empty)) == []


@pytest.mark.parametrize("n_segments", [3, 12])
def test_find_candidates_in_a_catalog_of_less_than_k_segments_works(
    tmp_path: Path, rng: np.random.Generator, n_segments: int
) -> None:
    music = smooth(rng, 100)
    shards = LocalStorage(tmp_path)
    written = write_shard(shards, [fingerprint(music[: 4 * n_segments : 4], 0.5)])
    tiny = Index(shards, written.placements([1]), "recipe")
    query = fingerprint(music[:24], 0.125)
    (only,) = find_candidates(query, context(tiny))
    assert only.offset_s == pytest.approx(0, abs=0.125)
    assert 0 < only.evidence < 50
    assert only.margin == only.evidence


def test_find_candidates_times_its_steps(index: Index, tracks: Tracks) -> None:
    searched = context(index)
    find_candidates(fingerprint(tracks[1][:40], 0.125), searched)
    assert searched.stopwatch.timings_ms.keys() == {"search", "align"}
    assert all(spent > 0 for spent in searched.stopwatch.timings_ms.values())


# -- margins ---------------------------------------------------------------------------------


@pytest.fixture
def catalog(rng: np.random.Generator) -> dict[int, Vectors]:
    return {5: unit(rng, 120), 6: unit(rng, 90), 7: unit(rng, 200)}


def test_margin_is_evidence_above_the_best_other_track(
    catalog: dict[int, Vectors], rng: np.random.Generator
) -> None:
    found = candidates(excerpt(catalog[5], 10.0, 40, rng), catalog)
    first, second = found[:2]
    assert first.margin == pytest.approx(first.evidence - second.evidence)
    for other in found[1:]:
        assert other.margin == pytest.approx(other.evidence - first.evidence)


def test_margin_without_another_track_is_the_evidence(rng: np.random.Generator) -> None:
    alone = {5: unit(rng, 100)}
    (only,) = candidates(excerpt(alone[5], 10.0, 40, rng), alone)
    assert only.margin == only.evidence


def test_margin_is_not_lowered_by_a_copy_of_the_track(
    catalog: dict[int, Vectors], rng: np.random.Generator
) -> None:
    query = excerpt(catalog[5], 10.0, 40, rng)
    alone = candidates(query, catalog)[0]
    copies = candidates(query, catalog | {30: catalog[5]})[:2]
    assert {one.track_id for one in copies} == {5, 30}
    assert all(one.margin > 0.7 * alone.margin for one in copies)
