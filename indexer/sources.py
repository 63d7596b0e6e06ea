"""Read the stored fingerprints of tracks, batch by batch, for a merge or an export."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Protocol

from engine.errors import ShardError
from engine.records import NewTrack, Placement, StoredVectors
from engine.store.store import Store
from engine.vectors.index import Index
from engine.vectors.storage import ShardStorage

MAX_SEGMENTS = 50_000
"""Segments in one batch, unless a single track has more; it bounds memory."""

SETTINGS = ("recipe_id", "recipe", "segment_hop_s")
"""Settings of a catalog that all its fingerprints share."""


OnProgress = Callable[[int, int], None]
"""Called with the number of items done and in total."""


class Batch(Protocol):
    """Some tracks of a source, and their vectors."""

    @property
    def tracks(self) -> Sequence[NewTrack]:
        """The tracks, with tags and metadata."""

    def read(self, number: int) -> StoredVectors:
        """Read the vectors of ``tracks[number]``."""


class TrackSource(Protocol):
    """Tracks with stored fingerprints, all of one recipe and hop."""

    @property
    def name(self) -> str:
        """Name of the source in messages."""

    @property
    def settings(self) -> Mapping[str, str]:
        """A value for each key of SETTINGS; empty if there are no tracks."""

    @property
    def n_tracks(self) -> int:
        """Number of tracks."""

    def batches(self) -> Iterator[Batch]:
        """Yield all tracks in batches of bounded size."""


class CatalogSource:
    """The tracks of a catalog, to which other processes may write at the same time.

    Parameters
    ----------
    name : str
        Name of the source in messages.
    store : Store
    shards : ShardStorage
    ids : collection of int, optional
        Tracks to read; all by default.
    """

    def __init__(
        self, name: str, store: Store, shards: ShardStorage, ids: Collection[int] | None = None
    ) -> None:
        self.name, self._store, self._shards = name, store, shards
        self._ids = None if ids is None else set(ids)
        stored = store.settings()
        self.settings = {key: stored[key] for key in SETTINGS if key in stored}
        self.n_tracks = store.stats().n_tracks if self._ids is None else len(self._ids)

    def batches(self) -> Iterator[Batch]:
        """Yield all tracks, shard by shard; ShardError if a shard is missing or damaged."""
        done: set[int] = set()
        while True:
            version = self._store.version()
            try:
                for ids, batch in self._remaining(done):
                    yield batch
                    done.update(ids)
                return
            except ShardError:  # a compaction may have moved its tracks to another
                if self._store.version() == version:
                    raise

    def _remaining(self, done: Collection[int]) -> Iterator[tuple[list[int], Batch]]:
        remaining = [
            placement
            for placement in self._store.placements()
            if placement.track_id not in done
            and (self._ids is None or placement.track_id in self._ids)
        ]
        for _, group in groupby(remaining, key=lambda placement: placement.shard):
            placements = list(group)
            index = Index(self._shards, placements, self.settings["recipe_id"])
            for part in _split(placements):
                ids = [placement.track_id for placement in part]
                yield ids, self._batch(index, part)

    def _batch(self, index: Index, placements: Sequence[Placement]) -> Batch:
        known = self._store.new_tracks([one.track_id for one in placements])
        alive = [one for one in placements if one.track_id in known]
        # The counts of the rows that are read, in case the track has been moved since.
        tracks = [
            replace(known[one.track_id], n_segments=one.n_segments, n_clips=one.n_clips)
            for one in alive
        ]
        return _IndexBatch(index, [one.track_id for one in alive], tracks, self.settings)


class _IndexBatch:
    def __init__(
        self,
        index: Index,
        ids: Sequence[int],
        tracks: Sequence[NewTrack],
        settings: Mapping[str, str],
    ) -> None:
        self.tracks, self._index, self._ids, self._settings = tracks, index, ids, settings

    def read(self, number: int) -> StoredVectors:
        track_id = self._ids[number]
        return StoredVectors(
            embeddings=self._index.vectors(track_id, 0, self.tracks[number].n_segments),
            clip_embeddings=self._index.clips(track_id),
            segment_hop_s=float(self._settings["segment_hop_s"]),
            recipe_id=self._settings["recipe_id"],
        )


def _split(placements: Sequence[Placement]) -> Iterator[list[Placement]]:
    part: list[Placement] = []
    n_segments = 0
    for placement in placements:
        if part and n_segments + placement.n_segments > MAX_SEGMENTS:
            yield part
            part, n_segments = [], 0
        part.append(placement)
        n_segments += placement.n_segments
    yield part
