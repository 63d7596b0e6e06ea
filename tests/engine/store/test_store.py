from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from astound.migrate import ensure_schema
from engine.errors import (
    CatalogBusyError,
    ConfigError,
    DuplicateTrackError,
    SchemaError,
    StoreError,
    TrackNotFoundError,
)
from engine.records import (
    USER_TAGS_KEY,
    NewTrack,
    Placement,
    Rows,
    Stats,
    Tags,
    WrittenShard,
)
from engine.store.store import Store, StoredShard
from tests.databases import written_shard


def new_track(n: int, **changes: object) -> NewTrack:
    track = NewTrack(
        path=f"/music/{n}.ogg",
        content_hash=f"{n:064x}",
        n_bytes=5_000_000_000 + n,
        modified_ns=1_700_000_000_000_000_000 + n,
        duration_s=10.0 * n,
        n_segments=20 * n,
        n_clips=n,
        tags=Tags(title=f"Title {n}"),
        metadata={"genre": f"g{n}"},
    )
    return replace(track, **changes)  # type: ignore[arg-type]


def add(store: Store, *numbers: int, name: str = "one") -> list[int]:
    return add_tracks(store, [new_track(n) for n in numbers], name=name)


def add_tracks(store: Store, tracks: Sequence[NewTrack], *, name: str = "two") -> list[int]:
    counts = [(track.n_segments, track.n_clips) for track in tracks]
    return store.add_shard(written_shard(name, counts), tracks)


# -- adding --------------------------------------------------------------------------------------


def test_added_track_is_found_by_id_and_by_path(store: Store) -> None:
    (track_id,) = add(store, 7)
    track = store.track(track_id)
    assert store.track("/music/7.ogg") == track
    assert (track.title, track.artist, track.metadata) == ("Title 7", None, {"genre": "g7"})
    assert (track.duration_s, track.n_segments, track.content_hash) == (70.0, 140, f"{7:064x}")
    assert datetime.now(UTC) - track.added_at < timedelta(minutes=1)
    assert track.added_at.tzinfo == UTC


def test_ids_come_in_the_order_given(store: Store) -> None:
    numbers = list(range(1500, 1, -1))
    ids = add(store, *numbers)
    assert ids == sorted(ids)
    assert [track.path for track in store.tracks(ids)] == [f"/music/{n}.ogg" for n in numbers]


def test_placements_follow_each_other_in_their_shard(store: Store) -> None:
    first, second = add(store, 3, 2)
    (third,) = add(store, 5, name="two")
    assert store.placements() == [
        Placement(track_id=first, shard="one", first_row=0, n_segments=60, first_clip=0, n_clips=3),
        Placement(
            track_id=second, shard="one", first_row=60, n_segments=40, first_clip=3, n_clips=2
        ),
        Placement(
            track_id=third, shard="two", first_row=0, n_segments=100, first_clip=0, n_clips=5
        ),
    ]
    assert store.shard_names() == ["one", "two"]


def test_numpy_numbers_are_stored_as_numbers(store: Store) -> None:
    counts = {"n_segments": np.int64(4), "n_clips": np.int32(1), "duration_s": np.float32(2.5)}
    rows = (Rows(np.int64(0), np.int64(4), np.int32(0), np.int32(1)),)  # type: ignore[arg-type]
    shard = WrittenShard(name="one", recipe_id="r", n_bytes=np.int64(9), rows=rows)  # type: ignore[arg-type]
    (track_id,) = store.add_shard(shard, [new_track(1, **counts)])
    assert store.tracks(np.array([track_id]))[0].n_segments == 4
    assert store.stats() == Stats(
        n_tracks=1, duration_s=2.5, n_segments=4, n_shards=1, n_stored_segments=4, n_bytes=9
    )


def test_text_no_database_can_store_is_cleaned(store: Store) -> None:
    tags = Tags(title="a\0b\udcff", artist="\0", album="")
    (track_id,) = add_tracks(store, [new_track(1, tags=tags, metadata={"k\0": "\0v"})])
    track = store.track(track_id)
    assert (track.title, track.artist, track.album) == ("ab\\udcff", None, None)
    assert track.metadata == {"k": "v"}


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"content_hash": f"{1:064x}"}, DuplicateTrackError),
        ({"path": "/music/1.ogg"}, StoreError),
        ({"path": "/music/8.ogg"}, StoreError),
        ({"content_hash": f"{8:064x}"}, StoreError),
    ],
    ids=["known content", "known path", "same path twice", "same content twice"],
)
def test_refused_shard_leaves_nothing(
    store: Store, changes: dict[str, str], error: type[StoreError]
) -> None:
    add(store, 1)
    before = (store.stats(), store.version(), store.known_files(), store.shard_names())
    with pytest.raises(error) as caught:
        add_tracks(store, [new_track(8), new_track(9, **changes)])
    assert type(caught.value) is error
    assert (store.stats(), store.version(), store.known_files(), store.shard_names()) == before


