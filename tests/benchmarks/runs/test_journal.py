from __future__ import annotations

from dataclasses import asdict
from itertools import chain
from pathlib import Path

import pytest

from benchmarks.metrics.outcomes import Outcome
from benchmarks.runs.journal import Journal, collect_outcomes
from engine.errors import ConfigError

SETTINGS = {"seed": 1, "cells": "quick"}
N_CELLS = 2


def groups(n_questions: int) -> list[list[Outcome]]:
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
    assert len(collect(Journal(path, SETTINGS, N_CELLS), groups(3))) == 3 * N_CELLS
    return path


def collect(journal: Journal, answers: list[list[Outcome]]) -> list[Outcome]:
    return collect_outcomes(journal, answers, "questions", 3)


def test_journal_returns_what_was_written(path: Path) -> None:
    journal = Journal(path, SETTINGS, N_CELLS)
    assert collect(journal, []) == list(chain(*groups(3)))
    assert journal.n_groups == 3


def test_torn_journal_resumes_after_the_last_group(path: Path) -> None:
    whole = path.read_text()
    for n_characters in range(len(whole) // 2, len(whole), 7):
        path.write_text(whole[:n_characters])
        journal = Journal(path, SETTINGS, N_CELLS)
        n_kept, rest = divmod(len(journal.records), N_CELLS)
        assert rest == 0
        assert n_kept >= whole[:n_characters].count("\n") // N_CELLS - 1
        assert collect(journal, groups(3)[n_kept:]) == list(chain(*groups(3)))
        assert path.read_text() == whole


def test_records_are_on_disk_once_appended(path: Path) -> None:
    path.unlink()
    journal = Journal(path, SETTINGS, N_CELLS)
    for i, group in enumerate(groups(3), 1):
        journal.append(*map(asdict, group))
        assert path.read_text().count("\n") == 1 + N_CELLS * i


@pytest.mark.parametrize(
    ("settings", "difference"),
    [
        ({**SETTINGS, "seed": 2}, "seed 1, now 2"),
        ({**SETTINGS, "hop_s": 0.1}, r"hop_s None, now 0\.1"),
    ],
)
def test_other_settings_are_refused_and_named(
    path: Path, settings: dict[str, object], difference: str
) -> None:
    before = path.read_bytes()
    with pytest.raises(ConfigError, match=rf"run\.jsonl .*{difference}\)"):
        Journal(path, settings, N_CELLS)
    assert path.read_bytes() == before


@pytest.mark.parametrize("content", ['{"query_id": "present-00000"}\n', "text\n", "[1]\n", "3"])
def test_invalid_file_is_refused(path: Path, content: str) -> None:
    path.write_text(content)
    with pytest.raises(ConfigError, match="seed None, now 1"):
        Journal(path, SETTINGS, N_CELLS)


def test_empty_file_starts_again(path: Path) -> None:
    path.write_text("")
    assert Journal(path, SETTINGS, N_CELLS).records == []


def test_journal_without_records_may_have_other_settings(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    assert collect(Journal(path, SETTINGS, N_CELLS), []) == []
    assert path.read_text().count("\n") == 1
    assert Journal(path, {**SETTINGS, "seed": 2}, N_CELLS).records == []
