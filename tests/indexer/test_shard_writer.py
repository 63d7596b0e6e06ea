from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from astound.migrate import ensure_schema
from engine.config import IngestConfig
from engine.errors import DuplicateTrackError, TrackNotFoundError
from engine.records import Fingerprint, NewTrack
from engine.store.store import Store
from engine.vectors.quantizer import decode, encode
from engine.vectors.shard import Shard, sweep
from indexer.shard_writer import ShardBuilder

DIM = 8
NEVER = IngestConfig(commit_every_s=1e9, max_segments=10**9)


@pytest.fixture
def sqlite_store(sqlite: str) -> Iterator[Store]:
    ensure_schema(sqlite)
    with Store.open(sqlite) as store:
        yield store


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    (tmp_path / "shards").mkdir()
    return tmp_path / "shards"


def fingerprint(n_segments: int, seed: int = 0) -> Fingerprint:
    rng = np.random.default_rng(seed)
    embeddings = rng.normal(size=(n_segments, DIM)).astype(np.float32)
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    return Fingerprint(
        embeddings=embeddings,
        clip_embeddings=embeddings[:1],
        segment_hop_s=0.5,
        segment_s=1.0,
        duration_s=n_segments / 2,
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


def test_nothing_to_commit_makes_nothing(sqlite_store: Store, shards: Path) -> None:
    builder = ShardBuilder(sqlite_store, shards, NEVER)
    assert builder.commit() == []
    assert list(shards.iterdir()) == []
    assert sqlite_store.shard_names() == []


def test_commit_makes_one_shard_of_all_that_waits(sqlite_store: Store, shards: Path) -> None:
    builder = ShardBuilder(sqlite_store, shards, NEVER)
    prints = {name: fingerprint(n, seed=n) for name, n in (("a", 3), ("b", 1), ("c", 5))}
    for name, one in prints.items():
        builder.add(one, track(name, len(one.embeddings)))
    assert sqlite_store.tracks() == []
    assert builder.commit() == [("/a", 1), ("/b", 2), ("/c", 3)]
    assert builder.commit() == []
    (name,) = sqlite_store.shard_names()
    shard = Shard(shards / name)
    for place, one in zip(sqlite_store.placements(), prints.values(), strict=True):
        stored = shard.vectors(place.first_row, place.n_segments)
        np.testing.assert_array_equal(stored, decode(encode(one.embeddings)))
    assert sqlite_store.stats().n_bytes == sum(f.stat().st_size for f in shards.glob("*/*"))


def test_due_when_enough_segments_wait(sqlite_store: Store, shards: Path) -> None:
    config = IngestConfig(commit_every_s=1e9, max_segments=5)
    builder = ShardBuilder(sqlite_store, shards, config)
    due = []
    for name, n_segments in (("a", 3), ("b", 1), ("c", 1)):
        builder.add(fingerprint(n_segments), track(name, n_segments))
        due.append(builder.due)
    builder.commit()
    assert [*due, builder.due] == [False, False, True, False]


def test_due_when_it_has_waited_long_enough(
    sqlite_store: Store, shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = [1000.0]
    monkeypatch.setattr("indexer.shard_writer.time.monotonic", lambda: now_s[0])
    config = IngestConfig(commit_every_s=60.0, max_segments=10**9)
    builder = ShardBuilder(sqlite_store, shards, config)
    due = []
    for later_s in (59.0, 2.0):
        now_s[0] += later_s
        due.append(builder.due)
    builder.commit()
    assert [*due, builder.due] == [False, True, False]


def test_replaced_track_goes_when_the_new_one_comes(sqlite_store: Store, shards: Path) -> None:
    builder = ShardBuilder(sqlite_store, shards, NEVER)
    builder.add(fingerprint(2), track("a", 2, content="old"))
    builder.commit()
    builder.add(fingerprint(3), track("a", 3, content="new"), replacing=1)
    assert sqlite_store.track("/a").content_hash == "old"
    builder.commit()
    assert [(t.id, t.content_hash) for t in sqlite_store.tracks()] == [(2, "new")]
    builder.add(fingerprint(1), track("b", 1))
    builder.commit()  # what was replaced once is not replaced again
    assert len(sqlite_store.tracks()) == 2


@pytest.mark.parametrize(
    ("bad", "replacing", "error"),
    [
        (track("b", 2, content="a"), None, DuplicateTrackError),
        (track("b", 2), 77, TrackNotFoundError),
    ],
)
def test_refused_commit_shows_nothing_of_itself(
    sqlite_store: Store, shards: Path, bad: NewTrack, replacing: int | None, error: type[Exception]
) -> None:
    builder = ShardBuilder(sqlite_store, shards, NEVER)
    builder.add(fingerprint(2), track("a", 2))
    builder.commit()
    builder.add(fingerprint(2), bad, replacing)
    builder.add(fingerprint(2), track("c", 2))
    with pytest.raises(error):
        builder.commit()
    assert [t.path for t in sqlite_store.tracks()] == ["/a"]
    known = set(sqlite_store.shard_names())
    assert len(sweep(shards, known)) == 1
    assert {entry.name for entry in shards.iterdir()} == known