def test_duplicate_error_names_the_known_track(store: Store) -> None:
    _, second = add(store, 1, 2)
    with pytest.raises(DuplicateTrackError) as caught:
        add_tracks(store, [new_track(9, content_hash=f"{2:064x}")])
    assert (caught.value.track_id, caught.value.content_hash) == (second, f"{2:064x}")


def test_shard_name_twice_is_refused(store: Store) -> None:
    add(store, 1)
    with pytest.raises(StoreError, match="shards"):
        add(store, 2)
    assert store.stats().n_tracks == 1


def test_shard_without_tracks_is_refused(store: Store) -> None:
    with pytest.raises(StoreError, match="no tracks"):
        add_tracks(store, [])


def test_changed_file_replaces_its_track(store: Store) -> None:
    old, other = add(store, 1, 2)
    changed = new_track(3, path="/music/1.ogg")
    (new,) = store.add_shard(written_shard("two", [(60, 3)]), [changed], replacing=[old])
    assert store.track("/music/1.ogg").id == new
    assert [track.id for track in store.tracks()] == [other, new]


def test_replacing_an_unknown_track_adds_nothing(store: Store) -> None:
    (old,) = add(store, 1)
    with pytest.raises(TrackNotFoundError):
        store.add_shard(written_shard("two", [(40, 2)]), [new_track(2)], replacing=[old, 999])
    assert [track.id for track in store.tracks()] == [old]


ODD_PATHS = [
    os.fsdecode(b"/music/caf\xe9 100%.ogg"),
    r"/music/caf\udce9 100%.ogg",
    "/music/caf%E9 100%25.ogg",
    "file:///music/caf%E9%20100%25.ogg",
]


def test_paths_that_are_not_utf8_are_stored_and_found(store: Store) -> None:
    tracks = [new_track(n, path=path) for n, path in enumerate(ODD_PATHS, 1)]
    ids = add_tracks(store, tracks)
    assert [track.path for track in store.tracks()] == ODD_PATHS
    assert [store.track(path).id for path in ODD_PATHS] == ids
    assert [track.id for track in store.find(ODD_PATHS)] == ids
    assert store.new_tracks(ids) == dict(zip(ids, tracks, strict=True))
    assert list(store.known_files()) == ODD_PATHS
    assert store.taken_paths([*ODD_PATHS, "/x"]) == set(ODD_PATHS)
    store.update(ids[1], path=(other := os.fsdecode(b"/\xff.ogg")))
    assert store.track(other).id == ids[1]
    with pytest.raises(StoreError, match=r"/music/caf\\udce9 100%.ogg belongs to track 1"):
        store.update(ids[2], path=ODD_PATHS[0])


@pytest.mark.parametrize("path", ["/a\0b", "/\ud800"])
def test_path_that_no_file_has_is_refused(store: Store, path: str) -> None:
    (track_id,) = add(store, 1)
    with pytest.raises(ConfigError, match="invalid path="):
        store.update(track_id, path=path)


# -- finding -------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", [5, -1, 0, 2**31, 2**80, "/music/none.ogg", "", "\udcff", "a\0"])
def test_unknown_track_is_not_found(store: Store, key: int | str) -> None:
    with pytest.raises(TrackNotFoundError):
        store.track(key)
    with pytest.raises(TrackNotFoundError):
        store.find([key])


def test_find_returns_tracks_in_the_order_of_the_keys(store: Store) -> None:
    ids = add(store, *range(1, 3001))
    keys: list[int | str] = [ids[2], "/music/1.ogg", ids[0], *ids[::-1]]
    found = store.find(keys)
    assert [track.id for track in found] == [ids[2], ids[0], *ids[:2:-1], ids[1]]
    assert found[0] == store.track(ids[2])
    assert store.find([]) == []


