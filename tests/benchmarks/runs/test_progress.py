from __future__ import annotations

import io

import pytest
from rich.console import Console

from astound.output import progress
from benchmarks.runs.progress import track


def shown(terminal: bool) -> tuple[list[int], str]:
    file = io.StringIO()
    console = Console(file=file, force_terminal=terminal, width=100)
    passed = list(track(range(4), "questions", 10, 6, console))
    return passed, file.getvalue()


@pytest.mark.parametrize("terminal", [True, False])
def test_track_yields_items(terminal: bool) -> None:
    assert shown(terminal)[0] == [0, 1, 2, 3]


def test_track_lines_include_earlier_items(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "LINE_EVERY_S", 0.0)
    lines = shown(False)[1].splitlines()
    assert lines[0].startswith("questions: 7/10, ")
    assert lines[-1].startswith("questions: 10/10")


def test_track_terminal_shows_a_bar() -> None:
    assert "10/10" in shown(True)[1]
