"""Catalogs to measure: fill and describe them, build them at a size, change them."""

from __future__ import annotations

import shutil
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import soundfile

import astound
from astound.catalog import Catalog
from astound.output.progress import ingest_progress, progress_bar
from astound.storage import DATABASE_FILE, local_shards
from benchmarks.queries import datasets
from benchmarks.queries.synthetic import PREFIX, SyntheticTracks
from benchmarks.runs.progress import log
from engine.audio import decode
from engine.config import IngestConfig
from engine.store.store import Store
from engine.vectors.shard import read_header
from indexer.merge import Merge
from indexer.sources import CatalogSource

N_DELETED = 1000
MORE_S = 3600.0
_SHIFT_S = 0.1

# No commit within a batch, however long it takes.
_INGEST = IngestConfig(commit_every_s=3600.0)


def fill(catalog: Catalog, paths: Sequence[Path], n_jobs: int | None) -> None:
    """Add the recordings that the catalog does not contain, with progress and a summary."""
    with ingest_progress() as update:
        report = catalog.add(paths, config=IngestConfig(n_jobs=n_jobs), on_progress=update)
    log(f"{len(report.added)} added, {len(report.skipped)} known, {len(report.failed)} failed")


def track_ids(catalog: Catalog) -> dict[Path, int]:
    """Return the ids of all tracks by their resolved path."""
    return {Path(track.path).resolve(): track.id for track in catalog.tracks()}


def describe(catalog: Catalog) -> dict[str, Any]:
    """Describe size and recipe, as a dict for JSON."""
    tracks = catalog.tracks()
    return {
        "recipe_id": catalog.recipe_id,
        "catalog": {
            "n_tracks": len(tracks),
            "duration_s": sum(track.duration_s for track in tracks),
        },
    }


# -- catalogs of a given size --------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class CatalogBuilder:
    """Builds a catalog from the tracks of several sources.

    Parameters
    ----------
    name : str
        Name of the catalog in results and messages.
    sources : sequence of CatalogSource or SyntheticTracks
    """

    name: str
    sources: Sequence[CatalogSource | SyntheticTracks]

    def build(self, folder: Path) -> dict[str, float]:
        """Merge all tracks that the catalog does not contain yet.

        Returns
        -------
        dict
            n_segments written by this call, write_s it took, and draw_s to draw synthetic tracks.
        """
        astound.open(folder).close()
        start = time.perf_counter()
        with Store.open(folder / DATABASE_FILE) as store:
            n_before = store.stats().n_segments
            for source in self.sources:
                with progress_bar(f"{self.name}: tracks") as update:
                    Merge(store, local_shards(folder), _INGEST, update).run(source)
            n_segments = store.stats().n_segments - n_before
        draw_s = sum(
            source.draw_s for source in self.sources if isinstance(source, SyntheticTracks)
        )
        write_s = time.perf_counter() - start - draw_s
        return {"n_segments": n_segments, "draw_s": draw_s, "write_s": write_s}


def sizes(folder: Path) -> dict[str, Any]:
    """Count the tracks, segments and shards of a catalog, and its bytes by file name."""
    with Store.open(folder / DATABASE_FILE) as store:
        stats = store.stats()
    n_bytes: Counter[str] = Counter()
    for file in folder.rglob("*"):
        if file.is_file():
            n_bytes[file.name] += file.stat().st_size
    return {
        "n_tracks": stats.n_tracks,
        "n_segments": stats.n_segments,
        "duration_s": stats.duration_s,
        "n_shards": dict(shard_kinds(folder)),
        "n_bytes": dict(n_bytes),
    }


def shard_kinds(folder: Path) -> Counter[str]:
    """Count the shards of a catalog by their kind of storage."""
    shards = local_shards(folder)
    return Counter(str(read_header(shards.path(name))["kind"]) for name in shards.names())


# -- changes -------------------------------------------------------------------------------------


def write_more(folder: Path, paths: Sequence[Path]) -> Path:
    """Write up to an hour of music as new files that no catalog contains; return their folder.

    They start a little later than the originals, as the same audio would be a known track.
    """
    if folder.exists():
        return folder
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    left_s = MORE_S
    for number, path in enumerate(paths):
        waveform = decode.read(path, datasets.RATE, start_s=_SHIFT_S, end_s=left_s + _SHIFT_S)
        soundfile.write(partial / f"{number:03}.wav", waveform, datasets.RATE)
        left_s -= len(waveform) / datasets.RATE
        if left_s < 1.0:
            break
    partial.rename(folder)
    return folder


def change(catalog: Catalog, more: Path) -> dict[str, Any]:
    """Add music to a catalog and delete synthetic tracks from it.

    Parameters
    ----------
    catalog : Catalog
    more : Path
        A folder of music that the catalog does not contain.

    Returns
    -------
    dict
        audio_s and add_s of the music added; n_deleted and delete_s.
    """
    added = catalog.add(more)
    chosen = [track.id for track in catalog.tracks() if track.path.startswith(PREFIX)][:N_DELETED]
    start = time.perf_counter()
    catalog.delete(chosen)
    delete_s = time.perf_counter() - start
    return {
        "audio_s": added.audio_s,
        "add_s": added.elapsed_s,
        "n_deleted": len(chosen),
        "delete_s": delete_s,
    }