def test_all_unknown_keys_are_named(store: Store) -> None:
    (known,) = add(store, 1)
    with pytest.raises(
        TrackNotFoundError, match="not in the catalog: -1, '/x', 99999999999, 77;"
    ) as error:
        store.find([-1, known, "/x", 99999999999, 77])
    assert error.value.tracks == (-1, "/x", 99999999999, 77)
    with pytest.raises(TrackNotFoundError, match="not in the catalog: 77, 78;"):
        store.delete([78, known, 77])


def test_tracks_can_be_read_as_they_were_added(store: Store) -> None:
    ids = add(store, *range(1, 2500))
    store.update(ids[0], title="")
    found = store.new_tracks([*ids, 99999])
    changed = new_track(1, tags=Tags(), metadata={"genre": "g1", USER_TAGS_KEY: "title"})
    assert found == {i: changed if n == 1 else new_track(n) for n, i in enumerate(ids, 1)}


def test_known_hashes_and_taken_paths_are_those_of_tracks(store: Store) -> None:
    add(store, *range(1, 2500))
    wanted = range(2400, 5000)
    hashes = store.known_hashes([new_track(n).content_hash for n in wanted])
    assert hashes == {new_track(n).content_hash for n in range(2400, 2500)}
    paths = store.taken_paths([new_track(n).path for n in wanted])
    assert paths == {new_track(n).path for n in range(2400, 2500)}


def test_tracks_are_ordered_and_keep_their_own_metadata(store: Store) -> None:
    ids = add(store, 1, 2, 3)
    found = store.tracks([ids[2], ids[0], 999])
    assert [(track.id, track.metadata) for track in found] == [
        (ids[0], {"genre": "g1"}),
        (ids[2], {"genre": "g3"}),
    ]


def test_pages_join_to_all_tracks_in_order(store: Store) -> None:
    ids = add(store, *range(1, 8))
    found: list[int] = []
    while page := store.page([], found[-1] if found else 0, 3):
        assert len(page) <= 3
        found += [track.id for track in page]
    assert found == ids
    assert store.page([], 2**63, None) == []


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["äNNCHEN"], [1]),
        (["ännchen", "BAND"], [1]),
        (["title"], [2, 3]),
        (["title", "band"], []),
        (["100%"], [1]),
        (["1%0"], []),
        (["e_b"], [1]),
        (["\\"], []),
        (["/MUSIC/3"], [3]),
        (["\0"], [1, 2, 3]),
    ],
)
def test_page_has_the_tracks_with_all_words(
    store: Store, words: list[str], expected: list[int]
) -> None:
    add(store, 1, 2, 3)
    store.update(1, title="Ännchen 100%", artist="The_Band")
    assert [track.id for track in store.page(words, 0, None)] == expected


def test_known_files_give_track_size_and_time(store: Store) -> None:
    add(store, 1, 2)
    assert store.known_files() == {
        f"/music/{n}.ogg": (n, 5_000_000_000 + n, 1_700_000_000_000_000_000 + n) for n in (1, 2)
    }


def test_content_is_found_by_its_hash(store: Store) -> None:
    _, second = add(store, 1, 2)
    assert store.id_by_hash(f"{2:064x}") == second
    assert store.id_by_hash("f" * 64) is None


def test_first_hash_that_a_track_has_is_found(store: Store) -> None:
    first, second = add(store, 1, 2)
    assert store.id_by_hash(f"{2:064x}", f"{1:064x}") == second
    assert store.id_by_hash("f" * 64, f"{1:064x}") == first


# -- changing ------------------------------------------------------------------------------------


def test_update_changes_only_what_is_given(store: Store) -> None:
    track_id, other = add(store, 1, 2)
    before = store.tracks()
    store.update(track_id, artist="Someone", metadata={"mood": "calm"})
    after = store.tracks()
    metadata = {"genre": "g1", "mood": "calm"}
    assert after == [replace(before[0], artist="Someone", metadata=metadata), before[1]]
    assert other == after[1].id


def test_update_with_empty_text_removes(store: Store) -> None:
    (track_id,) = add(store, 1)
    store.update(track_id, title="", metadata={"genre": ""})
    track = store.track(track_id)
    assert (track.title, track.metadata) == (None, {})


def test_update_of_unknown_track_raises(store: Store) -> None:
    with pytest.raises(TrackNotFoundError):
        store.update(1, title="x")
    with pytest.raises(TrackNotFoundError):
        store.update_file(2**40, n_bytes=1, modified_ns=1)


