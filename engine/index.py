"""All shards of a catalog searched as one, with the rows of deleted tracks left out."""

from __future__ import annotations

import math
import os
from collections import defaultdict
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.errors import ShardError
from engine.records import NO_ADDRESS, POSITION_BITS, Addresses, Hits, Placement, Vectors
from engine.shard import Shard

# As many rows are compared one by one in a few milliseconds.
_N_BY_HAND = 50_000
_BLOCK_CLIPS = 65_536
# Sorting more than so many times what is kept takes longer than choosing first.
_N_SORTED = 8
# A shard may hold somewhat more of what is near than its share.
_SPARE = 1.25


class Index:
    """Nearest-neighbour search over the living tracks of a catalog.

    Parameters
    ----------
    folder : Path
        The catalog's folder of shards.
    placements : sequence of Placement
        One for each living track.
    recipe_id : str

    Raises
    ------
    ShardError, RecipeMismatchError
        A shard is missing, damaged, or of another recipe.
    """

    def __init__(self, folder: Path, placements: Sequence[Placement], recipe_id: str) -> None:
        by_shard: dict[str, list[Placement]] = defaultdict(list)
        for placement in placements:
            by_shard[placement.shard].append(placement)
        self._members = [_Member(Shard(folder / name), rows) for name, rows in by_shard.items()]
        for member in self._members:
            member.shard.require_recipe(recipe_id)
        self._homes = {
            placement.track_id: (member.shard, placement)
            for member in self._members
            for placement in member.placements
        }

    def among(self, track_ids: Collection[int]) -> Index:
        """Narrow the index to some tracks, without opening anything again."""
        narrowed = copy(self)
        narrowed._members = [member.among(set(track_ids)) for member in self._members]
        narrowed._homes = {one: self._homes[one] for one in self._homes if one in track_ids}
        return narrowed

    @property
    def track_ids(self) -> list[int]:
        """Tracks that can be found, by id."""
        return sorted(self._homes)

    @property
    def n_segments(self) -> int:
        """Number of vectors that can be found."""
        return sum(placement.n_segments for _, placement in self._homes.values())

    def search(
        self, queries: Vectors, top_k: int, *, n_rescored: int = 400, n_probe: int | None = None
    ) -> Hits:
        """Find the nearest segments of all tracks, in all shards at once.

        Parameters
        ----------
        queries : float32 array of shape (n_queries, dim), unit norm
        top_k : int
        n_rescored, n_probe : int, int or None
            As in :class:`~engine.config.SearchConfig`.

        Returns
        -------
        Hits
            Of shape (n_queries, top_k).
        """
        effort = _Effort(top_k, n_rescored, n_probe)
        n_all = max(sum(one.n_rows for one in self._members), 1)
        shape = len(queries), top_k
        addresses = [np.full(shape, NO_ADDRESS, np.int64)]
        cosines = [np.full(shape, -np.inf, np.float32)]
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            # What is near lies in all shards alike, so each has its share of it.
            search = [(one, effort.share(one.n_rows / n_all)) for one in self._members]
            for found in pool.map(lambda one: one[0].search(queries, one[1]), search):
                addresses.append(found.addresses)
                cosines.append(found.cosines)
        return _nearest(np.concatenate(addresses, 1), np.concatenate(cosines, 1), top_k)

    def nearest_tracks(self, clips: Vectors, n: int) -> list[int]:
        """Find the tracks with the most similar clip-level embeddings.

        Parameters
        ----------
        clips : float32 array of shape (n_clips, dim), unit norm
        n : int

        Returns
        -------
        list of int
            Track ids, at most n of them, most similar first.
        """
        best: dict[int, float] = {}
        for member in self._members:
            best |= member.likeness(clips)
        return sorted(best, key=lambda one: -best[one])[:n]

    def n_positions(self, track_id: int) -> int:
        """Count the segments of a track."""
        return self._homes[track_id][1].n_segments

    def vectors(self, track_id: int, first: int, last: int) -> Vectors:
        """Read the vectors of a track at the positions first..last, the last one excluded.

        Returns
        -------
        float32 array of shape (last - first, dim)
        """
        shard, placement = self._homes[track_id]
        return shard.vectors(placement.first_row + first, last - first)

    def clips(self, track_id: int) -> Vectors:
        """Read the clip-level vectors of a track.

        Returns
        -------
        float32 array of shape (n_clips, dim)
        """
        shard, placement = self._homes[track_id]
        return shard.clips(placement.first_clip, placement.n_clips)


