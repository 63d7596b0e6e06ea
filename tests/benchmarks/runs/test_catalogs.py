from __future__ import annotations

from pathlib import Path

import pytest
import soundfile

import astound
from astound.catalog import Catalog
from benchmarks.queries.distractors import TRACK_SEGMENTS, Distractors
from benchmarks.runs import catalogs
from benchmarks.runs.catalogs import CatalogBuilder
from benchmarks.runs.corpus import Corpus
from tests.benchmarks.conftest import synthetic_tracks


def test_build_adds_only_missing_tracks(
    corpus: Corpus, distractors: Distractors, tmp_path: Path, tiny_model: Path
) -> None:
    small, large = (
        CatalogBuilder(
            name="a", sources=[corpus.references, synthetic_tracks(corpus, distractors, n)]
        )
        for n in (500, 900)
    )
    assert small.build(tmp_path)["n_segments"] == corpus.n_references + TRACK_SEGMENTS
    assert large.build(tmp_path)["n_segments"] == TRACK_SEGMENTS
    assert large.build(tmp_path)["n_segments"] == 0
    counted = catalogs.sizes(tmp_path)
    on_disk = sum(file.stat().st_size for file in tmp_path.rglob("*") if file.is_file())
    with astound.open(tmp_path, model=tiny_model, device="cpu") as catalog:
        assert catalog.verify() == []
    assert counted["n_segments"] == corpus.n_references + 2 * TRACK_SEGMENTS
    assert counted["n_shards"] == {"flat": 3}
    assert sum(counted["n_bytes"].values()) == on_disk


def test_change_adds_music_and_deletes_synthetic_tracks(
    padded: Catalog, corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalogs, "MORE_S", 20.0)
    more = catalogs.write_more(tmp_path / "more", corpus.paths)
    assert sum(soundfile.info(file).duration for file in more.iterdir()) == pytest.approx(20)
    changed = catalogs.change(padded, more)
    assert changed["audio_s"] == pytest.approx(20)
    assert changed["n_deleted"] == 2
    assert {Path(track.path).suffix for track in padded.tracks()} == {".wav"}
    assert len(padded.tracks()) == len(corpus.paths) + 2
