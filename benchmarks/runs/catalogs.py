"""A catalog of some size: how it is made, what it takes on disk, and what it costs to change it."""

from __future__ import annotations

import shutil
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import soundfile

import astound
from astound.catalog import Catalog
from astound.storage import DATABASE_FILE, local_shards
from benchmarks.queries import datasets
from benchmarks.queries.synthetic import PREFIX, MadeUp
from engine.audio import decode
from engine.config import IngestConfig
from engine.store.store import Store
from engine.vectors.shard import read_header
from engine.vectors.storage import ShardStorage
from indexer.merge import Takeover
from indexer.sources import CatalogSource

N_FORGOTTEN = 1000
MORE_S = 3600.0
_LATER_S = 0.1

# Batches are committed whole, however long they take.
_INGEST = IngestConfig(commit_every_s=3600.0)


@dataclass(frozen=True, kw_only=True)
class Growth:
    """What a catalog is made of.

    Parameters
    ----------
    name : str
        What its folder is called.
    sources : sequence of CatalogSource or MadeUp
    """

    name: str
    sources: Sequence[CatalogSource | MadeUp]

    def build(self, folder: Path) -> dict[str, float]:
        """Take over all tracks that are not there yet.

        Returns
        -------
        dict
            n_segments written now, write_s it took, and draw_s of making tracks up before that.
        """
        astound.open(folder).close()
        began = time.perf_counter()
        with Store.open(folder / DATABASE_FILE) as store:
            before = store.stats().n_segments
            for source in self.sources:
                self._take_over(store, local_shards(folder), source)
            n_segments = store.stats().n_segments - before
        draw_s = sum(one.draw_s for one in self.sources if isinstance(one, MadeUp))
        write_s = time.perf_counter() - began - draw_s
        return {"n_segments": n_segments, "draw_s": draw_s, "write_s": write_s}

    def _take_over(
        self, store: Store, shards: ShardStorage, source: CatalogSource | MadeUp
    ) -> None:
        Takeover(store, shards, _INGEST, self._show).run(source)

    def _show(self, n_done: int, n_all: int) -> None:
        if n_done % 100 == 0 or n_done == n_all:
            counts = f"\r{self.name}: {n_done:,} of {n_all:,} tracks"
            print(counts, end="" if n_done < n_all else "\n", file=sys.stderr, flush=True)


def sizes(folder: Path) -> dict[str, Any]:
    """Count what a catalog holds and the bytes it takes, file name by file name."""
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
    """Count a catalog's shards by how their vectors are kept."""
    shards = local_shards(folder)
    return Counter(str(read_header(shards.path(name))["kind"]) for name in shards.names())


# -- changes -------------------------------------------------------------------------------------


def write_more(folder: Path, paths: Sequence[Path]) -> Path:
    """Write music once more, up to an hour, as files no catalog knows; give their folder.

    They begin a little later than the music does, or they might be the same byte by byte.
    """
    if folder.exists():
        return folder
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    left_s = MORE_S
    for number, path in enumerate(paths):
        waveform = decode.read(path, datasets.RATE, start_s=_LATER_S, end_s=left_s + _LATER_S)
        soundfile.write(partial / f"{number:03}.wav", waveform, datasets.RATE)
        left_s -= len(waveform) / datasets.RATE
        if left_s < 1.0:
            break
    partial.rename(folder)
    return folder


def change(catalog: Catalog, more: Path) -> dict[str, Any]:
    """Add music to a catalog and delete made-up tracks from it.

    Parameters
    ----------
    catalog : Catalog
    more : Path
        A folder of music that it does not know.

    Returns
    -------
    dict
        audio_s and add_s of what was added; n_deleted and delete_s.
    """
    added = catalog.add(more)
    chosen = [one.id for one in catalog.tracks() if one.path.startswith(PREFIX)][:N_FORGOTTEN]
    began = time.perf_counter()
    catalog.delete(chosen)
    delete_s = time.perf_counter() - began
    return {
        "audio_s": added.audio_s,
        "add_s": added.elapsed_s,
        "n_deleted": len(chosen),
        "delete_s": delete_s,
    }
