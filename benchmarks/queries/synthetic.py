"""Synthetic tracks as a source to merge into a catalog, like the tracks of another catalog."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from benchmarks.queries.distractors import TRACK_SEGMENTS, Distractors
from engine.recipe import ClipConfig
from engine.records import NewTrack, StoredVectors, Vectors

PREFIX = "/made-up/"
"""Prefix of the paths of synthetic tracks."""

_BATCH_TRACKS = 500


class SyntheticTracks:
    """Synthetic tracks. With the same seed, more tracks begin with the same ones as fewer.

    Parameters
    ----------
    distractors : Distractors
    settings : mapping
        Settings of the catalog that `distractors` was fitted to.
    n_tracks : int
    seed : int

    Attributes
    ----------
    draw_s : float
        Seconds spent on drawing embeddings so far.
    """

    name = "synthetic tracks"

    def __init__(
        self, distractors: Distractors, settings: Mapping[str, str], n_tracks: int, seed: int
    ) -> None:
        self.distractors, self.settings = distractors, settings
        self.n_tracks, self.seed = n_tracks, seed
        self.draw_s = 0.0

    @classmethod
    def filling(
        cls, n_segments: int, distractors: Distractors, settings: Mapping[str, str], seed: int
    ) -> SyntheticTracks:
        """Make as many tracks as fit into `n_segments`."""
        return cls(distractors, settings, max(n_segments, 0) // TRACK_SEGMENTS, seed)

    def batches(self) -> Iterator[SyntheticBatch]:
        """Yield all tracks, 200,000 segments at a time."""
        for first in range(0, self.n_tracks, _BATCH_TRACKS):
            yield SyntheticBatch(self, first, min(_BATCH_TRACKS, self.n_tracks - first))

    def draw(self, first: int) -> Vectors:
        """Draw the embeddings of a batch, shape (n_tracks, n_segments, dim)."""
        began = time.perf_counter()
        rng = np.random.default_rng([self.seed, first])
        drawn = self.distractors.tracks(_BATCH_TRACKS, TRACK_SEGMENTS, rng)
        self.draw_s += time.perf_counter() - began
        return drawn


class SyntheticBatch:
    """Some synthetic tracks. Their embeddings are drawn when the first of them is read."""

    def __init__(self, source: SyntheticTracks, first: int, n_tracks: int) -> None:
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
        """Return the vectors of ``tracks[number]``."""
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
    """Pool as many clips as real tracks have. Plain means do, as no benchmark queries them."""
    length = ClipConfig().n_segments
    starts = _clip_starts(len(embeddings))
    means = np.stack([embeddings[start : start + length].mean(axis=0) for start in starts])
    return np.asarray(means / np.linalg.norm(means, axis=1, keepdims=True), np.float32)
