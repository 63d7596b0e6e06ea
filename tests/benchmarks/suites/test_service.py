from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.suites import service
from benchmarks.suites.service import ServiceBenchmarkConfig


@pytest.mark.slow
def test_run_measures_everything(
    tmp_path: Path, sounds: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "_N_HEALTH", 3)
    monkeypatch.setattr(service, "_N_ROUNDS", 1)
    monkeypatch.setattr(service, "_TOO_LONG_S", 5.0)
    config = ServiceBenchmarkConfig(
        references=[sounds / "music"], out=tmp_path / "service.json", n_queries=2, n_clients=2,
        n_at_once=20, upload_bytes=3_000_000, limit_bytes=1_000_000, model=tiny_model,
        device="cpu", jobs=1,
    )  # fmt: skip
    results = service.run(config)
    assert json.loads(config.out.read_text()) == json.loads(json.dumps(results))
    assert results["answers"]["n_different"] == 0
    assert results["clients"]["n_errors"] == 0
    assert results["at_once"]["n_unexpected"] == 0
    assert sum(results["at_once"]["statuses"].values()) == 20
    assert results["upload"]["status"] == 422
    assert results["oversized"]["status"] == 413
    assert 0 < results["oversized"]["n_written"] < 2_100_000
    assert results["end"]["exit_code"] == results["end_too_long"]["exit_code"] == 0
    assert (results["end"]["status"], results["end"]["n_streams"]) == (200, 5)
    assert results["table"].count("\n") == 13
