from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.queries.datasets import Noises, Rooms
from benchmarks.runs import baseline
from benchmarks.suites import quick
from benchmarks.suites.quick import QuickConfig
from engine.errors import ConfigError
from tests.benchmarks.markdown import rows


@pytest.fixture
def config(tmp_path: Path, tiny_model: Path) -> QuickConfig:
    return QuickConfig(
        baseline=tmp_path / "baseline.json", n_tunes=2, n_absent_tunes=1, n_queries=2, n_absent=1,
        distortions="clean,room5", n_rounds=1, processes=1, model=tiny_model,
    )  # fmt: skip


def test_compose_writes_usable_sounds(tmp_path: Path, config: QuickConfig) -> None:
    quick.compose(replace(config, n_tunes=1), tmp_path)
    assert not Rooms(tmp_path / "rooms").refused
    assert len(Noises(tmp_path / "noise").paths) == 2
    assert len(list((tmp_path / "music").iterdir())) == 1


def test_missing_baseline_is_refused(config: QuickConfig) -> None:
    with pytest.raises(ConfigError, match="--update"):
        quick.run(config)


def test_shipped_baseline_is_of_the_default_queries() -> None:
    shipped = baseline.read(quick.BASELINE)
    labels = quick.DISTORTIONS.split(",")
    names = {f"{label} {s:g} s" for label in labels for s in quick.DURATIONS_S}
    config = QuickConfig()
    assert set(shipped.right["right track"]) == names
    assert {len(one) for one in shipped.right["right track"].values()} == {config.n_queries}
    assert {len(one) for one in shipped.right["absent music rejected"].values()} == {
        config.n_absent
    }


@pytest.mark.slow
def test_same_code_loses_nothing(config: QuickConfig) -> None:
    assert quick.run(replace(config, update=True))["losses"] == []
    written = baseline.read(config.baseline)
    free = dict.fromkeys(written.costs, 1e9)  # one round on a busy machine does not measure speed
    baseline.write(config.baseline, replace(written, costs=free))
    results = quick.run(config)
    assert results["losses"] == []
    assert ["right track, clean 3 s", "2 of 2", "2 of 2"] in rows(results["table"])
