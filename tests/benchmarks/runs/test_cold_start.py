from __future__ import annotations

from pathlib import Path

import pytest

import astound
from benchmarks.runs import cold_start
from tests.audio_files import cached_tune, write_wav


def test_memory_of_this_process_is_consistent() -> None:
    memory = cold_start.memory_bytes()
    assert 0 < memory["anonymous"] < memory["rss"] <= memory["peak_rss"]


def test_relative_paths_mean_the_same_in_the_child(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_wav(tmp_path / "tune.wav", cached_tune(1, 8.0), 8000)
    with astound.open("catalog", device="cpu") as catalog:
        catalog.add("tune.wav")
    options = cold_start.OpenOptions(folder="catalog", model=None, device="cpu")
    found = cold_start.query(options, {"clean": [Path("tune.wav")]})
    assert found["latency"].keys() == {"clean"}
