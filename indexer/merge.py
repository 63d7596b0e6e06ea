"""Copy tracks of other catalogs and of exported files into a catalog, without their audio."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace

import numpy as np

from engine.config import IngestConfig
from engine.errors import AstoundError, ConfigError, RecipeMismatchError, printable
from engine.records import NewTrack, StoredVectors
from engine.store.store import Store
from engine.vectors.shard import read_header
from engine.vectors.storage import ShardStorage
from indexer.lost import set_aside
from indexer.shard_writer import ShardWriter
from indexer.sources import Batch, OnProgress, TrackSource

_MIN_HASH_DIGITS = 8
_MAX_NORM = 1.05  # unit vectors, rounded to 8 bits a component


@dataclass(frozen=True)
class Renamed:
    """A track whose path belongs to another recording here, and its new path."""

    path: str
    new_path: str


@dataclass
class MergeReport:
    """What became of the tracks of a source.

    Parameters
    ----------
    n_merged, n_skipped : int
        Tracks that were copied, and tracks whose content was in the catalog already.
    renamed : list of Renamed
        Copied tracks with new paths.
    """

    n_merged: int = 0
    n_skipped: int = 0
    renamed: list[Renamed] = field(default_factory=list)


class Merge:
    """One merge of a source into a catalog; the caller holds the write lock.

    Parameters
    ----------
    store : Store
    shards : ShardStorage
    config : IngestConfig
        When to commit.
    on_progress : callable
        Called after every track with the number of tracks done and in total.
    """

    def __init__(
        self, store: Store, shards: ShardStorage, config: IngestConfig, on_progress: OnProgress
    ) -> None:
        self._store, self._on_progress = store, on_progress
        self._writer = ShardWriter(store, shards, config)
        self._report = MergeReport()
        self._pending: list[NewTrack] = []
        set_aside(store, shards)
        self._dim = 0
        for name in store.shard_names()[-1:]:
            with suppress(AstoundError):  # a damaged shard is for a repair to report
                self._dim = int(read_header(shards.path(name))["dim"])

    def run(self, source: TrackSource) -> MergeReport:
        """Copy all tracks with new content; after a crash, run it again to continue.

        Parameters
        ----------
        source : TrackSource

        Returns
        -------
        MergeReport

        Raises
        ------
        RecipeMismatchError
            The source has another recipe.
        ConfigError
            The source has another hop, or is damaged. Tracks before the damage are copied.
        ShardError
            A shard of the source is missing or damaged. Tracks before it are copied.
        """
        if not source.settings:
            return self._report
        _adopt_settings(self._store, source.settings, source.name)
        try:
            for batch in source.batches():
                self._copy(batch, source.n_tracks)
        finally:  # after Ctrl-C too, so that nothing done is lost
            self._commit()
        return self._report

    def _copy(self, batch: Batch, n_tracks: int) -> None:
        known = self._store.known_hashes([track.content_hash for track in batch.tracks])
        known.update(track.content_hash for track in self._pending)
        taken = self._store.taken_paths([track.path for track in batch.tracks])
        taken.update(track.path for track in self._pending)
        for number, track in enumerate(batch.tracks):
            if track.content_hash in known:
                self._report.n_skipped += 1
            else:
                known.add(track.content_hash)
                renamed = self._with_free_path(track, taken)
                taken.add(renamed.path)
                vectors = batch.read(number)
                self._require_sound(vectors, track)
                self._writer.add(vectors, renamed)
                self._pending.append(renamed)
            n_done = self._report.n_skipped + self._report.n_merged + len(self._pending)
            if self._writer.is_due:
                self._commit()
            self._on_progress(n_done, n_tracks)

    def _require_sound(self, vectors: StoredVectors, track: NewTrack) -> None:
        """Refuse vectors that would be found by every query, or that no query can be compared to.

        Raises
        ------
        ConfigError
        """
        path = printable(track.path)
        for one in (vectors.embeddings, vectors.clip_embeddings):
            norms = np.linalg.norm(one, axis=1)
            if norms.size and not norms.max() <= _MAX_NORM:  # NaN included
                raise ConfigError.invalid(
                    f"norm of a vector of {path}", float(norms.max()), "must be at most 1"
                )
        dim = vectors.embeddings.shape[1]
        self._dim = self._dim or dim
        if {dim, vectors.clip_embeddings.shape[1]} != {self._dim}:
            raise ConfigError.invalid(
                f"dim of {path}", dim, f"must be {self._dim}, as in this catalog"
            )

    def _with_free_path(self, track: NewTrack, taken: Collection[str]) -> NewTrack:
        """Append digits of the content hash to a path that another recording has."""
        if track.path not in taken:
            return track
        stem, ending = os.path.splitext(track.path)
        for n_digits in range(_MIN_HASH_DIGITS, len(track.content_hash) + 1):
            path = f"{stem} ({track.content_hash[:n_digits]}){ending}"
            if path not in taken and not self._store.taken_paths([path]):
                self._report.renamed.append(Renamed(track.path, path))
                return replace(track, path=path)
        reason = "this path and all derived from it belong to other tracks"
        raise ConfigError(printable(track.path), reason)

    def _commit(self) -> None:
        self._report.n_merged += len(self._writer.commit())
        self._pending = []


def _adopt_settings(store: Store, settings: Mapping[str, str], name: str) -> None:
    """Give an empty catalog the recipe of a source; refuse a source with another one."""
    own = store.settings()
    if "recipe_id" not in own:
        store.put_settings(settings)
    elif own["recipe_id"] != settings["recipe_id"]:
        raise RecipeMismatchError(own["recipe_id"], settings["recipe_id"], name)
    elif float(own["segment_hop_s"]) != float(settings["segment_hop_s"]):
        theirs, ours = float(settings["segment_hop_s"]), own["segment_hop_s"]
        raise ConfigError.invalid(
            f"segment_hop_s of {name}", theirs, f"must be {ours}, as in this catalog"
        )
