from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import soundfile

from benchmarks.metrics.passages import ALL, Answer
from benchmarks.queries.datasets import RATE
from benchmarks.queries.timeline import Piece
from benchmarks.suites import passages
from benchmarks.suites.passages import RESULTS, PassagesConfig, run
from engine.errors import ConfigError
from engine.records import Occurrence, Repeat
from tests.audio_files import cached_tune
from tests.benchmarks.markdown import rows

N_TRACKS = 6
TRACK_S = 75.0
SUITES = "half-known,same,repeats"
MORE_SUITES = "jingles,rejects,long"


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> PassagesConfig:
    folder = tmp_path_factory.mktemp("passages")
    for kind, first_seed, n_files, seconds in (
        ("music", 0, N_TRACKS, TRACK_S), ("speech", 30, 2, 60.0), ("noise", 40, 1, 8.0)
    ):  # fmt: skip
        (folder / kind).mkdir()
        for seed in range(first_seed, first_seed + n_files):
            waveform = cached_tune(seed, seconds, RATE)
            soundfile.write(folder / kind / f"{seed}.wav", waveform, RATE)
    return PassagesConfig(
        references=[folder / "music"], absent=[folder / "music"], speech=folder / "speech",
        noise=folder / "noise", out=folder / "out", suites=SUITES, n=1, model=tiny_model,
        device="cpu", jobs=1,
    )  # fmt: skip


@pytest.fixture(scope="module")
def results(config: PassagesConfig) -> Iterator[dict[str, Any]]:
    """Results of a run in this process, as the start of others takes most of the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(passages, "map_in_order", _map)
        yield run(config)


def _map(make: Any, arguments: tuple[Any, ...], items: Any, n_processes: int) -> Iterator[Any]:
    if waiting := list(items):
        yield from map(make(*arguments), waiting)


def value(results: dict[str, Any], *key: str) -> float:
    names = ("suite", "row", "command", "measure")
    (found,) = [f for f in results["figures"] if tuple(f[name] for name in names) == key]
    return float(found["value"])


def test_a_third_of_the_references_is_absent(
    config: PassagesConfig, results: dict[str, Any]
) -> None:
    assert results["catalog"]["n_tracks"] == 4
    assert results["n_absent"] == 2
    absent = set(config.sources.absent)
    assert absent.isdisjoint(config.sources.known)


def test_every_row_is_answered_by_its_commands(results: dict[str, Any]) -> None:
    keys = {(f["suite"], f["row"], f["command"]) for f in results["figures"]}
    assert {key for key in keys if key[0] == "half-known"} == {
        ("half-known", row, command)
        for row in ("unknown before", "unknown after", ALL)
        for command in ("query", "scan")
    }
    assert {key[2] for key in keys if key[0] == "same"} == {"same", "dedup"}
    assert {key for key in keys if key[0] == "repeats"} == {("repeats", "3 files", "repeats")}
    assert all(value(results, *key, "failed cases") == 0.0 for key in keys)


def test_identical_music_is_found(results: dict[str, Any]) -> None:
    for row in ("unknown before", "unknown after"):
        found = value(results, "half-known", row, "query", "pieces found")
        # The known part alone is found with a high confidence.
        assert found + value(results, "half-known", row, "query", "confidence lost") > 0.5
    assert value(results, "same", ALL, "same", "pieces found") > 0.5


def test_results_and_reports_are_written(config: PassagesConfig, results: dict[str, Any]) -> None:
    assert json.loads((config.out / RESULTS).read_text()) == json.loads(json.dumps(results))
    assert (config.out / "report.md").read_text().startswith("# Passages")
    assert (config.out / "report.html").read_text().count("<svg") == len(SUITES.split(","))


def test_repeated_run_answers_nothing_again(
    config: PassagesConfig, results: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(passages, "_Worker", None)
    again = run(dataclasses.replace(config, before=config.out / RESULTS))
    assert again["figures"] == results["figures"]
    assert again["before"]["figures"] == results["figures"]
    assert rows(again["table"])[0][-3:] == ["before", "now", "reached"]


def test_answers_depend_on_the_code_but_inputs_do_not(
    config: PassagesConfig, results: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    answers_id, inputs = passages._answers_id(config), config.inputs
    monkeypatch.setattr("benchmarks.runs.provenance._ENGINE", ("astound/*.py",))
    changed = dataclasses.replace(config)
    assert passages._answers_id(changed) != answers_id
    assert changed.inputs == inputs
    assert dataclasses.replace(config, seed=2).inputs != inputs


@pytest.mark.slow
def test_other_suites_run_in_processes(config: PassagesConfig) -> None:
    found = run(dataclasses.replace(config, suites=MORE_SUITES, processes=2))
    assert {f["suite"] for f in found["figures"]} == set(MORE_SUITES.split(","))
    assert {f["command"] for f in found["figures"] if f["suite"] == "rejects"} == {
        "query, music", "query, speech"
    }  # fmt: skip
    for command in ("query", "scan"):
        assert value(found, "long", "2 min", command, "× real time") > 0
        assert value(found, "long", "2 min", command, "peak memory") > 1


def test_repeat_has_the_name_of_the_one_it_overlaps_most() -> None:
    pieces = [
        Piece(track=name, query_start_s=start_s, query_end_s=start_s + 10, reference_start_s=0,
              recording=recording)
        for name, start_s, recording in (("intro", 5, 0), ("intro", 8, 1), ("spot", 30, 1))
    ]  # fmt: skip

    def named(*spans: tuple[int, float, float]) -> str:
        occurrences = tuple(Occurrence(recording=r, start_s=s, end_s=e) for r, s, e in spans)
        return passages._true_name(Repeat(occurrences=occurrences, score=1.0), pieces)

    assert named((0, 4, 14), (1, 7, 17)) == "intro"
    assert named((0, 13, 16), (1, 29, 40)) == "spot"
    assert named((0, 20, 25), (1, 20, 25)) == ""


def test_mirror_image_exchanges_query_and_reference() -> None:
    answer = Answer(
        track="a", query_start_s=0, query_end_s=10, reference_start_s=30, reference_end_s=50,
        speed=2.0,
    )  # fmt: skip
    mirrored = passages._swapped(answer)
    assert (mirrored.query_start_s, mirrored.reference_end_s, mirrored.speed) == (30, 10, 0.5)
    assert passages._swapped(mirrored) == answer
    near = dataclasses.replace(answer, query_end_s=10.09)
    far = dataclasses.replace(answer, query_end_s=10.2)
    assert passages._are_equal([answer, mirrored], [mirrored, near])
    assert not passages._are_equal([answer], [far])
    assert not passages._are_equal([answer], [])
    assert passages._are_equal([], [])


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"n": 0}, "n=0"),
        ({"hold_out": 1.0}, "hold_out=1.0"),
        ({"suites": "joins,mixes"}, "suites='mixes': must be one of joins, "),
    ],
)
def test_invalid_settings_are_refused(
    config: PassagesConfig, change: dict[str, Any], match: str
) -> None:
    with pytest.raises(ConfigError, match=match):
        dataclasses.replace(config, **change)


def test_missing_absent_music_and_other_results_are_refused(
    config: PassagesConfig, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="no absent music; use --absent or --hold-out"):
        run(dataclasses.replace(config, hold_out=0.0))
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"before: other\.json is no results"):
        run(dataclasses.replace(config, before=tmp_path / "other.json"))
