"""Fingerprints to a committed shard: files first, then the transaction that makes them visible."""

from __future__ import annotations

import time
from pathlib import Path

from engine.config import IngestConfig
from engine.records import Fingerprint, NewTrack
from engine.store.store import Store
from engine.vectors.shard import write_shard


class ShardBuilder:
    """Collects fingerprints and commits them together.

    Parameters
    ----------
    store : Store
    folder : Path
        The catalog's folder of shards.
    config : IngestConfig
    """

    def __init__(self, store: Store, folder: Path, config: IngestConfig) -> None:
        self._store, self._folder, self._config = store, folder, config
        self._pending: list[tuple[Fingerprint, NewTrack]] = []
        self._replacing: list[int] = []
        self._committed_at = time.monotonic()

    def add(self, fingerprint: Fingerprint, track: NewTrack, replacing: int | None = None) -> None:
        """Take a fingerprint in.

        Parameters
        ----------
        fingerprint : Fingerprint
        track : NewTrack
        replacing : int, optional
            The track that had this path before the file changed.
        """
        self._pending.append((fingerprint, track))
        if replacing is not None:
            self._replacing.append(replacing)

    @property
    def due(self) -> bool:
        """Whether enough waits, or for long enough, to commit."""
        n_segments = sum(len(fingerprint.embeddings) for fingerprint, _ in self._pending)
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
        fingerprints = [fingerprint for fingerprint, _ in self._pending]
        tracks = [track for _, track in self._pending]
        name, n_bytes = write_shard(self._folder, fingerprints)
        ids = self._store.add_shard(
            name, fingerprints[0].recipe_id, n_bytes, tracks, replacing=self._replacing
        )
        self._pending, self._replacing = [], []
        return list(zip((track.path for track in tracks), ids, strict=True))
