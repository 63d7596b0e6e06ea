from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from benchmarks.protocols.nafp import NafpConfig, layout, run
from engine.errors import ConfigError
from tests.audio_files import cached_tune

RATE = 8000
TUNE_S = 14.0
N_SEGMENTS = 27


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set laid out as that of the paper: queries are the recordings with a little noise."""
    folder = tmp_path_factory.mktemp("nafp")
    test = folder / "music" / "test-query-db-500-30s"
    dummies = folder / "music" / "test-dummy-db-100k-full" / "000"
    for each in (test / "query" / "a", test / "db" / "a", dummies):
        each.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for seed in range(2):
        tune = cached_tune(seed, TUNE_S, RATE)
        soundfile.write(test / "db" / "a" / f"{seed}.wav", tune, RATE)
        degraded = tune + rng.normal(0, 1e-4, len(tune)).astype(np.float32)
        soundfile.write(test / "query" / "a" / f"noisy-{seed}.wav", degraded, RATE)
        soundfile.write(dummies / f"{seed}.wav", cached_tune(seed + 40, TUNE_S, RATE), RATE)
    return folder


def _config(data: Path, out: Path, model: Path, **changes: Any) -> NafpConfig:
    config = NafpConfig(data=data, out=out, n_queries=3, model=model, device="cpu", jobs=1)
    return replace(config, **changes)


def test_run_measures_every_length_and_resumes(
    data: Path, tmp_path: Path, tiny_model: Path
) -> None:
    config = _config(data, tmp_path, tiny_model)
    results = run(config)
    assert results["catalog"]["n_tracks"] == 4
    assert results["n_dummies"] == 2
    cells = results["cells"]
    assert [cell["cell"] for cell in cells] == ["1 s", "2 s", "3 s", "5 s", "6 s", "10 s"]
    for name in ("exact", "near", "hit_rate"):
        assert cells[-1]["present"][name]["n_yes"] == 3
    journal = tmp_path / "nafp.jsonl"
    whole = journal.read_text()
    journal.write_text("".join(whole.splitlines(keepends=True)[:9]))  # one id and a part of another
    assert run(config)["cells"] == cells
    assert journal.read_text() == whole


def test_ids_are_counted_through_all_files(data: Path, tmp_path: Path, tiny_model: Path) -> None:
    ids = tmp_path / "ids.npy"
    np.save(ids, [0, N_SEGMENTS + 4, 20])  # the last would run into the second file
    results = run(_config(data, tmp_path / "out", tiny_model, test_ids=ids))
    assert (results["n_test_ids"], results["n_left_out"]) == (2, 1)
    text = (tmp_path / "out" / "nafp.jsonl").read_text()
    assert '"query_id": "0-0"' in text
    assert '"query_id": "1-4"' in text
    assert '"true_start_s": 2.0' in text
    assert results["cells"][-1]["present"]["exact"]["n_yes"] == 2


@pytest.mark.parametrize("ids", [[0.5], [-1], [2 * N_SEGMENTS], [[1]]])
def test_invalid_ids_are_refused(
    data: Path, tmp_path: Path, tiny_model: Path, ids: list[Any]
) -> None:
    np.save(tmp_path / "ids.npy", ids)
    config = _config(data, tmp_path / "out", tiny_model, test_ids=tmp_path / "ids.npy")
    with pytest.raises(ConfigError, match="integers below 54"):
        run(config)


def test_layout_accepts_plain_folders(tmp_path: Path) -> None:
    for name in ("query", "db", "dummy"):
        (tmp_path / name).mkdir()
        soundfile.write(tmp_path / name / "a.wav", np.zeros(100), RATE)
    files = layout(tmp_path)
    assert [path.parent.name for path in (*files.queries, *files.references, *files.dummies)] == [
        "query",
        "db",
        "dummy",
    ]


def test_layout_numbers_must_be_equal(tmp_path: Path) -> None:
    for name in ("query", "db"):
        (tmp_path / name).mkdir()
    soundfile.write(tmp_path / "query" / "a.wav", np.zeros(100), RATE)
    with pytest.raises(ConfigError, match="1 queries and 0 references"):
        layout(tmp_path)


def test_layout_without_queries_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="0 folders with query and db"):
        layout(tmp_path)
