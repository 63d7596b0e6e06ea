from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.suites import speed
from benchmarks.suites.speed import SpeedConfig


@pytest.mark.slow
def test_run_measures_everything(tmp_path: Path, sounds: Path, tiny_model: Path) -> None:
    config = SpeedConfig(
        references=[sounds / "music"], out=tmp_path / "speed.json", n_queries=3, n_askers=(1, 3),
        model=tiny_model, device="cpu", jobs=1,
    )  # fmt: skip
    results = speed.run(config)
    assert json.loads(config.out.read_text()) == json.loads(json.dumps(results))
    assert results["ingest"]["n_added"] == 5
    assert results["query_file"]["n"] == 3
    assert [(one["n_askers"], one["n"]) for one in results["askers"]] == [(1, 4), (3, 12)]
    assert all(one["n_different"] == 0 for one in results["askers"])
    assert all(one["peak_rss_bytes"] > 2**20 for one in results["askers"])
    assert set(results["tables"]) == {"ingest", "query", "askers"}
