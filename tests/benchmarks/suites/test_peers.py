from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.metrics.outcomes import Outcome
from benchmarks.peers import astound_peer
from benchmarks.peers.peer import Answer
from benchmarks.peers.query_files import QueryFile
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
def test_systems_are_compared_on_the_same_files_and_resumed(
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
    assert "no program /nowhere/olaf" in results["left_out"]["olaf"]
    assert "| olaf | - | not measured |" in results["table"]
    assert (config.out / "queries" / "noise0-2-s" / "present-00001.wav").is_file()
    assert json.loads((config.out / "peers.json").read_text())["table"] == results["table"]
    # What is measured is not measured again.
    monkeypatch.setattr(peers, "measured", lambda *_: pytest.fail("measured again"))
    assert run(config)["systems"] == results["systems"]
    with pytest.raises(ConfigError, match="queries of other settings"):
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
def test_settings_that_cannot_work_are_refused(changes: dict[str, object], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        PeersConfig(references=[Path("music")], out=Path("out"), **changes)  # type: ignore[arg-type]


# -- answers ---------------------------------------------------------------------------------


def _query(*, present: bool = True) -> QueryFile:
    asked = Outcome(query_id="a", cell="c", present=present, true_track="x.ogg", true_start_s=10.0)
    return QueryFile(path=Path("/q.wav"), source=Path("/m/x.ogg"), asked=asked)


def test_right_answer_is_a_hit_with_its_error() -> None:
    found = _query().outcome(Answer(reference=Path("/m/x.ogg"), offset_s=10.2))
    assert (found.hit, found.accepted) == (True, True)
    assert found.offset_error_s == pytest.approx(0.2)


def test_wrong_answer_is_accepted_and_no_hit() -> None:
    found = _query().outcome(Answer(reference=Path("/other/x.ogg"), offset_s=10.0))
    assert (found.hit, found.accepted, found.offset_error_s) == (False, True, None)


def test_no_answer_is_not_accepted() -> None:
    found = _query().outcome(Answer(error="too short"))
    assert (found.hit, found.accepted, found.error) == (False, False, "too short")


def test_any_answer_to_absent_music_is_wrong() -> None:
    found = _query(present=False).outcome(Answer(reference=Path("/m/x.ogg"), offset_s=10.0))
    assert (found.hit, found.accepted) == (False, True)


def test_answer_without_a_time_is_a_hit_that_is_not_exact() -> None:
    found = _query().outcome(Answer(reference=Path("/m/x.ogg")))
    assert found.hit
    assert not found.within(0.5)