def test_path_of_another_track_is_refused(store: Store) -> None:
    first, second = add(store, 1, 2)
    with pytest.raises(StoreError, match=rf"/music/2.ogg.*track {second}"):
        store.update(first, title="lost", path="/music/2.ogg")
    assert store.track(first).title == "Title 1"
    store.update(first, path="/music/1.ogg")


def test_update_file_stores_size_time_and_path(store: Store) -> None:
    (track_id,) = add(store, 1)
    store.update_file(track_id, n_bytes=5, modified_ns=6)
    assert store.known_files() == {"/music/1.ogg": (track_id, 5, 6)}
    store.update_file(track_id, n_bytes=5, modified_ns=7, path="/new/1.ogg")
    assert store.known_files() == {"/new/1.ogg": (track_id, 5, 7)}


def test_files_may_be_swapped_and_replace_others(store: Store) -> None:
    first, second, third = add(store, 1, 2, 3)
    store.move_files({first: "/music/2.ogg", second: "/music/1.ogg"})
    store.move_files({second: "/music/3.ogg"}, replacing=[third])
    paths = {track.id: track.path for track in store.tracks()}
    assert paths == {first: "/music/2.ogg", second: "/music/3.ogg"}


@pytest.mark.parametrize("paths", [{1: "/new", 2: "/music/3.ogg"}, {1: "/new", 9: "/x"}])
def test_files_are_moved_all_or_none(store: Store, paths: dict[int, str]) -> None:
    add(store, 1, 2, 3)
    with pytest.raises(StoreError):
        store.move_files(paths, replacing=[])
    assert [track.path for track in store.tracks()] == [f"/music/{n}.ogg" for n in (1, 2, 3)]


def test_tags_of_the_file_replace_those_that_the_user_did_not_set(store: Store) -> None:
    first, second = add(store, 1, 2)
    store.update(first, artist="Someone", isrc="")
    tags = Tags(title="New", artist="Somebody else", isrc="GBAYE0601498")
    store.update_file(first, n_bytes=5, modified_ns=6, tags=tags)
    track = store.track(first)
    assert (track.title, track.artist, track.isrc) == ("New", "Someone", None)
    assert store.track(second).title == "Title 2"


def test_tag_that_the_file_lacks_is_kept(store: Store) -> None:
    (track_id,) = add(store, 1)
    store.update_file(track_id, n_bytes=5, modified_ns=6, tags=Tags(album="Album"))
    track = store.track(track_id)
    assert (track.title, track.album) == ("Title 1", "Album")


def test_tags_of_the_user_are_those_that_differ_when_a_hash_is_replaced(store: Store) -> None:
    (track_id,) = add(store, 1)
    store.update_file(
        track_id, n_bytes=5, modified_ns=6, content_hash="new", tags=Tags(title="By the file")
    )
    assert store.id_by_hash("new") == track_id
    store.update_file(track_id, n_bytes=5, modified_ns=6, tags=Tags(title="Again"))
    assert store.track(track_id).title == "Title 1"


def test_hash_of_another_track_is_not_taken(store: Store) -> None:
    first, _ = add(store, 1, 2)
    store.update_file(
        first, n_bytes=5, modified_ns=6, content_hash=f"{2:064x}", tags=Tags(title="New")
    )
    assert [track.content_hash for track in store.tracks()] == [f"{1:064x}", f"{2:064x}"]
    assert store.track(first).title == "New"


def test_reserved_metadata_are_hidden_and_cannot_be_set(store: Store) -> None:
    (track_id,) = add(store, 1)
    store.update(track_id, title="x")
    assert store.track(track_id).metadata == {"genre": "g1"}
    assert store.new_tracks([track_id])[track_id].metadata[USER_TAGS_KEY] == "title"
    with pytest.raises(ConfigError, match="reserved"):
        store.update(track_id, metadata={"mood": "calm", USER_TAGS_KEY: ""})
    assert store.track(track_id).metadata == {"genre": "g1"}


# -- deleting ------------------------------------------------------------------------------------


def test_deleted_track_is_gone_everywhere(store: Store) -> None:
    first, second = add(store, 1, 2)
    assert store.delete([first, first]) == 1
    assert [track.id for track in store.tracks()] == [second]
    assert [p.track_id for p in store.placements()] == [second]
    assert store.stats() == Stats(
        n_tracks=1, duration_s=20.0, n_segments=40, n_shards=1, n_stored_segments=60, n_bytes=1000
    )


