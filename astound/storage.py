"""Where a catalog is stored: settings file, database, shards, recipe and the current index."""

from __future__ import annotations

import json
import os
import threading
import tomllib
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from astound.migrate import ensure_schema
from engine.config import IndexConfig
from engine.errors import ConfigError, RecipeMismatchError, ShardError, StoreError
from engine.files import atomic_write, is_path
from engine.records import Track
from engine.store.store import Store
from engine.vectors.storage import LocalStorage

if TYPE_CHECKING:
    from engine.protocol import AudioFingerprinter
    from engine.vectors.gpu import Gpu
    from engine.vectors.index import Index
    from indexer.sources import CatalogSource

SETTINGS_FILE = "astound.toml"
DATABASE_FILE = "catalog.db"
RECORDINGS = "recordings"
"""Folder of the files of tracks that were uploaded to a service, in that of the catalog."""

_N_ATTEMPTS = 3  # to open the index while other processes write


class CatalogStorage:
    """The folder of a catalog with its open database and its shards.

    Parameters
    ----------
    folder : Path
    store : Store

    Attributes
    ----------
    shards : LocalStorage
    """

    def __init__(self, folder: Path, store: Store) -> None:
        self.folder, self.store, self.shards = folder, store, local_shards(folder)
        self._index: tuple[int, Index] | None = None
        self._opening = threading.Lock()

    @classmethod
    def open(cls, folder: Path, *, create: bool, database: str | None) -> CatalogStorage:
        """Open a catalog's folder and database, and migrate an older database.

        Parameters
        ----------
        folder : Path
        create : bool
            Create the catalog if it does not exist.
        database : str, optional
            SQLAlchemy URL of the database of a new catalog; a SQLite file by default.

        Raises
        ------
        StoreError
            The catalog does not exist, cannot be created, or its database cannot be opened.
        ConfigError
            The settings are damaged, or name another database.
        """
        _require_server(database or "")
        settings = folder / SETTINGS_FILE
        is_new = not settings.is_file()
        if is_new and not create:
            raise StoreError(
                f"{folder.absolute()}: no catalog here; create one with `astound add`, "
                "or name another folder with --catalog"
            )
        location = database or folder / DATABASE_FILE if is_new else read_settings(settings)
        if database is not None and location != database:
            raise ConfigError("database", f"{folder} already has another database")
        if not is_new and isinstance(location, Path) and not location.is_file():
            raise StoreError(f"{location}: database is missing; restore it from a backup")
        if isinstance(location, Path):
            _create_folder(folder)
        ensure_schema(location)
        store = Store.open(location)
        if is_new:  # only now, because a database that cannot be reached must not be recorded
            _create_folder(folder)
            _write_settings(settings, database)
        return cls(folder, store)

    def close(self) -> None:
        """Close the database."""
        self.store.close()

    # -- recipe ------------------------------------------------------------------------------

    @property
    def recipe_id(self) -> str | None:
        """Id of the recipe of the stored fingerprints; None in a catalog without any."""
        return self.store.settings().get("recipe_id")

    @property
    def segment_hop_s(self) -> float:
        """Distance between the starts of two stored segments, in seconds."""
        stored = self.store.settings().get("segment_hop_s")
        return float(stored) if stored else IndexConfig().segment_hop_s

    def require_recipe(self, recipe_id: str) -> None:
        """Raise RecipeMismatchError if the stored fingerprints have another recipe."""
        stored = self.recipe_id
        if stored is not None and stored != recipe_id:
            raise RecipeMismatchError(recipe_id, stored, f"catalog {self.folder}")

    def store_recipe(self, fingerprinter: AudioFingerprinter) -> None:
        """Store the recipe of a fingerprinter if the catalog is empty.

        Raises
        ------
        StoreError
            The database is empty, but there are shards.
        """
        if self.recipe_id is None:
            self.require_database()
            self.store.put_settings(
                {
                    "recipe_id": fingerprinter.recipe_id,
                    "recipe": json.dumps(fingerprinter.metadata()),
                    "segment_hop_s": str(IndexConfig().segment_hop_s),
                }
            )

    def require_database(self) -> None:
        """Raise StoreError if the database was lost: writing would set its shards aside."""
        if self.recipe_id is None and (self.shards.names() or self.shards.lost()):
            raise StoreError(
                f"{self.folder}: database is empty, but there are shards; restore the database "
                "from a backup or the tracks with `astound verify --repair`, or use another folder"
            )

    # -- tracks ------------------------------------------------------------------------------

    def find(self, keys: Iterable[int | str]) -> list[Track]:
        """Read tracks by ids and paths, each once and in the order of `keys`.

        A path finds the track of its file, whichever symbolic links lead to it.

        Raises
        ------
        TrackNotFoundError
            Names all keys without a track.
        """
        absolute = [key if isinstance(key, int) else os.path.abspath(key) for key in keys]
        paths = [key for key in absolute if isinstance(key, str) and is_path(key)]
        linked = self._linked(set(paths) - self.store.taken_paths(paths))
        return self.store.find(
            linked.get(key, key) if isinstance(key, str) else key for key in absolute
        )

    def _linked(self, paths: Collection[str]) -> dict[str, str]:
        """Find the paths that the store has of the files that some other paths lead to."""
        if not paths:
            return {}
        real = {path: os.path.realpath(path) for path in paths}
        stored = real_paths(self.store.known_files())
        return {path: stored[target] for path, target in real.items() if target in stored}

    # -- shards ------------------------------------------------------------------------------

    def current_index(self, recipe_id: str, gpu: Gpu | None) -> Index:
        """Return the index of all current tracks, opened again if a process has changed them.

        Raises
        ------
        ShardError
            A shard is missing or damaged.
        """
        from engine.vectors.index import Index

        with self._opening:  # of several threads one opens the index, and the others wait
            for n_left in reversed(range(_N_ATTEMPTS)):
                version = self.store.version()
                if self._index is not None and self._index[0] == version:
                    break
                placements = self.store.placements()
                try:
                    self._index = version, Index(self.shards, placements, recipe_id, gpu)
                    break
                except ShardError:  # a compaction may have replaced the shard meanwhile
                    if not n_left or self.store.version() == version:
                        raise
            assert self._index is not None
            return self._index[1]

    def source(self, track_ids: Collection[int] | None = None) -> CatalogSource:
        """Return a reader of the fingerprints and metadata of some tracks, or of all."""
        from indexer.sources import CatalogSource

        return CatalogSource(f"catalog {self.folder}", self.store, self.shards, track_ids)


