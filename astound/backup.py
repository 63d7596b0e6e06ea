"""Copies of catalogs that other processes may use and change meanwhile.

Shards never change, so that a copy consists of the database at one moment and the shards that it
names. A later backup to the same folder copies what is new.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import filelock

from astound.storage import (
    DATABASE_FILE,
    RECORDINGS,
    SETTINGS_FILE,
    CatalogStorage,
    local_shards,
)
from engine.errors import CatalogBusyError, ConfigError, StoreError
from engine.files import atomic_write
from engine.search.calibration import SHIPPED_CALIBRATION
from engine.store.store import Store

MARKER_FILE = "backup.json"
"""File of a backup that names the catalog it is of."""

_LOCK_FILE = "backup.lock"
_N_ATTEMPTS = 10  # while compactions delete the shards that are being copied


@dataclass(frozen=True, kw_only=True)
class BackupReport:
    """What a backup copied.

    Parameters
    ----------
    n_tracks, n_shards : int
        In the backup.
    n_copied : int
        Shards that were not in it before.
    n_recordings : int
        Uploaded recordings that were not in it before.
    n_bytes : int
        Size of both.
    """

    n_tracks: int
    n_shards: int
    n_copied: int
    n_recordings: int
    n_bytes: int


class Backup:
    """One backup of a catalog.

    Parameters
    ----------
    storage : CatalogStorage
    folder : Path
        A new or empty folder, or an earlier backup of the catalog.
    on_progress : callable
        Called with the number of shards copied and in total.
    """

    def __init__(
        self, storage: CatalogStorage, folder: Path, on_progress: Callable[[int, int], None]
    ) -> None:
        self._storage, self._folder, self._on_progress = storage, folder, on_progress
        self._shards = local_shards(folder)
        self._n_copied = self._n_recordings = self._n_bytes = 0

    def run(self) -> BackupReport:
        """Copy what is new; an interrupted run leaves the earlier backup, and can be repeated.

        Raises
        ------
        ConfigError
            The folder contains something else.
        StoreError
            The database is on a server, or cannot be copied.
        CatalogBusyError
            Another backup writes to the folder, or compactions do not end.
        """
        self._require_own_folder()
        self._folder.mkdir(parents=True, exist_ok=True)
        try:
            with filelock.FileLock(self._folder / _LOCK_FILE, timeout=0):
                return self._run()
        except filelock.Timeout as error:
            raise CatalogBusyError(f"{self._folder}: another backup writes to it") from error

    def _require_own_folder(self) -> None:
        source, marker = str(self._storage.folder.absolute()), self._folder / MARKER_FILE
        of = None
        with suppress(OSError, ValueError, KeyError, TypeError):
            of = json.loads(marker.read_text("utf-8"))["of"]
        there = {path.name for path in self._folder.iterdir()} if self._folder.exists() else set()
        is_own = of == source and not self._folder.samefile(source)
        if there - {_LOCK_FILE} and not is_own:
            reason = f"a backup of {of}" if of else "not a backup, and not empty"
            raise ConfigError(str(self._folder), f"{reason}; choose another folder")

    def _run(self) -> BackupReport:
        with atomic_write(self._folder / MARKER_FILE) as marker:
            marker.write_text(json.dumps({"of": str(self._storage.folder.absolute())}), "utf-8")
        with (
            TemporaryDirectory(dir=self._folder, prefix=".partial-") as partial,
            self._copied_database(Path(partial) / DATABASE_FILE) as copy,
        ):
            copy.jobs.cancel_all()  # a restored catalog must not execute them again
            copy.copy_to(self._folder / DATABASE_FILE)
            names, stats = copy.shard_names(), copy.stats()
        self._copy_files()
        self._copy_recordings()
        # Only now, because the earlier backup needs them until the database is replaced.
        for name in set(self._shards.names()) - set(names):
            shutil.rmtree(self._shards.folder / name)
        return BackupReport(
            n_tracks=stats.n_tracks,
            n_shards=len(names),
            n_copied=self._n_copied,
            n_recordings=self._n_recordings,
            n_bytes=self._n_bytes,
        )

    def _copy_files(self) -> None:
        source = self._storage.folder
        for name in (SETTINGS_FILE, SHIPPED_CALIBRATION.name):
            if (source / name).is_file():
                with atomic_write(self._folder / name) as partial:
                    shutil.copyfile(source / name, partial)
            else:
                (self._folder / name).unlink(missing_ok=True)

    def _copy_recordings(self) -> None:
        """Copy the recordings that were uploaded, and delete those that are gone."""
        source, target = self._storage.folder / RECORDINGS, self._folder / RECORDINGS
        there = {path.relative_to(target): path for path in target.glob("*/*")}
        for path in sorted(source.glob("*/*")):
            name = path.relative_to(source)
            earlier = there.pop(name, None)
            if earlier is None or _state(earlier) != _state(path):
                self._copy_recording(path, target / name)
        for path in there.values():
            path.unlink()
            with suppress(OSError):  # others are left
                path.parent.rmdir()

    def _copy_recording(self, source: Path, target: Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError), atomic_write(target) as partial:  # if deleted meanwhile
            shutil.copy2(source, partial)
            self._n_bytes += partial.stat().st_size
            self._n_recordings += 1

    def _copied_database(self, path: Path) -> Store:
        """Copy the database as it is at one moment, and all shards that it names."""
        missing: FileNotFoundError | None = None
        for _ in range(_N_ATTEMPTS):
            path.unlink(missing_ok=True)
            self._storage.store.copy_to(path)
            copy = Store.open(path)
            try:
                self._copy_shards(copy.shard_names())
                return copy
            except FileNotFoundError as error:
                copy.close()
                missing = error  # a compaction has replaced the shard, or it is lost
        where = missing.filename if missing else ""
        reason = f"a shard is missing ({where}); see `astound verify`"
        raise StoreError(f"{self._storage.folder}: {reason}") from missing

    def _copy_shards(self, names: list[str]) -> None:
        there = set(self._shards.names())
        for number, name in enumerate(names, 1):
            if name not in there:
                self._copy_shard(name)
            self._on_progress(number, len(names))

    def _copy_shard(self, name: str) -> None:
        source = self._storage.shards.path(name)
        with self._shards.write(name) as partial:
            for file in source.iterdir():
                shutil.copyfile(file, partial / file.name)
            # Its files are deleted after its row, so that none was missing before.
            if name not in self._storage.store.shard_names():
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(source))
            self._n_bytes += sum(file.stat().st_size for file in partial.iterdir())
        self._n_copied += 1


def _state(path: Path) -> tuple[int, int]:
    """Return what differs if a file has changed, as far as its folder can tell."""
    state = path.stat()
    return state.st_size, state.st_mtime_ns