def test_delete_with_an_unknown_id_deletes_nothing(store: Store) -> None:
    (track_id,) = add(store, 1)
    with pytest.raises(TrackNotFoundError) as caught:
        store.delete([track_id, 2**70])
    assert caught.value.track == 2**70
    assert store.track(track_id).path == "/music/1.ogg"


def test_delete_takes_thousands(store: Store) -> None:
    ids = add(store, *range(1, 2202))
    assert store.delete(ids[1:]) == 2200
    assert [track.metadata for track in store.tracks()] == [{"genre": "g1"}]


def test_id_of_the_last_deleted_track_is_never_used_again(store: Store) -> None:
    ids = add(store, 1, 2)
    store.delete(ids)
    (track_id,) = add(store, 2, name="two")
    assert track_id > max(ids)


def test_content_may_return_after_its_deletion(store: Store) -> None:
    store.delete(add(store, 1))
    (track_id,) = add(store, 1, name="two")
    assert store.track(track_id).metadata == {"genre": "g1"}


# -- compaction ----------------------------------------------------------------------------------


def moved(track_id: int, first_row: int, n_segments: int) -> Placement:
    return Placement(
        track_id=track_id,
        shard="new",
        first_row=first_row,
        n_segments=n_segments,
        first_clip=first_row // 20,
        n_clips=n_segments // 20,
    )


def test_move_tracks_replaces_shards_with_one(store: Store) -> None:
    first, second = add(store, 1, 2)
    third, deleted = add(store, 3, 4, name="two")
    new = written_shard("new", [(60, 3), (40, 2), (80, 4)], n_bytes=77)
    store.delete([first, deleted])
    store.move_tracks(new, [third, second, deleted], dropping=["one", "two"])
    assert store.placements() == [moved(third, 0, 60), moved(second, 60, 40)]
    assert store.shard_names() == ["new"]
    assert (store.stats().n_stored_segments, store.stats().n_bytes) == (180, 77)


def test_dropping_a_shard_with_tracks_changes_nothing(store: Store) -> None:
    first, _ = add(store, 1, 2)
    before = store.placements()
    with pytest.raises(StoreError, match="1 tracks"):
        store.move_tracks(written_shard("new", [(20, 1)]), [first], dropping=["one"])
    assert (store.placements(), store.shard_names()) == (before, ["one"])


def test_empty_shards_are_deleted(store: Store) -> None:
    store.delete(add(store, 1))
    add(store, 2, name="two")
    store.delete_shards(["one"])
    assert store.shard_names() == ["two"]


def test_deleting_an_unknown_shard_deletes_nothing(store: Store) -> None:
    store.delete(add(store, 1))
    with pytest.raises(StoreError, match="no shard ghost"):
        store.delete_shards(["one", "ghost"])
    assert store.shard_names() == ["one"]


def test_deleting_a_shard_with_tracks_raises(store: Store) -> None:
    add(store, 1, 2)
    with pytest.raises(StoreError, match="2 tracks"):
        store.delete_shards(["one"])
    assert store.shard_names() == ["one"]


def test_moved_track_has_the_counts_of_its_new_place(store: Store) -> None:
    first, second = add(store, 1, 2)
    store.move_tracks(written_shard("new", [(60, 3)]), [second])
    assert [one for one in store.placements() if one.shard == "new"] == [moved(second, 0, 60)]
    assert store.track(first).n_segments == 20
    assert store.shards() == [StoredShard("one", 60, 3), StoredShard("new", 60, 3)]


def test_counts_of_a_shard_can_be_corrected(store: Store) -> None:
    add(store, 1)
    add(store, 2, name="two")
    store.recount(StoredShard("two", 7, 8))
    store.recount(StoredShard("ghost", 9, 9))
    assert store.shards() == [StoredShard("one", 20, 1), StoredShard("two", 7, 8)]


# -- settings and changes ------------------------------------------------------------------------


def test_settings_are_kept_and_overwritten(store: Store) -> None:
    assert store.settings() == {}
    store.put_settings({"recipe_id": "a", "segment_hop_s": "0.5"})
    store.put_settings({"recipe_id": "b"})
    assert store.settings() == {"recipe_id": "b", "segment_hop_s": "0.5"}
    with pytest.raises(ConfigError):
        store.put_settings({"n_changes": "0"})


