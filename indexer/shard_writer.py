"""Write recordings as a shard and commit it: first the files, then the database."""

from __future__ import annotations

import time

from engine.config import IngestConfig
from engine.records import NewTrack, StoredVectors
from engine.store.store import Store
from engine.vectors.shard import write_shard
from engine.vectors.storage import ShardStorage


class ShardWriter:
    """Collects recordings and commits them together.

    Parameters
    ----------
    store : Store
    shards : ShardStorage
    config : IngestConfig
        When to commit.
    """

    def __init__(self, store: Store, shards: ShardStorage, config: IngestConfig) -> None:
        self._store, self._shards, self._config = store, shards, config
        self._pending: list[tuple[StoredVectors, NewTrack]] = []
        self._replacing: list[int] = []
        self._committed_at = time.monotonic()

    def add(self, vectors: StoredVectors, track: NewTrack, replacing: int | None = None) -> None:
        """Add a recording to the next shard.

        Parameters
        ----------
        vectors : StoredVectors
        track : NewTrack
        replacing : int, optional
            Id of the track that had this path before the file changed.
        """
        self._pending.append((vectors, track))
        if replacing is not None:
            self._replacing.append(replacing)

    @property
    def is_due(self) -> bool:
        """Whether enough segments are pending, or enough time has passed, to commit."""
        n_segments = sum(len(vectors.embeddings) for vectors, _ in self._pending)
        elapsed_s = time.monotonic() - self._committed_at
        return n_segments >= self._config.max_segments or elapsed_s >= self._config.commit_every_s

    def commit(self) -> list[tuple[str, int]]:
        """Write all pending recordings as one shard and make it visible.

        Returns
        -------
        list of (str, int)
            Path and id of each new track.
        """
        self._committed_at = time.monotonic()
        if not self._pending:
            return []
        tracks = [track for _, track in self._pending]
        written = write_shard(
            self._shards, (vectors for vectors, _ in self._pending), tracks=tracks
        )
        ids = self._store.add_shard(written, tracks, replacing=self._replacing)
        self._pending, self._replacing = [], []
        return list(zip((track.path for track in tracks), ids, strict=True))
