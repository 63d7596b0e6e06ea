"""Where tracks come from when their audio is not at hand: fingerprints, bundle by bundle."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from math import nan
from pathlib import Path
from typing import Protocol

from engine.errors import ShardError
from engine.records import Fingerprint, NewTrack, Placement
from engine.store.store import Store
from engine.vectors.index import Index

MAX_SEGMENTS = 50_000
"""Segments in one bundle, unless a single track has more: what bounds memory."""

SETTINGS = ("recipe_id", "recipe", "segment_hop_s")
"""What a catalog notes about how all its fingerprints were made."""


OnProgress = Callable[[int, int], None]
"""Told how much is done, and how much there is."""


class Bundle(Protocol):
    """Tracks whose fingerprints lie together."""

    @property
    def tracks(self) -> Sequence[NewTrack]:
        """What is known of each."""

    def fingerprint(self, number: int) -> Fingerprint:
        """Read the fingerprint of ``tracks[number]``."""


class Source(Protocol):
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

    def bundles(self) -> Iterator[Bundle]:
        """Yield all tracks, a bounded part at a time."""


class CatalogSource:
    """The tracks of a catalog; other processes may write to it meanwhile.

    Parameters
    ----------
    name : str
        What messages call it.
    store : Store
    folder : Path
        The catalog's folder of shards.
    ids : collection of int, optional
        The tracks to give; all by default.
    """

    def __init__(
        self, name: str, store: Store, folder: Path, ids: Collection[int] | None = None
    ) -> None:
        self.name, self._store, self._folder = name, store, folder
        self._ids = None if ids is None else set(ids)
        stored = store.settings()
        self.settings = {key: stored[key] for key in SETTINGS if key in stored}
        self.n_tracks = store.stats().n_tracks if self._ids is None else len(self._ids)

    def bundles(self) -> Iterator[Bundle]:
        """Yield all tracks, shard by shard; ShardError when a shard is missing or damaged."""
        given: set[int] = set()
        while True:
            version = self._store.version()
            try:
                for ids, bundle in self._others(given):
                    yield bundle
                    given.update(ids)
                return
            except ShardError:  # a compaction may have moved its tracks to another
                if self._store.version() == version:
                    raise

    def _others(self, given: Collection[int]) -> Iterator[tuple[list[int], Bundle]]:
        wanted = [
            one
            for one in self._store.placements()
            if one.track_id not in given and (self._ids is None or one.track_id in self._ids)
        ]
        for _, group in groupby(wanted, key=lambda one: one.shard):
            placements = list(group)
            index = Index(self._folder, placements, self.settings["recipe_id"])
            for portion in _portions(placements):
                ids = [one.track_id for one in portion]
                yield ids, self._bundle(index, portion)

    def _bundle(self, index: Index, placements: Sequence[Placement]) -> Bundle:
        known = self._store.new_tracks([one.track_id for one in placements])
        alive = [one for one in placements if one.track_id in known]
        # The counts of the rows that will be read, should these have changed since.
        tracks = [
            replace(known[one.track_id], n_segments=one.n_segments, n_clips=one.n_clips)
            for one in alive
        ]
        return _IndexBundle(index, [one.track_id for one in alive], tracks, self.settings)


class _IndexBundle:
    def __init__(
        self,
        index: Index,
        ids: Sequence[int],
        tracks: Sequence[NewTrack],
        settings: Mapping[str, str],
    ) -> None:
        self.tracks, self._index, self._ids, self._settings = tracks, index, ids, settings

    def fingerprint(self, number: int) -> Fingerprint:
        track_id, track = self._ids[number], self.tracks[number]
        return Fingerprint(
            embeddings=self._index.vectors(track_id, 0, track.n_segments),
            clip_embeddings=self._index.clips(track_id),
            segment_hop_s=float(self._settings["segment_hop_s"]),
            segment_s=nan,  # no catalog notes it, and nothing that stores fingerprints asks
            duration_s=track.duration_s,
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
