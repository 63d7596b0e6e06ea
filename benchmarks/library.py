"""The catalog that is measured: filling it, and what it knows afterwards."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from astound.catalog import SHARDS_FOLDER, Catalog
from astound.settings import DATABASE_FILE
from engine.config import IngestConfig
from engine.records import Placement, Vectors
from engine.shard import Shard
from engine.store import Store


def fill(catalog: Catalog, paths: Sequence[Path], n_jobs: int | None) -> None:
    """Add what the catalog does not know yet, and say how that went."""
    done = catalog.add(paths, config=IngestConfig(n_jobs=n_jobs))
    counts = f"{len(done.added)} added, {len(done.skipped)} known, {len(done.failed)} failed"
    print(counts, file=sys.stderr, flush=True)
    for failure in done.failed:
        print(f"  {Path(failure.path).name}: {failure.reason}", file=sys.stderr, flush=True)


def track_ids(catalog: Catalog) -> dict[Path, int]:
    """Ids of all tracks by their resolved path."""
    return {Path(track.path).resolve(): track.id for track in catalog.tracks()}


def describe(catalog: Catalog) -> dict[str, Any]:
    """Size and recipe, as a plain dict for JSON."""
    tracks = catalog.tracks()
    return {
        "recipe_id": catalog.recipe_id,
        "catalog": {
            "n_tracks": len(tracks),
            "duration_s": sum(track.duration_s for track in tracks),
        },
    }


@dataclass(frozen=True, kw_only=True)
class StoredClips:
    """The clip-level embeddings of all tracks, those of one track side by side.

    Parameters
    ----------
    track_ids : int64 array of shape (n_tracks,)
    first_rows : int64 array of shape (n_tracks,)
        Where the clips of each track begin.
    embeddings : float32 array of shape (n_clips, dim)
    """

    track_ids: NDArray[np.int64]
    first_rows: NDArray[np.int64]
    embeddings: Vectors

    @classmethod
    def read(cls, folder: Path) -> StoredClips:
        """Read them from the folder of a catalog whose database is the SQLite file in it."""
        with Store.open(folder / DATABASE_FILE) as store:
            placements = [placement for placement in store.placements() if placement.n_clips]
        shards = {one.shard: Shard(folder / SHARDS_FOLDER / one.shard) for one in placements}
        rows = [_clips(shards[placement.shard], placement) for placement in placements]
        n_clips = np.array([len(one) for one in rows], np.int64)
        return cls(
            track_ids=np.array([placement.track_id for placement in placements], np.int64),
            first_rows=np.cumsum(n_clips) - n_clips,
            embeddings=np.concatenate(rows).astype(np.float32),
        )

    def cosines(self, query: NDArray[np.float32]) -> NDArray[np.float32]:
        """Compare one clip with each track's most similar one.

        Parameters
        ----------
        query : float32 array of shape (dim,), unit norm

        Returns
        -------
        float32 array of shape (n_tracks,)
        """
        return np.maximum.reduceat(self.embeddings @ query, self.first_rows)


def _clips(shard: Shard, placement: Placement) -> NDArray[np.float16]:
    return shard.clips[placement.first_clip : placement.first_clip + placement.n_clips]
