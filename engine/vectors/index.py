"""All shards of a catalog searched as one, with the rows of deleted tracks left out."""

from __future__ import annotations

import math
import os
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.config import SearchConfig
from engine.errors import ShardError
from engine.records import NO_ADDRESS, POSITION_BITS, Addresses, Hits, Placement, Vectors
from engine.vectors.gpu import MAX_FOUND, Gpu
from engine.vectors.quantizer import limit_threads
from engine.vectors.shard import Shard
from engine.vectors.shelf import Shelf
from engine.vectors.storage import ShardStorage

# As many rows are compared one by one in a few milliseconds.
_N_BY_HAND = 50_000
# Sorting more than so many times what is kept takes longer than choosing first.
_N_SORTED = 8
# A shard may hold somewhat more of what is near than its share.
_SPARE = 1.25
# A GPU compares in half precision: what it finds is a little out of order.
_N_SPARE = 2


class Index:
    """Nearest-neighbour search over the living tracks of a catalog.

    Parameters
    ----------
    storage : ShardStorage
    placements : sequence of Placement
        One for each living track.
    recipe_id : str
    gpu : Gpu, optional
        Compares with all vectors, exactly; without one, the CPU looks into lists of large shards.
        What the index is narrowed to is searched on the CPU.

    Raises
    ------
    ShardError, RecipeMismatchError
        A shard is missing, damaged, or of another recipe.
    """

    def __init__(
        self,
        storage: ShardStorage,
        placements: Sequence[Placement],
        recipe_id: str,
        gpu: Gpu | None = None,
    ) -> None:
        by_shard: dict[str, list[Placement]] = defaultdict(list)
        for placement in placements:
            by_shard[placement.shard].append(placement)
        self._members = [
            _Member(Shard(storage.path(name)), rows) for name, rows in by_shard.items()
        ]
        for member in self._members:
            member.shard.require_recipe(recipe_id)
        self._homes = {
            placement.track_id: (member.shard, placement)
            for member in self._members
            for placement in member.placements
        }
        self._device = None if gpu is None or not self._members else _Device(self._members, gpu)

    def among(self, track_ids: Collection[int]) -> Index:
        """Narrow the index to some tracks, without opening anything again."""
        narrowed = copy(self)
        narrowed._device = None
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

    @property
    def has_lists(self) -> bool:
        """Whether some of it is so large that a search does not compare with all of it."""
        return self._device is None and any(one.shard.kind != "flat" for one in self._members)

    def search(
        self,
        queries: Vectors,
        top_k: int,
        *,
        n_rescored: int = SearchConfig.n_rescored,
        n_probe: int | None = None,
    ) -> Hits:
        """Find the nearest segments of all tracks, in all shards at once.

        Parameters
        ----------
        queries : float32 array of shape (n_queries, dim), unit norm
        top_k : int
        n_rescored, n_probe : int, int or None
            As in :class:`~engine.config.SearchConfig`; a GPU has no need of them.

        Returns
        -------
        Hits
            Of shape (n_queries, top_k).
        """
        if self._device is not None and top_k <= MAX_FOUND:
            return self._device.search(queries, top_k)
        effort = _Effort(top_k, n_rescored, n_probe)
        n_all = max(sum(one.n_rows for one in self._members), 1)
        # What is near lies in all shards alike, so each has its share of it.
        efforts = [effort.share(one.n_rows / n_all) for one in self._members]
        n_cores = os.cpu_count() or 1
        n_workers = max(min(n_cores, len(self._members)), 1)
        each = n_cores // n_workers
        with ThreadPoolExecutor(n_workers, initializer=limit_threads, initargs=(each,)) as pool:
            near = list(pool.map(lambda one, its: one.near(queries, its), self._members, efforts))
        # Not in the threads: reading many rows, they would wait for each other at every one.
        hits = [one.rate(queries, its, top_k) for one, its in zip(self._members, near, strict=True)]
        return _nearest_of(hits, len(queries), top_k)

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

    def near(self, queries: Vectors, effort: _Effort) -> NDArray[np.int64] | None:
        """Find rows that may be the nearest; None where so few live that all are compared."""
        if self._alive is not None and self.n_rows <= _N_BY_HAND:
            return None
        return self.shard.near(
            queries,
            effort.top_k,
            self._alive,
            n_rescored=effort.n_rescored,
            n_probe=effort.n_probe,
        )

    def rate(self, queries: Vectors, near: NDArray[np.int64] | None, top_k: int) -> Hits:
        """Compare queries with rows exactly; with all that live for None."""
        if near is None:
            near, cosines = self._compare_all(queries, top_k)
        else:
            cosines = self.shard.cosines(queries, near)
        return Hits(addresses=self._addresses(near), cosines=cosines)

    def compare(self, queries: Vectors, nth: NDArray[np.int64]) -> Hits:
        """Compare queries with the n-th of its living rows, exactly; some may be none of them."""
        rows = np.where((nth >= 0) & (nth < self.n_rows), self._nth_living(nth), -1)
        return Hits(addresses=self._addresses(rows), cosines=self.shard.cosines(queries, rows))

    def vectors(self, first: int, last: int) -> Vectors:
        """Read its living rows, counted without the others."""
        rows = self._nth_living(np.arange(first, last))
        ends = np.flatnonzero(np.diff(rows) != 1) + 1
        runs = np.split(rows, ends)
        return np.concatenate([self.shard.vectors(int(one[0]), len(one)) for one in runs])

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

    def _nth_living(self, nth: NDArray[np.int64]) -> NDArray[np.int64]:
        before = np.cumsum(self._n_rows) - self._n_rows
        of = (np.searchsorted(before, nth, side="right") - 1).clip(min=0)
        return np.asarray(self._first_rows[of] + nth - before[of], np.int64)

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


class _Device:
    """The living rows of several shards, numbered through and searched on a GPU."""

    def __init__(self, members: Sequence[_Member], gpu: Gpu) -> None:
        self._members = members
        self._bounds = np.cumsum([0, *(one.n_rows for one in members)]).tolist()
        self._shelf = Shelf(gpu, self._bounds[-1], members[0].shard.dim, self._read)

    def search(self, queries: Vectors, top_k: int) -> Hits:
        found = self._shelf.search(queries, min(_N_SPARE * top_k, MAX_FOUND))
        at = zip(self._members, self._bounds, strict=False)
        hits = [one.compare(queries, found - first) for one, first in at]
        return _nearest_of(hits, len(queries), top_k)

    def _read(self, first: int, last: int) -> Vectors:
        parts = [
            one.vectors(max(first, begin) - begin, min(last, end) - begin)
            for one, (begin, end) in zip(self._members, pairwise(self._bounds), strict=True)
            if first < end and begin < last
        ]
        return np.concatenate(parts)


def _nearest_of(hits: Iterable[Hits], n_queries: int, n: int) -> Hits:
    """Keep the n nearest of what several shards gave; "nothing" where there are fewer."""
    shape = n_queries, n
    nothing = Hits(
        addresses=np.full(shape, NO_ADDRESS, np.int64),
        cosines=np.full(shape, -np.inf, np.float32),
    )
    all_of_it = (nothing, *hits)
    return _nearest(
        np.concatenate([one.addresses for one in all_of_it], axis=1),
        np.concatenate([one.cosines for one in all_of_it], axis=1),
        n,
    )


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