class _Effort(NamedTuple):
    """How much a search finds and looks at."""

    top_k: int
    n_rescored: int
    n_probe: int | None

    def share(self, of_all: float) -> _Effort:
        """Give the effort for a shard that holds a part of all segments."""
        return self._replace(n_rescored=math.ceil(_SPARE * self.n_rescored * of_all))


class _Member:
    """A shard with the tracks that live in its rows."""

    def __init__(self, shard: Shard, placements: list[Placement]) -> None:
        self.shard = shard
        self.placements = sorted(placements, key=lambda one: one.first_row)
        self._first_rows = np.array([one.first_row for one in self.placements], np.int64)
        self._n_rows = np.array([one.n_segments for one in self.placements], np.int64)
        self._track_ids = np.array([one.track_id for one in self.placements], np.int64)
        self._require_rows()
        is_whole = int(self._n_rows.sum()) == shard.n_segments
        self._alive = None if is_whole else self._living_rows()

    @property
    def n_rows(self) -> int:
        """Rows that live."""
        return int(self._n_rows.sum())

    def among(self, track_ids: Collection[int]) -> _Member:
        return _Member(self.shard, [one for one in self.placements if one.track_id in track_ids])

    def search(self, queries: Vectors, effort: _Effort) -> Hits:
        if self._alive is not None and self._alive.sum() <= _N_BY_HAND:
            rows, cosines = self._compare_all(queries, effort.top_k)
        else:
            rows, cosines = self.shard.search(
                queries,
                effort.top_k,
                self._alive,
                n_rescored=effort.n_rescored,
                n_probe=effort.n_probe,
            )
        return Hits(addresses=self._addresses(rows), cosines=cosines)

    def likeness(self, clips: Vectors) -> dict[int, float]:
        """Greatest cosine of each track's clips with any of these, by track id."""
        placed = [one for one in self.placements if one.n_clips]
        if not placed:
            return {}
        blocks = range(0, self.shard.n_clips, _BLOCK_CLIPS)
        cosines = [(self.shard.clips(at, _BLOCK_CLIPS) @ clips.T).max(axis=1) for at in blocks]
        bounds = [(one.first_clip, one.first_clip + one.n_clips) for one in placed]
        # A number behind the last one, where what follows the last track begins.
        highest = np.concatenate([*cosines, np.zeros(1, np.float32)])
        best = np.maximum.reduceat(highest, np.array(bounds).ravel())[::2]
        return dict(zip((one.track_id for one in placed), map(float, best), strict=True))

    def _compare_all(
        self, queries: Vectors, top_k: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Compare with all rows that live, exactly: quicker than an index when they are few."""
        assert self._alive is not None
        rows = np.flatnonzero(self._alive)
        if not len(rows):
            empty = np.zeros((len(queries), 0))
            return empty.astype(np.int64), empty.astype(np.float32)
        stored = [self.shard.vectors(one.first_row, one.n_segments) for one in self.placements]
        cosines = queries @ np.concatenate(stored).T
        hits = _nearest(np.broadcast_to(rows, cosines.shape), cosines, top_k)
        return hits.addresses, hits.cosines

    def _addresses(self, rows: NDArray[np.int64]) -> Addresses:
        if not len(self.placements):
            return np.full(rows.shape, NO_ADDRESS, np.int64)
        of = np.searchsorted(self._first_rows, rows, side="right") - 1
        positions = rows - self._first_rows[of]
        addresses = self._track_ids[of] << POSITION_BITS | positions
        return np.where((rows >= 0) & (positions < self._n_rows[of]), addresses, NO_ADDRESS)

    def _living_rows(self) -> NDArray[np.bool_]:
        alive = np.zeros(self.shard.n_segments, np.bool_)
        for one in self.placements:
            alive[one.first_row : one.first_row + one.n_segments] = True
        return alive

    def _require_rows(self) -> None:
        for placement in self.placements:
            if placement.first_row + placement.n_segments > self.shard.n_segments:
                reason = f"it ends before track {placement.track_id} does"
                raise ShardError(self.shard.path, reason)


def _nearest(addresses: Addresses, cosines: NDArray[np.float32], n: int) -> Hits:
    """Keep the n greatest cosines of each row, falling."""
    if cosines.shape[1] > _N_SORTED * n:
        best = np.argpartition(-cosines, n, axis=1)[:, :n]
        return _nearest(
            np.take_along_axis(addresses, best, axis=1),
            np.take_along_axis(cosines, best, axis=1),
            n,
        )
    best = np.argsort(-cosines, axis=1, kind="stable")[:, :n]
    return Hits(
        addresses=np.take_along_axis(addresses, best, axis=1),
        cosines=np.take_along_axis(cosines, best, axis=1),
    )
