from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from astound.migrate import ensure_schema
from engine.config import IndexConfig
from engine.errors import StoreError
from engine.records import NewTrack, StoredVectors, Vectors, positions, track_ids
from engine.store.store import Store
from engine.vectors import quantizer
from engine.vectors.index import Index
from engine.vectors.quantizer import Storage
from engine.vectors.shard import Shard, write_shard
from engine.vectors.storage import LocalStorage
from indexer.compact import Compaction, CompactReport

DIM = 16
N_EACH = 100
SMALL = IndexConfig(max_flat_segments=10_000)
LARGE = IndexConfig(max_flat_segments=500, max_shard_segments=1500)


class Stocked:
    """A store with tracks of random vectors, two in each shard."""

    def __init__(self, folder: Path) -> None:
        self.shards = LocalStorage(folder / "shards")
        ensure_schema(folder / "catalog.db")
        self.store = Store.open(folder / "catalog.db")
        self.vectors: dict[int, Vectors] = {}

    def add(self, n_tracks: int) -> None:
        for first in range(0, n_tracks, 2):
            self._add_shard(range(len(self.vectors), len(self.vectors) + min(2, n_tracks - first)))

    def compact(self, config: IndexConfig, storage: Storage | None = None) -> CompactReport:
        return Compaction(self.store, self.shards, config, storage).run()

    def index(self) -> Index:
        return Index(self.shards, self.store.placements(), "recipe")

    def kinds(self) -> list[str]:
        return sorted(Shard(self.shards.path(name)).kind for name in self.store.shard_names())

    def _add_shard(self, numbers: range) -> None:
        made = [_music(number) for number in numbers]
        written = write_shard(self.shards, map(_stored, made))
        tracks = [_new_track(number) for number in numbers]
        ids = self.store.add_shard(written, tracks)
        self.vectors |= dict(zip(ids, made, strict=True))


def _music(number: int) -> Vectors:
    """Vectors that wander, one of them silent."""
    steps = np.random.default_rng(number).standard_normal((N_EACH, DIM)).cumsum(axis=0)
    vectors = steps.astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors[7] = 0
    return quantizer.decode(quantizer.encode(vectors))


def _stored(vectors: Vectors) -> StoredVectors:
    return StoredVectors(
        embeddings=vectors,
        clip_embeddings=vectors[:3],
        segment_hop_s=0.5,
        recipe_id="recipe",
    )


def _new_track(number: int) -> NewTrack:
    return NewTrack(
        path=f"/music/{number}.ogg",
        content_hash=f"{number:064x}",
        n_bytes=1,
        modified_ns=1,
        duration_s=N_EACH * 0.5,
        n_segments=N_EACH,
        n_clips=3,
    )


@pytest.fixture
def stocked(tmp_path: Path) -> Stocked:
    return Stocked(tmp_path)


def assert_all_is_there(stocked: Stocked, least_cosine: float) -> None:
    """Every track has its vectors and clips, and each vector is found at its place."""
    index = stocked.index()
    assert index.track_ids == sorted(stocked.vectors)
    for track, vectors in stocked.vectors.items():
        stored = index.vectors(track, 0, N_EACH)
        audible = vectors.any(axis=1)
        assert not stored[~audible].any()
        assert (stored * vectors).sum(axis=1)[audible].min() > least_cosine
        np.testing.assert_allclose(index.clips(track), vectors[:3], atol=1e-6)
        hits = index.search(vectors[audible], 5, nprobe=1000)
        own = (track_ids(hits.addresses) == track) & (
            positions(hits.addresses) == np.flatnonzero(audible)[:, None]
        )
        assert own.any(axis=1).mean() > 0.9


def test_small_catalog_becomes_one_exact_shard(stocked: Stocked) -> None:
    stocked.add(8)
    report = stocked.compact(SMALL)
    assert stocked.kinds() == ["flat"]
    assert (report.n_shards_before, report.n_shards, report.n_dropped) == (4, 1, 0)
    assert_all_is_there(stocked, 0.98)
    assert len(stocked.shards.names()) == 1


