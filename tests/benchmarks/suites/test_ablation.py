from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from benchmarks.suites import ablation
from benchmarks.suites.ablation import VARIANTS, Variant
from tests.benchmarks.markdown import rows
from tests.training.sounds import CONFIG, RECIPE
from training.sources import RECORDED, Sources
from training.train import Samplers

TINY = {
    "base": Variant(CONFIG, RECIPE),
    "other": Variant(dataclasses.replace(CONFIG, loss="triplet"), RECIPE),
    "tunes": Variant(CONFIG, RECIPE, ("tunes",)),
}


@pytest.fixture
def arguments(
    sources: Sources, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, brief: None
) -> list[str]:
    monkeypatch.setattr(ablation, "VARIANTS", TINY)
    monkeypatch.setattr(ablation, "BASE", CONFIG)
    folders = {kind: getattr(sources, kind) for kind in RECORDED} | {
        "cache": tmp_path / "cache",
        "out": tmp_path / "found.json",
    }
    given = [part for name, path in folders.items() for part in (f"--{name}", str(path))]
    return [*given, "--budget-s", "0.2"]


def test_main_runs_missing_variants_and_prints_all(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ablation.main([*arguments, "--only", "base"])
    first = json.loads((tmp_path / "found.json").read_text())
    assert list(first) == ["base"]
    assert first["base"]["n_steps"] >= 1
    assert 0 <= first["base"]["mean"] <= 1
    first["base"]["n_steps"] = 12345
    (tmp_path / "found.json").write_text(json.dumps(first))
    capsys.readouterr()
    ablation.main(arguments)
    both = json.loads((tmp_path / "found.json").read_text())
    assert list(both) == ["base", "other"]
    assert both["base"] == first["base"]
    table = rows(capsys.readouterr().out)
    assert [row[0] for row in table] == ["", "base", "other"]
    assert table[1][1] == "12345"


def test_variants_with_synthetic_music_need_its_folder(
    arguments: list[str],
    sources: Sources,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    n_tracks = []

    def run(variant: Variant, samplers: Samplers, budget_s: float) -> dict[str, float]:
        n_tracks.append(len(samplers.training.tracks))
        return {"n_steps": 1, "loss": 0.0, "mean": 0.0}

    monkeypatch.setattr(ablation, "run", run)
    ablation.main([*arguments, "--only", "base", "tunes"])
    assert "tunes: left out, needs --tunes" in caplog.text
    ablation.main([*arguments, "--only", "tunes", "--tunes", str(sources.noise)])
    assert n_tracks == [n_tracks[0], n_tracks[0] + 1]


def test_variants_differ_and_have_valid_recipes() -> None:
    variants = list(VARIANTS.values())
    assert len(set(map(repr, variants))) == len(variants) > 10
    for variant in variants:
        variant.recipe.spectrogram.frames_per_hop(0.25)


def test_help_names_the_module(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        ablation.main(["--help"])
    assert exit_.value.code == 0
    assert "python -m benchmarks.suites.ablation" in capsys.readouterr().out
