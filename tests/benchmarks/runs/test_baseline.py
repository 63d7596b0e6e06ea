from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.metrics.outcomes import Outcome
from benchmarks.runs.baseline import (
    MAX_RISE,
    MAX_RISE_QUERY,
    Baseline,
    baseline,
    losses,
    read,
    rows,
    write,
)
from engine.errors import ConfigError

COSTS = {"decoding": 2.0, "query": 2.0}


def outcomes(n_wrong: int = 0, n_accepted: int = 0) -> list[Outcome]:
    """Forty queries in each of two cells, the first few of them wrong."""
    found = []
    for cell in ("clean 2 s", "noise0 2 s"):
        for i in range(40):
            asked = Outcome(
                query_id=f"p{i}", cell=cell, present=True, true_track="t", true_start_s=1.0 * i
            )
            wrong = i < n_wrong and cell == "noise0 2 s"
            rank, error_s = (2, None) if wrong else (1, 0.1)
            found.append(replace(asked, rank=rank, offset_error_s=error_s, accepted=True))
            unknown = replace(asked, query_id=f"a{i}", present=False)
            found.append(replace(unknown, accepted=i < n_accepted))
    return found


def run(n_wrong: int = 0, n_accepted: int = 0, cost: float = 2.0) -> Baseline:
    return baseline(
        outcomes(n_wrong, n_accepted), {"decoding": 2.0, "query": cost}, {"commit": "abc"}
    )


def test_losses_same_answers_none() -> None:
    assert losses(run(), run()) == []


def test_losses_few_wrong_answers_none() -> None:
    assert losses(run(5), run(9)) == []


def test_losses_many_wrong_answers_one_line_each() -> None:
    found = losses(run(), run(12))
    assert "noise0 2 s: right track fell from 40 to 28 of 40" in found
    assert "all: right track fell from 80 to 68 of 80" in found
    assert not any(line.startswith("clean") for line in found)


def test_losses_better_answers_none() -> None:
    assert losses(run(20, 20, 9.0), run()) == []


def test_losses_accepted_absent_music() -> None:
    assert any("absent music rejected fell" in line for line in losses(run(), run(0, 15)))


@pytest.mark.parametrize(("name", "max_rise"), [("decoding", MAX_RISE), ("query", MAX_RISE_QUERY)])
def test_losses_costs_above_the_limit(name: str, max_rise: float) -> None:
    least, most = ({**COSTS, name: 2.0 * (1 + max_rise) + more} for more in (-0.01, 0.01))
    assert losses(run(), replace(run(), costs=least)) == []
    (line,) = losses(run(), replace(run(), costs=most))
    assert line == f"{name}: costs rose from 2.00 to {most[name]:.2f} reference units"


def test_losses_other_queries_or_work_raises() -> None:
    other = baseline(outcomes()[2:], COSTS, {})
    with pytest.raises(ConfigError, match="--update"):
        losses(run(), other)
    with pytest.raises(ConfigError, match="--update"):
        losses(run(), replace(run(), costs={"other": 1.0}))


def test_read_returns_what_was_written(tmp_path: Path) -> None:
    write(tmp_path / "new" / "b.json", run(3))
    assert read(tmp_path / "new" / "b.json") == run(3)


@pytest.mark.parametrize("text", [None, "{}", "no json"])
def test_read_invalid_file_suggests_update(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "b.json").write_text(text)
    with pytest.raises(ConfigError, match=r"b\.json.*--update"):
        read(tmp_path / "b.json")


def test_rows_show_before_and_now() -> None:
    shown = rows(run(), run(12))
    assert ["right track, noise0 2 s", "40 of 40", "28 of 40"] in shown
    assert ["query, reference units", "2.00", "2.00"] in shown
    assert ["query, reference units", "-", "2.00"] in rows(None, run())