@pytest.mark.parametrize(("storage", "least"), [("full", 0.98), ("codes", 0.6)])
def test_large_catalog_becomes_trained_shards(
    stocked: Stocked, storage: Storage, least: float
) -> None:
    stocked.add(30)
    report = stocked.compact(LARGE, storage)
    assert stocked.kinds() == [storage] * 3  # 14, 14 and 2 tracks, two of each old shard
    assert report.n_shards == 3
    assert_all_is_there(stocked, least)


def test_tracks_added_later_use_the_same_quantizer(stocked: Stocked) -> None:
    stocked.add(20)
    stocked.compact(LARGE)
    before = Shard(stocked.shards.path(stocked.store.shard_names()[0]))
    stocked.add(4)
    assert stocked.kinds() == ["flat", "flat", "full", "full"]
    stocked.compact(LARGE)
    after = [Shard(stocked.shards.path(name)) for name in stocked.store.shard_names()]
    for one in after:
        np.testing.assert_array_equal(_centroids(one), _centroids(before))
    assert_all_is_there(stocked, 0.98)


def _centroids(shard: Shard) -> Vectors:
    trained = shard.read_trained()
    assert trained is not None
    found: Vectors = quantizer.lists_of(trained).quantizer.reconstruct_n(0, shard.nlist)
    return found


@pytest.mark.parametrize("config", [SMALL, LARGE])
def test_deleted_tracks_are_dropped(stocked: Stocked, config: IndexConfig) -> None:
    stocked.add(24)
    stocked.compact(config)
    gone = sorted(stocked.vectors)[::3]
    stocked.store.delete(gone)
    for track in gone:
        del stocked.vectors[track]
    report = stocked.compact(config)
    assert report.n_dropped == len(gone) * N_EACH
    assert stocked.store.stats().n_stored_segments == len(stocked.vectors) * N_EACH
    assert_all_is_there(stocked, 0.98)


def test_shards_without_tracks_are_deleted(stocked: Stocked) -> None:
    stocked.add(4)
    stocked.store.delete(sorted(stocked.vectors))
    stocked.compact(SMALL)
    assert stocked.store.shard_names() == []
    assert stocked.shards.names() == []


@pytest.mark.parametrize("config", [SMALL, LARGE])
def test_second_run_changes_nothing(stocked: Stocked, config: IndexConfig) -> None:
    stocked.add(30)
    stocked.compact(config)
    names = stocked.store.shard_names()
    version = stocked.store.version()
    report = stocked.compact(config)
    assert stocked.store.shard_names() == names
    assert stocked.store.version() == version
    assert report.n_bytes == report.n_bytes_before


def test_empty_catalog_has_nothing_to_compact(stocked: Stocked) -> None:
    assert stocked.compact(SMALL).n_shards == 0


def test_storage_of_codes_cannot_be_undone(stocked: Stocked) -> None:
    stocked.add(20)
    stocked.compact(LARGE, "codes")
    assert not list(stocked.shards.folder.rglob("segments.i8"))
    with pytest.raises(StoreError, match="stores codes only"):
        stocked.compact(LARGE, "full")
    stocked.add(4)
    stocked.compact(LARGE)
    assert set(stocked.kinds()) == {"codes"}


def test_progress_ends_at_the_total(stocked: Stocked) -> None:
    stocked.add(6)
    told: list[tuple[int, int]] = []
    Compaction(stocked.store, stocked.shards, SMALL).run(lambda *one: told.append(one))
    assert told[-1] == (600, 600)
    assert told == sorted(told)


def test_catalog_that_grew_is_trained_again(
    stocked: Stocked, monkeypatch: pytest.MonkeyPatch
) -> None:
    stocked.add(10)
    stocked.compact(LARGE)
    monkeypatch.setattr("engine.vectors.quantizer._NLIST_RANGE", (64, 128))
    stocked.add(40)
    stocked.compact(LARGE)
    for name in stocked.store.shard_names():
        assert Shard(stocked.shards.path(name)).nlist == 64


def test_shard_left_from_a_crash_is_swept(stocked: Stocked) -> None:
    stocked.add(4)
    write_shard(stocked.shards, [_stored(_music(99))])
    stocked.compact(SMALL)
    assert set(stocked.shards.names()) == set(stocked.store.shard_names())
