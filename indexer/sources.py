"""Where tracks come from when their audio is not at hand: fingerprints, batch by batch."""

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
"""Segments in one batch, unless a single track has more: what bounds memory."""

SETTINGS = ("recipe_id", "recipe", "segment_hop_s")
"""What a catalog notes about how all its fingerprints were made."""


OnProgress = Callable[[int, int], None]
"""Told how much is done, and how much there is."""


class Batch(Protocol):
    """Tracks whose fingerprints lie together."""

    @property
    def tracks(self) -> Sequence[NewTrack]:
        """What is known of each."""

    def read(self, number: int) -> StoredVectors:
        """Read the vectors of ``tracks[number]``."""


class TrackSource(Protocol):
    """Tracks with their fingerprints, all of one recipe and hop."""

    @property
    def name(self) -> str:
        """What messages call it."""

    @property
    def settings(self) -> Mapping[str, str]:
        """A value for each of SETTINGS; empty when there is no track."""

    @property
    def n_tracks(self) -> int:
        """How many there are."""

    def batches(self) -> Iterator[Batch]:
        """Yield all tracks, a bounded part at a time."""


class CatalogSource:
    """The tracks of a catalog; other processes may write to it meanwhile.

    Parameters
    ----------
    name : str
        What messages call it.
    store : Store
    shards : ShardStorage
    ids : collection of int, optional
        The tracks to give; all by default.
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
        """Yield all tracks, shard by shard; ShardError when a shard is missing or damaged."""
        given: set[int] = set()
        while True:
            version = self._store.version()
            try:
                for ids, batch in self._others(given):
                    yield batch
                    given.update(ids)
                return
            except ShardError:  # a compaction may have moved its tracks to another
                if self._store.version() == version:
                    raise

    def _others(self, given: Collection[int]) -> Iterator[tuple[list[int], Batch]]:
        wanted = [
            one
            for one in self._store.placements()
            if one.track_id not in given and (self._ids is None or one.track_id in self._ids)
        ]
        for _, group in groupby(wanted, key=lambda one: one.shard):
            placements = list(group)
            index = Index(self._shards, placements, self.settings["recipe_id"])
            for portion in _portions(placements):
                ids = [one.track_id for one in portion]
                yield ids, self._batch(index, portion)

    def _batch(self, index: Index, placements: Sequence[Placement]) -> Batch:
        known = self._store.new_tracks([one.track_id for one in placements])
        alive = [one for one in placements if one.track_id in known]
        # The counts of the rows that will be read, should these have changed since.
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


def _portions(placements: Sequence[Placement]) -> Iterator[list[Placement]]:
    portion: list[Placement] = []
    n_segments = 0
    for one in placements:
        if portion and n_segments + one.n_segments > MAX_SEGMENTS:
            yield portion
            portion, n_segments = [], 0
        portion.append(one)
        n_segments += one.n_segments
    yield portion
