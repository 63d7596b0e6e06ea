from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from astound.migrate import ensure_schema
from engine.config import IngestConfig
from engine.errors import DuplicateTrackError, TrackNotFoundError
from engine.records import NewTrack, StoredVectors
from engine.store.store import Store
from engine.vectors.quantizer import decode, encode
from engine.vectors.shard import Shard
from engine.vectors.storage import LocalStorage
from indexer.shard_writer import ShardWriter

DIM = 8
NEVER = IngestConfig(commit_every_s=1e9, max_segments=10**9)


@pytest.fixture
def sqlite_store(sqlite: str) -> Iterator[Store]:
    ensure_schema(sqlite)
    with Store.open(sqlite) as store:
        yield store


@pytest.fixture
def shards(tmp_path: Path) -> LocalStorage:
    return LocalStorage(tmp_path / "shards")


def stored(n_segments: int, seed: int = 0) -> StoredVectors:
    rng = np.random.default_rng(seed)
    embeddings = rng.normal(size=(n_segments, DIM)).astype(np.float32)
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    return StoredVectors(
        embeddings=embeddings,
        clip_embeddings=embeddings[:1],
        segment_hop_s=0.5,
        recipe_id="recipe",
    )


def track(name: str, n_segments: int, content: str | None = None) -> NewTrack:
    return NewTrack(
        path=f"/{name}",
        content_hash=content or name,
        n_bytes=1,
        modified_ns=1,
        duration_s=n_segments / 2,
        n_segments=n_segments,
        n_clips=1,
    )


def test_commit_without_recordings_writes_nothing(
    sqlite_store: Store, shards: LocalStorage
) -> None:
    writer = ShardWriter(sqlite_store, shards, NEVER)
    assert writer.commit() == []
    assert shards.names() == []
    assert sqlite_store.shard_names() == []


def test_commit_writes_all_pending_recordings_to_one_shard(
    sqlite_store: Store, shards: LocalStorage
) -> None:
    writer = ShardWriter(sqlite_store, shards, NEVER)
    prints = {name: stored(n, seed=n) for name, n in (("a", 3), ("b", 1), ("c", 5))}
    for name, one in prints.items():
        writer.add(one, track(name, len(one.embeddings)))
    assert sqlite_store.tracks() == []
    assert writer.commit() == [("/a", 1), ("/b", 2), ("/c", 3)]
    assert writer.commit() == []
    (name,) = sqlite_store.shard_names()
    shard = Shard(shards.path(name))
    for place, one in zip(sqlite_store.placements(), prints.values(), strict=True):
        found = shard.vectors(place.first_row, place.n_segments)
        np.testing.assert_array_equal(found, decode(encode(one.embeddings)))
    assert sqlite_store.stats().n_bytes == sum(f.stat().st_size for f in shards.folder.glob("*/*"))


def test_due_when_enough_segments_are_pending(sqlite_store: Store, shards: LocalStorage) -> None:
    config = IngestConfig(commit_every_s=1e9, max_segments=5)
    writer = ShardWriter(sqlite_store, shards, config)
    due = []
    for name, n_segments in (("a", 3), ("b", 1), ("c", 1)):
        writer.add(stored(n_segments), track(name, n_segments))
        due.append(writer.is_due)
    writer.commit()
    assert [*due, writer.is_due] == [False, False, True, False]


def test_due_when_enough_time_has_passed(
    sqlite_store: Store, shards: LocalStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = [1000.0]
    monkeypatch.setattr("indexer.shard_writer.time.monotonic", lambda: now_s[0])
    config = IngestConfig(commit_every_s=60.0, max_segments=10**9)
    writer = ShardWriter(sqlite_store, shards, config)
    due = []
    for later_s in (59.0, 2.0):
        now_s[0] += later_s
        due.append(writer.is_due)
    writer.commit()
    assert [*due, writer.is_due] == [False, True, False]


def test_replaced_track_is_deleted_with_the_commit_of_the_new_one(
    sqlite_store: Store, shards: LocalStorage
) -> None:
    writer = ShardWriter(sqlite_store, shards, NEVER)
    writer.add(stored(2), track("a", 2, content="old"))
    writer.commit()
    writer.add(stored(3), track("a", 3, content="new"), replacing=1)
    assert sqlite_store.track("/a").content_hash == "old"
    writer.commit()
    assert [(t.id, t.content_hash) for t in sqlite_store.tracks()] == [(2, "new")]
    writer.add(stored(1), track("b", 1))
    writer.commit()  # what was replaced once is not replaced again
    assert len(sqlite_store.tracks()) == 2


@pytest.mark.parametrize(
    ("bad", "replacing", "error"),
    [
        (track("b", 2, content="a"), None, DuplicateTrackError),
        (track("b", 2), 77, TrackNotFoundError),
    ],
)
def test_refused_commit_adds_no_tracks(
    sqlite_store: Store,
    shards: LocalStorage,
    bad: NewTrack,
    replacing: int | None,
    error: type[Exception],
) -> None:
    writer = ShardWriter(sqlite_store, shards, NEVER)
    writer.add(stored(2), track("a", 2))
    writer.commit()
    writer.add(stored(2), bad, replacing)
    writer.add(stored(2), track("c", 2))
    with pytest.raises(error):
        writer.commit()
    assert [t.path for t in sqlite_store.tracks()] == ["/a"]
    known = sqlite_store.shard_names()
    assert len(shards.sweep(known)) == 1
    assert shards.names() == known
