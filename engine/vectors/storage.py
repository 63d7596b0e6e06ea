"""Where the shards of a catalog are kept: each is a folder of files that never change."""

from __future__ import annotations

import re
import shutil
import uuid
from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol

from engine.errors import ShardError
from engine.files import sync

PARTIAL_PREFIX = ".partial-"
"""First characters of the name of a shard that is not complete."""

LOST_FOLDER = "lost+found"
"""Folder, among the shards, of shards that the database does not name."""

_NAME = re.compile(r"[0-9a-f]{32}")


class ShardStorage(Protocol):
    """A place that keeps shards by name."""

    @property
    def folder(self) -> Path:
        """Local folder with the shards, which may not exist."""

    def path(self, name: str) -> Path:
        """Return a local folder with the files of a shard, which may not exist.

        Raises
        ------
        ShardError
            The name is not that of a shard, or a symbolic link has it.
        """

    def exists(self) -> bool:
        """Return whether the place is there; a new one may not be before its first shard."""

    def names(self) -> list[str]:
        """List all shards, complete or not."""

    def create(self) -> AbstractContextManager[tuple[str, Path]]:
        """Write a new shard.

        Yields
        ------
        name : str
            Unique name of the shard.
        folder : Path
            Empty local folder to write the files to. They become the shard when the ``with`` block
            ends without an error, and are deleted otherwise.
        """

    def delete(self, name: str) -> None:
        """Delete the files of a shard."""

    def sweep(self, known: Collection[str], superseded: Collection[str] = ()) -> list[str]:
        """Delete incomplete and superseded shards; move other unknown ones to LOST_FOLDER.

        Parameters
        ----------
        known : collection of str
            Names of the shards in the database.
        superseded : collection of str
            Names of shards that a transaction of this database replaced.

        Returns
        -------
        list of str
            Names of the deleted and moved shards.
        """

    def lost(self) -> list[Path]:
        """List the folders of all shards in LOST_FOLDER."""

    def delete_lost(self, folder: Path) -> None:
        """Delete a shard in LOST_FOLDER."""


class LocalStorage:
    """Shards in a local folder.

    A new shard is written under a temporary name, synced to disk and renamed.

    Parameters
    ----------
    folder : Path
        It is made with the first shard.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @property
    def folder(self) -> Path:
        """Local folder with the shards, which may not exist."""
        return self._folder

    def path(self, name: str) -> Path:
        """Return the folder of a shard, which may not exist; see :meth:`ShardStorage.path`."""
        path = self.folder / name
        if not _NAME.fullmatch(name):
            raise ShardError(path, "name of a shard is not 32 hexadecimal digits")
        if path.is_symlink():
            raise ShardError(path, "is a symbolic link; replace it with the folder it leads to")
        return path

    def exists(self) -> bool:
        """Return whether the folder is there."""
        return self.folder.is_dir()

    def names(self) -> list[str]:
        """List all shards, complete or not."""
        if not self.exists():
            return []
        return sorted(path.name for path in _folders(self.folder) if path.name != LOST_FOLDER)

    @contextmanager
    def create(self) -> Iterator[tuple[str, Path]]:
        """Write a new shard; see :meth:`ShardStorage.create`."""
        name = uuid.uuid4().hex
        with self.write(name) as partial:
            yield name, partial

    @contextmanager
    def write(self, name: str) -> Iterator[Path]:
        """Write a shard with a given name; yield the folder to write to, as :meth:`create`."""
        partial = self.folder / f"{PARTIAL_PREFIX}{name}"
        shutil.rmtree(partial, ignore_errors=True)  # of a process that was killed
        try:
            partial.mkdir(parents=True)
            yield partial
            for path in (*partial.iterdir(), partial):
                sync(path)
            partial.rename(self.path(name))
        except BaseException:  # a full disk gets its room back
            shutil.rmtree(partial, ignore_errors=True)
            raise
        sync(self.folder)

    def delete(self, name: str) -> None:
        """Delete the folder of a shard."""
        shutil.rmtree(self.path(name))

    def sweep(self, known: Collection[str], superseded: Collection[str] = ()) -> list[str]:
        """Delete or move unknown shards; see :meth:`ShardStorage.sweep`."""
        unknown = [name for name in self.names() if name not in known]
        for name in unknown:
            path = self.folder / name
            if name.startswith(PARTIAL_PREFIX) or name in superseded or not any(path.iterdir()):
                shutil.rmtree(path)
            else:
                self._set_aside(name)
        return unknown

    def lost(self) -> list[Path]:
        """List the folders of all shards in LOST_FOLDER."""
        lost = self.folder / LOST_FOLDER
        return sorted(_folders(lost)) if lost.is_dir() and not lost.is_symlink() else []

    def delete_lost(self, folder: Path) -> None:
        """Delete a shard in LOST_FOLDER."""
        shutil.rmtree(self.folder / LOST_FOLDER / folder.name)

    def _set_aside(self, name: str) -> None:
        lost = self.folder / LOST_FOLDER
        lost.mkdir(exist_ok=True)
        target = lost / name
        if target.exists():  # a copy of it that was put back
            target = lost / f"{name}-{uuid.uuid4().hex}"
        (self.folder / name).rename(target)
        sync(lost)
        sync(self.folder)


def _folders(folder: Path) -> list[Path]:
    """List the folders in a folder, without symbolic links."""
    return [path for path in folder.iterdir() if path.is_dir() and not path.is_symlink()]
