"""Made-up tracks as a source that a catalog takes over, as it does the tracks of another one."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from benchmarks.queries.distractors import TRACK_SEGMENTS, Distractors
from engine.recipe import ClipConfig
from engine.records import NewTrack, StoredVectors, Vectors

PREFIX = "/made-up/"
"""What the paths of made-up tracks begin with."""

_BATCH_TRACKS = 500


class MadeUp:
    """Made-up tracks; the same for a seed whatever their number, so that a larger one has more.

    Parameters
    ----------
    distractors : Distractors
    settings : mapping
        Those of the catalog they were fitted to.
    n_tracks : int
    seed : int
    """

    name = "made-up music"

    def __init__(
        self, distractors: Distractors, settings: Mapping[str, str], n_tracks: int, seed: int
    ) -> None:
        self.distractors, self.settings = distractors, settings
        self.n_tracks, self.seed = n_tracks, seed
        self.draw_s = 0.0

    @classmethod
    def filling(
        cls, n_segments: int, distractors: Distractors, settings: Mapping[str, str], seed: int
    ) -> MadeUp:
        """Make up as many tracks as have no more than some segments together."""
        return cls(distractors, settings, max(n_segments, 0) // TRACK_SEGMENTS, seed)

    def batches(self) -> Iterator[MadeUpBatch]:
        """Yield all tracks, 200,000 segments at a time."""
        for first in range(0, self.n_tracks, _BATCH_TRACKS):
            yield MadeUpBatch(self, first, min(_BATCH_TRACKS, self.n_tracks - first))

    def draw(self, first: int) -> Vectors:
        """Draw the tracks of a batch, of shape (n_tracks, n_segments, dim)."""
        began = time.perf_counter()
        rng = np.random.default_rng([self.seed, first])
        drawn = self.distractors.tracks(_BATCH_TRACKS, TRACK_SEGMENTS, rng)
        self.draw_s += time.perf_counter() - began
        return drawn


class MadeUpBatch:
    """Some made-up tracks, drawn when the first of them is wanted."""

    def __init__(self, source: MadeUp, first: int, n_tracks: int) -> None:
        self._source, self._first = source, first
        self._hop_s = float(source.settings["segment_hop_s"])
        self._drawn: Vectors | None = None
        self.tracks: Sequence[NewTrack] = [self._track(first + i) for i in range(n_tracks)]

    def _track(self, number: int) -> NewTrack:
        path = f"{PREFIX}{self._source.seed}/{number:07}"
        return NewTrack(
            path=path,
            content_hash=hashlib.sha256(path.encode()).hexdigest(),
            n_bytes=0,
            modified_ns=0,
            duration_s=TRACK_SEGMENTS * self._hop_s,
            n_segments=TRACK_SEGMENTS,
            n_clips=len(_clip_starts(TRACK_SEGMENTS)),
        )

    def read(self, number: int) -> StoredVectors:
        """Give the vectors of ``tracks[number]``."""
        if self._drawn is None:
            self._drawn = self._source.draw(self._first)
        embeddings = np.ascontiguousarray(self._drawn[number])
        return StoredVectors(
            embeddings=embeddings,
            clip_embeddings=_clips(embeddings),
            segment_hop_s=self._hop_s,
            recipe_id=self._source.settings["recipe_id"],
        )


def _clip_starts(n_segments: int) -> range:
    clip = ClipConfig()
    return range(0, max(n_segments - clip.n_segments // 2, 1), clip.hop_segments)


def _clips(embeddings: Vectors) -> Vectors:
    """Pool clips, as many as real tracks have; plain means, for no query here looks at them."""
    length = ClipConfig().n_segments
    starts = _clip_starts(len(embeddings))
    means = np.stack([embeddings[start : start + length].mean(axis=0) for start in starts])
    return means / np.linalg.norm(means, axis=1, keepdims=True)
