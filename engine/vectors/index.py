"""All shards of a catalog searched as one, without the rows of deleted tracks."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.config import SearchConfig, n_threads
from engine.errors import ShardError
from engine.records import NO_ADDRESS, POSITION_BITS, Addresses, Hits, Placement, Vectors
from engine.vectors.gpu import MAX_K, Gpu, GpuIndex
from engine.vectors.quantizer import limit_threads
from engine.vectors.shard import Shard
from engine.vectors.storage import ShardStorage

# Up to this many rows are compared one by one, in a few milliseconds.
_MAX_BRUTE_FORCE_ROWS = 50_000
# Sorting more than this many times the values that are kept takes longer than selecting first.
_MAX_SORT_RATIO = 8
# The nearest rows are not spread evenly: each shard rescores somewhat more than its part.
_RESCORE_MARGIN = 1.25
# A GPU compares in half precision and returns rows slightly out of order.
_GPU_OVERSAMPLING = 2


class Index:
    """Nearest-neighbour search over the tracks of a catalog; a :class:`VectorIndex`.

    Several threads may search at once.

    Parameters
    ----------
    storage : ShardStorage
    placements : sequence of Placement
        One for each track.
    recipe_id : str
    gpu : Gpu, optional
        Compares each query with all vectors. Without one, the CPU scans lists of large shards. An
        index of :meth:`among` is always searched on the CPU.

    Raises
    ------
    ShardError
        A shard is missing or damaged.
    RecipeMismatchError
        A shard is of another recipe.
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
        self._parts = [_Part(Shard(storage.path(name)), rows) for name, rows in by_shard.items()]
        for part in self._parts:
            part.shard.require_recipe(recipe_id)
        self._located = {
            placement.track_id: (part.shard, placement)
            for part in self._parts
            for placement in part.placements
        }
        self._on_gpu = None if gpu is None or not self._parts else _GpuParts(self._parts, gpu)
        # Its threads end with the last index that uses it.
        self._pool = _search_pool(len(self._parts))

    def among(self, track_ids: Collection[int]) -> Index:
        """Restrict the index to some tracks; nothing is read again."""
        narrowed = copy(self)
        narrowed._on_gpu = None
        narrowed._parts = [part.among(set(track_ids)) for part in self._parts]
        narrowed._located = {i: self._located[i] for i in self._located if i in track_ids}
        return narrowed

    @property
    def track_ids(self) -> list[int]:
        """Ids of the tracks that can be found, sorted."""
        return sorted(self._located)

    @property
    def n_segments(self) -> int:
        """Number of vectors that can be found."""
        return sum(placement.n_segments for _, placement in self._located.values())

    @property
    def is_approximate(self) -> bool:
        """Whether a search scans only some lists of a large shard, and may miss neighbours."""
        return self._on_gpu is None and any(part.shard.kind != "flat" for part in self._parts)

    def search(
        self,
        queries: Vectors,
        k: int,
        *,
        n_rescored: int = SearchConfig.n_rescored,
        nprobe: int | None = None,
    ) -> Hits:
        """Find the nearest segments of all tracks.

        Parameters
        ----------
        queries : float32 array of shape (n_queries, dim), unit norm
        k : int
        n_rescored, nprobe : int, int or None
            See :class:`~engine.config.SearchConfig`; a GPU ignores them.

        Returns
        -------
        Hits
            Of shape (n_queries, k).
        """
        if self._on_gpu is not None and k <= MAX_K:
            return self._on_gpu.search(queries, k)
        effort = _Effort(k, n_rescored, nprobe)
        n_all = max(sum(part.n_rows for part in self._parts), 1)
        efforts = [effort.of_part(part.n_rows / n_all) for part in self._parts]

        def candidates(part: _Part, effort: _Effort) -> NDArray[np.int64] | None:
            return part.candidates(queries, effort)

        rows = list(self._pool.map(candidates, self._parts, efforts))
        # Not in the pool: threads that read many rows wait for each other.
        hits = [part.rescore(queries, r, k) for part, r in zip(self._parts, rows, strict=True)]
        return _merge(hits, len(queries), k)

    def n_positions(self, track_id: int) -> int:
        """Return the number of segments of a track."""
        return self._located[track_id][1].n_segments

    def vectors(self, track_id: int, first: int, last: int) -> Vectors:
        """Read the vectors of a track at the positions first..last, the last one excluded.

        Returns
        -------
        float32 array of shape (last - first, dim)
        """
        shard, placement = self._located[track_id]
        return shard.vectors(placement.first_row + first, last - first)

    def clips(self, track_id: int) -> Vectors:
        """Read the clip-level vectors of a track.

        Returns
        -------
        float32 array of shape (n_clips, dim)
        """
        shard, placement = self._located[track_id]
        return shard.clips(placement.first_clip, placement.n_clips)


