from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import astound
from benchmarks.suites import gpu
from benchmarks.suites.gpu import GpuConfig
from engine.errors import ConfigError
from tests.audio_files import cached_tune, write_wav
from tests.gpus import OnCpu

N_TUNES = 3
TUNE_S = 60.0
RATE = 8000


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    folder = tmp_path_factory.mktemp("gpu")
    paths = [
        write_wav(folder / f"{seed}.wav", cached_tune(seed, TUNE_S, RATE), RATE)
        for seed in range(N_TUNES)
    ]
    with astound.open(folder / "catalog", model=tiny_model, device="cpu") as catalog:
        catalog.add(paths)
    return folder / "catalog"


def test_too_few_vectors_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="20000"):
        GpuConfig(distractors_from=tmp_path, out=tmp_path / "out.json", n_vectors=10)


@pytest.mark.slow
@pytest.mark.parametrize("has_gpu", [False, True])
def test_run_measures_each_search(
    catalog: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_gpu: bool
) -> None:
    monkeypatch.setattr("engine.vectors.gpu.find", lambda _: OnCpu() if has_gpu else None)
    out = tmp_path / "out.json"
    config = GpuConfig(distractors_from=catalog, out=out, n_vectors=20_000, n_queries=50)
    results = gpu.run(config)
    names = [row["name"] for row in results["searches"]]
    recalls = np.array([row["recall"] for row in results["searches"]])
    assert json.loads(out.read_text()) == results
    assert names == [*["GPU, all vectors"][: int(has_gpu)], "astound, CPU", "IVF-PQ, CPU"]
    assert (recalls[: int(has_gpu)] > 0.99).all()
    assert ((recalls > 0.2) & (recalls <= 1)).all()  # three tunes are similar
    assert results["build"]["n_bytes"] > 20_000 * 16
    assert not (config.work_folder / "shards").exists()
    assert all(name in results["tables"]["searches"] for name in names)
