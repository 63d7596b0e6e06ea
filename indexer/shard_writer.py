"""Fingerprints to a committed shard: files first, then the transaction that makes them visible."""

from __future__ import annotations

import time

from engine.config import IngestConfig
from engine.records import NewTrack, StoredVectors
from engine.store.store import Store
from engine.vectors.shard import write_shard
from engine.vectors.storage import ShardStorage


class ShardWriter:
    """Collects fingerprints and commits them together.

    Parameters
    ----------
    store : Store
    shards : ShardStorage
    config : IngestConfig
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
            The track that had this path before the file changed.
        """
        self._pending.append((vectors, track))
        if replacing is not None:
            self._replacing.append(replacing)

    @property
    def due(self) -> bool:
        """Whether enough waits, or for long enough, to commit."""
        n_segments = sum(len(vectors.embeddings) for vectors, _ in self._pending)
        waited_s = time.monotonic() - self._committed_at
        return n_segments >= self._config.max_segments or waited_s >= self._config.commit_every_s

    def commit(self) -> list[tuple[str, int]]:
        """Write what waits as one shard and make it visible.

        Returns
        -------
        list of (str, int)
            Path and track id of each track that was added.
        """
        self._committed_at = time.monotonic()
        if not self._pending:
            return []
        tracks = [track for _, track in self._pending]
        written = write_shard(self._shards, (vectors for vectors, _ in self._pending))
        ids = self._store.add_shard(written, tracks, replacing=self._replacing)
        self._pending, self._replacing = [], []
        return list(zip((track.path for track in tracks), ids, strict=True))
