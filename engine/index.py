"""All shards of a catalog searched as one, with the rows of deleted tracks left out."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from copy import copy
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engine.errors import ShardError
from engine.records import NO_ADDRESS, Addresses, Hits, Placement, Vectors, address
from engine.shard import Shard


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

    def search(self, queries: Vectors, top_k: int) -> Hits:
        """Find the nearest segments of all tracks.

        Parameters
        ----------
        queries : float32 array of shape (n_queries, dim), unit norm
        top_k : int

        Returns
        -------
        Hits
            Of shape (n_queries, top_k).
        """
        found = [member.search(queries, top_k) for member in self._members]
        nothing = np.full((len(queries), top_k), NO_ADDRESS, np.int64)
        addresses = np.concatenate([nothing, *(one for one, _ in found)], axis=1)
        worst = np.full((len(queries), top_k), -np.inf, np.float32)
        cosines = np.concatenate([worst, *(one for _, one in found)], axis=1)
        best = np.argsort(-cosines, axis=1, kind="stable")[:, :top_k]
        return Hits(
            addresses=np.take_along_axis(addresses, best, axis=1),
            cosines=np.take_along_axis(cosines, best, axis=1),
        )

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
        last = placement.first_clip + placement.n_clips
        return shard.clips[placement.first_clip : last].astype(np.float32)


class _Member:
    """A shard with the addresses of its rows."""

    def __init__(self, shard: Shard, placements: list[Placement]) -> None:
        self.shard, self.placements = shard, placements
        self.addresses = _addresses(self.shard, placements)
        alive: NDArray[np.bool_] = self.addresses != NO_ADDRESS
        self.alive = None if alive.all() else alive

    def among(self, track_ids: Collection[int]) -> _Member:
        return _Member(self.shard, [one for one in self.placements if one.track_id in track_ids])

    def search(self, queries: Vectors, top_k: int) -> tuple[Addresses, NDArray[np.float32]]:
        rows, cosines = self.shard.search(queries, top_k, self.alive)
        found = rows >= 0
        return np.where(found, self.addresses[rows], NO_ADDRESS), np.where(found, cosines, -np.inf)


def _addresses(shard: Shard, placements: list[Placement]) -> Addresses:
    out = np.full(shard.n_segments, NO_ADDRESS, np.int64)
    for placement in placements:
        last = placement.first_row + placement.n_segments
        if last > shard.n_segments:
            raise ShardError(shard.path, f"it ends before track {placement.track_id} does")
        first = address(placement.track_id, 0)
        out[placement.first_row : last] = np.arange(first, first + placement.n_segments)
    return out
