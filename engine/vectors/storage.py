"""Where the shards of a catalog are kept: each is a folder of files that never change."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol

from engine.files import sync

PARTIAL_PREFIX = ".partial-"
"""First characters of the name of a shard that is not complete."""


class ShardStorage(Protocol):
    """A place that keeps shards by name."""

    def path(self, name: str) -> Path:
        """Return a local folder with the files of a shard, which may not exist."""

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
            ends without an error; otherwise :meth:`sweep` deletes them.
        """

    def delete(self, name: str) -> None:
        """Delete the files of a shard."""

    def sweep(self, known: Collection[str]) -> list[str]:
        """Delete every shard that is not known to the database, such as after a crash.

        Returns
        -------
        list of str
            Names of the deleted shards.
        """


class LocalStorage:
    """Shards in a local folder.

    A new shard is written under a temporary name, synced to disk and renamed.

    Parameters
    ----------
    folder : Path
        It is made with the first shard.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, name: str) -> Path:
        """Return the folder of a shard, which may not exist."""
        return self.folder / name

    def exists(self) -> bool:
        """Return whether the folder is there."""
        return self.folder.is_dir()

    def names(self) -> list[str]:
        """List all shards, complete or not."""
        if not self.exists():
            return []
        return sorted(entry.name for entry in self.folder.iterdir() if entry.is_dir())

    @contextmanager
    def create(self) -> Iterator[tuple[str, Path]]:
        """Write a new shard; see :meth:`ShardStorage.create`."""
        name = uuid.uuid4().hex
        partial = self.path(f"{PARTIAL_PREFIX}{name}")
        partial.mkdir(parents=True)
        yield name, partial
        for path in (*partial.iterdir(), partial):
            sync(path)
        partial.rename(self.path(name))
        sync(self.folder)

    def delete(self, name: str) -> None:
        """Delete the folder of a shard."""
        shutil.rmtree(self.path(name))

    def sweep(self, known: Collection[str]) -> list[str]:
        """Delete every shard that is not known to the database; see :meth:`ShardStorage.sweep`."""
        orphans = [name for name in self.names() if name not in known]
        for orphan in orphans:
            self.delete(orphan)
        return orphans
