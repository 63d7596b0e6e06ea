"""The catalog's memory of settings, shards and tracks, in SQLite or PostgreSQL.

Every change is one transaction that also counts itself (:meth:`Store.version`). Updating that
counter first makes writers wait for each other, so what they check stays true until they commit.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from itertools import accumulate
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.orm import InstrumentedAttribute

from engine.database import Connection, Engine, connect, schema, translated
from engine.errors import (
    ConfigError,
    DuplicateTrackError,
    SchemaError,
    StoreError,
    TrackNotFoundError,
    printable,
)
from engine.records import NewTrack, Placement, Track
from engine.tables import SCHEMA_HEAD, MetadataRow, SettingRow, ShardRow, TrackRow

T = TypeVar("T")

_READING = {"sqlite": {}, "postgresql": {"isolation_level": "REPEATABLE READ"}}
_CHANGES = "n_changes"
_LARGEST_ID = 2**31 - 1
_N_AT_ONCE = 2000  # SQLite takes 32766 parameters in one statement, PostgreSQL 65535
_PLACEMENT_COLUMNS = (
    TrackRow.id.label("track_id"),
    ShardRow.name.label("shard"),
    TrackRow.first_row,
    TrackRow.n_segments,
    TrackRow.first_clip,
    TrackRow.n_clips,
)
_TRACK_COLUMNS = [getattr(TrackRow, f.name) for f in fields(Track) if f.name != "metadata"]


@dataclass(frozen=True, kw_only=True)
class Stats:
    """What a catalog holds.

    Parameters
    ----------
    n_tracks : int
    duration_s : float
        Of all tracks together.
    n_segments : int
        Segments of these tracks.
    n_shards, n_stored_segments, n_bytes : int
        Shards, the segments in them (deleted tracks' too), and their size.
    """

    n_tracks: int
    duration_s: float
    n_segments: int
    n_shards: int
    n_stored_segments: int
    n_bytes: int


class Store:
    """An open database of the current schema, for any number of threads.

    All methods raise :class:`~engine.errors.StoreError` when the database cannot be reached, and
    those that write :class:`~engine.errors.CatalogBusyError` when another writer does not finish.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._reader = engine.execution_options(**_READING[engine.dialect.name])
        self._writer = engine.execution_options(writing=True)

    @classmethod
    def open(cls, database: str | Path) -> Store:
        """Open a database that exists and has the current schema.

        Parameters
        ----------
        database : str or Path
            An SQLAlchemy URL (SQLite file or PostgreSQL), or the path of an SQLite file.

        Raises
        ------
        StoreError
            There is no such database, or it cannot be reached.
        SchemaError
            Its schema is older, newer or not there.
        """
        engine = connect(database)
        if engine.dialect.name == "sqlite" and not Path(engine.url.database or "").is_file():
            raise StoreError(f"{printable(engine.url.database)}: there is no database")
        with translated(engine), engine.connect() as connection:
            found = schema(connection)
        if found != SCHEMA_HEAD:
            engine.dispose()
            raise SchemaError(found, SCHEMA_HEAD)
        return cls(engine)

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    # -- settings ----------------------------------------------------------------------------

    def version(self) -> int:
        """Count the changes ever made: a reader who sees it grow must look again."""
        with self._reading() as connection:
            query = sa.select(SettingRow.value).where(SettingRow.key == _CHANGES)
            return int(connection.execute(query).scalar_one())

    def settings(self) -> dict[str, str]:
        """Read all settings."""
        with self._reading() as connection:
            rows = connection.execute(sa.select(SettingRow.key, SettingRow.value))
            return {key: value for key, value in rows if key != _CHANGES}

    def put_settings(self, settings: Mapping[str, str]) -> None:
        """Set some settings and leave the others."""
        if _CHANGES in settings:
            raise ConfigError(_CHANGES, "the store itself counts its changes")
        rows = [{"key": key, "value": value} for key, value in settings.items()]
        with self._writing() as connection:
            connection.execute(sa.delete(SettingRow).where(SettingRow.key.in_(list(settings))))
            _insert(connection, SettingRow, rows)

    # -- shards ------------------------------------------------------------------------------

    def shard_names(self) -> list[str]:
        """Names of all shards, oldest first."""
        with self._reading() as connection:
            return list(connection.scalars(sa.select(ShardRow.name).order_by(ShardRow.id)))

    def add_shard(
        self,
        name: str,
        recipe_id: str,
        n_bytes: int,
        tracks: Sequence[NewTrack],
        *,
        replacing: Iterable[int] = (),
    ) -> list[int]:
        """Make a shard and its tracks visible, all or nothing.

        Parameters
        ----------
        name, recipe_id : str
        n_bytes : int
            Size of the shard's files.
        tracks : sequence of NewTrack, not empty
            In the order of their vectors in the shard.
        replacing : iterable of int
            Ids of tracks to delete at the same moment, such as older contents of the same paths.

        Returns
        -------
        list of int
            The new tracks' ids, in the order of `tracks`.

        Raises
        ------
        DuplicateTrackError
            A content hash is in the catalog already.
        TrackNotFoundError
            A track to replace does not exist.
        StoreError
            A path is in the catalog already, or two of `tracks` share a path or a content hash.
        """
        if not tracks:
            raise StoreError(f"shard {name} has no tracks")
        with self._writing() as connection:
            _delete_tracks(connection, replacing)
            _refuse_duplicates(connection, [track.content_hash for track in tracks])
            _refuse_taken(connection, [track.path for track in tracks])
            n_segments = sum(track.n_segments for track in tracks)
            n_clips = sum(track.n_clips for track in tracks)
            shard_id = _insert_shard(connection, name, recipe_id, n_bytes, n_segments, n_clips)
            return _insert_tracks(connection, shard_id, tracks)

    def replace_shards(
        self,
        replaced: Sequence[str],
        name: str,
        recipe_id: str,
        n_bytes: int,
        placements: Sequence[Placement],
    ) -> None:
        """Move tracks from some shards to a new one and forget the old ones, all or nothing.

        A track deleted since the new shard was written stays deleted.

        Parameters
        ----------
        replaced : sequence of str
            Names of the shards to forget; no track may be left in them.
        name, recipe_id, n_bytes
            As in :meth:`add_shard`.
        placements : sequence of Placement
            Where the tracks' vectors lie in the new shard; with none, no new shard is made.

        Raises
        ------
        StoreError
            One of `replaced` does not exist, or a track of theirs is not among `placements`.
        """
        with self._writing() as connection:
            if placements:
                n_segments = max(p.first_row + p.n_segments for p in placements)
                n_clips = max(p.first_clip + p.n_clips for p in placements)
                shard_id = _insert_shard(connection, name, recipe_id, n_bytes, n_segments, n_clips)
                _move_tracks(connection, shard_id, placements)
            _delete_shards(connection, replaced)

    def placements(self) -> list[Placement]:
        """Where the vectors of all tracks lie, shard by shard in the order of their rows."""
        query = (
            sa.select(*_PLACEMENT_COLUMNS)
            .join(ShardRow, ShardRow.id == TrackRow.shard_id)
            .order_by(TrackRow.shard_id, TrackRow.first_row)
        )
        with self._reading() as connection:
            rows = connection.execute(query)
            names = tuple(rows.keys())
            # Rows as mappings take twice as long, and there may be a hundred thousand.
            return [Placement(**dict(zip(names, row, strict=True))) for row in rows]

    # -- tracks ------------------------------------------------------------------------------

    def track(self, key: int | str) -> Track:
        """Look a track up by its id or its path; TrackNotFoundError when there is none."""
        if isinstance(key, int) and not 0 < key <= _LARGEST_ID:
            raise TrackNotFoundError(key)
        condition = TrackRow.path == key if isinstance(key, str) else TrackRow.id == key
        with self._reading() as connection:
            found = _tracks_where(connection, condition)
        if not found:
            raise TrackNotFoundError(key)
        return found[0]

    def tracks(self, ids: Iterable[int] | None = None) -> list[Track]:
        """Look up all tracks, or those of some ids that exist, ordered by id."""
        with self._reading() as connection:
            if ids is None:
                return _tracks_where(connection, sa.true())
            return [
                track
                for chunk in _chunks(_sorted(ids))
                for track in _tracks_where(connection, TrackRow.id.in_(chunk))
            ]

    def known_files(self) -> dict[str, tuple[int, int]]:
        """Size in bytes and time of change in ns by path, to skip files without reading them."""
        with self._reading() as connection:
            rows = connection.execute(
                sa.select(TrackRow.path, TrackRow.n_bytes, TrackRow.modified_ns)
            )
            return {path: (n_bytes, modified_ns) for path, n_bytes, modified_ns in rows}

    def id_by_hash(self, content_hash: str) -> int | None:
        """Id of the track with this content, or None."""
        with self._reading() as connection:
            return connection.scalar(
                sa.select(TrackRow.id).where(TrackRow.content_hash == content_hash)
            )

    def note_file(
        self, track_id: int, *, n_bytes: int, modified_ns: int, path: str | None = None
    ) -> None:
        """Remember that a track's file was touched, or is now elsewhere, with the same content.

        Raises
        ------
        TrackNotFoundError
        StoreError
            `path` belongs to another track.
        """
        values = {"n_bytes": n_bytes, "modified_ns": modified_ns}
        with self._writing() as connection:
            _update_track(connection, track_id, {**values, **({"path": path} if path else {})})

    def update(  # noqa: PLR0913 - one for each thing that may change
        self,
        track_id: int,
        *,
        title: str | None = None,
        artist: str | None = None,
        album: str | None = None,
        isrc: str | None = None,
        path: str | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        """Change what is given and leave the rest.

        Parameters
        ----------
        track_id : int
        title, artist, album, isrc : str, optional
            Empty text removes what was there.
        path : str, optional
        metadata : mapping, optional
            Keys to set; those with an empty value are removed.

        Raises
        ------
        TrackNotFoundError
        StoreError
            `path` belongs to another track.
        """
        tags = {"title": title, "artist": artist, "album": album, "isrc": isrc}
        values = {key: _clean(value) for key, value in tags.items() if value is not None}
        if path:
            values["path"] = path
        with self._writing() as connection:
            _update_track(connection, track_id, values)
            _put_metadata(connection, track_id, metadata or {})

    def delete(self, ids: Iterable[int]) -> int:
        """Delete tracks, all or none; their vectors are dead from this moment on.

        Returns
        -------
        int
            How many were deleted.

        Raises
        ------
        TrackNotFoundError
            One of them does not exist.
        """
        with self._writing() as connection:
            return _delete_tracks(connection, ids)

    def stats(self) -> Stats:
        """Count what there is."""
        tracks = sa.select(
            sa.func.count().label("n_tracks"),
            sa.func.coalesce(sa.func.sum(TrackRow.duration_s), 0.0).label("duration_s"),
            _total(TrackRow.n_segments).label("n_segments"),
        ).select_from(TrackRow)
        shards = sa.select(
            sa.func.count().label("n_shards"),
            _total(ShardRow.n_segments).label("n_stored_segments"),
            _total(ShardRow.n_bytes).label("n_bytes"),
        ).select_from(ShardRow)
        with self._reading() as connection:
            row = connection.execute(tracks).mappings().one()
            return Stats(**row, **connection.execute(shards).mappings().one())

    # -- transactions ------------------------------------------------------------------------

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        with translated(self._engine), self._reader.begin() as connection:
            yield connection

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        counted = sa.cast(sa.cast(SettingRow.value, sa.Integer) + 1, sa.Text)
        with translated(self._engine), self._writer.begin() as connection:
            connection.execute(
                sa.update(SettingRow).where(SettingRow.key == _CHANGES).values(value=counted)
            )
            yield connection


# -- statements --------------------------------------------------------------------------------


def _insert(connection: Connection, table: type[Any], rows: list[dict[str, Any]]) -> None:
    if rows:  # an empty list would insert one row of defaults
        connection.execute(sa.insert(table), rows)


def _insert_shard(
    connection: Connection, name: str, recipe_id: str, n_bytes: int, n_segments: int, n_clips: int
) -> int:
    values = {
        "name": name,
        "recipe_id": recipe_id,
        "n_bytes": int(n_bytes),
        "n_segments": int(n_segments),
        "n_clips": int(n_clips),
        "created_at": datetime.now(UTC),
    }
    query = sa.insert(ShardRow).values(values).returning(ShardRow.id)
    return int(connection.execute(query).scalar_one())


def _insert_tracks(connection: Connection, shard_id: int, tracks: Sequence[NewTrack]) -> list[int]:
    first_rows = accumulate((track.n_segments for track in tracks), initial=0)
    first_clips = accumulate((track.n_clips for track in tracks), initial=0)
    now = datetime.now(UTC)
    rows = [
        {
            **_own_values(track),
            "shard_id": shard_id,
            "first_row": int(first_row),
            "first_clip": int(first_clip),
            "added_at": now,
        }
        for track, first_row, first_clip in zip(tracks, first_rows, first_clips, strict=False)
    ]
    query = sa.insert(TrackRow).returning(TrackRow.id, sort_by_parameter_order=True)
    ids = list(connection.scalars(query, rows))
    _insert(
        connection,
        MetadataRow,
        [
            row
            for i, track in zip(ids, tracks, strict=True)
            for row in _metadata_rows(i, track.metadata)
        ],
    )
    return ids


def _own_values(track: NewTrack) -> dict[str, Any]:
    # numpy's numbers would become binary blobs in SQLite
    return {
        "path": track.path,
        "content_hash": track.content_hash,
        "n_bytes": int(track.n_bytes),
        "modified_ns": int(track.modified_ns),
        "duration_s": float(track.duration_s),
        "n_segments": int(track.n_segments),
        "n_clips": int(track.n_clips),
        **{key: _clean(value or "") for key, value in vars(track.tags).items()},
    }


def _metadata_rows(track_id: int, metadata: Mapping[str, str]) -> list[dict[str, Any]]:
    cleaned = {_clean(key) or "": _clean(value) for key, value in metadata.items()}
    return [
        {"track_id": track_id, "key": key, "value": value}
        for key, value in cleaned.items()
        if value
    ]


def _move_tracks(connection: Connection, shard_id: int, placements: Sequence[Placement]) -> None:
    rows = [
        {"moved": int(p.track_id), "row": int(p.first_row), "clip": int(p.first_clip)}
        for p in placements
    ]
    move = sa.update(TrackRow).where(TrackRow.id == sa.bindparam("moved"))
    connection.execute(
        move.values(
            shard_id=shard_id, first_row=sa.bindparam("row"), first_clip=sa.bindparam("clip")
        ),
        rows,
    )


def _delete_shards(connection: Connection, names: Sequence[str]) -> None:
    query = sa.select(ShardRow.id, ShardRow.name).where(ShardRow.name.in_(names))
    found = {name: shard_id for shard_id, name in connection.execute(query)}
    if missing := set(names) - set(found):
        raise StoreError(f"there is no shard {min(missing)}")
    left = sa.select(sa.func.count()).where(TrackRow.shard_id.in_(found.values()))
    if n_left := connection.scalar(left):
        raise StoreError(f"{n_left} tracks still lie in the shards to be forgotten")
    connection.execute(sa.delete(ShardRow).where(ShardRow.id.in_(found.values())))


def _update_track(connection: Connection, track_id: int, values: Mapping[str, Any]) -> None:
    _refuse_unknown(connection, [track_id])
    if "path" in values:
        _refuse_taken(connection, [values["path"]], owner=track_id)
    if values:
        connection.execute(sa.update(TrackRow).where(TrackRow.id == track_id).values(**values))


def _put_metadata(connection: Connection, track_id: int, metadata: Mapping[str, str]) -> None:
    keys = [_clean(key) for key in metadata]
    connection.execute(
        sa.delete(MetadataRow).where(MetadataRow.track_id == track_id, MetadataRow.key.in_(keys))
    )
    _insert(connection, MetadataRow, _metadata_rows(track_id, metadata))


def _delete_tracks(connection: Connection, ids: Iterable[int]) -> int:
    wanted = _sorted(ids)
    _refuse_unknown(connection, wanted)
    for chunk in _chunks(wanted):
        connection.execute(sa.delete(TrackRow).where(TrackRow.id.in_(chunk)))
    return len(wanted)


def _tracks_where(connection: Connection, condition: sa.ColumnElement[bool]) -> list[Track]:
    metadata: dict[int, dict[str, str]] = {}
    query = sa.select(MetadataRow.track_id, MetadataRow.key, MetadataRow.value)
    chosen = query.join(TrackRow, TrackRow.id == MetadataRow.track_id).where(condition)
    for track_id, key, value in connection.execute(chosen):
        metadata.setdefault(track_id, {})[key] = value
    rows = connection.execute(sa.select(*_TRACK_COLUMNS).where(condition).order_by(TrackRow.id))
    return [Track(**row, metadata=metadata.get(row["id"], {})) for row in rows.mappings()]


def _refuse_unknown(connection: Connection, ids: Sequence[int]) -> None:
    known: set[int] = set()
    for chunk in _chunks([i for i in ids if 0 < i <= _LARGEST_ID]):
        known.update(connection.scalars(sa.select(TrackRow.id).where(TrackRow.id.in_(chunk))))
    if missing := set(ids) - known:
        raise TrackNotFoundError(min(missing))


def _refuse_duplicates(connection: Connection, hashes: Sequence[str]) -> None:
    for chunk in _chunks(hashes):
        query = sa.select(TrackRow.content_hash, TrackRow.id).where(
            TrackRow.content_hash.in_(chunk)
        )
        if known := connection.execute(query).first():
            raise DuplicateTrackError(known.content_hash, known.id)


def _refuse_taken(connection: Connection, paths: Sequence[str], owner: int | None = None) -> None:
    for chunk in _chunks(paths):
        query = sa.select(TrackRow.path, TrackRow.id).where(TrackRow.path.in_(chunk))
        if (known := connection.execute(query).first()) and known.id != owner:
            raise StoreError(f"{known.path} is in the catalog already, as track {known.id}")


def _total(column: InstrumentedAttribute[int]) -> sa.ColumnElement[int]:
    return sa.cast(sa.func.coalesce(sa.func.sum(column), 0), sa.BigInteger)


def _clean(value: str) -> str | None:
    """Drop what PostgreSQL cannot store and UTF-8 cannot say; None for empty text."""
    return printable(value).replace("\0", "") or None


def _sorted(ids: Iterable[int]) -> list[int]:
    return sorted({int(i) for i in ids})


def _chunks(values: Sequence[T]) -> Iterator[Sequence[T]]:
    for first in range(0, len(values), _N_AT_ONCE):
        yield values[first : first + _N_AT_ONCE]
