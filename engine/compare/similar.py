"""Rank tracks by their clip-level embeddings: which music sounds alike.

A query is compared with every clip, in blocks of tracks; docs/measurements.md#compared-recordings
has the time this takes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.errors import SilentAudioError
from engine.records import Vectors

# Clips that are compared at once: 32 MB of embeddings.
_BLOCK_CLIPS = 1 << 16


@dataclass(frozen=True)
class ClipIndex:
    """The clip-level embeddings of all tracks.

    Parameters
    ----------
    track_ids : sequence of int
    clips : callable
        Returns the embeddings of a track by its id: float32 array of shape (n_clips, dim), unit
        norm; all zeros where a clip is silent.
    """

    track_ids: Sequence[int]
    clips: Callable[[int], Vectors]

    def scores(self, query: Vectors, name: str = "array") -> NDArray[np.float32]:
        """Compute the similarity of a query and each track.

        Each clip of the recording with fewer audible clips has a best cosine with the clips of the
        other one; the score is their mean. It does not depend on which of the two is the query.
        docs/measurements.md#compared-recordings has the scores of unrelated music.

        Parameters
        ----------
        query : float32 array of shape (n_clips, dim)
        name : str
            Name of the query in error messages.

        Returns
        -------
        float32 array of shape (n_tracks,), in [-1, 1]
            In the order of `track_ids`; -1 for a track without audible clips.

        Raises
        ------
        SilentAudioError
            The query has no audible clip.
        """
        audible = _audible(query)
        if not len(audible):
            raise SilentAudioError(name, "silent from beginning to end")
        scores = [_clip_similarity(audible, tracks) for tracks in self._blocks()]
        return np.concatenate(scores) if scores else np.zeros(0, np.float32)

    def _blocks(self) -> Iterator[list[Vectors]]:
        """Yield the audible clips of several tracks at once."""
        block: list[Vectors] = []
        n_clips = 0
        for track_id in self.track_ids:
            block.append(_audible(self.clips(track_id)))
            n_clips += len(block[-1])
            if n_clips >= _BLOCK_CLIPS:
                yield block
                block, n_clips = [], 0
        if block:
            yield block


def _audible(clips: Vectors) -> Vectors:
    return clips[clips.any(axis=1)]


def _clip_similarity(query: Vectors, tracks: list[Vectors]) -> NDArray[np.float32]:
    """Scores of tracks, from the audible clips of the query and of each track."""
    n_clips = np.array([len(clips) for clips in tracks])
    has_clips = n_clips > 0
    scores = np.full(len(tracks), -1, np.float32)
    if has_clips.any():
        n_audible = n_clips[has_clips]
        first_rows = np.cumsum(n_audible) - n_audible
        cosines = np.concatenate(tracks) @ query.T
        of_query = np.maximum.reduceat(cosines, first_rows, axis=0).mean(axis=1)
        of_track = np.add.reduceat(cosines.max(axis=1), first_rows) / n_audible
        both = (of_query + of_track) / 2
        of_shorter = np.where(n_audible < len(query), of_track, of_query)
        scores[has_clips] = np.where(n_audible == len(query), both, of_shorter)
    return scores
