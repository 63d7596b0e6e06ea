"""Tracks of other catalogs and of exported files become this catalog's, without their audio."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

from engine.config import IngestConfig
from engine.errors import ConfigError, RecipeMismatchError
from engine.records import NewTrack
from engine.store.store import Store
from engine.vectors.storage import ShardStorage
from indexer.shard_writer import ShardWriter
from indexer.sources import Batch, OnProgress, TrackSource

_LEAST_HASH_DIGITS = 8


@dataclass(frozen=True)
class Renamed:
    """A track whose path another recording has here, and the path it was given instead."""

    path: str
    new_path: str


@dataclass
class TakeoverReport:
    """What became of the tracks of a source.

    Parameters
    ----------
    n_merged, n_skipped : int
        Tracks taken over, and those whose content was known.
    renamed : list of Renamed
        Of those taken over.
    """

    n_merged: int = 0
    n_skipped: int = 0
    renamed: list[Renamed] = field(default_factory=list)


class Takeover:
    """One run over one source; the caller holds the catalog's write lock.

    Parameters
    ----------
    store : Store
    shards : ShardStorage
    config : IngestConfig
        How much waits at most to be committed.
    on_progress : callable
        Told after every track how many are done, and how many there are.
    """

    def __init__(
        self, store: Store, shards: ShardStorage, config: IngestConfig, on_progress: OnProgress
    ) -> None:
        self._store, self._on_progress = store, on_progress
        self._writer = ShardWriter(store, shards, config)
        self._report = TakeoverReport()
        self._waiting: list[NewTrack] = []
        shards.sweep(store.shard_names())

    def run(self, source: TrackSource) -> TakeoverReport:
        """Take over what is not known; repeated after a crash, it goes on.

        Parameters
        ----------
        source : TrackSource

        Returns
        -------
        TakeoverReport

        Raises
        ------
        RecipeMismatchError, ConfigError
            Its fingerprints were made in another way, or it cannot be read to its end.
        ShardError
            One of its shards is missing or damaged. What came before is taken over.
        """
        if not source.settings:
            return self._report
        _adopt(self._store, source.settings, source.name)
        try:
            for batch in source.batches():
                self._take_all(batch, source.n_tracks)
        finally:  # after Ctrl-C too: what is done is kept
            self._commit()
        return self._report

    def _take_all(self, batch: Batch, n_tracks: int) -> None:
        known = self._store.known_hashes([track.content_hash for track in batch.tracks])
        known.update(track.content_hash for track in self._waiting)
        taken = self._store.taken_paths([track.path for track in batch.tracks])
        taken.update(track.path for track in self._waiting)
        for number, track in enumerate(batch.tracks):
            if track.content_hash in known:
                self._report.n_skipped += 1
            else:
                known.add(track.content_hash)
                placed = self._at_free_path(track, taken)
                taken.add(placed.path)
                self._writer.add(batch.read(number), placed)
                self._waiting.append(placed)
            n_done = self._report.n_skipped + self._report.n_merged + len(self._waiting)
            if self._writer.due:
                self._commit()
            self._on_progress(n_done, n_tracks)

    def _at_free_path(self, track: NewTrack, taken: Collection[str]) -> NewTrack:
        """Tell a track from the other recording that has its path here, by its content's hash."""
        if track.path not in taken:
            return track
        stem, ending = os.path.splitext(track.path)
        for n_digits in range(_LEAST_HASH_DIGITS, len(track.content_hash) + 1):
            path = f"{stem} ({track.content_hash[:n_digits]}){ending}"
            if path not in taken and not self._store.taken_paths([path]):
                self._report.renamed.append(Renamed(track.path, path))
                return replace(track, path=path)
        raise ConfigError(track.path, "this path and all like it belong to other recordings")

    def _commit(self) -> None:
        self._report.n_merged += len(self._writer.commit())
        self._waiting = []


def _adopt(store: Store, settings: Mapping[str, str], name: str) -> None:
    """Make a source's recipe that of an empty catalog; refuse one unlike a catalog's own."""
    own = store.settings()
    if "recipe_id" not in own:
        store.put_settings(settings)
    elif own["recipe_id"] != settings["recipe_id"]:
        raise RecipeMismatchError(own["recipe_id"], settings["recipe_id"], name)
    elif float(own["segment_hop_s"]) != float(settings["segment_hop_s"]):
        theirs, ours = settings["segment_hop_s"], own["segment_hop_s"]
        raise ConfigError.invalid(
            f"segment_hop_s of {name}", float(theirs), f"must be {ours}, as in this catalog"
        )
