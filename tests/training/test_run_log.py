from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from training.run_log import LOG, Journal

RATES = {"noise0 1s": 0.25, "mean": 0.5}


def noted(out: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (out / LOG).read_text().splitlines()]


def test_journal_notes_steps_and_validations(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.note(0, loss=1.23456789, hit_rate=0.5)
    journal.note_validation(0, RATES)
    assert noted(tmp_path) == [
        {"step": 0, "loss": 1.234568, "hit_rate": 0.5},
        {"step": 0, "validation/noise0 1s": 0.25, "validation/mean": 0.5},
    ]
    assert journal.validations() == [(1, 0.5)]


def test_journal_forgets_what_comes_after_the_checkpoint(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    for step in range(5):
        journal.note(step, loss=float(step))
    with (tmp_path / LOG).open("a") as file:
        file.write('{"step": 5, "lo')  # killed while it wrote
    again = Journal(tmp_path)
    again.forget_from(3)
    again.note(3, loss=33.0)
    assert [(one["step"], one["loss"]) for one in noted(tmp_path)] == [
        (0, 0),
        (1, 1),
        (2, 2),
        (3, 33),
    ]


def test_journal_of_a_new_run_has_nothing_to_forget(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.forget_from(0)
    assert journal.validations() == []
    assert not list(tmp_path.iterdir())


def test_journal_shows_the_curves_in_tensorboard(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    first = Journal(tmp_path)
    for step in range(5):
        first.note(step, loss=float(step))
    first.note_validation(4, RATES)
    again = Journal(tmp_path)
    again.forget_from(3)
    again.note(3, loss=33.0)
    again.note_validation(3, RATES)
    shown = accumulator.EventAccumulator(str(tmp_path / "tensorboard"))
    shown.Reload()
    curve = [(one.step, one.value) for one in shown.Scalars("loss")]
    assert curve == [(0, 0), (1, 1), (2, 2), (3, 33)]
    assert [one.value for one in shown.Scalars("validation/mean")] == [0.5]


def test_journal_without_tensorboard_still_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    Journal(tmp_path).note(0, loss=1.0)
    Journal(tmp_path).note_validation(0, RATES)
    assert len(noted(tmp_path)) == 2
    assert [path.name for path in tmp_path.iterdir()] == [LOG]
