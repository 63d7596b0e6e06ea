"""Tracks ranked by their clip-level embeddings: the music that sounds alike, without any times.

A query is compared with every clip, in blocks of tracks. 20,000 tracks of four minutes have 960,000
clips; that took three seconds on two busy cores.
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
        Embeddings of a track by its id, float32 array of shape (n_clips, dim), unit norm; all
        zeros where a clip is silent.
    """

    track_ids: Sequence[int]
    clips: Callable[[int], Vectors]

    def scores(self, query: Vectors, name: str = "array") -> NDArray[np.float32]:
        """Say how alike each track and a query are.

        Of the recording with fewer audible clips, each has a best cosine in the other one; their
        mean is the score. It is the same whichever of the two is the query. Of 459 tracks of 37
        projects, 95 % of the pairs of different projects stay below 0.39 and 99.9 % below 0.56; the
        best of all the others reaches 0.52 in the median and 0.74 at most. One single clip reaches
        0.87.

        Parameters
        ----------
        query : float32 array of shape (n_clips, dim)
        name : str
            What errors call the query.

        Returns
        -------
        float32 array of shape (n_tracks,), in [-1, 1]
            In the order of `track_ids`; -1 for a track without any audible clip.

        Raises
        ------
        SilentAudioError
            The query has no audible clip.
        """
        heard = _audible(query)
        if not len(heard):
            raise SilentAudioError(name, "silent from beginning to end")
        found = [_scores(heard, tracks) for tracks in self._blocks()]
        return np.concatenate(found) if found else np.zeros(0, np.float32)

    def _blocks(self) -> Iterator[list[Vectors]]:
        """Yield the audible clips of tracks, of several tracks at once."""
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


def _scores(query: Vectors, tracks: list[Vectors]) -> NDArray[np.float32]:
    n_clips = np.array([len(one) for one in tracks])
    heard = n_clips > 0
    scores = np.full(len(tracks), -1, np.float32)
    if heard.any():
        n_heard = n_clips[heard]
        first_rows = np.cumsum(n_heard) - n_heard
        cosines = np.concatenate(tracks) @ query.T
        of_query = np.maximum.reduceat(cosines, first_rows, axis=0).mean(axis=1)
        of_track = np.add.reduceat(cosines.max(axis=1), first_rows) / n_heard
        both = (of_query + of_track) / 2
        unequal = np.where(n_heard < len(query), of_track, of_query)
        scores[heard] = np.where(n_heard == len(query), both, unequal)
    return scores
