"""The catalog that is measured: filling it, and what it knows afterwards."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from astound.catalog import Catalog
from astound.output.progress import ingest_progress
from engine.config import IngestConfig


def fill(catalog: Catalog, paths: Sequence[Path], n_jobs: int | None) -> None:
    """Add what the catalog does not know yet, and say how that went."""
    with ingest_progress() as tell:
        done = catalog.add(paths, config=IngestConfig(n_jobs=n_jobs), on_progress=tell)
    counts = f"{len(done.added)} added, {len(done.skipped)} known, {len(done.failed)} failed"
    print(counts, file=sys.stderr, flush=True)


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
