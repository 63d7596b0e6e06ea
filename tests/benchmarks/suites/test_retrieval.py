from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.suites.retrieval import JOURNAL, RESULTS, RetrievalConfig, run
from engine.errors import ConfigError
from tests.benchmarks.markdown import rows

N_CELLS = 3
N_QUERIES = 3
N_ABSENT = 2


@pytest.fixture(scope="module")
def config(sounds: Path, tiny_model: Path) -> RetrievalConfig:
    return RetrievalConfig(
        references=[sounds / "music"], absent=[sounds / "absent"], noise=sounds / "noise",
        rooms=sounds / "rooms", catalog=sounds / "catalog", out=sounds / "one",
        n_queries=N_QUERIES, n_absent=N_ABSENT, distortions="quick", model=tiny_model, device="cpu",
        jobs=1,
    )  # fmt: skip


@pytest.fixture(scope="module")
def results(config: RetrievalConfig) -> dict[str, Any]:
    return run(config)


def lines(config: RetrievalConfig) -> list[str]:
    return (config.out / JOURNAL).read_text().splitlines(keepends=True)


def elsewhere(config: RetrievalConfig, name: str, journal: str, **changes: Any) -> RetrievalConfig:
    """The same run in another folder, with a journal of finished queries."""
    out = config.out.parent / name
    out.mkdir()
    (out / JOURNAL).write_text(journal)
    return dataclasses.replace(config, out=out, **changes)


def test_run_queries_every_question_in_every_cell(
    config: RetrievalConfig, results: dict[str, Any]
) -> None:
    records = [json.loads(line) for line in lines(config)[1:]]
    ids = [f"present-{i:05d}" for i in range(N_QUERIES)]
    ids += [f"absent-{i:05d}" for i in range(N_ABSENT)]
    names = [cell["cell"] for cell in results["cells"]]
    assert [(record["query_id"], record["cell"]) for record in records] == [
        (query_id, name) for query_id in ids for name in names
    ]
    assert [record["present"] for record in records] == [
        record["query_id"].startswith("present") for record in records
    ]
    assert {cell["present"]["hit_rate"]["n"] for cell in results["cells"]} == {N_QUERIES}
    assert {cell["absent"]["false_accept_rate"]["n"] for cell in results["cells"]} == {N_ABSENT}


def test_run_finds_clean_music(results: dict[str, Any]) -> None:
    clean = results["cells"][0]["present"]
    assert clean["hit_rate"]["value"] == 1.0
    assert clean["exact"]["value"] == 1.0


def test_results_are_written(config: RetrievalConfig, results: dict[str, Any]) -> None:
    assert json.loads((config.out / RESULTS).read_text()) == json.loads(json.dumps(results))
    assert results["query_hop_s"] == 0.125
    assert rows(results["tables"]["hits"])[1][:2] == ["clean", "100.0 / 100.0"]
    assert "false accepts" in results["tables"]["acceptance"]


@pytest.mark.slow
def test_interrupted_run_resumes_with_more_processes_to_the_same_results(
    config: RetrievalConfig, results: dict[str, Any]
) -> None:
    whole = lines(config)
    cut = "".join(whole[: 1 + N_CELLS + 1]) + '{"query_id": "pres'
    resumed = elsewhere(config, "two", cut, processes=2)
    found = run(resumed)
    assert lines(resumed) == whole
    for key in ("cells", "all", "open_set", "calibration", "tables"):
        assert found[key] == results[key]


def test_interrupted_run_resumes_to_the_same_results(
    config: RetrievalConfig, results: dict[str, Any]
) -> None:
    whole = lines(config)
    resumed = elsewhere(config, "half", "".join(whole[: 1 + 2 * N_CELLS + 2]))
    assert run(resumed)["open_set"] == results["open_set"]
    assert lines(resumed) == whole


def test_reports_are_written(config: RetrievalConfig, results: dict[str, Any]) -> None:
    assert (config.out / "report.md").read_text().startswith("# Retrieval")
    assert (config.out / "report.html").read_text().count("<svg") == 4


@pytest.mark.slow
def test_cells_without_their_sounds_are_left_out(
    config: RetrievalConfig, results: dict[str, Any]
) -> None:
    bare = dataclasses.replace(
        config, noise=None, rooms=None, out=config.out.parent / "bare", distortions="clean,noise0",
        durations_s=(2.0,), n_queries=1, n_absent=0,
    )  # fmt: skip
    found = run(bare)
    assert [cell["label"] for cell in found["cells"]] == ["clean"]
    assert found["left_out"] == {"noise0": ["noise"]}
    assert "Left out without --noise: noise0." in (bare.out / "report.md").read_text()
    with pytest.raises(ConfigError, match="needs --noise and --rooms"):
        dataclasses.replace(bare, distortions="room5")


def test_finished_run_is_not_repeated(config: RetrievalConfig, results: dict[str, Any]) -> None:
    noted = [lines(config)[0], *(line.replace("0.wav", "x.wav") for line in lines(config)[1:])]
    finished = elsewhere(config, "three", "".join(noted))
    run(finished)
    assert lines(finished) == noted
    assert noted != lines(config)


@pytest.mark.parametrize(
    "change", [{"seed": 2}, {"query_hop_s": 0.25}, {"n_absent": 1}, {"distortions": "issue"}]
)
def test_other_settings_are_refused(
    config: RetrievalConfig, results: dict[str, Any], change: dict[str, Any]
) -> None:
    with pytest.raises(ConfigError, match="other settings"):
        run(dataclasses.replace(config, **change))


@pytest.mark.parametrize(
    "change", [{"n_queries": 0}, {"processes": 0}, {"n_absent": -1}, {"query_hop_s": 0.0}]
)
def test_invalid_settings_are_refused(config: RetrievalConfig, change: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(change))):
        dataclasses.replace(config, **change)
