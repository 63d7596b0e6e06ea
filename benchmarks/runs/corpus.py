"""The real music for catalogs of all sizes: references, and tracks of another catalog."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from astound.storage import DATABASE_FILE, local_shards
from engine.errors import ConfigError, RecipeMismatchError
from engine.records import Placement, Vectors
from engine.store.store import Store
from indexer.sources import CatalogSource

_MAX_OTHERS = 400_000


class Corpus:
    """Tracks of two catalogs.

    Parameters
    ----------
    references, others : Path
        Folders of the catalogs. Tracks in both are references.
    n_segments : int
        Upper limit for the segments of all references together.
    seed : int
        Seed for choosing references.

    Raises
    ------
    ConfigError
        Every reference is longer than `n_segments`.
    RecipeMismatchError
        The catalogs were made with different recipes.
    """

    def __init__(self, references: Path, others: Path, n_segments: int, seed: int) -> None:
        self._stack = ExitStack()
        own, other = (self._open(folder) for folder in (references, others))
        placements = own.placements()
        reference_ids = _choose(placements, n_segments, seed)
        if not reference_ids:
            raise ConfigError.invalid(
                "n_segments", n_segments, "must be at least the length of one reference"
            )
        self.references = CatalogSource("references", own, local_shards(references), reference_ids)
        self.paths = sorted(Path(track.path).resolve() for track in own.tracks(reference_ids))
        self.n_references = _n_segments(placements, reference_ids)
        known = {track.content_hash for track in own.tracks()}
        unknown = {track.id for track in other.tracks() if track.content_hash not in known}
        remaining = [placement for placement in other.placements() if placement.track_id in unknown]
        chosen = _choose(remaining, _MAX_OTHERS, seed)
        self.others = CatalogSource(f"catalog {others}", other, local_shards(others), chosen)
        self.n_others = _n_segments(remaining, chosen)
        self._require_same_recipe()

    def _open(self, folder: Path) -> Store:
        return self._stack.enter_context(Store.open(folder / DATABASE_FILE))

    def _require_same_recipe(self) -> None:
        expected, found = self.recipe_id, self.others.settings.get("recipe_id", "none")
        if expected != found:
            raise RecipeMismatchError(expected, found, self.others.name)

    def __enter__(self) -> Corpus:
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

    @property
    def recipe_id(self) -> str:
        """Recipe of all fingerprints."""
        return self.references.settings["recipe_id"]

    @property
    def about(self) -> dict[str, Any]:
        """Describe the music, as a dict for JSON."""
        return {
            "recipe_id": self.recipe_id,
            "references": {"n_tracks": len(self.paths), "n_segments": self.n_references},
            "others": {"n_tracks": self.others.n_tracks, "n_segments": self.n_others},
        }

    def other_embeddings(self) -> list[Vectors]:
        """Read the embeddings of the other tracks, each of shape (n_segments, dim)."""
        return [
            batch.read(number).embeddings
            for batch in self.others.batches()
            for number in range(len(batch.tracks))
        ]


def _choose(placements: Sequence[Placement], max_segments: int, seed: int) -> list[int]:
    """Choose random tracks with at most `max_segments` segments together."""
    chosen, n_segments = [], 0
    for i in np.random.default_rng(seed).permutation(len(placements)):
        if n_segments + placements[i].n_segments <= max_segments:
            chosen.append(placements[i].track_id)
            n_segments += placements[i].n_segments
    return chosen


def _n_segments(placements: Sequence[Placement], track_ids: Sequence[int]) -> int:
    ids = set(track_ids)
    return sum(placement.n_segments for placement in placements if placement.track_id in ids)
