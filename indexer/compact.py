"""Small shards to large ones, without the vectors of deleted tracks.

Each new shard is on disk before one transaction moves its tracks there and forgets the old shards;
their files go last. Whatever stops it, the catalog is as it was or as it shall be, and the next
run goes on with the rest.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from engine.config import IndexConfig
from engine.errors import StoreError
from engine.records import Placement, StoredVectors, Vectors
from engine.store.store import Store
from engine.vectors import quantizer
from engine.vectors.gpu import Gpu
from engine.vectors.quantizer import Storage
from engine.vectors.shard import Shard, write_shard
from engine.vectors.storage import ShardStorage

# A quantizer is trained again when the catalog asks for so many times as many lists.
_OUTGROWN = 4
# Below this part of the largest size a shard takes in others.
_ROOM = 0.5

OnProgress = Callable[[int, int], None]
"""Told the segments written so far, and how many there will be."""


@dataclass(frozen=True, kw_only=True)
class CompactReport:
    """What a compaction changed.

    Parameters
    ----------
    n_shards_before, n_shards, n_bytes_before, n_bytes : int
        Shards and their size on disk, before and after.
    n_dropped : int
        Segments of deleted tracks that are gone.
    """

    n_shards_before: int
    n_shards: int
    n_bytes_before: int
    n_bytes: int
    n_dropped: int


class _Old(NamedTuple):
    """A shard as it is, with its living tracks in the order of their rows."""

    name: str
    shard: Shard
    placements: list[Placement]

    @property
    def n_alive(self) -> int:
        return sum(one.n_segments for one in self.placements)

    @property
    def has_dead(self) -> bool:
        return self.n_alive < self.shard.n_segments


class Compaction:
    """One run; the caller holds the catalog's write lock.

    Parameters
    ----------
    store : Store
    shards : ShardStorage
    config : IndexConfig
    storage : {"full", "codes"}, optional
        What large shards keep; as it was by default, "full" at first.
    gpu : Gpu, optional
        Trains and fills large shards; the CPU by default.
    """

    def __init__(
        self,
        store: Store,
        shards: ShardStorage,
        config: IndexConfig,
        storage: Storage | None = None,
        gpu: Gpu | None = None,
    ) -> None:
        self._store, self._shards, self._config, self._gpu = store, shards, config, gpu
        shards.sweep(store.shard_names())
        self._old = _old_shards(store, shards)
        self._n_segments = sum(one.n_alive for one in self._old)
        self._storage = self._chosen(storage)

    def run(self, on_progress: OnProgress = lambda done, total: None) -> CompactReport:
        """Compact what there is to compact.

        Raises
        ------
        StoreError
            Full storage is asked for, but the vectors were given up for compact storage.
        ShardError
            A shard cannot be read.
        """
        before = self._store.stats()
        groups = self._groups()
        total = sum(one.n_alive for group in groups for one in group)
        trained = self._trained() if groups and self._is_large else None
        done = 0
        for group in groups:

            def tell(n_written: int, done: int = done) -> None:
                on_progress(done + n_written, total)

            self._rewrite(group, trained, tell)
            done += sum(one.n_alive for one in group)
        after = self._store.stats()
        return CompactReport(
            n_shards_before=before.n_shards,
            n_shards=after.n_shards,
            n_bytes_before=before.n_bytes,
            n_bytes=after.n_bytes,
            n_dropped=before.n_stored_segments - after.n_stored_segments,
        )

    # -- what to do -----------------------------------------------------------------------------

    @property
    def _is_large(self) -> bool:
        """Whether the catalog is beyond comparing everything, or asked to be small on disk."""
        enough = quantizer.N_TRAINING_PER_LIST * quantizer.choose_nlist(self._n_segments)
        wanted = self._n_segments > self._config.max_flat_segments or self._storage == "codes"
        return wanted and self._n_segments >= enough

    def _chosen(self, storage: Storage | None) -> Storage:
        kinds = {one.shard.kind for one in self._old}
        if storage == "full" and "codes" in kinds:
            raise StoreError(
                "the catalog is stored compactly and its exact vectors are gone; "
                "for full storage add the files to a new catalog"
            )
        return storage or ("codes" if "codes" in kinds else "full")

    def _groups(self) -> list[list[_Old]]:
        """Choose the shards that become one each."""
        stale = [one for one in self._old if self._is_stale(one)]
        room = self._config.max_shard_segments * _ROOM
        roomy = [one for one in self._old if one not in stale and one.n_alive < room]
        if len(stale) + len(roomy) > 1:
            stale = [one for one in self._old if one in stale or one in roomy]
        groups: list[list[_Old]] = []
        size = 0
        for one in stale:
            if not groups or size + one.n_alive > self._config.max_shard_segments:
                groups.append([])
                size = 0
            groups[-1].append(one)
            size += one.n_alive
        return groups

    def _is_stale(self, one: _Old) -> bool:
        if one.has_dead:
            return True
        if self._is_large:
            return one.shard.kind != self._storage or self._outgrown(one.shard)
        return one.shard.kind != "flat" and self._storage == "full"

    def _outgrown(self, shard: Shard) -> bool:
        return quantizer.choose_nlist(self._n_segments) >= _OUTGROWN * shard.nlist

    # -- doing it -------------------------------------------------------------------------------

    def _trained(self) -> Any:
        """Take the quantizer that the catalog has, or train one."""
        for one in self._old:
            if one.shard.kind == self._storage and not self._outgrown(one.shard):
                return one.shard.read_trained()
        return quantizer.train(self._sample(), self._n_segments, self._storage, gpu=self._gpu)

    def _sample(self) -> Vectors:
        """Take segments of all tracks, evenly; silence teaches nothing."""
        wanted = quantizer.N_TRAINING_PER_LIST * quantizer.choose_nlist(self._n_segments)
        every = max(self._n_segments // wanted, 1)
        parts = [
            one.shard.vectors(track.first_row, track.n_segments)[::every].copy()  # not all of it
            for one in self._old
            for track in one.placements
        ]
        sample = np.concatenate(parts)
        return sample[sample.any(axis=1)]

    def _rewrite(self, group: Sequence[_Old], trained: Any, tell: Callable[[int], None]) -> None:
        """Write a group as one shard, and tell the segments read for it so far."""
        names = [one.name for one in group]
        placements = [(one.shard, track) for one in group for track in one.placements]
        if placements:
            written = write_shard(self._shards, _read(placements, tell), trained, self._gpu)
            track_ids = [track.track_id for _, track in placements]
            self._store.move_tracks(written, track_ids, dropping=names)
        else:
            self._store.delete_shards(names)
        for name in names:
            self._shards.delete(name)


def _old_shards(store: Store, shards: ShardStorage) -> list[_Old]:
    placed: dict[str, list[Placement]] = defaultdict(list)
    for placement in store.placements():
        placed[placement.shard].append(placement)
    return [_Old(name, Shard(shards.path(name)), placed[name]) for name in store.shard_names()]


def _read(
    placements: Sequence[tuple[Shard, Placement]], tell: Callable[[int], None]
) -> Iterator[StoredVectors]:
    n_read = 0
    for shard, track in placements:
        n_read += track.n_segments
        tell(n_read)
        yield StoredVectors(
            embeddings=shard.vectors(track.first_row, track.n_segments),
            clip_embeddings=shard.clips(track.first_clip, track.n_clips),
            segment_hop_s=shard.segment_hop_s,
            recipe_id=str(shard.header["recipe_id"]),
        )
