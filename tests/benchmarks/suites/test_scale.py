from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.metrics import recall
from benchmarks.queries.distractors import TRACK_SEGMENTS
from benchmarks.suites import scale
from benchmarks.suites.scale import ScaleConfig
from engine.errors import ConfigError
from tests.benchmarks.conftest import N_OTHERS, OTHER_SEGMENTS, REFERENCE_SEGMENTS


@pytest.mark.slow
def test_run_measures_all_sizes_and_resumes(
    two_catalogs: Path, sounds: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, fewer in (("LABELS", ("noise0",)), ("DURATIONS_S", (3.0, 5.0)), ("N_PROBES", (4,))):
        monkeypatch.setattr(recall, name, fewer)
    config = ScaleConfig(
        references=[sounds / "music"], distractors_from=two_catalogs / "others",
        noise=sounds / "noise", rooms=sounds / "rooms",
        out=two_catalogs / "scale.json", n_segments=(1300,), n_queries=1,
        storage="codes", model=tiny_model, device="cpu", jobs=1, docs=two_catalogs / "docs",
    )  # fmt: skip
    results = scale.run(config)
    assert json.loads(config.out.read_text()) == json.loads(json.dumps(results))
    n_references = 5 * REFERENCE_SEGMENTS
    n_real = n_references + N_OTHERS * OTHER_SEGMENTS
    names = [one["name"] for one in results["sizes"]]
    assert names == ["references", "real", "made-up-1300"]  # less than a made-up track between
    real, largest = results["sizes"][1], results["sizes"][-1]
    assert real["n_segments"] == n_real
    assert largest["n_segments"] == n_references + 2 * TRACK_SEGMENTS
    assert largest["n_shards"] == {"codes": 1}
    assert [row["n_probe"] for row in largest["efforts"]] == [None, 4]
    assert [cell["present"]["hit_rate"]["n"] for cell in largest["cells"]] == [1, 1]
    assert largest["change"]["n_deleted"] == 2
    assert (two_catalogs / "docs" / "scale.md").exists()
    assert not (config.work_folder / "real-catalog").exists()

    before = {file: file.stat().st_mtime_ns for file in config.work_folder.glob("*.jsonl")}
    again = scale.run(config)["sizes"]
    assert json.loads(json.dumps(again)) == json.loads(json.dumps(results["sizes"]))
    assert {file: file.stat().st_mtime_ns for file in before} == before
    with pytest.raises(ConfigError, match="other settings \\(seed 1, now 2\\)"):
        scale.run(replace(config, seed=2))


@pytest.mark.parametrize(
    "changes",
    [
        {"n_queries": 0},
        {"n_exact": 0},
        {"n_segments": ()},
        {"n_segments": (0, 5)},
        {"storage": "x"},
    ],
)
def test_invalid_settings_are_refused(changes: dict[str, Any]) -> None:
    nowhere = Path("nowhere")
    with pytest.raises(ConfigError, match=next(iter(changes))):
        ScaleConfig(
            references=[nowhere], distractors_from=nowhere, noise=nowhere, rooms=nowhere,
            out=nowhere, **changes,
        )  # fmt: skip
