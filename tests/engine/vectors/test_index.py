from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest

from engine.errors import RecipeMismatchError, ShardError
from engine.records import (
    NO_ADDRESS,
    Fingerprint,
    Placement,
    Vectors,
    address,
    positions,
    track_ids,
)
from engine.vectors import quantizer
from engine.vectors.index import Index
from engine.vectors.shard import write_shard
from engine.vectors.storage import LocalStorage

DIM = 24
SIZES = {3: 40, 4: 1, 7: 25, 11: 60, 12: 33}
"""Segments of each track."""
SHARDS = ((3, 4), (7, 11), (12,))
"""Tracks of each shard."""


def unit(rng: np.random.Generator, n: int) -> Vectors:
    vectors = rng.standard_normal((n, DIM)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def kept(vectors: Vectors) -> Vectors:
    """Vectors as a shard keeps them."""
    return quantizer.decode(quantizer.encode(vectors))


class Stored:
    """Random tracks in three shards on disk."""

    def __init__(self, folder: Path, rng: np.random.Generator) -> None:
        self.shards = LocalStorage(folder)
        self.tracks = {track: unit(rng, n) for track, n in SIZES.items()}
        self.placements = [one for tracks in SHARDS for one in self._write(tracks)]

    def index(self, *, without: tuple[int, ...] = (), recipe_id: str = "recipe") -> Index:
        alive = [one for one in self.placements if one.track_id not in without]
        return Index(self.shards, alive, recipe_id)

    def _write(self, tracks: tuple[int, ...]) -> list[Placement]:
        written = write_shard(self.shards, [_fingerprint(self.tracks[one]) for one in tracks])
        return written.placements(tracks)


def _fingerprint(embeddings: Vectors) -> Fingerprint:
    return Fingerprint(
        embeddings=embeddings,
        clip_embeddings=embeddings[:1],
        segment_hop_s=0.5,
        segment_s=1.0,
        duration_s=len(embeddings) * 0.5 + 0.5,
        recipe_id="recipe",
    )


@pytest.fixture
def stored(tmp_path: Path, rng: np.random.Generator) -> Stored:
    return Stored(tmp_path, rng)


@pytest.mark.parametrize("without", [(), (7,), (4, 11), (12,), (3, 4, 7, 11), (3, 4, 7, 11, 12)])
@pytest.mark.parametrize("k", [1, 20, 200])
def test_search_equals_brute_force_over_the_given_tracks(
    stored: Stored, rng: np.random.Generator, k: int, without: tuple[int, ...]
) -> None:
    queries = unit(rng, 15)
    index = stored.index(without=without)
    hits = index.search(queries, k)

    living = [track for track in SIZES if track not in without]
    addresses = np.array([address(one, i) for one in living for i in range(SIZES[one])], np.int64)
    stack = np.concatenate([np.zeros((0, DIM)), *(stored.tracks[one] for one in living)])
    cosines = queries @ kept(stack.astype(np.float32)).T
    order = np.argsort(-cosines, axis=1)[:, :k]
    n = order.shape[1]

    assert index.n_segments == len(addresses)
    assert hits.addresses.shape == hits.cosines.shape == (15, k)
    np.testing.assert_array_equal(hits.addresses[:, :n], addresses[order])
    np.testing.assert_allclose(
        hits.cosines[:, :n], np.take_along_axis(cosines, order, axis=1), atol=1e-6
    )
    assert (hits.addresses[:, n:] == NO_ADDRESS).all()
    assert (hits.cosines[:, n:] < -1).all()


def test_search_stored_segment_finds_itself(stored: Stored) -> None:
    hits = stored.index().search(stored.tracks[11], 3)
    assert (track_ids(hits.addresses)[:, 0] == 11).all()
    assert positions(hits.addresses)[:, 0].tolist() == list(range(60))
    np.testing.assert_allclose(hits.cosines[:, 0], 1, atol=1e-2)


@pytest.mark.parametrize("n_queries", [0, 4])
def test_search_empty_catalog_finds_nothing(
    tmp_path: Path, rng: np.random.Generator, n_queries: int
) -> None:
    index = Index(LocalStorage(tmp_path), [], "recipe")
    hits = index.search(unit(rng, n_queries), 20)
    assert index.n_segments == 0
    assert hits.addresses.shape == hits.cosines.shape == (n_queries, 20)
    assert (hits.addresses == NO_ADDRESS).all()


def test_search_no_query_finds_nothing(stored: Stored) -> None:
    assert stored.index().search(np.zeros((0, DIM), np.float32), 5).addresses.shape == (0, 5)


def test_searches_share_threads_that_end_with_the_index(stored: Stored) -> None:
    n_before = threading.active_count()
    index = stored.index()
    for _ in range(10):
        index.search(stored.tracks[11], 3)
        index.among([3, 11]).search(stored.tracks[11], 3)
    threads = threading.enumerate()[n_before:]
    assert 0 < len(threads) <= len(SHARDS)
    del index
    for thread in threads:
        thread.join(10)
    assert threading.active_count() == n_before


@pytest.mark.parametrize("track", SIZES)
def test_vectors_belong_to_their_track(stored: Stored, track: int) -> None:
    index = stored.index()
    n = index.n_positions(track)
    assert n == SIZES[track]
    expected = kept(stored.tracks[track])
    np.testing.assert_array_equal(index.vectors(track, 0, n), expected)
    np.testing.assert_array_equal(index.vectors(track, n // 2, n), expected[n // 2 :])


def test_open_another_recipe_is_refused(stored: Stored) -> None:
    with pytest.raises(RecipeMismatchError, match="other"):
        stored.index(recipe_id="other")


def test_open_missing_shard_is_refused(stored: Stored) -> None:
    for file in stored.shards.path(stored.placements[-1].shard).iterdir():
        file.unlink()
    with pytest.raises(ShardError):
        stored.index()
    stored.index(without=(12,))  # a shard nobody needs may be missing


@pytest.mark.parametrize(
    "rows",
    [
        {"first_row": 30, "n_segments": 4},
        {"first_row": -1},
        {"n_segments": -1},
        {"first_row": 2**62, "n_segments": 2**62},
        {"first_clip": -1},
        {"first_clip": 2**40},
        {"n_clips": 2**40},
    ],
)
def test_open_shard_without_the_rows_of_a_track_is_refused(
    stored: Stored, rows: dict[str, int]
) -> None:
    whole = {"first_row": 0, "n_segments": 1, "first_clip": 0, "n_clips": 1}
    wrong = Placement(track_id=13, shard=stored.placements[-1].shard, **(whole | rows))
    with pytest.raises(ShardError, match="track 13"):
        Index(stored.shards, [wrong], "recipe")


def test_narrowed_index_equals_an_index_of_those_tracks(
    stored: Stored, rng: np.random.Generator
) -> None:
    queries = unit(rng, 9)
    whole, narrowed = stored.index(), stored.index().among([4, 7])
    alone = stored.index(without=(3, 11, 12))
    assert narrowed.track_ids == [4, 7]
    assert whole.track_ids == sorted(SIZES)
    np.testing.assert_array_equal(
        narrowed.search(queries, 30).addresses, alone.search(queries, 30).addresses
    )
    assert narrowed.n_segments == SIZES[4] + SIZES[7]


def test_clips_are_those_of_the_track(stored: Stored) -> None:
    for track in SIZES:
        np.testing.assert_array_equal(stored.index().clips(track), kept(stored.tracks[track][:1]))
