"""SQL statements executed inside :class:`~engine.store.store.Store` transactions."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from datetime import UTC, datetime
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.orm import InstrumentedAttribute

from engine.errors import DuplicateTrackError, StoreError, TrackNotFoundError, printable
from engine.records import (
    RESERVED_PREFIX,
    USER_TAGS_KEY,
    NewTrack,
    Placement,
    Rows,
    Tags,
    Track,
    WrittenShard,
    user_tags_entry,
)
from engine.store.connection import Connection
from engine.store.tables import LARGEST_ID, MetadataRow, SettingRow, ShardRow, TrackRow

T = TypeVar("T")

SUPERSEDED = "superseded_shards"
"""Key of the setting with the names of shards that a transaction replaced."""

_MAX_VALUES = 2000  # SQLite takes 32766 parameters in one statement, PostgreSQL 65535
_TRACK_COLUMNS = [getattr(TrackRow, f.name) for f in fields(Track) if f.name != "metadata"]
_TAGS = [f.name for f in fields(Tags)]
_FILE_FIELDS = [f.name for f in fields(NewTrack) if f.name not in ("tags", "metadata")]
_FILE_COLUMNS = [getattr(TrackRow, name) for name in _FILE_FIELDS + _TAGS]


def insert(connection: Connection, table: type[Any], rows: list[dict[str, Any]]) -> None:
    """Insert rows, if there are any."""
    if rows:  # an empty list would insert one row of defaults
        connection.execute(sa.insert(table), rows)


def insert_shard(connection: Connection, shard: WrittenShard) -> int:
    """Insert a shard and return its id."""
    values = {
        "name": shard.name,
        "recipe_id": shard.recipe_id,
        "n_bytes": int(shard.n_bytes),
        "n_segments": int(shard.n_segments),
        "n_clips": int(shard.n_clips),
        "created_at": datetime.now(UTC),
    }
    query = sa.insert(ShardRow).values(values).returning(ShardRow.id)
    return int(connection.execute(query).scalar_one())


def insert_tracks(
    connection: Connection, shard_id: int, rows: Sequence[Rows], tracks: Sequence[NewTrack]
) -> list[int]:
    """Insert the tracks of a shard, whose rows are given in the same order; return their ids."""
    now = datetime.now(UTC)
    values = [
        {**_file_values(track), **_plain(place._asdict()), "shard_id": shard_id, "added_at": now}
        for track, place in zip(tracks, rows, strict=True)
    ]
    query = sa.insert(TrackRow).returning(TrackRow.id, sort_by_parameter_order=True)
    ids = list(connection.scalars(query, values))
    insert(
        connection,
        MetadataRow,
        [
            row
            for i, track in zip(ids, tracks, strict=True)
            for row in _metadata_rows(i, track.metadata)
        ],
    )
    return ids


def _plain(numbers: Mapping[str, int]) -> dict[str, int]:
    # SQLite would store NumPy's integers as binary blobs.
    return {name: int(number) for name, number in numbers.items()}


def _file_values(track: NewTrack) -> dict[str, Any]:
    return {
        "path": track.path,
        "content_hash": track.content_hash,
        "n_bytes": int(track.n_bytes),
        "modified_ns": int(track.modified_ns),
        "duration_s": float(track.duration_s),
        **{key: clean(value or "") for key, value in vars(track.tags).items()},
    }


def _metadata_rows(track_id: int, metadata: Mapping[str, str]) -> list[dict[str, Any]]:
    cleaned = {clean(key) or "": clean(value) for key, value in metadata.items()}
    return [
        {"track_id": track_id, "key": key, "value": value}
        for key, value in cleaned.items()
        if value
    ]


def move_tracks(connection: Connection, shard_id: int, placements: Sequence[Placement]) -> None:
    """Update the placements of tracks."""
    rows = [
        {"moved": int(p.track_id)} | {f"new_{name}": int(getattr(p, name)) for name in Rows._fields}
        for p in placements
    ]
    values: dict[str, Any] = {name: sa.bindparam(f"new_{name}") for name in Rows._fields}
    move = sa.update(TrackRow).where(TrackRow.id == sa.bindparam("moved"))
    connection.execute(move.values(shard_id=shard_id, **values), rows)


def superseded_names(connection: Connection) -> list[str]:
    """Read the names of shards that a transaction replaced."""
    query = sa.select(SettingRow.value).where(SettingRow.key == SUPERSEDED)
    return (connection.scalar(query) or "").split()


def put_superseded(connection: Connection, names: Iterable[str]) -> None:
    """Replace the names of superseded shards."""
    connection.execute(sa.delete(SettingRow).where(SettingRow.key == SUPERSEDED))
    value = " ".join(names)
    insert(connection, SettingRow, [{"key": SUPERSEDED, "value": value}] if value else [])


def delete_shards(connection: Connection, names: Sequence[str], *, superseded: bool = True) -> None:
    """Delete shards; StoreError if one does not exist or has tracks."""
    query = sa.select(ShardRow.id, ShardRow.name).where(ShardRow.name.in_(names))
    found = {name: shard_id for shard_id, name in connection.execute(query)}
    if missing := set(names) - set(found):
        raise StoreError(f"no shard {min(missing)} in the catalog")
    left = sa.select(sa.func.count()).where(TrackRow.shard_id.in_(found.values()))
    if n_left := connection.scalar(left):
        raise StoreError(f"{n_left} tracks are in the shards to delete")
    connection.execute(sa.delete(ShardRow).where(ShardRow.id.in_(found.values())))
    if superseded:
        put_superseded(connection, [*superseded_names(connection), *names])


def update_track(connection: Connection, track_id: int, values: Mapping[str, Any]) -> None:
    """Update columns of a track; TrackNotFoundError, or StoreError if the path is taken."""
    _refuse_unknown(connection, [track_id])
    if "path" in values:
        refuse_taken(connection, [values["path"]], owner=track_id)
    if values:
        connection.execute(sa.update(TrackRow).where(TrackRow.id == track_id).values(**values))


def put_metadata(connection: Connection, track_id: int, metadata: Mapping[str, str]) -> None:
    """Set metadata keys of a track, and delete those with an empty value."""
    keys = [clean(key) for key in metadata]
    connection.execute(
        sa.delete(MetadataRow).where(MetadataRow.track_id == track_id, MetadataRow.key.in_(keys))
    )
    insert(connection, MetadataRow, _metadata_rows(track_id, metadata))


def refresh_tags(connection: Connection, track_id: int, tags: Tags) -> None:
    """Update the tags of a track to those that its file has, except those that the user set."""
    own = _user_tags(connection, track_id)
    values = {name: clean(tag) for name, tag in vars(tags).items() if tag and name not in own}
    update_track(connection, track_id, values)


def _user_tags(connection: Connection, track_id: int) -> set[str]:
    """Read the names of the tags that the user set."""
    query = sa.select(MetadataRow.value).where(
        MetadataRow.track_id == track_id, MetadataRow.key == USER_TAGS_KEY
    )
    return set((connection.scalar(query) or "").split())


def add_user_tags(connection: Connection, track_id: int, names: Collection[str]) -> None:
    """Note that the user set some tags."""
    if names:
        joined = _user_tags(connection, track_id).union(names)
        put_metadata(connection, track_id, user_tags_entry(joined))


def adopt_hash(connection: Connection, track_id: int, content_hash: str, tags: Tags) -> None:
    """Replace the hash that an older catalog has of a track's file, unless another track has it.

    The file has not changed, so that the user set those tags that differ from the file's.
    """
    taken = among(connection, TrackRow.content_hash, [content_hash])
    query = sa.select(*(getattr(TrackRow, name) for name in _TAGS)).where(TrackRow.id == track_id)
    stored = connection.execute(query).mappings().first()
    if stored and not taken:
        differing = [name for name in _TAGS if stored[name] != clean(getattr(tags, name) or "")]
        add_user_tags(connection, track_id, differing)
        update_track(connection, track_id, {"content_hash": content_hash})


def delete_tracks(connection: Connection, ids: Iterable[int]) -> int:
    """Delete tracks and return their number; TrackNotFoundError if one does not exist."""
    unique = ordered(ids)
    _refuse_unknown(connection, unique)
    for chunk in chunks(unique):
        connection.execute(sa.delete(TrackRow).where(TrackRow.id.in_(chunk)))
    return len(unique)


def has_word(word: str) -> sa.ColumnElement[bool]:
    """Return the condition that the tags or the path of a track contain some text in any case."""
    text = (clean(word) or "").lower()
    columns = (TrackRow.title, TrackRow.artist, TrackRow.album, TrackRow.path)
    lowered = (sa.func.lower(sa.type_coerce(column, sa.Text)) for column in columns)
    return sa.or_(*(column.contains(text, autoescape=True) for column in lowered))


def tracks_where(connection: Connection, condition: sa.ColumnElement[bool]) -> list[Track]:
    """Read the tracks that fulfil a condition, ordered by id."""
    shown = sa.not_(MetadataRow.key.startswith(RESERVED_PREFIX))
    metadata = metadata_where(connection, condition & shown)
    rows = connection.execute(sa.select(*_TRACK_COLUMNS).where(condition).order_by(TrackRow.id))
    return [Track(**row, metadata=metadata.get(row["id"], {})) for row in rows.mappings()]


def metadata_where(
    connection: Connection, condition: sa.ColumnElement[bool]
) -> dict[int, dict[str, str]]:
    """Read the free metadata of the tracks that fulfil a condition, by track id."""
    metadata: dict[int, dict[str, str]] = {}
    query = sa.select(MetadataRow.track_id, MetadataRow.key, MetadataRow.value)
    chosen = query.join(TrackRow, TrackRow.id == MetadataRow.track_id).where(condition)
    for track_id, key, value in connection.execute(chosen):
        metadata.setdefault(track_id, {})[key] = value
    return metadata


def tracks_among(
    connection: Connection, column: InstrumentedAttribute[Any], values: Collection[Any]
) -> list[Track]:
    """Read the tracks with one of some values in a column."""
    return [
        track
        for chunk in chunks(sorted(values))
        for track in tracks_where(connection, column.in_(chunk))
    ]


def new_tracks(connection: Connection, ids: Sequence[int]) -> dict[int, NewTrack]:
    """Read tracks as records to add again, by id."""
    found: dict[int, NewTrack] = {}
    for chunk in chunks(ids):
        metadata = metadata_where(connection, TrackRow.id.in_(chunk))
        query = sa.select(TrackRow.id, *_FILE_COLUMNS).where(TrackRow.id.in_(chunk))
        for track_id, *values in connection.execute(query):
            own, tags = values[: len(_FILE_FIELDS)], values[len(_FILE_FIELDS) :]
            found[track_id] = NewTrack(
                **dict(zip(_FILE_FIELDS, own, strict=True)),
                tags=Tags(**dict(zip(_TAGS, tags, strict=True))),
                metadata=metadata.get(track_id, {}),
            )
    return found


def among(connection: Connection, column: InstrumentedAttribute[T], values: Sequence[T]) -> set[T]:
    """Return those of some values that occur in a column."""
    found: set[T] = set()
    for chunk in chunks(values):
        found.update(connection.scalars(sa.select(column).where(column.in_(chunk))))
    return found


def _refuse_unknown(connection: Connection, ids: Sequence[int]) -> None:
    known = among(connection, TrackRow.id, [i for i in ids if 0 < i <= LARGEST_ID])
    if missing := set(ids) - known:
        raise TrackNotFoundError(*sorted(missing))


def refuse_duplicates(connection: Connection, hashes: Sequence[str]) -> None:
    """Raise DuplicateTrackError if a track has one of these contents."""
    for chunk in chunks(hashes):
        query = sa.select(TrackRow.content_hash, TrackRow.id).where(
            TrackRow.content_hash.in_(chunk)
        )
        if known := connection.execute(query).first():
            raise DuplicateTrackError(known.content_hash, known.id)


def refuse_taken(connection: Connection, paths: Sequence[str], owner: int | None = None) -> None:
    """Raise StoreError if one of these paths belongs to another track."""
    for chunk in chunks(paths):
        query = sa.select(TrackRow.path, TrackRow.id).where(TrackRow.path.in_(chunk))
        if (known := connection.execute(query).first()) and known.id != owner:
            raise StoreError(f"{printable(known.path)} belongs to track {known.id}")


def total(column: InstrumentedAttribute[int]) -> sa.ColumnElement[int]:
    """Sum a column; 0 without rows."""
    return sa.cast(sa.func.coalesce(sa.func.sum(column), 0), sa.BigInteger)


def clean(value: str) -> str | None:
    """Remove what PostgreSQL or UTF-8 cannot represent; None for empty text."""
    return printable(value).replace("\0", "") or None


def ordered(ids: Iterable[int]) -> list[int]:
    """Sort ids without repetitions."""
    return sorted({int(i) for i in ids})


def chunks(values: Sequence[T]) -> Iterator[Sequence[T]]:
    """Split values that may be too many for one statement."""
    for first in range(0, len(values), _MAX_VALUES):
        yield values[first : first + _MAX_VALUES]
