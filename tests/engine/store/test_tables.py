"""Rows that no astound has written: an error that names the column, whatever SQLite stores."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from astound.migrate import ensure_schema
from engine.errors import StoreError
from engine.store.store import Store
from engine.store.tables import Base
from tests.databases import written_shard
from tests.engine.store.test_store import new_track

INTEGERS = [None, "many", b"\x00", 1.5, 2.0**63, float("inf")]
TEXTS = [None, b"\xff"]
WRONG: dict[str, list[Any]] = {
    "settings.key": TEXTS,
    "settings.value": TEXTS,
    "shards.name": TEXTS,
    "shards.n_segments": INTEGERS,
    "shards.n_clips": INTEGERS,
    "tracks.id": [*INTEGERS, 0, -1, 2**40],
    "tracks.first_row": INTEGERS,
    "tracks.n_segments": INTEGERS,
    "tracks.first_clip": INTEGERS,
    "tracks.n_clips": INTEGERS,
    "tracks.path": TEXTS,
    "tracks.n_bytes": INTEGERS,
    "tracks.modified_ns": INTEGERS,
    "tracks.content_hash": TEXTS,
    "tracks.duration_s": [None, "long", b"", -1.0, float("inf")],
    "tracks.title": [b"\xff"],
    "tracks.added_at": [None, "yesterday", 5, b""],
    "track_metadata.key": TEXTS,
    "track_metadata.value": TEXTS,
}

READS: list[Callable[[Store], object]] = [
    Store.settings,
    Store.version,
    Store.shard_names,
    Store.shards,
    Store.placements,
    Store.tracks,
    Store.stats,
    Store.known_files,
    Store.superseded_shards,
    Store.dangling_tracks,
    lambda store: store.new_tracks([1]),
    lambda store: store.track(1),
]


@pytest.fixture
def damaged(tmp_path: Path) -> Callable[[str, Any], Path]:
    """Give damaged(column, value): a database without constraints and with this value."""
    path = tmp_path / "catalog.db"
    ensure_schema(path)
    with Store.open(path) as store:
        store.put_settings({"recipe_id": "recipe", "segment_hop_s": "0.5"})
        store.add_shard(written_shard("one", [(20, 1)]), [new_track(1)])

    def damage(column: str, value: Any) -> Path:
        table, name = column.split(".")
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute(f"CREATE TABLE copy AS SELECT * FROM {table}")
            connection.execute(f"DROP TABLE {table}")
            connection.execute(f"ALTER TABLE copy RENAME TO {table}")
            connection.execute(f"UPDATE {table} SET {name} = ?", (value,))
        return path

    return damage


@pytest.mark.parametrize(
    ("column", "value"), [(column, value) for column in WRONG for value in WRONG[column]]
)
def test_wrong_value_is_an_error_that_names_the_column(
    damaged: Callable[[str, Any], Path], column: str, value: Any
) -> None:
    messages = []
    with Store.open(damaged(column, value)) as store:
        for read in READS:
            with suppress(KeyError):
                try:
                    read(store)
                except StoreError as error:
                    messages.append(str(error))
    assert [one for one in messages if f"invalid {column}=" in one and "from a backup" in one]


@pytest.mark.parametrize(
    ("key", "value"),
    [("n_changes", "many"), ("n_changes", "-1"), ("segment_hop_s", "inf"),
     ("segment_hop_s", "0"), ("segment_hop_s", "half"), ("segment_hop_s", "9.2e18")],
)  # fmt: skip
def test_wrong_setting_is_named(damaged: Callable[[str, Any], Path], key: str, value: str) -> None:
    path = damaged("settings.value", "5")
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("UPDATE settings SET value = ? WHERE key = ?", (value, key))
    with Store.open(path) as store, pytest.raises(StoreError, match=f"invalid {key}='{value}'"):
        store.version() if key == "n_changes" else store.settings()


def test_every_column_is_checked() -> None:
    columns = [column for table in Base.metadata.tables.values() for column in table.columns]
    assert {str(column) for column in columns} >= WRONG.keys()
    assert all(getattr(column.type, "name", "") == str(column) for column in columns)


@pytest.mark.parametrize("column", ["shards.id", "tracks.shard_id"])
@pytest.mark.parametrize("value", [None, 7, "x"])
def test_track_without_shard_dangles(
    damaged: Callable[[str, Any], Path], column: str, value: Any
) -> None:
    with Store.open(damaged(column, value)) as store:
        assert store.dangling_tracks() == [1]
