from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.peers import astound_peer
from benchmarks.suites import peers
from benchmarks.suites.peers import PeersConfig, run
from engine.errors import ConfigError


@pytest.fixture
def config(sounds: Path, tmp_path: Path, tiny_model: Path) -> PeersConfig:
    return PeersConfig(
        references=[sounds / "music"],
        noise=sounds / "noise",
        out=tmp_path / "out",
        peers=("astound", "olaf"),
        commands={"olaf": "/nowhere/olaf"},
        n_queries=2,
        hold_out=0.4,
        jobs=1,
        model=tiny_model,
        device="cpu",
    )


@pytest.mark.slow
def test_run_compares_systems_and_resumes(
    config: PeersConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(astound_peer, "code_id", lambda _: "this code")
    results = run(config)
    astound = results["systems"]["astound"]
    cells = {cell["cell"]: cell for cell in astound["cells"]}
    assert "room5 5 s" not in cells  # no rooms were given
    assert cells["clean 5 s"]["present"]["exact"]["n_yes"] == 2
    assert cells["clean 5 s"]["absent"]["false_accept_rate"]["n"] == 2
    assert (results["n_references"], results["n_absent"]) == (3, 2)
    assert astound["latency"]["n"] == 4 * len(cells)
    assert astound["bytes_per_audio_s"] > 0
    assert all(taken_s > 0 for taken_s in astound["batch_s"])
    assert "program /nowhere/olaf not found" in results["left_out"]["olaf"]
    olaf = [line for line in results["table"].splitlines() if line.startswith("| olaf ")]
    assert "not measured" in olaf[-1]
    assert (config.out / "queries" / "noise0-2-s" / "present-00001.wav").is_file()
    assert json.loads((config.out / "peers.json").read_text())["table"] == results["table"]
    # Measured systems are not measured again.
    monkeypatch.setattr(peers, "run_in_process", lambda *_: pytest.fail("measured again"))
    assert run(config)["systems"] == results["systems"]
    with pytest.raises(ConfigError, match="other settings"):
        run(replace(config, n_queries=3))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"peers": ("shazam",)}, "peers='shazam': must be"),
        ({"commands": {"astound": "x"}}, "command='astound': must be"),
        ({"hold_out": 1.0}, "hold_out"),
        ({"n_queries": 0}, "at least 1"),
    ],
)
def test_invalid_settings_are_refused(changes: dict[str, object], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        PeersConfig(references=[Path("music")], out=Path("out"), **changes)  # type: ignore[arg-type]
