from __future__ import annotations

from itertools import chain
from pathlib import Path

import pytest

from benchmarks.metrics.outcomes import Outcome
from benchmarks.runs.journal import Journal
from engine.errors import ConfigError

SETTINGS = {"seed": 1, "cells": "quick"}
N_CELLS = 2


def answers(n_questions: int) -> list[list[Outcome]]:
    return [
        [
            Outcome(
                query_id=f"present-{i:05d}", cell=cell, present=True,
                true_track="a.ogg", true_start_s=0.1 + i, rank=1, offset_error_s=0.1 + 0.2,
            )
            for cell in ("clean 5 s", "noise0 5 s")
        ]
        for i in range(n_questions)
    ]  # fmt: skip


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A journal of three questions."""
    path = tmp_path / "new" / "run.jsonl"
    assert len(list(Journal(path, SETTINGS, N_CELLS).note(answers(3)))) == 3
    return path


def test_journal_gives_back_what_was_noted(path: Path) -> None:
    assert Journal(path, SETTINGS, N_CELLS).outcomes == list(chain(*answers(3)))


def test_run_goes_on_where_it_stopped(path: Path) -> None:
    whole = path.read_text()
    for n_characters in range(len(whole) // 2, len(whole), 7):
        path.write_text(whole[:n_characters])
        journal = Journal(path, SETTINGS, N_CELLS)
        n_kept, rest = divmod(len(journal.outcomes), N_CELLS)
        assert rest == 0
        assert n_kept >= whole[:n_characters].count("\n") // N_CELLS - 1
        list(journal.note(answers(3)[n_kept:]))
        assert path.read_text() == whole
        assert journal.outcomes == list(chain(*answers(3)))


def test_outcomes_are_on_disk_before_they_are_passed_on(path: Path) -> None:
    path.unlink()
    for i, _ in enumerate(Journal(path, SETTINGS, N_CELLS).note(answers(3)), 1):
        assert path.read_text().count("\n") == 1 + N_CELLS * i


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({**SETTINGS, "seed": 2}, "seed 1, now 2"),
        ({**SETTINGS, "hop_s": 0.1}, r"hop_s None, now 0\.1"),
    ],
)
def test_other_settings_are_refused_and_named(
    path: Path, settings: dict[str, object], told: str
) -> None:
    before = path.read_bytes()
    with pytest.raises(ConfigError, match=rf"run\.jsonl .*{told}\)"):
        Journal(path, settings, N_CELLS)
    assert path.read_bytes() == before


@pytest.mark.parametrize("content", ['{"query_id": "present-00000"}\n', "text\n", "[1]\n", "3"])
def test_file_that_is_no_journal_is_refused(path: Path, content: str) -> None:
    path.write_text(content)
    with pytest.raises(ConfigError, match="seed None, now 1"):
        Journal(path, SETTINGS, N_CELLS)


def test_empty_file_begins_anew(path: Path) -> None:
    path.write_text("")
    assert Journal(path, SETTINGS, N_CELLS).outcomes == []


def test_run_that_got_nowhere_is_in_nobodys_way(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    assert list(Journal(path, SETTINGS, N_CELLS).note([])) == []
    assert path.read_text().count("\n") == 1
    assert Journal(path, {**SETTINGS, "seed": 2}, N_CELLS).outcomes == []
