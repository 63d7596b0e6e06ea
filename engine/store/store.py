"""The settings, shards and tracks of a catalog, in SQLite or PostgreSQL.

Every change is one transaction, which first increments a counter (:meth:`Store.version`). Writers
therefore wait for each other, and what a transaction checks is true until it commits.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa

from engine.config import IndexConfig, require_hop
from engine.errors import ConfigError, SchemaError, StoreError, TrackNotFoundError, printable
from engine.files import is_path
from engine.records import (
    NewTrack,
    Placement,
    Stats,
    Tags,
    Track,
    WrittenShard,
    require_free_keys,
)
from engine.store import queries
from engine.store.connection import Connection, Engine, connect, copy_file, schema, translated
from engine.store.jobs import Jobs
from engine.store.keys import Keys
from engine.store.lock import write_lock
from engine.store.tables import (
    LARGEST_ID,
    SCHEMA_HEAD,
    InvalidRowError,
    SettingRow,
    ShardRow,
    TrackRow,
)

_READING = {"sqlite": {}, "postgresql": {"isolation_level": "REPEATABLE READ"}}
_CHANGES, _HOP = "n_changes", "segment_hop_s"
_RESERVED = (_CHANGES, queries.SUPERSEDED)
_PLACEMENT_COLUMNS = (
    TrackRow.id.label("track_id"),
    ShardRow.name.label("shard"),
    TrackRow.first_row,
    TrackRow.n_segments,
    TrackRow.first_clip,
    TrackRow.n_clips,
)


@dataclass(frozen=True)
class StoredShard:
    """The row of a shard.

    Parameters
    ----------
    name : str
    n_segments, n_clips : int
        Vectors in it, including those of deleted tracks.
    """

    name: str
    n_segments: int
    n_clips: int


class Store:
    """An open database of the current schema; any number of threads may use it.

    All methods raise :class:`~engine.errors.StoreError` if the database cannot be reached. Methods
    that write raise :class:`~engine.errors.CatalogBusyError` if another writer does not finish.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._reader = engine.execution_options(**_READING[engine.dialect.name])
        self._writer = engine.execution_options(writing=True)

    @classmethod
    def open(cls, database: str | Path) -> Store:
        """Open an existing database of the current schema.

        Parameters
        ----------
        database : str or Path
            An SQLAlchemy URL (SQLite file or PostgreSQL), or the path of an SQLite file.

        Raises
        ------
        StoreError
            The database does not exist or cannot be reached.
        SchemaError
            Its schema is older, newer or missing.
        """
        engine = connect(database)
        if engine.dialect.name == "sqlite" and not Path(engine.url.database or "").is_file():
            raise StoreError(f"{printable(engine.url.database)}: no such database")
        with translated(engine), engine.connect() as connection:
            found = schema(connection)
        if found != SCHEMA_HEAD:
            engine.dispose()
            raise SchemaError(found, SCHEMA_HEAD)
        return cls(engine)

    @property
    def keys(self) -> Keys:
        """The keys of the service."""
        return Keys(self._engine)

    @property
    def jobs(self) -> Jobs:
        """The jobs of the service."""
        return Jobs(self._engine)

    def copy_to(self, path: Path) -> None:
        """Copy the database as it is at one moment to an SQLite file, or replace the one there.

        Raises
        ------
        StoreError
            The database is on a server, or the file cannot be written.
        """
        copy_file(self._engine, path)

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    # -- settings ----------------------------------------------------------------------------

    def version(self) -> int:
        """Return the number of changes so far; readers compare it to detect a change."""
        with self._reading() as connection:
            query = sa.select(SettingRow.value).where(SettingRow.key == _CHANGES)
            value = connection.scalar(query) or ""
            if not value.isdecimal():
                raise InvalidRowError(f"settings: invalid {_CHANGES}={value!r}: must be a count")
            return int(value)

    def settings(self) -> dict[str, str]:
        """Read all settings; of these, segment_hop_s is a number."""
        with self._reading() as connection:
            rows = connection.execute(sa.select(SettingRow.key, SettingRow.value))
            settings = {key: value for key, value in rows if key not in _RESERVED}
            try:
                require_hop(settings.get(_HOP, IndexConfig.segment_hop_s))
            except ConfigError as error:
                raise InvalidRowError(f"settings: {error}") from error
            return settings

    def put_settings(self, settings: Mapping[str, str]) -> None:
        """Set some settings; others are unchanged."""
        if taken := settings.keys() & set(_RESERVED):
            raise ConfigError(min(taken), "reserved for the store")
        rows = [{"key": key, "value": value} for key, value in settings.items()]
        with self._writing() as connection:
            connection.execute(sa.delete(SettingRow).where(SettingRow.key.in_(list(settings))))
            queries.insert(connection, SettingRow, rows)

    # -- shards ------------------------------------------------------------------------------

    def shard_names(self) -> list[str]:
        """Return the names of all shards, oldest first."""
        with self._reading() as connection:
            return list(connection.scalars(sa.select(ShardRow.name).order_by(ShardRow.id)))

    def shards(self) -> list[StoredShard]:
        """Read all shards, oldest first."""
        columns = ShardRow.name, ShardRow.n_segments, ShardRow.n_clips
        with self._reading() as connection:
            rows = connection.execute(sa.select(*columns).order_by(ShardRow.id))
            return [StoredShard(*row) for row in rows]

    def recount(self, shard: StoredShard) -> None:
        """Correct the counts of a shard, if it exists."""
        counts = {"n_segments": shard.n_segments, "n_clips": shard.n_clips}
        with self._writing() as connection:
            change = sa.update(ShardRow).where(ShardRow.name == shard.name)
            connection.execute(change.values(**counts))

    def add_shard(
        self,
        shard: WrittenShard,
        tracks: Sequence[NewTrack],
        *,
        replacing: Iterable[int] = (),
    ) -> list[int]:
        """Make a shard and its tracks visible, all or nothing.

        Parameters
        ----------
        shard : WrittenShard
        tracks : sequence of NewTrack, not empty
            One for each recording in the shard, in the order of its rows.
        replacing : iterable of int
            Ids of tracks to delete in the same transaction, such as older contents of the same
            paths.

        Returns
        -------
        list of int
            The new tracks' ids, in the order of `tracks`.

        Raises
        ------
        DuplicateTrackError
            The catalog already contains one of the content hashes.
        TrackNotFoundError
            A track to replace does not exist.
        StoreError
            A path belongs to another track, or two of `tracks` share a path or a content hash.
        """
        if not tracks:
            raise StoreError(f"shard {shard.name} has no tracks")
        with self._writing() as connection:
            queries.delete_tracks(connection, replacing)
            queries.refuse_duplicates(connection, [track.content_hash for track in tracks])
            queries.refuse_taken(connection, [track.path for track in tracks])
            shard_id = queries.insert_shard(connection, shard)
            return queries.insert_tracks(connection, shard_id, shard.rows, tracks)

    def move_tracks(
        self, shard: WrittenShard, track_ids: Sequence[int], *, dropping: Sequence[str] = ()
    ) -> None:
        """Move tracks to a new shard and delete the rows of old ones, all or nothing.

        A track deleted since the new shard was written stays deleted.

        Parameters
        ----------
        shard : WrittenShard
        track_ids : sequence of int
            The track of each recording in the shard, in the order of its rows.
        dropping : sequence of str
            Names of the shards to delete; no track may be left in them.

        Raises
        ------
        StoreError
            A shard of `dropping` does not exist, or has a track that is not moved.
        """
        with self._writing() as connection:
            shard_id = queries.insert_shard(connection, shard)
            queries.move_tracks(connection, shard_id, shard.placements(track_ids))
            queries.delete_shards(connection, dropping)

    def delete_shards(self, names: Sequence[str], *, superseded: bool = True) -> None:
        """Delete the rows of shards, all or none.

        Parameters
        ----------
        names : sequence of str
        superseded : bool
            Whether their files may be deleted too; see :meth:`superseded_shards`.

        Raises
        ------
        StoreError
            One of them does not exist, or has tracks.
        """
        with self._writing() as connection:
            queries.delete_shards(connection, names, superseded=superseded)

    def superseded_shards(self) -> list[str]:
        """Return the names of shards that a transaction replaced, whose files may be deleted."""
        with self._reading() as connection:
            return queries.superseded_names(connection)

    def remove_superseded(self, names: Sequence[str]) -> None:
        """Remove names of shards whose files are deleted from :meth:`superseded_shards`."""
        if names:
            with self._writing() as connection:
                left = [
                    one for one in queries.superseded_names(connection) if one not in set(names)
                ]
                queries.put_superseded(connection, left)

    def placements(self) -> list[Placement]:
        """Read the placements of all tracks, by shard and row."""
        query = (
            sa.select(*_PLACEMENT_COLUMNS)
            .join(ShardRow, ShardRow.id == TrackRow.shard_id)
            .order_by(TrackRow.shard_id, TrackRow.first_row)
        )
        with self._reading() as connection:
            rows = connection.execute(query)
            names = tuple(rows.keys())
            # Twice as fast as rows as mappings; there may be a hundred thousand.
            return [Placement(**dict(zip(names, row, strict=True))) for row in rows]

    def dangling_tracks(self) -> list[int]:
        """Return the ids of tracks whose shard has no row; a sound database has none."""
        # NOT IN would find none if a shard's id were null.
        query = sa.select(TrackRow.id).where(~sa.exists().where(ShardRow.id == TrackRow.shard_id))
        with self._reading() as connection:
            return list(connection.scalars(query.order_by(TrackRow.id)))

    # -- tracks ------------------------------------------------------------------------------

    def track(self, key: int | str) -> Track:
        """Read a track by id or path; TrackNotFoundError if there is none."""
        if not _is_possible(key):
            raise TrackNotFoundError(key)
        condition = TrackRow.path == key if isinstance(key, str) else TrackRow.id == key
        with self._reading() as connection:
            found = queries.tracks_where(connection, condition)
        if not found:
            raise TrackNotFoundError(key)
        return found[0]

    def tracks(self, ids: Iterable[int] | None = None) -> list[Track]:
        """Read all tracks, or those of some ids that exist, ordered by id."""
        with self._reading() as connection:
            if ids is None:
                return queries.tracks_where(connection, sa.true())
            return queries.tracks_among(connection, TrackRow.id, {int(i) for i in ids})

    def page(self, words: Sequence[str], after_id: int, max_tracks: int | None) -> list[Track]:
        """Read the tracks in whose tags or path some words occur, ordered by id.

        Parameters
        ----------
        words : sequence of str
            Each occurs in the title, artist, album or path, in upper or lower case.
        after_id : int
            Only tracks with a greater id.
        max_tracks : int or None
        """
        if after_id >= LARGEST_ID:
            return []
        condition = sa.and_(TrackRow.id > after_id, *map(queries.has_word, words))
        chosen = sa.select(TrackRow.id).where(condition).order_by(TrackRow.id).limit(max_tracks)
        with self._reading() as connection:
            return queries.tracks_among(connection, TrackRow.id, list(connection.scalars(chosen)))

    def find(self, keys: Iterable[int | str]) -> list[Track]:
        """Read tracks by ids and paths, each once and in the order of `keys`.

        Raises
        ------
        TrackNotFoundError
            Names all keys without a track.
        """
        unique = list(dict.fromkeys(keys))
        possible = [key for key in unique if _is_possible(key)]
        ids = {key for key in possible if isinstance(key, int)}
        paths = {key for key in possible if isinstance(key, str)}
        found: dict[int | str, Track] = {}
        with self._reading() as connection:
            for track in queries.tracks_among(connection, TrackRow.id, ids):
                found[track.id] = track
            for track in queries.tracks_among(connection, TrackRow.path, paths):
                found[track.path] = track
        if missing := [key for key in unique if key not in found]:
            raise TrackNotFoundError(*missing)
        return list({found[key].id: found[key] for key in unique}.values())

    def new_tracks(self, ids: Sequence[int]) -> dict[int, NewTrack]:
        """Read tracks as records to add again, by id; unknown ids are left out."""
        with self._reading() as connection:
            return queries.new_tracks(connection, ids)

    def known_hashes(self, hashes: Sequence[str]) -> set[str]:
        """Return those of some content hashes that the catalog contains."""
        with self._reading() as connection:
            return queries.among(connection, TrackRow.content_hash, hashes)

    def taken_paths(self, paths: Sequence[str]) -> set[str]:
        """Return those of some paths that belong to a track."""
        with self._reading() as connection:
            return queries.among(connection, TrackRow.path, paths)

    def known_files(self) -> dict[str, tuple[int, int, int]]:
        """Read track id, size in bytes and time of change in ns of each file, by path."""
        with self._reading() as connection:
            rows = connection.execute(
                sa.select(TrackRow.path, TrackRow.id, TrackRow.n_bytes, TrackRow.modified_ns)
            )
            return {path: (track, n_bytes, at_ns) for path, track, n_bytes, at_ns in rows}

    def id_by_hash(self, *hashes: str) -> int | None:
        """Return the id of the track with the first of some content hashes that has one."""
        query = sa.select(TrackRow.content_hash, TrackRow.id)
        with self._reading() as connection:
            rows = connection.execute(query.where(TrackRow.content_hash.in_(hashes)))
            found = {content_hash: track_id for content_hash, track_id in rows}
        return next((found[one] for one in hashes if one in found), None)

    def update_file(
        self,
        track_id: int,
        *,
        n_bytes: int,
        modified_ns: int,
        path: str | None = None,
        content_hash: str | None = None,
        tags: Tags | None = None,
    ) -> None:
        """Update the file of a track that was touched, tagged or moved with the same sound.

        Parameters
        ----------
        track_id : int
        n_bytes, modified_ns : int
        path : str, optional
        content_hash : str, optional
            Replaces the hash of an older catalog, unless another track has it.
        tags : Tags, optional
            Those of the file. They replace the stored ones, except those that the user set; a
            stored tag that the file lacks is kept.

        Raises
        ------
        TrackNotFoundError
        StoreError
            `path` belongs to another track.
        """
        values = {"n_bytes": n_bytes, "modified_ns": modified_ns}
        with self._writing() as connection:
            queries.update_track(
                connection, track_id, {**values, **({"path": path} if path else {})}
            )
            if tags and content_hash:
                queries.adopt_hash(connection, track_id, content_hash, tags)
            if tags:
                queries.refresh_tags(connection, track_id, tags)

    def move_files(self, paths: Mapping[int, str], *, replacing: Iterable[int] = ()) -> None:
        """Change the paths of tracks whose files were renamed, all or none; they may be swapped.

        Parameters
        ----------
        paths : mapping
            The new path of each track by its id.
        replacing : iterable of int
            Ids of tracks to delete, whose files the renamed ones replaced.

        Raises
        ------
        TrackNotFoundError
        StoreError
            A path belongs to a track that is neither moved nor replaced.
        """
        with self._writing() as connection:
            queries.delete_tracks(connection, replacing)
            for track_id in paths:
                queries.update_track(connection, track_id, {"path": f"track {track_id} moves"})
            for track_id, path in paths.items():
                queries.update_track(connection, track_id, {"path": path})

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
        """Change some fields of a track; others are unchanged.

        Parameters
        ----------
        track_id : int
        title, artist, album, isrc : str, optional
            Empty text removes the value. Tags of the file do not replace it later.
        path : str, optional
        metadata : mapping, optional
            Keys to set; a key with an empty value is removed.

        Raises
        ------
        ConfigError
            A key is reserved, or no file can have the path.
        TrackNotFoundError
        StoreError
            `path` belongs to another track.
        """
        tags = {"title": title, "artist": artist, "album": album, "isrc": isrc}
        values = {key: queries.clean(value) for key, value in tags.items() if value is not None}
        names = list(values)
        if path:
            if not is_path(path):
                raise ConfigError.invalid("path", path, "must be that of a file")
            values["path"] = path
        require_free_keys(metadata or {})
        with self._writing() as connection:
            queries.update_track(connection, track_id, values)
            queries.add_user_tags(connection, track_id, names)
            queries.put_metadata(connection, track_id, metadata or {})

    def delete(self, ids: Iterable[int]) -> int:
        """Delete tracks, all or none; their vectors are no longer searched.

        Returns
        -------
        int
            Number of tracks deleted.

        Raises
        ------
        TrackNotFoundError
            One of the ids does not exist.
        """
        with self._writing() as connection:
            return queries.delete_tracks(connection, ids)

    def stats(self) -> Stats:
        """Count tracks, shards and segments."""
        tracks = sa.select(
            sa.func.count().label("n_tracks"),
            sa.func.coalesce(sa.func.sum(TrackRow.duration_s), 0.0).label("duration_s"),
            queries.total(TrackRow.n_segments).label("n_segments"),
        ).select_from(TrackRow)
        shards = sa.select(
            sa.func.count().label("n_shards"),
            queries.total(ShardRow.n_segments).label("n_stored_segments"),
            queries.total(ShardRow.n_bytes).label("n_bytes"),
        ).select_from(ShardRow)
        with self._reading() as connection:
            row = connection.execute(tracks).mappings().one()
            return Stats(**row, **connection.execute(shards).mappings().one())

    # -- writing -----------------------------------------------------------------------------

    def write_lock(self) -> AbstractContextManager[None]:
        """Hold the right to write shards, which one process at a time has.

        Methods that change the database in one transaction do not need it.

        Raises
        ------
        CatalogBusyError
            Another process, or another thread, is writing; raised at once.
        """
        return write_lock(self._engine)

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


def _is_possible(key: int | str) -> bool:
    """Return whether a database can hold this id or path at all."""
    return is_path(key) if isinstance(key, str) else 0 < key <= LARGEST_ID