CHANGES: dict[str, Callable[[Store], object]] = {
    "settings": lambda store: store.put_settings({"a": "b"}),
    "add": lambda store: add(store, 2, name="two"),
    "update": lambda store: store.update(1, title="x"),
    "note": lambda store: store.update_file(1, n_bytes=1, modified_ns=1),
    "delete": lambda store: store.delete([1]),
    "compact": lambda store: store.move_tracks(
        written_shard("new", [(20, 1)]), [1], dropping=["one"]
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_version_changes_for_other_readers_with_every_change(database: str, change: str) -> None:
    ensure_schema(database)
    with Store.open(database) as writer, Store.open(database) as reader:
        assert add(writer, 1) == [1]
        before = reader.version()
        reader.stats()
        assert reader.version() == before
        CHANGES[change](writer)
        assert reader.version() == before + 1


def test_threads_read_while_another_writes(store: Store) -> None:
    ids = add(store, *range(1, 50))

    def read(_: int) -> int:
        return len(store.tracks(ids)) + len(store.placements())

    with ThreadPoolExecutor(8) as threads:
        counts = threads.map(read, range(40))
        for n in range(100, 110):
            add(store, n, name=f"shard {n}")
        assert min(counts) >= 2 * 49


def test_writers_at_the_same_moment_all_succeed(database: str) -> None:
    ensure_schema(database)
    together = threading.Barrier(4)

    def write(n: int) -> None:
        with Store.open(database) as store:
            together.wait()
            for i in range(5):
                add(store, 10 * n + i, name=f"{n} {i}")

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(write, range(1, 5)))
    with Store.open(database) as store:
        assert (store.stats().n_tracks, store.version()) == (20, 20)


# -- what cannot be opened -----------------------------------------------------------------------


def test_busy_sqlite_database_is_a_busy_error(sqlite: str) -> None:
    ensure_schema(sqlite)
    other = sqlite3.connect(sqlite.removeprefix("sqlite:///"), isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with Store.open(f"{sqlite}?timeout=0.1") as store, pytest.raises(CatalogBusyError):
        store.put_settings({"a": "b"})
    other.close()


def test_busy_server_is_a_busy_error(postgres: str) -> None:
    ensure_schema(postgres)
    impatient = f"{postgres}&options=-c lock_timeout=100"
    with (
        Store.open(postgres) as first,
        Store.open(impatient) as second,
        first._writing(),
        pytest.raises(CatalogBusyError),
    ):
        second.put_settings({"a": "b"})


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me:hunter2@127.0.0.1:1/catalog",
        "postgresql+psycopg://me@127.0.0.1:1/catalog?password=hunter2",
        "postgresql://me:first@hunter2@127.0.0.1:1/catalog",
        "postgresql://me:hunter2@127.0.0.1:port/catalog",
        "mysql://me:hunter2@127.0.0.1/catalog",
        "hunter2",
    ],
)
def test_unreachable_database_is_one_sentence_without_password(url: str) -> None:
    for open_it in (Store.open, ensure_schema):
        with pytest.raises(StoreError) as caught:
            open_it(url)
        message = str(caught.value)
        assert "hunter2" not in message
        assert "\n" not in message
        assert len(message) > 20


def test_missing_file_is_not_created(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no such database"):
        Store.open(tmp_path / "catalog.db")
    assert not list(tmp_path.iterdir())


def test_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "catalog.db"
    path.write_bytes(b"not a database at all" * 100)
    for open_it in (Store.open, ensure_schema):
        with pytest.raises(StoreError, match="not a database"):
            open_it(path)


def test_damaged_name_in_the_schema_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "catalog.db"
    ensure_schema(path)
    content = path.read_bytes()
    path.write_bytes(content.replace(b"CREATE TABLE settings", b"CREATE TABL\xce settings"))
    for open_it in (Store.open, ensure_schema):
        with pytest.raises(StoreError, match="not UTF-8; restore the database from a backup"):
            open_it(path)


def test_database_without_schema_is_refused(postgres: str) -> None:
    with pytest.raises(SchemaError) as caught:
        Store.open(postgres)
    assert caught.value.found is None


def test_any_file_name_works(tmp_path: Path) -> None:
    path = tmp_path / "wéird ?#%20 @" / "catalog.db"
    path.parent.mkdir()
    ensure_schema(path)
    with Store.open(path) as store:
        add(store, 1)
    assert path.is_file()


def test_commit_reaches_the_disk(sqlite: str) -> None:
    ensure_schema(sqlite)
    with Store.open(sqlite) as store, store._reading() as connection:
        pragmas = ("journal_mode", "synchronous", "foreign_keys")
        found = [connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in pragmas]
    assert found == ["wal", 2, 1]
