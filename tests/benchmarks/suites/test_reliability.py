from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.queries.datasets import RATE
from benchmarks.queries.mutations import FORMATS, encode
from benchmarks.runs.mutated_weights import MutatedWeights
from benchmarks.suites import reliability
from benchmarks.suites.reliability import ReliabilityConfig
from engine.audio.source import open_source
from engine.errors import ConfigError


@pytest.mark.parametrize("name", FORMATS)
def test_intact_files_are_read_to_their_ends(name: str, tmp_path: Path) -> None:
    clip = 0.1 * np.random.default_rng(0).standard_normal(5 * RATE).astype(np.float32)
    path = tmp_path / "clip"
    path.write_bytes(encode(clip, *FORMATS[name]))
    assert sum(map(len, open_source(path, RATE))) / RATE == pytest.approx(5.0, abs=0.15)


def test_campaign_counts_every_input_and_resumes(tiny_weights: Path, tmp_path: Path) -> None:
    counts = {"n_audio": 6, "n_storage": 4, "n_rows": 4, "n_weights": 8, "n_kills": 2, "n_disks": 0}
    config = ReliabilityConfig(out=tmp_path, model=tiny_weights, **counts)
    report = reliability.run(config)
    assert report["n_faults"] == 0, report["table"]
    journal = (tmp_path / "inputs.jsonl").read_text().splitlines()
    assert len(journal) == 1 + sum(counts.values())
    (tmp_path / "inputs.jsonl").write_text("\n".join(journal[:8]) + "\n")
    again = reliability.run(config)
    assert again == report
    with pytest.raises(ConfigError, match="settings"):
        reliability.run(replace(config, n_audio=5))


def test_hang_of_a_process_is_counted(
    tiny_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hang(*_: object) -> None:
        raise TimeoutError("took more than 60 s of processor time")

    monkeypatch.setattr(MutatedWeights, "try_one", hang)
    others = dict.fromkeys(("n_audio", "n_storage", "n_rows", "n_kills", "n_disks"), 0)
    config = ReliabilityConfig(out=tmp_path, model=tiny_weights, n_weights=1, **others)
    assert reliability.run(config)["n_faults"] == 1
    assert "hang: hang, took more" in (tmp_path / "reliability.md").read_text()