def real_paths(paths: Iterable[str]) -> dict[str, str]:
    """Map the paths without symbolic links of some files, which need not exist, to their paths."""
    folders: dict[str, str] = {}  # resolved once: most files share theirs with others
    found = {}
    for path in paths:
        folder, name = os.path.split(path)
        if folder not in folders:
            folders[folder] = os.path.realpath(folder)
        real = os.path.join(folders[folder], name)
        found[os.path.realpath(real) if os.path.islink(real) else real] = path
    return found


def local_shards(folder: Path) -> LocalStorage:
    """Return the storage of the shards in a catalog's folder."""
    return LocalStorage(folder / "shards")


# -- settings file ---------------------------------------------------------------------------


def read_settings(settings: Path) -> str | Path:
    """Read the location of the database: a Postgres URL or the path of a SQLite file.

    Raises
    ------
    ConfigError
        The file is damaged or contains an unknown setting.
    """
    try:
        values = tomllib.loads(settings.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(str(settings), f"cannot be read ({error})") from error
    for key in values:
        if key != "database":
            raise ConfigError(f"{settings}: {key}", "unknown setting; the only one is database")
    database = values.get("database", "")
    if not isinstance(database, str):
        raise ConfigError.invalid(f"database in {settings}", database, "must be text")
    _require_server(database)
    return database or settings.parent / DATABASE_FILE


def _require_server(database: str) -> None:
    """Refuse a SQLite URL, whose file would be another than the one beside the shards."""
    if database.lower().startswith("sqlite"):
        raise ConfigError.invalid(
            "database", database, "must be a Postgres URL, or empty for catalog.db in the catalog"
        )


def _write_settings(path: Path, database: str | None) -> None:
    quoted = (database or "").replace("\\", "\\\\").replace('"', '\\"')
    try:
        with atomic_write(path) as partial:
            partial.write_text(
                "# `database` is a Postgres URL, or empty for catalog.db beside this file.\n"
                f'database = "{quoted}"\n'
            )
    except OSError as error:
        raise _cannot_create(path.parent, error) from error


def _create_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _cannot_create(folder, error) from error


def _cannot_create(folder: Path, error: OSError) -> StoreError:
    return StoreError(f"{folder}: cannot create a catalog ({error.strerror})")
