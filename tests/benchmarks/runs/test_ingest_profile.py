from __future__ import annotations

from pathlib import Path

import pytest

import astound
from astound.catalog import Catalog
from benchmarks.runs import ingest_profile
from benchmarks.runs.ingest_profile import Ingest

PARTS = {
    "decode", "resample", "pipe", "features", "network", "clip head", "index write", "database",
    "start, hash, tags",
}  # fmt: skip


def test_add_measures_own_and_decoder_seconds(
    tmp_path: Path, sounds: Path, tiny_model: Path
) -> None:
    paths = sorted((sounds / "music").iterdir())
    broken = tmp_path / "broken.wav"
    broken.write_bytes(b"no audio")
    ingest = Ingest(
        folder=tmp_path / "catalog", paths=[*paths, broken], model=tiny_model, device="cpu", jobs=1
    )
    done = ingest_profile.add(ingest)
    assert (done["n_added"], done["n_failed"]) == (len(paths), 1)
    assert done["audio_s"] == pytest.approx(16.0 * len(paths))
    assert done["cpu_s"]["own"] > 0
    assert done["cpu_s"]["decoders"] > 0  # a Python process takes longer to start than a tick


def test_profile_measures_each_part(small_catalog: Catalog, tmp_path: Path) -> None:
    profile = ingest_profile.profile_parts(small_catalog, tmp_path / "parts", jobs=1)
    assert profile["audio_s"] == pytest.approx(small_catalog.stats().duration_s)
    assert set(profile["parts"]) == PARTS
    timed = {name: one for name, one in profile["parts"].items() if name != "start, hash, tags"}
    assert all(one["wall_s"] > 0 for one in timed.values())
    with astound.open(tmp_path / "parts", create=False) as written:
        assert written.stats().n_segments == small_catalog.stats().n_segments


def test_meter_counts_nested_parts_once() -> None:
    meter = ingest_profile._Meter()
    with meter.part("outer", "inner"), meter.part("inner"):
        sum(range(300_000))
    outer, inner = meter.spent["outer"], meter.spent["inner"]
    assert inner.min() > 0
    assert outer[1] < inner[1]
