from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from training.run_log import LOG_FILE, RunLog

RATES = {"noise0 1s": 0.25, "mean": 0.5}


def noted(out: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (out / LOG_FILE).read_text().splitlines()]


def test_run_log_writes_steps_and_validations(tmp_path: Path) -> None:
    run_log = RunLog(tmp_path)
    run_log.log_step(0, loss=1.23456789, hit_rate=0.5)
    run_log.log_validation(0, RATES)
    assert noted(tmp_path) == [
        {"step": 0, "loss": 1.234568, "hit_rate": 0.5},
        {"step": 0, "validation/noise0 1s": 0.25, "validation/mean": 0.5},
    ]
    assert run_log.validations() == [(1, 0.5)]


def test_run_log_truncate_drops_steps_after_the_checkpoint(tmp_path: Path) -> None:
    run_log = RunLog(tmp_path)
    for step in range(5):
        run_log.log_step(step, loss=float(step))
    with (tmp_path / LOG_FILE).open("a") as file:
        file.write('{"step": 5, "lo')  # killed while it wrote
    again = RunLog(tmp_path)
    again.truncate(3)
    again.log_step(3, loss=33.0)
    assert [(one["step"], one["loss"]) for one in noted(tmp_path)] == [
        (0, 0),
        (1, 1),
        (2, 2),
        (3, 33),
    ]


def test_run_log_truncate_of_a_new_run_does_nothing(tmp_path: Path) -> None:
    run_log = RunLog(tmp_path)
    run_log.truncate(0)
    assert run_log.validations() == []
    assert not list(tmp_path.iterdir())


def test_run_log_curves_are_in_tensorboard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    # Files of one second are read by the number of the writer in its process, as text: 10 before 9.
    writer = pytest.importorskip("tensorboard.summary.writer.event_file_writer")
    monkeypatch.setattr(writer, "_global_uid", writer.AtomicCounter(0))
    first = RunLog(tmp_path)
    for step in range(5):
        first.log_step(step, loss=float(step))
    first.log_validation(4, RATES)
    again = RunLog(tmp_path)
    again.truncate(3)
    again.log_step(3, loss=33.0)
    again.log_validation(3, RATES)
    shown = accumulator.EventAccumulator(str(tmp_path / "tensorboard"))
    shown.Reload()
    curve = [(one.step, one.value) for one in shown.Scalars("loss")]
    assert curve == [(0, 0), (1, 1), (2, 2), (3, 33)]
    assert [one.value for one in shown.Scalars("validation/mean")] == [0.5]


def test_run_log_without_tensorboard_writes_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    RunLog(tmp_path).log_step(0, loss=1.0)
    RunLog(tmp_path).log_validation(0, RATES)
    assert len(noted(tmp_path)) == 2
    assert [path.name for path in tmp_path.iterdir()] == [LOG_FILE]