def _search_pool(n_parts: int) -> ThreadPoolExecutor:
    """Create threads that search one part each and share the cores for it."""
    n_workers = max(min(n_threads(), n_parts), 1)
    return ThreadPoolExecutor(
        n_workers, initializer=limit_threads, initargs=(n_threads() // n_workers,)
    )


class _Effort(NamedTuple):
    """How thoroughly to search."""

    k: int
    n_rescored: int
    nprobe: int | None

    def of_part(self, fraction: float) -> _Effort:
        """Return the effort for a part with this fraction of all segments."""
        return self._replace(n_rescored=math.ceil(_RESCORE_MARGIN * self.n_rescored * fraction))


class _Part:
    """A shard, and the tracks of the catalog in it."""

    def __init__(self, shard: Shard, placements: list[Placement]) -> None:
        self.shard = shard
        self.placements = sorted(placements, key=lambda placement: placement.first_row)
        self._first_rows = np.array([p.first_row for p in self.placements], np.int64)
        self._n_rows = np.array([p.n_segments for p in self.placements], np.int64)
        self._track_ids = np.array([p.track_id for p in self.placements], np.int64)
        self._require_rows()
        has_all_rows = self.n_rows == shard.n_segments
        self._alive = None if has_all_rows else self._alive_rows()

    @property
    def n_rows(self) -> int:
        """Number of rows that belong to a track."""
        return int(self._n_rows.sum())

    def among(self, track_ids: Collection[int]) -> _Part:
        return _Part(self.shard, [p for p in self.placements if p.track_id in track_ids])

    def candidates(self, queries: Vectors, effort: _Effort) -> NDArray[np.int64] | None:
        """Find rows among which the nearest are; None if all rows are to be compared."""
        if self._alive is not None and self.n_rows <= _MAX_BRUTE_FORCE_ROWS:
            return None
        return self.shard.candidates(
            queries, effort.k, self._alive, n_rescored=effort.n_rescored, nprobe=effort.nprobe
        )

    def rescore(self, queries: Vectors, rows: NDArray[np.int64] | None, k: int) -> Hits:
        """Compare queries exactly with rows, or with all rows if None."""
        if rows is None:
            return self._compare_with_all(queries, k)
        return Hits(addresses=self._addresses(rows), cosines=self.shard.cosines(queries, rows))

    def rescore_nth(self, queries: Vectors, nth: NDArray[np.int64]) -> Hits:
        """Compare queries exactly with the n-th of its rows; numbers out of range are no hits."""
        rows = np.where((nth >= 0) & (nth < self.n_rows), self._nth_rows(nth), -1)
        return self.rescore(queries, rows, rows.shape[1])

    def vectors(self, first: int, last: int) -> Vectors:
        """Read the first-th to the last-th of its rows, the last one excluded."""
        rows = self._nth_rows(np.arange(first, last))
        ends = np.flatnonzero(np.diff(rows) != 1) + 1
        runs = np.split(rows, ends)
        return np.concatenate([self.shard.vectors(int(run[0]), len(run)) for run in runs])

    def _compare_with_all(self, queries: Vectors, k: int) -> Hits:
        """Compare with all rows exactly, which is quicker than an index if they are few."""
        assert self._alive is not None
        rows = np.flatnonzero(self._alive)
        if not len(rows):
            empty = np.zeros((len(queries), 0))
            return Hits(addresses=empty.astype(np.int64), cosines=empty.astype(np.float32))
        stored = [self.shard.vectors(p.first_row, p.n_segments) for p in self.placements]
        cosines = queries @ np.concatenate(stored).T
        return _top_k(np.broadcast_to(self._addresses(rows), cosines.shape), cosines, k)

    def _addresses(self, rows: NDArray[np.int64]) -> Addresses:
        if not len(self.placements):
            return np.full(rows.shape, NO_ADDRESS, np.int64)
        at = np.searchsorted(self._first_rows, rows, side="right") - 1
        positions = rows - self._first_rows[at]
        addresses = self._track_ids[at] << POSITION_BITS | positions
        return np.where((rows >= 0) & (positions < self._n_rows[at]), addresses, NO_ADDRESS)

    def _nth_rows(self, nth: NDArray[np.int64]) -> NDArray[np.int64]:
        n_before = np.cumsum(self._n_rows) - self._n_rows
        at = (np.searchsorted(n_before, nth, side="right") - 1).clip(min=0)
        return np.asarray(self._first_rows[at] + nth - n_before[at], np.int64)

    def _alive_rows(self) -> NDArray[np.bool_]:
        alive = np.zeros(self.shard.n_segments, np.bool_)
        for p in self.placements:
            alive[p.first_row : p.first_row + p.n_segments] = True
        return alive

    def _require_rows(self) -> None:
        for p in self.placements:
            is_inside = (
                0 <= p.first_row <= p.first_row + p.n_segments <= self.shard.n_segments
                and 0 <= p.first_clip <= p.first_clip + p.n_clips <= self.shard.n_clips
            )
            if not is_inside:
                reason = f"does not have the rows that the database states for track {p.track_id}"
                raise ShardError(self.shard.path, reason)


class _GpuParts:
    """The rows of several parts, numbered consecutively and searched on a GPU."""

    def __init__(self, parts: Sequence[_Part], gpu: Gpu) -> None:
        self._parts = parts
        self._bounds = np.cumsum([0, *(part.n_rows for part in parts)]).tolist()
        self._index = GpuIndex(gpu, self._bounds[-1], parts[0].shard.dim, self._read)

    def search(self, queries: Vectors, k: int) -> Hits:
        rows = self._index.search(queries, min(_GPU_OVERSAMPLING * k, MAX_K))
        first_rows = zip(self._parts, self._bounds, strict=False)
        hits = [part.rescore_nth(queries, rows - first) for part, first in first_rows]
        return _merge(hits, len(queries), k)

    def _read(self, first: int, last: int) -> Vectors:
        pieces = [
            part.vectors(max(first, begin) - begin, min(last, end) - begin)
            for part, (begin, end) in zip(self._parts, pairwise(self._bounds), strict=True)
            if first < end and begin < last
        ]
        return np.concatenate(pieces)


def _merge(hits: Iterable[Hits], n_queries: int, k: int) -> Hits:
    """Keep the k nearest hits of several shards, padded to k."""
    padding = Hits(
        addresses=np.full((n_queries, k), NO_ADDRESS, np.int64),
        cosines=np.full((n_queries, k), -np.inf, np.float32),
    )
    all_hits = (padding, *hits)
    return _top_k(
        np.concatenate([each.addresses for each in all_hits], axis=1),
        np.concatenate([each.cosines for each in all_hits], axis=1),
        k,
    )


def _top_k(addresses: Addresses, cosines: NDArray[np.float32], k: int) -> Hits:
    """Keep the k greatest cosines of each row, in falling order."""
    if cosines.shape[1] > _MAX_SORT_RATIO * k:
        best = np.argpartition(-cosines, k, axis=1)[:, :k]
        addresses = np.take_along_axis(addresses, best, axis=1)
        cosines = np.take_along_axis(cosines, best, axis=1)
    order = np.argsort(-cosines, axis=1, kind="stable")[:, :k]
    return Hits(
        addresses=np.take_along_axis(addresses, order, axis=1),
        cosines=np.take_along_axis(cosines, order, axis=1),
    )
