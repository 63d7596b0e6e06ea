"""Catalogs of composed music for tests that need no encoder: quick to make in any process."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
from numpy.typing import NDArray

import astound
from astound.catalog import Catalog
from engine.config import IngestConfig
from engine.errors import AudioTooShortError
from engine.records import Fingerprint, Placement, Vectors, Waveform
from engine.search.calibration import Calibration
from engine.store.tables import Base
from engine.vectors.index import Index
from engine.vectors.shard import write_shard
from indexer.sources import CatalogSource
from tests.audio_files import cached_tune, write_wav

RATE = 8000
TUNE_S = 4.0
N_TUNES = 12
ONE_A_SHARD = IngestConfig(n_jobs=1, max_segments=1)
_N_BANDS = 32


class Spectra:
    """Fingerprints without any model: how loud each band is in every second."""

    recipe_id = "0123456789abcdef"
    sample_rate = RATE
    segment_s = 1.0

    def metadata(self) -> Mapping[str, Any]:
        return {"name": "spectra"}

    def hop_within(self, hop_s: float, whole_s: float) -> float:
        return whole_s / np.ceil(whole_s / hop_s - 1e-9)

    def fingerprint(
        self, blocks: Iterable[Waveform], segment_hop_s: float, source: str = "array"
    ) -> Fingerprint:
        waveform = np.concatenate(list(blocks))
        if len(waveform) < RATE:
            raise AudioTooShortError(source, len(waveform) / RATE, self.segment_s)
        windows = np.lib.stride_tricks.sliding_window_view(waveform, RATE)
        embeddings = _bands(windows[:: round(segment_hop_s * RATE)])
        return Fingerprint(
            embeddings=embeddings,
            clip_embeddings=_unit(embeddings[::5] + embeddings.mean(axis=0)),
            segment_hop_s=segment_hop_s,
            segment_s=self.segment_s,
            duration_s=len(waveform) / RATE,
            recipe_id=self.recipe_id,
        )


class OtherSpectra(Spectra):
    """The same under another recipe."""

    recipe_id = "fedcba9876543210"


def _bands(windows: NDArray[np.float32]) -> Vectors:
    power = np.abs(np.fft.rfft(windows, axis=1))[:, 50:2000] ** 2
    edges = np.geomspace(1, power.shape[1] - 1, _N_BANDS).astype(int)
    bands = np.log(np.add.reduceat(power, np.unique(edges), axis=1) + 1e-6)
    return _unit(bands - bands.mean(axis=1, keepdims=True))


def _unit(vectors: NDArray[Any]) -> Vectors:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def open_catalog(
    folder: str | os.PathLike[str], database: str | None = None, model: Spectra | None = None
) -> Catalog:
    """Open or make a catalog that fingerprints with :class:`Spectra`."""
    model = model or Spectra()
    sure = Calibration(recipe_id=model.recipe_id, weights=(1.0, *[0.0] * 8), min_confidence=0.1)
    return astound.open(folder, model=model, calibration=sure, database=database)


def add(catalog: Catalog, music: Path, numbers: Sequence[int]) -> None:
    """Add some of the tunes, a shard for each, and note something about them."""
    paths = [str(music / f"{number}.wav") for number in numbers]
    noted = {path: {"title": f"Tune {Path(path).stem}", "mood": "calm"} for path in paths}
    report = catalog.add(paths, metadata=noted, config=ONE_A_SHARD)
    assert not report.failed


def clip(number: int) -> Waveform:
    """Three seconds of a tune."""
    return cached_tune(number, TUNE_S)[RATE // 2 : RATE // 2 + 3 * RATE]


def found(catalog: Catalog, number: int) -> str | None:
    """Name of the file that a part of a tune is a copy of."""
    best = catalog.query(clip(number), RATE, min_confidence=0.0).best
    return Path(best.path).name if best and best.score > 0.9 else None


Contents = dict[str, tuple[Any, ...]]


def contents(catalog: Catalog) -> Contents:
    """All a catalog knows of each path but ids and times, read without any code under test."""
    placements = {one.track_id: one for one in catalog._store.placements()}
    index = Index(catalog._shards, list(placements.values()), catalog.recipe_id)
    return {
        track.path: (
            track.content_hash,
            track.title,
            dict(track.metadata),
            track.duration_s,
            index.vectors(track.id, 0, placements[track.id].n_segments).tobytes(),
            index.clips(track.id).tobytes(),
        )
        for track in catalog.tracks()
    }


def compact(catalog: Catalog, rows: list[Placement] | None = None) -> None:
    """Move all tracks to one new shard and delete the others, as another process may."""
    store, shards = catalog._store, catalog._shards
    rows = store.placements() if rows is None else rows
    source = CatalogSource("old", store, shards)
    index = Index(shards, rows, catalog.recipe_id)
    written = write_shard(shards, (source._batch(index, [one]).read(0) for one in rows))
    store.move_tracks(written, [one.track_id for one in rows], dropping=store.shard_names())
    shards.sweep([written.name])


DatabaseRows = dict[str, list[dict[str, Any]]]


def database_rows(catalog: Catalog) -> DatabaseRows:
    """All rows of the database, by table."""
    with catalog._store._reading() as connection:
        return {
            table.name: [dict(row) for row in connection.execute(sa.select(table)).mappings()]
            for table in Base.metadata.sorted_tables
        }


def replace_rows(catalog: Catalog, rows: DatabaseRows | None = None) -> None:
    """Bring back rows of an older database, or lose all, as if it had been made anew."""
    tables = Base.metadata.sorted_tables
    with catalog._store._writing() as connection:
        for table in reversed(tables):
            is_lost = table.c.key != "n_changes" if table.name == "settings" else sa.true()
            connection.execute(sa.delete(table).where(is_lost))
        for table in tables:
            old = [row for row in (rows or {}).get(table.name, []) if row.get("key") != "n_changes"]
            if old:
                connection.execute(sa.insert(table), old)


def shard_of(catalog: Catalog, track_id: int) -> Path:
    """The folder of the shard a track lies in."""
    (name,) = {one.shard for one in catalog._store.placements() if one.track_id == track_id}
    return catalog._shards.path(name)


def shards_on_disk(catalog: Catalog) -> set[str]:
    """Names of all there is in the folder of shards."""
    return set(catalog._shards.names())


def flip_a_byte(path: Path, share: float = 2 / 3) -> None:
    """Change one bit of a file."""
    content = bytearray(path.read_bytes())
    content[int(len(content) * share)] ^= 1
    path.write_bytes(content)


@pytest.fixture(scope="session")
def tunes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of 0.wav, 1.wav, ...; not to be changed."""
    folder = tmp_path_factory.mktemp("tunes")
    for number in range(N_TUNES):
        write_wav(folder / f"{number}.wav", cached_tune(number, TUNE_S), RATE)
    return folder
