"""Merge small shards into large ones, without the vectors of deleted tracks.

A new shard is on disk before one transaction moves tracks to it and deletes the rows of the old
shards; their files are deleted last. An interrupted compaction leaves the catalog valid, and the
next one continues.
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
from indexer.lost import set_aside

# A quantizer is trained again when the catalog needs this many times as many lists.
_MAX_GROWTH = 4
# A shard smaller than this fraction of the maximum size is merged with others.
_MERGE_FRACTION = 0.5

OnProgress = Callable[[int, int], None]
"""Called with the number of segments written and in total."""


@dataclass(frozen=True, kw_only=True)
class CompactReport:
    """What a compaction changed.

    Parameters
    ----------
    n_shards_before, n_shards, n_bytes_before, n_bytes : int
        Shards and their size on disk, before and after.
    n_dropped : int
        Segments of deleted tracks that were dropped.
    """

    n_shards_before: int
    n_shards: int
    n_bytes_before: int
    n_bytes: int
    n_dropped: int


class _Source(NamedTuple):
    """An existing shard and the tracks in it, in the order of their rows."""

    name: str
    shard: Shard
    placements: list[Placement]

    @property
    def n_alive(self) -> int:
        return sum(placement.n_segments for placement in self.placements)

    @property
    def has_dead_rows(self) -> bool:
        return self.n_alive < self.shard.n_segments


class Compaction:
    """One compaction of a catalog; the caller holds the write lock.

    Parameters
    ----------
    store : Store
    shards : ShardStorage
    config : IndexConfig
    storage : {"full", "codes"}, optional
        What large shards store; unchanged by default, which is "full" at first.
    gpu : Gpu, optional
        Trains and fills large shards; the CPU by default.

    Raises
    ------
    StoreError
        `storage` is "full", but the catalog stores codes only.
    ShardError
        A shard is missing or damaged.
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
        set_aside(store, shards)
        self._sources = _open_shards(store, shards)
        self._n_segments = sum(source.n_alive for source in self._sources)
        self._storage = self._choose_storage(storage)

    def run(self, on_progress: OnProgress = lambda done, total: None) -> CompactReport:
        """Compact the catalog.

        Raises
        ------
        ShardError
            A shard cannot be read.
        """
        before = self._store.stats()
        groups = self._groups()
        total = sum(source.n_alive for group in groups for source in group)
        trained = self._trained_index() if groups and self._is_large else None
        done = 0
        for group in groups:

            def report(n_written: int, done: int = done) -> None:
                on_progress(done + n_written, total)

            self._rewrite(group, trained, report)
            done += sum(source.n_alive for source in group)
        after = self._store.stats()
        return CompactReport(
            n_shards_before=before.n_shards,
            n_shards=after.n_shards,
            n_bytes_before=before.n_bytes,
            n_bytes=after.n_bytes,
            n_dropped=before.n_stored_segments - after.n_stored_segments,
        )

    # -- plan -----------------------------------------------------------------------------------

    @property
    def _is_large(self) -> bool:
        """Whether to make large shards: for speed or for size, and with enough to train on."""
        n_training = quantizer.N_TRAINING_PER_LIST * quantizer.choose_nlist(self._n_segments)
        is_wanted = self._n_segments > self._config.max_flat_segments or self._storage == "codes"
        return is_wanted and self._n_segments >= n_training

    def _choose_storage(self, storage: Storage | None) -> Storage:
        kinds = {source.shard.kind for source in self._sources}
        if storage == "full" and "codes" in kinds:
            raise StoreError(
                "the catalog stores codes only, its exact vectors are gone; "
                "for full storage add the files to a new catalog"
            )
        return storage or ("codes" if "codes" in kinds else "full")

    def _groups(self) -> list[list[_Source]]:
        """Choose the shards to rewrite; each group becomes one shard."""
        stale = [source for source in self._sources if self._is_stale(source)]
        max_size = self._config.max_shard_segments * _MERGE_FRACTION
        small = [s for s in self._sources if s not in stale and s.n_alive < max_size]
        if len(stale) + len(small) > 1:
            stale = [source for source in self._sources if source in stale or source in small]
        groups: list[list[_Source]] = []
        size = 0
        for source in stale:
            if not groups or size + source.n_alive > self._config.max_shard_segments:
                groups.append([])
                size = 0
            groups[-1].append(source)
            size += source.n_alive
        return groups

    def _is_stale(self, source: _Source) -> bool:
        if source.has_dead_rows:
            return True
        if self._is_large:
            return source.shard.kind != self._storage or self._is_outgrown(source.shard)
        return source.shard.kind != "flat" and self._storage == "full"

    def _is_outgrown(self, shard: Shard) -> bool:
        return quantizer.choose_nlist(self._n_segments) >= _MAX_GROWTH * shard.nlist

    # -- rewrite --------------------------------------------------------------------------------

    def _trained_index(self) -> Any:
        """Return the trained index of a shard, or train one."""
        for source in self._sources:
            if source.shard.kind == self._storage and not self._is_outgrown(source.shard):
                return source.shard.read_trained()
        return quantizer.train(self._sample(), self._n_segments, self._storage, gpu=self._gpu)

    def _sample(self) -> Vectors:
        """Read evenly spaced segments of all tracks, without silence."""
        n_training = quantizer.N_TRAINING_PER_LIST * quantizer.choose_nlist(self._n_segments)
        step = max(self._n_segments // n_training, 1)
        parts = [  # copies, or each would keep all vectors of its track in memory
            source.shard.vectors(track.first_row, track.n_segments)[::step].copy()
            for source in self._sources
            for track in source.placements
        ]
        sample = np.concatenate(parts)
        return sample[sample.any(axis=1)]

    def _rewrite(
        self, group: Sequence[_Source], trained: Any, on_read: Callable[[int], None]
    ) -> None:
        """Write a group as one shard; `on_read` is called with the segments read so far."""
        names = [source.name for source in group]
        placements = [(source.shard, track) for source in group for track in source.placements]
        known = self._store.new_tracks([track.track_id for _, track in placements])
        # Another process may have deleted some meanwhile.
        placements = [(shard, track) for shard, track in placements if track.track_id in known]
        if placements:
            track_ids = [track.track_id for _, track in placements]
            tracks = [known[track_id] for track_id in track_ids]
            vectors = _read(placements, on_read)
            written = write_shard(self._shards, vectors, trained, self._gpu, tracks)
            self._store.move_tracks(written, track_ids, dropping=names)
        else:
            self._store.delete_shards(names)
        for name in names:
            self._shards.delete(name)
        self._store.remove_superseded(names)


def _open_shards(store: Store, shards: ShardStorage) -> list[_Source]:
    by_shard: dict[str, list[Placement]] = defaultdict(list)
    for placement in store.placements():
        by_shard[placement.shard].append(placement)
    return [_Source(name, Shard(shards.path(name)), by_shard[name]) for name in store.shard_names()]


def _read(
    placements: Sequence[tuple[Shard, Placement]], on_read: Callable[[int], None]
) -> Iterator[StoredVectors]:
    n_read = 0
    for shard, track in placements:
        n_read += track.n_segments
        on_read(n_read)
        yield StoredVectors(
            embeddings=shard.vectors(track.first_row, track.n_segments),
            clip_embeddings=shard.clips(track.first_clip, track.n_clips),
            segment_hop_s=shard.segment_hop_s,
            recipe_id=str(shard.header["recipe_id"]),
        )
