from __future__ import annotations

import io

import pytest
from rich.console import Console

from benchmarks.runs import progress
from benchmarks.runs.progress import followed


def shown(terminal: bool) -> tuple[list[int], str]:
    file = io.StringIO()
    console = Console(file=file, force_terminal=terminal, width=100)
    passed = list(followed(range(4), "questions", 10, 6, console))
    return passed, file.getvalue()


@pytest.mark.parametrize("terminal", [True, False])
def test_items_are_passed_on(terminal: bool) -> None:
    assert shown(terminal)[0] == [0, 1, 2, 3]


def test_lines_count_what_was_done_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "LINE_EVERY_S", 0.0)
    lines = shown(False)[1].splitlines()
    assert lines[0].startswith("7/10 questions, about ")
    assert lines[-1].startswith("10/10 questions")


def test_terminal_shows_a_bar() -> None:
    assert "10/10" in shown(True)[1]
